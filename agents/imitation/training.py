"""Training of the imitation agent on the lessons of the teacher."""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vpxrc.agents.imitation.config import LearnerConfig
from vpxrc.agents.imitation.dataset import Lesson
from vpxrc.agents.imitation.learner import Learner
from vpxrc.agents.imitation.observations import Observation, observations, observe_once
from vpxrc.agents.progress import Progress, silent
from vpxrc.datasets import Clip
from vpxrc.errors import OutputError
from vpxrc.parallel import open_workers
from vpxrc.storage import check_writable, digest

STATE_EVERY = 60.0  # seconds between two states


def train(
    lessons: Sequence[Path],
    out: Path,
    config: LearnerConfig | None = None,
    *,
    clips: Sequence[Clip] | None = None,
    jobs: int = 1,
    progress: Progress = silent,
) -> dict[str, Any]:
    """Train an agent and write its checkpoint.

    The trajectories are encoded once to see them; the cache keeps that. Killed at any point, the
    same call goes on with the state beside ``out`` (``.state``), which is removed at the end. The
    same lessons and settings give the same checkpoint, for any number of jobs. PyTorch is set to
    one thread: the network is small, and sums come out the same everywhere.

    Args:
        lessons: Folders or files of ``vpxrc teach``.
        out: The checkpoint, a safetensors file; :class:`vpxrc.agents.imitation.Imitation` loads it.
        config: How the network is trained; None for the defaults.
        clips: Where to look for the lessons' clips, by name; None: where they were.
        jobs: Trajectories that are encoded at the same time.
        progress: Told after each trajectory, and after each epoch with the losses as
            ``loss/NAME``.

    Returns:
        A summary that JSON takes: ``output``, ``trajectories`` and ``clips`` (their numbers),
        ``epochs``, and ``losses`` of the last epoch by name.

    Raises:
        InputError: There are no lessons, one cannot be used, or the state is another training's.
        EncoderError: libvpx failed.
        OutputError: The checkpoint's folder cannot be written.
    """
    config = config or LearnerConfig()
    torch.set_num_threads(1)
    wanted = observations(lessons, clips)
    check_writable(out.parent)
    seen, contents = _see_all(wanted, jobs, progress)
    learner = Learner(seen, config)
    # A state is of these lessons and this configuration only.
    key = digest([[one.path.name for one in wanted], dataclasses.asdict(config)])
    state = out.with_name(f"{out.name}.{key[:12]}.state")
    if state.is_file():
        learner.load_state(state)
    losses = _run(learner, state, progress)
    learner.save(out, clips=" ".join(sorted(contents)))
    state.unlink(missing_ok=True)
    return {
        "output": str(out),
        "trajectories": len(wanted),
        "clips": len({one.clip for one in wanted}),
        "epochs": config.epochs,
        "losses": losses,
    }


def _see_all(
    wanted: list[Observation], jobs: int, progress: Progress
) -> tuple[list[Lesson], set[str]]:
    """Return what is seen along all trajectories, and the content hashes of their clips.

    The hashes are of both sizes, that of the lessons and the clips' own: an evaluation may have
    either.
    """
    contents = {one.result["content_hash"] for one in wanted}
    with open_workers(min(jobs, len(wanted))) as workers:
        for done, (_, content) in enumerate(workers.unordered(observe_once, wanted), 1):
            contents.add(content)
            progress(done, len(wanted), "coding the trajectories", None)
    seen: list[Lesson] = []
    for one in wanted:
        found = one.read()
        if found is None:
            raise OutputError(f"{one.path} vanished")
        seen += found
    return seen, contents


def _run(learner: Learner, state: Path, progress: Progress) -> Mapping[str, float]:
    """Train to the end, with a state now and then; return the last losses."""
    epochs = learner.config.epochs
    kept, losses = time.monotonic(), dict[str, float]()

    def after_epoch(epoch: int, parts: dict[str, float]) -> None:
        nonlocal kept, losses
        losses = parts
        figures = {f"loss/{name}": value for name, value in parts.items()}
        progress(epoch, epochs, "epochs", figures)
        if epoch < epochs and time.monotonic() - kept >= STATE_EVERY:
            learner.save_state(state)
            kept = time.monotonic()

    learner.train(after_epoch)
    return losses
