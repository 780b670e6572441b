"""Fit the weights by which the policy ``constant-quality`` foresees the bits of a clip.

``python -m benchmarks.fit_rate_model train train2 --every 2 --out build/rate_model.json``

Each clip is encoded at two targets; every third one at a second size and every sixth one at a
third. Of each encode the command keeps what the probe and the first pass show, and log2 of the bits
that the frames really took over the probe's bits. A ridge regression whose large errors count less
gives the weights; each clip's error is that of a fit without it. Killed at any point, the same
command goes on.
"""

import argparse
import dataclasses
import json
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vpxrc.agents.teacher.lessons import scaled
from vpxrc.datasets import Clip, load_clips
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import EncoderError
from vpxrc.parallel import open_workers
from vpxrc.policies.base import encode
from vpxrc.policies.constant_quality import constant_quality
from vpxrc.policies.rate_model import features
from vpxrc.storage import atomic_write

BITS = (0.05, 0.13)  # per sample, at 30 frames per second and fewer
# Luma samples of a frame, about; the factor on the bits per sample, which is lower for larger
# frames of equal quality; and how many of the clips, every N-th, are encoded at that size.
SIZES = ((36864, 1.0, 1), (92160, 0.65, 3), (230400, 0.4, 6))
RIDGE = 1.0
USUAL_ERROR = 0.3  # log2; larger errors count less


@dataclasses.dataclass(frozen=True)
class Job:
    """An encode: a clip, its size in samples and its target in bits per sample."""

    clip: Clip
    pixels: int
    bits: float

    @property
    def key(self) -> str:
        """Name in the file of results."""
        return f"{self.clip.name} {self.pixels} {self.bits}"


def observe(job: Job) -> tuple[list[float], float]:
    """Return the features of a clip, and log2 of its bits over the probe's at four times its area.

    The ratio is of all frames but key frames, both at the base of the probe.
    """
    video = scaled(job.clip, job.pixels).open()
    pixels = video.width * video.height
    target = max(2, round(job.bits * pixels * min(float(video.fps), 30) / 1000))
    policy = constant_quality()
    log = encode(video, EncoderOptions(target_bitrate=target), policy)
    if policy.is_left:
        return [], float("nan")  # libvpx coded it
    seen = features(policy.probe, log.first_pass, pixels, float(video.fps))
    octaves = np.log2(pixels / policy.probe.pixels) / 2
    return seen.tolist(), float(policy.budget.other_ratio / max(octaves, 0.5))


def fit(seen: NDArray[np.float64], ratio: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return weights of the features, float64 ``[features]``.

    Args:
        seen: Features, float64 ``[encodes, features]``; the first is 1 throughout.
        ratio: What they are to give, float64 ``[encodes]``.
    """
    penalty = RIDGE * np.eye(seen.shape[1])
    penalty[0, 0] = 0.0
    trust = np.ones(len(ratio))
    for _ in range(5):
        normal = seen.T @ (seen * trust[:, None]) + penalty
        weights = np.asarray(np.linalg.solve(normal, seen.T @ (trust * ratio)), dtype=np.float64)
        error = np.abs(ratio - seen @ weights)
        trust = np.asarray(1.0 / np.maximum(1.0, error / USUAL_ERROR), dtype=np.float64)
    return weights


def left_out_error(
    seen: NDArray[np.float64], ratio: NDArray[np.float64], names: NDArray[np.str_]
) -> float:
    """Return the root mean square error on clips that a fit has not seen, log2."""
    errors = []
    for name in np.unique(names):
        others = names != name
        errors.extend(ratio[~others] - seen[~others] @ fit(seen[others], ratio[others]))
    return float(np.sqrt(np.mean(np.square(errors))))


def main() -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", help="sets, folders or files")
    parser.add_argument("--every", type=int, default=1, help="take every N-th clip only")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True, help="file of the results, JSON")
    asked = parser.parse_args()
    clips = [clip for spec in asked.clips for clip in load_clips(spec)][:: asked.every]
    jobs = [
        Job(clip, pixels, bits * factor)
        for pixels, factor, every in SIZES
        for clip in clips[::every]
        for bits in BITS
    ]
    kept = json.loads(asked.out.read_text())["encodes"] if asked.out.exists() else {}
    missing = [job for job in jobs if job.key not in kept]
    with open_workers(asked.jobs) as workers:
        for job, result in workers.unordered(observe, missing):
            kept[job.key] = result
            _write(asked.out, {"encodes": kept})
            print(f"{len(kept)} of {len(jobs)}: {job.key}", flush=True)
    rows = [(job.clip.name, *kept[job.key]) for job in jobs]
    rows = [row for row in rows if np.isfinite(row[2])]
    if not rows:
        raise EncoderError("no encode has frames that are no key frames")
    names = np.array([row[0] for row in rows])
    seen, ratio = np.array([row[1] for row in rows]), np.array([row[2] for row in rows])
    weights = [round(float(weight), 3) for weight in fit(seen, ratio)]
    error = left_out_error(seen, ratio, names)
    _write(asked.out, {"encodes": kept, "weights": weights, "left_out_error": error})
    print(f"{len(rows)} encodes, left-out error {error:.3f} (log2), weights {weights}")


def _write(path: Path, content: object) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content))


if __name__ == "__main__":
    main()
