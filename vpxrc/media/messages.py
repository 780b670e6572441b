"""The errors that ffmpeg's libraries log while they read a file.

Libraries that leave out a part of a damaged file often say so in their log alone. Level and part
are fields of a log entry, and no words are looked at: a title of the file could imitate them.
"""

import logging
import os
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from av.logging import Capture

Entry = tuple[int, str, str]  # level, part, words

logging.getLogger("libav").addHandler(logging.NullHandler())  # else they are printed


class _Switch:
    """Turns the log on while anybody listens, in any thread, and then back to what it was.

    What comes of threads in which nobody hears is counted here. They are those of decoders, and an
    entry does not say of which one.
    """

    def __init__(self) -> None:
        self._before: tuple[int | None, bool] = (None, True)
        self._capture: Capture | None = None
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._listeners = 0
        self._elsewhere: Counter[str] = Counter()  # by part

    def on(self) -> None:
        """Count a listener."""
        import av.logging

        with self._lock:
            if not self._listeners:
                self._before = level, _ = av.logging.get_level(), av.logging.get_skip_repeated()
                av.logging.set_level(max(av.logging.ERROR, level or av.logging.ERROR))
                av.logging.set_skip_repeated(False)
                self._capture = av.logging.Capture(local=False)
                self._capture.__enter__()
            self._listeners += 1

    def off(self) -> None:
        """Count a listener less."""
        with self._lock:
            self._listeners -= 1
            if not self._listeners:
                self._restore()

    def _restore(self) -> None:
        import av.logging

        av.logging.set_level(self._before[0])
        av.logging.set_skip_repeated(self._before[1])
        if self._capture is not None:
            self._capture.__exit__(None, None, None)
            self._capture = None

    def elsewhere(self, part: str) -> int:
        """Return how many errors of a part came of other threads since the process began."""
        import av.logging

        with self._lock:
            entries = [] if self._capture is None else self._capture.logs
            while entries:
                level, name, _ = entries.pop()
                self._elsewhere[name] += level <= av.logging.ERROR
            return self._elsewhere[part]

    def after_fork(self) -> None:
        """Begin anew: in a forked process no thread of its parent listens."""
        if self._listeners:
            self._restore()
        self._begin()


_switch = _Switch()
os.register_at_fork(after_in_child=_switch.after_fork)


@contextmanager
def listening(part: str = "") -> Iterator[Callable[[], bool]]:
    """Have errors logged during the block.

    Threads of a decoder log with Python's lock, and must be at rest at the end of the block.

    Args:
        part: The name of a decoder.

    Yields:
        What says whether a decoder of this name has logged an error in another thread. It may be
        one that another reader of this process has.
    """
    _switch.on()
    before = _switch.elsewhere(part)
    try:
        yield lambda: _switch.elsewhere(part) > before
    finally:
        _switch.off()


@contextmanager
def heard() -> Iterator[list[Entry]]:
    """Yield a list that gets what this thread logs during the block.

    A generator must not yield within it: it would hear what others read.
    """
    import av.logging

    with av.logging.Capture(local=True) as entries:
        yield entries


def are_of(entries: list[Entry], *names: str) -> bool:
    """Whether any entry is an error of one of these parts.

    Args:
        entries: What was heard.
        names: Names of formats and decoders; that of reading from the file itself is empty.
    """
    import av.logging

    return any(level <= av.logging.ERROR and part in names for level, part, _ in entries)
