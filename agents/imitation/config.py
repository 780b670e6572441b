"""The settings of the imitation agent's training."""

from dataclasses import dataclass


@dataclass(frozen=True)
class LearnerConfig:
    """How the network is trained.

    Attributes:
        epochs: Passes over the lessons.
        batch: Lessons per step.
        rate: Learning rate of Adam at the start; it falls to 0 along a cosine.
        decay: Weight decay.
        dropout: Dropout rate of the embeddings.
        auxiliary: Weight of the losses of bits, distortion and excess against the offsets'.
        dependency_inputs: Whether the network sees the temporal dependency model.
        members: Number of networks, which start from different seeds; their outputs are averaged.
        seed: Seed of the parameters, the order of the lessons and the dropout.
    """

    epochs: int = 80
    batch: int = 24
    rate: float = 2e-3
    decay: float = 3e-2
    dropout: float = 0.3
    auxiliary: float = 0.2
    dependency_inputs: bool = True
    members: int = 4
    seed: int = 0
