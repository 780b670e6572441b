"""The teacher: trajectories found by search, one clip and target at a time."""

from vpxrc.agents.teacher.curve import SEARCH_QUALITIES, Point, anchor_curve, saved
from vpxrc.agents.teacher.directions import DIRECTIONS
from vpxrc.agents.teacher.objective import Candidate, Objective
from vpxrc.agents.teacher.search import (
    SearchOptions,
    SearchResult,
    check_start,
    improve,
    search,
)
from vpxrc.agents.teacher.trajectory import Follow, Record, Trajectory

__all__ = [
    "DIRECTIONS",
    "SEARCH_QUALITIES",
    "Candidate",
    "Follow",
    "Objective",
    "Point",
    "Record",
    "SearchOptions",
    "SearchResult",
    "Trajectory",
    "anchor_curve",
    "check_start",
    "improve",
    "saved",
    "search",
]
