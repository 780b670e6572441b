"""The command ``codec residuals``: AV1's intra residuals, for the training of transforms."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vpxrc.cli.common import Json, numbers, progress_bar
from vpxrc.errors import InputError, needing
from vpxrc.storage import check_writable


def residuals(
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURES", help="Files and folders to encode.")
    ],
    out: Annotated[Path, typer.Option(metavar="FOLDER", help="Where the records go.")],
    q_indices: Annotated[
        str,
        typer.Option(
            "--qindex",
            metavar="Q,...",
            help="AV1's q indices, from 0 (lossless) to 255. libaom reaches the multiples of 4 up "
            "to 244, 249 and 255.",
        ),
    ] = "32,80,128,172,220,255",
    as_json: Json = False,
) -> None:
    """Record AV1's intra residuals, block by block, with their exact bits.

    Each picture is encoded as an AV1 key frame at each q index. The file
    FOLDER/PICTURE.qINDEX.residuals has the source, prediction, residual, reconstruction and bits
    of each transform block. The first use builds libaom 3.12.1, which takes minutes.

    \b
    Example:
      vpxrc codec residuals photos/ --qindex 80,128,172 --out residuals
    """  # noqa: D301 - typer wants the \b as it is
    with needing("learned codecs need", "codecs"):
        from vpxrc.codecs.pictures import find_pictures, read_picture
        from vpxrc.codecs.residual_tool import record, tool
        from vpxrc.codecs.residuals import Q_INDICES

    wanted = numbers("qindex", q_indices)
    if wrong := [index for index in wanted if index not in Q_INDICES]:
        raise InputError(f"libaom's q indices are 0, 4, 8 to 244, 249 and 255, not {wrong[0]}")
    paths = find_pictures(pictures)
    stems = [path.stem for path in paths]
    if twice := [stem for stem in stems if stems.count(stem) > 1]:
        raise InputError(f"two pictures are called {twice[0]}, and so would be their records")
    check_writable(out)
    rows = []
    with progress_bar(hidden=as_json) as bar:
        task = bar.add_task("building libaom, once per machine", total=len(paths) * len(wanted))
        tool()
        for path in paths:
            picture = read_picture(path)
            for index in wanted:
                bar.update(task, description=f"{path.name} at {index}")
                target = out / f"{path.stem}.q{index:03d}.residuals"
                records = record(picture, index, target)
                rows.append(
                    {
                        "output": str(target),
                        "q_index": index,
                        "blocks": len(records.blocks),
                        "coefficient_bits": float(records.blocks["bits"].sum()),
                        "stream_bits": 8 * len(records.stream),
                    }
                )
                bar.update(task, advance=1)
    if as_json:
        print(json.dumps(rows))
        return
    for row in rows:
        print(
            f"{row['output']}: {row['blocks']} blocks, {row['coefficient_bits']:.0f} of "
            f"{row['stream_bits']} bits are coefficients"
        )
