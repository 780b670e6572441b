"""Pictures from files, and batches of crops for training."""

import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageOps
from torch import Tensor

from vpxrc.cache import Entry, check_not_cut, map_file, open_entry, write_entry
from vpxrc.errors import InputError, OutputError
from vpxrc.storage import atomic_write, cache_dir, digest

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp", ".ppm", ".tif", ".tiff", ".avif")
MIN_SCALE = 0.5  # of the crops: downscaling washes out the traces of JPEG

Pixels = NDArray[np.uint8]  # [height, width, 3], RGB


def read_picture(path: str | Path) -> Pixels:
    """Return the pixels of a file, ``[height, width, 3]``, uint8, RGB, upright.

    Raises:
        InputError: It cannot be read, is no picture, or has more than 8 bits or transparency.
    """
    try:
        with Image.open(path) as file:
            if file.mode.startswith(("I", "F")):
                raise InputError(f"{path}: only pictures of 8 bits can be read")
            if file.has_transparency_data:
                raise InputError(f"{path}: pictures with transparency cannot be coded")
            return np.asarray(ImageOps.exif_transpose(file).convert("RGB"))
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or 'not a picture'}") from error
    except (ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def to_unit(picture: Pixels) -> Tensor:
    """Return ``[1, 3, height, width]`` in 0..1, float64, as figures of quality take it."""
    return torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].double() / 255


def write_png(path: Path, picture: Pixels) -> None:
    """Write a PNG file.

    Raises:
        OutputError: It cannot be written.
    """
    with atomic_write(path) as temporary:
        Image.fromarray(picture).save(temporary, "PNG")


def find_pictures(places: Iterable[Path]) -> list[Path]:
    """Return files, and the pictures in folders, in the order of their names.

    Raises:
        InputError: A place is missing, or there is no picture.
    """
    found: list[Path] = []
    for place in places:
        if place.is_dir():
            inside = (path for path in place.iterdir() if path.suffix.lower() in SUFFIXES)
            found += sorted(inside)
        elif place.is_file():
            found.append(place)
        else:
            raise InputError(f"{place}: no such file or folder")
    if not found:
        raise InputError("there are no pictures")
    return found


class PictureStore:
    """The pixels of many pictures, decoded once into a file of the cache and mapped from there.

    Args:
        paths: The files.

    Raises:
        InputError: One cannot be read.
        OutputError: The cache cannot be written.
    """

    def __init__(self, paths: Sequence[Path]) -> None:
        facts = [
            [str(path.absolute()), path.stat().st_size, path.stat().st_mtime_ns] for path in paths
        ]
        with self._entry(paths, cache_dir() / "pictures" / f"{digest(facts)[:16]}.rgb") as entry:
            shapes = np.array(entry.about["shapes"])
            data = map_file(entry.file)
        ends = (shapes.prod(1) * 3).cumsum()
        parts = np.split(data, ends[:-1])
        self.pictures: list[Pixels] = [
            part.reshape(height, width, 3)
            for part, (height, width) in zip(parts, shapes, strict=True)
        ]

    @staticmethod
    def _entry(paths: Sequence[Path], target: Path) -> Entry:
        """Return the file of the cache; the pictures are decoded where there is none."""
        entry = open_entry(target)
        if entry is None:
            shapes = []
            with write_entry(target) as (temporary, note):
                with open(temporary, "wb") as file:
                    for path in paths:
                        picture = read_picture(path)
                        shapes.append(picture.shape[:2])
                        file.write(picture.tobytes())
                note.about["shapes"] = shapes
            entry = open_entry(target)
        if entry is None:
            raise OutputError(f"{target}: another process has removed it or written into it")
        return entry


@dataclass
class Crops:
    """Random crops, downscaled by 0.5 to 1 and mirrored; each batch depends on its number alone.

    Attributes:
        store: The pictures.
        size: Side of a crop in pixels.
        batch: Crops of a batch.
        seed: Seed.
    """

    store: PictureStore
    size: int
    batch: int
    seed: int

    def __post_init__(self) -> None:
        """Leave out pictures that are too small."""
        self._pictures = [one for one in self.store.pictures if min(one.shape[:2]) >= self.size]
        if not self._pictures:
            raise InputError(f"no picture has {self.size} pixels a side")
        areas = np.array([one.shape[0] * one.shape[1] for one in self._pictures], dtype=np.float64)
        # A larger picture has more to show, but not in proportion.
        self._shares = np.sqrt(areas) / np.sqrt(areas).sum()

    def __call__(self, number: int) -> Tensor:
        """Return batch ``number``, ``[batch, 3, size, size]``, uint8."""
        rng = np.random.default_rng([self.seed, number])
        crops = np.stack([self._crop(rng) for _ in range(self.batch)])
        check_not_cut(self._pictures[0], "the pictures")
        return torch.from_numpy(crops.transpose(0, 3, 1, 2).copy())

    def _crop(self, rng: np.random.Generator) -> Pixels:
        picture = self._pictures[rng.choice(len(self._pictures), p=self._shares)]
        height, width = picture.shape[:2]
        smallest = max(MIN_SCALE, self.size / min(height, width))
        side = int(self.size / rng.uniform(smallest, 1.0))
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
        crop = Image.fromarray(picture[top : top + side, left : left + side])
        if side != self.size:
            crop = crop.resize((self.size, self.size), Image.Resampling.LANCZOS)
        if rng.random() < 0.5:
            crop = ImageOps.mirror(crop)
        return np.asarray(crop)


class Prefetch:
    """Batches that a thread makes ahead of their use.

    Attributes:
        waited: Seconds that the reader has waited so far.

    Args:
        crops: Makes a batch of its number.
        start: Number of the first batch.
        stop: Number after the last one.
        ahead: Batches that are ready at most.
    """

    def __init__(
        self, crops: Callable[[int], Tensor], start: int, stop: int, ahead: int = 4
    ) -> None:
        self.waited = 0.0
        self._ready: queue.Queue[Tensor | BaseException] = queue.Queue(ahead)
        self._stop = threading.Event()
        self._numbers = range(start, stop)
        self._thread = threading.Thread(target=self._fill, args=(crops,), daemon=True)

    def __enter__(self) -> "Prefetch":
        """Start the thread."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End the thread."""
        self._stop.set()
        self._thread.join()

    def __iter__(self) -> Iterator[tuple[int, Tensor]]:
        """Yield numbers and batches in order."""
        for number in self._numbers:
            before = time.perf_counter()
            batch = self._ready.get()
            self.waited += time.perf_counter() - before
            if isinstance(batch, BaseException):
                raise batch
            yield number, batch

    def _fill(self, crops: Callable[[int], Tensor]) -> None:
        try:
            for number in self._numbers:
                self._put(crops(number))
                if self._stop.is_set():
                    return
        except BaseException as error:  # it is raised where the batches are read
            self._put(error)

    def _put(self, item: Tensor | BaseException) -> None:
        while not self._stop.is_set():
            try:
                self._ready.put(item, timeout=0.1)
                return
            except queue.Full:
                continue
