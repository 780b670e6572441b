"""One encode as an environment sees it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.session import Session
from vpxrc.encoder.types import State
from vpxrc.envs.observations import TPL_COSTS, Arrays, Observer
from vpxrc.media.frames import Video, rgb


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
