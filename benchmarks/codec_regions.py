"""What a region of interest gains in a learned codec, and what the rest pays, at equal bytes.

python -m benchmarks.codec_regions ../shared/images/kodak --masks ../shared/images/roi \\
    --out build/codec-regions

Each picture is coded at a quality without a region, and then with the region at most as many bytes,
found by bisection. PSNR inside, outside and of the whole picture are those of the decoded file,
mean over the pictures; the worst picture is the one whose region gains least. A mask has the
picture's name. Rows that are there already are not measured again.
"""

import argparse
import json
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpxrc.cli.common import progress_bar
from vpxrc.codecs.bitstream import unpack
from vpxrc.codecs.codec import Codec, Region, compress_to_size, load_codec
from vpxrc.codecs.pictures import Pixels, find_pictures, read_picture
from vpxrc.codecs.zoo import checkpoint
from vpxrc.media.masks import RegionSpec
from vpxrc.storage import atomic_write, digest, sha256_file

WEIGHTS = (1.0, 3.0, 10.0, 30.0)
QUALITIES = (0.15, 0.5)
PARTS = ("inside", "outside", "whole")


def psnrs(x: Pixels, y: Pixels, mask: NDArray[np.bool_]) -> dict[str, float]:
    """Return the PSNR inside and outside of a region and of the whole picture, in dB."""
    squares = np.square(x.astype(np.float64) - y).mean(2)
    errors = squares[mask].mean(), squares[~mask].mean(), squares.mean()
    return {
        part: float(10 * np.log10(255**2 / error))
        for part, error in zip(PARTS, errors, strict=True)
    }


def measure(codec: Codec, path: Path, mask: Path) -> list[dict[str, float | str]]:
    """Return a row for each quality and weight."""
    picture = read_picture(path)
    height, width = picture.shape[:2]
    inside = RegionSpec.parse([str(mask)]).mask(width, height)
    rows: list[dict[str, float | str]] = []
    for quality in QUALITIES:
        plain = codec.compress(picture, quality)
        for weight in WEIGHTS:
            coded, map_bytes = plain, 0
            if weight > 1:
                coded = compress_to_size(
                    codec, picture, len(plain.data), lambda *_: None, Region(inside, weight)
                )
                map_bytes = len(unpack(coded.data).streams[0])
            decoded = codec.decompress(coded.data)
            rows.append(
                {
                    "picture": path.name,
                    "area": float(inside.mean()),
                    "quality": quality,
                    "weight": weight,
                    "bytes": len(coded.data),
                    "map_bytes": map_bytes,
                    **psnrs(picture, decoded, inside),
                }
            )
    return rows


def summarised(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means by quality and weight, as differences in dB to the picture without a region."""
    plain = rows[rows["weight"] == 1].set_index(["quality", "picture"])
    keyed = rows.set_index(["quality", "picture"])
    for part in PARTS:
        keyed[part] -= plain[part].reindex(keyed.index)
    keyed["bytes_percent"] = 100 * (keyed["bytes"] / plain["bytes"].reindex(keyed.index) - 1)
    keyed["map_percent"] = 100 * keyed["map_bytes"] / keyed["bytes"]
    groups = keyed.reset_index().groupby(["quality", "weight"])
    means = groups[[*PARTS, "bytes_percent", "map_percent"]].mean()
    means["worst_inside"] = groups["inside"].min()
    found: pd.DataFrame = means.reset_index()
    return found


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--masks", type=Path, required=True, help="folder of masks")
    parser.add_argument("--codec", default="gained-small")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    masks = {path.stem: path for path in sorted(given.masks.iterdir())}
    pictures = [path for path in find_pictures(given.pictures) if path.stem in masks]
    weights = checkpoint(given.codec)
    codec = load_codec(weights)
    rows = []
    with progress_bar(hidden=False) as bar:
        for path in bar.track(pictures):
            mask = masks[path.stem]
            name = digest([sha256_file(one) for one in (weights, path, mask)])[:24]
            kept = given.out / "rows" / f"{name}.json"
            if not kept.exists():
                with atomic_write(kept) as temporary:
                    temporary.write_text(json.dumps(measure(codec, path, mask)))
            rows += json.loads(kept.read_text())
    table = pd.DataFrame(rows)
    table.to_csv(given.out / "pictures.csv", index=False, float_format="%.4f")
    means = summarised(table)
    means.to_csv(given.out / "means.csv", index=False, float_format="%.3f")
    print(means.to_string(index=False, float_format=lambda value: f"{value:.2f}"))


if __name__ == "__main__":
    main()
