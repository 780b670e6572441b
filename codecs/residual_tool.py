"""The program that records AV1's intra residuals: its build at first use, and its runs.

The program is ``native/av1_residuals``. Its build is no part of an installation, because it builds
libaom too, which takes minutes.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from vpxrc import _native
from vpxrc.codecs.frames import frame_of
from vpxrc.codecs.pictures import Pixels
from vpxrc.codecs.residuals import MAX_PICTURE_SIDE, Q_INDICES, ROW, Records, read_records
from vpxrc.errors import EncoderError, InputError, MissingDependencyError
from vpxrc.storage import atomic_write, cache_dir, digest, sha256_file, sweep, temporary_folder

NAME = "av1_residuals"

Samples = NDArray[np.uint8]


class Loop(Protocol):
    """What reconstructs blocks in AV1's place, so that later predictions see it.

    Attributes:
        in_encoder: Whether AV1's encoder sees the reconstructions too, and chooses blocks and modes
            by them. Else it chooses for its own, and only the decoder sees them.
    """

    in_encoder: bool

    def reconstruct(self, row: Any, source: Samples, prediction: Samples) -> Samples | None:
        """Return the reconstruction of a block, ``[height, width]``; None keeps AV1's.

        The encoder asks for a block of each candidate that it compares, the decoder once for each.
        """
        ...

    def kept(self, row: Any, reconstruction: Samples, prediction: Samples) -> None:
        """See what AV1 made of the last block, which was kept."""
        ...


def _sources() -> Path:
    """Return the folder of the program's sources, which an installation brings along."""
    assert _native.__file__ is not None
    return Path(_native.__file__).parent / "native"


def _environment() -> Mapping[str, str]:
    """Return the variables for CMake; the folder of this Python comes before the user's path."""
    return {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"}


def tool() -> Path:
    """Return the program, which is built where this version of it is not in the cache.

    Raises:
        MissingDependencyError: CMake is not there.
        InputError: No source of libaom can be had, or the build fails; the message says why.
    """
    sources = _sources()
    files = sorted(path for path in sources.rglob("*") if path.is_file())
    if not files:
        raise InputError(f"{sources}: the sources of {NAME} are missing from this installation")
    name = digest([[str(path.relative_to(sources)), sha256_file(path)] for path in files])
    program = cache_dir() / f"{NAME}-{name[:12]}"
    if not program.is_file():
        _build(sources / NAME, program)
    return program


def _build(project: Path, program: Path) -> None:
    environment = _environment()
    cmake = shutil.which("cmake", path=environment["PATH"])
    if cmake is None:
        raise MissingDependencyError(f"{NAME} is built by CMake: pip install cmake")
    with temporary_folder() as folder:
        for command in (
            [cmake, "-S", str(project), "-B", str(folder), "-DCMAKE_BUILD_TYPE=Release"],
            [cmake, "--build", str(folder)],
        ):
            result = subprocess.run(command, env=environment, capture_output=True, text=True)
            if result.returncode:
                raise InputError(f"{NAME} cannot be built: {_reason(result)}")
        with atomic_write(program) as temporary:
            shutil.copy2(folder / NAME, temporary)
    sweep(program.parent)


def _reason(result: subprocess.CompletedProcess[str]) -> str:
    """Return the line of CMake's output that says what went wrong."""
    lines = [line.strip() for line in (result.stderr + result.stdout).splitlines()]
    ours = [line for line in lines if line.startswith("vpxrc: ")]
    wrong = [line for line in lines if "error" in line.lower()]
    last = [line for line in lines if line][-1:]
    found = [*(line.removeprefix("vpxrc: ") for line in ours), *wrong, *last, "it was killed"]
    return found[0]


def record(picture: Pixels, q_index: int, out: Path, loop: Loop | None = None) -> Records:
    """Encode a picture as an AV1 key frame, and write and return the records of its blocks.

    Colours are those of BT.601 in full range, and chroma has half of the width and height. The
    program checks that prediction and residual are the reconstruction of every block, that every
    sample is in one block, and that the blocks are the decoder's frame.

    Args:
        picture: ``[height, width, 3]``, uint8, RGB.
        q_index: One of :data:`vpxrc.codecs.residuals.Q_INDICES`.
        out: The file.
        loop: Reconstructs blocks in AV1's place. With AV1's encoder in the loop, the coefficients
            of these blocks in the stream are what AV1 would have sent, and nobody's.

    Raises:
        InputError: The picture or the q index cannot be used, or the program cannot be built.
        EncoderError: The program failed; the message says why.
        OutputError: The file cannot be written.
    """
    if q_index not in Q_INDICES:
        raise InputError(
            f"a q index of libaom is one of 0, 4, 8 to 244, 249 and 255, not {q_index}"
        )
    height, width = picture.shape[:2]
    if max(height, width) > MAX_PICTURE_SIDE:
        raise InputError(f"a picture has 1 to {MAX_PICTURE_SIDE} pixels a side")
    samples = frame_of(picture).tobytes()
    program = tool()
    with atomic_write(out) as temporary:
        command = [str(program), str(width), str(height), str(Q_INDICES.index(q_index))]
        command.append(str(temporary))
        if loop is None:
            result = subprocess.run(command, input=samples, capture_output=True)
            code, words = result.returncode, result.stderr
        else:
            command.append("encoder" if loop.in_encoder else "decoder")
            code, words = _closed_loop(command, samples, loop)
        if code:
            raise EncoderError(f"{NAME} failed: {words.decode(errors='replace').strip() or code}")
        records = read_records(temporary)
    if records.q_index != q_index:
        raise EncoderError(f"libaom chose the q index {records.q_index}, and not {q_index}")
    return records


def _closed_loop(command: list[str], samples: bytes, loop: Loop) -> tuple[int, bytes]:
    """Answer the program's questions until it ends; return its exit status and its words."""
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        try:
            process.stdin.write(samples)
            process.stdin.flush()
            while _answer(process.stdin, process.stdout, loop):
                pass
        except BrokenPipeError:
            pass  # its words say why it ended
        except BaseException:
            process.kill()
            raise
        words = process.stderr.read()
    return process.returncode, words


def _answer(to: IO[bytes], questions: IO[bytes], loop: Loop) -> bool:
    """Answer a question, or hear what was kept; return False where there is nothing more."""
    head = questions.read(ROW.itemsize)
    if len(head) < ROW.itemsize:
        return False
    row = np.frombuffer(head, ROW)[0]
    shape = int(row["height"]), int(row["width"])
    area = shape[0] * shape[1]
    both = np.frombuffer(questions.read(2 * area), np.uint8)
    if both.size < 2 * area:
        return False
    samples, prediction = both.reshape(2, *shape)
    if row["zero"][2]:
        loop.kept(row, samples, prediction)
        return True
    answer = loop.reconstruct(row, samples, prediction)
    to.write(b"\0" if answer is None else b"\1" + np.ascontiguousarray(answer, np.uint8).tobytes())
    to.flush()
    return True
