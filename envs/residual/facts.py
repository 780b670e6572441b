"""The quantities that a residual agent observes, each computed from its own inputs."""

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.complexity import (
    coded_error,
    frames_inside,
    log_complexity,
    mean,
    window_means,
)
from vpxrc.encoder.types import FIRST_PASS_FIELDS, Decision, UpdateType
from vpxrc.envs.residual.config import REFERENCES, Offset, is_reference_frame, own_q
from vpxrc.envs.tables import FIRST_PASS
from vpxrc.envs.view import EncodeView

_SMALL = 1e-4  # bits per pixel, where a logarithm needs one
#: The statistics of the first pass that are observed.
STATISTICS = (
    "intra_error",
    "coded_error",
    "sr_coded_error",
    "frame_noise_energy",
    "pcnt_inter",
    "pcnt_motion",
    "pcnt_second_ref",
    "pcnt_neutral",
    "pcnt_intra_low",
    "intra_skip_pct",
    "mv_row_abs",
    "mv_col_abs",
)
_PLACES = [FIRST_PASS_FIELDS.index(name) for name in STATISTICS]


@dataclass(frozen=True, eq=False)
class ClipFacts:
    """The facts that stay the same throughout an encode.

    Attributes:
        log_error: log2(coded_error / the clip's) per frame, float64 ``[num_frames]``.
        effort: Share of the clip's effort up to and with each frame, float64 ``[num_frames]``.
        spread: Standard deviation of ``log_error``.
        statistics: The ``STATISTICS`` of the first pass in the scales of ``FIRST_PASS``, float32
            ``[num_frames, 12]``.
        means: Their means over the clip.
    """

    log_error: NDArray[np.float64]
    effort: NDArray[np.float64]
    spread: float
    statistics: NDArray[np.float32]
    means: list[float]

    @classmethod
    def of(cls, view: EncodeView) -> "ClipFacts":
        """Return the facts of a clip."""
        first_pass = view.episode.first_pass
        log_error = log_complexity(first_pass)
        effort = np.sqrt(coded_error(first_pass))
        statistics = FIRST_PASS.rows(view)[:, _PLACES]
        return cls(
            log_error,
            np.cumsum(effort) / effort.sum(),
            float(log_error.std()),
            statistics,
            statistics.mean(axis=0).tolist(),
        )

    def means_over(self, part: slice) -> list[float]:
        """Return the means of the statistics over some frames; over none, those of the clip."""
        frames = self.statistics[part]
        if not len(frames):
            return self.means
        means: list[float] = (np.add.reduce(frames) / len(frames)).tolist()
        return means


class KindFacts(NamedTuple):
    """One kind of frames of a group.

    Attributes:
        ahead: How many there are from each position of the group on, ``[group.size]``.
        size: How many there are in all.
        importance: Mean of log2(importance).
        model_bits: log2 of the model's mean bits per pixel; 0 without a model.
        allocation: Mean of ln(libvpx's bits per pixel).
    """

    ahead: list[int]
    size: int
    importance: float
    model_bits: float
    allocation: float


class GroupFacts(NamedTuple):
    """The facts that stay the same at all decisions of a golden-frame group.

    Attributes:
        ahead: Share of its frames from each position on, of those that are coded and in the clip,
            ``[group.size]``.
        known: Which of these the dependency model has, ``[group.size]``.
        length: Frames from one end to the other, at least 1.
        layers: Highest layer depth.
        importance: log2(importance) per frame, ``[group.size]``.
        bits: The model's bits per pixel, ``[group.size]``.
        mean_bits: Their mean over the frames that the model has.
        highest: Highest log2(importance).
        rate: log2(the model's bits per shown frame / target); 0 without a model.
        complexity: Mean of log2(coded_error / the clip's).
        spread: Standard deviation of the same.
        windows: The mean around the group, per window of ``WINDOWS``.
        references: Facts of the frames that others depend on.
        leaves: Facts of the others.
        first_pass: Means of the ``STATISTICS`` of the first pass over the group, over what follows
            it, and over the clip; ``[36]``.
        map_spread: Standard deviation of each frame's map of importance, ``[group.size]``.
        map_max: Highest value of each map, ``[group.size]``.
    """

    ahead: list[float]
    known: list[bool]
    length: int
    layers: int
    importance: list[float]
    bits: list[float]
    mean_bits: float
    highest: float
    rate: float
    complexity: float
    spread: float
    windows: list[float]
    references: KindFacts
    leaves: KindFacts
    first_pass: list[float]
    map_spread: list[float]
    map_max: list[float]

    @classmethod
    def of(cls, view: EncodeView, clip: ClipFacts) -> "GroupFacts":
        """Return the facts of the group that the pending frame is in."""
        group, frames = view.group, view.num_frames
        types, shown = group.update_type.tolist(), group.show_index.tolist()
        coded = [
            kind != UpdateType.SHOWN_AGAIN and place < frames
            for kind, place in zip(types, shown, strict=True)
        ]
        num_coded = max(sum(coded), 1)
        first = group.first_show_index
        last = max((place for place, has in zip(shown, coded, strict=True) if has), default=first)
        inside = frames_inside(first, last)
        length = max(last - first, 1)
        errors = clip.log_error[inside]
        complexity = mean(errors)
        importance = np.log2(view.modelled[:, 0]).tolist()
        model_bits = (view.modelled[:, 1] / view.pixels + _SMALL).tolist()
        in_model = view.modelled[:, 2].tolist()
        allocation = np.log(np.maximum(group.bit_allocation, 1) / view.pixels).tolist()
        known = [has and model > 0 for has, model in zip(coded, in_model, strict=True)]
        nothing = [0.0] * len(types)
        places = [place for place, has in enumerate(known) if has]
        rate = sum(model_bits[n] for n in places) / length
        target = view.target_bits / frames / view.pixels

        def kind_facts(kinds: Collection[int]) -> KindFacts:
            members = [has and kind in kinds for kind, has in zip(types, coded, strict=True)]
            has_model = [n for n in places if members[n]]
            return KindFacts(
                _from_each_on(members),
                sum(members),
                _average([importance[n] for n in has_model]),
                math.log2(_average([model_bits[n] for n in has_model])) if has_model else 0.0,
                _average([bits for bits, has in zip(allocation, members, strict=True) if has]),
            )

        return cls(
            ahead=[count / num_coded for count in _from_each_on(coded)],
            known=known,
            length=length,
            layers=max(group.layer_depth.tolist()),
            importance=importance,
            bits=model_bits,
            mean_bits=_average([model_bits[n] for n in places]),
            highest=max((importance[n] for n in places), default=0.0),
            rate=math.log2(rate / target) if places else 0.0,
            complexity=complexity,
            spread=math.sqrt(mean((errors - complexity) ** 2)),
            windows=window_means(clip.log_error, first, last),
            references=kind_facts(REFERENCES),
            leaves=kind_facts((UpdateType.LEAF,)),
            first_pass=[
                *clip.means_over(inside),
                *clip.means_over(slice(last + 1, frames)),
                *clip.means,
            ],
            map_spread=view.maps.std(axis=(1, 2)).tolist() if places else nothing,
            map_max=view.maps.max(axis=(1, 2)).tolist() if places else nothing,
        )


class Levels:
    """PSNRs of frames, in dB.

    Attributes:
        count: How many there are.
        sum: Their sum.
    """

    def __init__(self) -> None:
        self.count = 0
        self.sum = 0.0

    def add(self, level: float) -> None:
        """Take in one more."""
        self.count += 1
        self.sum += level


class PastGroup:
    """The rows of one golden-frame group that are logged so far.

    Attributes:
        index: Which group.
        bits: Their bits.
        shown: PSNRs of the shown frames.
        coded_bits: Bits of the coded ones.
        coded: PSNRs of the frames that were coded and shown.
        q_indices: q indices of the coded frames: of the references (True), and of the others.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.bits = 0
        self.shown = Levels()
        self.coded_bits = 0
        self.coded = Levels()
        self.q_indices: dict[bool, list[int]] = {True: [], False: []}

    @property
    def has_coded(self) -> bool:
        """Whether any of them was coded, not only shown again."""
        return bool(self.q_indices[True] or self.q_indices[False])


class History:
    """The log of an encode, group by group; each update takes in only the news.

    Args:
        view: The facts of the encode.

    Attributes:
        groups: The groups that have rows, in order of coding.
        coded_bits: Bits of the frame coded last; None before the first one.
        coded_psnr: Its PSNR in dB.
    """

    def __init__(self, view: EncodeView) -> None:
        self._view = view
        self._taken = 0
        self.groups: list[PastGroup] = []
        self.coded_bits: int | None = None
        self.coded_psnr = 0.0

    def update(self) -> None:
        """Take in the rows that the view has got since the last call."""
        view, first = self._view, self._taken
        self._taken = len(view.rows)
        for row, level in zip(view.rows[first:], view.psnr[first:], strict=True):
            if not self.groups or self.groups[-1].index != row.group_index:
                self.groups.append(PastGroup(row.group_index))
            group = self.groups[-1]
            group.bits += row.bits
            if row.is_shown:
                group.shown.add(level)
            if row.is_shown_again:
                continue
            group.coded_bits += row.bits
            group.q_indices[row.update_type in REFERENCES].append(row.q_index)
            if row.is_shown:
                group.coded.add(level)
            self.coded_bits, self.coded_psnr = row.bits, level

    def last(self, wanted: Callable[[PastGroup], bool]) -> PastGroup | None:
        """Return the last group of a kind; None where there is none."""
        return next(filter(wanted, reversed(self.groups)), None)


class PastFacts(NamedTuple):
    """The outcome of the decisions so far.

    PSNRs are means in dB less the mean of all frames shown so far. ``before`` is the last group,
    ``current`` the coded frames of this one, ``coded`` the frame coded last.

    Attributes:
        before_bits: log2(bits per shown frame / target).
        before_psnr: PSNR of its shown frames.
        before_reference_q: Mean q index of its references.
        before_leaf_q: Mean q index of its other frames.
        current_bits: Bits.
        current_psnr: PSNR of its shown frames.
        coded_bits: ln(bits per pixel); 0 without a frame.
        coded_psnr: Its PSNR.
    """

    before_bits: float
    before_psnr: float
    before_reference_q: float
    before_leaf_q: float
    current_bits: int
    current_psnr: float
    coded_bits: float
    coded_psnr: float

    @classmethod
    def of(cls, view: EncodeView, history: History) -> "PastFacts":
        """Return the facts of a log so far."""
        index = view.frame.group_index
        overall = view.psnr_sum / view.num_shown if view.num_shown else 0.0

        def quality(levels: Levels) -> float:
            return levels.sum / levels.count - overall if levels.count and view.num_shown else 0.0

        nothing = PastGroup(-1)
        current = history.last(lambda group: group.index == index) or nothing
        before = history.last(lambda group: group.index != index and group.has_coded) or nothing
        bits = 0.0
        if before.shown.count:
            per_frame = view.target_bits / view.num_frames
            bits = math.log2(max(before.bits, 1) / before.shown.count / per_frame)
        coded = history.coded_bits
        return cls(
            before_bits=bits,
            before_psnr=quality(before.shown),
            before_reference_q=_average(before.q_indices[True]),
            before_leaf_q=_average(before.q_indices[False]),
            current_bits=current.coded_bits,
            current_psnr=quality(current.coded),
            coded_bits=0.0 if coded is None else math.log(max(coded, 1) / view.pixels),
            coded_psnr=history.coded_psnr - overall if view.num_shown else 0.0,
        )


@dataclass(frozen=True, eq=False)
class BaseFacts:
    """The base policy's decision on the pending frame.

    Attributes:
        q_index: The q index.
        step: log2 of its quantiser step.
        over_libvpx: log2(step / libvpx's own).
        over_before: log2(step / the mean of the last group that has frames of this kind,
            reference or not); 0 where there is none.
        log_lambda: log2 of the factor on lambda.
    """

    q_index: int
    step: float
    over_libvpx: float
    over_before: float
    log_lambda: float

    @classmethod
    def of(cls, view: EncodeView, decision: Decision, history: History) -> "BaseFacts":
        """Return the facts of a decision, after a log so far."""
        frame, log2_step = view.frame, view.episode.log2_step
        q_index = own_q(frame, decision)
        step = float(log2_step[q_index])
        kind = is_reference_frame(frame)
        before = history.last(lambda group: bool(group.q_indices[kind]))
        return cls(
            q_index,
            step,
            step - float(log2_step[frame.libvpx_q_index]),
            step - float(log2_step[before.q_indices[kind]].mean()) if before else 0.0,
            math.log2(decision.lambda_scale),
        )


class Sight(NamedTuple):
    """All that the columns are computed from.

    Attributes:
        view: The facts of the encode.
        clip: Facts of the clip.
        group: Facts of the pending frame's group.
        decision: The base policy's decision on the pending frame.
        history: The log so far.
        offsets: Per decision so far, (level, reference).
    """

    view: EncodeView
    clip: ClipFacts
    group: GroupFacts
    decision: Decision
    history: History
    offsets: Sequence[Offset]

    @property
    def position(self) -> int:
        """The pending frame's position in its group."""
        return self.view.frame.group_position

    @property
    def shown(self) -> int:
        """The pending frame's place in the clip."""
        return min(self.view.frame.show_index, self.view.num_frames - 1)

    @property
    def per_frame(self) -> float:
        """Target bits of a frame."""
        return self.view.target_bits / self.view.num_frames

    @property
    def model_bits(self) -> float:
        """log2 of the model's bits per pixel for the pending frame; 0 without a model."""
        position, group = self.position, self.group
        return math.log2(group.bits[position]) if group.known[position] else 0.0

    @property
    def model_share(self) -> float:
        """log2(the model's bits / their mean in the group); 0 without a model."""
        position, group = self.position, self.group
        if not group.known[position]:
            return 0.0
        return math.log2(group.bits[position] / group.mean_bits)

    @property
    def left(self) -> float:
        """log2(bits left per frame left / target bits per frame)."""
        o = self.view
        frames_left = o.num_frames - o.num_shown
        left = max(o.target_bits - o.bits, 1e-2 * o.target_bits) / max(frames_left, 1)
        return math.log2(left / self.per_frame)

    @property
    def pace(self) -> float:
        """log2(share of the target spent / share of the effort shown); 0 at first."""
        o = self.view
        if not o.num_shown:
            return 0.0
        effort = self.clip.effort.item(o.num_shown - 1)
        return math.log2(max(o.bits, 1) / o.target_bits / effort)


def _from_each_on(members: Sequence[bool]) -> list[int]:
    """Return how many are members from each position on, ``[len(members)]``."""
    return list(accumulate(map(int, reversed(members))))[::-1]


def _average(values: Sequence[float]) -> float:
    """Return the mean, 0 of nothing; much faster than numpy's for a few numbers."""
    return sum(values) / len(values) if values else 0.0
