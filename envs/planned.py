"""Rate control with a plan: a policy decides every frame, the agent moves its decisions."""

import dataclasses
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from typing import Any, Literal, NamedTuple

import gymnasium
import numpy as np
from gymnasium import logger, spaces
from gymnasium.error import InvalidAction, ResetNeeded
from numpy.typing import NDArray

from vpxrc.complexity import (
    WINDOWS,
    coded_error,
    frames_inside,
    log_complexity,
    window_means,
)
from vpxrc.encoder import (
    DEFAULT_TIMEOUT,
    FIRST_PASS_FIELDS,
    Decision,
    Frame,
    Session,
    State,
    UpdateType,
    coded_rows,
    psnr,
    shown_rows,
)
from vpxrc.envs.episode import Clips, Episode, Targets, Tasks
from vpxrc.envs.observations import (
    DEFAULT_MAX_FRAMES,
    TABLES,
    Arrays,
    Observer,
    empty_arrays,
    observation_space,
)
from vpxrc.envs.rewards import PsnrReward, Reward, StepReward
from vpxrc.errors import EncoderError, InputError, PolicyError, VpxrcError
from vpxrc.policy import Episode as PolicyEpisode
from vpxrc.policy import Policy, make_policy
from vpxrc.quantizer import LOG2_STEP, nearest_q

Move = tuple[float, float]
Flat = NDArray[np.float32]

# Update types of the frames that others depend on.
REFERENCES = (UpdateType.KEY, UpdateType.GOLDEN, UpdateType.ARF)

_LEVELS = (0.0, -0.2, 0.2)
GROUP_MOVES: tuple[Move, ...] = tuple(product(_LEVELS, _LEVELS))
FRAME_MOVES: tuple[Move, ...] = tuple(
    (level, 0.0) for level in (0.0, -0.1, 0.1, -0.25, 0.25, -0.6, 0.6)
)


@dataclass(frozen=True)
class PlannedConfig:
    """What an agent is to decide; ``dataclasses.asdict`` gives a form that JSON takes.

    Attributes:
        plan: The policy whose decisions are moved, as :func:`vpxrc.policy.make_policy` takes it.
        decisions: ``group``: one action per golden-frame group, ``frame``: one per coded frame.
        moves: (level, reference) per action, each in log2 of the quantiser step, above 0 coarser;
            ``level`` moves all frames, ``reference`` besides it those that others depend on. The
            first is (0, 0), as planned. None: ``GROUP_MOVES`` or ``FRAME_MOVES``.
    """

    plan: str = "imitation"
    decisions: Literal["group", "frame"] = "group"
    moves: tuple[Move, ...] | None = None

    def __post_init__(self) -> None:
        """Check the values; lists, as JSON has them, become tuples."""
        if self.decisions not in ("group", "frame"):
            raise InputError(f"decisions must be 'group' or 'frame', not {self.decisions!r}")
        if self.moves is None:
            return
        try:
            moves = tuple((float(level), float(reference)) for level, reference in self.moves)
        except (TypeError, ValueError) as error:
            raise InputError(f"moves must be pairs of numbers, not {self.moves!r}") from error
        if not moves or moves[0] != (0, 0) or not np.isfinite(moves).all():
            raise InputError(f"moves must be finite and begin with (0, 0), not {self.moves!r}")
        object.__setattr__(self, "moves", moves)

    @property
    def actions(self) -> tuple[Move, ...]:
        """The moves, those of the default filled in."""
        if self.moves is not None:
            return self.moves
        return GROUP_MOVES if self.decisions == "group" else FRAME_MOVES


def make_plan(spec: str) -> Policy:
    """Make the policy that is to be moved.

    Raises:
        InputError: There is no such policy, or it leaves its decisions to libvpx.
    """
    plan = make_policy(spec)
    if plan.observes:
        raise InputError(f"policy {spec!r} decides nothing itself: it cannot be a plan")
    return plan


def moved(
    frame: Frame,
    planned: Decision,
    move: Move,
    log2_step: NDArray[np.float64] = LOG2_STEP,
) -> Decision:
    """Return the planned decision with its quantiser step moved.

    Args:
        frame: What is to be coded.
        planned: The plan's decision; where it leaves q to libvpx, libvpx's own is moved.
        move: (level, reference), log2 of the quantiser step.
        log2_step: The session's, float64 ``[256]``.

    Returns:
        The decision itself where nothing moves; else with q in 1..255.
    """
    level, reference = move
    offset = level + (reference if _is_reference(frame) else 0.0)
    if offset == 0:
        return planned
    q_index = nearest_q(float(log2_step[_own_q(frame, planned)]) + offset, log2_step)
    return dataclasses.replace(planned, q_index=q_index, recode_trace=())


def _is_reference(frame: Frame) -> bool:
    return frame.update_type in REFERENCES


def _own_q(frame: Frame, planned: Decision) -> int:
    return planned.q_index if planned.q_index >= 0 else frame.libvpx_q_index


# The observation

_BOUND = 4.0  # of all columns
_SMALL = 1e-4  # bits per pixel, where a logarithm needs one
_FIRST_PASS = (
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
_FIRST_PASS_PLACES = [FIRST_PASS_FIELDS.index(name) for name in _FIRST_PASS]


class PlannedColumn(NamedTuple):
    """One number of the observation.

    Attributes:
        name: Unique.
        low: Lower bound.
        high: Upper bound.
        meaning: What it is, with its unit.
    """

    name: str
    low: float
    high: float
    meaning: str


def _copied(key: str, *left_out: str) -> list[PlannedColumn]:
    """Return columns of the observation of ``RateControlEnv``."""
    return [
        PlannedColumn(c.name, max(c.low, -_BOUND), min(c.high, _BOUND), c.meaning)
        for c in TABLES[key]
        if c.name not in left_out
    ]


def _kind(kind: str) -> list[PlannedColumn]:
    return [
        PlannedColumn(f"{kind}_count", 0, 4, f"{kind} of the group / 16"),
        PlannedColumn(f"{kind}_ahead", 0, 4, "those from the pending frame on / 16"),
        PlannedColumn(f"{kind}_importance", 0, 4, "mean of log2(importance) / 4"),
        PlannedColumn(f"{kind}_model_bits", -4, 4, "the model's mean, log2(bits / pixel) / 8"),
        PlannedColumn(f"{kind}_allocation", -2, 1, "libvpx's, mean of ln(bits / pixel) / 10"),
    ]


def _window(low: int, high: int) -> str:
    """Return the column of a window of frames before (below 0) or after the group."""
    side = "before" if low < 0 else "after"
    return f"{side}_{min(abs(low), abs(high))}_{max(abs(low), abs(high))}"


def _first_pass(window: str, meaning: str) -> list[PlannedColumn]:
    table = {column.name: column for column in TABLES["first_pass"]}
    return [
        PlannedColumn(f"{window}_{name}", table[name].low, table[name].high, meaning)
        for name in _FIRST_PASS
    ]


COLUMNS: dict[str, tuple[PlannedColumn, ...]] = {
    "frame": (
        *_copied("frame"),
        PlannedColumn("complexity", -4, 4, "log2(coded_error / the clip's) / 4"),
        PlannedColumn("pcnt_inter", 0, 1, "share of the macroblocks"),
        PlannedColumn("importance", 0, 4, "log2(importance) / 4; 0 without a model"),
        PlannedColumn("model_bits", -4, 4, "the model's, log2(bits / pixel) / 8"),
        PlannedColumn("model_share", -4, 4, "log2(model's bits / mean of the group) / 4"),
        PlannedColumn("map_spread", 0, 4, "standard deviation of its map * 4"),
        PlannedColumn("map_max", 0, 4, "highest value of its map * 2"),
    ),
    "budget": (
        *_copied("budget", "num_frames"),
        PlannedColumn("frames_left", 0, 4, "frames not yet shown / 64"),
        PlannedColumn("to_key", 0, 4, "frames to the next key frame / 64"),
        PlannedColumn("left", -4, 4, "log2(bits left per frame left / target per frame)"),
        PlannedColumn("pace", -4, 4, "log2(`spent` / share of the effort shown); at first 0"),
    ),
    "group": (
        PlannedColumn("group_length", 0, 4, "frames from one end to the other / 16"),
        PlannedColumn("group_layers", 0, 1, "highest layer depth / 8"),
        PlannedColumn("group_ahead", 0, 1, "share of it from the pending frame on"),
        PlannedColumn("group_importance", 0, 4, "highest log2(importance) / 4"),
        PlannedColumn("group_rate", -4, 4, "log2(model's bits per frame / target) / 4"),
        *_kind("references"),
        *_kind("leaves"),
        PlannedColumn("group_complexity", -4, 4, "mean of log2(coded_error / clip's) / 2"),
        PlannedColumn("group_spread", 0, 4, "their standard deviation / 2"),
        PlannedColumn("clip_spread", 0, 4, "the same over the clip / 2"),
        *(
            PlannedColumn(_window(*window), -4, 4, "`group_complexity` of these frames")
            for window in WINDOWS
        ),
    ),
    "first_pass": (
        *_first_pass("group", "mean over the group"),
        *_first_pass("rest", "over what follows it; without, the clip"),
        *_first_pass("clip", "over the clip"),
    ),
    "plan": (
        PlannedColumn("plan_q_index", 0, 1, "its q index / 255"),
        PlannedColumn("plan_step", -2, 4, "log2(its quantiser step) / 4 - 2"),
        PlannedColumn("plan_over_libvpx", -4, 4, "log2(its step / libvpx's own) / 2"),
        PlannedColumn("plan_over_before", -4, 4, "log2(its step / before) / 2"),
        PlannedColumn("plan_lambda", -4, 4, "log2(its factor on lambda)"),
    ),
    "past": (
        PlannedColumn("before_bits", -4, 4, "log2(bits per frame / target) / 2"),
        PlannedColumn("before_psnr", -4, 4, "mean PSNR less that of all so far / 8 dB"),
        PlannedColumn("before_reference_q_index", 0, 1, "mean of the references' / 255"),
        PlannedColumn("before_leaf_q_index", 0, 1, "mean of the others' / 255"),
        PlannedColumn("current_bits", 0, 4, "bits / target of all its frames"),
        PlannedColumn("current_psnr", -4, 4, "as `before_psnr`"),
        PlannedColumn("coded_bits", -2, 1, "ln(bits / pixel) / 10"),
        PlannedColumn("coded_psnr", -4, 4, "as `before_psnr`"),
        PlannedColumn("action_level", -4, 4, "of the last action"),
        PlannedColumn("action_reference", -4, 4, "of the last action"),
        PlannedColumn("mean_level", -4, 4, "of all actions"),
        PlannedColumn("mean_reference", -4, 4, "of all actions"),
        PlannedColumn("actions", 0, 4, "log2(1 + actions so far) / 4"),
    ),
}
_ALL = [column for columns in COLUMNS.values() for column in columns]
OBSERVATION: tuple[str, ...] = tuple(column.name for column in _ALL)
_LOW = np.array([column.low for column in _ALL], np.float32)
_HIGH = np.array([column.high for column in _ALL], np.float32)


class _Sight:
    """Follows one encode and gives the values of the columns.

    Args:
        observer: Of the encode; what has been seen there is known here.
        arrays: Where it writes.
    """

    def __init__(self, observer: Observer, arrays: Arrays) -> None:
        self._observer = observer
        self._arrays = arrays
        self._group_index = -1
        self._group: dict[str, float] = {}  # what is the same at all decisions of a group

    def observation(self, planned: Decision, rows: NDArray[np.void], moves: Sequence[Move]) -> Flat:
        """Return the observation, float32 ``[len(OBSERVATION)]``.

        Args:
            planned: The plan's decision on the pending frame.
            rows: The log so far, dtype ``RECORD_DTYPE``.
            moves: The actions so far.
        """
        group_index = self._observer.frame.group_index
        if group_index != self._group_index:
            if not self._group:
                self._see_clip()
            self._group_index = group_index
            self._group = self._see_group()
        values = self._group | self._budget() | self._frame() | self._plan(planned, rows)
        values |= self._past(rows) | _actions(moves)
        for key in ("frame", "budget"):
            names = [column.name for column in TABLES[key]]
            values.update(zip(names, self._arrays[key].tolist(), strict=True))
        flat = np.array([values[name] for name in OBSERVATION], np.float32)
        return np.asarray(np.clip(flat, _LOW, _HIGH), np.float32)

    def _see_clip(self) -> None:
        first_pass = self._observer.session.first_pass
        self._log_error = log_complexity(first_pass)
        effort = np.sqrt(coded_error(first_pass))
        self._effort = np.cumsum(effort) / effort.sum()

    def _see_group(self) -> dict[str, float]:
        o = self._observer
        group, frames, log_error = o.group, o.num_frames, self._log_error
        coded = (group.update_type != UpdateType.SHOWN_AGAIN) & (group.show_index < frames)
        first = group.first_show_index
        last = int(group.show_index[coded].max(initial=first))
        inside = frames_inside(first, last)
        length = max(last - first, 1)
        known = coded & (o.modelled[:, 2] > 0)
        importance = np.log2(o.modelled[:, 0])
        bits = o.modelled[:, 1] / o.pixels + _SMALL  # per pixel
        target = o.target_bits / frames / o.pixels
        self._coded, self._known, self._length = coded, known, length
        self._importance, self._bits = importance, bits
        self._kinds = {
            "references": coded & np.isin(group.update_type, REFERENCES),
            "leaves": coded & (group.update_type == UpdateType.LEAF),
        }
        rate = bits[known].sum() / length / target
        values = {
            "group_length": length / 16,
            "group_layers": float(group.layer_depth.max()) / 8,
            "group_importance": float(importance[known].max(initial=0.0)) / 4,
            "group_rate": math.log2(rate) / 4 if known.any() else 0.0,
            "group_complexity": _mean(log_error[inside]) / 2,
            "group_spread": float(log_error[inside].std()) / 2,
            "clip_spread": float(log_error.std()) / 2,
        }
        for kind, members in self._kinds.items():
            modelled = bits[members & known]
            allocation = np.maximum(group.bit_allocation[members], 1) / o.pixels
            values[f"{kind}_count"] = int(members.sum()) / 16
            values[f"{kind}_importance"] = _mean(importance[members & known]) / 4
            values[f"{kind}_model_bits"] = math.log2(modelled.mean()) / 8 if len(modelled) else 0.0
            values[f"{kind}_allocation"] = _mean(np.log(allocation)) / 10
        for window, mean in zip(WINDOWS, window_means(log_error, first, last), strict=True):
            values[_window(*window)] = mean / 2
        rest = slice(last + 1, frames) if last + 1 < frames else slice(0, frames)
        for where, part in (("group", inside), ("rest", rest), ("clip", slice(0, frames))):
            means = self._arrays["first_pass"][part][:, _FIRST_PASS_PLACES].mean(axis=0)
            names = [f"{where}_{name}" for name in _FIRST_PASS]
            values.update(zip(names, means.tolist(), strict=True))
        return values

    def _frame(self) -> dict[str, float]:
        frame, o = self._observer.frame, self._observer
        position = frame.group_position
        bits, shown = float(self._bits[position]), min(frame.show_index, o.num_frames - 1)
        has_model = bool(self._known[position])
        relative = math.log2(bits / _mean(self._bits[self._known])) if has_model else 0.0
        importance = self._arrays["importance"]
        values = {
            "complexity": float(self._log_error[shown]) / 4,
            "pcnt_inter": float(o.first_pass["pcnt_inter"][shown]),
            "importance": float(self._importance[position]) / 4,
            "model_bits": math.log2(bits) / 8 if has_model else 0.0,
            "model_share": relative / 4,
            "map_spread": float(importance.std()) * 4,
            "map_max": float(importance.max()) * 2,
            "group_ahead": float(self._coded[position:].sum() / max(self._coded.sum(), 1)),
        }
        for kind, members in self._kinds.items():
            values[f"{kind}_ahead"] = int(members[position:].sum()) / 16
        return values

    def _budget(self) -> dict[str, float]:
        o = self._observer
        per_frame = o.target_bits / o.num_frames
        frames_left = o.num_frames - o.num_shown
        left = max(o.target_bits - o.bits, 1e-2 * o.target_bits) / max(frames_left, 1)
        pace = 0.0
        if o.num_shown:
            effort = float(self._effort[o.num_shown - 1])
            pace = math.log2(max(o.bits, 1) / o.target_bits / effort)
        return {
            "frames_left": frames_left / 64,
            "to_key": o.frame.frames_to_key / 64,
            "left": math.log2(left / per_frame),
            "pace": pace,
        }

    def _plan(self, planned: Decision, rows: NDArray[np.void]) -> dict[str, float]:
        frame = self._observer.frame
        q_index = _own_q(frame, planned)
        log2_step = self._observer.session.log2_step
        step = float(log2_step[q_index])
        # The last group that has frames of the kind.
        is_reference = np.isin(rows["update_type"], REFERENCES) == _is_reference(frame)
        alike = coded_rows(rows[is_reference])
        before = alike[alike["group_index"] == alike["group_index"].max(initial=-1)]
        over = step - float(log2_step[before["q_index"]].mean()) if len(before) else 0.0
        return {
            "plan_q_index": q_index / 255,
            "plan_step": step / 4 - 2,
            "plan_over_libvpx": (step - float(log2_step[frame.libvpx_q_index])) / 2,
            "plan_over_before": over / 2,
            "plan_lambda": math.log2(planned.lambda_scale),
        }

    def _past(self, rows: NDArray[np.void]) -> dict[str, float]:
        o = self._observer
        per_frame = o.target_bits / o.num_frames
        overall = o.psnr_sum / o.num_shown if o.num_shown else 0.0

        def quality(part: NDArray[np.void]) -> float:
            levels = np.atleast_1d(psnr(part["sse_y"] / o.pixels))
            return _mean(levels - overall) / 8 if o.num_shown else 0.0

        coded = coded_rows(rows)
        current = coded[coded["group_index"] == self._group_index]
        earlier = coded["group_index"][: len(coded) - len(current)]
        before = rows[rows["group_index"] == earlier.max(initial=-1)]
        shown = shown_rows(before)
        bits = 0.0
        if len(shown):
            bits = math.log2(max(int(before["bits"].sum()), 1) / len(shown) / per_frame)
        before = coded_rows(before)
        is_reference = np.isin(before["update_type"], REFERENCES)
        return {
            "before_bits": bits / 2,
            "before_psnr": quality(shown),
            "before_reference_q_index": _mean(before["q_index"][is_reference]) / 255,
            "before_leaf_q_index": _mean(before["q_index"][~is_reference]) / 255,
            "current_bits": int(current["bits"].sum()) / (per_frame * self._length),
            "current_psnr": quality(shown_rows(current)),
            "coded_bits": _mean(np.log(np.maximum(coded["bits"][-1:], 1) / o.pixels)) / 10,
            "coded_psnr": quality(coded[-1:]),
        }


def _mean(values: NDArray[Any]) -> float:
    """Return the mean, 0 of nothing."""
    return float(values.mean()) if len(values) else 0.0


def _actions(moves: Sequence[Move]) -> dict[str, float]:
    table = np.array(moves or [(0.0, 0.0)])
    names = ("action_level", "action_reference", "mean_level", "mean_reference")
    values = [*table[-1].tolist(), *table.mean(axis=0).tolist()]
    return {**dict(zip(names, values, strict=True)), "actions": math.log2(1 + len(moves)) / 4}


# The encode


@contextmanager
def _plans_errors(session: Session) -> Iterator[None]:
    """Name clip and frame where the plan raises."""
    try:
        yield
    except VpxrcError:
        raise
    except Exception as error:
        where = f"{session.video.name}: coded frame {session.progress}"
        raise PolicyError(f"{where}: the plan raised: {error!r}") from error


class PlannedEpisode(Episode):
    """One encode under a plan whose decisions are moved, from the first decision on.

    Works on a session that waits for its answers and on one of a :class:`vpxrc.SessionPool`: call
    ``advance`` whenever it is at rest. Where it gives an observation, answer with ``act``.

    Args:
        session: The encode, with the plan's own options (``plan.options``) and with
            ``plan_groups`` where ``plan.plans_groups``.
        plan: The policy; it can serve one episode at a time.
        config: What is decided. Its ``plan`` is not read.

    Attributes:
        log: The log of the encode once it is complete, else None.
        info: What :meth:`Episode.observe` told at the last decision point or the end.
        steps: Per decision whose frames are coded: the rows ``[first, last)`` of the log that came
            of it. Together they are the whole log.
        moves: Per decision, (level, reference).
    """

    def __init__(self, session: Session, plan: Policy, config: PlannedConfig) -> None:
        # Of any length: what depends on it is not observed.
        arrays = empty_arrays(observation_space(max(session.video.num_frames, 2)))
        super().__init__(session, arrays)
        self.info: dict[str, Any] = {}
        self.steps: list[tuple[int, int]] = []
        self.moves: list[Move] = []
        self._plan = plan
        self._config = config
        self._sight = _Sight(self._observer, arrays)
        self._group_index = -1
        self._pending: tuple[Frame, Decision, Flat] | None = None
        self._first_row = 0
        with _plans_errors(session):
            plan.begin(PolicyEpisode(session))

    def advance(self) -> Flat | None:
        """Go on from where the session rests.

        Returns:
            At a decision point, the observation, float32 ``[len(OBSERVATION)]``; again the same
            until ``act`` is called. Elsewhere None: the session has been answered and runs, or is
            complete and closed, and ``log`` is there.

        Raises:
            PolicyError: The plan raised or answered out of range.
            EncoderError: libvpx failed, or the session still runs.
        """
        if self._pending is not None:
            return self._pending[2].copy()
        session, plan = self.session, self._plan
        if self.log is not None:
            return None
        if session.state == State.DONE:
            self._end_step(len(session.records()))
            self.info = self.observe()
            return None
        if session.state == State.GROUP:
            with _plans_errors(session):
                answer = plan.plan_group(session.group)
            session.step_group(answer)
            return None
        frame = session.frame
        if frame is None:
            raise EncoderError(f"{session.video.name}: the session is not at rest")
        with _plans_errors(session):
            planned = plan.decide(frame)
        if self._config.decisions == "group" and frame.group_index == self._group_index:
            self._code(frame, planned)
            return None
        self._group_index = frame.group_index
        rows = session.records()
        self._end_step(len(rows))
        self.info = self.observe()
        observation = self._sight.observation(planned, rows, self.moves)
        self._pending = frame, planned, observation
        return observation.copy()

    def act(self, action: int | Move) -> None:
        """Answer a decision point; the session runs on.

        Args:
            action: Index of a move, or a (level, reference) of its own.

        Raises:
            InputError: There is no such move, or nothing waits for one; nothing has changed.
        """
        if self._pending is None:
            raise InputError("no decision is pending: call advance() first")
        if isinstance(action, tuple):
            level, reference = (float(part) for part in action)
            if not (math.isfinite(level) and math.isfinite(reference)):
                raise InputError(f"a move must be finite, not {action!r}")
            move = level, reference
        else:
            actions = self._config.actions
            if not 0 <= action < len(actions):
                raise InputError(f"there are actions 0..{len(actions) - 1}, not {action}")
            move = actions[action]
        frame, planned, _ = self._pending
        self._pending = None
        self.moves.append(move)
        self._code(frame, planned)

    def _code(self, frame: Frame, planned: Decision) -> None:
        decision = moved(frame, planned, self.moves[-1], self.session.log2_step)
        if decision.q_index != planned.q_index:
            with _plans_errors(self.session):
                self._plan.overruled(frame, decision)
        self.session.step(decision)

    def _end_step(self, rows: int) -> None:
        if self.moves:
            self.steps.append((self._first_row, rows))
            self._first_row = rows


# The environments


class PlannedRateControlEnv(gymnasium.Env[Flat, Any]):
    """libvpx's VP9 encoder under a plan, whose decisions the agent moves.

    ## Description

    A plan, any `vpxrc.Policy` that decides by itself, is the rate control of a two-pass encode:
    frame by frame, in coding order, it says how coarsely the next frame is quantized, and keeps
    account of the bits. The agent moves what the plan decides, finer or coarser, and the plan
    learns of it (`vpxrc.Policy.overruled`). So an agent that never moves anything codes the plan's
    stream, byte for byte, and what is left to learn is how to be better. With a plan that knows
    nothing, such as `constant-q:120`, all is left to learn. A plan codes a clip once: one that
    would look at the result and code it again is not asked to.

    ## Action Space

    `Discrete(len(moves))`: a move, which is a pair (level, reference) in log2 of the quantiser
    step; above 0 is coarser, 1 is twice the step. The frame's q index becomes the one whose step is
    nearest to the plan's step times 2 ** offset, in 1..255: the offset is `level`, and for frames
    that others depend on (key frames, golden frames, ARFs) `level + reference`. An offset of 0
    leaves the plan's decision as it is; lambda is the plan's factor on libvpx's own for the q index
    that is taken. Action 0 is (0, 0), as planned.

    With `decisions="group"` an action moves a golden-frame group: it is taken at the group's first
    coded frame, and moves that one and all the others. By default

    | Num | Level | Reference |
    |-----|-------|-----------|
    | 0   | 0     | 0         |
    | 1   | 0     | -0.2      |
    | 2   | 0     | 0.2       |
    | 3   | -0.2  | 0         |
    | 4   | -0.2  | -0.2      |
    | 5   | -0.2  | 0.2       |
    | 6   | 0.2   | 0         |
    | 7   | 0.2   | -0.2      |
    | 8   | 0.2   | 0.2       |

    With `decisions="frame"` an action moves one coded frame. By default

    | Num | Level | Reference |
    |-----|-------|-----------|
    | 0   | 0     | 0         |
    | 1   | -0.1  | 0         |
    | 2   | 0.1   | 0         |
    | 3   | -0.25 | 0         |
    | 4   | 0.25  | 0         |
    | 5   | -0.6  | 0         |
    | 6   | 0.6   | 0         |

    Frames that are only shown again take no action.

    ## Observation Space

    A `Box` of 120 float32 numbers, finite and within the bounds (values beyond are clipped). They
    are per pixel, per macroblock, or logarithms of ratios, so one network serves all sizes of
    picture and lengths of clips.

    Frame: the frame that waits for its decision

    | Num | Column                   | Min | Max | Meaning                                       |
    |-----|--------------------------|-----|-----|-----------------------------------------------|
    | 0   | `is_key`                 | 0   | 1   | 1 or 0                                        |
    | 1   | `is_leaf`                | 0   | 1   | 1 or 0                                        |
    | 2   | `is_golden`              | 0   | 1   | 1 or 0                                        |
    | 3   | `is_arf`                 | 0   | 1   | 1 or 0                                        |
    | 4   | `is_overlay`             | 0   | 1   | 1 or 0                                        |
    | 5   | `is_shown`               | 0   | 1   | 1 or 0                                        |
    | 6   | `layer_depth`            | 0   | 1   | depth / 8                                     |
    | 7   | `show_position`          | 0   | 1   | show index / frames of the clip               |
    | 8   | `coding_position`        | 0   | 2   | coding index / frames of the clip             |
    | 9   | `group_position`         | 0   | 4   | position in its group / 32                    |
    | 10  | `frames_to_key`          | 0   | 1   | frames to the next key frame / frames of clip |
    | 11  | `libvpx_q_index`         | 0   | 1   | libvpx's own choice / 255                     |
    | 12  | `libvpx_q_low`           | 0   | 1   | its lower bound / 255                         |
    | 13  | `libvpx_q_high`          | 0   | 1   | its upper bound / 255                         |
    | 14  | `target_bits`            | -2  | 1   | libvpx's target, ln(bits / pixel) / 10        |
    | 15  | `gfu_boost`              | 0   | 1.2 | libvpx's boost, ln(1 + x) / 10                |
    | 16  | `has_tpl`                | 0   | 1   | 1 or 0                                        |
    | 17  | `r0`                     | 0   | 1   | intra over mc_dep cost; 0 without TPL         |
    | 18  | `takes_superblock_scale` | 0   | 1   | TPL lambda per superblock: 1 or 0             |
    | 19  | `last_age`               | 0   | 4   | coded frames since it / 32; 0 = none          |
    | 20  | `last_q_index`           | 0   | 1   | its q index / 255; 0 = none                   |
    | 21  | `golden_age`             | 0   | 4   | coded frames since it / 32; 0 = none          |
    | 22  | `golden_q_index`         | 0   | 1   | its q index / 255; 0 = none                   |
    | 23  | `altref_age`             | 0   | 4   | coded frames since it / 32; 0 = none          |
    | 24  | `altref_q_index`         | 0   | 1   | its q index / 255; 0 = none                   |
    | 25  | `complexity`             | -4  | 4   | log2(coded_error / the clip's) / 4            |
    | 26  | `pcnt_inter`             | 0   | 1   | share of the macroblocks                      |
    | 27  | `importance`             | 0   | 4   | log2(importance) / 4; 0 without a model       |
    | 28  | `model_bits`             | -4  | 4   | the model's, log2(bits / pixel) / 8           |
    | 29  | `model_share`            | -4  | 4   | log2(model's bits / mean of the group) / 4    |
    | 30  | `map_spread`             | 0   | 4   | standard deviation of its map * 4             |
    | 31  | `map_max`                | 0   | 4   | highest value of its map * 2                  |

    Budget: clip, target, and what is left of it

    | Num | Column        | Min | Max | Meaning                                                  |
    |-----|---------------|-----|-----|----------------------------------------------------------|
    | 32  | `log_pixels`  | 0   | 1   | ln(pixels of a frame) / 20                               |
    | 33  | `fps`         | 0   | 4   | frames per second / 60                                   |
    | 34  | `target`      | -2  | 1   | target, ln(bits / pixel) / 10                            |
    | 35  | `spent`       | 0   | 4   | bits spent / target bits of the clip                     |
    | 36  | `shown`       | 0   | 1   | frames shown / frames of the clip                        |
    | 37  | `overshoot`   | -1  | 4   | bits spent / target bits of frames shown - 1; at first 0 |
    | 38  | `psnr`        | 0   | 2   | mean luma PSNR of frames shown / 50 dB; at first 0       |
    | 39  | `frames_left` | 0   | 4   | frames not yet shown / 64                                |
    | 40  | `to_key`      | 0   | 4   | frames to the next key frame / 64                        |
    | 41  | `left`        | -4  | 4   | log2(bits left per frame left / target per frame)        |
    | 42  | `pace`        | -4  | 4   | log2(`spent` / share of the effort shown); at first 0    |

    Group: its golden-frame group, and the frames around it

    | Num | Column                  | Min | Max | Meaning                                   |
    |-----|-------------------------|-----|-----|-------------------------------------------|
    | 43  | `group_length`          | 0   | 4   | frames from one end to the other / 16     |
    | 44  | `group_layers`          | 0   | 1   | highest layer depth / 8                   |
    | 45  | `group_ahead`           | 0   | 1   | share of it from the pending frame on     |
    | 46  | `group_importance`      | 0   | 4   | highest log2(importance) / 4              |
    | 47  | `group_rate`            | -4  | 4   | log2(model's bits per frame / target) / 4 |
    | 48  | `references_count`      | 0   | 4   | references of the group / 16              |
    | 49  | `references_ahead`      | 0   | 4   | those from the pending frame on / 16      |
    | 50  | `references_importance` | 0   | 4   | mean of log2(importance) / 4              |
    | 51  | `references_model_bits` | -4  | 4   | the model's mean, log2(bits / pixel) / 8  |
    | 52  | `references_allocation` | -2  | 1   | libvpx's, mean of ln(bits / pixel) / 10   |
    | 53  | `leaves_count`          | 0   | 4   | leaves of the group / 16                  |
    | 54  | `leaves_ahead`          | 0   | 4   | those from the pending frame on / 16      |
    | 55  | `leaves_importance`     | 0   | 4   | mean of log2(importance) / 4              |
    | 56  | `leaves_model_bits`     | -4  | 4   | the model's mean, log2(bits / pixel) / 8  |
    | 57  | `leaves_allocation`     | -2  | 1   | libvpx's, mean of ln(bits / pixel) / 10   |
    | 58  | `group_complexity`      | -4  | 4   | mean of log2(coded_error / clip's) / 2    |
    | 59  | `group_spread`          | 0   | 4   | their standard deviation / 2              |
    | 60  | `clip_spread`           | 0   | 4   | the same over the clip / 2                |
    | 61  | `before_16_32`          | -4  | 4   | `group_complexity` of these frames        |
    | 62  | `before_0_16`           | -4  | 4   | `group_complexity` of these frames        |
    | 63  | `after_0_16`            | -4  | 4   | `group_complexity` of these frames        |
    | 64  | `after_16_32`           | -4  | 4   | `group_complexity` of these frames        |
    | 65  | `after_32_64`           | -4  | 4   | `group_complexity` of these frames        |

    First pass: libvpx's statistics, as means over the columns of that name that
    `RateControlEnv` has in `first_pass`, in its scales

    | Num | Column                     | Min | Max | Meaning                                 |
    |-----|----------------------------|-----|-----|-----------------------------------------|
    | 66  | `group_intra_error`        | 0   | 1.2 | mean over the group                     |
    | 67  | `group_coded_error`        | 0   | 1.2 | mean over the group                     |
    | 68  | `group_sr_coded_error`     | 0   | 1.2 | mean over the group                     |
    | 69  | `group_frame_noise_energy` | 0   | 1.2 | mean over the group                     |
    | 70  | `group_pcnt_inter`         | 0   | 1   | mean over the group                     |
    | 71  | `group_pcnt_motion`        | 0   | 1   | mean over the group                     |
    | 72  | `group_pcnt_second_ref`    | 0   | 1   | mean over the group                     |
    | 73  | `group_pcnt_neutral`       | 0   | 1   | mean over the group                     |
    | 74  | `group_pcnt_intra_low`     | 0   | 1   | mean over the group                     |
    | 75  | `group_intra_skip_pct`     | 0   | 1   | mean over the group                     |
    | 76  | `group_mv_row_abs`         | -1  | 1   | mean over the group                     |
    | 77  | `group_mv_col_abs`         | -1  | 1   | mean over the group                     |
    | 78  | `rest_intra_error`         | 0   | 1.2 | over what follows it; without, the clip |
    | 79  | `rest_coded_error`         | 0   | 1.2 | over what follows it; without, the clip |
    | 80  | `rest_sr_coded_error`      | 0   | 1.2 | over what follows it; without, the clip |
    | 81  | `rest_frame_noise_energy`  | 0   | 1.2 | over what follows it; without, the clip |
    | 82  | `rest_pcnt_inter`          | 0   | 1   | over what follows it; without, the clip |
    | 83  | `rest_pcnt_motion`         | 0   | 1   | over what follows it; without, the clip |
    | 84  | `rest_pcnt_second_ref`     | 0   | 1   | over what follows it; without, the clip |
    | 85  | `rest_pcnt_neutral`        | 0   | 1   | over what follows it; without, the clip |
    | 86  | `rest_pcnt_intra_low`      | 0   | 1   | over what follows it; without, the clip |
    | 87  | `rest_intra_skip_pct`      | 0   | 1   | over what follows it; without, the clip |
    | 88  | `rest_mv_row_abs`          | -1  | 1   | over what follows it; without, the clip |
    | 89  | `rest_mv_col_abs`          | -1  | 1   | over what follows it; without, the clip |
    | 90  | `clip_intra_error`         | 0   | 1.2 | over the clip                           |
    | 91  | `clip_coded_error`         | 0   | 1.2 | over the clip                           |
    | 92  | `clip_sr_coded_error`      | 0   | 1.2 | over the clip                           |
    | 93  | `clip_frame_noise_energy`  | 0   | 1.2 | over the clip                           |
    | 94  | `clip_pcnt_inter`          | 0   | 1   | over the clip                           |
    | 95  | `clip_pcnt_motion`         | 0   | 1   | over the clip                           |
    | 96  | `clip_pcnt_second_ref`     | 0   | 1   | over the clip                           |
    | 97  | `clip_pcnt_neutral`        | 0   | 1   | over the clip                           |
    | 98  | `clip_pcnt_intra_low`      | 0   | 1   | over the clip                           |
    | 99  | `clip_intra_skip_pct`      | 0   | 1   | over the clip                           |
    | 100 | `clip_mv_row_abs`          | -1  | 1   | over the clip                           |
    | 101 | `clip_mv_col_abs`          | -1  | 1   | over the clip                           |

    Plan: what the plan would do with the pending frame

    | Num | Column             | Min | Max | Meaning                           |
    |-----|--------------------|-----|-----|-----------------------------------|
    | 102 | `plan_q_index`     | 0   | 1   | its q index / 255                 |
    | 103 | `plan_step`        | -2  | 4   | log2(its quantiser step) / 4 - 2  |
    | 104 | `plan_over_libvpx` | -4  | 4   | log2(its step / libvpx's own) / 2 |
    | 105 | `plan_over_before` | -4  | 4   | log2(its step / before) / 2       |
    | 106 | `plan_lambda`      | -4  | 4   | log2(its factor on lambda)        |

    Past: what came of the decisions before: `before` of the last group, `current` of this group's
    coded frames, `coded` of the frame coded last

    | Num | Column                     | Min | Max | Meaning                                  |
    |-----|----------------------------|-----|-----|------------------------------------------|
    | 107 | `before_bits`              | -4  | 4   | log2(bits per frame / target) / 2        |
    | 108 | `before_psnr`              | -4  | 4   | mean PSNR less that of all so far / 8 dB |
    | 109 | `before_reference_q_index` | 0   | 1   | mean of the references' / 255            |
    | 110 | `before_leaf_q_index`      | 0   | 1   | mean of the others' / 255                |
    | 111 | `current_bits`             | 0   | 4   | bits / target of all its frames          |
    | 112 | `current_psnr`             | -4  | 4   | as `before_psnr`                         |
    | 113 | `coded_bits`               | -2  | 1   | ln(bits / pixel) / 10                    |
    | 114 | `coded_psnr`               | -4  | 4   | as `before_psnr`                         |
    | 115 | `action_level`             | -4  | 4   | of the last action                       |
    | 116 | `action_reference`         | -4  | 4   | of the last action                       |
    | 117 | `mean_level`               | -4  | 4   | of all actions                           |
    | 118 | `mean_reference`           | -4  | 4   | of all actions                           |
    | 119 | `actions`                  | 0   | 4   | log2(1 + actions so far) / 4             |

    `complexity` compares a frame's `coded_error` of the first pass with the clip's geometric mean;
    its effort is the square root of `coded_error`. The first frame, which is intra there, counts as
    the mean of the others. Importance and the model's bits are those of the dependency model that
    `RateControlEnv` describes, as is the map; without a model they are 0. References are key
    frames, golden frames and ARFs, leaves what nothing else depends on. `rest` is the frames after
    the group; `before_16_32` and so on are frames before its first or after its last one, 0 outside
    the clip. `plan_over_before` compares with the last group that has frames of the pending one's
    kind, reference or not. Means of nothing are 0, and so is the whole observation at the end of
    the episode.

    ## Rewards

    0 until the stream is complete, then what the `reward` object makes of the encode's log; by
    default the mean luma PSNR of the shown frames in dB, which says nothing about the bitrate: the
    constraint is in `info`. A reward that has `share` and `per_step`, such as `GainReward`, is paid
    step by step instead: after each step its share, and after the last what is left of what it
    makes of the log.

    `info` has the keys of `RateControlEnv`'s: after `reset`, `clip` and `target_bitrate`; after
    each step the `update_type`, `show_index`, `q_index` and `bits` of the frame coded last; and at
    the end of the episode also `clip`, `target_bitrate`, `psnr`, `psnr_overall`, `bitrate`,
    `overshoot`, `constraint_met` and `log`.

    ## Starting State

    Clip and target are drawn by the environment's generator, so the seed of `reset` settles them.
    `reset(options={"clip": name, "target_bitrate": kbit_s})` chooses one or both; the generator
    moves on all the same. The encode is deterministic.

    ## Episode End

    The episode terminates when the stream is complete, after as many steps as there are groups with
    a coded frame, or coded frames. It is never truncated. An encoder that fails or takes longer
    than `timeout` for a frame raises `vpxrc.EncoderError`, a plan that fails `vpxrc.PolicyError`;
    `reset` starts afresh. An action outside the space raises `gymnasium.error.InvalidAction` and
    changes nothing.

    ## Arguments

    ```python
    >>> import gymnasium as gym
    >>> import vpxrc.envs
    >>> env = gym.make("vpxrc/PlannedRateControl-v0", plan="tpl", decisions="group", cpu_used=4)
    ```

    What is the same as in `RateControlEnv` has its types there.

    | Parameter        | Type             | Default        | Description                        |
    |------------------|------------------|----------------|------------------------------------|
    | `clips`          | as there         | `"samples"`    | what to draw clips from            |
    | `target_bitrate` | as there         | `256`          | kbit/s: one, a list, a range       |
    | `plan`           | `str`            | `"imitation"`  | `NAME` or `NAME:ARGUMENT`, see     |
    |                  |                  |                | `vpxrc.make_policy`                |
    | `decisions`      | `str`            | `"group"`      | or `"frame"`                       |
    | `moves`          | pairs of `float` | `None`         | see Action Space; the first is     |
    |                  |                  |                | (0, 0)                             |
    | `reward`         | `Reward`         | `PsnrReward()` | see Rewards                        |
    | `max_frames`     | `int`            | `150`          | the most frames of a clip          |
    | `render_mode`    | `str`            | `None`         | `"rgb_array"`: the frame coded     |
    |                  |                  |                | last, as decoded; black at first   |
    | `timeout`        | `float`          | `600`          | seconds for a frame                |
    | others           |                  |                | `vpxrc.EncoderOptions`; the plan   |
    |                  |                  |                | may have its own, as `tpl` has for |
    |                  |                  |                | `rate_control`, `auto_alt_ref`     |

    ## Version History

    * v0: Initial version.
    """

    metadata: dict[str, Any] = {"render_modes": ["rgb_array"], "render_fps": 25}  # noqa: RUF012

    def __init__(
        self,
        clips: Clips = "samples",
        target_bitrate: Targets = 256,
        *,
        plan: str = "imitation",
        decisions: Literal["group", "frame"] = "group",
        moves: Sequence[Move] | None = None,
        reward: Reward | None = None,
        max_frames: int = DEFAULT_MAX_FRAMES,
        render_mode: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        self.config = PlannedConfig(plan, decisions, None if moves is None else tuple(moves))
        self._plan = make_plan(plan)
        self._tasks = Tasks(clips, target_bitrate, max_frames, options)
        self.reward: Reward = PsnrReward() if reward is None else reward
        self.render_mode = render_mode
        self.timeout = timeout
        self.observation_space = spaces.Box(_LOW, _HIGH, dtype=np.float32)
        self.action_space = self._actions()
        self._episode: PlannedEpisode | None = None
        self._paid = 0.0  # in this episode

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Flat, dict[str, Any]]:
        """Start an encode; one that is going on is ended.

        Args:
            seed: Seed of the generator that draws clip and target; None goes on drawing.
            options: May have ``clip``, a name, and ``target_bitrate``, in kbit/s.

        Raises:
            InputError: An option is unknown or out of range, or the clip cannot be used.
            PolicyError: The plan failed.
            EncoderError: libvpx failed.
        """
        super().reset(seed=seed)
        video, encoder_options = self._tasks.draw(self.np_random, options)
        self.close()
        session = self._plan.options(encoder_options).open(
            video,
            keep_reconstruction=self.render_mode is not None,
            timeout=self.timeout,
            plan_groups=self._plan.plans_groups,
        )
        self._episode = PlannedEpisode(session, self._plan, self.config)
        self._paid = 0.0
        return self._advance(self._episode), self._episode.info

    def step(self, action: Any) -> tuple[Flat, float, bool, bool, dict[str, Any]]:
        """Move the plan's decision, and go on to the next decision point.

        Raises:
            InvalidAction: The action is not in the action space; nothing has changed.
            ResetNeeded: No episode is going on.
            PolicyError: The plan failed.
            EncoderError: libvpx failed or took too long.
        """
        episode = self._episode
        if episode is None or episode.log is not None:
            raise ResetNeeded("no episode is going on: call reset() first")
        episode.act(self._move(action))
        observation = self._advance(episode)
        reward = self._pay(episode)
        return observation, reward, episode.log is not None, False, episode.info

    def render(self) -> NDArray[np.uint8] | None:  # type: ignore[override]
        """Return the reconstruction of the frame coded last, RGB uint8 ``[height, width, 3]``."""
        if self.render_mode is None:
            logger.warn('render() needs gymnasium.make(..., render_mode="rgb_array")')
            return None
        if self._episode is None:
            raise ResetNeeded("no episode is going on: call reset() first")
        return self._episode.picture()

    def close(self) -> None:
        """End the encode wherever it is; idempotent."""
        if self._episode is not None:
            self._episode.session.close()
            self._episode = None

    def _advance(self, episode: PlannedEpisode) -> Flat:
        while (observation := episode.advance()) is None:
            if episode.log is not None:
                return np.zeros(len(OBSERVATION), np.float32)
        return observation

    def _pay(self, episode: PlannedEpisode) -> float:
        """Return the reward of the step that has just ended."""
        if episode.log is not None:
            return self.reward(episode.log) - self._paid
        if not isinstance(self.reward, StepReward):
            return 0.0
        session, (first, last) = episode.session, episode.steps[-1]
        rows = session.records(first)[: last - first]
        share = self.reward.share(session.video.format, session.options, rows)
        self._paid += share
        return share

    def _actions(self) -> spaces.Space[Any]:
        return spaces.Discrete(len(self.config.actions))

    def _move(self, action: Any) -> Move:
        """Return what an action stands for.

        Raises:
            InvalidAction: It is not in the space.
        """
        if not self.action_space.contains(action):
            raise InvalidAction(f"{action!r} is not in the action space {self.action_space}")
        return self.config.actions[int(action)]


class PlannedRateControlContinuousEnv(PlannedRateControlEnv):
    """The same encoder and plan, moved by any amount.

    ## Description

    The encode of `PlannedRateControlEnv`.

    ## Action Space

    `Box(-1, 1, (2,), float32)`, a move in units of `reach`; 0 is as planned:

    | Num | Action    | At -1  | At 1  | Meaning                     |
    |-----|-----------|--------|-------|-----------------------------|
    | 0   | level     | -reach | reach | see `PlannedRateControlEnv` |
    | 1   | reference | -reach | reach | see `PlannedRateControlEnv` |

    ## Observation Space, Rewards, Starting State, Episode End

    Those of `PlannedRateControlEnv`.

    ## Arguments

    Those of `PlannedRateControlEnv`, but instead of `moves`

    | Parameter | Type    | Default | Description                         |
    |-----------|---------|---------|-------------------------------------|
    | `reach`   | `float` | `0.5`   | log2 of the quantiser step, above 0 |

    ## Version History

    * v0: Initial version.
    """

    def __init__(
        self,
        clips: Clips = "samples",
        target_bitrate: Targets = 256,
        *,
        plan: str = "imitation",
        decisions: Literal["group", "frame"] = "group",
        reach: float = 0.5,
        reward: Reward | None = None,
        max_frames: int = DEFAULT_MAX_FRAMES,
        render_mode: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        **options: Any,
    ) -> None:
        if not 0 < reach < math.inf:
            raise InputError(f"reach must be finite and above 0, not {reach}")
        self.reach = reach
        super().__init__(
            clips,
            target_bitrate,
            plan=plan,
            decisions=decisions,
            reward=reward,
            max_frames=max_frames,
            render_mode=render_mode,
            timeout=timeout,
            **options,
        )

    def _actions(self) -> spaces.Space[Any]:
        return spaces.Box(-1, 1, (2,), np.float32)

    def _move(self, action: Any) -> Move:
        try:
            # The space would refuse float64, which is what most arithmetic ends in.
            action = np.asarray(action, dtype=np.float32)
        except (TypeError, ValueError) as error:
            raise InvalidAction(f"{action!r} is not in {self.action_space}") from error
        if not self.action_space.contains(action):
            raise InvalidAction(f"{action!r} is not in the action space {self.action_space}")
        level, reference = (self.reach * part for part in action.tolist())
        return level, reference
