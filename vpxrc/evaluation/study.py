"""The evaluation contract: an agent against baselines, on clips at several bitrates.

Every encode is kept under ``OUT/encodes`` by a key of everything that changes its figures. When a
command was killed, the same command continues where it stopped.
"""

import dataclasses
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd
import pyarrow.parquet as pq

from vpxrc.encoder.first_pass import first_pass_stats
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import EncoderError, InputError, PolicyError, VpxrcError
from vpxrc.evaluation.axes import first_pass_axes
from vpxrc.evaluation.bd_rate import MIN_RATES
from vpxrc.evaluation.result import Clip, Evaluation
from vpxrc.evaluation.summary import summarize_study
from vpxrc.evaluation.tables import compare_curves, table
from vpxrc.media.masks import RegionSpec
from vpxrc.parallel import Workers, open_workers
from vpxrc.policies.base import Policy, encode
from vpxrc.policies.region import WeightedRegion, check_weight
from vpxrc.policies.registry import make_policy
from vpxrc.provenance import causes
from vpxrc.quality import (
    METRICS,
    REGION_METRIC,
    check_metrics,
    evenness,
    measure,
    qualities_of,
    region_quality,
    summarize,
)
from vpxrc.storage import (
    atomic_write,
    check_writable,
    digest,
    parse_json,
    read_frame,
    sha256_file,
    write_frame,
)


class _Measured(NamedTuple):
    """What is measured.

    Attributes:
        metrics: Names of the metrics.
        region: The region of interest; None for none.
        weight: Weight of the region in the encodes; None where they do not know of it.
    """

    metrics: tuple[str, ...]
    region: RegionSpec | None
    weight: float | None

    @property
    def summary(self) -> dict[str, Any]:
        """What the summary says of the region."""
        if self.region is None:
            return {}
        return {"roi": {"content_hash": self.region.content_hash, "weight": self.weight}}


@dataclass(frozen=True)
class _Job:
    """One encode.

    Attributes:
        clip: The clip.
        policy: Spec of the policy.
        options: The options that the policy is asked for, with the target.
        measured: What is measured.
        key: Hash of everything that changes the result; it names the result's files.
        folder: Folder of the result's files.
    """

    clip: Clip
    policy: str
    options: EncoderOptions
    measured: _Measured
    key: str
    folder: Path

    @property
    def path(self) -> Path:
        """File of the result's row; it is written after the files of frames and stream."""
        return self.folder / f"{self.key}.json"

    def __str__(self) -> str:
        """Name in progress and errors."""
        return f"{self.clip.name}, {self.policy}, {self.options.target_bitrate} kbit/s"


def evaluate(
    agent: str,
    baselines: Sequence[str],
    clips: Sequence[Clip],
    bitrates: Sequence[int],
    out: str | Path,
    *,
    options: EncoderOptions | None = None,
    metrics: Sequence[str] = METRICS,
    roi: Any = None,
    roi_weight: float | None = None,
    jobs: int = 1,
    ray: str | None = None,
    allow_training_clips: bool = False,
    left_out: Sequence[str] = (),
    command: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Encode every clip at every bitrate under every policy, and compare.

    Writes ``summary.json``, ``encodes.parquet``, ``frames.parquet`` and ``table.md``, and keeps the
    streams as ``encodes/KEY.ivf``. :mod:`vpxrc.reports` draws pictures and a page. The encodes run
    in processes that are started afresh, so a script must call this under
    ``if __name__ == "__main__":``.

    Args:
        agent: Spec of the policy that is judged, as :func:`vpxrc.make_policy` takes it.
        baselines: Specs of the policies that it is compared with, at least one.
        clips: At least one clip; the names differ.
        bitrates: At least four targets in kbit/s, in any order.
        out: Folder of all files. Encodes that are already in it are used again.
        options: Options that every policy is asked for; the target is replaced.
        metrics: Any of ``psnr``, ``ssim`` and ``vmaf``, and with ``roi`` also ``roi_psnr``.
        roi: A region of interest of all clips, as :meth:`RegionSpec.of` takes it.
        roi_weight: Weight of the region in the encodes of every policy; None: they ignore it.
        jobs: Number of encodes at the same time, in processes or in tasks on Ray.
        ray: Address of a Ray cluster, as :func:`vpxrc.parallel.open_workers` takes it.
            Every machine of the cluster needs this vpxrc, the policies, and the clips under the
            same paths. Only the caller needs ``out``.
        allow_training_clips: Whether to accept clips that a policy was trained on.
        left_out: Names of clips that are missing, for the summary and the table.
        command: Command that the summary records; by default this call.
        progress: Called with the number of encodes done, their total, and the name of the last one.

    Raises:
        InputError: An argument cannot be used, a clip cannot be read, a policy was trained on one
            of the clips, or there is no Ray at the address.
        PolicyError: A policy failed; the message names it, the clip and the target.
        EncoderError: An encode or its decoding failed, or a process was killed.
        MissingDependencyError: Ray is asked for and not installed.
        OutputError: ``out`` cannot be written.
    """
    policies = [agent, *baselines]
    rates = sorted(bitrates)
    options = options or EncoderOptions()
    _check_arguments(policies, clips, rates, metrics, jobs)
    measured = _measured(metrics, roi, roi_weight, options)
    made = {spec: make_policy(spec) for spec in policies}
    asked = [dataclasses.replace(options, target_bitrate=rate) for rate in rates]
    given = {"options": options, "metrics": list(metrics), "jobs": jobs, "ray": ray}
    given["allow_training_clips"] = allow_training_clips
    given |= {} if roi is None else {"roi": roi, "roi_weight": roi_weight}
    out, folder = Path(out), Path(out) / "encodes"
    with open_workers(min(jobs, len(clips) * len(policies) * len(rates)), ray) as workers:
        wanted = [(clip, measured.region) for clip in clips]
        described = {job[0].name: found for job, found in workers.unordered(_describe, wanted)}
        contents = [described[clip.name] for clip in clips]
        if not allow_training_clips:
            _check_overlap(made, clips, contents)
        check_writable(folder)
        work = _all_jobs(policies, clips, contents, asked, measured, folder)
        _do_missing(work, workers, progress)
    encodes, frames = _collect(work)
    comparisons = compare_curves(encodes, _pairs(agent, baselines), qualities_of(metrics))
    command = command or _call(agent, baselines, clips, rates, out, given)
    summary = summarize_study(encodes, comparisons, policies, rates, options, left_out, command)
    evaluation = Evaluation(out, summary | measured.summary, encodes, frames, comparisons)
    _write(evaluation)
    return evaluation


def _call(
    agent: str,
    baselines: Sequence[str],
    clips: Sequence[Clip],
    rates: list[int],
    out: Path,
    given: dict[str, Any],
) -> str:
    """Return the call of :func:`evaluate` in words."""
    names = [clip.name for clip in clips]
    arguments = [repr(value) for value in (agent, list(baselines), names, rates, str(out))]
    arguments += [f"{name}={value!r}" for name, value in given.items()]
    return f"evaluate({', '.join(arguments)})"


def _check_arguments(
    policies: list[str],
    clips: Sequence[Clip],
    rates: list[int],
    metrics: Sequence[str],
    jobs: int,
) -> None:
    if len(policies) < 2:
        raise InputError("an evaluation needs at least one baseline")
    if not clips:
        raise InputError("an evaluation needs at least one clip")
    if len(rates) < MIN_RATES:
        raise InputError(f"{len(rates)} bitrate(s): a BD-rate needs at least {MIN_RATES}")
    if jobs < 1:
        raise InputError(f"jobs must be at least 1, not {jobs}")
    if not metrics:
        raise InputError(f"no metric: choose from {', '.join(METRICS)}")
    check_metrics([metric for metric in metrics if metric != REGION_METRIC])
    for what, values in (
        ("policy", policies),
        ("bitrate", rates),
        ("metric", metrics),
        ("clip", [clip.name for clip in clips]),
    ):
        for value in values:
            if list(values).count(value) > 1:
                raise InputError(f"the {what} {value} is given twice")


def _measured(
    metrics: Sequence[str], roi: Any, weight: float | None, options: EncoderOptions
) -> _Measured:
    """Return what is measured.

    Raises:
        InputError: The arguments do not go together, or one is wrong.
    """
    if (roi is not None) != (REGION_METRIC in metrics):
        raise InputError(
            f"the metric {REGION_METRIC} goes with a region (roi), and a region with it"
        )
    if weight is not None:
        if roi is None:
            raise InputError("a weight (roi_weight) goes with a region (roi)")
        check_weight(weight)
        if options.encoder != "vp9":
            raise InputError(f"a region needs the encoder vp9, not {options.encoder}")
    return _Measured(tuple(metrics), None if roi is None else RegionSpec.of(roi), weight)


def _check_overlap(policies: dict[str, Policy], clips: Sequence[Clip], contents: list[str]) -> None:
    for spec, policy in policies.items():
        shared = [
            clip.name
            for clip, content in zip(clips, contents, strict=True)
            if content in policy.training_clips
        ]
        if shared:
            raise InputError(f"{spec} was trained on clips of this evaluation: {', '.join(shared)}")


def _key(
    code: dict[str, Any],
    content: str,
    options: EncoderOptions,
    measured: _Measured,
) -> str:
    region = list(measured.summary.values())  # nothing of studies without one
    return digest([code, content, dataclasses.asdict(options), *region])


def _all_jobs(
    policies: list[str],
    clips: Sequence[Clip],
    contents: list[str],
    asked: list[EncoderOptions],
    measured: _Measured,
    folder: Path,
) -> list[_Job]:
    """Return every encode of a study: each clip under each policy with each of the options."""
    code = {spec: causes(spec, metrics=measured.metrics) for spec in policies}
    return [
        _Job(clip, spec, wanted, measured, _key(code[spec], content, wanted, measured), folder)
        for clip, content in zip(clips, contents, strict=True)
        for spec in policies
        for wanted in asked
    ]


def _pairs(agent: str, baselines: Sequence[str]) -> list[tuple[str, str]]:
    """Return test and anchor of each comparison.

    These are the agent against every baseline, then every other baseline against the first.
    """
    pairs = [(agent, anchor) for anchor in baselines]
    return pairs + [(test, baselines[0]) for test in baselines[1:]]


# In the worker processes


def _describe(job: tuple[Clip, RegionSpec | None]) -> str:
    """Return a clip's content hash; this also decodes the clip into the cache.

    Raises:
        InputError: The clip cannot be read, or cannot have the region.
    """
    clip, region = job
    video = clip.open()
    if region is not None:
        try:
            region.check(video.width, video.height, video.num_frames)
        except InputError as error:
            raise InputError(f"{clip.name}: {error}") from None
    return video.content_hash


def _run(job: _Job) -> tuple[dict[str, Any], bytes, bytes]:
    """Encode and measure; return the result's row, the frames as Parquet and the stream.

    The parent writes the files, because the worker's machine may not have the folder.
    """
    try:
        video = job.clip.open()
        policy = make_policy(job.policy)
        metrics, region, weight = job.measured
        if region is not None and weight is not None:
            policy = WeightedRegion(region, weight).around(policy, video)
        # Stored before the clock starts, so that only the second pass is timed.
        first_pass_stats(video, job.options)
        wall, cpu = time.perf_counter(), time.process_time()
        log = encode(video, job.options, policy)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        decoded = log.options.decode(log.stream, log.clip)
        quality = measure(decoded, video, [one for one in metrics if one != REGION_METRIC])
        inside = {}
        if region is not None:
            masks = partial(region.mask, video.width, video.height)
            inside = region_quality(decoded, video, masks)
    except VpxrcError as error:
        raise type(error)(f"{job}: {error}") from error
    except Exception as error:
        raise PolicyError(f"{job}: {error!r}") from error
    row = {
        "policy": job.policy,
        "target_bitrate": job.options.target_bitrate,
        "bitrate": log.bitrate,
        "overshoot": log.bitrate / job.options.target_bitrate - 1,
        **summarize(quality, video.width, video.height, video.bit_depth),
        **inside,
        **evenness(quality),
        "encodes": log.encodes,
        "encode_seconds": wall,
        "cpu_seconds": cpu,
        "width": video.width,
        "height": video.height,
        "fps": float(video.fps),
        "num_frames": video.num_frames,
        **first_pass_axes(log.first_pass, video.width, video.height),
        "content_hash": video.content_hash,
        "stream_sha256": hashlib.sha256(log.stream).hexdigest(),
    }
    if video.bit_depth != 8:
        row["bit_depth"] = video.bit_depth
    if log.options.encoder != "vp9":
        row["encoder"] = log.options.encoder
    row = {**dataclasses.asdict(log.options), **row}
    frames = io.BytesIO()
    write_frame(log.to_pandas(), frames)
    return row, frames.getvalue(), log.stream


# In the parent process


def _do_missing(
    work: list[_Job], workers: Workers, progress: Callable[[int, int, str], None] | None
) -> None:
    """Do the encodes whose results are not stored yet, and store them."""
    missing = [job for job in work if _read_row(job) is None]
    done = len(work) - len(missing)
    if progress is not None:
        progress(done, len(work), "")
    for job, (row, frames, stream) in workers.unordered(_run, missing):
        _keep(job, row, frames, stream)
        done += 1
        if progress is not None:
            progress(done, len(work), str(job))


def _keep(job: _Job, row: dict[str, Any], frames: bytes, stream: bytes) -> None:
    for suffix, data in ((".parquet", frames), (".ivf", stream)):
        with atomic_write(job.path.with_suffix(suffix)) as temporary:
            temporary.write_bytes(data)
    with atomic_write(job.path) as temporary:
        temporary.write_text(json.dumps(row))


def _read_row(job: _Job) -> dict[str, Any] | None:
    """Return a stored result, None where there is none or the file is damaged."""
    try:
        row = parse_json(job.path.read_text())
        pq.read_schema(job.path.with_suffix(".parquet"))
        if not isinstance(row, dict):
            return None
        stream = job.path.with_suffix(".ivf")
        if stream.exists() and sha256_file(stream) != row["stream_sha256"]:
            return None
    except (OSError, ValueError, KeyError, InputError):
        return None
    return row


def _collect(work: list[_Job]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the stored results as :attr:`Evaluation.encodes` and :attr:`Evaluation.frames`."""
    rows, frames = [], []
    for job in work:
        row = _read_row(job)
        if row is None:
            raise EncoderError(f"{job}: its result vanished from {job.folder}")
        # The stored row has no clip name: the caller may rename a clip.
        rows.append({"clip": job.clip.name, **row, "key": job.path.stem})
        try:
            log = read_frame(job.path.with_suffix(".parquet"))
        except (OSError, ValueError) as error:
            raise EncoderError(f"{job}: its frames cannot be read: {error}") from error
        log.insert(0, "clip", job.clip.name)
        log.insert(1, "policy", job.policy)
        log.insert(2, "target_bitrate", job.options.target_bitrate)
        frames.append(log)
    encodes = pd.DataFrame(rows)
    first = ["clip", "policy", "target_bitrate", "bitrate", "overshoot"]
    encodes = encodes[[*first, *encodes.columns.difference(first, sort=False)]]
    return encodes, pd.concat(frames, ignore_index=True)


def _write(evaluation: Evaluation) -> None:
    """Write the files of a study. The summary comes last: if it is new, all files are."""
    out = evaluation.folder
    for name, rows in (("encodes", evaluation.encodes), ("frames", evaluation.frames)):
        with atomic_write(out / f"{name}.parquet") as temporary:
            write_frame(rows, temporary)
    with atomic_write(out / "table.md") as temporary:
        temporary.write_text(table(evaluation))
    with atomic_write(out / "summary.json") as temporary:
        temporary.write_text(json.dumps(evaluation.summary, indent=2, allow_nan=False) + "\n")
