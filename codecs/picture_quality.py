"""PSNR and MS-SSIM of RGB pictures."""

import torch
from torch import Tensor
from torch.nn import functional

from vpxrc.errors import InputError

WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # of the five scales
WINDOW, SIGMA = 11, 1.5
MIN_SIDE = (WINDOW - 1) * 2 ** (len(WEIGHTS) - 1) + 1  # 161 pixels
_C1, _C2 = 0.01**2, 0.03**2


def psnr(x: Tensor, y: Tensor) -> Tensor:
    """Return the PSNR ``[B]`` in dB of pictures ``[B, 3, H, W]`` in 0..1.

    The mean squared error is that of all samples of a picture. Equal pictures have 100 dB.
    """
    error = (x.double() - y.double()).square().flatten(1).mean(1)
    return -10 * error.clamp(min=1e-10).log10()


def ms_ssim(x: Tensor, y: Tensor) -> Tensor:
    """Return the MS-SSIM ``[B]``, at most 1, of pictures ``[B, 3, H, W]`` in 0..1.

    Wang, Simoncelli and Bovik, "Multiscale structural similarity for image quality assessment",
    2003: five scales, a Gaussian window of 11x11 with sigma 1.5, no padding; the mean over R, G, B.

    Raises:
        InputError: A side has less than 161 pixels.
    """
    if min(x.shape[-2:]) < MIN_SIDE:
        raise InputError(f"MS-SSIM needs pictures of at least {MIN_SIDE} pixels a side")
    result = torch.ones_like(x[..., 0, 0])
    for scale, weight in enumerate(WEIGHTS):
        if scale:
            # An odd side gets a half cell at both ends, as in the authors' filter.
            padding = [side % 2 for side in x.shape[-2:]]
            x, y = (functional.avg_pool2d(one, 2, padding=padding) for one in (x, y))
        luminance, structure = _ssim_parts(x, y)
        last = scale == len(WEIGHTS) - 1
        part = luminance * structure if last else structure
        result = result * part.mean((-2, -1)).clamp(min=1e-6) ** weight
    return result.mean(1)


def _ssim_parts(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return the two factors of SSIM at every place."""
    places = torch.arange(WINDOW, dtype=x.dtype, device=x.device) - WINDOW // 2
    window = torch.exp(-(places**2) / (2 * SIGMA**2))
    window = (window / window.sum()).expand(x.shape[1], 1, WINDOW)

    def blurred(image: Tensor) -> Tensor:
        rows = functional.conv2d(image, window[..., None], groups=image.shape[1])
        return functional.conv2d(rows, window[:, :, None], groups=image.shape[1])

    mean_x, mean_y = blurred(x), blurred(y)
    var_x, var_y = blurred(x * x) - mean_x**2, blurred(y * y) - mean_y**2
    covariance = blurred(x * y) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + _C1) / (mean_x**2 + mean_y**2 + _C1)
    return luminance, (2 * covariance + _C2) / (var_x + var_y + _C2)
