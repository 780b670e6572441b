"""The MuZero policy: a base policy corrected by a network, alone or with a search in its model."""

import dataclasses
from functools import cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpxrc.agents.muzero.network import Trained
from vpxrc.agents.residual import ResidualPolicy
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import InputError


@cache
def _load(path: Path, changed: float) -> Trained:
    return Trained.load(path)


class MuZero(ResidualPolicy):
    """A base policy corrected by a MuZero agent, with or without a search.

    Args:
        checkpoint: What ``vpxrc train --agent muzero`` wrote: ``FILE`` for the most likely action
            of the policy's head, as MuZero-RC was evaluated, or ``FILE@N`` for a search of N
            simulations per decision, without noise.

    Raises:
        InputError: The checkpoint cannot be read, or N is not a number above 0.
    """

    def __init__(self, checkpoint: str | Path) -> None:
        path, simulations = _parts(str(checkpoint))
        self._trained = trained = _load(path, path.stat().st_mtime if path.is_file() else 0.0)
        super().__init__(trained.residual)
        self._simulations = simulations
        self.training_clips |= trained.clips

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options that it was trained with, as far as they shape what it sees."""
        return super().options(dataclasses.replace(options, **self._trained.options))

    def choose(self, observation: NDArray[np.float32]) -> int:
        """Return an action for an observation ``[len(OBSERVATION)]``."""
        given, own = observation[None], self._trained.network
        if self._simulations:
            found = own.search(given, self._simulations, config=self._trained.config)
            return int(found.action[0])
        logits, _ = own.predict(own.represent(given))
        return int(logits[0].argmax())


def _parts(checkpoint: str) -> tuple[Path, int]:
    """Return the path and the simulations of ``FILE`` or ``FILE@N``."""
    path, at, count = checkpoint.rpartition("@")
    if not at or Path(checkpoint).exists():
        return Path(checkpoint), 0
    if not count.isdecimal() or int(count) < 1:
        raise InputError(f"muzero:FILE@N takes N simulations, above 0, not {count!r}")
    return Path(path), int(count)
