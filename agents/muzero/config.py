"""What the MuZero agent is made of and how it is trained, as one JSON-able object."""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from vpxrc.errors import InputError


@dataclass(frozen=True)
class MuZeroConfig:
    """The network, the search, the replay and the learner.

    Returns are undiscounted sums of rewards: an episode has an end, and a bit saved early is worth
    one saved late. Values are predicted as plain numbers under a Huber loss, which suits returns of
    about -10 to 10: percent of bits, or -1 to 1.

    Attributes:
        hidden: Width of the latent state.
        width: Width of the layers between.
        base_share: Probability that the untrained policy gives action 0, the base policy's own
            decision; the other actions share the rest. None: all actions are alike.
        simulations: Simulations of the search per decision.
        max_considered: Actions that the search may start with.
        value_scale: A return better by 1 than another's moves the search's policy by about 50 times
            this, in its logits. mctx has 0.1 and stretches all values to 0..1 first, which makes
            much of differences that are the network's noise; here returns count as they are.
        noise: Factor on the Gumbel noise at the root in training.
        explore: Share of the decisions in training that are drawn from all actions alike, in
            [0, 1]. An encode repeats itself exactly: once the policy is sure, noise alone shows it
            nothing new. What is learned as the policy is the search's word there too.
        capacity: Steps that the replay holds.
        warmup: Steps that it has before the first update.
        priority: Exponent on the value's error in a step's chance to be drawn, in [0, 1].
        correction: Exponent of the importance weights, in [0, 1]; 1 undoes the preference.
        unroll: Steps that the dynamics are unrolled for, at least 1.
        batch: Positions per update.
        reuse: How often a step is drawn on average.
        reanalyse: Share of a batch's positions that are searched again with the latest network.
        trace: Lambda of TD(lambda): 1 for the whole return, 0 for the next value alone.
        rate: AdamW's learning rate.
        decay: AdamW's weight decay.
        value_weight: Weight of the value's loss; the policy's has 1.
        reward_weight: Weight of the reward's loss.
        auxiliary: Weight of the losses of bits and of distortion.
        seed: Seed of the parameters, the draws and the noise.
    """

    hidden: int = 64
    width: int = 128
    base_share: float | None = 0.5
    simulations: int = 16
    max_considered: int = 16
    value_scale: float = 0.02
    noise: float = 1.0
    explore: float = 0.1
    capacity: int = 50_000
    warmup: int = 500
    priority: float = 0.6
    correction: float = 0.4
    unroll: int = 5
    batch: int = 64
    reuse: float = 32.0
    reanalyse: float = 0.25
    trace: float = 0.9
    rate: float = 1e-3
    decay: float = 1e-4
    value_weight: float = 0.5
    reward_weight: float = 0.5
    auxiliary: float = 0.2
    seed: int = 0

    def __post_init__(self) -> None:
        """Check every range, with the name in the complaint."""
        for name, low, high in (
            ("hidden", 2, 4096),
            ("width", 1, 4096),
            ("simulations", 1, 10_000),
            ("max_considered", 1, 10_000),
            ("capacity", 1, 100_000_000),
            ("warmup", 1, self.capacity),
            ("unroll", 1, 100),
            ("batch", 1, 100_000),
            ("value_scale", 0, math.inf),
            ("noise", 0, math.inf),
            ("explore", 0, 1),
            ("priority", 0, 1),
            ("correction", 0, 1),
            ("reuse", 0, 100_000),
            ("reanalyse", 0, 1),
            ("trace", 0, 1),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} must be in {low}..{high}, not {value!r}")
        if self.base_share is not None and not 0 < self.base_share < 1:
            raise InputError(f"base_share must be in (0, 1), not {self.base_share!r}")

    @classmethod
    def for_base(cls, base: str, settings: Mapping[str, Any]) -> "MuZeroConfig":
        """Return the configuration for correcting a policy.

        Over ``constant-q`` the policy's own decision is no better than any other, so
        ``base_share`` is None there unless the settings say otherwise.

        Args:
            base: Spec of the policy that is corrected.
            settings: Fields that differ from the defaults, by name.

        Raises:
            InputError: There is no such field, or it takes no such value.
        """
        fields = {field.name: field.default for field in dataclasses.fields(cls)}
        for name, value in settings.items():
            if name not in fields:
                raise InputError(f"MuZeroConfig has no {name!r}; there are {', '.join(fields)}")
            whole = isinstance(fields[name], int)
            number = isinstance(value, int) or (isinstance(value, float) and not whole)
            if not number and not (value is None and name == "base_share"):
                raise InputError(f"{name} takes {'an integer' if whole else 'a number'}")
        values = dict(settings)
        if base.partition(":")[0] == "constant-q":
            values.setdefault("base_share", None)
        return cls(**values)
