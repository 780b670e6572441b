"""The command ``evaluate``."""

import json
import shlex
import sys
from pathlib import Path
from typing import Annotated

import typer

from vpxrc.cli.common import (
    CORES,
    CpuUsed,
    EncoderSpec,
    Jobs,
    Json,
    gather_clips,
    numbers,
    progress_bar,
)
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.registry import make_options
from vpxrc.evaluation.result import Evaluation
from vpxrc.evaluation.study import evaluate as run_evaluation
from vpxrc.evaluation.tables import table
from vpxrc.quality import METRICS

ALL_METRICS = ",".join(METRICS)
Metrics = Annotated[
    str,
    typer.Option(
        help="Quality metrics to measure, of psnr, ssim and vmaf, and with --roi also roi_psnr: "
        "PSNR inside and outside of the region."
    ),
]
_Figures = Annotated[
    bool, typer.Option("--figures", help="Also write figures for papers to figures/, PDF and PNG.")
]
_Roi = Annotated[
    list[str] | None,
    typer.Option(
        "--roi",
        metavar="MASK|box:X,Y,W,H",
        help="A region of all clips for roi_psnr, as `vpxrc encode --roi` takes it.",
    ),
]
_RoiWeight = Annotated[
    float | None,
    typer.Option(
        metavar="R",
        help="Encode with the region under every policy, the baselines too: an error inside counts "
        "R times, above 1 and at most 64. By default no policy knows of the region.",
    ),
]


def evaluate(
    agent: Annotated[str, typer.Option(metavar="SPEC", help="The policy: NAME or NAME:ARGUMENT.")],
    baseline: Annotated[
        list[str], typer.Option(metavar="NAME", help="Another policy to compare with; repeatable.")
    ],
    clips: Annotated[
        list[str],
        typer.Option(
            metavar="PATH_OR_SET ...",
            help="Sets, video files, folders or catalogues; repeatable.",
        ),
    ],
    bitrates: Annotated[
        str, typer.Option(metavar="A,B,C,D", help="Target bitrates in kbit/s, four or more.")
    ],
    out: Annotated[
        Path, typer.Option(help="Folder for the results. Encodes that it has are not made again.")
    ],
    more_clips: Annotated[list[str] | None, typer.Argument(metavar="", hidden=True)] = None,
    encoder: EncoderSpec = "vp9",
    cpu_used: CpuUsed = 2,
    jobs: Jobs = CORES,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Encode on a Ray cluster, --jobs tasks at once: local (started here), auto "
            "(running here), HOST:PORT or ray://HOST:PORT. Its machines need vpxrc and the clips "
            "under the same paths.",
        ),
    ] = None,
    metrics: Metrics = ALL_METRICS,
    roi: _Roi = None,
    roi_weight: _RoiWeight = None,
    allow_training_clips: Annotated[
        bool,
        typer.Option(
            "--allow-training-clips", help="Accept clips that one of the policies was trained on."
        ),
    ] = False,
    figures: _Figures = False,
    as_json: Json = False,
) -> None:
    """Compare a policy with baselines at four bitrates or more.

    A command that was interrupted or killed continues where it was when it is run again.
    report.html in the folder has tables, plots and decoded frames, and needs no other file.

    \b
    Examples:
      vpxrc evaluate --agent layered --baseline libvpx-vbr --clips samples \\
        --bitrates 64,96,144,216 --out results
      vpxrc evaluate --agent layered --baseline libvpx-vbr --baseline libvpx-q-mlarf \\
        --clips folder/ film.mp4 --bitrates 128,192,256,384 --metrics psnr --figures --out results
      vpxrc evaluate --encoder learned:codec.safetensors --agent equal-slope --baseline layered \\
        --clips samples --bitrates 256,384,576,864 --out results
    """  # noqa: D301 - typer wants the \b as it is
    evaluation = run_study(
        agent,
        baseline,
        [*clips, *(more_clips or [])],
        numbers("bitrates", bitrates),
        out,
        make_options(encoder, cpu_used=cpu_used),
        metrics.split(","),
        jobs,
        ray,
        allow_training_clips,
        figures,
        hidden=as_json,
        roi=roi or None,
        roi_weight=roi_weight,
    )
    if as_json:
        print(json.dumps(evaluation.summary))
    else:
        print(table(evaluation))
        print(f"Everything is in {out}: report.html has the plots.")


def run_study(
    agent: str,
    baselines: list[str],
    clips: list[str],
    bitrates: list[int],
    out: Path,
    options: EncoderOptions,
    metrics: list[str],
    jobs: int,
    ray: str | None,
    allow_training_clips: bool,
    figures: bool,
    hidden: bool,
    roi: list[str] | None = None,
    roi_weight: float | None = None,
) -> Evaluation:
    """Run a study with a progress bar, and draw its pictures and its page."""
    found, left_out = gather_clips(clips, hidden)
    with progress_bar(hidden) as bar:
        task = bar.add_task("opening the clips", total=None)
        evaluation = run_evaluation(
            agent,
            baselines,
            found,
            bitrates,
            out,
            options=options,
            metrics=metrics,
            roi=roi,
            roi_weight=roi_weight,
            jobs=jobs,
            ray=ray,
            allow_training_clips=allow_training_clips,
            left_out=left_out,
            command=shlex.join(["vpxrc", *sys.argv[1:]]),
            progress=lambda done, total, last: bar.update(
                task, completed=done, total=total, description=last
            ),
        )
        from vpxrc import reports  # takes as long to import as all else together

        bar.update(task, description="drawing")
        reports.write_pictures(evaluation)
        reports.write_html(evaluation, found)
        if figures:
            reports.write_figures(evaluation)
    return evaluation
