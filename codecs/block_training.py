"""Training of block codecs on AV1's intra residuals."""

import contextlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vpxrc.codecs.model import one_thread
from vpxrc.codecs.papers.adaptive_transform import BlockModel, Curve, Design, level_of
from vpxrc.codecs.papers.selected_transform import SelectedDesign, SelectedModel
from vpxrc.codecs.residual_blocks import Blocks
from vpxrc.errors import InputError
from vpxrc.storage import atomic_write, digest
from vpxrc.tensors import DAMAGED, read_weights, tensor_bytes

FORMAT = "vpxrc.block-codec 1"
STATE_EVERY = 30.0  # seconds between two states
CURVE_EVERY = 100  # steps of a row of the curve
DECAY = 0.4  # last share of the steps, in which the learning rate falls
FINAL_RATE = 0.02
# A block's step is AV1's times a factor between these. At equal distortion ours is the smaller one,
# because our rounding gives up more.
FACTORS = 0.45, 1.35
CURVE_RATE = 3.0  # times the learning rate for what depends on the level, which are logarithms
MATRIX_RATE = 0.1  # times the learning rate for matrices that start as the DCT
SAMPLES = 1 << 16  # of a batch
MAX_BATCH = 768  # blocks

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class BlockTraining:
    """How a block codec is trained.

    Attributes:
        design: Its parts.
        steps: Number of batches.
        rate: Learning rate of Adam.
        seed: Seed of weights, blocks, levels and noise.
        q_index: The residuals of one q index of AV1 alone; None for all, each as often.
    """

    design: Design | SelectedDesign
    steps: int = 3000
    rate: float = 2e-3
    seed: int = 0
    q_index: int | None = None


def train_blocks(
    blocks: Blocks, out: Path, config: BlockTraining, progress: Progress | None = None
) -> BlockModel | SelectedModel:
    """Train a block codec and write its checkpoint, or return the one that is there.

    Killed at any point, the same call goes on with the state beside ``out``, and gets the same
    weights on the same machine: a batch and its noise depend on the seed and their number alone.

    Args:
        blocks: To train on, of the design's side.
        out: The checkpoint, a safetensors file.
        config: How it is trained.
        progress: Told after every step how many of how many are done.

    Raises:
        InputError: The checkpoint or the state is another training's, there are no blocks of the q
            index, or the training diverged.
        OutputError: The checkpoint cannot be written.
    """
    key = digest([asdict(config), len(blocks), float(blocks.residuals.double().square().sum())])
    if out.exists():
        model, settings = read_block_model(out)
        if settings.get("key") != key:
            raise InputError(f"{out}: the checkpoint of another training; remove it to start anew")
        return model
    learner = _Learner(blocks, config)
    state = out.with_name(f"{out.name}.state")
    if state.is_file():
        learner.load(state, key)
    kept = time.monotonic()
    while learner.step < config.steps:
        with one_thread():  # with more, gradients are summed in the order in which threads come
            learner.run()
        if progress is not None:
            progress(learner.step, config.steps)
        if time.monotonic() - kept >= STATE_EVERY:
            learner.save(state, key)
            kept = time.monotonic()
    settings = {
        "format": FORMAT,
        "key": key,
        "config": json.dumps(asdict(config)),
        "curve": json.dumps(learner.rows),
    }
    tensors = {name: one.detach().numpy() for name, one in learner.model.state_dict().items()}
    with atomic_write(out) as temporary:
        temporary.write_bytes(tensor_bytes(tensors, settings))
    with contextlib.suppress(OSError):
        state.unlink(missing_ok=True)
    return learner.model


def read_block_model(path: Path) -> tuple[BlockModel | SelectedModel, dict[str, str]]:
    """Return the networks of a checkpoint, and its settings.

    Raises:
        InputError: It cannot be read, or is no checkpoint of a block codec.
    """
    weights, settings = read_weights(path)
    if settings.get("format") != FORMAT:
        raise InputError(f"{path}: not a checkpoint of a block codec, or of another version")
    try:
        design = json.loads(settings["config"])["design"]
        selected = "transform" not in design
        model = model_of(SelectedDesign(**design) if selected else Design(**design))
        model.load_state_dict({name: torch.from_numpy(one) for name, one in weights.items()})
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: not the weights of a block codec") from error
    return model, settings


def model_of(design: Design | SelectedDesign) -> BlockModel | SelectedModel:
    """Return the networks of a design, with weights as at the start of a training."""
    return BlockModel(design) if isinstance(design, Design) else SelectedModel(design)


def _groups(model: BlockModel | SelectedModel) -> list[dict[str, Any]]:
    """Return the parameters in groups, each with its ``scale`` of the learning rate."""
    curves = [
        parameter
        for module in model.modules()
        if isinstance(module, Curve)
        for parameter in module.parameters()
    ]
    matrices = [
        parameter
        for name, parameter in model.transform.named_parameters()
        if name in ("forward_matrix", "inverse_matrix", "angles")
    ]
    apart = {id(parameter) for parameter in (*curves, *matrices)}
    others = [parameter for parameter in model.parameters() if id(parameter) not in apart]
    groups = ((curves, CURVE_RATE), (matrices, MATRIX_RATE), (others, 1.0))
    return [{"params": params, "scale": scale} for params, scale in groups if params]


class _Learner:
    """A model, its optimiser, and how far they are."""

    def __init__(self, blocks: Blocks, config: BlockTraining) -> None:
        torch.manual_seed(config.seed)
        self.config, self.model = config, model_of(config.design)
        self._blocks = blocks
        wanted = (
            [config.q_index]
            if config.q_index is not None
            else sorted(set(blocks.q_indices.tolist()))
        )
        self._places = [(blocks.q_indices == q).nonzero()[:, 0] for q in wanted]
        if not self._places or not all(map(len, self._places)):
            words = "" if config.q_index is None else f" of q index {config.q_index}"
            raise InputError(f"there are no blocks{words} to train on")
        self._optimizer = torch.optim.Adam(_groups(self.model), config.rate)
        self.step = 0
        self.rows: list[dict[str, float]] = []
        self._sums: dict[str, float] = {}

    def run(self) -> None:
        """Take one step.

        Raises:
            InputError: The loss is not finite.
        """
        config = self.config
        torch.manual_seed(1_000_003 * (config.seed + 1) + self.step)
        for group in self._optimizer.param_groups:
            left = (1 - self.step / config.steps) / DECAY
            group["lr"] = group["scale"] * config.rate * max(min(1.0, left), FINAL_RATE)
        batch = self._blocks.take(self._drawn())
        low, high = map(math.log, FACTORS)
        step = batch.steps * (low + (high - low) * torch.rand(len(batch))).exp()
        loss, figures = self.model.objective(batch, level_of(step))
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        if not math.isfinite(float(loss.detach())):
            raise InputError(f"the loss is not finite at step {self.step}: try a lower rate")
        self._optimizer.step()
        self.step += 1
        for name, value in {**figures, "loss": float(loss.detach())}.items():
            self._sums[name] = self._sums.get(name, 0.0) + value / CURVE_EVERY
        if self.step % CURVE_EVERY == 0:
            self.rows.append({"step": self.step, **self._sums})
            self._sums = {}

    def _drawn(self) -> Tensor:
        """Return the places of a batch; each q index has as many."""
        count = min(SAMPLES // self.config.design.side**2, MAX_BATCH) // len(self._places)
        return torch.cat([one[torch.randint(len(one), (count,))] for one in self._places])

    def save(self, path: Path, key: str) -> None:
        state: dict[str, Any] = {
            "key": key,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "rows": self.rows,
            "sums": self._sums,
        }
        with atomic_write(path) as temporary:
            torch.save(state, temporary)

    def load(self, path: Path, key: str) -> None:
        try:
            state = torch.load(path, weights_only=True)
            if state["key"] != key:
                raise InputError(f"{path}: the state of another training; remove it")
            self.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step, self.rows, self._sums = state["step"], state["rows"], state["sums"]
        except DAMAGED as error:
            raise InputError(f"{path}: not a state of a training; remove it") from error
