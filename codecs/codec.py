"""Codecs that are ready to use: checkpoints, pictures to bytes, and back."""

import hashlib
import math
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from vpxrc.codecs.bitstream import (
    IDENTITY_BYTES,
    MAX_PIXELS,
    MAX_SIDE,
    QUALITY_STEPS,
    CodedPicture,
    pack,
    unpack,
)
from vpxrc.codecs.model import Model, VariableModel
from vpxrc.codecs.papers import build
from vpxrc.codecs.pictures import Pixels
from vpxrc.errors import InputError
from vpxrc.storage import atomic_write
from vpxrc.tensors import read_weights, tensor_bytes

FORMAT = "vpxrc.codec 1"
TRIALS = 14  # at most, of a search for a number of bytes
NARROW = 1 / 1024  # of the range of qualities: closer ones are not told apart
CLOSE = 0.997  # of the bytes that may be used: as near as qualities that far apart come


@dataclass(frozen=True)
class Compressed:
    """A coded picture.

    Attributes:
        data: The file.
        picture: What :meth:`Codec.decompress` returns, ``[height, width, 3]``, uint8, RGB.
    """

    data: bytes
    picture: Pixels

    @property
    def stream_sizes(self) -> list[int]:
        """The bytes of each stream, in the file's order."""
        return [len(stream) for stream in unpack(self.data).streams]


@dataclass(frozen=True, eq=False)
class Region:
    """A region of interest in a picture.

    Attributes:
        mask: ``[height, width]``, bool, True inside.
        weight: How much more a squared error inside counts, above 1.
    """

    mask: NDArray[np.bool_]
    weight: float


class Codec:
    """Codes pictures with trained weights.

    Args:
        model: The networks; the codec has the weights that they have now.
        spec: Name and width, as :func:`vpxrc.codecs.papers.build` takes them.
    """

    def __init__(self, model: Model, spec: str) -> None:
        model.eval().requires_grad_(False)
        self.model, self.spec = model, spec
        self.identity = weights_hash(model, spec)
        self._coder = model.coder()

    @torch.no_grad()
    def compress(
        self, picture: Pixels, quality: float | None = None, region: Region | None = None
    ) -> Compressed:
        """Return the bytes of a picture, and its reconstruction.

        Args:
            picture: ``[height, width, 3]``, uint8, RGB, from 1x1 to 65535 pixels a side.
            quality: 0..1, for a codec of variable quality; None for 1/2.
            region: Where an error counts more; the quality is then that of the other pixels. It may
                go down to -1: the others have the lowest quality, and the region less than its
                weight gives.

        Raises:
            InputError: The picture, the quality or the region cannot be used.
            EncoderError: The weights give latents that cannot be coded.
        """
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise InputError("a picture has to be uint8 of the shape [height, width, 3]")
        height, width = picture.shape[:2]
        if not (min(height, width) > 0 and max(height, width) <= MAX_SIDE):
            raise InputError(f"a picture has 1 to {MAX_SIDE} pixels a side, not {width}x{height}")
        if height * width > MAX_PIXELS:
            raise InputError(f"a picture of {width}x{height} has too many pixels")
        steps = self._quality_steps(quality, -1 if region else 0)
        pixels = torch.from_numpy(np.ascontiguousarray(picture.transpose(2, 0, 1)))
        padded = replicate(pixels, self.model.multiple)
        weights = torch.zeros(padded.shape[1:])
        weights[:height, :width] = 1 if region is None else self._weights(region, height, width)
        if steps < 0:
            assert isinstance(self.model, VariableModel)
            weights *= self.model.trade_off(steps / QUALITY_STEPS) / self.model.trade_off(0)
            steps = 0
        streams, decoded = self._coder.encode(padded, steps / QUALITY_STEPS, weights)
        short = self.identity[:IDENTITY_BYTES]
        data = pack(CodedPicture(short, width, height, steps, streams))
        return Compressed(data, _cropped(decoded, height, width))

    @torch.no_grad()
    def decompress(self, data: bytes) -> Pixels:
        """Return a picture ``[height, width, 3]``, uint8, RGB.

        Args:
            data: As :meth:`compress` returned it.

        Raises:
            InputError: The data is damaged, or of another codec.
        """
        coded = unpack(data)
        if coded.identity != self.identity[:IDENTITY_BYTES]:
            raise InputError(
                f"the picture was coded with other weights ({coded.identity.hex()}) than those of "
                f"{self.spec} here ({self.identity[:IDENTITY_BYTES].hex()})"
            )
        multiple = self.model.multiple
        height, width = (-(-side // multiple) * multiple for side in (coded.height, coded.width))
        quality = coded.quality / QUALITY_STEPS
        decoded = self._coder.decode(coded.streams, height, width, quality)
        return _cropped(decoded, coded.height, coded.width)

    def _weights(self, region: Region, height: int, width: int) -> Tensor:
        if not self.model.has_regions:
            raise InputError(f"{self.spec} has one quality for all pixels: it takes no region")
        if region.mask.shape != (height, width) or region.mask.dtype != np.bool_:
            raise InputError(f"a region of {width}x{height} pixels is bool [{height}, {width}]")
        return torch.where(torch.from_numpy(region.mask), region.weight, 1.0)

    def _quality_steps(self, quality: float | None, least: int) -> int:
        if not isinstance(self.model, VariableModel):
            if quality is not None:
                raise InputError(f"{self.spec} has one quality: choose another checkpoint")
            return 0
        quality = 0.5 if quality is None else quality
        if not least <= quality <= 1:
            raise InputError(f"a quality is between {least} and 1, not {quality}")
        return round(quality * QUALITY_STEPS)


def compress_to_size(
    codec: Codec,
    picture: Pixels,
    most: int,
    progress: Callable[[int, int], None],
    region: Region | None = None,
) -> Compressed:
    """Return the best compression with at most a number of bytes.

    The quality is found by interpolation between the logarithms of the sizes, which are nearly a
    straight line. A search ends at 99.7 % of the bytes, or where qualities 1/1024 apart lie on both
    sides of them.

    Args:
        codec: A codec of variable quality.
        picture: As :meth:`Codec.compress` takes it.
        most: Bytes of the file.
        progress: Told the number of trials, done and at most.
        region: Where an error counts more.

    Raises:
        InputError: The codec has one quality, or its lowest one takes more bytes.
    """
    if not isinstance(codec.model, VariableModel):
        raise InputError(f"{codec.spec} has one quality: it cannot be asked for a size")
    low, high = 0.0 if region is None else -1.0, 1.0
    best = codec.compress(picture, low, region)
    progress(1, TRIALS)
    if len(best.data) > most:
        raise InputError(f"the lowest quality takes {len(best.data)} bytes, more than {most}")
    last = codec.compress(picture, high, region)
    progress(2, TRIALS)
    if len(last.data) <= most:
        progress(TRIALS, TRIALS)
        return last
    # Logarithms of the sizes over the one that is aimed at, which lies within the tolerance.
    aim = most * math.sqrt(CLOSE)
    below, above = (math.log(len(one.data) / aim) for one in (best, last))
    trial = 2
    while trial < TRIALS and len(best.data) < CLOSE * most and high - low > NARROW:
        # Not at an end, where sizes bend.
        share = min(max(below / (below - above), 0.02), 0.98)
        middle = low + share * (high - low)
        found = codec.compress(picture, middle, region)
        size = math.log(len(found.data) / aim)
        trial += 1
        progress(trial, TRIALS)
        # The weight of an end that stays is halved (the Illinois method), so both ends move.
        if len(found.data) > most:
            high, above, below = middle, size, below / 2
        else:
            low, best, below, above = middle, found, size, above / 2
    progress(TRIALS, TRIALS)
    return best


def replicate(pixels: Tensor, multiple: int) -> Tensor:
    """Return ``[3, H, W]`` with its last row and column repeated up to multiples of a number."""
    height, width = pixels.shape[1:]
    padding = (0, -width % multiple, 0, -height % multiple)
    # Replication has no kernel for uint8.
    return functional.pad(pixels[None].float(), padding, mode="replicate")[0].to(torch.uint8)


def _cropped(pixels: Tensor, height: int, width: int) -> Pixels:
    return np.ascontiguousarray(pixels[:, :height, :width].numpy().transpose(1, 2, 0))


# Checkpoints


def weights_hash(model: Model, spec: str) -> bytes:
    """Return the SHA-256 of a codec: of its spec and of its weights."""
    digest = hashlib.sha256(f"{FORMAT}\n{spec}\n".encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().numpy().astype("<f4").tobytes())
    return digest.digest()


def save_checkpoint(
    path: str | os.PathLike[str], model: Model, spec: str, settings: Mapping[str, str]
) -> None:
    """Write a safetensors file with the weights, and settings beside them.

    Args:
        path: The file.
        model: The networks.
        spec: Name and width.
        settings: Anything else that a reader wants to know, by name.

    Raises:
        OutputError: It cannot be written.
    """
    tensors = {name: one.detach().cpu().numpy() for name, one in model.state_dict().items()}
    metadata = {**settings, "format": FORMAT, "codec": spec}
    with atomic_write(Path(path)) as temporary:
        temporary.write_bytes(tensor_bytes(tensors, metadata))


def read_checkpoint(path: str | os.PathLike[str]) -> tuple[Model, dict[str, str]]:
    """Return the networks of a file, and its settings; ``codec`` is the spec.

    Raises:
        InputError: It cannot be read, or is no checkpoint of a codec.
    """
    weights, settings = read_weights(path)
    if settings.get("format") != FORMAT:
        raise InputError(f"{path}: not a checkpoint of a codec, or of another version")
    tensors = {name: torch.from_numpy(values) for name, values in weights.items()}
    if not all(tensor.is_floating_point() for tensor in tensors.values()):
        raise InputError(f"{path}: the weights are no numbers")
    model = build(settings.get("codec", ""))
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise InputError(f"{path}: not the weights of {settings['codec']}") from error
    return model, settings


def load_codec(path: str | os.PathLike[str]) -> Codec:
    """Return the codec of a checkpoint.

    Raises:
        InputError: It cannot be read, or is no checkpoint of a codec.
    """
    model, settings = read_checkpoint(path)
    return Codec(model, settings["codec"])
