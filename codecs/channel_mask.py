"""Which channels of a latent are coded: those that are zero in a whole picture are left out."""

import numpy as np
import torch
from torch import Tensor

from vpxrc.errors import InputError


class ChannelMask:
    """The channels of one picture's latent that are coded.

    Attributes:
        channels: Number of channels M of the latent.
        kept: ``[k]``, int64, the channels that are coded, in rising order.

    Args:
        coded: ``[M]``, bool.
    """

    def __init__(self, coded: Tensor) -> None:
        self.channels, self.kept = len(coded), coded.nonzero()[:, 0]
        self._coded = coded

    @classmethod
    def whole(cls, channels: int) -> "ChannelMask":
        """Return the mask with all channels."""
        return cls(torch.ones(channels, dtype=torch.bool))

    def pack(self) -> bytes:
        """Return a bit for each channel, the first one highest in its byte."""
        return np.packbits(self._coded.numpy()).tobytes()

    @classmethod
    def unpack(cls, stream: bytes, channels: int) -> tuple["ChannelMask", bytes]:
        """Return the mask at the beginning of a stream, and what follows it.

        Raises:
            InputError: No encoder writes this mask.
        """
        size = -(-channels // 8)
        if len(stream) < size:
            raise InputError("a stream is damaged: it ends in the flags of its channels")
        flags = np.unpackbits(np.frombuffer(stream[:size], np.uint8))
        if flags[channels:].any():
            raise InputError("a stream is damaged: it has flags of channels that do not exist")
        return cls(torch.from_numpy(flags[:channels].astype(bool))), stream[size:]
