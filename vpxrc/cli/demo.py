"""The command ``demo``."""

from pathlib import Path
from typing import Annotated

import typer

from vpxrc.cli.common import CORES, DEFAULT_POLICY, Jobs
from vpxrc.cli.evaluate import run_study
from vpxrc.encoder.options import EncoderOptions
from vpxrc.evaluation.tables import table
from vpxrc.quality import METRICS

DEMO_BASELINES = ["libvpx-vbr", "libvpx-vbr-mlarf", "libvpx-q-mlarf"]
DEMO_BITRATES = [64, 96, 144, 216]


def demo(
    out: Annotated[Path, typer.Option(help="Folder for the results.")] = Path("build/demo"),
    agent: Annotated[
        str, typer.Option(metavar="SPEC", help="The policy: NAME or NAME:ARGUMENT.")
    ] = DEFAULT_POLICY,
    jobs: Jobs = CORES,
) -> None:
    """Compare a policy with libvpx on three sample clips.

    The sample clips are part of the installation. It takes a few minutes.

    \b
    Example:
      vpxrc demo --out /tmp/demo
    """  # noqa: D301 - typer wants the \b as it is
    print(
        f"{agent} drives libvpx frame by frame from Python, against libvpx's own rate control:\n"
        "three sample clips at four bitrates, which takes a few minutes on two cores.",
        flush=True,
    )
    evaluation = run_study(
        agent,
        DEMO_BASELINES,
        ["samples"],
        DEMO_BITRATES,
        out,
        EncoderOptions(),
        list(METRICS),
        jobs,
        ray=None,
        allow_training_clips=True,
        figures=False,
        hidden=False,
    )
    print()
    print(table(evaluation))
    print(
        "Three short clips prove little, as the intervals say: `vpxrc evaluate` takes any number\n"
        "of your own. BD-rate does not ask whether the bitrate was met; the second table does,\n"
        "and it says who searched for it with more than one encode.\n"
    )
    print(f"RD curves:                 {out / 'rd.png'}")
    print(f"q and bits of every frame: {out / 'frames.png'}")
    print(f"both, interactive:         {out / 'report.html'}")
