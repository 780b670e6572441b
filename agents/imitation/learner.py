"""Training: the network in torch, its losses, and a run that can be stopped and gone on with."""

import dataclasses
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from vpxrc.agents.imitation.config import LearnerConfig
from vpxrc.agents.imitation.dataset import Lesson
from vpxrc.agents.imitation.features import DEPENDENCY_INPUTS, FIRST_PASS, FRAME, GROUP
from vpxrc.agents.imitation.network import (
    FIRST_PASS_WIDTH,
    FORMAT,
    FRAME_WIDTH,
    GROUP_WIDTH,
    HEADS,
    HIDDEN,
    INNER,
    LIMITS,
    inputs,
)
from vpxrc.errors import InputError
from vpxrc.storage import atomic_write
from vpxrc.tensors import DAMAGED, tensor_bytes


class TorchNetwork(nn.Module):
    """A member of ``vpxrc.agents.imitation.network.Network``, over a batch of padded sequences."""

    def __init__(self, dropout: float = 0.0) -> None:
        super().__init__()
        self.first_pass = nn.Linear(len(FIRST_PASS), FIRST_PASS_WIDTH)
        self.frame = nn.Linear(len(FRAME), FRAME_WIDTH)
        pooled = 2 * FRAME_WIDTH + 3 * FIRST_PASS_WIDTH
        self.group = nn.Linear(len(GROUP) + pooled, GROUP_WIDTH)
        self.recur = nn.GRUCell(GROUP_WIDTH, HIDDEN)
        state = GROUP_WIDTH + HIDDEN
        self.inner = nn.Linear(len(FRAME) + FRAME_WIDTH + state, INNER)
        self.heads = nn.Linear(INNER, len(HEADS))
        self.excess = nn.Linear(state, 1)
        self.dropout = nn.Dropout(dropout)
        nn.init.zeros_(self.heads.weight)
        nn.init.zeros_(self.heads.bias)
        for name, width in (("frame", len(FRAME)), ("group", len(GROUP))):
            self.register_buffer(f"{name}_mean", torch.zeros(width))
            self.register_buffer(f"{name}_gain", torch.ones(width))
        self.register_buffer("first_pass_mean", torch.zeros(len(FIRST_PASS)))
        self.register_buffer("first_pass_gain", torch.ones(len(FIRST_PASS)))

    def scaled(self, name: str, values: Tensor) -> Tensor:
        """Return inputs at mean 0 and deviation 1 over the lessons."""
        mean, gain = getattr(self, f"{name}_mean"), getattr(self, f"{name}_gain")
        scaled: Tensor = ((values - mean) * gain).clamp(-4.0, 4.0)
        return scaled

    def forward(self, batch: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        """Return the heads ``[B, G, n, 4]`` and the excess ``[B, G]``.

        Args:
            batch: ``frames`` ``[B, G, n, FRAME]`` with ``frame_mask`` ``[B, G, n]``, ``group``
                ``[B, G, GROUP]``, ``first_pass`` ``[B, T, FIRST_PASS]`` with ``pools``
                ``[B, G, 3, T]``: how each row goes into the means of clip, group and rest.
        """
        mask = batch["frame_mask"].unsqueeze(-1)
        x = self.scaled("frame", batch["frames"])
        embedded = self.frame(x).relu()
        mean = (embedded * mask).sum(2) / mask.sum(2).clamp(min=1)
        # After relu nothing is below 0, so padding at 0 is no maximum of its own.
        highest = (embedded * mask).amax(2)
        seen = self.first_pass(self.scaled("first_pass", batch["first_pass"])).relu()
        pools = torch.einsum("bgkt,btw->bgkw", batch["pools"], seen).flatten(2)
        given = torch.cat([self.scaled("group", batch["group"]), mean, highest, pools], dim=-1)
        z = self.dropout(self.group(given).relu())
        hidden = z.new_zeros(len(z), HIDDEN)
        states = []
        for step in range(z.shape[1]):
            hidden = self.recur(z[:, step], hidden)
            states.append(torch.cat([z[:, step], hidden], dim=-1))
        state = torch.stack(states, dim=1)
        wide = state.unsqueeze(2).expand(-1, -1, x.shape[2], -1)
        inner = self.inner(torch.cat([x, self.dropout(embedded), wide], dim=-1)).relu()
        raw = self.heads(inner)
        heads = torch.cat([raw[..., :3].tanh() * raw.new_tensor(LIMITS), raw[..., 3:]], dim=-1)
        return heads, self.excess(state).squeeze(-1)


def collate(lessons: Sequence[Lesson]) -> dict[str, Tensor]:
    """Return lessons as padded tensors; see :meth:`TorchNetwork.forward`, and the labels."""
    count = len(lessons)
    groups = max(len(lesson.groups) for lesson in lessons)
    frames = max(len(group.offset) for lesson in lessons for group in lesson.groups)
    shown = max(len(lesson.first_pass) for lesson in lessons)
    out: dict[str, NDArray[Any]] = {
        "frames": np.zeros((count, groups, frames, len(FRAME)), np.float32),
        "frame_mask": np.zeros((count, groups, frames), np.float32),
        "group": np.zeros((count, groups, len(GROUP)), np.float32),
        "group_mask": np.zeros((count, groups), np.float32),
        "first_pass": np.zeros((count, shown, len(FIRST_PASS)), np.float32),
        "pools": np.zeros((count, groups, 3, shown), np.float32),
        "labels": np.zeros((count, groups, frames, len(HEADS)), np.float32),
        "weights": np.zeros((count, groups, frames), np.float32),
        "bits_mask": np.zeros((count, groups, frames), np.float32),
        "distortion_mask": np.zeros((count, groups, frames), np.float32),
        "excess": np.zeros((count, groups), np.float32),
    }
    for b, lesson in enumerate(lessons):
        rows = len(lesson.first_pass)
        out["first_pass"][b, :rows] = lesson.first_pass
        for g, group in enumerate(lesson.groups):
            n = len(group.offset)
            out["frames"][b, g, :n] = group.features.frames
            out["frame_mask"][b, g, :n] = 1
            out["group"][b, g] = group.features.group
            out["group_mask"][b, g] = 1
            out["pools"][b, g, 0, :rows] = 1 / rows
            inside = np.flatnonzero(group.features.inside)
            if len(inside):
                out["pools"][b, g, 1, inside] = 1 / len(inside)
            after = inside[-1] + 1 if len(inside) else rows
            if after < rows:
                out["pools"][b, g, 2, after:rows] = 1 / (rows - after)
            labels = (group.offset, group.log2_lambda, group.log2_bits, group.log2_distortion)
            out["labels"][b, g, :n] = np.nan_to_num(np.stack(labels, axis=1))
            out["weights"][b, g, :n] = group.weights
            out["bits_mask"][b, g, :n] = np.isfinite(group.log2_bits)
            out["distortion_mask"][b, g, :n] = np.isfinite(group.log2_distortion)
            out["excess"][b, g] = group.excess
    return {name: torch.from_numpy(values) for name, values in out.items()}


def losses(heads: Tensor, excess: Tensor, batch: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the loss of each output, scalars."""
    huber = nn.functional.smooth_l1_loss
    weights, labels = batch["weights"], batch["labels"]
    total = weights.sum((1, 2)).clamp(min=1e-6)
    wrong = huber(heads[..., 0], labels[..., 0], reduction="none")
    offset = (weights * wrong).sum((1, 2)) / total

    def mean(values: Tensor, over: Tensor) -> Tensor:
        return (values * over).sum() / over.sum().clamp(min=1)

    return {
        "offset": offset.mean(),
        "lambda": mean((heads[..., 1] - labels[..., 1]) ** 2, weights),
        "bits": mean(huber(heads[..., 2], labels[..., 2], reduction="none"), batch["bits_mask"]),
        "distortion": mean(
            huber(heads[..., 3], labels[..., 3], reduction="none"), batch["distortion_mask"]
        ),
        "excess": mean(huber(excess, batch["excess"], reduction="none"), batch["group_mask"]),
    }


class Learner:
    """Trains the members of a network on lessons.

    Args:
        lessons: At least one, each with at least one group.
        config: How.

    Raises:
        InputError: There is nothing to learn from.
    """

    def __init__(self, lessons: Sequence[Lesson], config: LearnerConfig | None = None) -> None:
        self.lessons = [lesson for lesson in lessons if lesson.groups]
        if not self.lessons:
            raise InputError("no lessons to train on")
        self.config = config or LearnerConfig()
        self.epoch = 0
        torch.manual_seed(self.config.seed)
        self.members = nn.ModuleList(
            TorchNetwork(self.config.dropout) for _ in range(self.config.members)
        )
        self._data = collate(self.lessons)
        self._normalise()
        self._optimizer = torch.optim.AdamW(
            self.members.parameters(), self.config.rate, weight_decay=self.config.decay
        )

    def _normalise(self) -> None:
        data = self._data
        hidden = () if self.config.dependency_inputs else DEPENDENCY_INPUTS
        rows = torch.cat([torch.from_numpy(lesson.first_pass) for lesson in self.lessons])
        for name, values, columns in (
            ("frame", data["frames"][data["frame_mask"] > 0], FRAME),
            ("group", data["group"][data["group_mask"] > 0], GROUP),
            ("first_pass", rows, FIRST_PASS),
        ):
            gain = 1 / values.std(0, correction=0).clamp(min=0.05)
            gain[[column in hidden for column in columns]] = 0.0
            for member in self.members:
                getattr(member, f"{name}_mean").copy_(values.mean(0))
                getattr(member, f"{name}_gain").copy_(gain)

    def run_epoch(self) -> dict[str, float]:
        """Go once over the lessons; return the mean losses."""
        config = self.config
        rng = torch.Generator().manual_seed(1000 * config.seed + self.epoch)
        order = torch.randperm(len(self.lessons), generator=rng)
        torch.manual_seed(1000 * config.seed + self.epoch)  # of the dropout
        for group in self._optimizer.param_groups:
            group["lr"] = config.rate * 0.5 * (1 + math.cos(math.pi * self.epoch / config.epochs))
        self.members.train()
        sums: dict[str, float] = {}
        for chosen in torch.split(order, config.batch):
            batch = {name: values[chosen] for name, values in self._data.items()}
            self._optimizer.zero_grad()
            for member in self.members:
                heads, excess = member(batch)
                parts = losses(heads, excess, batch)
                auxiliary = parts["bits"] + parts["distortion"] + parts["excess"]
                loss = parts["offset"] + parts["lambda"] + config.auxiliary * auxiliary
                torch.autograd.backward(loss)
                nn.utils.clip_grad_norm_(member.parameters(), 1.0)
                share = len(chosen) / len(self.lessons) / config.members
                for name, value in parts.items():
                    sums[name] = sums.get(name, 0.0) + float(value.detach()) * share
            self._optimizer.step()
        self.epoch += 1
        return sums

    def train(self, progress: Callable[[int, dict[str, float]], None] | None = None) -> None:
        """Run the epochs that are left."""
        while self.epoch < self.config.epochs:
            parts = self.run_epoch()
            if progress is not None:
                progress(self.epoch, parts)

    def save_state(self, path: Path) -> None:
        """Write what :meth:`load_state` needs to go on, by atomic rename."""
        state = {
            "epoch": self.epoch,
            "config": dataclasses.asdict(self.config),
            "members": self.members.state_dict(),
            "optimizer": self._optimizer.state_dict(),
        }
        with atomic_write(path) as temporary:
            torch.save(state, temporary)

    def load_state(self, path: Path) -> None:
        """Go on from a state.

        Raises:
            InputError: It is another configuration's, or none.
        """
        try:
            state = torch.load(path, weights_only=True)
            if state["config"] != dataclasses.asdict(self.config):
                raise InputError(
                    f"{path}: a state of another configuration; remove it to start anew"
                )
            self.members.load_state_dict(state["members"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.epoch = state["epoch"]
        except DAMAGED as error:
            raise InputError(f"{path}: not a state of this training") from error

    def save(self, path: Path, **settings: str) -> None:
        """Write the checkpoint that the policy loads, by atomic rename."""
        clips = sorted({lesson.content_hash for lesson in self.lessons})
        metadata = {
            "format": str(FORMAT),
            "inputs": inputs(),
            "clips": " ".join(clips),
            "config": json.dumps(dataclasses.asdict(self.config)),
            **settings,
        }
        tensors = {name: one.detach().numpy() for name, one in self.members.state_dict().items()}
        with atomic_write(path) as temporary:
            temporary.write_bytes(tensor_bytes(tensors, metadata))
