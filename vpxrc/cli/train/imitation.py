"""``train --agent imitation``."""

import json
from typing import Annotated

import typer

from vpxrc.agents.imitation.config import LearnerConfig
from vpxrc.cli.common import CORES, Jobs, Json, gather_clips, watched
from vpxrc.cli.train.options import LessonClips, Lessons, Out, Seed, TensorBoard
from vpxrc.errors import needing


def imitation(
    lessons: Lessons,
    out: Out,
    epochs: Annotated[
        int, typer.Option(metavar="N", min=1, help="Passes over the lessons.")
    ] = LearnerConfig().epochs,
    clips: LessonClips = None,
    no_auxiliary: Annotated[
        bool,
        typer.Option(
            "--no-auxiliary",
            help="Learn the decisions only, and not to predict bits and errors as well.",
        ),
    ] = False,
    no_dependency_inputs: Annotated[
        bool,
        typer.Option(
            "--no-dependency-inputs", help="Hide the temporal dependency model from the network."
        ),
    ] = False,
    jobs: Jobs = CORES,
    seed: Seed = 0,
    tensorboard: TensorBoard = None,
    as_json: Json = False,
) -> None:
    """Imitate the decisions of the teacher, learned from lessons.

    A command that was interrupted or killed continues where it was when it is run again.

    \b
    Examples:
      vpxrc train --agent imitation lessons --out imitation.safetensors
      vpxrc evaluate --agent imitation:imitation.safetensors --baseline libvpx-vbr ...
    \b
    A second round starts the searches where the first agent got to:
      vpxrc teach train/ --bitrates 64,128 --start imitation:imitation.safetensors --out lessons2
      vpxrc train --agent imitation lessons lessons2 --out imitation2.safetensors
    """  # noqa: D301 - typer wants the \b as it is
    with needing("training needs", "agents"):
        from vpxrc.agents.imitation.training import train
    config = LearnerConfig(
        epochs=epochs,
        auxiliary=0.0 if no_auxiliary else LearnerConfig().auxiliary,
        dependency_inputs=not no_dependency_inputs,
        seed=seed,
    )
    known = gather_clips(clips, as_json)[0] if clips else None
    with watched(as_json, tensorboard) as progress:
        result = train(lessons, out, config, clips=known, jobs=jobs, progress=progress)
    if as_json:
        print(json.dumps(result))
        return
    losses = ", ".join(f"{name} {value:.4f}" for name, value in result["losses"].items())
    print(
        f"{out}: {result['trajectories']} trajectories of {result['clips']} clip(s); "
        f"losses: {losses}"
    )
