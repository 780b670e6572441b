"""Choose a policy's parameters on training clips: coordinate search, JSON out.

python -m benchmarks.fit dependency ../shared/clips/train --every 8 \
    --out benchmarks/fit_dependency.json
python -m benchmarks.fit layered ../shared/clips/train --every 11 --out build/fit_layered.json

At the clips' own sizes: parameters found on proxies of 256x144 pixels start too fine on 640x360.
Every value tried is kept in the output, so the same command goes on where it was. (fit_layered.json
is of an earlier form of this search, which scored by BD-rate at four targets.)
"""

import argparse
import dataclasses
import json
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np

from vpxrc import EncoderOptions, Policy, encode, open_video
from vpxrc.datasets import load_clips
from vpxrc.evaluation import bd_rate
from vpxrc.policies.dependency import DependencyPolicy
from vpxrc.policies.layered import Layered, LayeredParameters
from vpxrc.policies.libvpx import libvpx_vbr
from vpxrc.policies.step_models import DependencyParameters
from vpxrc.storage import atomic_write

ANCHOR_BITRATES = (128, 192, 256, 384)  # kbit/s, of libvpx-vbr
BITRATES = (160, 320)  # between them: two tell as much as four at half the price
FAR = 20.0  # percent; a clip that is further off counts as much
QUALITIES = ("psnr", "psnr_overall")
POLICIES: dict[str, tuple[type, Callable[[Any], Policy]]] = {
    "layered": (LayeredParameters, Layered),
    "dependency": (DependencyParameters, lambda values: DependencyPolicy(parameters=values)),
}
# In the order in which they are searched, from the defaults.
CANDIDATES: dict[str, list[tuple[str, list[Any]]]] = {
    "layered": [
        ("start_step", [0.9, 0.4]),
        ("key_reach", [64.0, 128.0]),
        ("key_step", [2.5, 2.0]),
        ("arf_step", [(1.5, 0.5, 0.4, 0.3), (1.9, 0.55, 0.4, 0.3)]),
        ("prior", [10.0, 20.0]),
    ],
    "dependency": [
        ("tail_weight", [0.25, 0.15, 0.35, 0.5]),
        ("key_strength", [1.0, 1.2, 1.4]),
        ("arf_strength", [1.0, 0.85, 1.15]),
        ("leaf_lambda", [1.0, 1.2, 0.85]),
        ("provisional", [1.0, 0.5, 0.0]),
        ("arf_strength", [1.0, 1.15]),
        ("superblock_strength", [0.7, 1.0, 0.4]),
        ("complexity", [0.25, 0.4]),
        ("inner_strength", [1.0, 0.7, 1.3]),
        ("arf_lambda", [1.0, 1.2, 0.85]),
        ("leaf_strength", [1.0, 0.5]),
        ("key_lambda", [1.0, 0.85, 1.2]),
        ("group_move", [0.5, 0.25]),
        ("tail", [3, 6]),
    ],
}

Point = dict[str, float]


def points(policy: Policy, path: str, bitrates: tuple[int, ...]) -> list[Point]:
    """Achieved bitrate, qualities and overshoot per target."""
    video = open_video(path)
    logs = [encode(video, EncoderOptions(target_bitrate=rate), policy) for rate in bitrates]
    return [
        {"bitrate": log.bitrate, "overshoot": log.overshoot}
        | {quality: getattr(log, quality) for quality in QUALITIES}
        for log in logs
    ]


def anchor(path: str) -> list[Point]:
    return points(libvpx_vbr(), path, ANCHOR_BITRATES)


def tried(name: str, values: dict[str, Any], path: str) -> list[Point]:
    parameters, policy = POLICIES[name]
    return points(policy(parameters(**values)), path, BITRATES)


def more_bits(curve: list[Point], mine: list[Point], quality: str) -> float | None:
    """Percent of bits more than the anchor at the qualities reached, at most ``FAR`` either way."""
    curves = [
        [point[name] for point in of] for of in (curve, mine) for name in ("bitrate", quality)
    ]
    more = bd_rate.more_bits(*curves)
    return None if more is None else float(np.clip(more, -FAR, FAR))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("policy", choices=POLICIES)
    parser.add_argument("clips", help="a set or a folder of training clips")
    parser.add_argument("--every", type=int, default=8, help="take every n-th clip")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    paths = [str(clip.obtain().source) for clip in load_clips(arguments.clips)[:: arguments.every]]
    report: dict[str, Any] = {"anchors": {}, "tried": {}}
    if arguments.out.is_file():
        report = json.loads(arguments.out.read_text())

    def keep(best: Any) -> None:
        report["clips"] = [Path(path).name for path in paths]
        report["best"] = dataclasses.asdict(best)
        with atomic_write(arguments.out) as temporary:
            temporary.write_text(json.dumps(report, indent=1))

    best = POLICIES[arguments.policy][0]()
    with ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool:
        if not report["anchors"]:
            found = pool.map(anchor, paths)
            report["anchors"] = dict(zip((Path(path).name for path in paths), found, strict=True))
            keep(best)

        def score(parameters: Any) -> float:
            """Mean percent of bits over both qualities, plus 10 per part of encodes 5 % over."""
            values = dataclasses.asdict(parameters)
            key = json.dumps(values)
            if key not in report["tried"]:
                names = [arguments.policy] * len(paths)
                curves = list(pool.map(tried, names, [values] * len(paths), paths))
                bits = {
                    quality: [
                        more_bits(report["anchors"][Path(path).name], mine, quality)
                        for path, mine in zip(paths, curves, strict=True)
                    ]
                    for quality in QUALITIES
                }
                overshoot = np.array([[point["overshoot"] for point in mine] for mine in curves])
                report["tried"][key] = {
                    **{
                        name: np.mean([b for b in of if b is not None]) for name, of in bits.items()
                    },
                    "overshoot_5pct": float(np.mean(overshoot > 0.05)),
                    "within_5pct": float(np.mean(np.abs(overshoot) <= 0.05)),
                    "per_clip": bits,
                }
                keep(best)
            result = report["tried"][key]
            mean = float(np.mean([result[quality] for quality in QUALITIES]))
            return mean + 10 * float(result["overshoot_5pct"])

        for name, candidates in CANDIDATES[arguments.policy]:
            options = [dataclasses.replace(best, **{name: value}) for value in candidates]
            scores = [score(option) for option in options]
            best = options[int(np.argmin(scores))]
            print(name, list(zip(candidates, np.round(scores, 2), strict=True)), flush=True)
            keep(best)


if __name__ == "__main__":
    main()
