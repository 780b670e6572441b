"""The quantiser scale: log2 of the step per q index."""

import numpy as np
from numpy.typing import NDArray

from vpxrc import _native, _native_high

MULTI_LAYER = 6  # libvpx's most layers of alternate reference frames

#: log2 of VP9's AC quantiser step per q index, float64 ``[256]``, read-only. The step is in eighths
#: of a sample; +1 doubles it.
LOG2_STEP: NDArray[np.float64] = np.log2([_native.ac_quantizer(q) for q in range(256)])
LOG2_STEP.flags.writeable = False
# The same for 10 bits, in eighths of a sample of 8 bits.
_LOG2_STEP_10 = np.log2([_native_high.ac_quantizer(q) / 4 for q in range(256)])
_LOG2_STEP_10.flags.writeable = False


def log2_steps(bit_depth: int) -> NDArray[np.float64]:
    """Return log2 of VP9's AC quantiser step per q index, float64 ``[256]``, read-only.

    Args:
        bit_depth: Bits per sample, 8 or 10. The unit of the step is an eighth of a sample of 8 bits
            in both cases, so that the same steps give the same pictures.
    """
    return LOG2_STEP if bit_depth == 8 else _LOG2_STEP_10


def nearest_q(log2_step: float, table: NDArray[np.float64] = LOG2_STEP) -> int:
    """Return the q index whose quantiser step is nearest in the logarithm.

    Args:
        log2_step: log2 of the step that is wanted.
        table: log2 of the step per q index, float64 ``[256]``; a session's is ``log2_step``.

    Returns:
        1..255; 0 would be lossless.
    """
    return int(np.clip(np.abs(table - log2_step).argmin(), 1, 255))
