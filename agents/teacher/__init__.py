"""The teacher: trajectories found by search, one clip and target at a time."""

from vpxrc.agents.teacher.search import (
    DIRECTIONS,
    QUALITIES,
    Point,
    SearchOptions,
    SearchResult,
    anchor_curve,
    check_start,
    improve,
    saved,
    search,
)
from vpxrc.agents.teacher.trajectory import Follow, Record, Trajectory

__all__ = [
    "DIRECTIONS",
    "QUALITIES",
    "Follow",
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
