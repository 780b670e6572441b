"""Context models: which cells of a latent are coded together, and which of them the next ones see.

A *pass* is a set of cells that are coded at the same time. The distributions of a pass may depend
on all cells of the passes before it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from vpxrc.codecs.layers import MaskedConv2d

Cells = tuple[Tensor, Tensor]  # rows and columns, [n] each, int64
# From a latent as `padded` returns it, in which what has not been coded yet may have any value, and
# cells of a pass to features [F, n].
Reader = Callable[[Tensor, Cells], Tensor]


class Context(nn.Module, ABC):
    """A masked convolution over the cells that are coded already.

    Args:
        channels: Channels M of the latent.
        taps: ``[5, 5]``, the cells of the window that a cell may depend on.
        features: Number of features F; None for ``2 M``.
    """

    def __init__(self, channels: int, taps: Tensor, features: int | None = None) -> None:
        super().__init__()
        self.conv = MaskedConv2d(channels, features or 2 * channels, taps)

    @abstractmethod
    def forward(self, y: Tensor) -> Tensor:
        """Return features ``[B, F, h, w]`` of a whole latent ``[B, M, h, w]``, for training."""

    @abstractmethod
    def passes(self, height: int, width: int) -> list[Cells]:
        """Return the passes over a latent; each cell is in one of them."""

    def reader(self) -> "Reader":
        """Return what reads the features of some cells; :meth:`forward` gives the same ones."""
        down, right = self.conv.taps.nonzero(as_tuple=True)
        weight = self.conv.weight[:, :, down, right].transpose(1, 2).flatten(1)
        bias = self.conv.bias

        def read(seen: Tensor, cells: Cells) -> Tensor:
            """Return the features; only the cells of the window are touched that may be seen."""
            width = seen.shape[1]
            places = (cells[0] * width + cells[1])[:, None] + down * width + right
            around = seen.flatten(0, 1).index_select(0, places.flatten())
            found = weight @ around.view(len(places), -1).T
            return found if bias is None else found.add_(bias[:, None])

        return read


def padded(y: Tensor) -> Tensor:
    """Return ``[h + 4, w + 4, M]`` of a latent ``[M, h, w]``, with two cells of zeros around it."""
    return functional.pad(y, (2, 2, 2, 2)).permute(1, 2, 0).contiguous()


def all_cells(height: int, width: int) -> Cells:
    """Return every cell, row by row."""
    rows, columns = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    return rows.flatten(), columns.flatten()


class Checkerboard(Context):
    """Two passes: the cells of one colour without context, then those of the other colour.

    He et al., "Checkerboard context model for efficient learned image compression", CVPR 2021.
    The first cells, the *anchors*, are those whose row and column have an odd sum.
    """

    def __init__(self, channels: int, features: int | None = None) -> None:
        rows, columns = all_cells(5, 5)
        super().__init__(channels, ((rows + columns) % 2).view(5, 5), features)

    def forward(self, y: Tensor) -> Tensor:
        """Return the features; those of anchors are zeros, without the bias."""
        rows, columns = all_cells(*y.shape[-2:])
        seeing = ((rows + columns) % 2 == 0).view(y.shape[-2:])
        features: Tensor = self.conv(y)
        return features * seeing.to(y.device)

    def passes(self, height: int, width: int) -> list[Cells]:
        """Return the anchors, and the others."""
        rows, columns = all_cells(height, width)
        odd = (rows + columns) % 2 == 1
        return [(rows[odd], columns[odd]), (rows[~odd], columns[~odd])]

    def reader(self) -> Reader:
        """Return what reads features; those of anchors are zeros."""
        read = super().reader()
        return lambda seen, cells: read(seen, cells) * ((cells[0] + cells[1]) % 2 == 0)


class Raster(Context):
    """Row by row: a cell sees the two rows above it, and the two cells on its left.

    Minnen et al., "Joint autoregressive and hierarchical priors for learned image compression",
    NeurIPS 2018. A cell depends on no cell more than two columns to the right in the row above, so
    all cells with the same ``column + 3 row`` can be coded together, in ``w + 3 (h - 1)`` passes in
    place of ``h w``.
    """

    def __init__(self, channels: int, features: int | None = None) -> None:
        super().__init__(channels, (torch.arange(25) < 12).view(5, 5), features)

    def forward(self, y: Tensor) -> Tensor:
        """Return the features."""
        features: Tensor = self.conv(y)
        return features

    def passes(self, height: int, width: int) -> list[Cells]:
        """Return the slanted lines of cells that do not see each other."""
        rows, columns = all_cells(height, width)
        turn = columns + 3 * rows
        order = turn.argsort(stable=True)
        counts = [count for count in torch.bincount(turn).tolist() if count]
        parts = torch.split(order, counts)
        return [(rows[part], columns[part]) for part in parts]
