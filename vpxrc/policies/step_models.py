"""Step models: how far each frame of a golden-frame group is coded below the clip's base step.

:class:`vpxrc.policies.dependency.DependencyPolicy` asks one at the first decision of every group.
Steps are in log2 of the quantiser step throughout: the base is the step of a frame that nothing
depends on.
"""

import dataclasses
from dataclasses import dataclass
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from vpxrc.dependency import MAX_FRAMES, Dependency, Version, analyse, modelled
from vpxrc.encoder.complexity import frames_inside
from vpxrc.encoder.quantizer import nearest_q
from vpxrc.encoder.types import Frame, UpdateType
from vpxrc.policies.base import Episode

_USUAL_GROUP = 12  # frames, where a group of one says nothing of the next one's length


@dataclass(frozen=True)
class DependencyParameters:
    """The constants of the policy ``dependency``.

    They are fitted on training clips alone by ``python -m benchmarks.fit dependency``.

    Attributes:
        version: Version of the temporal dependency model, ``reconstructed`` or ``source``.
        key_strength: Factor on the model's q offset for key frames; 1 is the optimum of its theory.
        arf_strength: The same for golden frames and the base layer of alternate reference frames.
        inner_strength: The same for the layers above it.
        leaf_strength: The same for all other frames.
        tail: How many groups beyond the current one the model follows, one frame each.
        tail_weight: Share of the frames of such a group that its one frame stands for.
        provisional: Share of the steps of the group before that the model's provisional q takes.
        complexity: Exponent of the first pass's error in the quantiser step of a group. Above 0,
            frames that cost more are coded coarser. 0 is best for the mean squared error of a
            whole clip, 1 (the same bits for all frames) for its mean PSNR.
        superblock_strength: Exponent of the model's lambda scale per superblock.
        key_lambda: Factor on libvpx's lambda for key frames.
        arf_lambda: The same for golden and alternate reference frames.
        leaf_lambda: The same for all other frames.
        start_step: First guess of the base, above the highest q that libvpx would take for the
            first key frame. The model corrects it.
        key_cost: Real bits of key frames over the model's, before any are coded.
        arf_cost: The same for golden and alternate reference frames.
        leaf_cost: The same for all other frames.
        effort: Exponent of the first pass's error in the bits of a frame.
        slope: Bits fall by ``2 ** -slope`` when the quantiser step doubles.
        prior: Weight of the three costs against what is really spent, in frames of average size.
        group_move: The most that the base moves at the start of a group.
        max_move: The most that the base moves per frame within a group.
        margin: Share of the target that is left unspent.
    """

    version: Version = "reconstructed"
    key_strength: float = 1.0
    arf_strength: float = 1.0
    inner_strength: float = 1.0
    leaf_strength: float = 1.0
    tail: int = 3
    tail_weight: float = 0.25
    provisional: float = 1.0
    complexity: float = 0.25
    superblock_strength: float = 0.7
    key_lambda: float = 1.0
    arf_lambda: float = 1.0
    leaf_lambda: float = 1.0
    start_step: float = 0.9
    key_cost: float = 0.9
    arf_cost: float = 0.8
    leaf_cost: float = 0.6
    effort: float = 0.7
    slope: float = 1.0
    prior: float = 10.0
    group_move: float = 0.5
    max_move: float = 0.05
    margin: float = 0.01


@dataclass(frozen=True, eq=False)
class GroupView:
    """A golden-frame group as it is before its first frame is coded: ``N`` frames to code.

    Attributes:
        episode: The encode: the clip, its first pass and the quantiser's steps.
        index: Number of the group in the encode.
        coded: Positions in the group of the frames to code, int64 ``[N]``, in order of coding.
            Frames past the end of the clip are left out. An overlay at position 0 is among them
            even where libvpx shows its ARF again in place of it.
        places: Where in ``coded`` each position of the group is, int64 ``[size]``; -1 = nowhere.
        references: Places of the frames that each may be predicted from, int32 ``[N, 3]``; -1 =
            none.
        update_type: A :class:`vpxrc.UpdateType` each, int32 ``[N]``.
        layer_depth: 1 for the base layer of alternate reference frames, int32 ``[N]``.
        show_index: Display index of each, int32 ``[N]``.
        kinds: What the budget books each position as, int64 ``[size]``: ``KEY``, ``ARF`` (golden
            frames too) or ``LEAF`` (overlays too).
        first: Display index of position 0.
        last: The highest display index.
        end: Display index of the next key frame, or the clip's length.
        complexity: log2 of the first pass's error over the clip's mean, float64 ``[num_frames]``.
        shift: The group's base less the clip's, for its complexity.
        base: The clip's base.
        usual: Steps below the base of such frames in the groups before, float64 ``[N]``.
        arf_q: q index of the last base layer ARF, which an overlay shows; -1 = there was none.
        target_bits: Bits that the stream may take.
        spent: Bits so far.
        records: The log so far, dtype ``RECORD_DTYPE``.
        slope: Bits fall by ``2 ** -slope`` when the quantiser step doubles.
    """

    episode: Episode
    index: int
    coded: NDArray[np.int64]
    places: NDArray[np.int64]
    references: NDArray[np.int32]
    update_type: NDArray[np.int32]
    layer_depth: NDArray[np.int32]
    show_index: NDArray[np.int32]
    kinds: NDArray[np.int64]
    first: int
    last: int
    end: int
    complexity: NDArray[np.float64]
    shift: float
    base: float
    usual: NDArray[np.float64]
    arf_q: int
    target_bits: float
    spent: float
    records: NDArray[np.void]
    slope: float

    @classmethod
    def of(
        cls,
        episode: Episode,
        frame: Frame,
        parameters: DependencyParameters,
        *,
        complexity: NDArray[np.float64],
        base: float,
        arf_q: int,
    ) -> Self:
        """Return the view of the current group, with 0 for all usual steps.

        Args:
            episode: The encode.
            frame: The pending frame, the first one of the group that is decided.
            parameters: The policy's.
            complexity: What :func:`vpxrc.encoder.complexity.log_complexity` returned for the clip.
            base: The clip's base.
            arf_q: q index of the last base layer ARF; -1 = there was none.
        """
        group, num_frames = episode.group, episode.video.num_frames
        types, records = group.update_type, episode.records()
        coded, places, references = modelled(group, num_frames, MAX_FRAMES - parameters.tail)
        show_index = group.show_index[coded]
        first, last = group.first_show_index, int(show_index.max())
        is_arf = np.isin(types, (UpdateType.ARF, UpdateType.GOLDEN))
        return cls(
            episode=episode,
            index=frame.group_index,
            coded=coded,
            places=places,
            references=references,
            update_type=types[coded],
            layer_depth=group.layer_depth[coded],
            show_index=show_index,
            kinds=np.select(
                [is_arf, types == UpdateType.KEY], [UpdateType.ARF, UpdateType.KEY], UpdateType.LEAF
            ),
            first=first,
            last=last,
            end=min(num_frames, int(records["is_shown"].sum()) + frame.frames_to_key),
            complexity=complexity,
            shift=parameters.complexity * float(complexity[frames_inside(first, last)].mean()),
            base=base,
            usual=np.zeros(len(coded)),
            arf_q=arf_q,
            target_bits=episode.target_bits * (1.0 - parameters.margin),
            spent=float(records["bits"].sum()),
            records=records,
            slope=parameters.slope,
        )

    @property
    def length(self) -> int:
        """Frames from one end of the group to the other."""
        return (self.last - self.first) or _USUAL_GROUP

    @property
    def has_model(self) -> bool:
        """Whether a model can be run: over one frame alone only if it is a key frame."""
        return len(self.coded) >= 2 or self.update_type[0] == UpdateType.KEY

    @property
    def opens_with_overlay(self) -> bool:
        """Whether the first frame is an overlay: the picture of the last base layer ARF again."""
        return bool(self.update_type[0] == UpdateType.OVERLAY)


@dataclass(frozen=True, eq=False)
class Steps:
    """What a step model says of a group of ``N`` frames.

    Attributes:
        step: How far each frame is coded below the group's base, float64 ``[N]``.
        bits: Bits of each frame that are foreseen at that step if the clip's base were 0, float64
            ``[N]``. They fall with the base by the view's ``slope``.
        log2_lambda: log2 of a further factor on each frame's lambda, ``[N]``.
        dependency: The temporal dependency model of the group and the frames after it, where it was
            run.
        wanted: The model's own word on the base at which the budget is met, where it has one.
        trust: Weight of that word against the account's, 0..1.
    """

    step: NDArray[np.float64]
    bits: NDArray[np.float64]
    log2_lambda: NDArray[np.floating]
    dependency: Dependency | None = None
    wanted: float | None = None
    trust: float = 0.0


class StepModel(Protocol):
    """Says how far below the base the frames of a group are coded, and what they will cost.

    One object serves one clip after the other, as a policy does.

    Attributes:
        training_clips: Content hashes of the clips that it was trained on.
    """

    training_clips: frozenset[str] = frozenset()

    def begin(self, episode: Episode) -> None:
        """Start a clip."""
        return  # a model without a state has nothing to do

    def steps(self, group: GroupView) -> Steps:
        """Return the steps of a group whose view has :attr:`GroupView.has_model`.

        In the first group of a clip, where nothing is known yet, it is asked repeatedly, each time
        with the base and the usual steps that its last answer led to.
        """


class DependencySteps(StepModel):
    """Steps by the temporal dependency model: frames are finer the more depends on them.

    The model is run over the group, at the q indices that its frames would have at their usual
    steps, and over the ends of the groups that follow.

    Args:
        parameters: The strengths, by default those of the policy ``dependency``.
    """

    def __init__(self, parameters: DependencyParameters | None = None) -> None:
        self._parameters = parameters or DependencyParameters()

    def steps(self, group: GroupView) -> Steps:
        """Return the model's steps and bits."""
        p, count, base = self._parameters, len(group.coded), group.base + group.shift
        log2_step = group.episode.log2_step
        dependency = self._model(group)
        types = group.update_type
        strengths = np.select(
            [
                types == UpdateType.KEY,
                (types == UpdateType.ARF) & (group.layer_depth > 1),
                types == UpdateType.LEAF,
            ],
            [p.key_strength, p.inner_strength, p.leaf_strength],
            p.arf_strength,
        )
        step = -dependency.q_offset()[:count] * strengths
        if group.opens_with_overlay:
            step[0] = 0.0
        # The model's bits are for its own q indices, which were chosen before the steps were known.
        moved = log2_step[dependency.q_index[:count]] - (base - step)
        bits = dependency.rate.sum(axis=(1, 2))[:count] * 2 ** (group.slope * (moved + group.base))
        if group.opens_with_overlay:
            bits[0] = 0.0  # paid as the ARF that it shows
        return Steps(step, bits, np.zeros(count), dependency)

    def _model(self, group: GroupView) -> Dependency:
        p, base, video = self._parameters, group.base + group.shift, group.episode.video
        log2_step = group.episode.log2_step
        shown, references = group.show_index.tolist(), group.references.tolist()
        q = [nearest_q(base - p.provisional * step, log2_step) for step in group.usual]
        if group.opens_with_overlay and group.arf_q > 0:
            q[0] = group.arf_q  # the same picture
        weights = [1.0] * len(shown)
        # The groups that follow are not planned yet: one frame each, as far apart as this one's
        # ends. Nothing is propagated over a key frame.
        previous = int(np.argmax(shown))
        last_q, at = q[previous], group.last
        for _ in range(p.tail):
            following = min(at + group.length, group.end - 1)
            if following <= at:
                break
            references.append([previous, -1, -1])
            weights.append(max(p.tail_weight * (following - at), 1.0))
            previous, at = len(shown), following
            shown.append(following)
            q.append(last_q)
        if len(shown) == 1:  # a key frame alone, and another after it
            shown.append(min(group.last + 1, video.num_frames - 1))
            references.append([-1, -1, -1])
            weights.append(1.0)
            q.append(q[0])
        return analyse(
            video,
            shown,
            references,
            q,
            version=p.version,
            weights=weights,
            lambda_q_index=nearest_q(base, log2_step),
        )


class FixedSteps(StepModel):
    """The temporal dependency model, run at the same steps in every group.

    The model's answer to its own answer for the group before can run away
    (docs/dependency.md).

    Args:
        parameters: The strengths.
        key_step: Step below the base at which it is run for key frames.
        arf_step: The same for golden and alternate reference frames, over their layer.
    """

    def __init__(
        self, parameters: DependencyParameters, key_step: float = 2.0, arf_step: float = 1.5
    ) -> None:
        self._model = DependencySteps(parameters)
        self._key_step, self._arf_step = key_step, arf_step

    def steps(self, group: GroupView) -> Steps:
        """Return the model's steps and bits."""
        types, layers = group.update_type, np.maximum(group.layer_depth, 1)
        is_arf = (types == UpdateType.ARF) | (types == UpdateType.GOLDEN)
        fixed = np.select(
            [types == UpdateType.KEY, is_arf],
            [np.full(len(types), self._key_step), self._arf_step / layers],
        )
        return self._model.steps(dataclasses.replace(group, usual=fixed))
