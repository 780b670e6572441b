"""How far libvpx's constant-quality mode codes a frame below the frames that nothing depends on.

The formulas are those of ``rc_constant_q``, ``pick_kf_q_bound_two_pass`` and
``get_gf_active_quality`` in ``vp9/encoder/vp9_ratectrl.c`` of libvpx 1.17.0, without the rounding
to q indices. Key frames that the greatest distance forces are coded like the last frame that
others depend on, and a little finer.
"""

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.types import Group, UpdateType

# Each: step of a frame with a low and with a high boost over the base step x, as the coefficients
# of x cubed, x squared and x (init_minq_luts); then the boosts from which the two count.
_KEY = ((2.1e-6, -1.25e-3, 0.45), (1e-6, -4e-4, 0.15), 300, 4800)
_ARF = ((2.1e-6, -1.25e-3, 0.55), (1.5e-6, -9e-4, 0.30), 400, 2000)
_STILL = 99  # percent of samples without motion from which a key frame counts as one of a still
_FORCED = 0.75  # quantiser step of a forced key frame over that of the last ARF
_SMALL = 352 * 288  # luma samples up to which key frames are finer


def libvpx_steps(
    group: Group, coded: NDArray[np.int64], base: float, pixels: int, boosted: float | None = None
) -> NDArray[np.float64]:
    """Return the steps below the base of some frames of a group.

    Args:
        group: The group.
        coded: Positions of the frames in it, int64 ``[N]``.
        base: log2 of the quantiser step of frames that nothing depends on.
        pixels: Luma samples of a frame.
        boosted: log2 of the quantiser step of the last key frame, golden frame or alternate
            reference frame of the base layer; None if there was none.

    Returns:
        log2 of the quantiser step below the base, float64 ``[N]``: 0 for frames that are neither
        key frames nor alternate reference frames.
    """
    step = 2.0**base / 4.0  # in samples, as libvpx counts it
    types, depths, boosts = group.update_type, group.layer_depth, group.gfu_boost
    steps = np.zeros(len(coded))
    for place, position in enumerate(coded.tolist()):
        if types[position] == UpdateType.KEY and group.is_key_forced and boosted is not None:
            steps[place] = base - boosted - np.log2(_FORCED)
        elif types[position] == UpdateType.KEY:
            finest = _active(step, group.key_boost, *_KEY)
            if group.zero_motion_share >= _STILL:
                finest /= 4.0
            factor = 1.05 - 0.001 * group.zero_motion_share - (0.25 if pixels <= _SMALL else 0.0)
            steps[place] = np.log2(step / max(finest * factor, 1.0))
        elif types[position] == UpdateType.ARF:
            finest = _active(step, int(boosts[position]), *_ARF)
            steps[place] = np.log2(step / finest) / max(int(depths[position]), 1)
    return np.maximum(steps, 0.0)


def _active(
    step: float,
    boost: int,
    unboosted: tuple[float, float, float],
    boosted: tuple[float, float, float],
    low: int,
    high: int,
) -> float:
    """Return libvpx's quantiser step for a frame with a boost, in samples."""
    coarse, fine = (
        max(min(((cube * step + square) * step + linear) * step, step), 1.0)
        for cube, square, linear in (unboosted, boosted)
    )
    share = float(np.clip((boost - low) / (high - low), 0.0, 1.0))
    return coarse + share * (fine - coarse)
