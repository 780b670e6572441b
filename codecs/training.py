"""Training of codecs: ``lambda * distortion + rate`` over random crops."""

import contextlib
import ctypes
import dataclasses
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from vpxrc.codecs.codec import read_checkpoint, save_checkpoint
from vpxrc.codecs.distiller import Distiller
from vpxrc.codecs.frozen import FrozenLatents, rate
from vpxrc.codecs.model import Model, Moment, TransformModel, to_unit
from vpxrc.codecs.papers import build
from vpxrc.codecs.pictures import Crops, PictureStore, Prefetch
from vpxrc.errors import InputError
from vpxrc.parallel import open_workers
from vpxrc.storage import atomic_write, check_writable, digest, sha256_file
from vpxrc.tensors import DAMAGED

STATE_EVERY = 60.0  # seconds between two states
CURVE_EVERY = 100  # steps of a row of the curve
DECAY = 0.3  # last share of the steps, in which the learning rate falls
FINAL_RATE = 0.02  # share of the learning rate that is left at the end
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of glibc's mallopt
FIT_BATCHES = 16  # of which a model takes its statistics at the end

Progress = Callable[[int, int | None, str, Mapping[str, float] | None], None]


@dataclasses.dataclass(frozen=True)
class TrainingConfig:
    """How a codec is trained.

    Attributes:
        codec: Name and width.
        trade_off: lambda in ``lambda * MSE + bits per pixel``, MSE in levels of 8 bits; a codec of
            variable quality has its own.
        steps: Number of batches.
        batch: Crops of a batch.
        crop: Side of a crop.
        rate: Learning rate of Adam.
        seed: Seed of weights, crops and noise.
        device: ``cpu`` or ``cuda``.
        part: Beginning of the names of the weights that are trained, as ``latent`` or
            ``synthesis.0``; the others come from a checkpoint and stay. Empty for all.
        precision: What the transforms are computed in, ``float32`` or ``bfloat16``.
    """

    codec: str
    trade_off: float = 0.0125
    steps: int = 50_000
    batch: int = 8
    crop: int = 128
    rate: float = 5e-4
    seed: int = 0
    device: str = "cpu"
    part: str = ""
    precision: str = "float32"


_PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


class Learner:
    """A model, its optimiser, and how far they are.

    Attributes:
        step: Steps that are done.
        rows: The curve: a row per 100 steps with the means over them.
        skipped: Batches whose loss or gradient was not finite.
        seconds: Duration so far.

    Args:
        config: How the model is trained.
        start: The weights to begin with; None for random ones.
        teacher: The checkpoint of a codec whose features are in the loss; None for none.
    """

    def __init__(
        self, config: TrainingConfig, start: Path | None, teacher: Path | None = None
    ) -> None:
        torch.manual_seed(config.seed)
        self.config = config
        self.model: Model = _model(config, start).to(config.device)
        self.model.precision = _PRECISIONS[config.precision]
        half = config.precision != "float32"
        # The fast products take the channels of a pixel side by side.
        self._format = torch.channels_last if half else torch.contiguous_format
        for parameter in self.model.parameters():
            if parameter.dim() == 4:
                parameter.data = parameter.data.contiguous(memory_format=self._format)
        self._with_frozen_latents: TransformModel | None = None
        if config.part.partition(".")[0] == "latent":
            self._with_frozen_latents = _transforms(self.model, config.codec)
            if teacher is not None:
                raise InputError("an entropy model that is trained alone has no teacher")
        self._objective = self.model.objective
        if teacher is not None:
            ideal = read_checkpoint(teacher)[0].to(config.device)
            ideal.precision = self.model.precision
            self._objective = Distiller(self.model, ideal).objective
        self._trained = [one for one in self.model.parameters() if one.requires_grad]
        self._optimizer = torch.optim.Adam(self._trained, config.rate)
        self.step, self.skipped, self.seconds = 0, 0, 0.0
        self.rows: list[dict[str, float]] = []
        self._sums: dict[str, float] = {}

    def batches(self, crops: Crops) -> Callable[[int], Tensor]:
        """Return what makes a batch for :meth:`run` of its number."""
        frozen = self._with_frozen_latents
        return crops if frozen is None else FrozenLatents(frozen.analysis, crops)

    def run(self, batch: Tensor) -> None:
        """Take one step with a batch of :meth:`batches`: crops, uint8, or latents.

        Raises:
            InputError: The training has diverged: no batch of a row of the curve was finite.
        """
        config = self.config
        torch.manual_seed(1_000_003 * (config.seed + 1) + self.step)  # of noise and qualities
        for group in self._optimizer.param_groups:
            left = (1 - self.step / config.steps) / DECAY
            group["lr"] = config.rate * max(min(1.0, left), FINAL_RATE)
        batch = batch.to(config.device)
        self._optimizer.zero_grad()
        if self._with_frozen_latents is not None:
            loss, figures = rate(self._with_frozen_latents, batch)
        else:
            moment = Moment(self.step, config.steps)
            x = to_unit(batch).contiguous(memory_format=self._format)
            loss, figures = self._objective(x, config.trade_off, moment)
        torch.autograd.backward(loss)
        norm = float(nn.utils.clip_grad_norm_(self._trained, 1.0))
        if math.isfinite(float(loss.detach())) and math.isfinite(norm):
            self._optimizer.step()
        else:
            self.skipped += 1
            figures = {}
        self.step += 1
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + value
        self._sums["batches"] = self._sums.get("batches", 0.0) + bool(figures)
        if self.step % CURVE_EVERY == 0 or self.step == config.steps:
            count = self._sums.pop("batches")
            if not count:
                raise InputError(f"no loss was finite up to step {self.step}: try a lower rate")
            means = {name: value / count for name, value in self._sums.items()}
            self.rows.append({"step": self.step, **means})
            self._sums = {}

    def summary(self) -> dict[str, Any]:
        """Return how far the training is, as JSON takes it."""
        return {
            "steps": self.step,
            "seconds": round(self.seconds, 1),
            "skipped": self.skipped,
            "last": self.rows[-1],
        }

    def save_state(self, path: Path, key: str) -> None:
        """Write everything that :meth:`load_state` needs to go on."""
        state = {
            "key": key,
            "model": self.model.state_dict(),
            "optimizer": self._optimizer.state_dict(),
            "step": self.step,
            "skipped": self.skipped,
            "seconds": self.seconds,
            "rows": self.rows,
            "sums": self._sums,
        }
        with atomic_write(path) as temporary:
            torch.save(state, temporary)

    def load_state(self, path: Path, key: str) -> None:
        """Go on from a state.

        Raises:
            InputError: It cannot be read, or is another training's.
        """
        try:
            state = torch.load(path, weights_only=True, map_location=self.config.device)
            if state["key"] != key:
                raise InputError(f"{path}: the state of another training; remove it to start anew")
            self.model.load_state_dict(state["model"])
            self._optimizer.load_state_dict(state["optimizer"])
            self.step, self.skipped = state["step"], state["skipped"]
            self.seconds, self.rows, self._sums = state["seconds"], state["rows"], state["sums"]
        except DAMAGED as error:
            raise InputError(f"{path}: not a state of a training; remove it") from error


def _model(config: TrainingConfig, start: Path | None) -> Model:
    """Return the model to train, whose other weights are frozen.

    Raises:
        InputError: There is no such codec or part, or the checkpoint does not fit.
    """
    model = build(config.codec)
    part = [
        name
        for name, _ in model.named_parameters()
        if f"{name}.".startswith(f"{config.part}." if config.part else "")
    ]
    if not part:
        raise InputError(f"no weights of {config.codec} are called {config.part}")
    if start is None:
        if config.part:
            raise InputError(f"to train {config.part} alone, a checkpoint has the other weights")
        return model
    other, settings = read_checkpoint(start)
    if not config.part and settings["codec"] == config.codec:
        return other
    own, known = model.state_dict(), other.state_dict()
    common = [name for name in own if name in known and known[name].shape == own[name].shape]
    for name in common:
        own[name].copy_(known[name])
    # Statistics that no gradient gives start anew, and come at the end.
    lacking = {name for name, _ in model.named_parameters()} - set(common) - set(part)
    if lacking:
        raise InputError(f"{start} does not have the weights {min(lacking)} of {config.codec}")
    if not any(name.startswith("analysis.") for name in common):
        raise InputError(f"{start} has no layer of the transforms of {config.codec}")
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name in part)
    return model


def _transforms(model: Model, name: object) -> TransformModel:
    if not isinstance(model, TransformModel):
        raise InputError(f"{name} has no single latent: its parts cannot be trained alone")
    return model


@dataclasses.dataclass(frozen=True)
class TrainingJob:
    """One training of several.

    Attributes:
        pictures: The files to take crops from.
        out: The checkpoint.
        config: How the codec is trained.
        start: A checkpoint to start from.
        until: Step to stop at.
        teacher: A checkpoint whose features are in the loss.
    """

    pictures: tuple[Path, ...]
    out: Path
    config: TrainingConfig
    start: Path | None = None
    until: int | None = None
    teacher: Path | None = None

    def __str__(self) -> str:
        """What errors call it."""
        return str(self.out)


def train_job(job: TrainingJob, progress: Progress | None = None) -> dict[str, Any]:
    """Do a training, here or in a process or on a machine of its own; see :func:`train`."""
    return train(
        job.pictures,
        job.out,
        job.config,
        start=job.start,
        until=job.until,
        teacher=job.teacher,
        progress=progress,
    )


def train_all(
    work: Sequence[TrainingJob], count: int, ray: str | None, progress: Progress
) -> list[dict[str, Any]]:
    """Do several trainings, some of them at the same time.

    A single one without Ray runs in this process, and ``progress`` is told of its steps.

    Args:
        work: The trainings.
        count: How many run at the same time.
        ray: An address of Ray, as :func:`vpxrc.parallel.open_workers` takes it.
        progress: Told whenever a training is over.

    Returns:
        What :func:`train` returns, in the order of the trainings.

    Raises:
        InputError: See :func:`train`; or there is no Ray at the address.
        MissingDependencyError: Ray is not installed.
        OutputError: See :func:`train`.
        EncoderError: A worker was killed.
    """
    if len(work) == 1 and ray is None:
        return [train_job(work[0], progress)]
    progress(0, len(work), "training", None)
    found = {}
    with open_workers(min(count, len(work)), ray) as workers:
        for job, result in workers.unordered(train_job, work):
            found[job] = result
            progress(len(found), len(work), str(job), None)
    return [found[job] for job in work]


def prepare_processor() -> None:
    """Let PyTorch use one thread, and the C library keep the memory of tensors that are freed.

    glibc returns it to the system at once, so each step would get its memory page by page again.
    On 2 cores that took a tenth of a step of ``mean-scale/small``.
    """
    torch.set_num_threads(1)
    with contextlib.suppress(OSError, AttributeError):  # another C library
        mallopt = ctypes.CDLL(None).mallopt
        for parameter, value in ((_M_MMAP_THRESHOLD, 1 << 30), (_M_TRIM_THRESHOLD, 2**31 - 1)):
            mallopt(parameter, value)


def _settings(
    config: TrainingConfig, pictures: Sequence[Path], start: Path | None, teacher: Path | None
) -> dict[str, str]:
    """Return all that a training depends on, as its checkpoint has it."""
    return {
        "config": json.dumps(dataclasses.asdict(config)),
        "pictures": digest(sorted(map(sha256_file, pictures))),
        "start": "" if start is None else sha256_file(start),
        "teacher": "" if teacher is None else sha256_file(teacher),
    }


def is_done(job: TrainingJob) -> bool:
    """Return whether the checkpoint of a training is there, with all steps.

    Raises:
        InputError: It is another training's.
    """
    if not job.out.exists():
        return False
    found = read_checkpoint(job.out)[1]
    settings = _settings(job.config, job.pictures, job.start, job.teacher)
    if any(found.get(name) != value for name, value in settings.items()):
        raise InputError(f"{job.out}: the checkpoint of another training; remove it to start anew")
    return found.get("steps") == str(job.config.steps)


def _write(learner: Learner, crops: Crops, out: Path, settings: Mapping[str, str]) -> None:
    """Write a checkpoint with the weights so far, and the curve."""
    config, model = learner.config, learner.model.cpu().eval()
    model.precision = torch.float32  # in which pictures are coded
    with torch.no_grad():
        model.fit(crops(config.steps + number) for number in range(FIT_BATCHES))
    with atomic_write(out.with_suffix(".curve.json")) as temporary:
        temporary.write_text(json.dumps(learner.rows) + "\n")
    save_checkpoint(out, model, config.codec, {**settings, "steps": str(learner.step)})


def train(
    pictures: Sequence[Path],
    out: Path,
    config: TrainingConfig,
    *,
    start: Path | None = None,
    until: int | None = None,
    teacher: Path | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Train a codec and write its checkpoint.

    Killed at any point, the same call goes on with the state beside ``out`` (``.state``), which is
    removed at the end, and gets the same curve: a batch and its noise depend on the seed and on
    their number alone. PyTorch is set to one thread, so that its sums come out the same.

    Args:
        pictures: The files to take crops from.
        out: The checkpoint, a safetensors file; the curve is written beside it as JSON.
        config: How the codec is trained.
        start: A checkpoint to start from: of the same codec, or of one that has layers of its
            transforms, and where a part is trained, all other weights. Weights that it does not
            have are random.
        until: Step to stop at before the last one, with a checkpoint of the weights so far; the
            state is kept, and the same call without it goes on. At a step that the state has
            passed, the checkpoint is that of the state.
        teacher: A checkpoint whose features are in the loss.
        progress: Told after every step.

    Returns:
        A summary that JSON takes: ``output``, ``codec``, ``pictures`` (their number), ``steps``,
        ``seconds``, ``waiting`` (the share of this run's time that the networks waited for crops),
        ``skipped``, and the last row of the curve as ``last``.

    Raises:
        InputError: A picture or a setting cannot be used, or the state is another training's.
        OutputError: The checkpoint's folder cannot be written.
    """
    if config.device == "cpu":
        prepare_processor()
    check_writable(out.parent)
    learner = Learner(config, start, teacher)
    if config.crop % learner.model.multiple:
        raise InputError(f"the crops of {config.codec} are multiples of {learner.model.multiple}")
    crops = Crops(PictureStore(pictures), config.crop, config.batch, config.seed)
    settings = _settings(config, pictures, start, teacher)
    key = digest(settings)
    state = out.with_name(f"{out.name}.state")
    if state.is_file():
        learner.load_state(state, key)
    stop = config.steps if until is None else min(max(until, learner.step), config.steps)
    if stop < CURVE_EVERY and stop < config.steps:
        raise InputError(f"the curve begins at step {CURVE_EVERY}: there is nothing to keep before")
    before, begun = learner.seconds, time.monotonic()
    kept = begun
    with Prefetch(learner.batches(crops), learner.step, stop) as batches:
        for _, batch in batches:
            learner.run(batch)
            learner.seconds = before + time.monotonic() - begun
            if progress is not None:
                new = learner.step % CURVE_EVERY == 0 or learner.step == config.steps
                row = learner.rows[-1] if new else None
                progress(learner.step, config.steps, config.codec, row)
            if time.monotonic() - kept >= STATE_EVERY:
                learner.save_state(state, key)
                kept = time.monotonic()
        waiting = batches.waited / max(time.monotonic() - begun, 1e-9)
    if stop < config.steps:
        learner.save_state(state, key)
    _write(learner, crops, out, settings)
    if stop == config.steps:
        with contextlib.suppress(OSError):
            state.unlink(missing_ok=True)
    return {
        "output": str(out),
        "codec": config.codec,
        "pictures": len(pictures),
        "waiting": waiting,
        **learner.summary(),
    }
