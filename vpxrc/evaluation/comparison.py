"""Finished studies side by side: folders that ``vpxrc evaluate`` has filled."""

import itertools
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from vpxrc.errors import InputError
from vpxrc.evaluation.tables import (
    CELL_WORDS,
    bd_rate_figures,
    compare_curves,
    constraint,
    encoders_of,
    evenness_means,
    tables,
)
from vpxrc.quality import REGION_QUALITIES, measured_qualities
from vpxrc.storage import parse_json, read_frame

MAX_NAMED = 3  # clips of a study that an error names


@dataclass(frozen=True)
class Study:
    """A finished evaluation, read again.

    Attributes:
        name: The folder's name, or its path if another study's folder has the same name.
        summary: Contents of ``summary.json``.
        encodes: As :attr:`vpxrc.evaluation.result.Evaluation.encodes`.
    """

    name: str
    summary: dict[str, Any]
    encodes: pd.DataFrame


@dataclass(frozen=True)
class Comparison:
    """Studies side by side, on the clips that all of them have.

    A policy that gave the same streams in several studies appears once. If the streams differ, the
    study's name is appended, as in ``dependency (second)``.

    Attributes:
        studies: The studies, in the order given.
        clips: Names of the shared clips in the first study.
        baselines: Names of the shared baselines.
        agents: Name of each study's agent in this comparison, by study.
        encodes: A row per encode of a shared clip; ``policy`` is its name in this comparison.
        comparisons: As :attr:`Evaluation.comparisons`: every study's agent against the shared
            baselines of its own study, then the first study's agent against every other policy of
            any study.
        notes: Sentences on differences that make the figures less comparable.
    """

    studies: list[Study]
    clips: list[str]
    baselines: list[str]
    agents: dict[str, str]
    encodes: pd.DataFrame
    comparisons: pd.DataFrame
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """Return all figures; BD-rates in percent, shares in 0..1."""
        pairs = self.comparisons.groupby(["test", "anchor"], sort=False)
        return {
            "studies": [
                {
                    "name": study.name,
                    "agent": self.agents[study.name],
                    "clips": len(study.summary["clips"]),
                    **{name: study.summary[name] for name in ("libvpx", "cpu_used", "bitrates")},
                }
                for study in self.studies
            ],
            "clips": self.clips,
            "baselines": self.baselines,
            "bd_rate": [
                {
                    "test": test,
                    "anchor": anchor,
                    **{
                        metric: bd_rate_figures(rows)
                        for metric, rows in pair.groupby("metric", sort=False)
                    },
                }
                for (test, anchor), pair in pairs
            ],
            "constraint": {
                policy: {**constraint(rows["overshoot"]), "encodes": float(rows["encodes"].mean())}
                for policy, rows in self.encodes.groupby("policy", sort=False)
            },
            "evenness": evenness_means(self.encodes).to_dict("index"),
            "notes": self.notes,
        }


_TEXTS = {"clip", "policy", "content_hash", "stream_sha256"}
_NUMBERS = {"target_bitrate", "bitrate", "overshoot", "encodes", "encode_seconds", "cpu_seconds"}
_NUMBERS |= {"cpu_used"}


def read_study(folder: str | Path, name: str | None = None) -> Study:
    """Read ``summary.json`` and ``encodes.parquet`` of a finished evaluation.

    Args:
        folder: Folder of a study's results.
        name: Name of the study; by default the folder's.

    Raises:
        InputError: There is no such folder, it has no finished study, or a file cannot be read.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise InputError(f"{folder}: no such folder")
    for file in ("summary.json", "encodes.parquet"):
        if not (folder / file).is_file():
            raise InputError(f"{folder}: no finished study in it: {file} is missing")
    try:
        summary = parse_json((folder / "summary.json").read_text())
        encodes = read_frame(folder / "encodes.parquet")
        _check_summary(summary)
        _check_encodes(encodes)
        policies = [summary["agent"], *summary["baselines"]]
        clips = [clip["content_hash"] for clip in summary["clips"]]
        there = set(zip(encodes["policy"], encodes["content_hash"], strict=True))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: its study cannot be read: {error!r}") from error
    if not there.issuperset(itertools.product(policies, clips)):
        raise InputError(f"{folder}: encodes.parquet lacks encodes that summary.json has")
    return Study(name or folder.name or str(folder), summary, encodes)


def _check_summary(summary: Any) -> None:
    """Refuse a summary whose parts are not of the types that all else here computes with.

    Raises:
        ValueError: A part cannot be that.
        KeyError: A part is missing.
        TypeError: The summary is no mapping.
    """
    kinds = {"agent": str, "baselines": dict, "libvpx": str, "cpu_used": int, "bitrates": list}
    for name, kind in {**kinds, "clips": list}.items():
        if not isinstance(summary[name], kind) or (not summary[name] and kind in (list, dict)):
            raise ValueError(f"summary.json: {name} cannot be {summary[name]!r:.40}")
    named = [clip[name] for clip in summary["clips"] for name in ("clip", "content_hash")]
    if not all(isinstance(text, str) for text in named):
        raise ValueError("summary.json: clips have names")


def _check_encodes(encodes: pd.DataFrame) -> None:
    """Refuse a table whose columns are missing or of other types.

    Raises:
        ValueError: It is so.
    """
    if missing := (_NUMBERS | _TEXTS) - set(encodes.columns):
        raise ValueError(f"encodes.parquet has no column {min(missing)}")
    for column in _NUMBERS | set(measured_qualities(encodes)):
        if not pd.api.types.is_numeric_dtype(encodes[column].dtype):
            raise ValueError(f"encodes.parquet: {column} has something else than numbers")
        if not np.isfinite(encodes[column].to_numpy(np.float64)).all():
            raise ValueError(f"encodes.parquet: {column} has something else than finite numbers")
    for column in _TEXTS:
        if not all(isinstance(text, str) for text in encodes[column]):
            raise ValueError(f"encodes.parquet: {column} has something else than text")


def compare(folders: Sequence[str | Path]) -> Comparison:
    """Lay finished studies side by side.

    Clips are told apart by their frames, not by their names. Policies are compared on the clips
    that all studies have. BD-rates use achieved bitrates, so targets and speeds may differ; the
    notes mention it.

    Args:
        folders: At least two folders of finished studies.

    Raises:
        InputError: A folder has no finished study, or they share no clip, baseline or metric.
    """
    if len(folders) < 2:
        raise InputError("a comparison needs at least two studies")
    names = [Path(folder).name or str(folder) for folder in folders]
    names = [
        str(folder) if names.count(name) > 1 else name
        for folder, name in zip(folders, names, strict=True)
    ]
    if repeated := next((name for name in names if names.count(name) > 1), None):
        raise InputError(f"the study {repeated} is given twice")
    studies = [read_study(*pair) for pair in zip(folders, names, strict=True)]
    clips = _shared_clips(studies)
    baselines = _shared(studies, "baseline", lambda study: study.summary["baselines"])
    qualities = _shared(studies, "metric", lambda study: _comparable(study, studies))
    labels, encodes = _join(studies, clips)
    agents = {study.name: labels[study.name, study.summary["agent"]] for study in studies}
    pairs = [
        (agents[study.name], labels[study.name, baseline])
        for study in studies
        for baseline in baselines
    ]
    pairs += [(agents[studies[0].name], other) for other in dict.fromkeys(encodes["policy"])]
    pairs = [(test, anchor) for test, anchor in dict.fromkeys(pairs) if test != anchor]
    return Comparison(
        studies,
        list(clips.values()),
        baselines,
        agents,
        encodes,
        compare_curves(encodes, pairs, qualities),
        _notes(studies, clips, baselines),
    )


def table(comparison: Comparison) -> str:
    """Return the comparison in Markdown, aligned so that it reads well as plain text."""
    parts = [
        f"BD-rate in percent over the {len(comparison.clips)} clip(s) of all studies: "
        f"{CELL_WORDS}.",
        *tables(comparison.encodes, comparison.comparisons, comparison.comparisons),
    ]
    if comparison.notes:
        parts.append("\n".join(["To keep in mind:", "", *(f"- {n}" for n in comparison.notes)]))
    return "\n\n".join(parts) + "\n"


def _shared(studies: list[Study], what: str, of: Callable[[Study], Iterable[str]]) -> list[str]:
    """Return the values that all studies have, in the order of the first study.

    Raises:
        InputError: There is none; the message calls the values ``what``.
    """
    found = [list(of(study)) for study in studies]
    shared = [one for one in found[0] if all(one in others for others in found)]
    if not shared:
        listed = "; ".join(
            f"{study.name} has {', '.join(names)}"
            for study, names in zip(studies, found, strict=True)
        )
        raise InputError(f"the studies share no {what}: {listed}")
    return shared


def _comparable(study: Study, studies: list[Study]) -> list[str]:
    """Return the qualities of a study; those of a region only where all have the same one."""
    regions = [other.summary.get("roi", {}).get("content_hash") for other in studies]
    found = measured_qualities(study.encodes)
    if len(set(regions)) > 1:
        found = [name for name in found if name not in REGION_QUALITIES]
    return found


def _shared_clips(studies: list[Study]) -> dict[str, str]:
    """Return the names of the shared clips in the first study, by content hash."""
    found = [{c["content_hash"]: c["clip"] for c in study.summary["clips"]} for study in studies]
    shared = {key: name for key, name in found[0].items() if all(key in other for other in found)}
    if not shared:
        listed = []
        for study, clips in zip(studies, found, strict=True):
            some = [*clips.values()][:MAX_NAMED]
            more = ", ..." if len(clips) > MAX_NAMED else ""
            listed.append(f"{study.name} has {', '.join(some)}{more}")
        raise InputError(
            "the studies share no clip (clips are told apart by their frames, not their names): "
            + "; ".join(listed)
        )
    return shared


def _join(
    studies: list[Study], clips: dict[str, str]
) -> tuple[dict[tuple[str, str], str], pd.DataFrame]:
    """Return the policies' names here by study and policy, and every policy's encodes once."""
    found: dict[str, dict[frozenset[Any], list[str]]] = {}
    rows = {}
    for study in studies:
        shared = study.encodes[study.encodes["content_hash"].isin(clips)]
        for policy, mine in shared.groupby("policy", sort=False):
            causes = mine[["content_hash", "target_bitrate", "cpu_used", "stream_sha256"]]
            streams = frozenset(map(tuple, causes.to_numpy().tolist()))
            found.setdefault(str(policy), {}).setdefault(streams, []).append(study.name)
            rows[study.name, str(policy)] = mine
    labels, parts = {}, []
    for policy, different in found.items():
        for names in different.values():
            label = policy if len(different) == 1 else f"{policy} ({names[0]})"
            labels.update({(name, policy): label for name in names})
            mine = rows[names[0], policy]
            parts.append(mine.assign(policy=label, clip=mine["content_hash"].map(clips)))
    return labels, pd.concat(parts, ignore_index=True)


def _notes(studies: list[Study], clips: dict[str, str], baselines: list[str]) -> list[str]:
    notes = []
    for words, name in (
        ("cpu-used", "cpu_used"),
        ("libvpx", "libvpx"),
        ("targets in kbit/s", "bitrates"),
    ):
        values = {study.name: str(study.summary[name]).strip("[]") for study in studies}
        if len(set(values.values())) > 1:
            listed = "; ".join(f"{value} in {study}" for study, value in values.items())
            notes.append(f"the studies differ in {words}: {listed}")
    encoders = {study.name: ", ".join(encoders_of(study.encodes)) for study in studies}
    if len(set(encoders.values())) > 1:
        listed = "; ".join(f"{encoder} in {study}" for study, encoder in encoders.items())
        notes.append(f"the studies differ in the encoder: {listed}")
    regions = {study.name: study.summary.get("roi") for study in studies}
    if any(region != regions[studies[0].name] for region in regions.values()):
        notes.append("the studies differ in the region of interest or its weight")
    for study in studies:
        if left := len(study.summary["clips"]) - len(clips):
            notes.append(f"{left} clip(s) of {study.name} are not in all studies, and left out")
    keys = ["policy", "content_hash", "target_bitrate", "cpu_used"]
    columns = [*keys, "stream_sha256"]
    everything = pd.concat([study.encodes[columns] for study in studies], ignore_index=True)
    streams = everything.groupby(keys)["stream_sha256"].nunique().reset_index()
    for baseline in baselines:
        if (streams.loc[streams["policy"] == baseline, "stream_sha256"] > 1).any():
            notes.append(
                f"{baseline} gave other streams in one study than in another, for the same clip, "
                "target and cpu-used: each agent is compared with its own study's"
            )
    return notes
