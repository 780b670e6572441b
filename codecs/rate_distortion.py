"""Rate-distortion tables: pictures through codecs, with real files and their real sizes.

Every file is decoded in another process than the one that made it.
"""

import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
import torch

from vpxrc.codecs.classical import CLASSICAL
from vpxrc.codecs.codec import Codec, load_codec, read_checkpoint
from vpxrc.codecs.model import VariableModel
from vpxrc.codecs.picture_quality import MIN_SIDE, ms_ssim, psnr
from vpxrc.codecs.pictures import read_picture, to_unit
from vpxrc.errors import InputError
from vpxrc.evaluation.bd_rate import BdRate, bd_rate
from vpxrc.parallel import open_workers
from vpxrc.storage import atomic_write, digest, parse_json, sha256_file

DEFAULT_QUALITIES = (0.0, 0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)

Result = TypeVar("Result")
Progress = Callable[[int, int, str], None]


@dataclass(frozen=True)
class Job:
    """A picture, a codec and a setting.

    Attributes:
        codec: A checkpoint's path, or the name of a classical codec.
        label: Name in the table.
        setting: Quality; NaN for a codec of one quality.
        picture: The file.
        key: Name of the row where it is kept.
        data: The coded picture, once there is one.
        seconds: Duration of its coding.
    """

    codec: str
    label: str
    setting: float
    picture: Path
    key: str
    data: bytes = b""
    seconds: float = 0.0


@lru_cache(2)
def _loaded(path: str) -> Codec:
    return load_codec(path)


def _encode(job: Job) -> tuple[bytes, float]:
    """Return a file and the seconds that it took."""
    torch.set_num_threads(1)
    picture = read_picture(job.picture)
    learned = None if job.codec in CLASSICAL else _loaded(job.codec)
    begun = time.perf_counter()
    if learned is None:
        data = CLASSICAL[job.codec].encode(picture, job.setting)
    else:
        data = learned.compress(picture, None if np.isnan(job.setting) else job.setting).data
    return data, time.perf_counter() - begun


def _decode(job: Job) -> dict[str, float | str]:
    """Return the row of a coded picture."""
    torch.set_num_threads(1)
    picture = read_picture(job.picture)
    learned = None if job.codec in CLASSICAL else _loaded(job.codec)
    begun = time.perf_counter()
    if learned is None:
        decoded = CLASSICAL[job.codec].decode(job.data)
    else:
        decoded = learned.decompress(job.data)
    seconds = time.perf_counter() - begun
    x, y = to_unit(picture), to_unit(decoded)
    large = min(picture.shape[:2]) >= MIN_SIDE
    return {
        "codec": job.label,
        "setting": job.setting,
        "picture": job.picture.name,
        "pixels": picture.shape[0] * picture.shape[1],
        "bytes": len(job.data),
        "bpp": 8 * len(job.data) / (picture.shape[0] * picture.shape[1]),
        "psnr": float(psnr(x, y)),
        "ms_ssim": float(ms_ssim(x, y)) if large else float("nan"),
        "encode_seconds": job.seconds,
        "decode_seconds": seconds,
    }


def jobs_of(
    pictures: Sequence[Path],
    checkpoints: Sequence[Path],
    classical: Sequence[str],
    qualities: Sequence[float] = DEFAULT_QUALITIES,
) -> list[Job]:
    """Return the jobs of a table.

    Raises:
        InputError: A codec's name is unknown, a checkpoint cannot be read, or two codecs have the
            same name.
    """
    codecs: list[tuple[str, str, Sequence[float]]] = []
    for path in checkpoints:
        variable = isinstance(read_checkpoint(path)[0], VariableModel)
        codecs.append((str(path), path.stem, qualities if variable else (float("nan"),)))
    for name in classical:
        if name not in CLASSICAL:
            raise InputError(f"unknown codec {name!r}: choose from {', '.join(CLASSICAL)}")
        codecs.append((name, CLASSICAL[name].title, CLASSICAL[name].settings))
    labels = [label for _, label, _ in codecs]
    for label in labels:
        if labels.count(label) > 1:
            raise InputError(f"two codecs are called {label}; their names have to differ")
    contents = {picture: sha256_file(picture) for picture in pictures}
    jobs = []
    for codec, label, settings in codecs:
        weights = codec if codec in CLASSICAL else sha256_file(codec)
        for setting in settings:
            for picture in pictures:
                key = digest([weights, label, str(setting), contents[picture]])[:24]
                jobs.append(Job(codec, label, setting, picture, key))
    return jobs


def measure(
    jobs: Sequence[Job],
    folder: Path,
    *,
    workers: int = 1,
    ray: str | None = None,
    progress: Progress = lambda done, total, words: None,
) -> pd.DataFrame:
    """Return a row for each job: codec, setting, picture, bytes, bpp, psnr, ms_ssim and seconds.

    Files and rows are kept in ``folder``, so a call that was killed goes on where it was.

    Args:
        jobs: What is measured.
        folder: The folder of the table.
        workers: Pictures that are coded at the same time.
        ray: An address of Ray, as :func:`vpxrc.parallel.open_workers` takes it.
        progress: Told after each coding and each decoding.
    """
    rows = {job.key: folder / "rows" / f"{job.key}.json" for job in jobs}
    files = {job.key: folder / "files" / job.key for job in jobs}
    missing = [job for job in jobs if not rows[job.key].exists()]
    uncoded = [job for job in missing if not files[job.key].exists()]
    total, done = len(uncoded) + len(missing), 0
    # Two pools: what decodes has never seen the picture's latents.
    for job, (data, seconds) in _run(_encode, uncoded, workers, ray):
        done += 1
        progress(done, total, f"{job.label}, {job.picture.name}")
        with atomic_write(files[job.key]) as temporary:
            temporary.write_bytes(f"{seconds}\n".encode() + data)
    coded = [_with_file(job, files[job.key]) for job in missing]
    for job, row in _run(_decode, coded, workers, ray):
        done += 1
        progress(done, total, f"{job.label}, {job.picture.name}")
        with atomic_write(rows[job.key]) as temporary:
            temporary.write_text(json.dumps(row))
    return pd.DataFrame([parse_json(rows[job.key].read_text()) for job in jobs])


def _run(
    function: Callable[[Job], Result], jobs: Sequence[Job], workers: int, ray: str | None
) -> Iterator[tuple[Job, Result]]:
    """Yield jobs and their results from a pool of workers of their own."""
    if jobs:
        with open_workers(min(workers, len(jobs)), ray) as pool:
            yield from pool.unordered(function, jobs)


def _with_file(job: Job, path: Path) -> Job:
    """Return a job with its coded picture: a line with the seconds, and the file."""
    seconds, _, data = path.read_bytes().partition(b"\n")
    return replace(job, data=data, seconds=float(seconds))


def curves(rows: pd.DataFrame) -> pd.DataFrame:
    """Return the means over the pictures, a row for each codec and setting.

    The PSNR is the mean of the pictures' PSNRs; bpp is the mean of theirs.
    """
    names = ["bpp", "psnr", "ms_ssim", "encode_seconds", "decode_seconds"]
    groups = rows.groupby(["codec", "setting"], dropna=False, sort=False)
    means: pd.DataFrame = groups[names].mean().reset_index()
    return means.sort_values(["codec", "bpp"], kind="stable").reset_index(drop=True)


def published_points(path: Path, names: Sequence[str], dataset: str) -> pd.DataFrame:
    """Return published points of codecs: ``codec``, ``bpp``, ``psnr``, ``ms_ssim``.

    Args:
        path: A table separated by tabs with these columns and ``dataset``; if it has a column
            ``metric_set``, rows with ``msssim-opt`` there are left out: they are of codecs that
            were trained for MS-SSIM.
        names: Codecs in it.
        dataset: The pictures.

    Raises:
        InputError: The table cannot be read, or lacks a codec.
    """
    try:
        table = pd.read_csv(path, sep="\t")
        if "metric_set" in table:
            table = table[table["metric_set"] != "msssim-opt"]
        points = table[table["dataset"] == dataset].set_index("codec")[["bpp", "psnr", "ms_ssim"]]
        points = points.astype(float)
    except OSError as error:
        raise InputError(f"cannot read {path}: {error.strerror or error}") from error
    except (ValueError, KeyError) as error:
        raise InputError(f"{path}: not a table of published points: {error}") from error
    missing = [name for name in names if name not in points.index]
    if missing:
        raise InputError(f"{path}: there is no {', '.join(missing)} on {dataset}")
    chosen: pd.DataFrame = points.loc[list(names)].reset_index()
    return chosen.assign(codec=chosen["codec"] + ", published")


def joined(table: pd.DataFrame, points: pd.DataFrame) -> pd.DataFrame:
    """Return the rows of :func:`curves` and those of :func:`published_points`."""
    return pd.concat([table, points], ignore_index=True)


REFERENCES = "JPEG 4:4:4", "JPEG 4:2:0"  # of the picture of bits and time
MEASURES: Mapping[str, Callable[[pd.Series], pd.Series]] = {
    "psnr": lambda psnr: psnr,
    "ms_ssim": lambda ms_ssim: -10 * np.log10(1 - ms_ssim),
}


def bd_rates(rows: pd.DataFrame, table: pd.DataFrame, learned: Iterable[str]) -> pd.DataFrame:
    """Return the BD-rate in percent of learned codecs against all others, in each measure.

    MS-SSIM is interpolated in decibels, ``-10 log10(1 - MS-SSIM)``.

    Args:
        rows: As :func:`measure` returns it.
        table: As :func:`curves` returns it; it may have further codecs with published points.
        learned: Names of learned codecs.

    Returns:
        A row for each pair and measure: ``codec``, ``anchor``, ``measure``, ``percent`` (NaN where
        there is none), ``status`` and ``overlap``, as :class:`vpxrc.evaluation.bd_rate.BdRate` has
        them; and ``worst`` and ``worst_picture``, the largest BD-rate of a picture alone.
    """

    def compare(measure: str, anchor: pd.DataFrame, test: pd.DataFrame) -> BdRate:
        curves = [
            one[["bpp", measure]].replace([np.inf, -np.inf], np.nan).dropna()
            for one in (anchor, test)
        ]
        sides = [(one["bpp"], MEASURES[measure](one[measure])) for one in curves]
        return bd_rate(*sides[0], *sides[1])

    found = []
    for name in learned:
        test = table[table["codec"] == name]
        for anchor in table["codec"].unique():
            if anchor == name:
                continue
            pictures = {
                picture: (group[group["codec"] == anchor], group[group["codec"] == name])
                for picture, group in rows.groupby("picture")
            }
            for measure in MEASURES:
                result = compare(measure, table[table["codec"] == anchor], test)
                each = {
                    picture: compare(measure, *pair).percent
                    for picture, pair in pictures.items()
                    if len(pair[0])
                }
                known = {picture: one for picture, one in each.items() if one is not None}
                worst = max(known, key=lambda picture: known[picture], default=None)
                found.append(
                    {
                        "codec": name,
                        "anchor": anchor,
                        "measure": measure,
                        "percent": float("nan") if result.percent is None else result.percent,
                        "worst": float("nan") if worst is None else known[worst],
                        "worst_picture": "" if worst is None else worst,
                        "status": result.status,
                        "overlap": result.overlap,
                    }
                )
    columns = ["codec", "anchor", "measure", "percent", "worst", "worst_picture", "status"]
    return pd.DataFrame(found, columns=[*columns, "overlap"])


def trade_offs(rows: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return what bits and time each codec takes.

    Args:
        rows: As :func:`measure` returns it.
        table: As :func:`curves` returns it.

    Returns:
        A row for each codec: ``codec``, ``encode_seconds`` and ``decode_seconds`` for a megapixel,
        the medians of all files, and ``percent``, the BD-rate in PSNR against ``anchor``, a JPEG
        where there is one. NaN where there is none.
    """
    timed = ["encode_seconds", "decode_seconds"]
    speeds = rows.assign(**{name: rows[name] / rows["pixels"] * 1e6 for name in timed})
    medians = speeds.groupby("codec", sort=False)[timed].median()
    anchor = next((name for name in REFERENCES if name in medians.index), medians.index[0])
    curves = {name: table[table["codec"] == name] for name in medians.index}
    found = []
    for name, curve in curves.items():
        sides = [(one["bpp"], one["psnr"]) for one in (curves[anchor], curve)]
        percent = bd_rate(*sides[0], *sides[1]).percent
        known = float("nan") if percent is None else percent
        found.append({"codec": name, **medians.loc[name], "percent": known, "anchor": anchor})
    return pd.DataFrame(found)
