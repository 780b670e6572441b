"""Records of AV1's residuals for the benchmarks: of which pictures, and whether dav1d agrees."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image

from vpxrc.codecs.pictures import Pixels, read_picture
from vpxrc.codecs.residual_tool import record
from vpxrc.codecs.residuals import read_records

Q_INDICES = (32, 80, 128, 172, 220, 255)


def recorded(pictures: Sequence[Path], folder: Path, longest: int | None = None) -> list[Path]:
    """Return the records of pictures at all q indices; what is missing is made.

    Args:
        pictures: Their files.
        folder: Of the records.
        longest: The pixels of a side that pictures are downscaled to; None for as they are.
    """
    found = []
    for path in pictures:
        for q_index in Q_INDICES:
            target = folder / f"{path.stem}.q{q_index:03d}.residuals"
            if not target.exists():
                record(downscaled(read_picture(path), longest), q_index, target)
            found.append(target)
    return found


def downscaled(picture: Pixels, longest: int | None) -> Pixels:
    """Return a picture whose longer side has as many pixels, or itself; it does not get larger."""
    height, width = picture.shape[:2]
    if longest is None or longest >= max(height, width):
        return picture
    size = (
        round(width * longest / max(height, width)),
        round(height * longest / max(height, width)),
    )
    return np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.LANCZOS))


def large(pictures: Sequence[Path], longest: int | None) -> list[Path]:
    """Return the pictures from which downscaling washes out the traces of JPEG."""
    if longest is None:
        return list(pictures)
    found = []
    for path in pictures:
        with Image.open(path) as file:
            if max(file.size) >= 1.5 * longest:
                found.append(path)
    return found


def checked(paths: Sequence[Path]) -> dict[str, int]:
    """Return how many records there are, and how many agree with themselves and with dav1d.

    Reading a file checks that prediction and residual are the reconstruction of each block, and
    putting it together that each sample is in one block.
    """
    blocks = samples = equal = 0
    for path in paths:
        records = read_records(path)
        decoder: Any = av.CodecContext.create("libdav1d", "r")
        frames = [*decoder.decode(av.Packet(records.stream)), *decoder.decode(None)]
        same = []
        for number, plane in enumerate(frames[0].planes):
            rows = np.frombuffer(plane, np.uint8).reshape(-1, plane.line_size)
            found = records.put_together(records.reconstructions, number)
            same.append(np.array_equal(rows[: plane.height, : plane.width], found))
        equal += all(same)
        blocks += len(records.blocks)
        samples += len(records.sources)
    return {"files": len(paths), "blocks": blocks, "samples": samples, "equal_to_dav1d": equal}


def spread(paths: Sequence[Path], count: int) -> list[Path]:
    """Return a number of files from all of them, in equal distances."""
    return list(paths[:: max(len(paths) // count, 1)][:count])
