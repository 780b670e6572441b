"""`vpxrc encode --target` against a bisection over the levels of libvpx's Q mode.

python -m benchmarks.quality_target samples --out docs/results/quality-target

For every clip and target: the score that was reached, the encodes that it took, and the bits, over
those that the Q mode with all layers takes for the same score. The bisection looks for the coarsest
of the 64 levels that reaches the target. Its bits at our score are interpolated between that level
and the next coarser one. What is done is kept after every clip, so the same command goes on where
it was.
"""

import argparse
import dataclasses
import functools
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from vpxrc import EncodeLog, EncoderOptions, QualityTarget, Video, encode
from vpxrc.cli.common import DEFAULT_POLICY, progress_bar
from vpxrc.datasets import Clip, load_clips
from vpxrc.encoder.first_pass import first_pass_stats, first_pass_table
from vpxrc.encoder.quantizer import MULTI_LAYER
from vpxrc.errors import InputError
from vpxrc.parallel import open_workers
from vpxrc.policies.libvpx import LibvpxVbr
from vpxrc.provenance import causes
from vpxrc.quality import measure, summarize
from vpxrc.storage import atomic_write, digest
from vpxrc.transcoding.chunks import ChunkedEncode, encode_by
from vpxrc.transcoding.pipeline import MAX_ENCODES
from vpxrc.transcoding.target import first_bitrate, reach

SCORES = {"vmaf": (80.0, 88.0, 95.0), "ssim": (0.93, 0.96, 0.98)}
LEVELS = 64


class OneLevel(LibvpxVbr):
    """One level of libvpx's Q mode with all layers, as ``libvpx-q-mlarf`` tries it."""

    def __init__(self, level: int) -> None:
        super().__init__(MULTI_LAYER)
        self._level = level

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options in Q mode."""
        layered = super().options(options)
        return dataclasses.replace(layered, rate_control="q", cq_level=self._level)


def point(log: EncodeLog, video: Video) -> dict[str, float]:
    frames = measure(log.options.decode(log.stream, log.clip), video, list(SCORES))
    return {"bitrate": log.bitrate, **summarize(frames, video.width, video.height)}


def ours(video: Video, options: EncoderOptions, target: QualityTarget, policy: str) -> Any:
    """Return the result of the search as ``vpxrc encode --target`` does it."""
    stats = first_pass_table(first_pass_stats(video, options))
    start = first_bitrate(target, video.format, stats)
    asked = dataclasses.replace(options, target_bitrate=start)
    job = ChunkedEncode(video, asked, functools.partial(encode_by, policy))
    job.run()
    try:
        tries = reach(job, video, target, MAX_ENCODES, threads=1)
    except InputError as error:
        return {"error": str(error)}
    kept = next(one for one in tries if one.target_bitrate == job.log.options.target_bitrate)
    return {
        "score": kept.score,
        "bitrate": kept.bitrate,
        "encodes": sum(one.encodes for one in tries),
        "tries": [dataclasses.asdict(one) for one in tries],
    }


def bisection(
    at_level: Callable[[int], dict[str, float]], target: QualityTarget
) -> dict[str, Any] | None:
    """Return the coarsest level that reaches a target; None where the finest does not.

    Args:
        at_level: Gives the bitrate and the qualities at a level, 0 (finest) to 63.
        target: The quality asked for.
    """
    low, high, tried = 0, LEVELS - 1, set()  # the answer is in here
    while low < high:
        level = (low + high + 1) // 2
        tried.add(level)
        if target.is_reached(at_level(level)[target.quality]):
            low = level
        else:
            high = level - 1
    if not target.is_reached(at_level(low)[target.quality]):
        return None
    found = at_level(low)
    return {
        "level": low,
        "score": found[target.quality],
        "bitrate": found["bitrate"],
        "encodes": len(tried | {low}),
        "levels": [
            {"bitrate": found["bitrate"], "score": found[target.quality]}
            for found in map(at_level, range(low, min(low + 2, LEVELS)))
        ],
    }


def bits_at(levels: list[dict[str, float]], score: float, target: QualityTarget) -> float | None:
    """Return the bitrate at a score on the line through two levels, of log rate over decibels."""
    if len(levels) < 2 or levels[0]["score"] <= levels[1]["score"]:
        return None
    fine, coarse = ((target.decibels(one["score"]), math.log(one["bitrate"])) for one in levels)
    slope = (fine[1] - coarse[1]) / (fine[0] - coarse[0])
    return math.exp(coarse[1] + slope * (target.decibels(score) - coarse[0]))


def run(job: tuple[Clip, str, int]) -> list[dict[str, Any]]:
    """Return a row for each target of a clip."""
    clip, policy, cpu_used = job
    video, options = clip.open(), EncoderOptions(cpu_used=cpu_used)

    @functools.cache
    def at_level(level: int) -> dict[str, float]:
        return point(encode(video, options, OneLevel(level)), video)

    rows = []
    for quality, scores in SCORES.items():
        for score in scores:
            target = QualityTarget(quality, score)
            mine, theirs = ours(video, options, target, policy), bisection(at_level, target)
            bits = None
            if theirs is not None and "error" not in mine:
                same = bits_at(theirs["levels"], mine["score"], target)
                bits = None if same is None else 100 * (mine["bitrate"] / same - 1)
            row = {"quality": quality, "asked": score, "ours": mine, "bisection": theirs}
            rows.append({**row, "more_bits": bits})
    return rows


def table(found: dict[str, list[dict[str, Any]]], policy: str, cpu_used: int) -> str:
    """Return means by quality, and a line for every target, in Markdown."""
    lines = [
        f"`--target` with {policy}, cpu-used {cpu_used}, against a bisection over the levels of "
        "libvpx's Q mode with all layers (`libvpx-q-mlarf`). `more bits` is at the same score.",
        "",
        "| quality | targets | within the tolerance | reached | mean excess | encodes | encodes of "
        "the bisection | its mean excess | more bits, mean | worst |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    rows = [{"clip": clip, **row} for clip, mine in found.items() for row in mine]
    for quality in SCORES:
        mine = [row for row in rows if row["quality"] == quality]
        done = [row for row in mine if "error" not in row["ours"]]
        both = [row for row in done if row["bisection"] is not None]
        targets = [QualityTarget(quality, row["asked"]) for row in done]
        scores = [row["ours"]["score"] for row in done]
        met = sum(target.is_met(one) for target, one in zip(targets, scores, strict=True))
        reached = sum(target.is_reached(one) for target, one in zip(targets, scores, strict=True))
        more = [row["more_bits"] for row in both if row["more_bits"] is not None]
        cells = [
            f"{len(mine)}",
            f"{met}",
            f"{reached}",
            _mean([row["ours"]["score"] - row["asked"] for row in done], ".4f"),
            _mean([row["ours"]["encodes"] for row in done], ".1f"),
            _mean([row["bisection"]["encodes"] for row in both], ".1f"),
            _mean([row["bisection"]["score"] - row["asked"] for row in both], ".4f"),
            _mean(more, "+.1f"),
            f"{max(more):+.1f}" if more else "-",
        ]
        lines.append(f"| {quality} | {' | '.join(cells)} |")
    lines += [
        "",
        "| clip | target | score | encodes | kbit/s | bisection: score | encodes | kbit/s "
        "| more bits |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for row in rows:
        cells = [row["clip"], f"{row['quality']}={row['asked']:g}"]
        for result in (row["ours"], row["bisection"]):
            if result is None or "error" in result:
                cells += ["not reached", "-", "-"]
            else:
                cells += [f"{result['score']:.5g}", f"{result['encodes']}"]
                cells += [f"{result['bitrate']:.1f}"]
        cells.append("-" if row["more_bits"] is None else f"{row['more_bits']:+.1f} %")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _mean(values: list[float], form: str) -> str:
    return format(float(np.mean(values)), form) if values else "-"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", nargs="+", help="files, folders and sets")
    parser.add_argument("--policy", default=DEFAULT_POLICY)
    parser.add_argument("--cpu-used", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    clips = load_clips(arguments.clips)
    policy, cpu_used = arguments.policy, arguments.cpu_used
    key = digest([causes(policy, "libvpx-q-mlarf", metrics=list(SCORES)), cpu_used])
    kept = arguments.out / "encodes.json"
    state: dict[str, Any] = {"key": key, "clips": {}}
    if kept.exists():
        state = json.loads(kept.read_text())
    if state["key"] != key:
        parser.error(f"{kept} is of other code or settings: remove it, or choose another --out")
    found = state["clips"]
    missing = [(clip, policy, cpu_used) for clip in clips if clip.name not in found]
    with progress_bar(hidden=False) as bar, open_workers(arguments.jobs) as workers:
        task = bar.add_task("clips", total=len(clips), completed=len(clips) - len(missing))
        for (clip, *_), rows in workers.unordered(run, missing):
            found[clip.name] = rows
            with atomic_write(kept) as temporary:
                temporary.write_text(json.dumps(state, indent=1, sort_keys=True) + "\n")
            bar.update(task, advance=1)
    text = table({clip.name: found[clip.name] for clip in clips}, policy, cpu_used)
    with atomic_write(arguments.out / "table.md") as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
