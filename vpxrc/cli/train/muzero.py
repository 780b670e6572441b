"""``train --agent muzero``."""

import dataclasses
import json
from typing import Annotated, Any, cast

import typer

from vpxrc.agents.clips import size_clips
from vpxrc.agents.muzero.config import MuZeroConfig
from vpxrc.agents.teacher.lessons import searches
from vpxrc.cli.common import CORES, CpuUsed, Jobs, Json, gather_clips, numbers, watched
from vpxrc.cli.train.options import (
    AUTO_ALT_REF,
    BASE,
    DECISIONS,
    AutoAltRef,
    Base,
    Bitrates,
    Clips,
    Decisions,
    Device,
    Offsets,
    Out,
    Pixels,
    Ray,
    Reference,
    Seed,
    Settings,
    TensorBoard,
    problem,
    settings_of,
)
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import needing

SIMULATIONS = MuZeroConfig().simulations
PerClip = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Train each clip at N of the targets, which the clips take in turn.",
    ),
]
Episodes = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Encodes in all. By default 2000, or no limit where --minutes is given.",
    ),
]
Minutes = Annotated[float | None, typer.Option(metavar="M", min=0.0, help="Training time in all.")]
Reward = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="gain: percent of bits saved. strict, augmented: beat the agent's own average. "
        "opponent: beat the agent as it was.",
    ),
]
OvershootPrice = Annotated[
    float | None,
    typer.Option(
        metavar="P",
        min=0.0,
        help="Deduction for overshoot of the reward augmented, dB per kbit/s. By default 0.005 * "
        "512 / mean target.",
    ),
]
Simulations = Annotated[
    int, typer.Option(metavar="N", min=1, help="Simulations of the tree search per decision.")
]
Envs = Annotated[int, typer.Option(min=1, help="Encodes at the same time in each job.")]


def muzero(
    clips: Clips,
    out: Out,
    bitrates: Bitrates,
    per_clip: PerClip = None,
    pixels: Pixels = None,
    episodes: Episodes = None,
    minutes: Minutes = None,
    reward: Reward = "gain",
    overshoot_price: OvershootPrice = None,
    reference: Reference = None,
    base: Base = BASE,
    decisions: Decisions = DECISIONS,
    offsets: Offsets = None,
    simulations: Simulations = SIMULATIONS,
    settings: Settings = None,
    cpu_used: CpuUsed = 2,
    auto_alt_ref: AutoAltRef = AUTO_ALT_REF,
    jobs: Jobs = CORES,
    envs: Envs = 4,
    ray: Ray = None,
    device: Device = "cpu",
    seed: Seed = 0,
    tensorboard: TensorBoard = None,
    as_json: Json = False,
) -> None:
    """Correct a policy's decisions by a tree search (MuZero).

    The search looks ahead in a model that is learned along with it. Over `--base constant-q:120`
    the agent takes every decision itself.

    A command that was interrupted or killed continues where it was when it is run again.

    \b
    Examples:
      vpxrc train --agent muzero train/ --bitrates 40,60,85,120 --per-clip 1 --pixels 36864 \\
        --episodes 3000 --out muzero.safetensors
      vpxrc train --agent muzero train/ --bitrates 64 --base constant-q:120 --auto-alt-ref 6 \\
        --decisions frame --reward strict --minutes 600 --out scratch.safetensors
      vpxrc evaluate --agent muzero:muzero.safetensors --baseline imitation ...
    """  # noqa: D301 - typer wants the \b as it is
    residual, targets = problem(base, decisions, offsets), numbers("bitrates", bitrates)
    own = {"simulations": simulations, "seed": seed, **settings_of(settings)}
    with needing("training needs", "agents"):
        from vpxrc.agents.muzero import training
        from vpxrc.agents.muzero.actor import Task
        from vpxrc.agents.muzero.purpose import Purpose, RewardName
    config = MuZeroConfig.for_base(residual.base, own)
    options = EncoderOptions(cpu_used=cpu_used, auto_alt_ref=auto_alt_ref)
    given, _ = gather_clips(clips, as_json)
    work = searches(given, targets, options, out, per_clip=per_clip)
    purpose = Purpose(
        tuple(Task(job.clip, job.options) for job in work),
        residual,
        cast(RewardName, reward),
        overshoot_price,
        reference,
    )
    with watched(as_json, tensorboard) as progress:
        sized = size_clips(given, pixels, jobs=jobs, progress=progress)
        tasks = [dataclasses.replace(task, clip=sized[task.clip].clip) for task in purpose.tasks]
        result = training.train(
            out,
            dataclasses.replace(purpose, tasks=tuple(tasks)),
            config,
            clips=frozenset[str]().union(*(clip.contents for clip in sized.values())),
            episodes=episodes,
            minutes=minutes,
            jobs=jobs,
            envs=envs,
            ray=ray,
            device=device,
            progress=progress,
        )
    if as_json:
        print(json.dumps(result))
        return
    print(f"{out}: {_words(result)}")


def _words(result: dict[str, Any]) -> str:
    """Return a training's figures in words."""
    figures = [
        f"{name.replace('_', ' ')} {result[name]:+.3f}"
        for name in ("episode_return", "win_rate", "overshoot", "kept")
        if result[name] is not None
    ]
    return (
        f"{result['episodes']} episodes, {result['decisions']} decisions, "
        f"{result['updates']} updates; of late: {', '.join(figures)}"
    )
