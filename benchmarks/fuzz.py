"""Mutated inputs for every reader: none may crash, hang, lose frames or end in a traceback.

python -m benchmarks.fuzz --inputs 5000 --out build/fuzz

Each reader has a small corpus of good files, which is made on the spot. The mutator is seeded by
the reader's name and the input's number, so ``--only READER --first N --inputs 1`` repeats one.
Inputs are read in forked processes, a batch in each, so a crash ends its batch alone.
"""

import argparse
import faulthandler
import json
import os
import random
import shutil
import signal
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NoReturn

import ffmpeg
import numpy as np
import pandas as pd
import torch

from benchmarks.faults import make_clip
from vpxrc import Decision, EncoderOptions, encode, make_policy, open_video
from vpxrc.agents.imitation.policy import CHECKPOINT
from vpxrc.agents.muzero.config import MuZeroConfig
from vpxrc.agents.muzero.network import Network, Trained, shapes
from vpxrc.agents.teacher.lessons import results, stored_trajectory
from vpxrc.agents.teacher.trajectory import Trajectory
from vpxrc.cache import read_entry, write_entry
from vpxrc.codecs.codec import load_codec, save_checkpoint
from vpxrc.codecs.papers import build
from vpxrc.datasets import load_clips
from vpxrc.encoder.first_pass import use_first_pass_file
from vpxrc.envs.residual.config import ResidualConfig
from vpxrc.envs.residual.observation import OBSERVATION
from vpxrc.errors import EncoderError, VpxrcError
from vpxrc.evaluation.comparison import compare
from vpxrc.media.ffmpeg import run_ffmpeg
from vpxrc.media.probing import probe
from vpxrc.quality import measure_stream
from vpxrc.storage import cache_dir

PATIENCE = 60  # seconds for one input
BATCH = 50
ORDERS: tuple[Literal["little"], Literal["big"]] = ("little", "big")
FRAMES = 12
VIDEOS: dict[str, dict[str, Any]] = {  # suffix: codec
    "mkv": {"vcodec": "ffv1"},
    "webm": {"vcodec": "libvpx-vp9"},
    "mp4": {"vcodec": "libx264"},
    "avi": {"vcodec": "mpeg4"},
    "ts": {"vcodec": "mpeg2video", "g": 4, "sc_threshold": 10**9},
    "gif": {},
    "ivf": {"vcodec": "libvpx"},
    "ogg": {"vcodec": "libtheora"},
}


@dataclass(frozen=True)
class Reader:
    """Something that reads files.

    Attributes:
        name: What tables call it.
        make: Writes the corpus, good files, into an empty folder.
        read: Reads one of them; returns the number of frames where it has frames.
        beside: Whether the other files of the corpus lie beside the one that is mutated.
        share: How many of 100 inputs are for this reader.
        text: Whether the files are text, for which there are mutations of their own.
    """

    name: str
    make: Callable[[Path], None]
    read: Callable[[Path], int | None]
    share: int
    beside: bool = False
    text: bool = False


@dataclass
class Tally:
    """What came of the inputs of one reader."""

    counts: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)


# The mutator

EXTREMES = (0, 1, 0x7F, 0x80, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
WORDS = ("null", "-1", "1e999", "NaN", '"x"', "[]", "{}", "true", "0", "[" * 3000, "9" * 400, "''")


def mutated(data: bytes, rng: random.Random, text: bool) -> bytes:
    """Return a damaged copy, by one to four mutations."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        if not out:
            break
        at = rng.randrange(len(out))
        length = min(len(out) - at, rng.choice((1, 2, 4, 16, 188, 512, len(out) // 4 + 1)))
        kind = rng.randrange(9 if text else 7)
        if kind == 0:
            out[at] ^= 1 << rng.randrange(8)
        elif kind == 1:
            del out[at : at + length]
        elif kind == 2:
            out[at : at + length] = bytes(length)
        elif kind == 3:
            out[at : at + length] = rng.randbytes(length)
        elif kind == 4:
            other = rng.randrange(len(out))
            out[at:at] = out[other : other + length]
        elif kind == 5:
            del out[at:]
        elif kind == 6:
            size = rng.choice((1, 2, 4))
            number = rng.choice(EXTREMES) & (1 << 8 * size) - 1
            out[at : at + size] = number.to_bytes(size, rng.choice(ORDERS))
        else:
            out = bytearray(_reworded(bytes(out), rng))
    return bytes(out)


def _reworded(data: bytes, rng: random.Random) -> bytes:
    """Return a text with another value in the place of one."""
    parts = data.decode(errors="replace").replace(",", "\0,\0").replace("=", "\0=\0")
    values = parts.replace(": ", "\0: \0").replace("\n", "\0\n\0").split("\0")
    values[rng.randrange(len(values))] = rng.choice(WORDS)
    return "".join(values).encode()


# The readers


def _videos(folder: Path) -> None:
    make_clip(folder / "clip.y4m")
    for suffix, codec in VIDEOS.items():
        source = ffmpeg.input(str(folder / "clip.y4m"))
        output = source.output(str(folder / f"clip.{suffix}"), **codec)
        run_ffmpeg(output, EncoderError, f"cannot make a {suffix}")


def _probed(path: Path) -> None:
    probe(path)


def _decoded(path: Path) -> int:
    return open_video(path).num_frames


def _stream(folder: Path) -> None:
    make_clip(folder / "clip.y4m")
    options = EncoderOptions(target_bitrate=60, cpu_used=8)
    log = encode(open_video(folder / "clip.y4m"), options, make_policy("libvpx-vbr"))
    (folder / "stream.ivf").write_bytes(log.stream)


def _measured(path: Path) -> None:
    if path.suffix == ".ivf":
        video = open_video(path.with_name("clip.y4m"))
        measure_stream(path.read_bytes(), video, ("ssim",))


def _imitation(folder: Path) -> None:
    shutil.copy(CHECKPOINT, folder / "agent.safetensors")


def _muzero(folder: Path) -> None:
    small = MuZeroConfig(hidden=8, width=8)
    config = ResidualConfig("layered", "frame", ((0, 0), (0.4, 0)))
    rng = np.random.default_rng(0)
    tensors = {
        name: rng.normal(0, 0.1, shape).astype(np.float32)
        for name, shape in shapes(len(OBSERVATION), 2, small.hidden, small.width).items()
    }
    Trained(Network(tensors), config, small, frozenset(), {}).save(folder / "agent.safetensors")


def _imitation_read(path: Path) -> None:
    make_policy(f"imitation:{path}")


def _muzero_read(path: Path) -> None:
    make_policy(f"muzero:{path}")


def _codec(folder: Path) -> None:
    torch.manual_seed(0)
    spec = "factorized/small"
    save_checkpoint(folder / "codec.safetensors", build(spec), spec, {})


def _picture(folder: Path) -> None:
    _codec(folder)
    pixels = np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    coded = load_codec(folder / "codec.safetensors").compress(pixels)
    (folder / "picture.vlc").write_bytes(coded.data)


def _decompressed(path: Path) -> None:
    if path.suffix == ".vlc":
        load_codec(path.with_name("codec.safetensors")).decompress(path.read_bytes())
    else:
        load_codec(path)


def _catalogues(folder: Path) -> None:
    make_clip(folder / "clip.y4m")
    sha256 = "0" * 64
    (folder / "clips.toml").write_text(
        f"[[clips]]\nname = 'a'\nsource = 'clip.y4m'\nstart = 0.1\nfps = 30\nnum_frames = 5\n"
        f"[[clips]]\nname = 'b'\nsha256 = '{sha256}'\n"
        f"[clips.origin]\nname = 'b.mp4'\nsize = 100\ncontent_hash = '{sha256}'\n"
        "[clips.origin.recipe]\nsource = 'https://example.org/b.mp4'\nwidth = 64\nheight = 48\n"
        "crop = true\nfps = 30\nstart = 0.5\nnum_frames = 5\npreset = 'fast'\ncrf = 20\n"
        f"threads = 1\nsha256 = '{sha256}'\ntried = '5.1'\n"
    )
    (folder / "clips.csv").write_text("name,source,start,fps\na,clip.y4m,0.1,30\nb,clip.y4m,,25\n")


def _catalogue(path: Path) -> None:
    if path.suffix != ".y4m":
        load_clips(str(path))


LESSON = {
    "clip": "a",
    "content_hash": "0",
    "width": 64,
    "height": 48,
    "start": "layered",
    "options": {"target_bitrate": 60},
    "search": {},
    "encodes": 3,
    "saved": {"psnr": {"start": 1.0, "found": None}},
    "source": {"name": "a", "source": "a.y4m", "start": 0.0, "fps": "30"},
}


def _lessons(folder: Path) -> None:
    path = folder / "a-64x48-60.json"
    path.write_text(json.dumps(LESSON))
    make_clip(folder / "clip.y4m")
    options = EncoderOptions(target_bitrate=60, cpu_used=8)
    log = encode(open_video(folder / "clip.y4m"), options, make_policy("layered"))
    (folder / "clip.y4m").unlink()
    decisions = [Decision(int(q)) for q in log.coded["q_index"]]
    table = Trajectory.of(log, decisions).to_pandas()
    for name in ("q_index", "is_shown", "bits", "sse_y", "sse_u", "sse_v"):
        table[name] = log.coded[name]
    table.to_parquet(path.with_suffix(".trajectory.parquet"))


def _lesson(path: Path) -> None:
    for lesson in results(path.parent):
        Trajectory.from_pandas(stored_trajectory(lesson))


def _study(folder: Path) -> None:
    """Write two studies, the second one in a folder of the first."""
    if folder.name != "other":
        (folder / "other").mkdir()
        _study(folder / "other")
    clip = {"clip": "a", "content_hash": "h", "width": 64, "height": 48, "num_frames": 12}
    summary = {
        "agent": "a",
        "baselines": {"b": {}},
        "libvpx": "1",
        "bitrates": [40, 60, 80, 100],
        "clips": [clip],
        "metrics": ["psnr"],
        "cpu_used": 8,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    rows = [
        {"clip": "a", "policy": policy, "content_hash": "h", "stream_sha256": "s", "cpu_used": 8}
        | {"target_bitrate": rate, "bitrate": 1.01 * rate, "overshoot": 1.0, "encodes": 1}
        | {"encode_seconds": 1.0, "cpu_seconds": 1.0, "psnr": 30 + rate / 20}
        for policy in "ab"
        for rate in (40, 60, 80, 100)
    ]
    pd.DataFrame(rows).to_parquet(folder / "encodes.parquet")


def _compared(path: Path) -> None:
    compare([path.parent, path.parent / "other"])


def _first_pass(folder: Path) -> None:
    make_clip(folder / "clip.y4m")
    video = open_video(folder / "clip.y4m")
    use_first_pass_file(folder / "first.log", video, EncoderOptions(target_bitrate=60))


def _first_pass_read(path: Path) -> None:
    if path.suffix == ".log":
        video = open_video(path.with_name("clip.y4m"))
        use_first_pass_file(path, video, EncoderOptions(target_bitrate=60))


def _entries(folder: Path) -> None:
    with write_entry(folder / "entry") as (temporary, note):
        temporary.write_bytes(b"content" * 100)
        note.about = {"width": 64}


def _entry(path: Path) -> None:
    if read_entry(path.with_name("entry")) not in (None, b"content" * 100):
        raise AssertionError("a damaged file of the cache was believed")


READERS = (
    Reader("probe", _videos, _probed, 20),
    Reader("open_video", _videos, _decoded, 4),
    Reader("measure_stream", _stream, _measured, 2, beside=True),
    Reader("imitation", _imitation, _imitation_read, 12),
    Reader("muzero", _muzero, _muzero_read, 12),
    Reader("codec", _picture, _decompressed, 8, beside=True),
    Reader("catalogue", _catalogues, _catalogue, 12, beside=True, text=True),
    Reader("lessons", _lessons, _lesson, 10, beside=True, text=True),
    Reader("study", _study, _compared, 10, beside=True, text=True),
    Reader("first pass", _first_pass, _first_pass_read, 5, beside=True),
    Reader("cache", _entries, _entry, 5, beside=True, text=True),
)


# The process of a batch


def _read_batch(reader: Reader, corpus: Path, numbers: range, notes: Path) -> NoReturn:
    """Read inputs by number; write a line for each before and after, and exit."""
    with open(os.devnull, "w") as nothing:
        for descriptor in (1, 2):
            os.dup2(nothing.fileno(), descriptor)

    def hangs(number: int, frame: object) -> None:
        raise TimeoutError("hangs")

    faulthandler.disable()  # it prints to a copy of the descriptor
    signal.signal(signal.SIGALRM, hangs)
    with open(notes, "w") as out:
        for number in numbers:
            out.write(f"{number}\t")
            out.flush()
            out.write(_outcome(reader, corpus, number, notes.parent) + "\n")
            out.flush()
    os._exit(0)


def _files(corpus: Path) -> list[Path]:
    return sorted(path for path in corpus.iterdir() if path.is_file())


def _outcome(reader: Reader, corpus: Path, number: int, scratch: Path) -> str:
    """Return ``accepted``, ``refused``, ``lost FRAMES``, ``hangs`` or the exception's words.

    What the reader left in the folder is named behind them.
    """
    rng = random.Random(zlib.crc32(f"{reader.name} {number}".encode()))
    original = rng.choice(_files(corpus))
    work = scratch / "work"
    shutil.rmtree(work, ignore_errors=True)
    if reader.beside:
        shutil.copytree(corpus, work)
    else:
        work.mkdir()
    path = work / original.name
    path.write_bytes(mutated(original.read_bytes(), rng, reader.text))
    before = {entry.name for entry in work.iterdir()}
    outcome = _read(reader, path)
    if left := {entry.name for entry in work.iterdir()} - before:
        return f"{outcome}, and left {', '.join(sorted(left))}"
    return outcome


def _read(reader: Reader, path: Path) -> str:
    signal.alarm(PATIENCE)
    try:
        frames = reader.read(path)
    except VpxrcError:
        return "refused"
    except TimeoutError:
        return "hangs"
    except BaseException as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        return f"{path.name}: {error!r:.200} at {Path(place.filename).name}:{place.lineno}"
    finally:
        signal.alarm(0)
    if frames is not None and frames < FRAMES:
        return f"lost {FRAMES - frames} frames of {path.name}"
    return "accepted"


def _end_of(child: int, notes: Path) -> int:
    """Return a batch's exit status; kill it where native code hangs, which no alarm interrupts."""
    size, since = -1, time.monotonic()
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return status
        now = notes.stat().st_size if notes.exists() else 0
        if now != size:
            size, since = now, time.monotonic()
        elif time.monotonic() - since > 2 * PATIENCE:
            os.kill(child, signal.SIGKILL)
        time.sleep(0.02)


def fuzz(reader: Reader, first: int, count: int) -> Tally:
    """Read ``count`` mutated inputs from number ``first``."""
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        scratch = Path(folder)
        corpus = scratch / "corpus"
        corpus.mkdir()
        reader.make(corpus)
        for path in _files(corpus):
            reader.read(path)  # what is good is accepted
        while count > 0:
            numbers = range(first, first + min(count, BATCH))
            notes = scratch / "notes"
            child = os.fork()
            if child == 0:
                _read_batch(reader, corpus, numbers, notes)
            status = _end_of(child, notes)
            lines = [line.split("\t") for line in notes.read_text().splitlines()]
            for number, outcome in lines:
                known = outcome in ("accepted", "refused", "hangs")
                kind = outcome if known else "lost" if outcome.startswith("lost") else "traceback"
                if not outcome:  # the batch ended here
                    code = os.waitstatus_to_exitcode(status)
                    kind = "hangs" if code == -signal.SIGKILL else "crash"
                    outcome = f"ends the process: {code}"
                tally.counts[kind] += 1
                if kind not in ("accepted", "refused"):
                    tally.faults.append(f"{reader.name} {number}: {outcome}")
            count -= len(lines)
            first += len(lines)
    return tally


def table(tallies: dict[str, Tally]) -> str:
    """Return the counts in Markdown."""
    kinds = ("accepted", "refused", "traceback", "crash", "hangs", "lost")
    lines = [
        "| reader | inputs | accepted | refused | tracebacks | crashes | hangs | frames lost |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    total: Counter[str] = Counter()
    for name, tally in tallies.items():
        counts = [tally.counts[kind] for kind in kinds]
        total += tally.counts
        lines.append(f"| {name} | {' | '.join(map(str, (sum(counts), *counts)))} |")
    counts = [total[kind] for kind in kinds]
    lines.append(f"| all | {' | '.join(map(str, (sum(counts), *counts)))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=5000, help="of all readers together")
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--only", choices=[reader.name for reader in READERS])
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    arguments.out.mkdir(parents=True, exist_ok=True)
    tallies: dict[str, Tally] = {}
    with tempfile.TemporaryDirectory(prefix="fuzz-cache-") as cache:
        os.environ["VPXRC_CACHE"] = cache
        assert cache_dir() == Path(cache)
        for reader in READERS:
            if arguments.only in (None, reader.name):
                share = 100 if arguments.only else reader.share
                tallies[reader.name] = fuzz(
                    reader, arguments.first, -(-arguments.inputs * share // 100)
                )
                print(reader.name, dict(tallies[reader.name].counts), flush=True)
            (arguments.out / "table.md").write_text(table(tallies))
            faults = [fault for one in tallies.values() for fault in one.faults]
            (arguments.out / "faults.txt").write_text("\n".join(faults) + "\n" * bool(faults))
    print(table(tallies), *faults, sep="\n")
    raise SystemExit(1 if faults else 0)


if __name__ == "__main__":
    main()
