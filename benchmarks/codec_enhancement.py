"""From which rate on an enhancement layer is better than a finer base (claim S9-c).

python -m benchmarks.codec_enhancement ../shared/images/train --test ../shared/images/kodak \\
    --out build/codec-enhancement

The trained codec is the base. The enhancement layer codes what its decoded picture lacks, as in
``multirate``. It takes its statistics from crops of the first pictures. Each test picture is coded
with every base and every step of the layer, in real bytes. At each rate, the best base alone and
the best base with a layer are compared by the PSNR of their hulls over the pictures' means.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import torch

from vpxrc.cli.common import progress_bar
from vpxrc.codecs.codec import Codec, load_codec
from vpxrc.codecs.enhancement import (
    Enhancement,
    EnhancementCoder,
    coefficients,
    ideal_step,
    quantize,
)
from vpxrc.codecs.picture_quality import psnr
from vpxrc.codecs.pictures import Crops, PictureStore, Pixels, find_pictures, read_picture, to_unit
from vpxrc.codecs.zoo import checkpoint
from vpxrc.storage import atomic_write, digest, sha256_file

BASES = (0.0, 0.2, 0.4, 0.6, 0.8, 0.9, 1.0)  # qualities
LAMBDAS = tuple(0.004 * 2**n for n in range(9))  # 0.004 to 1, of the layer's step
CROP, BATCHES, BATCH = 128, 8, 4  # of the statistics
FITTED = (0.2, 0.6, 1.0)  # bases whose residuals are seen


def residual(picture: Pixels, decoded: Pixels) -> torch.Tensor:
    """Return what a decoded picture lacks, ``[3, H, W]``, in levels of 8 bits."""
    difference = picture.astype(np.float64) - decoded
    return torch.from_numpy(np.ascontiguousarray(difference.transpose(2, 0, 1)))


def fitted(codec: Codec, pictures: Sequence[Path]) -> EnhancementCoder:
    """Return a layer with the statistics of residuals of crops, at all steps."""
    crops = Crops(PictureStore(pictures), CROP, BATCH, 0)

    def blocks() -> Iterator[torch.Tensor]:
        for number in range(BATCHES):
            for crop in crops(number).numpy().transpose(0, 2, 3, 1):
                for quality in FITTED:
                    found = coefficients(residual(crop, codec.compress(crop, quality).picture))
                    for weight in LAMBDAS:
                        yield quantize(found, ideal_step(weight))

    model = Enhancement()
    with torch.no_grad():
        model.fit(blocks())
    return model.coder()


def measure(codec: Codec, layer: EnhancementCoder, path: Path) -> list[dict[str, float]]:
    """Return a row for each base alone, and for each base with each step."""
    picture = read_picture(path)
    sides = [side - side % 64 for side in picture.shape[:2]]
    picture = np.ascontiguousarray(picture[: sides[0], : sides[1]])
    height, width, _ = picture.shape
    pixels = height * width
    rows = []
    for quality in BASES:
        coded = codec.compress(picture, quality)
        lacking = residual(picture, coded.picture)
        rows.append(_row(quality, 0.0, 8 * len(coded.data) / pixels, picture, coded.picture))
        for weight in LAMBDAS:
            stream, added = layer.encode(lacking, ideal_step(weight))
            decoded = layer.decode(stream, height, width, ideal_step(weight))
            assert torch.equal(decoded, added)
            sums = coded.picture + decoded.numpy().transpose(1, 2, 0)
            whole = sums.round().clip(0, 255).astype(np.uint8)
            size = 8 * (len(coded.data) + len(stream)) / pixels
            rows.append(_row(quality, weight, size, picture, whole))
    return rows


def _row(quality: float, weight: float, bpp: float, x: Pixels, y: Pixels) -> dict[str, float]:
    level = float(psnr(to_unit(x), to_unit(y)))
    return {"base": quality, "lambda": weight, "bpp": bpp, "psnr": level}


def hull(points: pd.DataFrame) -> tuple[list[float], list[float]]:
    """Return rates and PSNRs of the points that no others are above."""
    found: list[tuple[float, float]] = []
    for rate, quality in sorted(zip(points["bpp"], points["psnr"], strict=True)):
        while len(found) > 1 and _is_below(found[-2], found[-1], (rate, quality)):
            found.pop()
        if not found or quality > found[-1][1]:
            found.append((rate, quality))
    return [rate for rate, _ in found], [quality for _, quality in found]


def _is_below(a: tuple[float, float], b: tuple[float, float], c: tuple[float, float]) -> bool:
    return (b[1] - a[1]) * (c[0] - a[0]) <= (c[1] - a[1]) * (b[0] - a[0])


def compared(means: pd.DataFrame) -> pd.DataFrame:
    """Return PSNRs by rate: of the base alone, and with the layer; NaN where there is none."""
    alone, layered = means[means["lambda"] == 0], means[means["lambda"] > 0]
    curves = {"base": hull(alone), "layered": hull(layered)}
    rates = sorted({*curves["base"][0], *curves["layered"][0]})
    table = pd.DataFrame({"bpp": rates})
    for name, (x, y) in curves.items():
        table[name] = np.interp(rates, x, y, left=np.nan, right=np.nan)
    table["gain"] = table["layered"] - table["base"]
    return table


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("train", type=Path, nargs="+", help="pictures for the statistics")
    parser.add_argument("--test", type=Path, nargs="+", required=True)
    parser.add_argument("--codec", default="gained-checkerboard-small", help="the base")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    codec = load_codec(checkpoint(given.codec))
    layer = fitted(codec, find_pictures(given.train))
    rows = []
    with progress_bar(hidden=False) as bar:
        for path in bar.track(find_pictures(given.test)):
            name = digest([BASES, LAMBDAS, codec.identity.hex(), sha256_file(path)])[:24]
            kept = given.out / "rows" / f"{name}.json"
            if not kept.exists():
                with atomic_write(kept) as temporary:
                    temporary.write_text(json.dumps(measure(codec, layer, path)))
            rows += json.loads(kept.read_text())
    means = pd.DataFrame(rows).groupby(["base", "lambda"]).mean().reset_index()
    table = compared(means)
    means.to_csv(given.out / "means.csv", index=False, float_format="%.4f")
    table.to_csv(given.out / "hulls.csv", index=False, float_format="%.4f")
    print(table.to_string(index=False, float_format=lambda value: f"{value:.3f}"))


if __name__ == "__main__":
    main()
