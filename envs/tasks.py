"""The clips, targets and encoder options that episodes are drawn from."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vpxrc.datasets import Clip, load_clips
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.registry import make_options
from vpxrc.envs.checks import UnexpectedArgumentError, check_integer
from vpxrc.errors import InputError
from vpxrc.media.frames import Video

Clips = str | Path | Sequence[str | Path | Clip | Video]
Targets = int | Sequence[int] | Mapping[str, int]
MAX_TARGET = 2_000_000  # kbit/s, as EncoderOptions has it


class Tasks:
    """The clips, targets and encoder options that episodes are drawn from.

    A pickle of it has the clips as they were given, so of a catalogue's clip it has no frames.

    Args:
        clips: See ``RateControlEnv``.
        target_bitrate: See ``RateControlEnv``.
        max_frames: The most frames of a clip.
        options: Further fields of :class:`vpxrc.EncoderOptions`, and ``encoder``, as
            :func:`vpxrc.encoder.registry.make_options` takes them.

    Attributes:
        clip_names: Names of the clips, in the order that ``info["clip_index"]`` counts.

    Raises:
        InputError: An argument cannot be used.
    """

    def __init__(
        self, clips: Clips, target_bitrate: Targets, max_frames: int, options: dict[str, Any]
    ) -> None:
        self._clips = _named_clips(clips)
        self.clip_names = tuple(self._clips)
        self._max_frames = check_integer("max_frames", max_frames, 2)
        self._options = options
        self._opened: dict[str, Video] = {}
        self._is_range = isinstance(target_bitrate, Mapping)
        self._targets = _targets(target_bitrate)
        for target in self._targets:  # complain now, not at the first reset that draws it
            try:
                make_options(target_bitrate=target, **options)
            except InputError as error:
                if isinstance(error.__cause__, TypeError):
                    raise UnexpectedArgumentError(str(error)) from error
                raise
        for clip in self._clips.values():
            if isinstance(clip, Video):
                self._check_length(clip)

    @property
    def encoder(self) -> str:
        """The encoder's spec."""
        return str(self._options.get("encoder", "vp9"))

    def __getstate__(self) -> dict[str, Any]:
        """Return everything but the clips that were opened meanwhile."""
        return {**self.__dict__, "_opened": {}}

    def draw(
        self, rng: np.random.Generator, choice: dict[str, Any] | None
    ) -> tuple[Video, EncoderOptions]:
        """Return a clip and options for an episode.

        Args:
            rng: Drawn from alike, whatever is chosen.
            choice: May have ``clip``, a name or an index, and ``target_bitrate``, in kbit/s.

        Raises:
            InputError: A choice is unknown, or the clip cannot be used.
        """
        choice = choice or {}
        if unknown := choice.keys() - {"clip", "target_bitrate"}:
            raise InputError(f"unknown option {min(unknown)!r}: there are clip, target_bitrate")
        clip: Any = int(rng.integers(len(self.clip_names)))
        if self._is_range:
            low, high = self._targets
            target = round(low * math.exp(rng.random() * math.log(high / low)))
        else:
            target = self._targets[rng.integers(len(self._targets))]
        video = self.open(choice.get("clip", clip))
        target = choice.get("target_bitrate", target)
        return video, make_options(target_bitrate=target, **self._options)

    def open(self, clip: str | int) -> Video:
        """Return a clip by its name or its index.

        Raises:
            InputError: There is no such clip, or it cannot be used.
        """
        name = clip
        if isinstance(clip, int | np.integer) and 0 <= clip < len(self.clip_names):
            name = self.clip_names[clip]
        if not isinstance(name, str) or name not in self._clips:
            raise InputError(f"unknown clip {clip!r}: choose from {', '.join(self.clip_names)}")
        if name not in self._opened:
            given = self._clips[name]
            self._opened[name] = given.open() if isinstance(given, Clip) else given
            self._check_length(self._opened[name])
        return self._opened[name]

    def _check_length(self, video: Video) -> None:
        if video.num_frames > self._max_frames:
            raise InputError(
                f"{video.name}: {video.num_frames} frames, more than max_frames={self._max_frames}"
            )


def _targets(given: Targets) -> list[int]:
    """Return the targets to choose from, or the ends of the range to draw from.

    Raises:
        InputError: They are none.
    """
    if isinstance(given, Mapping):
        if given.keys() != {"low", "high"}:
            raise InputError(
                f"target_bitrate, a range, must have the keys low and high, not {given!r:.80}"
            )
        found: list[Any] = [given["low"], given["high"]]
    elif isinstance(given, Sequence | np.ndarray) and not isinstance(given, str | bytes):
        found = list(given)
    else:
        found = [given]
    if not found:
        raise InputError("target_bitrate must have one target at least")
    targets = [check_integer("target_bitrate", target, 1, MAX_TARGET) for target in found]
    if isinstance(given, Mapping) and targets[0] > targets[1]:
        raise InputError(f"target_bitrate: low {targets[0]} is above high {targets[1]}")
    return targets


def _named_clips(clips: Clips) -> dict[str, Clip | Video]:
    parts = [clips] if isinstance(clips, str | Path | Clip | Video) else clips
    if not isinstance(parts, Sequence):
        raise InputError(f"clips must be a set, a path or a list of these, not {clips!r:.80}")
    found: list[Clip | Video] = []
    for part in parts:
        if not isinstance(part, str | Path | Clip | Video):
            raise InputError(f"clips must be sets, paths, Clips or Videos, not {part!r:.80}")
        found += [part] if isinstance(part, Clip | Video) else load_clips(part)
    named = {clip.name: clip for clip in found}
    if not named:
        raise InputError(f"no clips in {clips!r}")
    if len(named) < len(found):
        raise InputError("the names of the clips must differ")
    return named
