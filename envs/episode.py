"""What the environments have in common: the tasks they draw, and one encode as they see it."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc.datasets import Clip, load_clips
from vpxrc.encoder import EncodeLog, EncoderOptions, Session, State
from vpxrc.envs.observations import TPL_COSTS, Arrays, Observer
from vpxrc.errors import InputError
from vpxrc.video import Video

Clips = str | Path | Sequence[str | Path | Clip | Video]
Targets = int | Sequence[int]


class Tasks:
    """The clips, targets and encoder options that episodes are drawn from.

    Args:
        clips: See ``RateControlEnv``.
        target_bitrate: See ``RateControlEnv``.
        max_frames: The most frames of a clip.
        options: Further fields of :class:`vpxrc.EncoderOptions`.
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
            EncoderOptions(target_bitrate=target, **options)

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
        return video, EncoderOptions(target_bitrate=target, **self._options)

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


class Episode:
    """One encode from the first decision to the complete stream.

    Args:
        session: The encode.
        arrays: Where the observation is written; see :class:`Observer`.
        dependency: Whether the temporal dependency model is part of it.

    Attributes:
        log: The log of the encode once it is complete, else None.
    """

    def __init__(self, session: Session, arrays: Arrays, dependency: bool = True) -> None:
        self.session = session
        self.log: EncodeLog | None = None
        self._observer = Observer(session, arrays, dependency)

    def observe(self) -> dict[str, Any]:
        """Write the observation of a session that is at rest and return the ``info``."""
        coded = self._observer.update()
        options = self.session.options
        info: dict[str, Any]
        if coded is None:
            return {"clip": self.session.video.name, "target_bitrate": options.target_bitrate}
        info = {
            "update_type": coded.update_type,
            "show_index": coded.show_index,
            "q_index": coded.q_index,
            "bits": coded.bits,
        }
        if self.session.state == State.DONE:
            self.log = log = self.session.log()
            self.session.close()
            info.update(
                clip=log.clip.name,
                target_bitrate=options.target_bitrate,
                psnr=log.psnr,
                psnr_overall=log.psnr_overall,
                bitrate=log.bitrate,
                overshoot=log.overshoot,
                constraint_met=log.overshoot <= 0,
                log=log,
            )
        return info

    def superblock_scale(self, strength: float) -> NDArray[np.float32] | None:
        """Return libvpx's own TPL scale of the pending frame's lambda to a power.

        Args:
            strength: The exponent; 1 is libvpx's own scale.

        Returns:
            float32 ``[rows, cols]`` per 64x64 superblock; None for libvpx's own, which is exact,
            and where libvpx would not read it.
        """
        frame, tpl, video = self._observer.frame, self._observer.tpl, self._observer.video
        own = frame.takes_superblock_scale and frame.layer_depth <= 1
        if strength == 1 or not own or tpl is None:
            return None
        return superblock_scale(tpl[frame.group_position], frame.r0, video, strength)

    def picture(self) -> NDArray[np.uint8]:
        """Return the reconstruction of the frame coded last, RGB uint8 ``[height, width, 3]``."""
        planes = self.session.reconstruction
        video = self.session.video
        if planes is None:
            return np.zeros((video.height, video.width, 3), np.uint8)
        return rgb(*planes)


def superblock_scale(
    tpl: NDArray[np.float64], r0: float, video: Video, strength: float
) -> NDArray[np.float32]:
    """Return libvpx's TPL scale per superblock to a power: clip(rk / r0, 1/2, 3/2) ** strength.

    Args:
        tpl: ``[rows, cols, 8]``, statistics of the frame per 32x32 block.
        r0: intra_cost / mc_dep_cost of the frame; rk is that of a superblock.
        video: For the size of the picture: libvpx counts in units of 8x8 samples inside it.
        strength: The exponent.

    Returns:
        float32 ``[ceil(height / 64), ceil(width / 64)]``.
    """
    units = [-(-size // 8) for size in (video.height, video.width)]
    blocks = tpl.shape[:2]
    inside = [np.minimum(4, n - 4 * np.arange(b)) for n, b in zip(units, blocks, strict=True)]
    costs = tpl[..., TPL_COSTS] * np.outer(*inside)[..., None]
    rows, cols = (-(-n // 2) for n in blocks)
    costs = np.pad(costs, ((0, 2 * rows - blocks[0]), (0, 2 * cols - blocks[1]), (0, 0)))
    sums = costs.reshape(rows, 2, cols, 2, 2).sum(axis=(1, 3))
    ratio = sums[..., 0] / np.maximum(sums[..., 1], 1.0)
    scale = np.clip(ratio / r0, 0.5, 1.5) ** strength
    return np.asarray(scale, dtype=np.float32)


def rgb(y: NDArray[np.uint8], u: NDArray[np.uint8], v: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return I420 planes (BT.601, limited range) as RGB uint8 ``[height, width, 3]``."""
    height, width = y.shape

    def full(plane: NDArray[np.uint8]) -> NDArray[np.float32]:
        large = plane.repeat(2, axis=0).repeat(2, axis=1)[:height, :width]
        return large.astype(np.float32) - 128

    luma = (y.astype(np.float32) - 16) * (255 / 219)
    blue, red = full(u) * (255 / 224), full(v) * (255 / 224)
    picture = np.stack(
        (luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue), axis=-1
    )
    return np.asarray(np.clip(np.rint(picture), 0, 255), dtype=np.uint8)
