"""Regions of a picture, as files and numbers describe them."""

import hashlib
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpxrc.errors import InputError

_BOX = "box:"
_WHITE = 128  # of 255: what is as bright belongs to the region


@dataclass(frozen=True)
class Box:
    """A rectangle in pixels.

    Attributes:
        x: Left edge, at least 0.
        y: Upper edge, at least 0.
        width: At least 1.
        height: At least 1.
    """

    x: int
    y: int
    width: int
    height: int

    @classmethod
    def parse(cls, text: str) -> "Box":
        """Return the box of ``X,Y,W,H``.

        Raises:
            InputError: It is something else, or has no area.
        """
        try:
            x, y, width, height = (int(part) for part in text.split(","))
        except ValueError:
            raise InputError(
                f"a box is {_BOX}X,Y,W,H in whole pixels, not {_BOX + text!r}"
            ) from None
        if x < 0 or y < 0 or width < 1 or height < 1:
            raise InputError(f"{_BOX}{text}: X and Y are at least 0, W and H at least 1")
        return cls(x, y, width, height)

    def __str__(self) -> str:
        """Return the box as it is parsed."""
        return f"{_BOX}{self.x},{self.y},{self.width},{self.height}"

    def mask(self, width: int, height: int) -> NDArray[np.bool_]:
        """Return the box in a picture, bool ``[height, width]``.

        Raises:
            InputError: It reaches beyond the picture.
        """
        if self.x + self.width > width or self.y + self.height > height:
            raise InputError(f"{self} reaches beyond the picture, which has {width}x{height}")
        mask = np.zeros((height, width), np.bool_)
        mask[self.y : self.y + self.height, self.x : self.x + self.width] = True
        return mask


@dataclass(frozen=True, eq=False)
class MaskPicture:
    """A picture that is white inside a region.

    Attributes:
        name: Its file.
        pixels: Its brightness, uint8 ``[rows, columns]``.
    """

    name: str
    pixels: NDArray[np.uint8]

    @classmethod
    def read(cls, path: Path) -> "MaskPicture":
        """Return the mask in a file that Pillow reads; transparency does not count.

        Raises:
            InputError: There is no such file, it is no still picture, or has no region or no rest.
        """
        from PIL import Image, UnidentifiedImageError  # most encodes need no picture

        if not path.is_file():
            raise InputError(f"{path}: no such file")
        try:
            with warnings.catch_warnings(), Image.open(path) as picture:
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                if getattr(picture, "n_frames", 1) > 1:
                    raise InputError(f"{path}: a mask is one picture, and this has several frames")
                pixels = _brightness(np.asarray(picture), picture.mode)
                if pixels is None:
                    pixels = np.asarray(picture.convert("L"))
        except UnidentifiedImageError:
            raise InputError(f"{path}: not a picture that can be read") from None
        except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
            raise InputError(f"{path}: not a picture that can be read: {error}") from None
        except Image.DecompressionBombWarning as error:
            raise InputError(f"{path}: not a picture that can be read: {error}") from None
        is_white = pixels >= _WHITE
        if not is_white.any():
            raise InputError(f"{path}: nothing in it is white, so the region is empty")
        if is_white.all():
            raise InputError(f"{path}: all of it is white, so the region is the whole picture")
        return cls(str(path), np.asarray(pixels, dtype=np.uint8))

    def mask(self, width: int, height: int) -> NDArray[np.bool_]:
        """Return the region in a picture of some size, bool ``[height, width]``.

        Raises:
            InputError: The mask has another shape, or nothing of it is left at this size.
        """
        from PIL import Image

        rows, columns = self.pixels.shape
        # A mask that was scaled from the picture is rounded by up to a pixel.
        if abs(rows - columns * height / width) > 1 and abs(columns - rows * width / height) > 1:
            raise InputError(
                f"{self.name}: a mask of {columns}x{rows} does not have the shape of the picture, "
                f"which has {width}x{height}"
            )
        scaled = Image.fromarray(self.pixels).resize((width, height), Image.Resampling.BOX)
        mask = np.asarray(scaled) >= _WHITE
        if not mask.any():
            raise InputError(f"{self.name}: nothing is left of the region at {width}x{height}")
        return np.asarray(mask, dtype=np.bool_)


def _brightness(values: NDArray[np.generic], mode: str) -> NDArray[np.uint8] | None:
    """Return the brightness of modes that Pillow would clip to 255; None of all others."""
    if mode.startswith("I;16"):
        return np.asarray(values // 257, dtype=np.uint8)
    return None


@dataclass(frozen=True, eq=False)
class RegionSpec:
    """A region of interest that is the same in all frames of a video: boxes and masks together.

    Attributes:
        parts: The boxes and masks, at least one.
    """

    parts: tuple[Box | MaskPicture, ...]

    @classmethod
    def parse(cls, texts: Sequence[str]) -> "RegionSpec":
        """Return the region of ``box:X,Y,W,H`` and names of mask pictures.

        Raises:
            InputError: There is none, a box is none, or a mask cannot be read.
        """
        if not texts:
            raise InputError("a region of interest has at least one box or mask")
        return cls(
            tuple(
                Box.parse(text.removeprefix(_BOX))
                if text.startswith(_BOX)
                else MaskPicture.read(Path(text))
                for text in texts
            )
        )

    def mask(self, width: int, height: int) -> NDArray[np.bool_]:
        """Return the region in a picture, bool ``[height, width]``.

        Raises:
            InputError: A part does not fit, or together they are the whole picture.
        """
        mask = np.logical_or.reduce([part.mask(width, height) for part in self.parts])
        if mask.all():
            raise InputError("the region of interest is the whole picture")
        return np.asarray(mask, dtype=np.bool_)

    @property
    def content_hash(self) -> str:
        """SHA-256 of all parts in hexadecimal."""
        parts = hashlib.sha256()
        for part in self.parts:
            if isinstance(part, Box):
                parts.update(str(part).encode())
            else:
                parts.update(f"{part.pixels.shape}".encode() + part.pixels.tobytes())
        return parts.hexdigest()
