"""Regions of a picture, as files and numbers describe them."""

import hashlib
import re
import warnings
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
from numpy.typing import NDArray

from vpxrc.errors import InputError
from vpxrc.media.decoding import open_video
from vpxrc.media.frames import Video, to_8_bits

if TYPE_CHECKING:
    from PIL.Image import Image

_BOX = "box:"
_WHITE = 128  # of 255: what is as bright belongs to the region
_LIMITED = (16, 235)  # black and white of a video in the limited range


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

    @property
    def num_masks(self) -> int:
        """1: it is the same in all frames."""
        return 1

    @property
    def content(self) -> bytes:
        """What tells it from other parts of a region."""
        return str(self).encode()

    def mask(self, width: int, height: int, index: int = 0) -> NDArray[np.bool_]:
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
        name: Its file, for errors.
        pixels: Its brightness, uint8 ``[rows, columns]``.

    Raises:
        InputError: It has no region or no rest.
    """

    name: str
    pixels: NDArray[np.uint8]

    def __post_init__(self) -> None:
        """Check that there is a region."""
        is_white = self.pixels >= _WHITE
        if not is_white.any():
            raise InputError(f"{self.name}: nothing in it is white, so the region is empty")
        if is_white.all():
            raise InputError(f"{self.name}: all of it is white, so the region is the whole picture")

    @property
    def num_masks(self) -> int:
        """1: it is the same in all frames."""
        return 1

    @property
    def content(self) -> bytes:
        """What tells it from other parts of a region."""
        return f"{self.pixels.shape}".encode() + self.pixels.tobytes()

    def mask(self, width: int, height: int, index: int = 0) -> NDArray[np.bool_]:
        """Return the region in a picture of some size, bool ``[height, width]``.

        Raises:
            InputError: The mask has another shape, or nothing of it is left at this size.
        """
        mask = _scaled(self.name, self.pixels, width, height)
        if not mask.any():
            raise InputError(f"{self.name}: nothing is left of the region at {width}x{height}")
        return mask


@dataclass(frozen=True, eq=False)
class MaskSequence:
    """A mask for each frame of a video; the last one is kept for the frames after it.

    Attributes:
        name: Its file or folder, for errors.
        size: Rows and columns of all masks.
        packed: The masks, compressed: a region has a few hundred bytes in each frame.
    """

    name: str
    size: tuple[int, int]
    packed: tuple[bytes, ...]

    @classmethod
    def of(cls, name: str, masks: Iterable[tuple[str, NDArray[np.bool_]]]) -> Self:
        """Return the masks of a name each, bool ``[rows, columns]``.

        Raises:
            InputError: There is none, they differ in size, or none has both a region and a rest.
        """
        size, packed, has_region = None, [], False
        for own_name, mask in masks:
            size = size or mask.shape
            if mask.shape != size:
                raise InputError(
                    f"{own_name}: a mask of {mask.shape[1]}x{mask.shape[0]} after masks of "
                    f"{size[1]}x{size[0]}"
                )
            packed.append(zlib.compress(np.packbits(mask).tobytes()))
            has_region |= bool(mask.any() and not mask.all())
        if size is None:
            raise InputError(f"{name}: no picture in it")
        if not has_region:
            raise InputError(f"{name}: none of its masks has both white and black")
        return cls(name, (size[0], size[1]), tuple(packed))

    @property
    def num_masks(self) -> int:
        """Number of the masks."""
        return len(self.packed)

    @property
    def content(self) -> bytes:
        """What tells it from other parts of a region."""
        return f"{self.size}".encode() + b"".join(self.packed)

    def mask(self, width: int, height: int, index: int = 0) -> NDArray[np.bool_]:
        """Return the region in a frame of some size, bool ``[height, width]``; it may be empty.

        Args:
            width: Width of the picture in pixels.
            height: Height of the picture in pixels.
            index: Number of the frame, from 0.

        Raises:
            InputError: The masks have another shape.
        """
        rows, columns = self.size
        bits = np.frombuffer(zlib.decompress(self.packed[min(index, self.num_masks - 1)]), np.uint8)
        pixels = np.unpackbits(bits, count=rows * columns).reshape(rows, columns) * np.uint8(255)
        return _scaled(self.name, pixels, width, height)


Part = Box | MaskPicture | MaskSequence


def _scaled(name: str, pixels: NDArray[np.uint8], width: int, height: int) -> NDArray[np.bool_]:
    """Return what is white of a mask in a picture of some size, bool ``[height, width]``.

    Raises:
        InputError: The mask has another shape.
    """
    from PIL import Image

    rows, columns = pixels.shape
    # A mask that was scaled from the picture is rounded by up to a pixel.
    if abs(rows - columns * height / width) > 1 and abs(columns - rows * width / height) > 1:
        raise InputError(
            f"{name}: a mask of {columns}x{rows} does not have the shape of the picture, "
            f"which has {width}x{height}"
        )
    scaled = Image.fromarray(pixels).resize((width, height), Image.Resampling.BOX)
    return np.asarray(np.asarray(scaled) >= _WHITE, dtype=np.bool_)


def read_masks(path: Path) -> MaskPicture | MaskSequence:
    """Return the masks in a picture, an animated picture, a video, or a folder of pictures.

    Transparency does not count. The pictures of a folder are in the order of the numbers in their
    names.

    Raises:
        InputError: There is no such file, it is none of these, or has no region or no rest.
        OutputError: The cache cannot be written, where the frames of a video go.
    """
    if path.is_dir():
        return MaskSequence.of(str(path), _folder(path))
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    with _opened(path) as picture:
        if picture is not None and getattr(picture, "n_frames", 1) == 1:
            return MaskPicture(str(path), _pixels(picture))
        if picture is not None:
            return MaskSequence.of(str(path), _frames(path, picture))
    return _video(path)


def _folder(path: Path) -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield name and mask of each picture in a folder; hidden files do not count."""

    def place(file: Path) -> list[tuple[int, str]]:
        parts = re.split(r"(\d+)", file.name)
        return [(int(one), "") if one.isdecimal() else (-1, one) for one in parts]

    files = [file for file in path.iterdir() if not file.name.startswith(".")]
    for file in sorted(files, key=place):
        if not file.is_file():
            raise InputError(f"{file}: a folder of masks has pictures only")
        with _opened(file) as picture:
            if picture is None:
                raise InputError(f"{file}: not a picture that can be read")
            yield str(file), _pixels(picture) >= _WHITE


def _frames(path: Path, picture: "Image") -> Iterator[tuple[str, NDArray[np.bool_]]]:
    """Yield the masks of an animated picture."""
    from PIL import ImageSequence

    for frame in ImageSequence.Iterator(picture):
        yield str(path), _pixels(frame) >= _WHITE


def _video(path: Path) -> MaskSequence:
    """Return the masks of a video."""
    try:
        video = open_video(path)
    except InputError as error:
        raise InputError(f"{path}: not a picture that can be read, nor a video: {error}") from None
    return MaskSequence.of(str(path), ((str(path), mask) for mask in _white(video)))


def _white(video: Video) -> Iterator[NDArray[np.bool_]]:
    """Yield what is white in each frame, by its luma."""
    black, white = (0, 255) if video.colours.full_range else _LIMITED
    for index in range(video.num_frames):
        yield np.asarray(to_8_bits(video.planes(index)[0]) >= (black + white) / 2)


@contextmanager
def _opened(path: Path) -> "Iterator[Image | None]":
    """Yield a file as Pillow reads it; None for one that is no picture.

    Raises:
        InputError: It is damaged or too large.
    """
    from PIL import Image, UnidentifiedImageError  # most encodes need no picture

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            picture = None
            with suppress(UnidentifiedImageError):
                picture = Image.open(path)
            with picture or nullcontext():
                yield picture
    except (
        OSError,
        SyntaxError,
        ValueError,
        Image.DecompressionBombError,
        Image.DecompressionBombWarning,
    ) as error:
        raise InputError(f"{path}: not a picture that can be read: {error}") from None


def _pixels(picture: "Image") -> NDArray[np.uint8]:
    """Return the brightness of a picture, uint8 ``[rows, columns]``."""
    if picture.mode.startswith("I;16"):  # Pillow would clip it to 255
        return np.asarray(np.asarray(picture) // 257, dtype=np.uint8)
    return np.asarray(picture.convert("L"), dtype=np.uint8)


@dataclass(frozen=True, eq=False)
class RegionSpec:
    """A region of interest in the frames of a video: boxes and masks together.

    Attributes:
        parts: The boxes and masks, at least one.
    """

    parts: tuple[Part, ...]

    @classmethod
    def parse(cls, texts: Sequence[str]) -> Self:
        """Return the region of ``box:X,Y,W,H`` and names of files and folders of masks.

        Raises:
            InputError: There is none, a box is none, or a mask cannot be read.
        """
        if not texts:
            raise InputError("a region of interest has at least one box or mask")
        if "" in texts:  # as a path it would be this folder
            raise InputError("a region of interest is box:X,Y,W,H or a path, not ''")
        return cls(
            tuple(
                Box.parse(text.removeprefix(_BOX))
                if text.startswith(_BOX)
                else read_masks(Path(text))
                for text in texts
            )
        )

    @classmethod
    def of(cls, given: Any, name: str = "roi") -> Self:
        """Return the region that a value of a configuration stands for.

        Args:
            given: ``box:X,Y,W,H`` or a path, a list of these, or a mask: True or 1 inside the
                region, ``[height, width]``, or ``[num_masks, height, width]`` for each frame.
            name: What errors call it.

        Raises:
            InputError: It is none of these.
        """
        if isinstance(given, str | Path):
            return cls.parse([str(given)])
        shown = " ".join(repr(given).split())  # an array has several lines
        words = f"{name} must be box:X,Y,W,H, a path, a list of these or a mask, not {shown:.80}"
        if not isinstance(given, Sequence | np.ndarray) or isinstance(given, bytes):
            raise InputError(words)
        if all(isinstance(one, str | Path) for one in given):
            return cls.parse([str(one) for one in given])
        try:
            values = np.asarray(given)
        except ValueError:
            raise InputError(words) from None
        if values.ndim not in (2, 3) or values.dtype.kind not in "biuf":
            raise InputError(words)
        if not values.size or not np.isin(values, (0, 1)).all():
            raise InputError(f"{name}: a mask has 1 or True inside the region, else 0 or False")
        masks = values.astype(np.bool_)
        if masks.ndim == 3:
            return cls((MaskSequence.of(name, ((name, one) for one in masks)),))
        return cls((MaskPicture(name, masks * np.uint8(255)),))

    @property
    def num_masks(self) -> int:
        """Number of frames after which the region stays as it is; 1 where it never changes."""
        return max(part.num_masks for part in self.parts)

    def check(self, width: int, height: int, num_frames: int) -> None:
        """Check that a video can have this region.

        Raises:
            InputError: A part does not fit, all of it is the whole picture, or there are more masks
                than frames.
        """
        if self.num_masks > num_frames:
            raise InputError(f"{self.num_masks} masks for a video of {num_frames} frames")
        self.mask(width, height)

    def mask(self, width: int, height: int, index: int = 0) -> NDArray[np.bool_]:
        """Return the region in a frame, bool ``[height, width]``.

        One that changes may be empty in some frames, or the whole picture.

        Args:
            width: Width of the picture in pixels.
            height: Height of the picture in pixels.
            index: Number of the frame, from 0.

        Raises:
            InputError: A part does not fit, or together they always are the whole picture.
        """
        mask = np.logical_or.reduce([part.mask(width, height, index) for part in self.parts])
        if self.num_masks == 1 and mask.all():
            raise InputError("the region of interest is the whole picture")
        return np.asarray(mask, dtype=np.bool_)

    @property
    def content_hash(self) -> str:
        """SHA-256 of all parts in hexadecimal."""
        parts = hashlib.sha256()
        for part in self.parts:
            parts.update(part.content)
        return parts.hexdigest()
