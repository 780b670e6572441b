"""Choose the parameters of the policy ``layered`` on training clips: coordinate search, JSON out.

python -m benchmarks.fit_layered ../shared/clips/train --every 11 --out benchmarks/fit_layered.json

At the clips' own sizes: parameters found on proxies of 256x144 pixels start too fine on 640x360.
Every value tried is kept in the output, so the same command goes on where it was.
"""

import argparse
import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from vpxrc import EncoderOptions, encode, open_video
from vpxrc.datasets import load_clips
from vpxrc.files import atomic_write
from vpxrc.layered import Layered, LayeredParameters
from vpxrc.metrics import bd_rate
from vpxrc.policies import libvpx_vbr

BITRATES = (128, 192, 256, 384)  # kbit/s
CANDIDATES: dict[str, list[Any]] = {
    "start_step": [0.9, 0.4],
    "key_reach": [64.0, 128.0],
    "key_step": [2.5, 2.0],
    "arf_step": [(1.5, 0.5, 0.4, 0.3), (1.9, 0.55, 0.4, 0.3)],
    "prior": [10.0, 20.0],
}


def curve(path: str, parameters: dict[str, Any] | None) -> list[tuple[float, float, float]]:
    """Achieved bitrate, PSNR and overshoot per target; libvpx-vbr without parameters."""
    video = open_video(path)
    points = []
    for bitrate in BITRATES:
        policy = Layered(LayeredParameters(**parameters)) if parameters else libvpx_vbr()
        log = encode(video, EncoderOptions(target_bitrate=bitrate), policy)
        points.append((log.bitrate, log.psnr, log.overshoot))
    return points


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", type=Path, help="folder of training clips")
    parser.add_argument("--every", type=int, default=11, help="take every n-th clip")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    paths = [str(clip.source) for clip in load_clips(arguments.clips)][:: arguments.every]
    done: dict[str, Any] = {}
    if arguments.out.is_file():
        done = json.loads(arguments.out.read_text())["tried"]

    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        anchors: list[list[tuple[float, float, float]]] = []

        def score(parameters: LayeredParameters) -> float:
            """Mean BD-rate in percent plus 10 per part of encodes that are 5 % over."""
            values = dataclasses.asdict(parameters)
            key = json.dumps(values)
            if key not in done:
                anchors[:] = anchors or pool.map(curve, paths, [None] * len(paths))
                curves = list(pool.map(curve, paths, [values] * len(paths)))
                rates = [
                    bd_rate(*zip(*((b, q) for b, q, _ in anchor), strict=True),
                            *zip(*((b, q) for b, q, _ in mine), strict=True)).percent
                    for anchor, mine in zip(anchors, curves, strict=True)
                ]  # fmt: skip
                overshoot = np.array([[o for _, _, o in mine] for mine in curves])
                usable = [rate for rate in rates if rate is not None]
                done[key] = {
                    "bd_rate": float(np.mean(usable)),
                    "clips_without": len(rates) - len(usable),
                    "overshoot_5pct": float(np.mean(overshoot > 0.05)),
                    "within_5pct": float(np.mean(np.abs(overshoot) <= 0.05)),
                }
                print(json.dumps(values), json.dumps(done[key]), flush=True)
            return done[key]["bd_rate"] + 10 * done[key]["overshoot_5pct"]

        best = LayeredParameters()
        for name, values in CANDIDATES.items():
            best = min((dataclasses.replace(best, **{name: value}) for value in values), key=score)
            report = {
                "clips": [Path(path).name for path in paths],
                "best": dataclasses.asdict(best),
                "tried": done,
            }
            with atomic_write(arguments.out) as temporary:
                temporary.write_text(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
