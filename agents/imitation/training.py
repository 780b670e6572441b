"""Training of the imitation agent on the lessons of the teacher."""

import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray
from rich.progress import Progress
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from vpxrc import provenance
from vpxrc.agents.imitation.dataset import Lesson, observe
from vpxrc.agents.scalars import Write, open_board
from vpxrc.agents.teacher.lessons import (
    find_clip,
    open_clip,
    result_options,
    results,
    stored_trajectory,
)
from vpxrc.agents.teacher.trajectory import Trajectory
from vpxrc.cli.common import gather_clips, progress_bar
from vpxrc.datasets import Clip
from vpxrc.errors import MissingDependencyError, OutputError
from vpxrc.parallel import open_workers
from vpxrc.storage import atomic_write, cache_dir, check_writable, digest

if TYPE_CHECKING:
    from vpxrc.agents.imitation.learner import Learner


STATE_EVERY = 60.0  # seconds between two states of an imitation training


# Imitation


def train_imitation(
    folders: list[Path],
    out: Path,
    changes: dict[str, Any],
    clips: list[str] | None,
    jobs: int,
    tensorboard: Path | None,
    hidden: bool,
) -> tuple[dict[str, Any], str]:
    """Train the imitation agent; return what came of it, and that in words."""
    try:
        import torch

        from vpxrc.agents.imitation.learner import Learner, LearnerConfig
    except ImportError as error:
        raise MissingDependencyError(
            f"training needs {error.name}: pip install 'vpxrc[agents]'"
        ) from error
    torch.set_num_threads(1)  # the network is small; and the sums come out the same everywhere
    config = LearnerConfig(**changes)
    known = gather_clips(clips, hidden)[0] if clips else None
    code = digest(provenance.causes())
    sights = [
        _Sight(result, find_clip(result, known), _cache_path(result, code))
        for folder in folders
        for result in results(folder)
    ]
    check_writable(out.parent)
    with progress_bar(hidden) as bar, open_board(tensorboard) as write:
        seen, contents = _see_all(sights, jobs, bar)
        learner = Learner(seen, config)
        # A state is of these lessons and this configuration only.
        key = digest([[sight.path.name for sight in sights], dataclasses.asdict(config)])
        state = out.with_name(f"{out.name}.{key[:12]}.state")
        if state.is_file():
            learner.load_state(state)
        losses = _run(learner, state, bar, write)
    learner.save(out, clips=" ".join(sorted(contents)))
    state.unlink(missing_ok=True)
    result = {
        "output": str(out),
        "trajectories": len(sights),
        "clips": len({sight.clip for sight in sights}),
        "epochs": config.epochs,
        "losses": losses,
    }
    figures = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
    words = f"{out}: {len(sights)} trajectories of {result['clips']} clip(s); losses: {figures}"
    return result, words


def _run(learner: "Learner", state: Path, bar: Progress, write: Write) -> dict[str, float]:
    """Train to the end, with a state now and then; return the last losses."""
    epochs = learner.config.epochs
    task = bar.add_task("epochs", total=epochs, completed=learner.epoch)
    kept, losses = time.monotonic(), {}

    def progress(epoch: int, parts: dict[str, float]) -> None:
        nonlocal kept, losses
        losses = parts
        bar.update(task, completed=epoch)
        write({f"loss/{name}": value for name, value in parts.items()}, epoch)
        if epoch < epochs and time.monotonic() - kept >= STATE_EVERY:
            learner.save_state(state)
            kept = time.monotonic()

    learner.train(progress)
    return losses


# What an agent sees along a trajectory, kept in the cache


@dataclass(frozen=True)
class _Sight:
    """A trajectory to be coded once more.

    Attributes:
        result: One of ``results``.
        clip: Its clip, at its own size.
        path: Where what is seen goes.
    """

    result: dict[str, Any]
    clip: Clip
    path: Path


def _see_all(sights: list[_Sight], jobs: int, bar: Progress) -> tuple[list[Lesson], set[str]]:
    """Return what is seen along all trajectories, and the content hashes of their clips.

    The clips' are of both sizes, the one of the lessons and their own: an evaluation may have that.
    """
    task = bar.add_task("coding the trajectories", total=len(sights))
    contents = {sight.result["content_hash"] for sight in sights}
    with open_workers(min(jobs, len(sights))) as workers:
        for _, content in workers.unordered(_see, sights):
            contents.add(content)
            bar.update(task, advance=1)
    seen: list[Lesson] = []
    for sight in sights:
        found = _read(sight.path)
        if found is None:
            raise OutputError(f"{sight.path} vanished")
        seen += found
    return seen, contents


def _see(sight: _Sight) -> str:
    """Fill the cache; return the content hash of the clip at its own size."""
    if _read(sight.path) is None:
        result = sight.result
        video = open_clip(result, [sight.clip])
        trajectory = Trajectory.from_pandas(stored_trajectory(result))
        seen = observe(result["clip"], video, result_options(result), trajectory)
        arrays = dict(_arrays(tuple(seen), "lessons"))
        with atomic_write(sight.path) as temporary:
            temporary.write_bytes(save_tensors(arrays))
    return sight.clip.open().content_hash


def _read(path: Path) -> tuple[Lesson, ...] | None:
    """Return what the cache has; None where it has nothing."""
    try:
        arrays = load_tensors(path.read_bytes())
    except (OSError, SafetensorError):
        return None
    seen: tuple[Lesson, ...] = _value(tuple[Lesson, ...], arrays, "lessons")
    return seen


def _cache_path(result: dict[str, Any], code: str) -> Path:
    trajectory = Trajectory.from_pandas(stored_trajectory(result))
    causes = [result[name] for name in ("clip", "content_hash", "options")]
    name = digest([code, trajectory.content_hash, *causes])
    return cache_dir() / "lessons" / f"{name}.safetensors"


def _arrays(value: Any, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays that a value is made of, by name; :func:`_value` puts them together."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _arrays(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(value, tuple):
        yield name, np.asarray(len(value))
        for place, part in enumerate(value):
            yield from _arrays(part, f"{name}.{place}")
    elif isinstance(value, str):
        yield name, np.frombuffer(value.encode(), np.uint8)
    else:
        yield name, np.asarray(value)


def _value(kind: Any, arrays: dict[str, NDArray[Any]], name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        parts = {field: _value(of, arrays, f"{name}.{field}") for field, of in hints.items()}
        return cast(Any, kind)(**parts)
    if get_origin(kind) is tuple:
        of, count = get_args(kind)[0], int(arrays[name])
        return tuple(_value(of, arrays, f"{name}.{place}") for place in range(count))
    if kind is str:
        return arrays[name].tobytes().decode()
    return float(arrays[name]) if kind is float else arrays[name]
