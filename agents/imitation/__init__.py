"""The imitation agent: a network that has learned from the teacher's trajectories."""

from vpxrc.agents.imitation.policy import Imitation, Prior

__all__ = ["Imitation", "Prior"]
