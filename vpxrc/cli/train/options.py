"""Options and helpers that the agents of ``train`` share."""

from pathlib import Path
from typing import Annotated, Any, Literal, cast

import typer

from vpxrc.encoder.options import EncoderOptions
from vpxrc.envs.residual.config import Offset, ResidualConfig
from vpxrc.errors import InputError
from vpxrc.storage import parse_json


def _checkpoint(out: Path) -> Path:
    if out.suffix != ".safetensors":
        raise InputError(f"{out}: a checkpoint's name ends in .safetensors")
    return out


Lessons = Annotated[
    list[Path],
    typer.Argument(metavar="LESSONS", help="Folders or files of `vpxrc teach`."),
]
Clips = Annotated[
    list[str],
    typer.Argument(metavar="CLIPS", help="Sets, video files, folders or catalogues to train on."),
]
Out = Annotated[
    Path,
    typer.Option(
        metavar="FILE", help="Where the checkpoint goes, .safetensors.", callback=_checkpoint
    ),
]
LessonClips = Annotated[
    list[str] | None,
    typer.Option(
        metavar="PATH_OR_SET",
        help="Where to look for the lessons' videos; repeatable. By default, where they were when "
        "they were searched.",
    ),
]
Bitrates = Annotated[str, typer.Option(metavar="A,B,...", help="Target bitrates in kbit/s.")]
Pixels = Annotated[
    int | None,
    typer.Option(metavar="P", min=1, help="Scale larger clips down to about P luma pixels."),
]
Reference = Annotated[
    str | None,
    typer.Option(
        metavar="SPEC",
        help="The policy that rewards are counted from. By default, the base policy.",
    ),
]
Base = Annotated[
    str,
    typer.Option(
        metavar="SPEC",
        help="The policy whose decisions the agent corrects. constant-q:120 leaves every decision "
        "to the agent.",
    ),
]
Decisions = Annotated[
    str,
    typer.Option(
        metavar="group|frame", help="Take one decision per golden-frame group, or one per frame."
    ),
]
Offsets = Annotated[
    str | None,
    typer.Option(
        metavar="L:R,...",
        help="The actions. L is added to log2 of the quantiser step of all frames, R besides to "
        "that of reference frames. The first action is 0:0.",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="Change a field of the agent's MuZeroConfig or RllibConfig; repeatable.",
    ),
]
AutoAltRef = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="Layers of alternate reference frames, where the base policy does not set them.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Encode on a Ray cluster: local (started here), auto (running here), HOST:PORT or "
        "ray://HOST:PORT. Its machines need vpxrc, and the clips under the same paths.",
    ),
]
Device = Annotated[
    str, typer.Option(metavar="cpu|cuda", help="The device that trains the networks.")
]
Seed = Annotated[int, typer.Option(min=0, help="Seed of all random numbers.")]
TensorBoard = Annotated[
    Path | None,
    typer.Option("--tensorboard", metavar="DIR", help="Write curves for TensorBoard to a folder."),
]

BASE = ResidualConfig().base
DECISIONS = ResidualConfig().decisions
AUTO_ALT_REF = EncoderOptions().auto_alt_ref


def problem(base: str, decisions: str, offsets: str | None = None) -> ResidualConfig:
    """Return the problem that the options describe.

    Raises:
        InputError: One of them cannot be read.
    """
    return ResidualConfig(base, cast(Literal["group", "frame"], decisions), _offsets(offsets))


def settings_of(texts: list[str] | None) -> dict[str, Any]:
    """Return the values of ``--set`` by name; a value is JSON, or else a text.

    Raises:
        InputError: One of them is not ``NAME=VALUE``.
    """
    settings = {}
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not equals:
            raise InputError(f"--set takes NAME=VALUE, not {text!r}")
        try:
            settings[name] = parse_json(value)
        except ValueError:
            settings[name] = value
    return settings


def _offsets(text: str | None) -> tuple[Offset, ...] | None:
    """Return the offsets of ``LEVEL:REFERENCE,...``.

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
            f"--offsets takes LEVEL:REFERENCE pairs with commas between, not {text!r}"
        ) from None
