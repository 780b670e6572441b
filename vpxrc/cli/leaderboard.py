"""The command ``leaderboard``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vpxrc.cli.common import Json
from vpxrc.envs.standard import find_task
from vpxrc.errors import InputError
from vpxrc.evaluation.leaderboard import (
    REFERENCES,
    check_submission,
    leaderboard_table,
    score_policy,
)


def leaderboard(
    submissions: Annotated[
        list[Path] | None,
        typer.Argument(metavar="[FILE.json ...]", help="Agents' episodes, which are replayed."),
    ] = None,
    task: Annotated[str, typer.Option(help="Standard task.")] = "Small-v0",
    policies: Annotated[
        str, typer.Option(metavar="A,B,...", help="Policies that are scored beside them.")
    ] = ",".join(REFERENCES),
    seeds: Annotated[int, typer.Option(min=1, help="Seeds of the policy `random`.")] = 3,
    as_json: Json = False,
) -> None:
    """Score policies and agents on a standard task.

    The score is the mean return over the clips and targets of the task's test split. A submission
    has the actions of every episode. They are played again, so a score is what comes of them.

    \b
    Examples:
      vpxrc leaderboard
      vpxrc leaderboard mine.json --policies random,libvpx-vbr
    """  # noqa: D301 - typer wants the \b as it is
    chosen = find_task(task)
    scores = [check_submission(path, chosen)[1] for path in submissions or ()]
    scores += [score_policy(chosen, spec, seeds) for spec in policies.split(",") if spec]
    if not scores:
        raise InputError("nothing to score: name submissions or --policies")
    if as_json:
        print(json.dumps({"task": chosen.name, "scores": [s.to_json() for s in scores]}))
        return
    print(leaderboard_table(chosen, scores))
