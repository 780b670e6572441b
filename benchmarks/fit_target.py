"""The rule by which `vpxrc encode --target` chooses its first bitrate, fitted on training clips.

python -m benchmarks.fit_target ../shared/clips/train2/*.mp4 --out docs/results/quality-target/start

Every clip is encoded at five bitrates and measured. Least squares give log2 of the bits per pixel
from the quality in decibels and from the first pass's errors of inter and of intra prediction. The
error of the rule is that on a clip that was left out of the fit.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from vpxrc import EncoderOptions, encode, make_policy, open_video
from vpxrc.encoder.first_pass import first_pass_stats, first_pass_table
from vpxrc.quality import measure, summarize
from vpxrc.storage import atomic_write
from vpxrc.transcoding.target import QualityTarget, first_pass_errors

BITS_PER_PIXEL = (0.01, 0.025, 0.06, 0.15, 0.4)
# Scores that users ask for; beyond them more bits hardly change a score.
RANGES = {"vmaf": (60, 99), "ssim": (0.8, 0.995), "psnr": (27, 48), "psnr_overall": (27, 48)}
CLIP_ERROR = "first-pass errors"


def measured(path: Path, policy: str, cpu_used: int) -> dict[str, Any]:
    """Return a clip's first-pass errors, and bits per pixel and qualities of its encodes."""
    video = open_video(path)
    pixels = video.width * video.height * float(video.fps)
    points = []
    for bits in BITS_PER_PIXEL:
        target = max(1, round(bits * pixels / 1000))
        options = EncoderOptions(target, cpu_used)
        log = encode(video, options, make_policy(policy))
        frames = measure(options.decode(log.stream, log.clip), video)
        qualities = summarize(frames, video.width, video.height)
        points.append({"bits_per_pixel": 1000 * target / pixels, **qualities})
    stats = first_pass_table(first_pass_stats(video, options))
    return {CLIP_ERROR: first_pass_errors(stats), "points": points}


def rows(
    found: dict[str, dict[str, Any]], quality: str
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.int64]]:
    """Return what the rule looks at, log2 of the bits per pixel, and the number of the clip."""
    low, high = RANGES[quality]
    chosen = [
        (
            [1.0, QualityTarget(quality, low).decibels(point[quality]), *clip[CLIP_ERROR]],
            np.log2(point["bits_per_pixel"]),
            number,
        )
        for number, clip in enumerate(found.values())
        for point in clip["points"]
        if low <= point[quality] <= high
    ]
    inputs, octaves, numbers = zip(*chosen, strict=True)
    return np.array(inputs), np.array(octaves), np.array(numbers)


def fit(inputs: NDArray[np.float64], octaves: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the least-squares rule."""
    return np.asarray(np.linalg.lstsq(inputs, octaves, rcond=None)[0])


def table(found: dict[str, dict[str, Any]], policy: str, cpu_used: int) -> str:
    """Return the rules and their errors in Markdown."""
    lines = [
        f"Rules for the first bitrate of `--target`, fitted on {len(found)} training clips "
        f"({policy}, cpu-used {cpu_used}): log2 of the bits per pixel is the sum of the numbers, "
        "each times what its column names. The error, in octaves of the bitrate, is that on a clip "
        "left out of the fit, root mean square; the last column has it for a rule of the first two "
        "columns alone.",
        "",
        "| quality | 1 | decibels | log2 inter error | log2 intra error | error | error without |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for quality in RANGES:
        inputs, octaves, numbers = rows(found, quality)
        rule = fit(inputs, octaves)
        errors = []
        for columns in (4, 2):
            missed = []
            for number in set(numbers.tolist()):
                mine = numbers == number
                other = fit(inputs[~mine, :columns], octaves[~mine])
                missed += (octaves[mine] - inputs[mine, :columns] @ other).tolist()
            errors.append(float(np.sqrt(np.mean(np.square(missed)))))
        cells = [*(f"{number:.3f}" for number in rule), *(f"{error:.2f}" for error in errors)]
        lines.append(f"| `{quality}` | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", type=Path)
    parser.add_argument("--policy", default="libvpx-vbr-mlarf")
    parser.add_argument("--cpu-used", type=int, default=4)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    kept = arguments.out / "encodes.json"
    found: dict[str, dict[str, Any]] = json.loads(kept.read_text()) if kept.exists() else {}
    for path in arguments.clips:
        if path.stem not in found:
            found[path.stem] = measured(path, arguments.policy, arguments.cpu_used)
            with atomic_write(kept) as temporary:
                temporary.write_text(json.dumps(found, indent=1) + "\n")
    chosen = {path.stem: found[path.stem] for path in arguments.clips}
    text = table(chosen, arguments.policy, arguments.cpu_used)
    with atomic_write(arguments.out / "table.md") as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
