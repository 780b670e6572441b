"""Clips at the size that an agent is trained at."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from vpxrc.agents.progress import Progress, silent
from vpxrc.agents.teacher.lessons import scaled
from vpxrc.datasets import Clip
from vpxrc.parallel import open_workers


@dataclass(frozen=True)
class SizedClip:
    """A clip at the size that it is trained at.

    Attributes:
        clip: The clip at that size.
        contents: Content hashes at that size and at the clip's own. A checkpoint names both,
            because an evaluation may have either.
    """

    clip: Clip
    contents: frozenset[str]


def size_clips(
    clips: Sequence[Clip], pixels: int | None, *, jobs: int = 1, progress: Progress = silent
) -> dict[Clip, SizedClip]:
    """Open clips and scale the larger ones.

    Args:
        clips: At any size.
        pixels: Larger clips are scaled to about so many luma pixels; None: none is scaled.
        jobs: Clips that are opened at the same time.
        progress: Told after each clip.

    Raises:
        InputError: A clip cannot be read.
    """
    found = {}
    with open_workers(min(jobs, len(clips))) as workers:
        for clip, sized in workers.unordered(partial(_sized, pixels=pixels), clips):
            found[clip] = sized
            progress(len(found), len(clips), "opening the clips", None)
    return found


def _sized(clip: Clip, pixels: int | None) -> SizedClip:
    sized = scaled(clip, pixels)
    return SizedClip(sized, frozenset({clip.open().content_hash, sized.open().content_hash}))
