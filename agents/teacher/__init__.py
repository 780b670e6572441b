"""The teacher: trajectories found by search, one clip and target at a time."""

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
