"""What a region of interest gains in a learned codec, and what the rest pays, at equal bytes.

python -m benchmarks.codec_regions ../shared/images/kodak --masks ../shared/images/roi \\
    --out build/codec-regions

The first codec codes each picture at a quality without a region. Every codec then codes it with at
most as many bytes, found by bisection, without and with the region. PSNR inside, outside and of the
whole picture are those of the decoded file, mean over the pictures; the worst picture is the one
whose region gains least. A mask has the picture's name. Rows that are there already are not
measured again.
"""

import argparse
import json
from collections.abc import Sequence
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

PARTS = ("inside", "outside", "whole")


def psnrs(x: Pixels, y: Pixels, mask: NDArray[np.bool_]) -> dict[str, float]:
    """Return the PSNR inside and outside of a region and of the whole picture, in dB."""
    squares = np.square(x.astype(np.float64) - y).mean(2)
    errors = squares[mask].mean(), squares[~mask].mean(), squares.mean()
    return {
        part: float(10 * np.log10(255**2 / error))
        for part, error in zip(PARTS, errors, strict=True)
    }


def measure(
    codecs: dict[str, Codec],
    path: Path,
    mask: Path,
    qualities: Sequence[float],
    weights: Sequence[float],
) -> list[dict[str, float | str]]:
    """Return a row for each codec, quality and weight."""
    picture = read_picture(path)
    height, width = picture.shape[:2]
    inside = RegionSpec.parse([str(mask)]).mask(width, height)
    rows: list[dict[str, float | str]] = []
    for quality in qualities:
        first = next(iter(codecs.values())).compress(picture, quality)
        for name, codec in codecs.items():
            for weight in weights:
                region = Region(inside, weight) if weight > 1 else None
                coded = compress_to_size(codec, picture, len(first.data), lambda *_: None, region)
                streams = unpack(coded.data).streams
                rows.append(
                    {
                        "codec": name,
                        "picture": path.name,
                        "area": float(inside.mean()),
                        "quality": quality,
                        "weight": weight,
                        "bytes": len(coded.data),
                        "map_bytes": len(streams[0]) if len(streams) == 3 else 0,
                        **psnrs(picture, codec.decompress(coded.data), inside),
                    }
                )
    return rows


def summarised(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means by codec, quality and weight.

    PSNR is the difference in dB to the first codec without a region.
    """
    keyed = rows.set_index(["quality", "picture"])
    plain = keyed[(keyed["weight"] == 1) & (keyed["codec"] == rows["codec"].iloc[0])]
    for part in PARTS:
        keyed[part] -= plain[part].reindex(keyed.index)
    keyed["bytes_percent"] = 100 * (keyed["bytes"] / plain["bytes"].reindex(keyed.index) - 1)
    keyed["map_percent"] = 100 * keyed["map_bytes"] / keyed["bytes"]
    groups = keyed.reset_index().groupby(["codec", "quality", "weight"], sort=False)
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
    parser.add_argument("--codec", nargs="+", default=["gained-checkerboard-small"])
    parser.add_argument("--qualities", type=float, nargs="+", default=[0.15, 0.5])
    parser.add_argument("--weights", type=float, nargs="+", default=[3, 10, 30], help="above 1")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    masks = {path.stem: path for path in sorted(given.masks.iterdir())}
    pictures = [path for path in find_pictures(given.pictures) if path.stem in masks]
    checkpoints = {checkpoint(one).stem: checkpoint(one) for one in given.codec}
    codecs = {name: load_codec(path) for name, path in checkpoints.items()}
    settings = [given.qualities, given.weights, [sha256_file(one) for one in checkpoints.values()]]
    rows = []
    with progress_bar(hidden=False) as bar:
        for path in bar.track(pictures):
            mask = masks[path.stem]
            name = digest([settings, sha256_file(path), sha256_file(mask)])[:24]
            kept = given.out / "rows" / f"{name}.json"
            if not kept.exists():
                found = measure(codecs, path, mask, given.qualities, [1.0, *given.weights])
                with atomic_write(kept) as temporary:
                    temporary.write_text(json.dumps(found))
            rows += json.loads(kept.read_text())
    table = pd.DataFrame(rows)
    table.to_csv(given.out / "pictures.csv", index=False, float_format="%.4f")
    means = summarised(table)
    means.to_csv(given.out / "means.csv", index=False, float_format="%.3f")
    print(means.to_string(index=False, float_format=lambda value: f"{value:.2f}"))


if __name__ == "__main__":
    main()
