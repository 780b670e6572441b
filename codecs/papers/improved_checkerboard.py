"""Improved checkerboard: two passes with a network and a family of distributions each.

Fu et al., "Fast and high-performance learned image compression with improved checkerboard context
model, deformable residual module, and knowledge distillation", arXiv 2309.02529; IEEE Transactions
on Image Processing 33, 2024. The abstract alone was available: two networks and two families of
distributions, a residual module with a deformable convolution, a distillation in three steps, and
an L1 norm that makes channels of the latent zero. All layers and all weights are this project's.
"""

from torch import Tensor, nn

from vpxrc.codecs.contexts import Checkerboard
from vpxrc.codecs.deformable import deformable_residual
from vpxrc.codecs.entropy import NORMAL, Mixture
from vpxrc.codecs.latents import ConditionalLatent, LatentModel, Prediction, pointwise
from vpxrc.codecs.layers import concatenated_residual_block
from vpxrc.codecs.model import Moment, TransformModel, bits_per_pixel, figures, squared_error
from vpxrc.codecs.papers.baselines import residual_hyperprior
from vpxrc.codecs.papers.gllmm import FAMILIES
from vpxrc.codecs.transforms import Block, residual_analysis, residual_synthesis

SPARSITY = 0.03  # weight of the L1 norm of the latent for each pixel

GMM = Mixture([NORMAL], 3)
GLLMM = Mixture(FAMILIES, 3)


class SparseModel(TransformModel):
    """A codec whose objective has the L1 norm of the latent.

    Args:
        analysis: From a picture to its latent.
        synthesis: From the decoded latent to the decoded picture.
        latent: The model of the latent.
        sparsity: The weight of the norm for each pixel.
    """

    def __init__(
        self,
        analysis: nn.Module,
        synthesis: nn.Module,
        latent: LatentModel[Tensor],
        sparsity: float,
    ) -> None:
        super().__init__(analysis, synthesis, latent)
        self.sparsity = sparsity

    def objective(
        self, x: Tensor, trade_off: float, moment: Moment
    ) -> tuple[Tensor, dict[str, float]]:
        """Return the loss with the norm."""
        coded = self.code(x)
        error, bpp = squared_error(coded.x_hat, x), bits_per_pixel(coded.bits, x)
        norm = coded.y.abs().flatten(1).sum(1) / (x.shape[-2] * x.shape[-1])
        loss = (trade_off * error + bpp + self.sparsity * norm).mean()
        return loss, figures(loss, error, bpp)


def two_networks(
    n: int,
    first: Mixture = GLLMM,
    second: Mixture = GMM,
    features: int | None = None,
    hidden: tuple[int, int] = (640, 640),
) -> ConditionalLatent:
    """Return the latent: the first pass sees the side information alone, the second one its cells.

    Args:
        n: Channels of the latent.
        first: The family of the first pass.
        second: The family of the second pass.
        features: What the context tells; None for ``2 n``.
        hidden: Channels of the networks inside.
    """
    known = (features or 2 * n) + 2 * n
    return ConditionalLatent(
        second,
        Checkerboard(n, features),
        pointwise(known, hidden, second.parameters * n, bias=False),
        first=Prediction(first, pointwise(2 * n, hidden, first.parameters * n, bias=False)),
        skip_zeros=True,
    )


def improved_checkerboard(
    n: int,
    slim: bool = False,
    teacher: bool = False,
    block: Block = deformable_residual,
    sparsity: float = SPARSITY,
    latent: ConditionalLatent | None = None,
) -> TransformModel:
    """Return the codec.

    Args:
        n: Channels of the transforms and of the latent.
        slim: Whether the encoder has no block at 1/2 of the picture's size.
        teacher: Whether the decoder has a block at 1/2 of the picture's size.
        block: Makes the blocks at 1/4 and 1/8 of the picture's size.
        sparsity: Weight of the L1 norm of the latent for each pixel.
        latent: The model of the latent; None for :func:`two_networks`.
    """
    outer = concatenated_residual_block
    return SparseModel(
        residual_analysis(n, (None if slim else outer, block, block)),
        residual_synthesis(n, (outer, block, block, outer if teacher else None)),
        residual_hyperprior(n, two_networks(n) if latent is None else latent),
        sparsity,
    )
