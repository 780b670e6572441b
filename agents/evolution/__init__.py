"""The teacher: trajectories found by search, one clip and target at a time."""

from vpxrc.agents.evolution.curve import SEARCH_QUALITIES, Point, anchor_curve, saved
from vpxrc.agents.evolution.directions import DIRECTIONS
from vpxrc.agents.evolution.objective import Candidate, Objective
from vpxrc.agents.evolution.search import (
    SearchOptions,
    SearchResult,
    check_start,
    improve,
    search,
)
from vpxrc.agents.evolution.trajectory import Follow, Record, Trajectory

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
