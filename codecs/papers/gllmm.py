"""GLLMM: mixtures of three families of distributions, and concatenated residual blocks.

Fu et al., "Learned image compression with Gaussian-Laplacian-logistic mixture model and
concatenated residual modules", arXiv 2107.06463; IEEE Transactions on Image Processing 32, 2023.
The layers are those of the authors' code. The transforms are those of Cheng et al. with other
blocks; each value of the latent has a mixture of three normal, three Laplace and three logistic
distributions, and channels that are zero in a whole picture are not coded.
"""

from vpxrc.codecs.contexts import Raster
from vpxrc.codecs.entropy import LAPLACE, LOGISTIC, NORMAL, Mixture
from vpxrc.codecs.latents import ConditionalLatent, pointwise
from vpxrc.codecs.layers import concatenated_residual_block
from vpxrc.codecs.model import TransformModel
from vpxrc.codecs.papers.baselines import residual_hyperprior
from vpxrc.codecs.transforms import Block, residual_analysis, residual_synthesis

FAMILIES = (NORMAL, LAPLACE, LOGISTIC)


def gllmm(n: int, slim: bool = False, block: Block = concatenated_residual_block) -> TransformModel:
    """Return the codec.

    Args:
        n: Channels of the transforms and of the latent.
        slim: Whether there are no blocks at 1/2 of the picture's size; they take half of the time.
        block: Makes the residual blocks.
    """
    family = Mixture(FAMILIES, 3)
    network = pointwise(4 * n, (640, 1280), family.parameters * n, bias=False)
    half = None if slim else block
    return TransformModel(
        residual_analysis(n, (half, block, block)),
        residual_synthesis(n, (block, block, block, half)),
        residual_hyperprior(n, ConditionalLatent(family, Raster(n), network, skip_zeros=True)),
    )
