"""The codecs that come with the package."""

from pathlib import Path
from typing import Any

from vpxrc.errors import InputError

FOLDER = Path(__file__).parent / "weights"


def shipped() -> dict[str, Path]:
    """Return the checkpoints in the package by name."""
    found = {path.stem: path for path in FOLDER.glob("*.safetensors")}
    return dict(sorted(found.items()))


def checkpoint(spec: str) -> Path:
    """Return the checkpoint of a name or a path.

    Raises:
        InputError: There is none.
    """
    known = shipped()
    if spec in known:
        return known[spec]
    if Path(spec).is_file():
        return Path(spec)
    names = f"the codecs are {', '.join(known)}" if known else "no codec comes with this version"
    raise InputError(f"{spec}: no such checkpoint; {names}")


def describe_checkpoint(path: Path) -> dict[str, Any]:
    """Return what a checkpoint says of itself: name, codec, bytes, steps and how it was trained.

    Raises:
        InputError: It cannot be read.
    """
    from vpxrc.codecs.codec import read_checkpoint  # a path alone needs no PyTorch

    _, settings = read_checkpoint(path)
    return {
        "name": path.stem,
        "codec": settings["codec"],
        "bytes": path.stat().st_size,
        "steps": int(settings.get("steps", "0")),
        "config": settings.get("config", ""),
    }
