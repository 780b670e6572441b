"""What the lambda per superblock is worth, q being the same: a table, and a row per encode.

python -m benchmarks.lambda_ablation ../shared/clips/eval --out docs/results/lambda-ablation

libvpx's VBR with six layers of alternate reference frames chooses the q of every frame once, with
its own TPL lambda; the rows then code all frames at those q indices and differ in lambda alone.
"""

import argparse
import dataclasses
import json
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.fit import more_bits
from vpxrc import Decision, EncodeLog, EncoderOptions, Policy, UpdateType, Video, encode
from vpxrc.cli.common import progress_bar
from vpxrc.datasets import load_clips
from vpxrc.dependency import Dependency, Version, analyse, modelled
from vpxrc.encoder.quantizer import MULTI_LAYER
from vpxrc.encoder.types import Frame
from vpxrc.evaluation.bd_rate import bd_rate, mean_ci95
from vpxrc.evaluation.result import Clip
from vpxrc.policies.base import Episode
from vpxrc.policies.libvpx import libvpx_vbr_mlarf
from vpxrc.quality import METRICS, QUALITIES, measure, summarize
from vpxrc.storage import atomic_write

BITRATES = (128, 192, 256, 384)  # kbit/s
ROWS = ("off", "libvpx", "source", "reconstructed", "reconstructed, all layers")
ANCHOR = "libvpx"


class SameQ(Policy):
    """Takes the q of a log, and lambda from one of the rows."""

    def __init__(self, log: EncodeLog, row: str) -> None:
        self._q = {
            (int(r["show_index"]), bool(r["is_shown"])): int(r["q_index"]) for r in log.coded
        }
        self._row = row
        self.strangers = 0  # frames that the log does not have

    def options(self, options: EncoderOptions) -> EncoderOptions:
        return dataclasses.replace(options, auto_alt_ref=MULTI_LAYER, tpl=self._row != "off")

    def begin(self, episode: Episode) -> None:
        self._episode = episode
        self._group_index = -1
        self._dependency: Dependency | None = None
        self.strangers = 0

    def _q_of(self, show_index: int, is_shown: bool) -> int | None:
        return self._q.get((show_index, is_shown), self._q.get((show_index, not is_shown)))

    def decide(self, frame: Frame) -> Decision:
        q = self._q_of(frame.show_index, frame.is_shown)
        if q is None:
            self.strangers += 1
            q = frame.libvpx_q_index
        scale = None
        everywhere = self._row.endswith("all layers")
        version: Version | None = None
        if self._row not in ("off", "libvpx"):
            version = "source" if self._row == "source" else "reconstructed"
        # libvpx's own scale is for the base layer; the frames after it are the rest.
        if version and frame.takes_superblock_scale and (everywhere or frame.layer_depth <= 1):
            if frame.group_index != self._group_index:
                self._group_index = frame.group_index
                self._model(version)
            place = int(self._places[frame.group_position])
            if self._dependency is not None and place >= 0:
                scale = self._dependency.superblock_scale(place)
        return Decision(q, superblock_scale=scale)

    def _model(self, version: Version) -> None:
        group, video = self._episode.group, self._episode.video
        coded, self._places, references = modelled(group, video.num_frames)
        shown = [int(show) for show in group.show_index[coded]]
        logged = [
            self._q_of(show, kind != UpdateType.ARF)
            for show, kind in zip(shown, group.update_type[coded], strict=True)
        ]
        usual = int(np.median(list(self._q.values())))
        q = [max(usual if one is None else one, 1) for one in logged]
        self._dependency = None
        if len(coded) >= 2:
            self._dependency = analyse(video, shown, references, q, version=version)


def run(clip: Clip, bitrate: int) -> list[dict[str, Any]]:
    video: Video = clip.open()
    options = EncoderOptions(target_bitrate=bitrate)
    log = encode(video, options, libvpx_vbr_mlarf())
    results = []
    for row in ROWS:
        policy = SameQ(log, row)
        coded = encode(video, options, policy)
        quality = summarize(
            measure(coded.options.decode(coded.stream, coded.clip), video, METRICS),
            video.width,
            video.height,
        )
        results.append(
            {
                "clip": clip.name,
                "row": row,
                "target_bitrate": bitrate,
                "bitrate": coded.bitrate,
                **quality,
                "strangers": policy.strangers,
                "cpu_seconds": coded.cpu_seconds,
            }
        )
    return results


def compare(encodes: pd.DataFrame) -> pd.DataFrame:
    """BD-rate of every row against libvpx's own lambda, per clip and quality."""
    rows = []
    curves = {key: curve for key, curve in encodes.groupby(["row", "clip"])}
    for row in ROWS:
        for clip in dict.fromkeys(encodes["clip"]):
            test, anchor = curves[row, clip], curves[ANCHOR, clip]
            for quality in QUALITIES:
                result = bd_rate(anchor["bitrate"], anchor[quality], test["bitrate"], test[quality])
                rows.append(
                    {"row": row, "clip": clip, "quality": quality, "percent": result.percent}
                )
    return pd.DataFrame(rows)


def tables(comparisons: pd.DataFrame) -> str:
    def cell(values: pd.Series) -> str:
        figures = mean_ci95(values.dropna().astype(float))
        assert figures.ci95, "no value to average"
        low, high = figures.ci95
        return f"{figures.mean:+.2f} ({figures.median:+.2f}) [{low:+.2f}, {high:+.2f}]"

    lines = [
        "BD-rate in percent against libvpx's own TPL lambda, "
        f"{comparisons['clip'].nunique()} clips, targets {', '.join(map(str, BITRATES))} kbit/s, "
        "cpu-used 2, the q indices of libvpx-vbr-mlarf in every row: mean (median) [95 % interval "
        "of the mean].",
        "",
        "| lambda | PSNR | overall PSNR | SSIM | VMAF |",
        "|---|---|---|---|---|",
    ]
    for row in ROWS:
        mine = comparisons[comparisons["row"] == row]
        cells = [cell(mine[mine["quality"] == quality]["percent"]) for quality in QUALITIES]
        lines.append(f"| {row} | {' | '.join(cells)} |")
    lines += ["", "Per clip, PSNR:", "", "| clip | " + " | ".join(ROWS) + " |", "|---" * 6 + "|"]
    psnr = comparisons[comparisons["quality"] == "psnr"]
    for clip in dict.fromkeys(psnr["clip"]):
        here = psnr[psnr["clip"] == clip].set_index("row")["percent"]
        lines.append(f"| {clip} | " + " | ".join(f"{here[row]:+.2f}" for row in ROWS) + " |")
    return "\n".join(lines) + "\n\n"


def per_target(encodes: pd.DataFrame) -> str:
    """Percent of bits more than libvpx's own lambda by target, mean over the clips."""
    lines = ["| PSNR at target | " + " | ".join(ROWS) + " |", "|---" * 6 + "|"]
    curves = {key: curve.to_dict("records") for key, curve in encodes.groupby(["row", "clip"])}
    clips = list(dict.fromkeys(encodes["clip"]))
    for at, target in enumerate(BITRATES):
        cells = []
        for row in ROWS:
            bits = [
                more_bits(curves[ANCHOR, clip], [curves[row, clip][at]], "psnr") for clip in clips
            ]
            cells.append(f"{np.mean([b for b in bits if b is not None]):+.2f}")
        lines.append(f"| {target} kbit/s | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips", help="a folder, a catalogue or a set of clips")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    clips = load_clips(arguments.clips)
    state = arguments.out / "encodes.json"
    done: dict[str, list[dict[str, Any]]] = json.loads(state.read_text()) if state.is_file() else {}
    with (
        ProcessPoolExecutor(arguments.jobs, mp_context=get_context("spawn")) as pool,
        progress_bar(hidden=False) as bar,
    ):
        wanted = {f"{clip.name} {rate}": (clip, rate) for clip in clips for rate in BITRATES}
        futures = {pool.submit(run, *job): key for key, job in wanted.items() if key not in done}
        task = bar.add_task("encoding", total=len(wanted), completed=len(wanted) - len(futures))
        for future in as_completed(futures):
            done[futures[future]] = future.result()
            with atomic_write(state) as temporary:
                temporary.write_text(json.dumps(done, indent=1))
            bar.advance(task)
    encodes = pd.DataFrame([row for key in wanted for row in done[key]])
    text = tables(compare(encodes)) + per_target(encodes)
    with atomic_write(arguments.out / "table.md") as temporary:
        temporary.write_text(text)
    print(text)
    print(f"frames that the logged encode does not have: {encodes['strangers'].sum()}")


if __name__ == "__main__":
    main()
