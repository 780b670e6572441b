"""The clips, targets and encoder options that episodes are drawn from."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpxrc.datasets import Clip, load_clips
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.registry import make_options
from vpxrc.errors import InputError
from vpxrc.media.frames import Video

Clips = str | Path | Sequence[str | Path | Clip | Video]
Targets = int | Sequence[int]


class Tasks:
    """The clips, targets and encoder options that episodes are drawn from.

    Args:
        clips: See ``RateControlEnv``.
        target_bitrate: See ``RateControlEnv``.
        max_frames: The most frames of a clip.
        options: Further fields of :class:`vpxrc.EncoderOptions`, and ``encoder``, as
            :func:`vpxrc.encoder.registry.make_options` takes them.
    """

    def __init__(
        self, clips: Clips, target_bitrate: Targets, max_frames: int, options: dict[str, Any]
    ) -> None:
        self._clips = _named_clips(clips)
        self._names = list(self._clips)
        self._max_frames = max_frames
        self._options = options
        is_range = isinstance(target_bitrate, tuple)
        targets = [target_bitrate] if isinstance(target_bitrate, int) else list(target_bitrate)
        if not targets or (is_range and (len(targets) != 2 or targets[0] > targets[1])):
            raise InputError(
                f"target_bitrate must be a number, a list of numbers or a tuple (low, high), "
                f"not {target_bitrate!r}"
            )
        self._targets, self._is_range = targets, is_range
        for target in targets:  # complain now, not at the first reset that draws it
            make_options(target_bitrate=target, **options)

    def draw(
        self, rng: np.random.Generator, choice: dict[str, Any] | None
    ) -> tuple[Video, EncoderOptions]:
        """Return a clip and options for an episode.

        Args:
            rng: Drawn from alike, whatever is chosen.
            choice: May have ``clip``, a name, and ``target_bitrate``, in kbit/s.

        Raises:
            InputError: A choice is unknown, or the clip cannot be used.
        """
        choice = choice or {}
        if unknown := choice.keys() - {"clip", "target_bitrate"}:
            raise InputError(f"unknown option {min(unknown)!r}: there are clip, target_bitrate")
        name = self._names[rng.integers(len(self._names))]
        if self._is_range:
            low, high = self._targets
            target = round(low * math.exp(rng.random() * math.log(high / low)))
        else:
            target = self._targets[rng.integers(len(self._targets))]
        video = self._open(choice.get("clip", name))
        target = choice.get("target_bitrate", target)
        return video, make_options(target_bitrate=target, **self._options)

    def _open(self, name: str) -> Video:
        if name not in self._clips:
            raise InputError(f"unknown clip {name!r}: choose from {', '.join(self._names)}")
        video = self._clips[name]
        if isinstance(video, Clip):
            self._clips[name] = video = video.open()
        if video.num_frames > self._max_frames:
            raise InputError(
                f"{name}: {video.num_frames} frames, more than max_frames={self._max_frames}"
            )
        return video


def _named_clips(clips: Clips) -> dict[str, Clip | Video]:
    parts = [clips] if isinstance(clips, str | Path) else clips
    found: list[Clip | Video] = []
    for part in parts:
        found += [part] if isinstance(part, Clip | Video) else load_clips(part)
    named = {clip.name: clip for clip in found}
    if not named:
        raise InputError(f"no clips in {clips!r}")
    if len(named) < len(found):
        raise InputError("the names of the clips must differ")
    return named
