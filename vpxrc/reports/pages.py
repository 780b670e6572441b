"""The HTML pages of a study and of a comparison of studies."""

import shlex
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from vpxrc.evaluation import comparison as comparisons
from vpxrc.evaluation.axes import results_by_clip, title
from vpxrc.evaluation.comparison import Comparison
from vpxrc.evaluation.result import Clip, Evaluation
from vpxrc.evaluation.tables import of_agent, table
from vpxrc.reports import html
from vpxrc.reports.html import Page
from vpxrc.reports.plots import MAX_CHOICES, bd_rate_plot, constraint_plot, frames_plots, rd_plots
from vpxrc.reports.style import middle_target, policy_colours
from vpxrc.reports.viewer import viewed_clips

BD_RATE_WORDS = (
    "Bars are means over clips, with 95 % intervals. Dots are single clips. Negative means fewer "
    "bits at equal quality."
)


def write_html(evaluation: Evaluation, clips: Sequence[Clip] = ()) -> None:
    """Write ``report.html``, a page that needs no other file and no network.

    Args:
        evaluation: The study.
        clips: Clips of the study. The viewer shows the source frames of these only.

    Raises:
        InputError: A clip cannot be read.
        EncoderError: A stream cannot be decoded.
        OutputError: The file cannot be written.
    """
    summary, encodes = evaluation.summary, evaluation.encodes
    agent, baseline = summary["agent"], next(iter(summary["baselines"]))
    page = Page(f"{agent} against {', '.join(summary['baselines'])}")
    page.section("Result", html.markdown(table(evaluation)))
    judged = of_agent(evaluation)
    _add_clips(page, encodes, judged)
    _add_curves(page, encodes, evaluation.comparisons)
    page.plots(
        f"BD-rate of {agent}",
        "",
        {"": [bd_rate_plot(judged, "anchor", policy_colours(encodes))]},
        BD_RATE_WORDS,
    )
    _add_constraint(page, encodes)
    target = middle_target(summary)
    page.plots(
        "Frame by frame",
        "Clip",
        frames_plots(evaluation, target, (agent, baseline)),
        f"All coded frames at a target of {target} kbit/s. An alternate reference frame (ARF) is "
        "drawn at the time at which it is shown. PSNR compares the coded frame with the source "
        "frame of that time.",
    )
    viewed, words = viewed_clips(evaluation, target, (agent, baseline), clips)
    page.viewer("Decoded frames", viewed, words)
    page.section("How it was made", *_how_it_was_made(evaluation))
    page.write(evaluation.folder / "report.html")


def write_comparison(comparison: "Comparison", path: Path, command: Sequence[str]) -> None:
    """Write a page of several studies side by side, as :func:`write_html` does for one.

    Args:
        comparison: The studies.
        path: The file.
        command: The command that makes the page, program and arguments; the page quotes it.

    Raises:
        OutputError: The file cannot be written.
    """
    page = Page(", ".join(study.name for study in comparison.studies))
    page.section("Result", html.markdown(comparisons.table(comparison)))
    _add_clips(page, comparison.encodes, comparison.comparisons)
    _add_curves(page, comparison.encodes, comparison.comparisons)
    colours = policy_colours(comparison.encodes)
    by_anchor = comparison.comparisons.groupby("anchor", sort=False)
    page.plots(
        "BD-rate",
        "Against",
        {str(anchor): [bd_rate_plot(rows, "test", colours)] for anchor, rows in by_anchor},
        BD_RATE_WORDS,
    )
    _add_constraint(page, comparison.encodes)
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
    page.section(
        "How it was made",
        html.code(shlex.join(command)),
        html.table([heading, *rows], "the studies"),
        html.details("Clips that all studies have, with checksums", _clips(comparison.encodes)),
        html.details("Streams, with checksums", _streams(comparison.encodes)),
    )
    page.write(path)


# Sections of both pages


def _add_clips(page: Page, encodes: pd.DataFrame, comparisons: pd.DataFrame) -> None:
    page.section(
        "Every clip",
        html.paragraph(f"The kind of each clip, and its {title(comparisons)}."),
        html.details("Table", html.markdown(results_by_clip(encodes, comparisons))),
    )


def _add_curves(page: Page, encodes: pd.DataFrame, comparisons: pd.DataFrame) -> None:
    clips = list(dict.fromkeys(encodes["clip"]))
    words = "The text below a plot gives the clip's BD-rates; negative means fewer bits."
    if len(clips) > MAX_CHOICES:
        words += f" The menu has the first {MAX_CHOICES} of {len(clips)} clips."
    page.plots("Quality over bitrate", "Clip", rd_plots(encodes, comparisons), words)


def _add_constraint(page: Page, encodes: pd.DataFrame) -> None:
    page.plots(
        "Achieved over target bitrate",
        "",
        {"": [constraint_plot(encodes)]},
        "Each dot is an encode. The grey band is within 5 % of the target.",
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
    return html.table([["clip", "size", "fps", "frames", "SHA-256 of the frames"], *rows], "clips")


def _streams(encodes: pd.DataFrame) -> str:
    columns = ["clip", "policy", "target_bitrate", "stream_sha256"]
    heading = ["clip", "policy", "target (kbit/s)", "SHA-256 of the stream"]
    return html.table([heading, *encodes[columns].to_numpy().tolist()], "streams")


def _how_it_was_made(evaluation: Evaluation) -> list[str]:
    summary = evaluation.summary
    versions = summary.get("versions", {"libvpx": summary["libvpx"]})
    command = summary.get("command")
    return [
        html.code(command) if command else html.paragraph("The command was not recorded."),
        html.table([["program", "version"], *versions.items()], "versions"),
        html.details("Clips, with checksums", _clips(evaluation.encodes)),
        html.details("Streams, with checksums", _streams(evaluation.encodes)),
    ]
