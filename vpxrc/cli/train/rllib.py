"""``train --agent ppo``, ``sac``, ``bc`` and ``marwil``: RLlib's algorithms."""

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from vpxrc.agents.clips import size_clips
from vpxrc.cli.common import (
    CORES,
    CpuUsed,
    EncoderSpec,
    Jobs,
    Json,
    gather_clips,
    numbers,
    watched,
)
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
    LessonClips,
    Lessons,
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
from vpxrc.encoder.registry import make_options
from vpxrc.errors import needing

Rounds = Annotated[
    int,
    typer.Option("--iterations", metavar="N", min=1, help="Rounds of encodes and their updates."),
]
Updates = Annotated[
    int, typer.Option("--iterations", metavar="N", min=1, help="Updates of the networks.")
]
Reward = Annotated[
    str,
    typer.Option(
        metavar="NAME",
        help="gain: percent of bits saved. self-competition: beat the agent's own average.",
    ),
]


def ppo(
    clips: Clips,
    out: Out,
    bitrates: Bitrates,
    pixels: Pixels = None,
    iterations: Rounds = 100,
    reward: Reward = "gain",
    reference: Reference = None,
    base: Base = BASE,
    decisions: Decisions = DECISIONS,
    offsets: Offsets = None,
    settings: Settings = None,
    encoder: EncoderSpec = "vp9",
    cpu_used: CpuUsed = 2,
    auto_alt_ref: AutoAltRef = AUTO_ALT_REF,
    jobs: Jobs = CORES,
    ray: Ray = None,
    device: Device = "cpu",
    seed: Seed = 0,
    tensorboard: TensorBoard = None,
    as_json: Json = False,
) -> None:
    """Correct a policy's decisions by a few step sizes (PPO).

    RLlib trains it. A command that was interrupted or killed continues where it was when it is run
    again.

    \b
    Example:
      vpxrc train --agent ppo train/ --bitrates 40,60,85,120 --pixels 36864 --out ppo.safetensors
    """  # noqa: D301 - typer wants the \b as it is
    own = {"reward": reward, "reference": reference, **_encoder(encoder, cpu_used, auto_alt_ref)}
    _by_encoding(
        "ppo",
        clips,
        pixels,
        out=out,
        config=problem(base, decisions, offsets),
        target_bitrates=numbers("bitrates", bitrates),
        options={**settings_of(settings), **own},
        iterations=iterations,
        runners=jobs,
        ray=ray,
        device=device,
        seed=seed,
        tensorboard=tensorboard,
        as_json=as_json,
    )


def sac(
    clips: Clips,
    out: Out,
    bitrates: Bitrates,
    pixels: Pixels = None,
    iterations: Rounds = 200,
    reward: Reward = "gain",
    reference: Reference = None,
    base: Base = BASE,
    decisions: Decisions = DECISIONS,
    settings: Settings = None,
    encoder: EncoderSpec = "vp9",
    cpu_used: CpuUsed = 2,
    auto_alt_ref: AutoAltRef = AUTO_ALT_REF,
    jobs: Jobs = CORES,
    ray: Ray = None,
    device: Device = "cpu",
    seed: Seed = 0,
    tensorboard: TensorBoard = None,
    as_json: Json = False,
) -> None:
    """Correct a policy's decisions by any amount (SAC).

    RLlib trains it. A command that was interrupted or killed continues where it was when it is run
    again.

    \b
    Example:
      vpxrc train --agent sac train/ --bitrates 40,60,85,120 --pixels 36864 --out sac.safetensors
    """  # noqa: D301 - typer wants the \b as it is
    own = {"reward": reward, "reference": reference, **_encoder(encoder, cpu_used, auto_alt_ref)}
    _by_encoding(
        "sac",
        clips,
        pixels,
        out=out,
        config=problem(base, decisions),
        target_bitrates=numbers("bitrates", bitrates),
        options={**settings_of(settings), **own},
        iterations=iterations,
        runners=jobs,
        ray=ray,
        device=device,
        seed=seed,
        tensorboard=tensorboard,
        as_json=as_json,
    )


def bc(
    lessons: Lessons,
    out: Out,
    clips: LessonClips = None,
    iterations: Updates = 100,
    base: Base = BASE,
    decisions: Decisions = DECISIONS,
    offsets: Offsets = None,
    settings: Settings = None,
    jobs: Jobs = CORES,
    ray: Ray = None,
    device: Device = "cpu",
    seed: Seed = 0,
    tensorboard: TensorBoard = None,
    as_json: Json = False,
) -> None:
    """Learn the teacher's corrections of a policy (BC).

    RLlib trains it. A command that was interrupted or killed continues where it was when it is run
    again.

    \b
    Example:
      vpxrc train --agent bc lessons --clips train/ --iterations 100 --out bc.safetensors
    """  # noqa: D301 - typer wants the \b as it is
    _by_lessons(
        "bc",
        lessons,
        clips,
        out=out,
        config=problem(base, decisions, offsets),
        options=settings_of(settings),
        iterations=iterations,
        runners=jobs,
        ray=ray,
        device=device,
        seed=seed,
        tensorboard=tensorboard,
        as_json=as_json,
    )


def marwil(
    lessons: Lessons,
    out: Out,
    clips: LessonClips = None,
    iterations: Updates = 100,
    base: Base = BASE,
    decisions: Decisions = DECISIONS,
    offsets: Offsets = None,
    settings: Settings = None,
    jobs: Jobs = CORES,
    ray: Ray = None,
    device: Device = "cpu",
    seed: Seed = 0,
    tensorboard: TensorBoard = None,
    as_json: Json = False,
) -> None:
    """Learn these corrections weighted by their gain (MARWIL).

    RLlib trains it. A command that was interrupted or killed continues where it was when it is run
    again.

    \b
    Example:
      vpxrc train --agent marwil lessons --clips train/ --set beta=0.5 --out marwil.safetensors
    """  # noqa: D301 - typer wants the \b as it is
    _by_lessons(
        "marwil",
        lessons,
        clips,
        out=out,
        config=problem(base, decisions, offsets),
        options=settings_of(settings),
        iterations=iterations,
        runners=jobs,
        ray=ray,
        device=device,
        seed=seed,
        tensorboard=tensorboard,
        as_json=as_json,
    )


def _encoder(encoder: str, cpu_used: int, auto_alt_ref: int) -> dict[str, int | str]:
    options = make_options(encoder, cpu_used=cpu_used, auto_alt_ref=auto_alt_ref)
    return {
        "encoder": options.encoder,
        "cpu_used": options.cpu_used,
        "auto_alt_ref": options.auto_alt_ref,
    }


def _by_encoding(
    algorithm: str,
    clips: list[str],
    pixels: int | None,
    *,
    tensorboard: Path | None,
    as_json: bool,
    **arguments: Any,
) -> None:
    """Train on clips, and print what came of it; ``arguments`` are those of RLlib's training."""
    with needing("training needs", "ray"):
        from vpxrc.agents.rllib.training import train
    given, _ = gather_clips(clips, as_json)
    with watched(as_json, tensorboard) as progress:
        sized = size_clips(given, pixels, jobs=arguments["runners"], progress=progress)
        known = [sized[clip].clip for clip in given]
        result = train(algorithm, clips=known, lessons=(), progress=progress, **arguments)
    _show(result, as_json)


def _by_lessons(
    algorithm: str,
    lessons: list[Path],
    clips: list[str] | None,
    *,
    tensorboard: Path | None,
    as_json: bool,
    **arguments: Any,
) -> None:
    """Train on lessons, and print what came of it; ``arguments`` are those of RLlib's training."""
    with needing("training needs", "ray"):
        from vpxrc.agents.rllib.training import train
    known = gather_clips(clips, as_json)[0] if clips else []
    with watched(as_json, tensorboard) as progress:
        result = train(
            algorithm,
            clips=known,
            target_bitrates=(),
            lessons=lessons,
            progress=progress,
            **arguments,
        )
    _show(result, as_json)


def _show(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(result))
        return
    figures = ", ".join(f"{name} {value:.4f}" for name, value in result["figures"].items())
    print(f"{result['output']}: {result['iterations']} iterations; {figures}")
