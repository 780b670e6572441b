"""How long the decoding of a latent takes with each context, on one thread.

python -m benchmarks.codec_contexts

All arms have the same latent, side information and widths, with random weights: a raster context
cell by cell (as published), the same in slanted lines, a checkerboard, and the improved one, which
has two networks. Only y is timed, without transforms and without the side information's networks.
The arms are timed in turn, in seconds of the processor, and the median of their repeats is taken,
because other processes may share the machine. One more decoding is profiled: its shares are those
of the distributions and their tables, of the network, and of the range coder's library. Other
processes decode the streams with 1 and with 3 threads, and their latents have to be the same to the
last bit.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.codec_speed import shares
from vpxrc.codecs.contexts import Cells, Checkerboard, Context, Raster, all_cells
from vpxrc.codecs.entropy import Mixture
from vpxrc.codecs.exact import snap
from vpxrc.codecs.latents import ConditionalCoder, ConditionalLatent, pointwise
from vpxrc.codecs.papers.improved_checkerboard import GLLMM, GMM, two_networks


class CellByCell(Raster):
    """A raster context that codes one cell after another, as Minnen et al. do."""

    def passes(self, height: int, width: int) -> list[Cells]:
        """Return a pass for each cell."""
        rows, columns = all_cells(height, width)
        return list(zip(rows.split(1), columns.split(1), strict=True))


def _latent(context: Callable[[int], Context], family: Mixture, n: int) -> ConditionalLatent:
    hidden = (640, 640 if family is GMM else 1280)
    network = pointwise(4 * n, hidden, family.parameters * n, bias=False)
    return ConditionalLatent(family, context(n), network, skip_zeros=True)


ARMS: dict[str, Callable[[int], ConditionalLatent]] = {
    "raster, cell by cell": lambda n: _latent(CellByCell, GMM, n),
    "raster, slanted lines": lambda n: _latent(Raster, GMM, n),
    "checkerboard": lambda n: _latent(Checkerboard, GMM, n),
    "improved checkerboard": two_networks,
    "raster, cell by cell, three families": lambda n: _latent(CellByCell, GLLMM, n),
    "raster, slanted lines, three families": lambda n: _latent(Raster, GLLMM, n),
    "checkerboard, three families": lambda n: _latent(Checkerboard, GLLMM, n),
}


Size = tuple[int, int, int]  # channels, rows and columns of the latent


def problem(arm: str, size: Size) -> tuple[ConditionalCoder, Tensor, Tensor]:
    """Return a coder with random weights, a latent that suits them, and its side information."""
    n, height, width = size
    torch.manual_seed(0)
    y, side = torch.randn(n, height, width), snap(torch.randn(2 * n, height, width))
    torch.manual_seed(1)
    return ARMS[arm](n).coder(), y, side


def sha256(y: Tensor) -> str:
    """Return the hash of a latent."""
    return hashlib.sha256(y.numpy().tobytes()).hexdigest()


def decode_all(folder: Path, arms: Sequence[str], size: Size, threads: int) -> dict[str, str]:
    """Return the hashes of the decoded streams by arm."""
    torch.set_num_threads(threads)
    found = {}
    for arm in arms:
        coder, _, side = problem(arm, size)
        found[arm] = sha256(coder.decode((folder / arm).read_bytes(), side, size[0]))
    return found


#: Functions by the part of a decoding that they are.
PARTS = {
    ("entropy.py", "tables"): "distributions",
    ("frequencies.py", "groups"): "distributions",
    ("exact.py", "__call__"): "network",
    ("contexts.py", "read"): "network",
}


def measure(arms: Sequence[str], size: Size, repeats: int) -> list[dict[str, Any]]:
    """Return a row for each arm."""
    torch.set_num_threads(1)
    works: dict[str, Callable[[], Tensor]] = {}
    rows: list[dict[str, Any]] = []
    hashes = {}
    with tempfile.TemporaryDirectory() as folder:
        for arm in arms:
            coder, y, side = problem(arm, size)
            stream, decoded = coder.encode(y, side)
            works[arm] = partial(coder.decode, stream, side, size[0])
            hashes[arm] = sha256(decoded)
            Path(folder, arm).write_bytes(stream)
            rows.append({"arm": arm, "bytes": len(stream)})
        others = []
        for threads in (1, 3):
            task = json.dumps([folder, list(arms), size, threads])
            command = [sys.executable, "-m", "benchmarks.codec_contexts", "--decode", task]
            found = subprocess.run(command, check=True, capture_output=True, text=True)
            others.append(json.loads(found.stdout))
    seconds: dict[str, list[float]] = {arm: [] for arm in arms}
    for _ in range(repeats):
        for arm, work in works.items():
            begun = time.process_time()
            decoded = work()
            seconds[arm].append(time.process_time() - begun)
            hashes[arm] = hashes[arm] if sha256(decoded) == hashes[arm] else ""
    for row in rows:
        arm = row["arm"]
        row["seconds"] = statistics.median(seconds[arm])
        row["shares"] = shares(works[arm], PARTS)
        row["same_in_other_processes"] = all(other[arm] == hashes[arm] for other in others)
    return rows


def main(arguments: list[str] | None = None) -> int:
    """Run the command; 1 where a latent came back different."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--channels", type=int, default=64)
    parser.add_argument("--height", type=int, default=32, help="rows of the latent")
    parser.add_argument("--width", type=int, default=48, help="columns; 32x48 is Kodak's")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--arms", nargs="+", choices=list(ARMS), default=list(ARMS), metavar="ARM")
    parser.add_argument("--decode", help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.decode:
        folder, arms, size, threads = json.loads(given.decode)
        with torch.no_grad():
            print(json.dumps(decode_all(Path(folder), arms, size, threads)))
        return 0
    with torch.no_grad():
        rows = measure(given.arms, (given.channels, given.height, given.width), given.repeats)
    fastest = min(row["seconds"] for row in rows)
    for row in rows:
        print(json.dumps({**row, "times_the_fastest": row["seconds"] / fastest}))
    return int(not all(row["same_in_other_processes"] for row in rows))


if __name__ == "__main__":
    sys.exit(main())
