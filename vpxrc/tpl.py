"""The policy ``tpl``: q per frame and lambda per superblock from the temporal dependency model."""

import dataclasses
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from vpxrc.complexity import frames_inside, log_complexity
from vpxrc.encoder import Decision, EncoderOptions, Frame, UpdateType
from vpxrc.policy import Episode, Policy
from vpxrc.quantizer import nearest_q
from vpxrc.temporal_dependency import MAX_FRAMES, Dependency, Version, analyse, modelled

# Budgeted apart; golden frames go with ARFs, overlays with leaves.
_KINDS: tuple[int, ...] = (UpdateType.KEY, UpdateType.ARF, UpdateType.LEAF)
_USUAL_GROUP = 12  # frames, where a group of one says nothing of the next one's length
_NEAR_END = 12  # frames
_KEY_MOVE = 1.0  # the most that the base moves at a key frame
_MEMORY = 0.7  # of a group when the next one comes


@dataclass(frozen=True)
class TplParameters:
    """The strengths of ``tpl``, fitted on training clips alone by ``python -m benchmarks.fit tpl``.

    Steps and bases are in log2 of the quantiser step.

    Attributes:
        version: Of the model.
        key_strength: Of the model's q offset for key frames; 1 is the optimum of its theory.
        arf_strength: For golden frames and the base layer of alternate reference frames.
        inner_strength: For the layers above it.
        leaf_strength: For the others.
        tail: Groups beyond the current one that the model follows, one frame each.
        tail_weight: Part of the frames of such a group that its one frame stands for.
        provisional: Part of the steps of the group before that the model's q takes.
        complexity: Power of the first pass's error that the quantiser step of a group goes with:
            frames that cost more are coded coarser. 0 is best for the mean squared error of a
            whole clip, 1 (the same bits for all frames) for its mean PSNR.
        superblock_strength: Exponent of the model's lambda scale per superblock.
        key_lambda: Factor on libvpx's lambda for key frames.
        arf_lambda: The same for golden and alternate reference frames.
        leaf_lambda: The same for the others.
        start_step: First guess of the base above the highest q that libvpx would take for the first
            key frame; the model corrects it.
        key_cost: Real bits over the model's, for key frames, at the start.
        arf_cost: The same for alternate reference frames.
        leaf_cost: The same for the others.
        effort: Power of the first pass's error that bits go with.
        slope: Bits fall by ``2 ** -slope`` when the step doubles.
        prior: Weight of the costs above, in frames of average size, against what is really spent.
        group_move: The most that the base moves at the start of a group.
        max_move: The most that it moves per frame within one.
        margin: Part of the target that is left unspent.
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


@dataclass(eq=False)
class _Group:
    """The current golden-frame group; arrays have an entry per position, bits are at a step of 1.

    Attributes:
        coded: Positions that are coded and in the clip.
        places: Where in ``coded`` a position is; -1 = nowhere.
        references: Of the frames in ``coded``, as places there.
        kinds: One of ``_KINDS`` each.
        first: Display index of position 0.
        last: The highest display index.
        end: Display index of the next key frame, or the clip's length.
        shift: Of the group's base from the clip's, log2 step.
        effort: Of its frames after position 0, which the group before has coded.
        dependency: The model; None where the group is too small for one.
        steps: Below the base, log2 step.
        shares: Bits still expected by the model.
        bases: Base that each frame was coded at.
        bits: Spent so far on ARFs and leaves.
        growth: Bits of the base ARF over those that it would have if nothing came after the group.
        effort_after: Of the frames after the group, for ARFs weighed by that growth.
    """

    coded: NDArray[np.int64]
    places: NDArray[np.int64]
    references: NDArray[np.int32]
    kinds: NDArray[np.int64]
    first: int
    last: int
    end: int
    shift: float
    effort: float
    steps: NDArray[np.float64]
    shares: NDArray[np.float64]
    bases: NDArray[np.float64]
    bits: dict[int, float]
    dependency: Dependency | None = None
    growth: float = 1.0
    effort_after: dict[int, float] = dataclasses.field(default_factory=dict)

    @property
    def length(self) -> int:
        """Frames from one end of the group to the other."""
        return (self.last - self.first) or _USUAL_GROUP


class Tpl(Policy):
    """Every frame finer by what depends on it; the base follows the budget.

    At the first decision of a golden-frame group the model is run over its frames, at the q that
    they would have by the group before, and over the ends of the groups that follow. It gives each
    frame a step below the base, and its bits. Those, corrected by what frames of its kind really
    took, and the first pass's errors for what follows the group, give the base at which the budget
    is spent.
    """

    def __init__(self, parameters: TplParameters | None = None) -> None:
        self._parameters = parameters or TplParameters()

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options in VBR mode (for its estimate of q) with all layers."""
        return options.for_control()

    def begin(self, episode: Episode) -> None:
        """Start a clip."""
        p = self._parameters
        self._log_error = log_complexity(episode.first_pass)
        # What a frame costs at the coarseness that goes with its error.
        self._effort = 2 ** (self._log_error * (p.effort - p.slope * p.complexity))
        self._episode = episode
        self._log2_step = episode.log2_step
        self._target = episode.target_bits * (1.0 - p.margin)
        self._spent = 0.0
        self._rows = 0
        self._shown = 0
        self._group_index = -1
        self._usual_steps: dict[tuple[int, int], float] = {}  # by update type and layer
        self._arf_q = -1
        # Bits spent, and expected of the model, by kind: their ratio corrects it.
        self._paid = dict.fromkeys(_KINDS, 0.0)
        self._expected = dict.fromkeys(_KINDS, 0.0)
        # Bits of the groups before, if nothing came after each, and the effort they stand for.
        self._past_bits: dict[int, float] = {UpdateType.ARF: 0.0, UpdateType.LEAF: 0.0}
        self._past_effort = 0.0
        self._key_bits = 0.0  # the model's, of the last key frame if nothing depended on it
        self._key_bits_after = 0.0  # of all key frames after the group
        self._potential: dict[int, float] = {}  # importance - 1 of keys and ARFs with all followers

    def decide(self, frame: Frame) -> Decision:
        """Return the base minus the frame's step."""
        p = self._parameters
        if frame.coding_index == 0:
            self._base = self._log2_step[frame.libvpx_q_high] + p.start_step
        self._account()
        if frame.group_index != self._group_index:  # position 0 may be an ARF shown again
            if self._group_index >= 0:
                self._remember(self._group)
            self._group_index = frame.group_index
            self._start_group(frame)
        else:
            self._move_base(frame)
        group, position = self._group, frame.group_position
        q_index = self._nearest_q(self._base + group.shift - group.steps[position])
        group.bases[position] = self._base
        if frame.update_type == UpdateType.ARF and frame.layer_depth == 1:
            self._arf_q = q_index
        scale = None
        place = int(group.places[position])
        is_mapped = (
            frame.takes_superblock_scale and frame.update_type == UpdateType.ARF and place >= 0
        )
        if p.superblock_strength and is_mapped and group.dependency is not None:
            scale = group.dependency.superblock_scale(place, p.superblock_strength)
        factors: dict[int, float] = {
            UpdateType.KEY: p.key_lambda,
            UpdateType.ARF: p.arf_lambda,
            UpdateType.LEAF: p.leaf_lambda,
        }
        return Decision(q_index, factors[int(group.kinds[position])], scale)

    def overruled(self, frame: Frame, decision: Decision) -> None:
        """Book the frame at the base that the quantiser step taken stands for."""
        group, position = self._group, frame.group_position
        own = self._nearest_q(group.bases[position] + group.shift - group.steps[position])
        group.bases[position] += self._log2_step[decision.q_index] - self._log2_step[own]
        if frame.update_type == UpdateType.ARF and frame.layer_depth == 1:
            self._arf_q = decision.q_index

    def _nearest_q(self, log2_step: float) -> int:
        return nearest_q(log2_step, self._log2_step)

    # The model

    def _start_group(self, frame: Frame) -> None:
        """Find the group's steps, and the base with them."""
        group = self._group = self._describe_group(frame)
        types = self._episode.group.update_type[group.coded]
        layers = self._episode.group.layer_depth[group.coded]
        guess: dict[int, float] = {UpdateType.KEY: 2.0, UpdateType.GOLDEN: 1.5, UpdateType.ARF: 2.0}
        labels = [(int(t), int(d)) for t, d in zip(types, layers, strict=True)]
        steps = np.array(
            [self._usual_steps.get((t, d), guess.get(t, 0.0) / max(d, 1)) for t, d in labels]
        )
        # Where nothing is known yet, the steps and the base have to find each other.
        is_first = not self._past_effort
        for _ in range(3 if is_first else 1):
            if len(group.coded) >= 2 or types[0] == UpdateType.KEY:
                steps = self._run_model(steps)
            elif self._past_effort:
                group.shares[group.coded] = self._past_bits[UpdateType.LEAF] / self._past_effort
            group.steps[group.coded] = steps
            self._look_ahead()
            self._move_base(frame, free=is_first and len(group.coded) >= 2)
        self._usual_steps.update(zip(labels, steps.tolist(), strict=True))

    def _describe_group(self, frame: Frame) -> _Group:
        group, frames = self._episode.group, self._episode.video.num_frames
        types = group.update_type
        coded, places, references = modelled(group, frames, MAX_FRAMES - self._parameters.tail)
        first, last = group.first_show_index, int(group.show_index[coded].max())
        inside = frames_inside(first, last)
        is_arf = np.isin(types, (UpdateType.ARF, UpdateType.GOLDEN))
        return _Group(
            coded=coded,
            places=places,
            references=references,
            kinds=np.select(
                [is_arf, types == UpdateType.KEY], [UpdateType.ARF, UpdateType.KEY], UpdateType.LEAF
            ),
            first=first,
            last=last,
            end=min(frames, self._shown + frame.frames_to_key),
            shift=self._parameters.complexity * float(self._log_error[inside].mean()),
            effort=float(self._effort[inside].sum()),
            steps=np.zeros(group.size),
            shares=np.zeros(group.size),
            bases=np.zeros(group.size),
            bits={UpdateType.ARF: 0.0, UpdateType.LEAF: 0.0},
        )

    def _run_model(self, steps: NDArray[np.float64]) -> NDArray[np.float64]:
        """Run the model at these steps below the base; set its bits and return its steps."""
        p = self._parameters
        group, plan, frames = self._group, self._episode.group, self._episode.video.num_frames
        count, base = len(group.coded), self._base + group.shift
        types = plan.update_type[group.coded]
        shown = plan.show_index[group.coded].tolist()
        references = group.references.tolist()
        q = [self._nearest_q(base - p.provisional * step) for step in steps]
        if types[0] == UpdateType.OVERLAY and self._arf_q > 0:
            q[0] = self._arf_q  # the same picture
        weights = [1.0] * count
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
            shown.append(min(group.last + 1, frames - 1))
            references.append([-1, -1, -1])
            weights.append(1.0)
            q.append(q[0])
        dependency = group.dependency = analyse(
            self._episode.video,
            shown,
            references,
            q,
            version=p.version,
            weights=weights,
            lambda_q_index=self._nearest_q(base),
        )
        strengths = np.select(
            [
                types == UpdateType.KEY,
                (types == UpdateType.ARF) & (plan.layer_depth[group.coded] > 1),
                types == UpdateType.LEAF,
            ],
            [p.key_strength, p.inner_strength, p.leaf_strength],
            p.arf_strength,
        )
        steps = -dependency.q_offset()[:count] * strengths
        if types[0] == UpdateType.OVERLAY:
            steps[0] = 0.0
        # The steps have changed since the model took its q.
        bits = dependency.rate.sum(axis=(1, 2))[:count]
        moved = self._log2_step[dependency.q_index[:count]] - (base - steps)
        shares = bits * 2 ** (p.slope * (moved + self._base))
        if types[0] == UpdateType.OVERLAY:
            shares[0] = 0.0  # paid as the ARF that it shows
        group.shares[group.coded] = shares
        return steps

    # The budget

    def _look_ahead(self) -> None:
        """Weigh what follows the group by how much will depend on it.

        The importance of a key frame or ARF grows with the frames that follow up to the next key
        frame, as far as the model looks; with it, by its step, go its bits.
        """
        p = self._parameters
        group, frames = self._group, self._episode.video.num_frames
        reach = group.length * (1 + p.tail)
        kinds = group.kinds[group.coded]
        strengths: dict[int, float] = {
            UpdateType.KEY: p.key_strength,
            UpdateType.ARF: p.arf_strength,
        }
        followers: dict[int, int] = {
            UpdateType.KEY: group.end - group.first,
            UpdateType.ARF: max(group.end - group.last, 1),
        }
        for kind, count in followers.items():
            if group.dependency is not None and kind in kinds:
                share = min(1.0, max(count, 1) / reach)
                importance = group.dependency.frame_importance[np.flatnonzero(kinds == kind)[0]]
                if share >= 0.5 or kind not in self._potential:
                    self._potential[kind] = float(importance - 1) / share

        def growth(kind: int, left: ArrayLike) -> NDArray[np.float64]:
            """Return the bits of such frames over those of frames that nothing depends on."""
            share = np.minimum(1.0, np.asarray(left) / reach)
            importance = 1 + self._potential.get(kind, 0.0) * share
            return np.asarray(importance ** (0.5 * strengths[kind] * p.slope))

        if kinds[0] == UpdateType.KEY:
            self._key_bits = float(
                group.shares[group.coded[0]] / growth(UpdateType.KEY, followers[UpdateType.KEY])
            )
        distance = max(self._episode.options.key_frame_max_distance, 1)
        keys = np.arange(group.end, frames, distance)  # as libvpx plans them
        sizes = np.minimum(distance, frames - keys)
        self._key_bits_after = float(np.sum(self._key_bits * growth(UpdateType.KEY, sizes)))
        after = np.arange(group.last + 1, frames)
        left = np.append(keys, frames)[np.searchsorted(keys, after, side="right")] - after
        effort = self._effort[after]
        group.growth = float(growth(UpdateType.ARF, followers[UpdateType.ARF]))
        group.effort_after = {
            UpdateType.ARF: float((effort * growth(UpdateType.ARF, left)).sum()),
            UpdateType.LEAF: float(effort.sum()),
        }

    def _account(self) -> None:
        """Learn from the frames coded since the last decision."""
        slope = self._parameters.slope
        for row in self._episode.records(self._rows):
            self._rows += 1
            bits, position = float(row["bits"]), int(row["group_position"])
            self._spent += bits
            self._shown += int(row["is_shown"])
            if row["is_shown_again"] or row["group_index"] != self._group_index:
                continue
            group = self._group
            kind, base = int(group.kinds[position]), group.bases[position]
            self._paid[kind] += bits
            self._expected[kind] += group.shares[position] * 2 ** (-slope * base)
            group.shares[position] = 0.0
            if kind != UpdateType.KEY:
                group.bits[kind] += bits * 2 ** (slope * base)

    def _remember(self, group: _Group) -> None:
        """Take a finished group for what later ones will cost; those before it fade."""
        growth: dict[int, float] = {UpdateType.ARF: group.growth, UpdateType.LEAF: 1.0}
        for kind, bits in group.bits.items():
            self._past_bits[kind] = _MEMORY * (self._past_bits[kind] + bits / growth[kind])
        if sum(self._past_bits.values()):
            self._past_effort = _MEMORY * (self._past_effort + group.effort)

    def _cost(self, kind: int) -> float:
        """Return real bits over the model's."""
        p = self._parameters
        costs = (p.key_cost, p.arf_cost, p.leaf_cost)
        start = dict(zip(_KINDS, costs, strict=True))[kind]
        weight = p.prior * self._target / self._episode.video.num_frames
        return (self._paid[kind] + weight) / (self._expected[kind] + weight / start)

    def _wanted(self) -> float:
        """Return the base at which what is left to code takes what is left of the budget."""
        p, group = self._parameters, self._group
        here = {kind: self._cost(kind) * group.shares[group.kinds == kind].sum() for kind in _KINDS}
        growth: dict[int, float] = {UpdateType.ARF: group.growth, UpdateType.LEAF: 1.0}
        after = sum(
            (self._past_bits[kind] + (group.bits[kind] + here[kind]) / growth[kind]) * effort
            for kind, effort in group.effort_after.items()
        ) / (self._past_effort + group.effort)
        bits = sum(here.values()) + after + self._cost(UpdateType.KEY) * self._key_bits_after
        budget = max(self._target - self._spent, 1e-3 * self._target)
        return float(np.log2(max(bits, 1e-9) / budget) / p.slope)

    def _move_base(self, frame: Frame, free: bool = False) -> None:
        """Move the base towards the one that is wanted."""
        p = self._parameters
        if not free and not self._past_effort:
            return  # nothing is known yet of what follows the first group
        wanted = self._wanted()
        if free:
            self._base = wanted
            return
        # What was spent too much must be saved by the end; what is left over need not be spent.
        near_end = self._episode.video.num_frames - frame.show_index <= _NEAR_END
        if frame.is_key:
            up = down = _KEY_MOVE
        elif frame.group_position <= 1:
            up = down = p.group_move
        else:
            up, down = (4 if near_end else 1) * p.max_move, p.max_move
        self._base += float(np.clip(wanted - self._base, -down, up))
