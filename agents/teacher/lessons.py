"""The teacher over many clips and targets: jobs, what they leave, and their table."""

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
import pandas as pd

from vpxrc import _native
from vpxrc.agents.teacher.curve import Point, anchor_curve, parts, saved
from vpxrc.agents.teacher.rounds import Table, lesson_table, read_round, write_round
from vpxrc.agents.teacher.search import SearchOptions, SearchResult, search
from vpxrc.agents.teacher.trajectory import Follow, Record, Trajectory
from vpxrc.datasets import Clip
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import InputError
from vpxrc.evaluation.verify import Check
from vpxrc.media.frames import Video, parse_fps
from vpxrc.policies.base import encode
from vpxrc.policies.registry import make_policy
from vpxrc.storage import atomic_write, parse_json, read_frame, write_frame

_LOGGED = ("psnr", "psnr_overall")  # qualities that every log has
_CODED = ("q_index", "is_shown", "bits", "sse_y", "sse_u", "sse_v")  # what came of a decision
_KINDS: dict[str, type] = {
    "clip": str,
    "content_hash": str,
    "width": int,
    "height": int,
    "start": str,
    "options": dict,
    "search": dict,
    "encodes": int,
    "saved": dict,
}
_SOURCE_KINDS: dict[str, type | UnionType] = {
    "name": str,
    "source": str | None,
    "width": int | None,
    "height": int | None,
    "start": int | float,
    "num_frames": int | None,
    "fps": str | None,
    "sha256": str | None,
    "licence": str,
}
TRAJECTORY = ".trajectory.parquet"
_SMALLEST = 16  # pixels, of a clip's sides


@dataclass(frozen=True)
class Search:
    """A search that is to be run, and where its result goes.

    Attributes:
        clip: The clip, at the size that it is searched at.
        options: The encoder's options with the target.
        start: Spec of the policy that the search starts from.
        search_options: What is tried.
        folder: Where the result goes.
    """

    clip: Clip
    options: EncoderOptions
    start: str
    search_options: SearchOptions
    folder: Path

    @property
    def path(self) -> Path:
        """The result; a parquet of the trajectory and one of the responses lie beside it."""
        size = f"{self.clip.width}x{self.clip.height}"
        return self.folder / f"{self.clip.name}-{size}-{self.options.target_bitrate}.json"

    def __str__(self) -> str:
        """What progress and errors call it."""
        return f"{self.clip.name}, {self.options.target_bitrate} kbit/s"


def scaled(clip: Clip, pixels: int | None) -> Clip:
    """Return a clip at about so many luma pixels, its aspect kept; None: at its own size.

    Raises:
        InputError: The clip cannot be read.
    """
    video = clip.open()
    width, height = video.width, video.height
    if pixels is not None and width * height > pixels:
        factor = math.sqrt(pixels / (width * height))
        width, height = (max(_SMALLEST, 2 * round(size * factor / 2)) for size in (width, height))
    return dataclasses.replace(clip, width=width, height=height)


def searches(
    clips: Sequence[Clip],
    bitrates: Sequence[int],
    options: EncoderOptions,
    folder: Path,
    *,
    start: str = "dependency",
    search_options: SearchOptions | None = None,
    per_clip: int | None = None,
) -> list[Search]:
    """Return the searches for clips and targets.

    Args:
        clips: At the sizes that they are to be searched at.
        bitrates: Targets in kbit/s.
        options: The encoder's other options.
        folder: Where the results go.
        start: Spec of the policy that the searches start from.
        search_options: What is tried.
        per_clip: So many of the targets for each clip, by turns; None: all of them.

    Raises:
        InputError: There is nothing to do.
    """
    if not clips or not bitrates:
        raise InputError("nothing to teach: no clips or no bitrates")
    if len(set(bitrates)) < len(bitrates):
        raise InputError("a bitrate is given twice")
    if per_clip is not None and not 1 <= per_clip <= len(bitrates):
        raise InputError(f"{per_clip} targets per clip, of {len(bitrates)}")
    count = len(bitrates) if per_clip is None else per_clip
    return [
        Search(
            clip,
            dataclasses.replace(options, target_bitrate=bitrates[(place + turn) % len(bitrates)]),
            start,
            search_options or SearchOptions(),
            folder,
        )
        for turn in range(count)
        for place, clip in enumerate(clips)
    ]


def learn(job: Search) -> Path:
    """Run one search and write what it found, unless it is there already.

    Killed at any point, the same call goes on with the direction that it was at.

    Returns:
        The path of the result.

    Raises:
        InputError: The clip cannot be read, the start is unknown or leaves the decisions to libvpx,
            or the result that is there is another search's.
        EncoderError: libvpx failed.
        OutputError: The folder cannot be written.
    """
    path, clip = job.path, job.clip.obtain()
    video = clip.open()
    start = make_policy(job.start)
    # Through JSON, to compare with what was written.
    asked: dict[str, Any] = json.loads(
        json.dumps(
            {
                "content_hash": video.content_hash,
                "start": job.start,
                "options": dataclasses.asdict(Record(start).options(job.options)),
                "search": dataclasses.asdict(job.search_options),
            }
        )
    )
    state = path.with_suffix(".state")
    if path.is_file():
        (there,) = results(path)
        there["options"] = dataclasses.asdict(result_options(there))
        if other := [name for name in asked if there[name] != asked[name]]:
            raise InputError(
                f"{path} is there with another {', '.join(other)}: choose another folder"
            )
        state.unlink(missing_ok=True)  # where the run that wrote the lesson ended before it did so
        return path
    quality = job.search_options.quality
    found = search(
        video,
        job.options,
        start,
        job.search_options,
        state=state,
        key=json.dumps(asked, sort_keys=True),
    )
    anchors = anchor_curve(video, job.options, quality)
    result = {
        "clip": job.clip.name,
        **asked,
        "source": {
            **{name: value for name, value in dataclasses.asdict(clip).items() if name != "origin"},
            "fps": clip.fps and str(clip.fps),
        },
        "width": video.width,
        "height": video.height,
        "num_frames": video.num_frames,
        "libvpx": _native.LIBVPX_VERSION,
        "encodes": found.encodes,
        "points": {
            "start": _measured(found.start),
            "found": _measured(found.found),
            "libvpx-vbr": [_measured(anchor) for anchor in anchors],
        },
        "saved": _savings(found, anchors, quality),
    }
    for name, table in (("trajectory", _trajectory(found)), ("responses", found.responses)):
        with atomic_write(path.with_suffix(f".{name}.parquet")) as temporary:
            write_frame(table, temporary)
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
    state.unlink(missing_ok=True)
    return path


def _measured(point: Point) -> dict[str, float | None]:
    return {
        name: None if math.isnan(value) else value
        for name, value in dataclasses.asdict(point).items()
    }


def _savings(
    found: SearchResult, anchors: tuple[Point, ...], quality: str
) -> dict[str, dict[str, float | None]]:
    names = dict.fromkeys((*_LOGGED, *parts(quality), quality))
    return {
        name: {
            "start": saved(anchors, found.start, name),
            "found": saved(anchors, found.found, name),
        }
        for name in names
    }


def _trajectory(found: SearchResult) -> pd.DataFrame:
    """Return the decisions beside what came of them."""
    table = found.trajectory.to_pandas()
    rows = found.log.coded
    for name in _CODED:
        table[name] = rows[name]
    return table


def results(place: Path) -> Iterator[dict[str, Any]]:
    """Yield lessons: what :func:`learn` wrote, or :func:`pack` put together.

    Each has its facts by name, and where it is: ``path``, and ``row`` in a round, else None.

    Args:
        place: A folder, for all single lessons in it in order of the names; one lesson, or the
            trajectory beside it; a round, for its lessons in the file's order.

    Raises:
        InputError: There are none, or one cannot be read.
    """
    if place.suffix == ".parquet" and not place.name.endswith(TRAJECTORY) and not place.is_dir():
        for row, facts in enumerate(read_round(place)):
            yield {"path": place, "row": row, **_complete(place, facts)}
        return
    if place.is_dir():
        paths = sorted(place.rglob("*-*x*-*.json"))
    else:
        paths = [place.with_name(place.name.replace(TRAJECTORY, ".json"))]
    if not paths:
        raise InputError(f"no lessons of `vpxrc teach` in {place}")
    for path in paths:
        try:
            facts = parse_json(path.read_text())
        except OSError as error:
            raise InputError(f"cannot read {path}: {error.strerror or error}") from error
        except ValueError as error:
            raise InputError(f"{path}: not a lesson of `vpxrc teach`") from error
        yield {"path": path, "row": None, **_complete(path, facts)}


def _complete(path: Path, facts: Any) -> dict[str, Any]:
    """Return a lesson's facts if they have the types that all else here computes with."""
    if not isinstance(facts, dict) or _KINDS.keys() - facts.keys():
        raise InputError(f"{path}: not a lesson of `vpxrc teach`")
    source = facts.get("source")
    wrong = _misfit(facts, _KINDS)
    if source is not None and not (
        isinstance(source, dict)
        and {"name", "source"} <= source.keys() <= _SOURCE_KINDS.keys()
        and _misfit(source, _SOURCE_KINDS) is None
    ):
        wrong = "source"
    if wrong is None and not all(
        isinstance(stages, dict)
        and all(value is None or _is(value, int | float) for value in stages.values())
        for stages in facts["saved"].values()
    ):
        wrong = "saved"
    try:
        result_options(facts)
    except (InputError, TypeError, AttributeError):
        wrong = wrong or "options"
    if wrong is not None:
        raise InputError(f"{path}: not a lesson of `vpxrc teach`: its {wrong} cannot be that")
    return facts


def _misfit(facts: dict[str, Any], kinds: Mapping[str, type | UnionType]) -> str | None:
    """Return the name of a fact that is of another type; None where all fit."""
    return next((n for n, kind in kinds.items() if n in facts and not _is(facts[n], kind)), None)


def _is(value: Any, kind: type | UnionType) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)


def pack(path: Path, found: Sequence[dict[str, Any]]) -> None:
    """Put lessons together in one file, a round, with all that their own files have.

    Args:
        path: The round to write.
        found: Lessons of :func:`results`, at least one.

    Raises:
        InputError: A lesson's tables cannot be read.
        OutputError: The file cannot be written.
    """
    places = ("path", "row")
    write_round(
        path,
        [
            (
                {name: value for name, value in result.items() if name not in places},
                _stored(result, "trajectory"),
                _stored(result, "responses"),
            )
            for result in found
        ],
    )


def result_options(result: dict[str, Any]) -> EncoderOptions:
    """Return the options that a result was encoded with; unknown here are another version's."""
    known = {field.name for field in dataclasses.fields(EncoderOptions)}
    return EncoderOptions(**{k: v for k, v in result["options"].items() if k in known})


def stored_trajectory(result: dict[str, Any]) -> pd.DataFrame:
    """Return a lesson's trajectory, and what came of it.

    Raises:
        InputError: It cannot be read.
    """
    table = _stored(result, "trajectory")
    if missing := set(_CODED) - set(table.columns):
        raise InputError(f"{result['path']}: no column {min(missing)!r}")
    return table


def _stored(result: dict[str, Any], name: Table) -> pd.DataFrame:
    """Return a table of a lesson, from its round or from the file beside it."""
    if result["row"] is not None:
        return lesson_table(result["path"], result["row"], name)
    path = result["path"].with_suffix(f".{name}.parquet")
    try:
        return read_frame(path)
    except (OSError, ValueError) as error:
        raise InputError(f"cannot read {path}: {error}") from error


def find_clip(result: dict[str, Any], clips: Sequence[Clip] | None = None) -> Clip:
    """Return the clip that a result is of, at its own size.

    Args:
        result: A lesson of :func:`results`.
        clips: Where to look for it, by name; None: where it was when the search ran.

    Raises:
        InputError: It is not there.
    """
    path, name = result["path"], result["clip"]
    if clips is not None:
        for clip in clips:
            if clip.name == name:
                return clip
        raise InputError(f"{path} is of {name}, which is not among the clips")
    source = result.get("source")
    if source is None:
        raise InputError(f"{path} does not say where {name} is: give the clips")
    fps = source["fps"] and parse_fps(source["fps"])
    return Clip(**{**source, "fps": fps, "width": None, "height": None})


def open_clip(result: dict[str, Any], clips: Sequence[Clip] | None = None) -> Video:
    """Return the frames that a result is of; see :func:`find_clip`.

    Raises:
        InputError: The clip is not there, or another one.
    """
    clip = find_clip(result, clips)
    video = dataclasses.replace(clip, width=result["width"], height=result["height"]).open()
    if video.content_hash != result["content_hash"]:
        raise InputError(f"{result['path']} is of another clip than this {clip.name}")
    return video


def replay(result: dict[str, Any], clips: Sequence[Clip] | None = None) -> Check:
    """Encode a result's trajectory once more, and compare every frame's bits and errors.

    Args:
        result: A lesson of :func:`results`.
        clips: See :func:`find_clip`.

    Raises:
        InputError: The clip or the trajectory cannot be used.
        EncoderError: libvpx failed.
    """
    table = stored_trajectory(result)
    trajectory = Trajectory.from_pandas(table)
    video = open_clip(result, clips)
    options = result_options(result)
    log = encode(video, options, Follow(trajectory))
    size = f"{video.width}x{video.height}"
    name = f"a lesson's replay [{video.name}, {size}, {options.target_bitrate} kbit/s]"
    if not trajectory.fits(log):
        return Check(name, False, "other frames are coded")
    rows = log.coded
    same = np.logical_and.reduce([table[column].to_numpy() == rows[column] for column in _CODED])
    if same.all():
        return Check(name, True, f"{len(same)} coded frames, bits and errors identical")
    first = int(same.argmin())
    return Check(name, False, f"{(~same).sum()} of {len(same)} frames differ, from frame {first}")


def bounds(found: Sequence[dict[str, Any]]) -> pd.DataFrame:
    """Return a row per result: what was saved against libvpx-vbr at the start, and found.

    Columns are ``clip``, ``size``, ``target_bitrate``, ``encodes`` and, per quality,
    ``QUALITY_start`` and ``QUALITY_found``: percent of bits, NaN where libvpx-vbr has no curve.
    """
    rows = []
    for result in found:
        row: dict[str, Any] = {
            "clip": result["clip"],
            "size": f"{result['width']}x{result['height']}",
            "target_bitrate": result["options"]["target_bitrate"],
            "encodes": result["encodes"],
        }
        for quality, values in result["saved"].items():
            for stage, value in values.items():
                row[f"{quality}_{stage}"] = math.nan if value is None else value
        rows.append(row)
    return pd.DataFrame(rows)
