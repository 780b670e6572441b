"""The command ``train``: agents that learn from lessons, or by encoding."""

import dataclasses
import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer
from rich.progress import Progress

from vpxrc.agents.imitation.training import train_imitation
from vpxrc.agents.muzero.config import MuZeroConfig
from vpxrc.agents.scalars import open_board
from vpxrc.agents.teacher.lessons import scaled, searches
from vpxrc.cli.common import CORES, CpuUsed, Json, gather_clips, numbers, progress_bar
from vpxrc.cli.teach import Jobs
from vpxrc.datasets import Clip
from vpxrc.encoder.options import EncoderOptions
from vpxrc.envs.residual.config import Move, ResidualConfig
from vpxrc.errors import InputError, MissingDependencyError
from vpxrc.parallel import open_workers

_BY_LESSONS = ("imitation", "bc", "marwil")
_BY_ENCODING = ("muzero", "ppo", "sac")
AGENTS = ("imitation", "muzero", "ppo", "sac", "bc", "marwil")
_RLLIB = ("ppo", "sac", "bc", "marwil")
# Where --iterations is not given: of ppo and sac with the encodes of each, of the others updates.
_ITERATIONS = {"ppo": 100, "sac": 200, "bc": 100, "marwil": 100}  # more learns the lessons by heart
Decisions = Literal["group", "frame"]
# Which agents read an option; those that are not here are read by all.
_READ_BY: dict[str, tuple[str, ...]] = {
    **dict.fromkeys(("epochs", "no_auxiliary", "no_dependency_inputs"), ("imitation",)),
    "clips": _BY_LESSONS,
    **dict.fromkeys(("bitrates", "pixels", "auto_alt_ref", "cpu_used", "reference"), _BY_ENCODING),
    **dict.fromkeys(
        ("per_clip", "episodes", "minutes", "simulations", "envs", "overshoot_price"), ("muzero",)
    ),
    "iterations": _RLLIB,
    "reward": _BY_ENCODING,
    "moves": ("muzero", "ppo", "bc", "marwil"),  # sac has a continuum
    **dict.fromkeys(("decisions", "plan", "ray", "device", "settings"), ("muzero", *_RLLIB)),
}


def train(
    context: typer.Context,
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUTS",
            help="imitation, bc, marwil: folders of `vpxrc teach`. muzero, ppo, sac: sets, "
            "video files, folders or catalogues.",
        ),
    ],
    agent: Annotated[str, typer.Option(metavar="NAME", help=f"One of {', '.join(AGENTS)}.")],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The checkpoint, .safetensors.")],
    bitrates: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Targets in kbit/s, of muzero, ppo and sac."),
    ] = None,
    per_clip: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="muzero: so many targets per clip, by turns."),
    ] = None,
    pixels: Annotated[
        int | None,
        typer.Option(metavar="P", min=1, help="Scale larger clips to about so many luma pixels."),
    ] = None,
    episodes: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, help="muzero: encodes in all; 2000 where --minutes is not given."
        ),
    ] = None,
    minutes: Annotated[
        float | None, typer.Option(metavar="M", min=0.0, help="muzero: how long, in all.")
    ] = None,
    iterations: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="ppo, sac: rounds; bc, marwil: updates."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="imitation: passes over the lessons.")
    ] = None,
    reward: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="gain (percent of bits saved). muzero also: strict, augmented (against its own "
            "average), opponent (against its past). ppo, sac: self-competition.",
        ),
    ] = "gain",
    overshoot_price: Annotated[
        float | None,
        typer.Option(
            metavar="P",
            min=0.0,
            help="Of augmented, dB per kbit/s; by default 0.005 * 512 / mean target.",
        ),
    ] = None,
    reference: Annotated[
        str | None,
        typer.Option(
            metavar="SPEC", help="What gain and opponent measure against; the plan by default."
        ),
    ] = None,
    plan: Annotated[
        str,
        typer.Option(
            metavar="SPEC",
            help="The policy that is moved; constant-q:120 for control from scratch.",
        ),
    ] = ResidualConfig().plan,
    decisions: Annotated[
        str, typer.Option(metavar="group|frame", help="One per golden-frame group, or per frame.")
    ] = ResidualConfig().decisions,
    moves: Annotated[
        str | None,
        typer.Option(
            metavar="L:R,...",
            help="The actions: log2 of the step for all frames, and besides for those that others "
            "depend on. The first is 0:0.",
        ),
    ] = None,
    simulations: Annotated[
        int, typer.Option(metavar="N", min=1, help="muzero: of the search per decision.")
    ] = MuZeroConfig().simulations,
    settings: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="NAME=VALUE",
            help="A field of the agent's MuZeroConfig or RllibConfig; repeatable.",
        ),
    ] = None,
    clips: Annotated[
        list[str] | None,
        typer.Option(
            metavar="PATH_OR_SET",
            help="Where the lessons' videos are; repeatable. By default they are where they were.",
        ),
    ] = None,
    no_auxiliary: Annotated[
        bool,
        typer.Option("--no-auxiliary", help="imitation: learn the decisions alone, no more."),
    ] = False,
    no_dependency_inputs: Annotated[
        bool,
        typer.Option(
            "--no-dependency-inputs", help="imitation: hide the temporal dependency model."
        ),
    ] = False,
    cpu_used: CpuUsed = 2,
    auto_alt_ref: Annotated[
        int, typer.Option(help="Layers of alternate reference frames, where the plan has no say.")
    ] = EncoderOptions().auto_alt_ref,
    jobs: Jobs = CORES,
    envs: Annotated[
        int, typer.Option(min=1, help="muzero: encodes at the same time in each job.")
    ] = 4,
    ray: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="Encode on a Ray cluster: local (started here), auto (running here), HOST:PORT or "
            "ray://HOST:PORT. Its machines need vpxrc, and the clips under the same paths.",
        ),
    ] = None,
    device: Annotated[
        str, typer.Option(metavar="cpu|cuda", help="Where the networks are trained.")
    ] = "cpu",
    seed: Annotated[int, typer.Option(min=0, help="Of everything random.")] = 0,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for TensorBoard's scalars.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train an agent: on the lessons of `vpxrc teach`, or by encoding clips.

    Killed at any point, the same command goes on where it was.

    \b
    Examples:
      vpxrc train --agent imitation lessons --out imitation.safetensors
      vpxrc evaluate --agent imitation:imitation.safetensors --baseline libvpx-vbr ...
    \b
    A second round starts the searches where the first agent got to:
      vpxrc teach train/ --bitrates 64,128 --start imitation:imitation.safetensors --out lessons2
      vpxrc train --agent imitation lessons lessons2 --out imitation2.safetensors
    \b
    MuZero moves what another policy decides, or decides everything itself:
      vpxrc train --agent muzero train/ --bitrates 40,60,85,120 --per-clip 1 --pixels 36864 \\
        --episodes 3000 --out muzero.safetensors
      vpxrc train --agent muzero train/ --bitrates 64 --plan constant-q:120 --auto-alt-ref 6 \\
        --decisions frame --reward strict --minutes 600 --out scratch.safetensors
      vpxrc evaluate --agent muzero:muzero.safetensors --baseline imitation ...
    """  # noqa: D301 - typer wants the \b as it is
    if agent not in AGENTS:
        raise InputError(f"unknown agent {agent!r}: choose from {', '.join(AGENTS)}")
    _check_read(context, agent)
    if out.suffix != ".safetensors":
        raise InputError(f"{out}: a checkpoint's name ends in .safetensors")
    if agent == "imitation":
        changes: dict[str, Any] = {"seed": seed, "dependency_inputs": not no_dependency_inputs}
        if epochs is not None:
            changes["epochs"] = epochs
        if no_auxiliary:
            changes["auxiliary"] = 0.0
        folders = [Path(folder) for folder in inputs]
        result, words = train_imitation(folders, out, changes, clips, jobs, tensorboard, as_json)
    else:
        asked = _Asked(
            agent=agent,
            out=out,
            inputs=inputs,
            bitrates=None if bitrates is None else numbers("bitrates", bitrates),
            pixels=pixels,
            planned=ResidualConfig(plan, cast(Decisions, decisions), _moves(moves)),
            settings=dict(_setting(text) for text in settings or []),
            options=EncoderOptions(cpu_used=cpu_used, auto_alt_ref=auto_alt_ref),
            reward=reward,
            reference=reference,
            seed=seed,
            jobs=jobs,
            ray=ray,
            device=device,
            tensorboard=tensorboard,
            hidden=as_json,
        )
        if agent == "muzero":
            result, words = _muzero(
                asked, per_clip, episodes, minutes, simulations, envs, overshoot_price
            )
        else:
            result, words = _rllib(asked, iterations or _ITERATIONS[agent], clips)
    print(json.dumps(result) if as_json else words)


def _check_read(context: typer.Context, agent: str) -> None:
    """Refuse options that the agent does not read.

    Raises:
        InputError: There is one.
    """
    for name, readers in _READ_BY.items():
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and agent not in readers:
            option = "--set" if name == "settings" else f"--{name.replace('_', '-')}"
            raise InputError(f"{option} is not for {agent}, but for {', '.join(readers)}")


# Agents that move the decisions of a plan


@dataclass(frozen=True)
class _Asked:
    """What the command line says of an agent that moves a plan's decisions.

    Attributes:
        agent: Its name.
        out: The checkpoint.
        inputs: Clips or lessons.
        bitrates: Targets in kbit/s.
        pixels: What larger clips are scaled to.
        planned: What it acts on.
        settings: Fields of its configuration, by name.
        options: The encoder's, but for the target.
        reward: Its name.
        reference: What gains are counted from; None for the plan.
        seed: Of everything random.
        jobs: Encodes, or workers, at the same time.
        ray: Address of a Ray cluster.
        device: Of the learner.
        tensorboard: Folder for TensorBoard's scalars.
        hidden: Whether no progress is to be shown.
    """

    agent: str
    out: Path
    inputs: list[str]
    bitrates: list[int] | None
    pixels: int | None
    planned: ResidualConfig
    settings: dict[str, Any]
    options: EncoderOptions
    reward: str
    reference: str | None
    seed: int
    jobs: int
    ray: str | None
    device: str
    tensorboard: Path | None
    hidden: bool

    def rates(self) -> list[int]:
        """Return the targets.

        Raises:
            InputError: There are none.
        """
        if self.bitrates is None:
            raise InputError(f"{self.agent} needs --bitrates")
        return self.bitrates

    def sized(self, clips: list[Clip], bar: Progress) -> dict[Clip, tuple[Clip, frozenset[str]]]:
        """Return clips at the size that they are trained at, with content hashes.

        The hashes are of both sizes, this and their own: an evaluation may have that.

        Raises:
            InputError: A clip cannot be read.
        """
        task = bar.add_task("opening the clips", total=len(clips))
        found = {}
        with open_workers(min(self.jobs, len(clips))) as workers:
            for clip, opened in workers.unordered(partial(_sized, pixels=self.pixels), clips):
                found[clip] = opened
                bar.update(task, advance=1)
        bar.remove_task(task)
        return found


def _sized(clip: Clip, pixels: int | None) -> tuple[Clip, frozenset[str]]:
    sized = scaled(clip, pixels)
    return sized, frozenset({clip.open().content_hash, sized.open().content_hash})


def _muzero(
    asked: _Asked,
    per_clip: int | None,
    episodes: int | None,
    minutes: float | None,
    simulations: int,
    envs: int,
    overshoot_price: float | None,
) -> tuple[dict[str, Any], str]:
    """Train MuZero; return what came of it, and that in words."""
    try:
        from vpxrc.agents.muzero import training
        from vpxrc.agents.muzero.actor import Task
        from vpxrc.agents.muzero.purpose import Purpose, RewardName
    except ImportError as error:
        raise MissingDependencyError(
            f"training needs {error.name}: pip install 'vpxrc[agents]'"
        ) from error
    values = {"simulations": simulations, "seed": asked.seed, **asked.settings}
    if asked.planned.plan.partition(":")[0] == "constant-q":
        values.setdefault("as_planned", None)  # the plan is no better than any other move
    config = _configured(MuZeroConfig, values)
    given, _ = gather_clips(asked.inputs, asked.hidden)
    work = searches(given, asked.rates(), asked.options, asked.out, per_clip=per_clip)
    purpose = Purpose(
        tuple(Task(lesson.clip, lesson.options) for lesson in work),
        asked.planned,
        cast(RewardName, asked.reward),
        overshoot_price,
        asked.reference,
    )
    with progress_bar(asked.hidden) as bar, open_board(asked.tensorboard) as write:
        sized = asked.sized(given, bar)
        tasks = [dataclasses.replace(task, clip=sized[task.clip][0]) for task in purpose.tasks]
        shown = bar.add_task("starting", total=episodes)

        def progress(
            done: int, total: int | None, words: str, row: dict[str, float] | None
        ) -> None:
            bar.update(shown, completed=done, total=total, description=words)
            if row is not None:
                write(row, row["episodes"])

        result = training.train(
            asked.out,
            dataclasses.replace(purpose, tasks=tuple(tasks)),
            config,
            clips=frozenset[str]().union(*(contents for _, contents in sized.values())),
            episodes=episodes,
            minutes=minutes,
            jobs=asked.jobs,
            envs=envs,
            ray=asked.ray,
            device=asked.device,
            progress=progress,
        )
    figures = [
        f"{name.replace('_', ' ')} {result[name]:+.3f}"
        for name in ("episode_return", "win_rate", "overshoot", "as_planned")
        if result[name] is not None
    ]
    words = (
        f"{asked.out}: {result['episodes']} episodes, {result['decisions']} decisions, "
        f"{result['updates']} updates; of late: {', '.join(figures)}"
    )
    return result, words


def _rllib(asked: _Asked, iterations: int, clips: list[str] | None) -> tuple[dict[str, Any], str]:
    """Train with RLlib; return what came of it, and that in words."""
    try:
        from vpxrc.agents.rllib import training
    except ImportError as error:
        raise MissingDependencyError(
            f"training needs {error.name}: pip install 'vpxrc[ray]'"
        ) from error
    options = dict(asked.settings)
    rates: list[int] = []
    places: list[Path] = []
    wanted = clips or [] if asked.agent in _BY_LESSONS else asked.inputs
    given = gather_clips(wanted, asked.hidden)[0] if wanted else []
    with progress_bar(asked.hidden) as bar, open_board(asked.tensorboard) as write:
        if asked.agent in _BY_LESSONS:
            known = given
            places = [Path(place) for place in asked.inputs]
        else:
            rates = asked.rates()
            sized = asked.sized(given, bar)
            known = [sized[clip][0] for clip in given]
            options |= {
                "cpu_used": asked.options.cpu_used,
                "auto_alt_ref": asked.options.auto_alt_ref,
                "reward": asked.reward,
                "reference": asked.reference,
            }
        shown = bar.add_task("iterations", total=iterations)

        def progress(iteration: int, figures: dict[str, float]) -> None:
            bar.update(shown, completed=iteration)
            write(figures, iteration)

        result = training.train(
            asked.agent,
            asked.out,
            config=asked.planned,
            clips=known,
            target_bitrates=rates,
            options=options,
            iterations=iterations,
            runners=asked.jobs,
            seed=asked.seed,
            ray=asked.ray,
            lessons=places,
            device=asked.device,
            progress=progress,
        )
    figures = ", ".join(f"{name} {value:.4f}" for name, value in result["figures"].items())
    return result, f"{asked.out}: {iterations} iterations; {figures}"


def _moves(text: str | None) -> tuple[Move, ...] | None:
    """Return the moves of ``LEVEL:REFERENCE,...``.

    Raises:
        InputError: It is something else.
    """
    if text is None:
        return None
    try:
        pairs = [part.split(":") for part in text.split(",")]
        return tuple((float(level), float(reference)) for level, reference in pairs)
    except ValueError:
        raise InputError(
            f"--moves takes LEVEL:REFERENCE pairs with commas between, not {text!r}"
        ) from None


def _setting(text: str) -> tuple[str, Any]:
    """Return name and value of ``NAME=VALUE``; the value is JSON, or else a text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise InputError(f"--set takes NAME=VALUE, not {text!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _configured(kind: type[MuZeroConfig], values: dict[str, Any]) -> MuZeroConfig:
    """Return a configuration with some fields of its own.

    Raises:
        InputError: There is no such field, or it takes no such value.
    """
    fields = {field.name: field.default for field in dataclasses.fields(kind)}
    for name, value in values.items():
        if name not in fields:
            raise InputError(f"--set: no {name!r}; there are {', '.join(fields)}")
        whole = isinstance(fields[name], int)
        number = isinstance(value, int) or (isinstance(value, float) and not whole)
        if not number and not (value is None and name == "as_planned"):
            raise InputError(f"--set: {name} takes {'an integer' if whole else 'a number'}")
    return kind(**values)
