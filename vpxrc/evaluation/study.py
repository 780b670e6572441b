"""The evaluation contract: an agent against baselines, on clips at several bitrates.

Every encode is kept under ``OUT/encodes`` by a key of all that changes its figures, so that the
same command, killed at any point, goes on where it was.
"""

import dataclasses
import hashlib
import io
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from vpxrc import _native
from vpxrc.encoder.first_pass import first_pass_stats
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import EncoderError, InputError, PolicyError, VpxrcError
from vpxrc.evaluation.bd_rate import MIN_RATES
from vpxrc.evaluation.quality import METRICS, measure, summarize
from vpxrc.evaluation.result import Clip, Evaluation
from vpxrc.evaluation.tables import QUALITIES, bd_rate_figures, compare_curves, constraint, table
from vpxrc.parallel import open_workers
from vpxrc.policies.base import Policy, encode
from vpxrc.policies.registry import make_policy
from vpxrc.provenance import causes, versions
from vpxrc.storage import atomic_write, check_writable, digest

CLIP_COLUMNS = ("clip", "width", "height", "fps", "num_frames", "content_hash")


@dataclass(frozen=True)
class _Job:
    """One encode.

    ``key``, a hash of everything that changes its result, names the result's files.
    """

    clip: Clip
    policy: str
    options: EncoderOptions
    metrics: tuple[str, ...]
    key: str
    folder: Path

    @property
    def path(self) -> Path:
        """The result's row, which is written last; frames and stream lie beside it."""
        return self.folder / f"{self.key}.json"

    def __str__(self) -> str:
        """What progress and errors call it."""
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
    jobs: int = 1,
    ray: str | None = None,
    allow_training_clips: bool = False,
    left_out: Sequence[str] = (),
    command: str | None = None,
    progress: Callable[[int, int, str], None] | None = None,
) -> Evaluation:
    """Encode every clip at every bitrate under every policy, and compare.

    Writes ``summary.json``, ``encodes.parquet``, ``frames.parquet`` and ``table.md``, and keeps the
    streams as ``encodes/KEY.ivf``; pictures and page are :mod:`vpxrc.reports`'s. Work
    is done in processes that are started afresh: a script calls this under
    ``if __name__ == "__main__":``.

    Args:
        agent: The policy that is judged, as :func:`vpxrc.make_policy` takes it.
        baselines: At least one other policy, likewise.
        clips: At least one clip; the names differ.
        bitrates: At least four targets in kbit/s, in any order.
        out: The folder for everything; results that are in it are used again.
        options: What every policy is asked for, but for the target.
        metrics: Which of ``psnr``, ``ssim`` and ``vmaf``.
        jobs: Encodes at the same time: processes, or tasks on Ray.
        ray: A Ray address to encode there, as :func:`vpxrc.parallel.open_workers` takes it. Every
            machine of the cluster needs this vpxrc, the policies, and the clips under the same
            paths; ``out`` is the caller's alone.
        allow_training_clips: Evaluate on clips that a policy was trained on.
        left_out: Names of clips that should have been among these and could not be had; the summary
            and the table say so.
        command: What the summary says that made it; by default this call.
        progress: Called with the encodes done, their total number and the last one's name.

    Raises:
        InputError: An argument cannot be used, a clip cannot be read, or a policy was trained on
            one of the clips, or there is no Ray at the address.
        PolicyError: A policy failed; the message names it, the clip and the target.
        EncoderError: An encode or its decoding failed, or a process was killed.
        MissingDependencyError: Ray is asked for and not installed.
        OutputError: ``out`` cannot be written.
    """
    policies = [agent, *baselines]
    rates = sorted(bitrates)
    _check_arguments(policies, clips, rates, metrics, jobs)
    made = {spec: make_policy(spec) for spec in policies}
    options = options or EncoderOptions()
    if command is None:
        names = [clip.name for clip in clips]
        command = (
            f"evaluate({agent!r}, {list(baselines)!r}, {names!r}, {rates!r}, {str(out)!r}, "
            f"options={options!r}, metrics={list(metrics)!r}, jobs={jobs!r}, "
            f"ray={ray!r}, allow_training_clips={allow_training_clips!r})"
        )
    asked = [dataclasses.replace(options, target_bitrate=rate) for rate in rates]
    out = Path(out)
    folder = out / "encodes"
    with open_workers(min(jobs, len(clips) * len(policies) * len(rates)), ray) as workers:
        described = {clip.name: content for clip, content in workers.unordered(_describe, clips)}
        contents = [described[clip.name] for clip in clips]
        if not allow_training_clips:
            _check_overlap(made, clips, contents)
        check_writable(folder)
        code = {spec: causes(spec, metrics=metrics) for spec in policies}
        work = [
            _Job(clip, spec, wanted, tuple(metrics), _key(code[spec], content, wanted), folder)
            for clip, content in zip(clips, contents, strict=True)
            for spec in policies
            for wanted in asked
        ]
        missing = [job for job in work if _read_row(job) is None]
        done = len(work) - len(missing)
        if progress is not None:
            progress(done, len(work), "")
        for job, (row, coded, stream) in workers.unordered(_run, missing):
            _keep(job, row, coded, stream)
            done += 1
            if progress is not None:
                progress(done, len(work), str(job))

    encodes, frames = _collect(work)
    pairs = [(agent, anchor) for anchor in baselines]
    pairs += [(test, baselines[0]) for test in baselines[1:]]
    qualities = [name for metric in metrics for name in QUALITIES[metric]]
    comparisons = compare_curves(encodes, pairs, qualities)
    summary = {
        **_summarize(encodes, comparisons, policies, rates, options),
        **({"left_out": list(left_out)} if left_out else {}),
        "command": command,
        "versions": versions(),
    }
    evaluation = Evaluation(out, summary, encodes, frames, comparisons)
    _write(evaluation)
    return evaluation


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
    for metric in metrics:
        if metric not in METRICS:
            raise InputError(f"unknown metric {metric!r}: choose from {', '.join(METRICS)}")
    for what, values in (
        ("policy", policies),
        ("bitrate", rates),
        ("metric", metrics),
        ("clip", [clip.name for clip in clips]),
    ):
        for value in values:
            if list(values).count(value) > 1:
                raise InputError(f"the {what} {value} is given twice")


def _check_overlap(policies: dict[str, Policy], clips: Sequence[Clip], contents: list[str]) -> None:
    for spec, policy in policies.items():
        shared = [
            clip.name
            for clip, content in zip(clips, contents, strict=True)
            if content in policy.training_clips
        ]
        if shared:
            raise InputError(f"{spec} was trained on clips of this evaluation: {', '.join(shared)}")


def _key(code: dict[str, Any], content: str, options: EncoderOptions) -> str:
    return digest([code, content, dataclasses.asdict(options)])


# In the worker processes


def _describe(clip: Clip) -> str:
    """Return the clip's content hash, decoding it into the cache on the way."""
    return clip.open().content_hash


def _run(job: _Job) -> tuple[dict[str, Any], bytes, bytes]:
    """Encode and measure; return the result's row, the frames as Parquet and the stream.

    Nothing is written here: another machine may not have the folder.
    """
    try:
        video = job.clip.open()
        policy = make_policy(job.policy)
        first_pass_stats(video, job.options)  # a clip's first encode is not to pay for it
        wall, cpu = time.perf_counter(), time.process_time()
        log = encode(video, job.options, policy)
        wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
        quality = measure(log.options.decode(log.stream, log.clip), video, job.metrics)
    except VpxrcError as error:
        raise type(error)(f"{job}: {error}") from error
    except Exception as error:
        raise PolicyError(f"{job}: {error!r}") from error
    row = {
        "policy": job.policy,
        "target_bitrate": job.options.target_bitrate,
        "bitrate": log.bitrate,
        "overshoot": log.bitrate / job.options.target_bitrate - 1,
        **summarize(quality, video.width, video.height),
        "encodes": log.encodes,
        "encode_seconds": wall,
        "cpu_seconds": cpu,
        "width": video.width,
        "height": video.height,
        "fps": float(video.fps),
        "num_frames": video.num_frames,
        "content_hash": video.content_hash,
        "stream_sha256": hashlib.sha256(log.stream).hexdigest(),
    }
    row = {**dataclasses.asdict(log.options), **row}
    frames = io.BytesIO()
    log.to_pandas().to_parquet(frames)
    return row, frames.getvalue(), log.stream


# In the parent


def _keep(job: _Job, row: dict[str, Any], frames: bytes, stream: bytes) -> None:
    for suffix, data in ((".parquet", frames), (".ivf", stream)):
        with atomic_write(job.path.with_suffix(suffix)) as temporary:
            temporary.write_bytes(data)
    with atomic_write(job.path) as temporary:
        temporary.write_text(json.dumps(row))


def _read_row(job: _Job) -> dict[str, Any] | None:
    try:
        row: dict[str, Any] = json.loads(job.path.read_text())
    except (OSError, ValueError):
        return None
    return row


def _collect(work: list[_Job]) -> tuple[pd.DataFrame, pd.DataFrame]:
    rows, frames = [], []
    for job in work:
        row = _read_row(job)
        if row is None:
            raise EncoderError(f"{job}: its result vanished from {job.folder}")
        # The clip's name is the caller's, and not of the result.
        rows.append({"clip": job.clip.name, **row, "key": job.path.stem})
        log = pd.read_parquet(job.path.with_suffix(".parquet"))
        log.insert(0, "clip", job.clip.name)
        log.insert(1, "policy", job.policy)
        log.insert(2, "target_bitrate", job.options.target_bitrate)
        frames.append(log)
    encodes = pd.DataFrame(rows)
    first = ["clip", "policy", "target_bitrate", "bitrate", "overshoot"]
    encodes = encodes[[*first, *encodes.columns.difference(first, sort=False)]]
    return encodes, pd.concat(frames, ignore_index=True)


def _summarize(
    encodes: pd.DataFrame,
    comparisons: pd.DataFrame,
    policies: list[str],
    rates: list[int],
    options: EncoderOptions,
) -> dict[str, Any]:
    agent, *baselines = policies
    judged = comparisons[comparisons["test"] == agent]
    metrics = list(dict.fromkeys(judged["metric"]))
    overshoot = {policy: rows["overshoot"] for policy, rows in encodes.groupby("policy")}
    return {
        "agent": agent,
        "libvpx": _native.LIBVPX_VERSION,
        "cpu_used": options.cpu_used,
        "bitrates": rates,
        "baselines": {
            baseline: {
                "bd_rate": {
                    metric: bd_rate_figures(
                        judged[(judged["anchor"] == baseline) & (judged["metric"] == metric)]
                    )
                    for metric in metrics
                }
            }
            for baseline in baselines
        },
        "constraint": {policy: constraint(overshoot[policy]) for policy in policies},
        "encode_seconds": {
            policy: float(encodes.loc[encodes["policy"] == policy, "encode_seconds"].sum())
            for policy in policies
        },
        "encodes": {
            policy: int(encodes.loc[encodes["policy"] == policy, "encodes"].sum())
            for policy in policies
        },
        "clips": [
            {
                **{name: row[name] for name in CLIP_COLUMNS},
                "bd_rate": {
                    baseline: _bd_rates(
                        judged[(judged["anchor"] == baseline) & (judged["clip"] == row["clip"])]
                    )
                    for baseline in baselines
                },
            }
            for row in encodes.drop_duplicates("clip").to_dict("records")
        ],
    }


def _bd_rates(rows: pd.DataFrame) -> dict[str, Any]:
    return {
        row["metric"]: {
            # A table has NaN where JSON has null.
            "percent": row["percent"] if row["status"] == "ok" else None,
            "status": row["status"],
            "overlap": row["overlap"],
        }
        for row in rows.to_dict("records")
    }


def _write(evaluation: Evaluation) -> None:
    """Write everything; the summary comes last, so that where it is new, all is."""
    out = evaluation.folder
    for name, rows in (("encodes", evaluation.encodes), ("frames", evaluation.frames)):
        with atomic_write(out / f"{name}.parquet") as temporary:
            rows.to_parquet(temporary)
    with atomic_write(out / "table.md") as temporary:
        temporary.write_text(table(evaluation))
    with atomic_write(out / "summary.json") as temporary:
        temporary.write_text(json.dumps(evaluation.summary, indent=2, allow_nan=False) + "\n")
