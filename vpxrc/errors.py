"""The exceptions that vpxrc raises on purpose; all of them are :class:`VpxrcError`."""

from collections.abc import Iterator
from contextlib import contextmanager


class VpxrcError(Exception):
    """Base class: catch it to catch everything that vpxrc raises on purpose."""


class InputError(VpxrcError):
    """The caller's input cannot be used: a file, a video, a number or an unknown name."""


class EncoderError(VpxrcError):
    """An encode, or the decoding of its stream, failed; the message says on which clip and why."""


class EncoderTimeoutError(EncoderError):
    """The encoder did not reach its next decision in time."""


class PolicyError(VpxrcError):
    """A policy raised (see ``__cause__``) or answered something out of range."""


class OutputError(VpxrcError):
    """A result cannot be written, for instance to a read-only folder or a full disk."""


class MissingDependencyError(VpxrcError):
    """An optional package or program is missing; the message has the pip line that installs it."""


@contextmanager
def needing(what: str, extra: str) -> Iterator[None]:
    """Say which extra of vpxrc is missing where an import fails.

    Args:
        what: Who needs it, with the verb, as ``training needs``.
        extra: The extra's name.

    Raises:
        MissingDependencyError: An import failed.
    """
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"{what} {error.name}: pip install 'vpxrc[{extra}]'"
        ) from error
