"""The commands ``teach`` and ``train``: trajectories, and agents that learn from them."""

import dataclasses
import hashlib
import json
import math
import shlex
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast, get_args, get_origin, get_type_hints

import numpy as np
import pandas as pd
import typer
from numpy.typing import NDArray
from rich.progress import Progress
from safetensors import SafetensorError
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

import vpxrc
from vpxrc import _native, agents
from vpxrc.agents.evolution import SearchOptions, Trajectory, check_start
from vpxrc.agents.evolution.search import Direction, Quality
from vpxrc.agents.evolution.teach import (
    TRAJECTORY,
    bounds,
    find_clip,
    learn,
    lessons,
    open_clip,
    result_options,
    results,
    scaled,
    stored_trajectory,
)
from vpxrc.agents.imitation.dataset import Lesson, observe
from vpxrc.cli.common import CpuUsed, Json, numbers, progress_bar
from vpxrc.cli.evaluation import CORES
from vpxrc.datasets import Clip, load_clips
from vpxrc.encoder import EncoderOptions
from vpxrc.errors import InputError, MissingDependencyError, OutputError
from vpxrc.evaluation import check_writable
from vpxrc.files import atomic_write, cache_dir, sha256_file
from vpxrc.policy import make_policy
from vpxrc.workers import open_workers

if TYPE_CHECKING:
    from vpxrc.agents.imitation.learner import Learner

START = "imitation-prior"
AGENTS = ("imitation",)
STATE_EVERY = 60.0  # seconds between two states of a training

Jobs = Annotated[int, typer.Option(min=1, help="Encodes at the same time.")]


def teach(
    clips: Annotated[
        list[str],
        typer.Argument(metavar="CLIPS", help="Sets, video files, folders or catalogues."),
    ],
    bitrates: Annotated[str, typer.Option(metavar="A,B,...", help="Targets in kbit/s.")],
    out: Annotated[Path, typer.Option(help="Folder for the lessons; what is in it is kept.")],
    per_clip: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="So many of the targets per clip, by turns."),
    ] = None,
    pixels: Annotated[
        int | None,
        typer.Option(metavar="P", min=1, help="Scale larger clips to about so many luma pixels."),
    ] = None,
    start: Annotated[
        str, typer.Option(metavar="SPEC", help="The policy that the searches start from.")
    ] = START,
    quality: Annotated[Quality, typer.Option(help="What is held equal.")] = "psnr",
    directions: Annotated[
        str, typer.Option(metavar="A,B,...", help="What is moved, in this order.")
    ] = ",".join(SearchOptions().directions),
    cpu_used: CpuUsed = 2,
    jobs: Jobs = CORES,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Search on a Ray cluster, --jobs tasks at once: local (started here), auto "
            "(running here), HOST:PORT or ray://HOST:PORT. Its machines need vpxrc, and the clips "
            "and the folder under the same paths.",
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Search for the best trajectory of every clip and target: lessons for agents, and a bound.

    Killed at any point, the same command goes on where it was. At the end bounds.md in the folder
    has what each search saved against libvpx-vbr.

    \b
    Examples:
      vpxrc teach samples --bitrates 64,128 --out lessons
      vpxrc teach train/ --bitrates 40,60,85,120 --per-clip 1 --pixels 36864 --out lessons
      vpxrc teach train/ --bitrates 64 --start tpl --quality psnr_overall --out bounds
    """  # noqa: D301 - typer wants the \b as it is
    searching = SearchOptions(quality, cast(tuple[Direction, ...], tuple(directions.split(","))))
    check_start(make_policy(start))
    given = load_clips(clips)
    rates = numbers("bitrates", bitrates)
    work = lessons(
        given,
        rates,
        EncoderOptions(cpu_used=cpu_used),
        out.absolute(),
        start=start,
        search_options=searching,
        per_clip=per_clip,
    )
    with (
        progress_bar(hidden=as_json) as bar,
        open_workers(min(jobs, len(work)), ray) as workers,
    ):
        task = bar.add_task("opening the clips", total=None)
        sized = dict(workers.unordered(partial(scaled, pixels=pixels), given))
        work = [dataclasses.replace(lesson, clip=sized[lesson.clip]) for lesson in work]
        check_writable(out)
        bar.update(task, total=len(work), description="searching")
        for lesson, path in workers.unordered(learn, work):
            if not path.is_file():
                raise OutputError(f"{lesson}: the result is not in {out}, which has to be shared")
            bar.update(task, advance=1, description=str(lesson))
    options = {
        "bitrates": bitrates,
        "per-clip": per_clip,
        "pixels": pixels,
        "start": start,
        "quality": quality,
        "directions": directions,
        "cpu-used": cpu_used,
        "out": out,
    }
    words = ["vpxrc", "teach", *clips]
    for name, value in options.items():
        words += [] if value is None else [f"--{name}", f"{value}"]
    command = shlex.join(words)
    table = bounds([next(results(lesson.path)) for lesson in work])
    text = _page(table, start, cpu_used, command)
    with atomic_write(out / "bounds.md") as temporary:
        temporary.write_text(text)
    if as_json:
        figures = table[["encodes", *_figures(table)]]
        result = {
            "command": command,
            "lessons": table.to_dict("records"),
            "mean": figures.mean().to_dict(),
            "median": figures.median().to_dict(),
        }
        print(json.dumps(_without_nan(result)))
    else:
        print(text, end="")


def _page(table: pd.DataFrame, start: str, cpu_used: int, command: str) -> str:
    """Return what was saved, in Markdown."""
    figures = _figures(table)
    titles = [name.replace("_start", ", start").replace("_found", ", found") for name in figures]
    rows = [["clip", "size", "kbit/s", "encodes", *titles]]
    for row in table.to_dict("records"):
        names = [str(row[name]) for name in ("clip", "size", "target_bitrate", "encodes")]
        rows.append([*names, *(_signed(row[name]) for name in figures)])
    for name in ("mean", "median"):
        summary = table[["encodes", *figures]].agg(name)
        cells = [_signed(summary[figure]) for figure in figures]
        rows.append([name, "", "", f"{summary['encodes']:.1f}", *cells])
    rows.insert(1, ["---"] * len(rows[0]))
    parts = [
        f"Percent of bits saved at equal quality against libvpx-vbr: by `{start}`, where the "
        f"searches start, and by what they found. cpu-used {cpu_used}, libvpx "
        f"{_native.LIBVPX_VERSION}.",
        "\n".join(f"| {' | '.join(cells)} |" for cells in rows),
    ]
    if table[figures].isna().to_numpy().any():
        parts.append(
            "`-`: libvpx-vbr's quality does not rise with its rate there. Not in mean and median."
        )
    parts.append(f"```\n{command}\n```")
    return "\n\n".join(parts) + "\n"


def _figures(table: pd.DataFrame) -> list[str]:
    return [name for name in table.columns if name.endswith(("_start", "_found"))]


def _signed(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:+.1f}"


def _without_nan(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_nan(part) for key, part in value.items()}
    if isinstance(value, list):
        return [_without_nan(part) for part in value]
    return None if isinstance(value, float) and math.isnan(value) else value


def train(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR", help="What `vpxrc teach` wrote.")],
    agent: Annotated[str, typer.Option(metavar="NAME", help="imitation.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The checkpoint, .safetensors.")],
    clips: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH_OR_SET",
            help="Where the lessons' videos are; repeatable. By default they are where they were.",
        ),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Passes over the lessons.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    no_auxiliary: Annotated[
        bool, typer.Option("--no-auxiliary", help="Learn the decisions alone, nothing beside them.")
    ] = False,
    no_tpl_inputs: Annotated[
        bool, typer.Option("--no-tpl-inputs", help="Hide the temporal dependency model.")
    ] = False,
    jobs: Jobs = CORES,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for TensorBoard's scalars.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train an agent on the lessons of `vpxrc teach`.

    Every trajectory is coded once more to see what the agent would see along it; that is kept in
    the cache. Killed at any point, the same command goes on where it was.

    \b
    Examples:
      vpxrc train --agent imitation lessons --out imitation.safetensors
      vpxrc evaluate --agent imitation:imitation.safetensors --baseline libvpx-vbr ...
    \b
    A second round starts the searches where the first agent got to:
      vpxrc teach train/ --bitrates 64,128 --start imitation:imitation.safetensors --out lessons2
      vpxrc train --agent imitation lessons lessons2 --out imitation2.safetensors
    """  # noqa: D301 - typer wants the \b as it is
    if agent not in AGENTS:
        raise InputError(f"unknown agent {agent!r}: choose from {', '.join(AGENTS)}")
    if out.suffix != ".safetensors":
        raise InputError(f"{out}: a checkpoint's name ends in .safetensors")
    try:
        import torch

        from vpxrc.agents.imitation.learner import Learner, LearnerConfig
    except ImportError as error:
        raise MissingDependencyError(
            f"training needs {error.name}: pip install 'vpxrc[agents]'"
        ) from error
    torch.set_num_threads(1)  # the network is small; and the sums come out the same everywhere
    config = LearnerConfig(seed=seed, tpl_inputs=not no_tpl_inputs)
    if epochs is not None:
        config = dataclasses.replace(config, epochs=epochs)
    if no_auxiliary:
        config = dataclasses.replace(config, auxiliary=0.0)
    known = load_clips(clips) if clips else None
    code = _code()
    sights = [
        _Sight(result, find_clip(result, known), _cache_path(result, code))
        for folder in folders
        for result in results(folder)
    ]
    writer = None if tensorboard is None else _summary_writer(tensorboard)
    check_writable(out.parent)
    with progress_bar(hidden=as_json) as bar:
        seen, contents = _see_all(sights, jobs, bar)
        learner = Learner(seen, config)
        # A state is of these lessons and this configuration only.
        key = _digest([[sight.path.name for sight in sights], dataclasses.asdict(config)])
        state = out.with_name(f"{out.name}.{key[:12]}.state")
        if state.is_file():
            learner.load_state(state)
        losses = _run(learner, state, bar, writer)
    learner.save(out, clips=" ".join(sorted(contents)))
    state.unlink(missing_ok=True)
    result = {
        "output": str(out),
        "trajectories": len(sights),
        "clips": len({sight.clip for sight in sights}),
        "epochs": config.epochs,
        "losses": losses,
    }
    if as_json:
        print(json.dumps(result))
    else:
        figures = ", ".join(f"{name} {value:.4f}" for name, value in losses.items())
        print(f"{out}: {len(sights)} trajectories of {result['clips']} clip(s); losses: {figures}")


def _run(learner: "Learner", state: Path, bar: Progress, writer: Any) -> dict[str, float]:
    """Train to the end, with a state now and then; return the last losses."""
    epochs = learner.config.epochs
    task = bar.add_task("epochs", total=epochs, completed=learner.epoch)
    kept, losses = time.monotonic(), {}

    def progress(epoch: int, parts: dict[str, float]) -> None:
        nonlocal kept, losses
        losses = parts
        bar.update(task, completed=epoch)
        if writer is not None:
            for name, value in parts.items():
                writer.add_scalar(f"loss/{name}", value, epoch)
        if epoch < epochs and time.monotonic() - kept >= STATE_EVERY:
            learner.save_state(state)
            kept = time.monotonic()

    learner.train(progress)
    if writer is not None:
        writer.close()
    return losses


def _summary_writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise MissingDependencyError("TensorBoard is missing: pip install tensorboard") from error
    check_writable(folder)
    return SummaryWriter(str(folder))


# What an agent sees along a trajectory, kept in the cache


@dataclass(frozen=True)
class _Sight:
    """A trajectory to be coded once more.

    Attributes:
        result: One of ``results``.
        clip: Its clip, at its own size.
        path: Where what is seen goes.
    """

    result: dict[str, Any]
    clip: Clip
    path: Path


def _see_all(sights: list[_Sight], jobs: int, bar: Progress) -> tuple[list[Lesson], set[str]]:
    """Return what is seen along all trajectories, and the content hashes of their clips.

    The clips' are of both sizes, the one of the lessons and their own: an evaluation may have that.
    """
    task = bar.add_task("coding the trajectories", total=len(sights))
    contents = {sight.result["content_hash"] for sight in sights}
    with open_workers(min(jobs, len(sights))) as workers:
        for _, content in workers.unordered(_see, sights):
            contents.add(content)
            bar.update(task, advance=1)
    seen: list[Lesson] = []
    for sight in sights:
        found = _read(sight.path)
        if found is None:
            raise OutputError(f"{sight.path} vanished")
        seen += found
    return seen, contents


def _see(sight: _Sight) -> str:
    """Fill the cache; return the content hash of the clip at its own size."""
    if _read(sight.path) is None:
        result = sight.result
        video = open_clip(result, [sight.clip])
        trajectory = Trajectory.from_pandas(stored_trajectory(result))
        seen = observe(result["clip"], video, result_options(result), trajectory)
        arrays = dict(_arrays(tuple(seen), "lessons"))
        with atomic_write(sight.path) as temporary:
            temporary.write_bytes(save_tensors(arrays))
    return sight.clip.open().content_hash


def _read(path: Path) -> tuple[Lesson, ...] | None:
    """Return what the cache has; None where it has nothing."""
    try:
        arrays = load_tensors(path.read_bytes())
    except (OSError, SafetensorError):
        return None
    seen: tuple[Lesson, ...] = _value(tuple[Lesson, ...], arrays, "lessons")
    return seen


def _cache_path(result: dict[str, Any], code: list[str]) -> Path:
    trajectory = result["path"].with_suffix(TRAJECTORY)
    causes = [result[name] for name in ("clip", "content_hash", "options")]
    name = _digest([code, sha256_file(trajectory), *causes])
    return cache_dir() / "lessons" / f"{name}.safetensors"


def _code() -> list[str]:
    """Return what tells this vpxrc, as far as it changes what an agent sees, from every other."""
    core, learned = (Path(str(module.__file__)).parent for module in (vpxrc, agents))
    files = [*core.glob("*.py"), *learned.glob("*/*.py"), Path(_native.__file__)]
    return [sha256_file(file) for file in sorted(files) if file.name != "learner.py"]


def _digest(causes: Any) -> str:
    return hashlib.sha256(json.dumps(causes).encode()).hexdigest()


def _arrays(value: Any, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """Yield the arrays that a value is made of, by name; :func:`_value` puts them together."""
    if dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _arrays(getattr(value, field.name), f"{name}.{field.name}")
    elif isinstance(value, tuple):
        yield name, np.asarray(len(value))
        for place, part in enumerate(value):
            yield from _arrays(part, f"{name}.{place}")
    elif isinstance(value, str):
        yield name, np.frombuffer(value.encode(), np.uint8)
    else:
        yield name, np.asarray(value)


def _value(kind: Any, arrays: dict[str, NDArray[Any]], name: str) -> Any:
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        parts = {field: _value(of, arrays, f"{name}.{field}") for field, of in hints.items()}
        return cast(Any, kind)(**parts)
    if get_origin(kind) is tuple:
        of, count = get_args(kind)[0], int(arrays[name])
        return tuple(_value(of, arrays, f"{name}.{place}") for place in range(count))
    if kind is str:
        return arrays[name].tobytes().decode()
    return float(arrays[name]) if kind is float else arrays[name]
