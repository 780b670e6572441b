"""The imitation agent: a network that has learned from the teacher's trajectories."""

from vpxrc.agents.imitation.policy import NetworkSteps, imitation, imitation_prior

__all__ = ["NetworkSteps", "imitation", "imitation_prior"]
