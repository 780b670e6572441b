"""What each part of the imitation agent is worth: a table, and a row per encode.

python -m benchmarks.imitation_ablation ../shared/clips/eval --pixels 57600 \
    --without-refinement FILE --without-auxiliary FILE --without-dependency-inputs FILE \
    --out docs/results/imitation-ablation

The three files are trained by ``vpxrc train`` as the shipped one, but on the first round of lessons
alone, with ``--no-auxiliary`` and with ``--no-dependency-inputs``. Clips are scaled to about
``--pixels`` so that all rows are affordable; quality is libvpx's own count of squared errors.
"""

import argparse
import dataclasses
import json
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from vpxrc import EncoderOptions, Policy, encode
from vpxrc.agents.imitation import imitation, imitation_prior
from vpxrc.agents.imitation.policy import PARAMETERS
from vpxrc.agents.teacher.lessons import scaled
from vpxrc.cli.common import progress_bar
from vpxrc.datasets import Clip, load_clips
from vpxrc.evaluation.bd_rate import bd_rate, mean_ci95
from vpxrc.parallel import open_workers
from vpxrc.policies.dependency import DependencyPolicy
from vpxrc.policies.libvpx import libvpx_vbr, libvpx_vbr_mlarf
from vpxrc.storage import atomic_write

QUALITIES = ("psnr", "psnr_overall")
ANCHOR = "libvpx-vbr"


# libvpx's own lambda scale per superblock; the network's factors per frame stay.
WITHOUT_LAMBDA = dataclasses.replace(PARAMETERS, superblock_strength=0.0)


def policies(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the rows' policies, each as something that makes one."""
    return {
        ANCHOR: libvpx_vbr,
        "libvpx-vbr-mlarf": libvpx_vbr_mlarf,
        "imitation": imitation,
        "without refinement": partial(imitation, arguments.without_refinement),
        "without auxiliary losses": partial(imitation, arguments.without_auxiliary),
        "without dependency inputs": partial(imitation, arguments.without_dependency_inputs),
        "without lambda": partial(imitation, parameters=WITHOUT_LAMBDA),
        "without run-time controller": partial(imitation, follows_budget=False),
        "without network (imitation-prior)": imitation_prior,
        "dependency": DependencyPolicy,
    }


def run(job: tuple[str, Any, Clip, int]) -> dict[str, Any]:
    name, make, clip, bitrate = job
    policy: Policy = make()
    log = encode(clip.open(), EncoderOptions(target_bitrate=bitrate), policy)
    figures = {quality: getattr(log, quality) for quality in QUALITIES}
    return {
        "policy": name,
        "clip": clip.name,
        "target_bitrate": bitrate,
        "bitrate": log.bitrate,
        "overshoot": log.overshoot,
        **figures,
    }


def table(encodes: pd.DataFrame) -> str:
    lines = [
        "| row | PSNR | overall PSNR | over by > 5 % | within 5 % |",
        "| --- | --- | --- | --- | --- |",
    ]
    curves = dict(list(encodes.groupby(["policy", "clip"])))
    for name, mine in encodes.groupby("policy", sort=False):
        if name == ANCHOR:
            continue
        cells = []
        for quality in QUALITIES:
            found = []
            for clip in dict.fromkeys(encodes["clip"]):
                theirs, ours = curves[ANCHOR, clip], curves[name, clip]
                result = bd_rate(theirs["bitrate"], theirs[quality], ours["bitrate"], ours[quality])
                if result.percent is not None:
                    found.append(result.percent)
            figures = mean_ci95(found)
            assert figures.ci95, "no curve has a BD-rate"
            low, high = figures.ci95
            cells.append(f"{figures.mean:+.2f} ({figures.median:+.2f}) [{low:+.2f}, {high:+.2f}]")
        over = mine["overshoot"]
        shares = (100 * (over > 0.05).mean(), 100 * (over.abs() <= 0.05).mean())
        lines.append(f"| {name} | {' | '.join(cells)} | {shares[0]:.0f} % | {shares[1]:.0f} % |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("clips")
    parser.add_argument("--pixels", type=int, default=57_600)
    parser.add_argument("--bitrates", default="52,78,104,156", help="kbit/s")
    for name in ("refinement", "auxiliary", "dependency-inputs"):
        parser.add_argument(f"--without-{name}", required=True, help="a checkpoint")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    clips = [scaled(clip, arguments.pixels) for clip in load_clips(arguments.clips)]
    rates = [int(rate) for rate in arguments.bitrates.split(",")]
    made = policies(arguments)
    jobs = [(n, make, clip, rate) for n, make in made.items() for clip in clips for rate in rates]
    rows = {}
    with progress_bar(hidden=False) as bar, open_workers(arguments.jobs) as workers:
        task = bar.add_task("encodes", total=len(jobs))
        for (name, _, clip, rate), row in workers.unordered(run, jobs):
            rows[name, clip.name, rate] = row
            bar.update(task, advance=1)
    encodes = pd.DataFrame([rows[name, clip.name, rate] for name, _, clip, rate in jobs])
    text = (
        f"BD-rate in percent against {ANCHOR}, {len(clips)} clips of about {arguments.pixels} "
        f"pixels at {arguments.bitrates} kbit/s, cpu-used 2: mean (median) [95 % interval of the "
        f"mean].\n\n{table(encodes)}\n"
    )
    with atomic_write(arguments.out / "encodes.json") as temporary:
        temporary.write_text(json.dumps(encodes.to_dict("records"), indent=1) + "\n")
    with atomic_write(arguments.out / "table.md") as temporary:
        temporary.write_text(text)
    print(text)


if __name__ == "__main__":
    main()
