"""Write the catalogues of the sets whose clips lie beside the repository.

python tools/make_catalogues.py ../shared/clips

``MANIFEST.tsv`` in that folder and ``train2/MANIFEST.tsv`` say which clips there are and where they
come from, ``tools/recipes.tsv`` which of them a stranger can make again, and the files themselves
how they were encoded. The frames of a clip are decoded only where its checksum is new.
"""

import csv
import json
import re
import sys
import tomllib
from fractions import Fraction
from pathlib import Path
from urllib.parse import quote

from vpxrc.datasets import Clip, Origin, Recipe, load_clips
from vpxrc.errors import InputError
from vpxrc.media.decoding import open_video
from vpxrc.storage import atomic_write, sha256_file

ROOT = Path(__file__).parents[1]
SETS = {
    "eval": "The clips of the evaluation. No agent of the project was trained on them.",
    "train": "The clips that the agents were trained on.",
    "train2": "More clips for training: other material, frame rates and shapes.",
}
NOTE = """\
# {words}
# Made by tools/make_catalogues.py; edit that.
#
# A clip's file was cut from the original, scaled and encoded by ffmpeg 5.1 and x264. `sha256` and
# `size` are of that file, `content_hash` is of its frames. Where there is a recipe, the same frames
# can be made again: `tried` says which ffmpeg was seen to make them. Where there is none, the clip
# cannot be downloaded."""
# x264 writes its settings into the stream; these are its presets' numbers of reference frames.
PRESETS = {b"3": "medium", b"5": "slow"}


def read_table(path: Path) -> list[dict[str, str]]:
    """Return the rows of a table with tabs."""
    with open(path, encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def catalogue(name: str, clips: Path) -> str:
    """Return the text of one set's catalogue.

    Args:
        name: The set's name, which is the name of its folder in ``clips`` too.
        clips: The folder with the manifests.

    Raises:
        InputError: A file is not the one of its manifest.
    """
    manifests = [clips / "MANIFEST.tsv", clips / "train2" / "MANIFEST.tsv"]
    # In the order in which a folder of clips is read.
    rows = sorted(
        (row for path in manifests for row in read_table(path)), key=lambda row: Path(row["clip"])
    )
    recipes = {row["clip"]: row for row in read_table(ROOT / "tools" / "recipes.tsv")}
    known = contents(name)
    parts = [NOTE.format(words=SETS[name])]
    for row in rows:
        path = clips / row["clip"]
        if path.parent.name != name:
            continue
        if sha256_file(path) != row["sha256"]:
            raise InputError(f"{path} is not the file of its manifest")
        content = known.get(row["sha256"]) or open_video(path).content_hash
        recipe = recipes.get(row["clip"])
        origin = Origin(
            row["origin"],
            path.stat().st_size,
            content,
            None if recipe is None else made_by(row, recipe, path),
        )
        clip = Clip(path.stem, None, sha256=row["sha256"], licence=row["licence"], origin=origin)
        parts.append(as_toml(clip, origin))
    return "\n\n".join(parts) + "\n"


def contents(name: str) -> dict[str, str]:
    """Return the hashes of frames that a set's catalogue has already, by checksum of the file."""
    path = ROOT / "datasets" / f"{name}.toml"
    clips = tomllib.loads(path.read_text(encoding="utf-8"))["clips"] if path.is_file() else []
    return {clip["sha256"]: clip["origin"]["content_hash"] for clip in clips}


def made_by(row: dict[str, str], recipe: dict[str, str], path: Path) -> Recipe:
    """Return how a clip was made, by its manifest and by what x264 says of itself in the file."""
    settings = re.search(
        rb"ref=(\d+) .* threads=(\d+) .* rc=crf .* crf=([\d.]+) ", path.read_bytes()
    )
    if settings is None:
        raise InputError(f"{path}: no settings of x264")
    return Recipe(
        source=recipe["source"] or github_address(row["origin"]),
        width=int(row["width"]),
        height=int(row["height"]),
        crop=path.parent.name == "train2",
        fps=Fraction(row["fps"]),
        start=float(row["start_s"]),
        num_frames=int(row["frames"]),
        preset=PRESETS[settings[1]],
        crf=float(settings[3]),
        threads=int(settings[2]),
        sha256=recipe["sha256"],
        tried=recipe["tried"],
    )


def github_address(origin: str) -> str:
    """Return where GitHub has the file ``OWNER/REPOSITORY:PATH@COMMIT``."""
    match = re.fullmatch(r"([\w.-]+/[\w.-]+):(.+)@([0-9a-f]{40})", origin)
    if match is None:
        raise InputError(f"{origin} is not OWNER/REPOSITORY:PATH@COMMIT")
    return f"https://raw.githubusercontent.com/{match[1]}/{match[3]}/{quote(match[2])}"


def as_toml(clip: Clip, origin: Origin) -> str:
    """Return a clip's tables."""
    lines = [
        "[[clips]]",
        *pairs(name=clip.name, sha256=clip.sha256, licence=clip.licence),
        "",
        "[clips.origin]",
        *pairs(name=origin.name, size=origin.size, content_hash=origin.content_hash),
    ]
    if (made := origin.recipe) is not None:
        lines += ["", "[clips.origin.recipe]", *pairs(source=made.source, sha256=made.sha256)]
        lines += pairs(width=made.width, height=made.height, fps=str(made.fps), start=made.start)
        if made.crop:
            lines += pairs(crop=True)
        lines += pairs(num_frames=made.num_frames, preset=made.preset, crf=made.crf)
        lines += pairs(threads=made.threads, tried=made.tried)
    return "\n".join(lines)


def pairs(**values: str | float | None) -> list[str]:
    """Return the lines of a table; JSON's strings and numbers are TOML's."""
    return [
        f"{key} = {json.dumps(value, ensure_ascii=False)}"
        for key, value in values.items()
        if value is not None
    ]


if __name__ == "__main__":
    for set_name in SETS:
        target = ROOT / "datasets" / f"{set_name}.toml"
        text = catalogue(set_name, Path(sys.argv[1]))
        with atomic_write(target) as temporary:
            temporary.write_text(text, encoding="utf-8")
        print(f"{target}: {len(load_clips(target))} clips")
