"""What the network sees along the teacher's trajectories, kept in the cache.

A trajectory is encoded once to see it. The cache is keyed by the code and by the trajectory, so a
training that is repeated, or goes on with more lessons, encodes only what is new.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.numpy import save as save_tensors

from vpxrc import provenance
from vpxrc.agents.imitation.dataset import Lesson, observe
from vpxrc.agents.teacher.lessons import (
    find_clip,
    open_clip,
    result_options,
    results,
    stored_trajectory,
)
from vpxrc.agents.teacher.trajectory import Trajectory
from vpxrc.agents.tensors import from_tensors, to_tensors
from vpxrc.cache import open_entry, write_entry
from vpxrc.datasets import Clip
from vpxrc.storage import cache_dir, digest
from vpxrc.tensors import read_tensors

_NAME = "lessons"  # of the value in the file


@dataclass(frozen=True)
class Observation:
    """A trajectory of the teacher that is to be seen.

    Attributes:
        result: One of :func:`vpxrc.agents.teacher.lessons.results`.
        clip: Its clip, at the clip's own size.
        path: The file of the cache.
    """

    result: dict[str, Any]
    clip: Clip
    path: Path

    def read(self) -> tuple[Lesson, ...] | None:
        """Return the lessons in the cache; None where there are none, or none that can be read."""
        entry = open_entry(self.path)
        if entry is None:
            return None
        with entry:
            tensors, _ = read_tensors(self.path)
        seen: tuple[Lesson, ...] = from_tensors(tuple[Lesson, ...], tensors, _NAME)
        return seen


def observations(
    places: Sequence[Path], clips: Sequence[Clip] | None = None, code: str | None = None
) -> list[Observation]:
    """Return the observations that lessons of ``vpxrc teach`` ask for.

    Args:
        places: Folders or files of lessons.
        clips: Where to look for the lessons' clips, by name; None: where they were.
        code: Key of the code that sees; None: the key of this package.

    Raises:
        InputError: There are no lessons, one cannot be read, or a clip is not there.
    """
    if code is None:
        code = digest(provenance.causes())
    return [
        Observation(result, find_clip(result, clips), _path(result, code))
        for place in places
        for result in results(place)
    ]


def observe_once(observation: Observation) -> str:
    """Fill the cache where it is empty; return the content hash of the clip at its own size.

    Raises:
        InputError: The clip or the trajectory cannot be used.
        EncoderError: libvpx failed.
    """
    if observation.read() is None:
        result = observation.result
        video = open_clip(result, [observation.clip])
        trajectory = Trajectory.from_pandas(stored_trajectory(result))
        seen = observe(result["clip"], video, result_options(result), trajectory)
        with write_entry(observation.path) as (temporary, _):
            temporary.write_bytes(save_tensors(dict(to_tensors(tuple(seen), _NAME))))
    return observation.clip.open().content_hash


def _path(result: dict[str, Any], code: str) -> Path:
    trajectory = Trajectory.from_pandas(stored_trajectory(result))
    causes = [result[name] for name in ("clip", "content_hash", "options")]
    name = digest([code, trajectory.content_hash, *causes])
    return cache_dir() / "lessons" / f"{name}.safetensors"
