"""Trainings of entropy models on latents that do not change.

Where only the entropy model of a codec is trained, its latents stay the same. They are computed
once for some thousand crops, so two entropy models can be compared in a fraction of the time, and
at equal distortion.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from vpxrc.codecs.model import TransformModel, to_unit

BATCHES = 2500  # that are kept in memory; then they come again


class FrozenLatents:
    """The latents of batches of crops.

    Args:
        analysis: The analysis transform, whose weights do not change.
        crops: Returns a batch ``[B, 3, H, W]``, uint8, of its number.
    """

    def __init__(self, analysis: nn.Module, crops: Callable[[int], Tensor]) -> None:
        self._analysis, self._crops = analysis, crops
        self._kept: dict[int, Tensor] = {}

    def __call__(self, number: int) -> Tensor:
        """Return the latents ``[B, M, H/16, W/16]`` of a batch."""
        number %= BATCHES
        if number not in self._kept:
            with torch.no_grad():
                device = next(self._analysis.parameters()).device
                found = self._analysis(to_unit(self._crops(number).to(device)))
            self._kept[number] = found.cpu()
        return self._kept[number]


def rate(model: TransformModel, y: Tensor) -> tuple[Tensor, dict[str, float]]:
    """Return the bits per pixel of latents ``[B, M, h, w]``, and the parts of a curve."""
    _, rates = model.latent(y)
    bpp = torch.stack(list(rates.values())).sum(0).mean() / (256 * y[0, 0].numel())
    return bpp, {"loss": float(bpp.detach()), "bpp": float(bpp.detach())}
