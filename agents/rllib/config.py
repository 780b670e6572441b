"""How RLlib trains, as one JSON-able object."""

import dataclasses
import math
from dataclasses import dataclass
from typing import Any, Literal, get_args

from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import InputError

Algorithm = Literal["ppo", "sac", "bc", "marwil"]
RewardName = Literal["gain", "self-competition"]
ALGORITHMS: tuple[str, ...] = get_args(Algorithm)
OFFLINE = ("bc", "marwil")
_RATES = {"ppo": 3e-4, "sac": 3e-4, "bc": 1e-3, "marwil": 1e-3}


@dataclass(frozen=True)
class RllibConfig:
    """The networks, the reward and the four algorithms; each reads what concerns it.

    Returns are undiscounted: an episode has an end, and a bit saved early is worth one saved late.

    Attributes:
        reward: ``gain``: :class:`vpxrc.envs.GainReward` over the base policy's own encodes, paid
            step by step; ``self-competition``: :class:`vpxrc.envs.SelfCompetition`, augmented, a
            table per runner. marwil's lessons are always judged by their gain.
        reference: Spec of the policy that ppo's and sac's gains are counted from, for a base
            policy that does not follow the target; None: the base policy.
        hidden: Widths of the layers of each network.
        activation: Activation of those layers.
        base_share: Probability that the untrained policy gives action 0, the base policy's own
            decision; the other actions share the rest. None: all actions are alike. sac starts at a
            mean offset of 0.
        reach: The offsets that sac's actions of -1 and 1 stand for, log2 of the quantiser step.
        spread: Standard deviation of sac's untrained policy, before tanh.
        rate: Adam's learning rate; None: 3e-4 for ppo and sac, 1e-3 for bc and marwil.
        batch: Steps per iteration of ppo, per update of the others.
        entropy: ppo's bonus.
        epochs: ppo's passes over a batch.
        minibatch: Steps per update of ppo, of a batch at most.
        clip: ppo's clip of the ratio of probabilities.
        trace: Lambda of ppo's generalized advantages.
        beta: marwil's exponent on advantages, in [0, 1]; at 0 it is bc.
        contrast: Episodes of random offsets that marwil sees per lesson, besides the teacher's and
            the base policy's: advantages say nothing where all is well done.
        warmup: Steps before sac's first update.
        replay: Steps that sac's replay holds.
        reuse: How often sac draws a step on average.
        steps: sac's steps per iteration.
        max_frames: The most frames of a clip.
    """

    reward: RewardName = "gain"
    reference: str | None = None
    hidden: tuple[int, ...] = (64, 64)
    activation: Literal["tanh", "relu"] = "tanh"
    base_share: float | None = 0.5
    reach: float = 0.5
    spread: float = 0.5
    rate: float | None = None
    batch: int = 256
    entropy: float = 0.01
    epochs: int = 8
    minibatch: int = 64
    clip: float = 0.2
    trace: float = 0.95
    beta: float = 1.0
    contrast: int = 2
    warmup: int = 256
    replay: int = 50_000
    reuse: float = 64.0
    steps: int = 64
    max_frames: int = 300

    def __post_init__(self) -> None:
        """Check every value, with the name in the complaint."""
        object.__setattr__(self, "hidden", tuple(self.hidden))
        for name, choices in (
            ("reward", get_args(RewardName)),
            ("activation", ("tanh", "relu")),
        ):
            if getattr(self, name) not in choices:
                raise InputError(f"{name} must be one of {', '.join(choices)}")
        if not self.hidden or not all(isinstance(n, int) and n > 0 for n in self.hidden):
            raise InputError(f"hidden must be widths above 0, not {self.hidden!r}")
        for name, low, high in (
            ("batch", 1, 1_000_000),
            ("entropy", 0, math.inf),
            ("epochs", 1, 10_000),
            ("minibatch", 1, 1_000_000),
            ("trace", 0, 1),
            ("beta", 0, 1),
            ("contrast", 0, 1000),
            ("warmup", 1, self.replay),
            ("replay", 1, 100_000_000),
            ("steps", 1, 1_000_000),
            ("max_frames", 2, 100_000),
        ):
            value = getattr(self, name)
            if not low <= value <= high:
                raise InputError(f"{name} must be in {low}..{high}, not {value!r}")
        for name in ("reach", "spread", "clip", "reuse"):
            if not 0 < getattr(self, name) < math.inf:
                raise InputError(f"{name} must be finite and above 0, not {getattr(self, name)!r}")
        if self.rate is not None and not 0 < self.rate < math.inf:
            raise InputError(f"rate must be finite and above 0, not {self.rate!r}")
        if self.base_share is not None and not 0 < self.base_share < 1:
            raise InputError(f"base_share must be in (0, 1), not {self.base_share!r}")

    def rate_of(self, algorithm: str) -> float:
        """Return the learning rate, the algorithm's default filled in."""
        return _RATES[algorithm] if self.rate is None else self.rate


def split_options(options: dict[str, Any]) -> tuple[RllibConfig, dict[str, Any]]:
    """Return the training's configuration and the encoder's options, told apart by name.

    Raises:
        InputError: A name is neither's, or a value is out of range.
    """
    own = {field.name for field in dataclasses.fields(RllibConfig)}
    encoder = {field.name for field in dataclasses.fields(EncoderOptions)}
    encoder = encoder - {"target_bitrate"} | {"encoder"}
    if unknown := options.keys() - own - encoder:
        raise InputError(f"unknown option {min(unknown)!r}")
    config = RllibConfig(**{name: options[name] for name in options.keys() & own})
    return config, {name: options[name] for name in sorted(options.keys() & encoder)}
