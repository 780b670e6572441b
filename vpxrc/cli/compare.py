"""The command ``compare``."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from vpxrc.cli.common import Json
from vpxrc.evaluation.comparison import compare as run_comparison
from vpxrc.evaluation.comparison import table


def compare(
    studies: Annotated[
        list[Path],
        typer.Argument(metavar="DIR DIR ...", help="Folders of `vpxrc evaluate`."),
    ],
    out: Annotated[
        Path | None, typer.Option(metavar="FILE.html", help="Also write a page with plots.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Lay finished evaluations side by side.

    Only the clips that all of them have are compared. The agent of each study is compared with the
    baselines that all studies share. The agent of the first study is also compared with every other
    policy of any study.

    \b
    Examples:
      vpxrc compare study-of-dependency study-of-imitation
      vpxrc compare docs/results/*-eval --out build/compared.html
    """  # noqa: D301 - typer wants the \b as it is
    comparison = run_comparison(studies)
    if out is not None:
        from vpxrc import reports  # takes as long to import as all else together

        reports.write_comparison(comparison, out, ["vpxrc", *sys.argv[1:]])
    if as_json:
        print(json.dumps(comparison.to_json()))
        return
    print(table(comparison))
    if out is not None:
        print(f"{out} has the plots.")
