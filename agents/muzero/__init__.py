"""The MuZero agent: a model of the encode that is learned, and a search in it."""

from vpxrc.agents.muzero.policy import MuZero

__all__ = ["MuZero"]
