"""A search over the whole trajectory of one clip at one target.

A trajectory is moved along a few directions: the level of a group of pictures, its key frame, its
alternate reference, the layers above, lambdas, single frames. A group hardly changes what is coded
two groups later, so one encode tries a direction in every other group at once, and each group is
judged by itself: by the bits and the quality from there to the next group that was moved. Three
encodes (as it is, coarser, finer) give a parabola per group, and the group goes to its minimum.
The number of encodes grows with the number of directions, not with directions times groups as it
would for CMA-ES; ``benchmarks/search_methods.py`` compares the two at the same number of encodes.
"""

import dataclasses
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpxrc.agents.teacher.curve import SEARCH_QUALITIES, Point, Quality
from vpxrc.agents.teacher.directions import (
    DIRECTIONS,
    Direction,
    moved_along,
    phases,
    units,
)
from vpxrc.agents.teacher.objective import Candidate, Objective
from vpxrc.agents.teacher.trajectory import Trajectory
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import InputError
from vpxrc.media.frames import Video
from vpxrc.policies.base import Policy
from vpxrc.policies.registry import make_policy
from vpxrc.storage import atomic_write, parse_json

_FULL_STEP = 0.8  # share of the way to the parabola's minimum that is gone: neighbours move as well
_RESERVE = 3  # landing encodes that are kept where the number of encodes is limited
_STATE_FORMAT = 3
_RESPONSE = [
    "round",
    "direction",
    "block",
    "first_row",
    "last_row",
    "gradient",
    "curvature",
    "move",
]


@dataclass(frozen=True)
class SearchOptions:
    """What is tried, and how far.

    Attributes:
        quality: What is held equal: ``balanced`` (the mean of the bits that the four others say),
            mean luma PSNR, PSNR of the mean error, mean SSIM or mean VMAF.
        directions: What is moved, in this order: ``level`` (all frames of a block of groups),
            ``key``, ``arf`` (the base layer and golden frames), ``inner`` (the layers above),
            ``frame`` (single leaves), ``leaf_lambda``, ``arf_lambda``.
        step: How far a direction is tried, log2 of the quantiser step or of lambda.
        most: How far a block may go at once, in tried steps.
        tolerance: The target is met this closely at the end.
        max_encodes: Never exceeded: directions that would are passed over, and landing on the
            target comes first; None: as many as it takes.
    """

    quality: Quality = "balanced"
    directions: tuple[Direction, ...] = ("level", "key", "arf", "inner", "level", "arf")
    step: float = 0.35
    most: float = 1.5
    tolerance: float = 0.02
    max_encodes: int | None = None

    def __post_init__(self) -> None:
        """Check the names and the number."""
        if self.max_encodes is not None and self.max_encodes < 1:
            raise InputError(f"max_encodes must be at least 1, not {self.max_encodes}")
        for what, names, known in (
            ("quality", [self.quality], SEARCH_QUALITIES),
            ("direction", self.directions, DIRECTIONS),
        ):
            for name in names:
                if name not in known:
                    raise InputError(f"unknown {what} {name!r}: choose from {', '.join(known)}")


@dataclass(frozen=True, eq=False)
class SearchResult:
    """What a search found.

    Attributes:
        trajectory: The best one.
        log: The log of its encode.
        start: Rate and quality where the search started.
        found: Rate and quality where it ended.
        responses: A row per direction and block: ``round``, ``direction``, ``block``,
            ``first_row`` and ``last_row`` (in the trajectory), ``gradient`` and ``curvature``
            (percent of the clip's bits per log2 step, and per its square), ``move`` (taken).
        encodes: How many were made; encodes that a search repeats when it goes on are not counted
            twice.
    """

    trajectory: Trajectory
    log: EncodeLog
    start: Point
    found: Point
    responses: pd.DataFrame
    encodes: int


def search(
    video: Video,
    options: EncoderOptions,
    start: Policy,
    search_options: SearchOptions | None = None,
    *,
    state: Path | None = None,
    key: str = "",
    progress: Callable[[int], None] | None = None,
) -> SearchResult:
    """Improve what a policy decides for one clip and target.

    Args:
        video: The clip.
        options: The encoder's options with the target.
        start: The policy that the search starts from.
        search_options: What is tried.
        state: A file that keeps the search after every direction; where one with the same ``key``
            is there already, the search goes on from it. The caller removes it.
        key: Tells the state from another search's: it differs wherever the arguments above do.
        progress: Called with the number of encodes so far.

    Returns:
        The best trajectory seen; where the search gained nothing, the start's, brought to the
        target.

    Raises:
        InputError: The start leaves the decisions to libvpx.
    """
    check_start(start)
    asked = search_options or SearchOptions()
    objective = Objective(video, options, asked.quality, progress)
    return _Search(objective, asked, state, key).run(start)


def check_start(start: Policy) -> None:
    """Refuse a policy that a search cannot start from.

    Raises:
        InputError: It leaves the decisions to libvpx.
    """
    if start.observes:
        raise InputError(
            "a search starts from a policy that decides every frame itself; "
            "this one leaves that to libvpx"
        )


def improve(
    video: Video,
    options: EncoderOptions,
    policy: Policy,
    encodes: int,
    progress: Callable[[int], None] | None = None,
) -> EncodeLog:
    """Return the encode of a policy, improved by a search of so many encodes at most.

    Args:
        video: The clip.
        options: The encoder's options with the target.
        policy: Where the search starts.
        encodes: At least 1, the policy's own included.
        progress: Called with the number of encodes so far.
    """
    # Round after round: the encodes are what ends it, and a direction takes at least three.
    once = SearchOptions().directions
    rounds = 1 + encodes // 3 // len(once)
    # PSNR, since libvmaf does not take pictures of every size that the encoder takes.
    asked = SearchOptions("psnr", directions=once * rounds, max_encodes=encodes)
    return search(video, options, policy, asked, progress=progress).log


def improve_by(
    spec: str,
    encodes: int,
    video: Video,
    options: EncoderOptions,
    progress: Callable[[int], None],
) -> EncodeLog:
    """Return the encode of a policy by name, improved by a search.

    With ``functools.partial`` it is the ``encode`` of :func:`vpxrc.transcode`.

    Args:
        spec: The policy as :func:`vpxrc.make_policy` takes it.
        encodes: Encodes at most, at least 1.
        video: The clip.
        options: The encoder's options with the target.
        progress: Called with the share of the search that is done, as a number of frames.
    """

    def count(done: int) -> None:
        progress(video.num_frames * min(done, encodes) // encodes)

    return improve(video, options, make_policy(spec), encodes, count)


class _Search:
    """One search; see :func:`search`."""

    _now: Candidate  # where the search is
    _best: Candidate
    _best_score: float

    def __init__(
        self, objective: Objective, asked: SearchOptions, state: Path | None, key: str
    ) -> None:
        self._objective, self._asked = objective, asked
        self._state, self._key = state, f"{_STATE_FORMAT} {key}"
        self._round = 0
        self._responses: list[dict[str, Any]] = []

    def run(self, start: Policy) -> SearchResult:
        """Try the directions, land on the target."""
        asked, objective = self._asked, self._objective
        if self._state is None or not self._resume(self._state):
            self._begin(start)
        for place in range(self._round, len(asked.directions)):
            self._round, direction = place, asked.directions[place]
            chosen = phases(self._now.trajectory, direction)
            if not chosen or not self._affords(len(chosen)):
                continue
            move = self._try(direction, chosen)
            # Everything coarser or finer alike runs along the curve: that keeps to the target.
            level = -objective.excess(self._now.log) / objective.bits_per_step
            moved = moved_along(self._now.trajectory, direction, move, level)
            self._now = objective.evaluate(moved)
            if (score := objective.score(self._now)) < self._best_score:
                self._best, self._best_score = self._now, score
            self._round = place + 1
            if self._state is not None:
                self._keep(self._state)
        landed = objective.land(self._best, asked.tolerance, asked.max_encodes)
        return SearchResult(
            trajectory=landed.trajectory,
            log=dataclasses.replace(landed.log, encodes=objective.encodes),
            start=objective.origin,
            found=landed.encode.point,
            responses=pd.DataFrame(self._responses, columns=_RESPONSE),
            encodes=objective.encodes,
        )

    def _affords(self, count: int, before: int = 0) -> bool:
        """Return whether so many phases can still be tried, ``before`` encodes from now."""
        price = 2 * count + 1 + _RESERVE
        most = self._asked.max_encodes
        return most is None or self._objective.encodes + before + price <= most

    def _begin(self, start: Policy) -> None:
        """Take the start's trajectory, and measure on which slope it is."""
        self._now = self._best = self._objective.begin(start, self._asked.max_encodes)
        self._best_score = 0.0
        plans = [len(phases(self._now.trajectory, one)) for one in self._asked.directions]
        if any(count and self._affords(count, before=1) for count in plans):
            self._objective.measure_slopes(self._now, self._asked.step)
        else:
            self._round = len(plans)  # all encodes go to landing

    def _try(self, direction: Direction, together: list[NDArray[np.bool_]]) -> NDArray[np.float64]:
        """Encode with units moved either way; return how far each frame is to move, ``[T]``."""
        now, step = self._now, self._asked.step
        numbers = units(now.trajectory, direction)
        move = np.zeros(len(now.trajectory))
        for chosen in together:
            costs = []
            for sign in (1, -1):
                trial = np.where(chosen, sign * step, 0.0)
                moved = moved_along(now.trajectory, direction, trial)
                costs.append(self._objective.costs(self._objective.evaluate(moved), now))
            mine, places = np.unique(numbers[chosen], return_index=True)
            firsts = np.flatnonzero(chosen)[places]
            ends = np.append(firsts[1:], len(now.trajectory))
            for unit, first, end in zip(mine.tolist(), firsts, ends, strict=True):
                coarser, finer = (cost[end] - cost[first] for cost in costs)
                if not np.isfinite(coarser + finer):
                    continue  # the groups changed; what was tried is no answer
                answer = parabola(float(coarser), float(finer), step, self._asked.most)
                rows = np.flatnonzero(numbers == unit)
                move[rows] = answer[-1]
                found = (self._round, direction, unit, *rows[[0, -1]].tolist(), *answer)
                self._responses.append(dict(zip(_RESPONSE, found, strict=True)))
        return move

    def _keep(self, path: Path) -> None:
        best = None if self._best is self._now else _columns(self._best.trajectory)
        kept = {
            "key": self._key,
            "trajectory": _columns(self._now.trajectory),
            "best": best,
            "best_score": self._best_score,
            "round": self._round,
            "responses": self._responses,
            "objective": self._objective.state(),
        }
        with atomic_write(path) as temporary:
            temporary.write_text(json.dumps(kept, default=float))

    def _resume(self, path: Path) -> bool:
        try:
            kept = parse_json(path.read_text())
        except (OSError, ValueError):
            return False
        if kept.get("key") != self._key:
            return False
        self._now = self._best = self._objective.evaluate(_trajectory(kept["trajectory"]))
        if kept["best"] is not None:
            self._best = self._objective.evaluate(_trajectory(kept["best"]))
        self._best_score, self._round = kept["best_score"], kept["round"]
        self._responses = kept["responses"]
        self._objective.load_state(kept["objective"])
        return True


def _columns(trajectory: Trajectory) -> dict[str, list[Any]]:
    return {str(name): column.tolist() for name, column in trajectory.to_pandas().items()}


def _trajectory(columns: dict[str, list[Any]]) -> Trajectory:
    return Trajectory.from_pandas(pd.DataFrame(columns))


def parabola(coarser: float, finer: float, step: float, most: float) -> tuple[float, float, float]:
    """Return gradient and curvature of what two moves cost, and the move to be made.

    Args:
        coarser: Cost of a step up.
        finer: Cost of a step down.
        step: The step.
        most: The move's limit, in steps.
    """
    gradient, curvature = (coarser - finer) / (2 * step), (coarser + finer) / step**2
    if curvature > 0:
        move = float(np.clip(-_FULL_STEP * gradient / curvature, -most * step, most * step))
    elif min(coarser, finer) < 0:
        move = step if coarser < finer else -step
    else:
        move = 0.0
    return gradient, curvature, move
