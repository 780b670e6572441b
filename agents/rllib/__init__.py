"""Agents of the residual problem that RLlib trains: PPO, SAC, and BC and MARWIL from lessons."""

from vpxrc.agents.rllib.policy import Rllib

__all__ = ["Rllib"]
