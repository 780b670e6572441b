"""A quality as the target: which bitrate to try next, so that few encodes reach it.

Over the logarithm of the bitrate, quality is nearly a line where it is expressed in decibels: PSNR
is, and SSIM and VMAF become so by their distance from a perfect score. The search follows that
line from the encodes made so far, first beyond them, and between them once the quality asked for
lies between two of them.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.complexity import coded_error
from vpxrc.encoder.types import FIRST_PASS_FIELDS
from vpxrc.errors import InputError
from vpxrc.media.frames import ClipFormat, Video
from vpxrc.quality import QUALITIES, measure, summarize
from vpxrc.transcoding.chunks import MAX_BITRATE, ChunkedEncode

_START_RANGE = (-9.0, 0.0)  # octaves of bits per pixel, where the first bitrate lies
_STEP = 2.0  # octaves of the bitrate between an encode and the next at most
_INSIDE = 0.1  # A try keeps this share of the distance between its neighbours away from both.
_RESOLUTION = 0.01  # A smaller change of the bitrate moves quality by chance, up or down.
_SLOPE_RANGE = 2.5  # A measured slope counts up to this factor from the usual one.
_SATURATED = 0.002  # rise of the bits below which the policy has no more to give, as a share


@dataclass(frozen=True)
class _Scale:
    """How a quality is measured against a target.

    Attributes:
        best: The score of a perfect picture.
        tolerance: The search ends with a score that is above the target by no more than this.
        start: The rule of :func:`first_bitrate`: log2 of the bits per pixel is these numbers times
            1, the decibels of :meth:`QualityTarget.decibels`, and the two
            :func:`first_pass_errors`.
        is_decibel: Whether the score is in decibels already.
    """

    best: float
    tolerance: float
    start: tuple[float, float, float, float]
    is_decibel: bool = False

    @property
    def slope(self) -> float:
        """Decibels per octave of the bitrate, as they usually are."""
        return 1 / self.start[1]


# `python -m benchmarks.fit_target` has made these rules on training clips. A clip that was left out
# is missed by so many octaves (root mean square): see docs/results/quality-target/start/table.md.
_SCALES = {
    "vmaf": _Scale(100.0, 0.3, (-6.467, 0.403, 0.713, -0.653)),
    "ssim": _Scale(1.0, 0.0005, (-8.303, 0.374, 1.089, -0.859)),
    "psnr": _Scale(100.0, 0.1, (-21.173, 0.322, 1.319, -0.240), is_decibel=True),
    "psnr_overall": _Scale(100.0, 0.1, (-21.784, 0.334, 1.285, -0.240), is_decibel=True),
}


@dataclass(frozen=True)
class QualityTarget:
    """The quality that an encode is to reach.

    Attributes:
        quality: Name of the quality: ``vmaf``, ``ssim``, ``psnr`` or ``psnr_overall``.
        score: The least score: 0..100 for VMAF and, in dB, for PSNR; 0..1 for SSIM.
    """

    quality: str
    score: float

    def __post_init__(self) -> None:
        """Check the name and the range."""
        if self.quality not in _SCALES:
            raise InputError(f"unknown quality {self.quality!r}: choose from {', '.join(_SCALES)}")
        if not 0 < self.score <= self._scale.best:
            raise InputError(
                f"a target of {self.quality} is above 0 and at most {self._scale.best:g}, "
                f"not {self.score:g}"
            )

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the target of a text such as ``vmaf=93``.

        Raises:
            InputError: It is not a quality's name, ``=`` and a score in its range.
        """
        name, _, number = text.partition("=")
        try:
            score = float(number)
        except ValueError:
            raise InputError(f"a target is QUALITY=SCORE as in vmaf=93, not {text!r}") from None
        return cls(name, score)

    def __str__(self) -> str:
        """Return the quality and the score asked for, as in ``VMAF 93``."""
        return self._in_words(f"{self.score:g}")

    @property
    def metric(self) -> str:
        """The metric of :func:`vpxrc.quality.measure` that the quality is computed from."""
        return QUALITIES[self.quality].metric

    @property
    def slope(self) -> float:
        """Decibels per octave of the bitrate, as they usually are."""
        return self._scale.slope

    def in_words(self, score: float) -> str:
        """Return a score of this quality in words, as in ``VMAF 93.12``."""
        return self._in_words(f"{score:.{4 if self.quality == 'ssim' else 2}f}")

    def _in_words(self, number: str) -> str:
        quality = QUALITIES[self.quality]
        return f"{quality.label} {number} {quality.unit}".rstrip()

    @property
    def start(self) -> tuple[float, float, float, float]:
        """The rule of :func:`first_bitrate` for this quality."""
        return self._scale.start

    @property
    def aim(self) -> float:
        """The score to aim at, in decibels: in the middle of the scores that end the search."""
        return self.decibels(self.score + self._scale.tolerance / 2)

    def is_reached(self, score: float) -> bool:
        """Return whether a score is at least the target."""
        return score >= self.score

    def is_met(self, score: float) -> bool:
        """Return whether a score is at least the target, and above it by no more than needed."""
        return self.score <= score <= self.score + self._scale.tolerance

    def is_close(self, score: float) -> bool:
        """Return whether a score is below the target by no more than a viewer can see."""
        return score >= self.score - self._scale.tolerance

    def decibels(self, score: float) -> float:
        """Return a score on a scale on which it is nearly a line over the log of the bitrate.

        That is the score itself for PSNR. Of SSIM and VMAF it is the distance from perfection, in
        decibels; distances below a tenth of the tolerance count as that.
        """
        scale = self._scale
        if scale.is_decibel:
            return score
        distance = max(scale.best - score, 0.1 * scale.tolerance) / scale.best
        return -10 * math.log10(distance)

    @property
    def _scale(self) -> _Scale:
        return _SCALES[self.quality]


@dataclass(frozen=True)
class Try:
    """One bitrate that was tried.

    Attributes:
        target_bitrate: Target that the encoder was given, in kbit/s.
        bitrate: What the encode took, in kbit/s.
        score: The score that it has.
        encodes: Number of encodes that the policy spent on it.
    """

    target_bitrate: int
    bitrate: float
    score: float
    encodes: int


def reach(
    job: ChunkedEncode,
    video: Video,
    target: QualityTarget,
    max_encodes: int,
    threads: int,
    progress: Callable[[int, int | None], None] | None = None,
) -> tuple[Try, ...]:
    """Encode again at other bitrates until the score meets the target; the best encode is kept.

    Args:
        job: The encode, which has run once, at the bitrate of :func:`first_bitrate`.
        video: The source.
        target: The quality asked for.
        max_encodes: Number of bitrates to try at most, at least 1.
        threads: Threads that measure.
        progress: Called with 0 and None whenever measuring begins.

    Returns:
        All tries in their order. ``job`` is left at the one that is kept.

    Raises:
        InputError: No try reaches the target.
        PolicyError: The policy raised or answered out of range.
        EncoderError: An encode failed.
        MissingDependencyError: There is no ffmpeg, or it has no libvmaf.
    """
    tries: list[Try] = []
    while True:
        if progress is not None:
            progress(0, None)
        log = job.log
        decoded = log.options.decode(log.stream, log.clip)
        frames = measure(decoded, video, [target.metric], threads)
        score = summarize(frames, video.width, video.height, video.bit_depth)[target.quality]
        tries.append(Try(log.options.target_bitrate, log.bitrate, score, log.encodes))
        wanted = next_bitrate(target, tries)
        if wanted is None or len(tries) == max_encodes:
            break
        job.run(wanted)
    best = chosen(target, tries)
    if best is None:
        top = max(tries, key=lambda one: one.score)
        limit = f"within {max_encodes} encode(s)"
        raise InputError(
            f"{video.name}: {target} cannot be reached{'' if wanted is None else f' {limit}'}: the "
            f"best is {target.in_words(top.score)}, at {top.bitrate:.1f} kbit/s"
        )
    job.run(tries[best].target_bitrate)  # which is kept, and not done again
    return tuple(tries)


def first_bitrate(target: QualityTarget, clip: ClipFormat, first_pass: NDArray[np.float64]) -> int:
    """Return the target bitrate to try first in kbit/s.

    Args:
        target: The quality asked for.
        clip: The clip.
        first_pass: Its first-pass statistics, ``[num_frames, 26]`` (``FIRST_PASS_FIELDS``).
    """
    octaves = float(np.dot(target.start, (1.0, target.aim, *first_pass_errors(first_pass))))
    octaves = float(np.clip(octaves, *_START_RANGE))
    pixels = clip.pixels * float(clip.fps)
    return int(np.clip(round(2**octaves * pixels / 1000), 1, MAX_BITRATE))


def first_pass_errors(first_pass: NDArray[np.float64]) -> tuple[float, float]:
    """Return log2 of the mean errors of inter and of intra prediction in the first pass.

    Args:
        first_pass: First-pass statistics, ``[num_frames, 26]`` (``FIRST_PASS_FIELDS``).
    """
    inter = coded_error(first_pass).mean()
    intra = first_pass[:, FIRST_PASS_FIELDS.index("intra_error")].mean()
    return float(np.log2(inter + 1)), float(np.log2(intra + 1))


def next_bitrate(target: QualityTarget, tries: Sequence[Try]) -> int | None:
    """Return the target bitrate to try next in kbit/s.

    Args:
        target: The quality asked for.
        tries: What was tried, at least one.

    Returns:
        A bitrate that was not tried, 1..2,000,000. None where the search is over: a try meets the
        target, or no other bitrate would do better.
    """
    if any(target.is_met(one.score) for one in tries):
        return None
    by_rate = sorted(tries, key=lambda one: one.target_bitrate)
    above = next((i for i, one in enumerate(by_rate) if target.is_reached(one.score)), len(by_rate))
    if above == 0:
        return _beyond(target, by_rate[:2])
    if above == len(by_rate):
        return _beyond(target, by_rate[:-3:-1])
    return _between(target, by_rate, above)


def chosen(target: QualityTarget, tries: Sequence[Try]) -> int | None:
    """Return the index of the try to keep.

    Args:
        target: The quality asked for.
        tries: What was tried, at least one.

    Returns:
        Of the tries that reach the target, the one with the fewest bits. Where there is none, the
        best one if it is close to the target, else None.
    """
    reached = [i for i, one in enumerate(tries) if target.is_reached(one.score)]
    if reached:
        return min(reached, key=lambda i: tries[i].bitrate)
    best = max(range(len(tries)), key=lambda i: tries[i].score)
    return best if target.is_close(tries[best].score) else None


def _beyond(target: QualityTarget, nearest: Sequence[Try]) -> int | None:
    """Return a bitrate beyond the tries, all of which are on one side of the target.

    Args:
        target: The quality asked for.
        nearest: The one or two tries nearest to the target, the nearest first.
    """
    last, missing = nearest[0], target.aim - target.decibels(nearest[0].score)
    slope = target.slope
    if len(nearest) > 1:
        before = nearest[1]
        # The bits must follow the target, or the policy is at its finest or coarsest already.
        if abs(last.bitrate / before.bitrate - 1) < _SATURATED:
            return None
        rise = target.decibels(last.score) - target.decibels(before.score)
        measured = rise / math.log2(last.target_bitrate / before.target_bitrate)
        slope = float(np.clip(measured, slope / _SLOPE_RANGE, slope * _SLOPE_RANGE))
    # A target below which every score lies by a hair still asks for a step.
    upward = not target.is_reached(last.score)
    least = math.log2(1 + 2 * _RESOLUTION)
    step = float(np.clip(abs(missing) / slope, least, _STEP))
    exact = last.target_bitrate * 2 ** (step if upward else -step)
    moved = math.ceil(exact) if upward else math.floor(exact)
    moved = min(max(moved, 1), MAX_BITRATE)
    return None if moved == last.target_bitrate else moved


def _between(target: QualityTarget, by_rate: Sequence[Try], above: int) -> int | None:
    """Return a bitrate between two tries, the lower of which falls short of the target.

    Args:
        target: The quality asked for.
        by_rate: The tries by rising bitrate.
        above: Index of the first one that reaches the target, at least 1.
    """
    low, high = by_rate[above - 1].target_bitrate, by_rate[above].target_bitrate
    if high - low <= 1 or high / low < 1 + _RESOLUTION:
        return None
    rates = np.log2([one.target_bitrate for one in by_rate])
    scores = np.array([target.decibels(one.score) for one in by_rate])
    if not (np.diff(scores) > 0).all():
        rates, scores = rates[above - 1 : above + 1], scores[above - 1 : above + 1]
    if scores[0] < scores[-1]:
        # Here, because every command starts faster without SciPy.
        from scipy.interpolate import PchipInterpolator

        rate = float(PchipInterpolator(scores, rates)(min(target.aim, scores[-1])))
    else:
        rate = rates.mean()  # both are perfect but for a hair
    edge = _INSIDE * math.log2(high / low)
    rate = float(np.clip(rate, math.log2(low) + edge, math.log2(high) - edge))
    return min(max(round(2**rate), low + 1), high - 1)
