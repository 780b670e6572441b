"""Long clips in chunks: cut where libvpx would have a key frame, encoded at the same time.

A chunk is an encode of its own, first pass included, so every policy works in it as on a short
clip, and the chunks' packets one after the other are the clip's stream. The chunks share a budget:
bits are allocated by a power of the first pass's error, as in libvpx's own two-pass control. Where
the whole misses its target, the chunks that miss their share most are encoded again. The result
does not depend on the number of chunks that are encoded at the same time.
"""

import dataclasses
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from vpxrc.cache import map_file
from vpxrc.encoder.complexity import coded_error
from vpxrc.encoder.first_pass import first_pass_stats, first_pass_table
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import InputError
from vpxrc.media.frames import Samples, Video, as_samples, frame_bytes, video_from_frames
from vpxrc.parallel import Workers, open_workers
from vpxrc.policies.base import encode
from vpxrc.policies.registry import make_policy
from vpxrc.storage import temporary_folder
from vpxrc.transcoding.keeping import Keeper

# Exponent of the bit allocation: a frame gets bits in proportion to `error ** POWER`. libvpx uses
# 0.5, which minimises mean squared error; 0 (equal bits) maximises mean PSNR. With this value both
# gain on the clip as a whole (benchmarks/chunks.py).
POWER = 0.25
MAX_BITRATE = 2_000_000  # kbit/s
_ROUNDS = 4  # Chunks are encoded again so often at most.
_STEP = 0.1  # A chunk's bits change by this share at most to make up for other chunks.
_POLL = 0.2  # seconds between two looks at the workers' progress
#: Encodes a clip and reports the number of frames done. It is a module's function, or a partial of
#: one, because worker processes receive it by pickling.
Encode = Callable[[Video, EncoderOptions, Callable[[int], None]], EncodeLog]


@dataclass(frozen=True, eq=False)
class Chunk:
    """A part of a clip that was coded by itself.

    Attributes:
        start: The chunk's first frame in the clip.
        options: The encoder's options with the chunk's own target.
        log: The chunk's encode.
    """

    start: int
    options: EncoderOptions
    log: EncodeLog


def encode_by(
    spec: str, video: Video, options: EncoderOptions, progress: Callable[[int], None]
) -> EncodeLog:
    """Encode under the policy of a name: with ``functools.partial`` an :data:`Encode`.

    Args:
        spec: As :func:`vpxrc.make_policy` takes it.
        video: The clip.
        options: The encoder's options with the target.
        progress: Called with the number of frames coded so far.
    """
    return encode(video, options, make_policy(spec), progress=progress)


@runtime_checkable
class FramewiseEncode(Protocol):
    """An :data:`Encode` to which it matters which frames it gets."""

    def of_frames(self, frames: Sequence[int], video: Video) -> Encode:
        """Return the encode of some frames.

        Args:
            frames: Their numbers in the clip.
            video: The clip.

        Raises:
            InputError: The clip cannot be encoded like this.
        """


def of_frames(encode: Encode, frames: Sequence[int], video: Video) -> Encode:
    """Return what encodes some frames of a clip; see :class:`FramewiseEncode`."""
    return encode.of_frames(frames, video) if isinstance(encode, FramewiseEncode) else encode


class ChunkedEncode:
    """An encode of a clip in chunks; one chunk is the clip as a whole.

    A context manager, at whose end the processes end. They are started afresh: a script calls this
    under ``if __name__ == "__main__":``.

    Args:
        video: The clip.
        options: The encoder's options with the target of the whole.
        encode: The function that encodes a chunk.
        starts: First frames of the chunks, as :func:`vpxrc.encoder.key_frames.cut` gives them.
        jobs: Number of chunks at the same time. With 1 no process is started.
        power: Exponent of the bit allocation; see :func:`share`.
        progress: Called with the number of frames done since the last beginning and the number to
            be done, from another thread too.
        keeper: Keeps finished chunks, and gives back those of an earlier encode.

    Raises:
        InputError: ``jobs`` is below 1.
    """

    def __init__(
        self,
        video: Video,
        options: EncoderOptions,
        encode: Encode,
        starts: Sequence[int] = (0,),
        jobs: int = 1,
        progress: Callable[[int, int], None] | None = None,
        keeper: Keeper | None = None,
        power: float = POWER,
    ) -> None:
        if jobs < 1:
            raise InputError(f"jobs must be at least 1, not {jobs}")
        self._video = video
        self._options = options
        self._encode = encode
        self._bounds = [*starts, video.num_frames]
        self.jobs = jobs
        self._power = power
        self._progress = progress
        self._keeper = keeper
        self._found: dict[tuple[int, int], Chunk] = {}  # by number and target
        self._tried: list[list[tuple[int, int]]] = [[] for _ in starts]  # target, bits
        self.chunks: list[Chunk] = []
        self._open = ExitStack()
        self._workers: Workers | None = None  # the same for all rounds

    def __enter__(self) -> Self:
        """Return the encode."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """End the processes."""
        self._open.__exit__(kind, error, traceback)

    def run(self, target_bitrate: int | None = None) -> None:
        """Encode every chunk at its share of the target.

        Args:
            target_bitrate: A target in kbit/s that takes the place of the one before.

        Raises:
            PolicyError: The policy raised or answered out of range.
            EncoderError: An encode failed, or a worker was killed.
        """
        if target_bitrate is not None:
            self._options = dataclasses.replace(self._options, target_bitrate=target_bitrate)
            self._tried = [[] for _ in self._tried]
        targets = [self._options.target_bitrate]
        if len(self._bounds) > 2:
            stats = first_pass_table(first_pass_stats(self._video, self._options))
            targets = share(stats, self._bounds, self._options.target_bitrate, self._power)
        found = self._encode_at(dict(enumerate(targets)))
        self.chunks = list(found.values())

    def fit(self, low: float, high: float) -> None:
        """Encode chunks again until the bits of the whole are between two bounds.

        The closest attempt is kept, and one that is not above ``high`` where there is a choice.

        Args:
            low: Fewest bits, of the packets.
            high: Most bits.
        """
        best = list(self.chunks)
        for _ in range(_ROUNDS):
            bits = self._bits(self.chunks)
            if low <= bits <= high:
                break
            targets = self._corrections((low + high) / 2 - bits)
            tried = [{target for target, _ in one} for one in self._tried]
            is_new = any(target not in tried[index] for index, target in targets.items())
            for index, chunk in self._encode_at(targets).items():
                self.chunks[index] = chunk
            if self._miss(self.chunks, low, high) < self._miss(best, low, high):
                best = list(self.chunks)
            elif self._bits(self.chunks) == bits:
                break  # the policy does not look at the target
            self._forget_all_but(*best, *self.chunks)
            if not is_new:
                break
        self.chunks = best

    def _forget_all_but(self, *chunks: Chunk) -> None:
        """Let go of other encodes, which in a video of hours would be hundreds of megabytes."""
        kept = {id(chunk) for chunk in chunks}
        self._found = {key: one for key, one in self._found.items() if id(one) in kept}

    @property
    def log(self) -> EncodeLog:
        """The log of all chunks as one encode.

        ``encodes`` is that of the chunk with the most, and the times are sums over the chunks.
        """
        if len(self.chunks) == 1:
            log = self.chunks[0].log
            asked = dataclasses.replace(log.options, target_bitrate=self._options.target_bitrate)
            return dataclasses.replace(log, options=asked)
        records, packets = [], []
        coding = group = 0
        for chunk in self.chunks:
            rows = chunk.log.records.copy()
            rows["show_index"] += chunk.start
            rows["coding_index"] += coding
            rows["group_index"] += group
            coding, group = int(rows["coding_index"].max()) + 1, int(rows["group_index"].max()) + 1
            records.append(rows)
            packets += [(data, pts + chunk.start) for data, pts in chunk.log.packets]
        logs = [chunk.log for chunk in self.chunks]
        return EncodeLog(
            clip=self._video.format,
            options=dataclasses.replace(
                logs[0].options, target_bitrate=self._options.target_bitrate
            ),
            records=np.concatenate(records),
            packets=packets,
            first_pass=np.concatenate([log.first_pass for log in logs]),
            encode_seconds=sum(log.encode_seconds for log in logs),
            cpu_seconds=sum(log.cpu_seconds for log in logs),
            encodes=max(log.encodes for log in logs),
        )

    def _bits(self, chunks: Sequence[Chunk]) -> int:
        return sum(chunk.log.bits for chunk in chunks)

    def _miss(self, chunks: Sequence[Chunk], low: float, high: float) -> tuple[bool, float]:
        bits = self._bits(chunks)
        return bits > high, max(bits - high, low - bits, 0.0)

    def _corrections(self, missing: float) -> dict[int, int]:
        """Return new targets of the fewest chunks that make up for missing bits."""
        bits = np.array([chunk.log.bits for chunk in self.chunks], dtype=np.float64)
        # What was asked for first.
        shares = np.array(
            [
                1000 * tried[0][0] * chunk.log.clip.duration
                for tried, chunk in zip(self._tried, self.chunks, strict=True)
            ]
        )
        sign = np.sign(missing)
        # How far a chunk may move: to its share, and a little beyond where it has it already.
        room = np.maximum(sign * (shares - bits), _STEP * bits)
        order = np.argsort(-room)
        count = int(np.searchsorted(np.cumsum(room[order]), abs(missing))) + 1
        chosen = order[:count]
        moves = missing * room[chosen] / room[chosen].sum()
        targets = {}
        for index, move in zip(chosen.tolist(), moves.tolist(), strict=True):
            target = self._target(index, bits[index] + move, sign)
            if target != self.chunks[index].options.target_bitrate:
                targets[index] = target
        return targets

    def _target(self, index: int, wanted: float, sign: float) -> int:
        """Return the target at which a chunk should take the bits wanted."""
        target, bits = self._tried[index][-1]
        slope = 1.0  # of log bits over log target
        if len(self._tried[index]) > 1:
            before, had = self._tried[index][-2]
            if before != target:
                slope = float(np.log(bits / had) / np.log(target / before))
        slope = float(np.clip(slope, 0.5, 2.0))
        moved = round(target * (max(wanted, 0.1 * bits) / bits) ** (1 / slope))
        if moved == target:
            moved += int(sign)
        return int(np.clip(moved, 1, MAX_BITRATE))

    def _encode_at(self, wanted: dict[int, int]) -> dict[int, Chunk]:
        """Encode chunks at these targets in kbit/s, by number; what is known is not done again."""
        targets = {i: target for i, target in wanted.items() if not self._is_known(i, target)}
        if targets:
            self._encode_new(targets)
        for index, target in wanted.items():
            self._tried[index].append((target, self._found[index, target].log.bits))
        return {index: self._found[index, target] for index, target in wanted.items()}

    def _is_known(self, index: int, target: int) -> bool:
        """Whether a chunk was coded at a target, in this encode or in one that was kept."""
        if (index, target) not in self._found and self._keeper is not None:
            options = dataclasses.replace(self._options, target_bitrate=target)
            start, stop = self._bounds[index : index + 2]
            log = self._keeper.find(start, stop, options)
            if log is not None:
                self._found[index, target] = Chunk(self._bounds[index], options, log)
        return (index, target) in self._found

    def _encode_new(self, targets: dict[int, int]) -> None:
        total = sum(self._bounds[index + 1] - self._bounds[index] for index in targets)
        with temporary_folder() as folder:
            counts_file = folder / "frames"
            counts = np.memmap(counts_file, np.int64, mode="w+", shape=(len(targets),))
            jobs = []
            for place, (index, target) in enumerate(targets.items()):
                options = dataclasses.replace(self._options, target_bitrate=target)
                part: _Part | Video = self._video
                start, stop = self._bounds[index : index + 2]
                if len(self._bounds) > 2:
                    part = _Part.of(self._video, start, stop)
                encode = of_frames(self._encode, range(start, stop), self._video)
                jobs.append(_Job(index, part, options, encode, counts_file, place))
            with self._watch(counts, total):
                for job, log in self._coded(jobs):
                    chunk = Chunk(self._bounds[job.index], job.options, log)
                    self._found[job.index, targets[job.index]] = chunk
                    if self._keeper is not None:
                        start, stop = self._bounds[job.index : job.index + 2]
                        self._keeper.keep(start, stop, job.options, log)

    def _coded(self, jobs: list["_Job"]) -> Iterator[tuple["_Job", EncodeLog]]:
        if min(self.jobs, len(jobs)) == 1:
            yield from ((job, _run(job)) for job in jobs)
            return
        # The longest first, that none is left over at the end.
        jobs.sort(key=lambda job: self._bounds[job.index] - self._bounds[job.index + 1])
        if self._workers is None:
            count = min(self.jobs, len(self._bounds) - 1)
            self._workers = self._open.enter_context(open_workers(count))
        yield from self._workers.unordered(_run, jobs)

    @contextmanager
    def _watch(self, counts: NDArray[np.int64], total: int) -> Iterator[None]:
        """Report what the workers have counted, from a thread, until the block ends."""
        report = self._progress
        if report is None:
            yield
            return
        over = threading.Event()

        def look() -> None:
            while not over.wait(_POLL):
                report(int(counts.sum()), total)

        report(0, total)
        watcher = threading.Thread(target=look, daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
        report(total, total)


def share(
    stats: NDArray[np.float64], bounds: Sequence[int], target_bitrate: int, power: float = POWER
) -> list[int]:
    """Return every chunk's part of a budget as a target in kbit/s, at least 1.

    The mean of the targets over the frames is ``target_bitrate``, as closely as integers allow.

    Args:
        stats: First-pass statistics of the clip, ``[num_frames, 26]``.
        bounds: First frames of the chunks, and the number of frames.
        target_bitrate: Target of the whole clip in kbit/s.
        power: Exponent of the bit allocation: a frame gets bits in proportion to
            ``error ** power``.
    """
    error = coded_error(stats, weighted=True)
    frames = np.diff(bounds)
    effort = np.add.reduceat(error**power, bounds[:-1])
    exact = target_bitrate * len(error) * effort / effort.sum() / frames
    targets = np.maximum(np.floor(exact), 1).astype(np.int64)
    # The rest, in frames times kbit/s, to those that lost most.
    left = target_bitrate * len(error) - int((targets * frames).sum())
    for index in np.argsort(targets - exact, kind="stable"):
        if left >= frames[index] / 2:
            targets[index] += 1
            left -= int(frames[index])
    return [int(target) for target in targets]


# In the worker processes


@dataclass(frozen=True, eq=False)
class _Part:
    """Some frames of a clip, by the cache's file where there is one: a map would pickle whole."""

    clip: str
    frames: Samples | Path
    geometry: tuple[int, int, Fraction]
    bit_depth: int
    start: int
    stop: int

    @classmethod
    def of(cls, video: Video, start: int, stop: int) -> Self:
        name = getattr(video.frames, "filename", None)
        frames: Samples | Path = video.frames[start:stop]
        with suppress(OSError):
            if name is not None and Path(name).stat().st_size == video.frames.nbytes:
                frames = Path(name).absolute()
        geometry = video.width, video.height, video.fps
        return cls(video.name, frames, geometry, video.bit_depth, start, stop)

    @property
    def name(self) -> str:
        return f"{self.clip}, frames {self.start} to {self.stop - 1}"

    def open(self) -> Video:
        frames = self.frames
        if isinstance(frames, Path):
            size = frame_bytes(*self.geometry[:2], self.bit_depth)
            try:
                with open(str(frames), "rb") as file:
                    whole = map_file(file, (self.stop, size))
            except (OSError, ValueError):
                raise InputError(f"{self.clip}: its decoded frames vanished: {frames}") from None
            frames = as_samples(whole, self.bit_depth)[self.start : self.stop]
        return video_from_frames(frames, *self.geometry, self.name)


@dataclass(frozen=True, eq=False)
class _Job:
    """A chunk to be coded.

    Attributes:
        index: Number of the chunk.
        part: The chunk's frames; the clip itself where there is one chunk.
        options: The encoder's options with the chunk's target.
        encode: The function that encodes the chunk.
        counts: A file of one int64 per job, the number of frames done, for the thread that watches.
        place: Position of this job in that file.
    """

    index: int
    part: _Part | Video
    options: EncoderOptions
    encode: Encode
    counts: Path
    place: int


def _run(job: _Job) -> EncodeLog:
    """Encode a chunk."""
    counts = np.memmap(job.counts, np.int64, mode="r+")

    def count(done: int) -> None:
        counts[job.place] = done

    video = job.part.open() if isinstance(job.part, _Part) else job.part
    log = job.encode(video, job.options, count)
    count(video.num_frames)
    return log
