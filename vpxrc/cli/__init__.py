"""The command line: ``vpxrc COMMAND``; every command has ``--help`` with examples."""

import importlib.metadata
import signal
import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from vpxrc.cli.cache import cache
from vpxrc.cli.codec import app as codec
from vpxrc.cli.compare import compare
from vpxrc.cli.datasets import datasets
from vpxrc.cli.demo import demo
from vpxrc.cli.doctor import doctor
from vpxrc.cli.encode import encode
from vpxrc.cli.evaluate import evaluate
from vpxrc.cli.inspect import inspect
from vpxrc.cli.leaderboard import leaderboard
from vpxrc.cli.teach import teach
from vpxrc.cli.train import app as train
from vpxrc.cli.verify import verify
from vpxrc.errors import VpxrcError

ORDER = (
    "encode",
    "evaluate",
    "compare",
    "leaderboard",
    "teach",
    "train",
    "codec",
    "verify",
    "inspect",
    "doctor",
    "cache",
    "datasets",
    "demo",
)
INTERRUPTED = 130  # what shells report of a program that Ctrl-C ended
TERMINATED = 143


class OneLineErrors(TyperGroup):
    """Says what is wrong in one line on stderr: no traceback, no box, exit code 2."""

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the commands in the order of their use."""
        return list(ORDER)

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run a command line and exit."""
        extra["standalone_mode"] = False
        try:
            code = super().main(*args, **extra)
        except typer.Abort:
            code = INTERRUPTED
        except VpxrcError as error:
            code = _complain(str(error))
        except MemoryError as error:
            code = _complain(f"out of memory: {error}")
        except OSError as error:  # what the system refuses where nobody expects it
            code = _complain(str(error))
        except Exception as error:
            if isinstance(error, RuntimeError) and str(error) == "can't start new thread":
                raise SystemExit(_complain(f"{error}: too many of them, or no memory")) from error
            # Typer keeps the base class of its usage errors to itself.
            message = getattr(error, "format_message", None)
            if message is None:
                raise
            code = _complain(message())
        if code == INTERRUPTED:
            print("vpxrc: interrupted", file=sys.stderr)
        sys.exit(code or 0)


def _complain(message: str) -> int:
    print("vpxrc:", " ".join(message.split()), file=sys.stderr)
    return 2


app = typer.Typer(
    cls=OneLineErrors,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for _command in (
    encode,
    evaluate,
    compare,
    leaderboard,
    teach,
    verify,
    inspect,
    doctor,
    cache,
    datasets,
    demo,
):
    app.command()(_command)
app.add_typer(train, name="train")
app.add_typer(codec, name="codec")


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False,
) -> None:
    """Learned rate control for libvpx's VP9 two-pass encoder.

    A policy chooses the quantiser of every frame. `vpxrc COMMAND --help` has examples.

    \b
    Examples:
      vpxrc demo
      vpxrc encode holiday.mp4 -b 400 -o holiday.webm
    """  # noqa: D301 - typer wants the \b as it is
    if version:
        print(f"vpxrc {importlib.metadata.version('vpxrc')}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())
        raise typer.Exit


def main() -> None:
    """Run the program."""

    def terminate(number: int, frame: object) -> None:
        sys.exit(TERMINATED)  # unwinds, so that processes end and unfinished files go

    for stream in (sys.stdout, sys.stderr):
        # A file's name may be no text; its bytes are shown as escapes.
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    signal.signal(signal.SIGTERM, terminate)
    app()
