"""The HTML pages of a study and of a comparison of studies."""

import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from vpxrc.evaluation.result import Clip, Evaluation
from vpxrc.evaluation.tables import table
from vpxrc.reports import html as page
from vpxrc.reports.html import Page
from vpxrc.reports.plots import bd_rate_plot, constraint_plot, frames_plots, rd_plots
from vpxrc.reports.style import MAX_CHOICES, middle_target, policy_colours
from vpxrc.reports.viewer import viewed_clips

if TYPE_CHECKING:
    from vpxrc.evaluation.comparison import Comparison


def write_html(evaluation: Evaluation, clips: Sequence[Clip] = ()) -> None:
    """Write ``report.html``, a page that needs no other file and no network.

    Args:
        evaluation: What it shows.
        clips: Where the viewer takes source frames from; it shows none of other clips.

    Raises:
        InputError: A clip cannot be read.
        EncoderError: A stream cannot be decoded.
        OutputError: The file cannot be written.
    """
    summary, encodes = evaluation.summary, evaluation.encodes
    agent, baseline = summary["agent"], next(iter(summary["baselines"]))
    made = Page(f"{agent} against {', '.join(summary['baselines'])}")
    made.section("Result", page.markdown(table(evaluation)))
    _add_curves(made, encodes, evaluation.comparisons)
    judged = evaluation.comparisons[evaluation.comparisons["test"] == agent]
    made.plots(
        f"BD-rate of {agent}",
        "",
        {"": [bd_rate_plot(judged, "anchor", policy_colours(encodes))]},
        "The bars are means over clips with their 95 % intervals, the dots single clips.",
    )
    _add_constraint(made, encodes)
    target = middle_target(summary)
    made.plots(
        "Frame by frame",
        "Clip",
        frames_plots(evaluation, target, (agent, baseline)),
        f"Coded frames at {target} kbit/s, alternate reference frames (ARF) where they are shown; "
        "PSNR is of the frame as coded, against the source frame of that time.",
    )
    viewed, words = viewed_clips(evaluation, target, (agent, baseline), clips)
    made.viewer("Pictures", viewed, words)
    made.section("How it was made", *_how_it_was_made(evaluation))
    made.write(evaluation.folder / "report.html")


def write_comparison(comparison: "Comparison", path: Path, command: Sequence[str]) -> None:
    """Write a page of several studies side by side, as :func:`write_html` does of one.

    Args:
        comparison: What it shows.
        path: The file.
        command: The program and its arguments that made it, for the page.

    Raises:
        OutputError: The file cannot be written.
    """
    from vpxrc.evaluation.comparison import table

    made = Page(", ".join(study.name for study in comparison.studies))
    made.section("Result", page.markdown(table(comparison)))
    _add_curves(made, comparison.encodes, comparison.comparisons)
    colours = policy_colours(comparison.encodes)
    by_anchor = comparison.comparisons.groupby("anchor", sort=False)
    made.plots(
        "BD-rate",
        "Against",
        {str(anchor): [bd_rate_plot(rows, "test", colours)] for anchor, rows in by_anchor},
        "The bars are means over clips with their 95 % intervals, the dots single clips.",
    )
    _add_constraint(made, comparison.encodes)
    heading = ["study", "agent", "clips", "targets (kbit/s)", "cpu-used", "libvpx", "made by"]
    rows = [
        [
            study.name,
            study.summary["agent"],
            len(study.summary["clips"]),
            ", ".join(map(str, study.summary["bitrates"])),
            study.summary["cpu_used"],
            study.summary["libvpx"],
            study.summary.get("command", "not recorded"),
        ]
        for study in comparison.studies
    ]
    made.section(
        "How it was made",
        page.code(shlex.join(command)),
        page.table([heading, *rows], "the studies"),
        page.details("Clips in all studies, by SHA-256", _clips(comparison.encodes)),
        page.details("Streams, by SHA-256", _streams(comparison.encodes)),
    )
    made.write(path)


# What both pages have


def _add_curves(made: Page, encodes: pd.DataFrame, comparisons: pd.DataFrame) -> None:
    clips = list(dict.fromkeys(encodes["clip"]))
    words = "The figures below a plot are the clip's BD-rates."
    if len(clips) > MAX_CHOICES:
        words += f" The first {MAX_CHOICES} of {len(clips)} clips."
    made.plots("Quality over bitrate", "Clip", rd_plots(encodes, comparisons), words)


def _add_constraint(made: Page, encodes: pd.DataFrame) -> None:
    made.plots(
        "Achieved over target bitrate",
        "",
        {"": [constraint_plot(encodes)]},
        "A dot per encode; within 5 % is grey.",
    )


def _clips(encodes: pd.DataFrame) -> str:
    rows = [
        [
            row["clip"],
            f"{row['width']}x{row['height']}",
            f"{row['fps']:.6g}",
            row["num_frames"],
            row["content_hash"],
        ]
        for row in encodes.drop_duplicates("clip").to_dict("records")
    ]
    return page.table([["clip", "size", "fps", "frames", "SHA-256 of the frames"], *rows], "clips")


def _streams(encodes: pd.DataFrame) -> str:
    columns = ["clip", "policy", "target_bitrate", "stream_sha256"]
    heading = ["clip", "policy", "target (kbit/s)", "SHA-256 of the stream"]
    return page.table([heading, *encodes[columns].to_numpy().tolist()], "streams")


def _how_it_was_made(evaluation: Evaluation) -> list[str]:
    summary = evaluation.summary
    versions = summary.get("versions", {"libvpx": summary["libvpx"]})
    command = summary.get("command")
    return [
        page.code(command) if command else page.paragraph("The command was not recorded."),
        page.table([["program", "version"], *versions.items()], "versions"),
        page.details("Clips, by SHA-256", _clips(evaluation.encodes)),
        page.details("Streams, by SHA-256", _streams(evaluation.encodes)),
    ]
