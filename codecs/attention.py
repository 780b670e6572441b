"""Attention within windows of a map (Liu et al., "Swin Transformer", ICCV 2021)."""

import torch
from torch import Tensor, nn
from torch.nn import functional

WINDOW = 8  # cells of a side


class WindowAttention(nn.Module):
    """Each cell of a window looks at all cells of it.

    With a shift the windows lie half a window lower and further right. Those at the border are put
    together from cells of opposite sides, which then do not look at each other.

    Args:
        channels: C, a multiple of ``heads``.
        heads: Parts of the channels that look at different cells.
        shift: Cells by which the windows are moved.
    """

    def __init__(self, channels: int, heads: int, shift: int) -> None:
        super().__init__()
        self.heads, self.shift = heads, shift
        self.inputs, self.output = nn.Linear(channels, 3 * channels), nn.Linear(channels, channels)
        # By the distance of two cells of a window, rows and columns.
        self.biases = nn.Parameter(torch.zeros(heads, (2 * WINDOW - 1) ** 2))
        cells = torch.cartesian_prod(torch.arange(WINDOW), torch.arange(WINDOW))
        rows, columns = (cells[:, None] - cells + WINDOW - 1).unbind(-1)
        self.register_buffer("places", rows * (2 * WINDOW - 1) + columns, persistent=False)

    places: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Return what the cells see, ``[B, h, w, C]`` of ``[B, h, w, C]``.

        Height and width are multiples of the window's.
        """
        batch, height, width, channels = x.shape
        x = torch.roll(x, (-self.shift, -self.shift), (1, 2))
        tokens = self.inputs(_windows(x))  # [B, windows, cells, 3 C]
        parts = tokens.unflatten(-1, (3, self.heads, channels // self.heads))
        query, key, value = parts.permute(3, 0, 1, 4, 2, 5)
        seen = self.biases[:, self.places]
        if self.shift:
            seen = seen + self._borders(height, width, x.device)[:, None]
        found = functional.scaled_dot_product_attention(query, key, value, seen.to(query.dtype))
        y = self.output(found.transpose(2, 3).flatten(3))
        y = y.view(batch, height // WINDOW, width // WINDOW, WINDOW, WINDOW, channels)
        y = y.permute(0, 1, 3, 2, 4, 5).reshape(batch, height, width, channels)
        return torch.roll(y, (self.shift, self.shift), (1, 2))

    def _borders(self, height: int, width: int, device: torch.device) -> Tensor:
        """Return ``[windows, cells, cells]``, minus infinity between cells of opposite sides."""
        rows = torch.arange(height, device=device) >= height - self.shift
        columns = torch.arange(width, device=device) >= width - self.shift
        side = (2 * rows[:, None] + columns).float()[None, :, :, None]
        of_cells = _windows(side)[0, :, :, 0]
        apart = of_cells[:, :, None] != of_cells[:, None]
        return torch.zeros(apart.shape, device=device).masked_fill(apart, -torch.inf)


def _windows(x: Tensor) -> Tensor:
    """Return ``[B, windows, cells, C]`` of ``[B, h, w, C]``."""
    batch, height, width, channels = x.shape
    parts = x.view(batch, height // WINDOW, WINDOW, width // WINDOW, WINDOW, channels)
    return parts.permute(0, 1, 3, 2, 4, 5).reshape(batch, -1, WINDOW * WINDOW, channels)


class SwinBlock(nn.Module):
    """Window attention, and then a network for each cell; both are added to their input.

    Args:
        channels: C.
        heads: See :class:`WindowAttention`.
        shift: See :class:`WindowAttention`.
        wider: Channels of the network inside, as a multiple of C.
    """

    def __init__(self, channels: int, heads: int, shift: int, wider: int = 2) -> None:
        super().__init__()
        self.before, self.after = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = WindowAttention(channels, heads, shift)
        self.network = nn.Sequential(
            nn.Linear(channels, wider * channels), nn.GELU(), nn.Linear(wider * channels, channels)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Return ``[B, C, h, w]`` of ``[B, C, h, w]``."""
        cells: Tensor = x.permute(0, 2, 3, 1)
        cells = cells + self.attention(self.before(cells))
        cells = cells + self.network(self.after(cells))
        return cells.permute(0, 3, 1, 2)


def swin_blocks(channels: int, heads: int) -> nn.Sequential:
    """Return a block, and one whose windows are moved by half a window."""
    return nn.Sequential(SwinBlock(channels, heads, 0), SwinBlock(channels, heads, WINDOW // 2))
