"""Seconds per megapixel and peak memory of learned codecs, on one thread.

python -m benchmarks.codec_speed ../shared/images/kodak/kodim01.png

Every codec runs in a process of its own, with random weights or those of a checkpoint. Of its
seconds, ``network`` are those within PyTorch's modules, ``constriction`` those within the range
coder's library, and ``other`` the rest: tables, grids, pixels. The shares come from a profiled run,
the seconds from runs without profiling. Where the package compressai is installed, two of its
models run beside them, with random weights too.
"""

import argparse
import cProfile
import importlib.util
import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vpxrc.codecs.codec import Codec, load_codec
from vpxrc.codecs.papers import PAPERS
from vpxrc.codecs.pictures import read_picture

COMPRESSAI = ("bmshj2018-factorized", "mbt2018-mean")


#: What PyTorch calls modules by, as ``shares`` takes it.
MODULES = {("module.py", "_call_impl"): "network"}


def shares(
    work: Callable[[], object], parts: Mapping[tuple[str, str], str] = MODULES
) -> dict[str, float]:
    """Return the parts of a call's time.

    Args:
        work: The call.
        parts: By file and name of a function, the part that it is with all that it calls.
    """
    profile = cProfile.Profile()
    profile.runcall(work)
    found = dict.fromkeys([*parts.values(), "constriction"], 0.0)
    total = 0.0
    for one in profile.getstats():
        total += one.inlinetime
        if isinstance(one.code, str):  # a function in C
            if "RangeEncoder" in one.code or "RangeDecoder" in one.code:
                found["constriction"] += one.inlinetime
        elif part := parts.get((Path(one.code.co_filename).name, one.code.co_name)):
            found[part] += one.totaltime
    found = {part: seconds / total for part, seconds in found.items()}
    return {**found, "other": 1 - sum(found.values())}


def timed(work: Callable[[], object], repeats: int) -> float:
    """Return the median of a call's seconds, after a first call that does not count."""
    work()
    found = []
    for _ in range(repeats):
        begun = time.perf_counter()
        work()
        found.append(time.perf_counter() - begun)
    return statistics.median(found)


def measure(spec: str, picture_path: str, repeats: int) -> dict[str, Any]:
    """Return the figures of one codec."""
    torch.set_num_threads(1)
    picture = read_picture(picture_path)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    encode: Callable[[], object]
    decode: Callable[[], object]
    if spec.startswith("compressai:"):
        encode, decode = foreign(spec.partition(":")[2], picture)
    else:
        codec = ours(spec)
        data = codec.compress(picture).data

        def encode() -> object:
            return codec.compress(picture)

        def decode() -> object:
            return codec.decompress(data)

    megapixels = picture.shape[0] * picture.shape[1] / 1e6
    result: dict[str, Any] = {"codec": spec}
    for name, work in (("encode", encode), ("decode", decode)):
        result[f"{name}_seconds_per_megapixel"] = timed(work, repeats) / megapixels
        if not spec.startswith("compressai:"):
            result[f"{name}_shares"] = shares(work)
    after = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {**result, "peak_megabytes": after / 1024, "of_these_before_the_codec": before / 1024}


def ours(spec: str) -> Codec:
    """Return a codec from a checkpoint, or one with random weights."""
    if Path(spec).is_file():
        return load_codec(spec)
    from benchmarks.codec_roundtrip import lively

    return lively(spec)


def foreign(name: str, picture: np.ndarray) -> tuple[Callable[[], object], Callable[[], object]]:
    """Return encoding and decoding by a model of CompressAI in its lowest width."""
    # It is measured where somebody has installed it, and is no dependency.
    from compressai.zoo import image_models  # type: ignore[import-not-found]

    model = image_models[name](quality=1, pretrained=False).eval()
    model.update(force=True)
    x = torch.from_numpy(picture.transpose(2, 0, 1).copy())[None].float() / 255
    with torch.no_grad():
        coded = model.compress(x)

    def encode() -> object:
        with torch.no_grad():
            return model.compress(x)

    def decode() -> object:
        with torch.no_grad():
            return model.decompress(coded["strings"], coded["shape"])

    return encode, decode


def main(arguments: list[str] | None = None) -> None:
    """Run the command; a line of JSON for each codec."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("picture", help="a picture whose sides are multiples of 128")
    parser.add_argument("--codec", nargs="*", help="names or checkpoints")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.one:
        print(json.dumps(measure(given.one, given.picture, given.repeats)), flush=True)
        return
    specs = given.codec or [f"{name}/small" for name in PAPERS if name != "multirate-distortion"]
    if not given.codec and importlib.util.find_spec("compressai"):
        specs += [f"compressai:{name}" for name in COMPRESSAI]
    for spec in specs:
        command = [sys.executable, "-m", "benchmarks.codec_speed", given.picture, "--one", spec]
        subprocess.run([*command, "--repeats", str(given.repeats)], check=True)


if __name__ == "__main__":
    main()
