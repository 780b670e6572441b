"""What rate-distortion optimised quantisation saves in a gained codec, against plain rounding.

python -m benchmarks.codec_rdoq ../shared/images/kodak --out build/codec-rdoq

Every picture is coded both ways at eight qualities, with real files. The BD-rate is that of plain
rounding's curve of mean PSNR over mean bits per pixel. Rows that are there already are not measured
again.
"""

import argparse
import json
import time
from pathlib import Path

import pandas as pd
import torch

from vpxrc.cli.common import progress_bar
from vpxrc.codecs.bitstream import CodedPicture, pack
from vpxrc.codecs.codec import Codec, load_codec, replicate
from vpxrc.codecs.model import from_pixels
from vpxrc.codecs.papers.gained import Gained
from vpxrc.codecs.picture_quality import psnr
from vpxrc.codecs.pictures import Pixels, find_pictures, read_picture, to_unit
from vpxrc.codecs.rate_distortion import DEFAULT_QUALITIES
from vpxrc.codecs.zoo import checkpoint
from vpxrc.errors import InputError
from vpxrc.evaluation.bd_rate import bd_rate
from vpxrc.storage import atomic_write, digest, sha256_file


@torch.no_grad()
def rounded(codec: Codec, picture: Pixels, quality: float) -> bytes:
    """Return the file of a picture whose latent is rounded to the nearest whole numbers."""
    model = codec.model
    if not isinstance(model, Gained):
        raise InputError(f"{codec.spec} is not of the codec gained")
    height, width = picture.shape[:2]
    pixels = replicate(torch.from_numpy(picture.transpose(2, 0, 1).copy()), model.multiple)
    y = model.analysis(from_pixels(pixels)) * model.gain(torch.tensor([quality]))
    streams, _ = model.latent.coder().encode(y)
    return pack(CodedPicture(codec.identity[:8], width, height, round(quality * 65535), streams))


def measure(codec: Codec, path: Path) -> list[dict[str, float | str]]:
    """Return a row for each way and quality."""
    picture = read_picture(path)
    rows: list[dict[str, float | str]] = []
    for quality in DEFAULT_QUALITIES:
        for way in ("rounded", "optimised"):
            begun = time.process_time()
            if way == "rounded":
                data = rounded(codec, picture, quality)
            else:
                data = codec.compress(picture, quality).data
            seconds = time.process_time() - begun
            decoded = codec.decompress(data)
            rows.append(
                {
                    "picture": path.name,
                    "quality": quality,
                    "way": way,
                    "bpp": 8 * len(data) / (picture.shape[0] * picture.shape[1]),
                    "psnr": float(psnr(to_unit(picture), to_unit(decoded))),
                    "seconds": seconds,
                }
            )
    return rows


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pictures", type=Path, nargs="+")
    parser.add_argument("--codec", default="gained-checkerboard-small")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    weights = checkpoint(given.codec)
    codec = load_codec(weights)
    rows = []
    with progress_bar(hidden=False) as bar:
        for path in bar.track(find_pictures(given.pictures)):
            kept = (
                given.out
                / "rows"
                / f"{digest([sha256_file(weights), sha256_file(path)])[:24]}.json"
            )
            if not kept.exists():
                with atomic_write(kept) as temporary:
                    temporary.write_text(json.dumps(measure(codec, path)))
            rows += json.loads(kept.read_text())
    table = pd.DataFrame(rows)
    means = table.groupby(["way", "quality"])[["bpp", "psnr", "seconds"]].mean()
    print(means.reset_index().to_string(index=False, float_format=lambda value: f"{value:.3f}"))
    curves = [means.loc[way] for way in ("rounded", "optimised")]
    found = bd_rate(*(curve[name] for curve in curves for name in ("bpp", "psnr")))
    times = table.groupby("way")["seconds"].median()
    print(f"BD-rate {found.percent:+.1f} %, time {times['optimised'] / times['rounded']:.2f} times")


if __name__ == "__main__":
    main()
