"""Whether learned codecs decode what they encode, and refuse what is damaged.

python -m benchmarks.codec_roundtrip ../shared/images/kodak --pictures 3 --streams 2000

Every codec in its small width, with random weights or those of checkpoints, codes pictures and
sizes from 1x1 to 1023x767. A process of its own decodes the files with another number of threads.
The result has to be the encoder's own reconstruction, bit for bit. Then damaged files are decoded:
flipped bits, lost and added bytes, swapped parts, and streams that were changed under a right
checksum. Each has to be an error of the package, or for the last kind a picture, in time.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from vpxrc.codecs.bitstream import pack, unpack
from vpxrc.codecs.codec import (
    Codec,
    Compressed,
    Region,
    load_codec,
    read_checkpoint,
    save_checkpoint,
)
from vpxrc.codecs.model import VariableModel
from vpxrc.codecs.papers import PAPERS, build
from vpxrc.codecs.pictures import Pixels, find_pictures, read_picture
from vpxrc.errors import VpxrcError

SIZES = ((1, 1), (1, 300), (255, 2), (17, 33), (64, 64), (65, 129), (1023, 767))  # width, height
SLOW = 60.0  # seconds for one decoding, which count as hanging
DECODE = """
import sys
import numpy as np, torch
torch.set_num_threads(int(sys.argv[1]))
from pathlib import Path
from vpxrc.codecs.codec import load_codec
codec = load_codec(sys.argv[2])
for path in sorted(Path(sys.argv[3]).glob("*.vlc")):
    np.save(path.with_suffix(".npy"), codec.decompress(path.read_bytes()))
"""


def lively(spec: str) -> Codec:
    """Return a codec of random weights whose latents have many values."""
    torch.manual_seed(1)
    model = build(spec)
    convolutions = [one for one in model.analysis.modules() if isinstance(one, torch.nn.Conv2d)]
    last = [one for one in convolutions if one.stride == (2, 2)][-1]
    # An importance map makes values small.
    gain = 200.0 if spec.startswith("asymmetric") else 25.0
    with torch.no_grad():
        last.weight.mul_(4.0 if isinstance(model, VariableModel) else gain)
    return Codec(model, spec)


def sized(source: Pixels, width: int, height: int) -> Pixels:
    """Return the picture's corner, repeated where it is too small."""
    times = -(-height // source.shape[0]), -(-width // source.shape[1]), 1
    return np.ascontiguousarray(np.tile(source, times)[:height, :width])


def round_trip(checkpoint: Path, pictures: dict[str, Pixels], threads: int) -> dict[str, object]:
    """Code pictures here, decode them in another process, and compare."""
    codec = load_codec(checkpoint)
    wrong, sizes = [], {}
    with tempfile.TemporaryDirectory() as folder:
        kept = {}
        for name, picture in pictures.items():
            for suffix, result in _coded(codec, picture):
                kept[name + suffix], sizes[name + suffix] = result.picture, len(result.data)
                Path(folder, f"{name}{suffix}.vlc").write_bytes(result.data)
        arguments = [str(threads), str(checkpoint), folder]
        subprocess.run([sys.executable, "-c", DECODE, *arguments], check=True)
        for name, picture in kept.items():
            if not np.array_equal(np.load(Path(folder, f"{name}.npy")), picture):
                wrong.append(name)
    return {"pictures": len(kept), "bytes": sizes, "different": wrong}


def _coded(codec: Codec, picture: Pixels) -> Iterator[tuple[str, Compressed]]:
    """Yield a coded picture, and where the codec has regions, one with its left half as such."""
    yield "", codec.compress(picture)
    if codec.model.has_regions:
        mask = np.zeros(picture.shape[:2], np.bool_)
        mask[:, : picture.shape[1] // 2] = True
        yield "-region", codec.compress(picture, region=Region(mask, 8.0))


def mutations(data: bytes, rng: np.random.Generator) -> Iterator[tuple[str, bytes]]:
    """Yield damaged files without end, each with the kind of its damage."""
    coded = unpack(data)
    while True:
        kind = ("flip", "cut", "add", "drop", "swap", "stream")[rng.integers(6)]
        changed, place = bytearray(data), int(rng.integers(len(data)))
        if kind == "flip":
            changed[place] ^= 1 << int(rng.integers(8))
        elif kind == "cut":
            del changed[place:]
        elif kind == "add":
            changed[place:place] = rng.bytes(int(rng.integers(1, 9)))
        elif kind == "drop":
            del changed[place : place + int(rng.integers(1, 9))]
        elif kind == "swap":
            changed = changed[place:] + changed[:place]
        else:
            streams = [bytearray(stream) for stream in coded.streams]
            stream = streams[rng.integers(len(streams))]
            for _ in range(int(rng.integers(1, 5))):
                if stream:
                    stream[rng.integers(len(stream))] = int(rng.integers(256))
            changed = bytearray(pack(replace(coded, streams=[bytes(one) for one in streams])))
        if changed != data:
            yield kind, bytes(changed)


def damage(codec: Codec, picture: Pixels, count: int, seed: int) -> dict[str, object]:
    """Decode damaged files; whatever is no error of the package ends the program."""
    rng = np.random.default_rng(seed)
    made = [mutations(coded.data, rng) for _, coded in _coded(codec, picture)]
    errors, decoded, slowest = 0, 0, 0.0
    for number in range(count):
        kind, data = next(made[number % len(made)])
        begun = time.perf_counter()
        try:
            codec.decompress(data)
        except VpxrcError:
            errors += 1
        else:
            if kind != "stream":
                raise AssertionError(f"a file with the damage {kind!r} was decoded")
            decoded += 1
        slowest = max(slowest, time.perf_counter() - begun)
    if slowest > SLOW:
        raise AssertionError(f"a damaged file took {slowest:.0f} s")
    return {
        "damaged": count,
        "errors": errors,
        "decoded_under_a_right_checksum": decoded,
        "slowest_seconds": slowest,
    }


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 where a picture came back different."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("images", type=Path, nargs="+", help="pictures, or folders of them")
    parser.add_argument("--pictures", type=int, default=2, help="how many are coded as they are")
    parser.add_argument("--streams", type=int, default=2000, help="damaged files, of all codecs")
    parser.add_argument("--codec", nargs="*", help="names or checkpoints; all with random weights")
    parser.add_argument("--threads", type=int, default=3, help="of the other process")
    parser.add_argument("--sizes", default=",".join(f"{w}x{h}" for w, h in SIZES))
    given = parser.parse_args(arguments)
    found = find_pictures(given.images)
    source = read_picture(found[0])
    pictures = {path.stem: read_picture(path) for path in found[: given.pictures]}
    for size in filter(None, given.sizes.split(",")):
        width, height = map(int, size.split("x"))
        pictures[size] = sized(source, width, height)
    names = given.codec or [f"{name}/small" for name in PAPERS]
    results: dict[str, object] = {}
    different = False
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            path = Path(name)
            if not path.is_file():
                path = Path(folder, f"{name.replace('/', '-')}.safetensors")
                save_checkpoint(path, lively(name).model, name, {})
            spec = read_checkpoint(path)[1]["codec"]
            result = {"codec": spec, **round_trip(path, pictures, given.threads)}
            share = -(-given.streams // len(names))
            result |= damage(load_codec(path), sized(source, 40, 24), share, len(results))
            different |= bool(result["different"])
            results[name] = result
            print(json.dumps(result), flush=True)
    return int(different)


if __name__ == "__main__":
    sys.exit(main())
