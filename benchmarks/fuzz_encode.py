"""Damaged videos of ten containers through ``vpxrc encode``: an error line or a playable file.

python -m benchmarks.fuzz_encode --inputs 500 --out build/fuzz-encode

Bytes are changed, pieces are cut out, and pieces of other files are spliced in, with a seed by the
input's number, so ``--first N --inputs 1`` repeats one. Every input has a process of its own, which
is forked from one that has loaded the program, and runs the command. Checked are the exit code and
the message, the output (ffmpeg's program decodes it, and finds the number of frames that the
command names), processor time, memory and the cache against those of the undamaged file, files that
are left behind, and frames that are lost without a note where ffmpeg's program finds more.
"""

import argparse
import io
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import redirect_stderr, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import psutil

from vpxrc import cli
from vpxrc.cli.common import progress_bar
from vpxrc.media.ffmpeg import ffmpeg_program
from vpxrc.media.frames import frame_bytes
from vpxrc.storage import atomic_write

PICTURES = ("-f", "lavfi", "-i", "testsrc2=s=96x64:r=25:d=0.6")
SOUND = ("-f", "lavfi", "-i", "sine=440:d=0.6:r=44100")
NUM_FRAMES, FRAME_BYTES = 15, frame_bytes(96, 64)
X264 = ("-c:v", "libx264", "-preset", "ultrafast", "-bf", "2", "-g", "5", "-pix_fmt", "yuv420p")
CONTAINERS: dict[str, tuple[str, ...]] = {  # suffix: codecs
    "mkv": ("-c:v", "ffv1", "-c:a", "flac"),
    "webm": ("-c:v", "libvpx-vp9", "-g", "5", "-cpu-used", "8", "-c:a", "libopus"),
    "mp4": (*X264, "-c:a", "aac"),
    "mov": ("-c:v", "mjpeg", "-c:a", "pcm_s16le"),
    "avi": ("-c:v", "mpeg4", "-bf", "2", "-c:a", "mp2"),
    "ts": ("-c:v", "mpeg2video", "-g", "5", "-c:a", "mp2"),
    "mpg": ("-c:v", "mpeg1video", "-g", "5", "-c:a", "mp2"),
    "flv": (*X264, "-c:a", "aac"),
    "wmv": ("-c:v", "wmv2", "-c:a", "wmav2"),
    "ogv": ("-c:v", "libtheora", "-c:a", "libvorbis"),
}
DAMAGES = ("bytes", "cut", "spliced")
MOST_CPU = 30  # seconds
MOST_WAITING = 600  # seconds, on a busy machine
SPARE = 64 << 20  # bytes of memory that differ from run to run
QUICK = ("-b", "60", "--policy", "libvpx-vbr", "--cpu-used", "8", "--jobs", "1", "--json")
KINDS = ("encoded", "encoded, damaged", "refused", "fault")


@dataclass
class Ran:
    """What a run of the command did.

    Attributes:
        exit_code: Negative for a signal.
        words: What it wrote to stderr.
        result: What it printed; empty for nothing.
        cpu_seconds: Processor time.
        grown: Bytes of memory beyond what the process began with.
        cached: The most bytes that the cache had.
        left: Files that it left beside its input and its output.
    """

    exit_code: int
    words: str
    result: dict[str, Any]
    cpu_seconds: float
    grown: int
    cached: int
    left: list[str] = field(default_factory=list)


def ffmpeg(*arguments: str) -> subprocess.CompletedProcess[bytes]:
    """Run ffmpeg's program."""
    command = [ffmpeg_program(), "-nostdin", "-v", "error", "-y", "-threads", "1"]
    return subprocess.run([*command, *arguments], capture_output=True, timeout=MOST_WAITING)


def load() -> None:
    """Load what the command loads: it refuses a file that is not there."""
    import av.filter  # noqa: F401 - so that forked processes have it

    with redirect_stderr(io.StringIO()), suppress(SystemExit):
        cli.app(["encode", "nothing", "-o", "nothing.webm", *QUICK])


def make_good(folder: Path) -> None:
    """Write a file of each container."""
    for suffix, codecs in CONTAINERS.items():
        ffmpeg(*PICTURES, *SOUND, *codecs, "-shortest", str(folder / f"good.{suffix}"))


def damaged(good: dict[str, bytes], suffix: str, damage: str, rng: random.Random) -> bytes:
    """Return a damaged copy of a file."""
    data = bytearray(good[suffix])
    if damage == "bytes":
        for _ in range(rng.choice((1, 3, 10, 30))):
            data[rng.randrange(len(data))] = rng.randrange(256)
        return bytes(data)
    at = rng.randrange(1, len(data))
    length = min(len(data) - at, rng.choice((1, 16, 188, 1000, len(data) // 4, len(data))))
    if damage == "cut":
        del data[at : at + length]
        return bytes(data)
    other = good[rng.choice((suffix, rng.choice(list(good))))]
    begin = rng.randrange(len(other))
    piece = other[begin : begin + max(length, 16)]
    data[at : at + rng.choice((0, len(piece)))] = piece
    return bytes(data)


# One run of the command


def _become(folder: Path, source: Path, output: Path) -> NoReturn:
    """Run the command in this forked process, and exit as it does."""
    os.environ["VPXRC_CACHE"] = str(folder / "cache")
    os.environ["TMPDIR"] = tempfile.tempdir = str(folder / "tmp")
    for number, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(os.open(folder / name, os.O_WRONLY | os.O_CREAT), number)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CPU, (MOST_CPU, MOST_CPU))
    sys.argv = ["vpxrc", "encode", str(source), "-o", str(output), *QUICK]
    code = 1
    try:
        cli.main()
    except SystemExit as end:
        code = int(end.code or 0)
    except BaseException as error:
        print(repr(error), file=sys.stderr)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def ran(folder: Path, source: Path, output: Path) -> Ran:
    """Run the command on a file."""
    for name in ("cache", "tmp"):
        (folder / name).mkdir()
    before = psutil.Process().memory_info().rss
    child = os.fork()
    if child == 0:
        _become(folder, source, output)
    killer = threading.Timer(MOST_WAITING, os.kill, (child, signal.SIGKILL))
    killer.start()
    cached = 0
    while True:
        done, status, used = os.wait4(child, os.WNOHANG)
        cached = max(cached, size_below(folder / "cache"))
        if done:
            break
        time.sleep(0.2)
    killer.cancel()
    text = (folder / "stdout").read_text(errors="replace")
    expected = {source.name, "stdout", "stderr", "cache", "tmp"}
    expected |= {output.name} if status == 0 else set()
    left = [one.name for one in folder.iterdir() if one.name not in expected]
    left += [f"tmp/{one.name}" for one in (folder / "tmp").iterdir()]
    left += [f"cache/{one.name}" for one in (folder / "cache").rglob("*vpxrc-*")]
    return Ran(
        os.waitstatus_to_exitcode(status),
        (folder / "stderr").read_text(errors="replace"),
        json.loads(text) if status == 0 else {},
        used.ru_utime + used.ru_stime,
        used.ru_maxrss * 1024 - before,
        cached,
        left,
    )


def size_below(folder: Path) -> int:
    """Return the bytes of all files of a folder, which may change meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


# Judging a run


def faults(run: Ran, normal: Ran, source: Path, output: Path) -> list[str]:
    """Return what is wrong with a run, a line each."""
    found = [f"left {one}" for one in run.left]
    most = 2 * FRAME_BYTES * NUM_FRAMES
    if run.exit_code == 0:
        found += _faults_of_output(run, source, output)
        row = frame_bytes(run.result["width"], run.result["height"])
        most = max(most, 2 * row * run.result["num_frames"])
    elif run.exit_code == 2:
        if len(run.words.splitlines()) != 1 or not run.words.startswith("vpxrc: "):
            found.append(f"message: {run.words[-300:]!r}")
        if output.exists():
            found.append("refused, but there is an output")
    else:
        found.append(f"exit code {run.exit_code}: {run.words[-300:]!r}")
    notes = 4096  # bytes beside frames
    if run.cached > most + notes:
        found.append(f"the cache had {run.cached:,} bytes, at most {most:,} were expected")
    if run.grown > normal.grown + most + SPARE:
        found.append(f"memory grew by {run.grown:,} bytes, by {normal.grown:,} for the good file")
    return found


def _faults_of_output(run: Ran, source: Path, output: Path) -> list[str]:
    """Return what is wrong with a file that was written."""
    num_frames = run.result["num_frames"]
    shown, words = decoded(output, "-xerror", "-err_detect", "explode")
    if shown != num_frames or words:
        return [f"the output has {shown} frames for {num_frames}: {words}"]
    is_told = any("damaged" in note or "variable" in note for note in run.result["notes"])
    if num_frames < NUM_FRAMES and not is_told:
        theirs, words = decoded(source)
        if theirs > num_frames:
            return [f"{num_frames} frames without a note, {theirs} by ffmpeg: {words}"]
    return []


def decoded(path: Path, *options: str) -> tuple[int, str]:
    """Return how many frames ffmpeg's program decodes, and its first words."""
    to_lines = ("-map", "0:V:0", "-fps_mode", "passthrough", "-f", "framecrc", "-")
    done = ffmpeg(*options, "-i", str(path), *to_lines)
    lines = [line for line in done.stdout.splitlines() if not line.startswith(b"#")]
    words = done.stderr.decode(errors="replace").splitlines()
    return len(lines), words[0] if words else ""


def table(rows: list[dict[str, Any]], normal: dict[str, Ran]) -> str:
    """Return counts by container and by damage, and the extremes, in Markdown."""
    lines = [
        "| files | inputs | encoded | encoded, with a note of the damage | refused | faults |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    groups = [("suffix", one) for one in CONTAINERS] + [("damage", one) for one in DAMAGES]
    for name, value in [*groups, ("", "all")]:
        counts = Counter(row["kind"] for row in rows if not name or row[name] == value)
        cells = [str(counts[kind]) for kind in KINDS]
        lines.append(f"| {value} | {counts.total()} | {' | '.join(cells)} |")
    good = list(normal.values())
    lines += [
        "",
        "| the most of any input | damaged | good |",
        "| --- | --- | --- |",
        f"| processor time | {max(row['cpu_seconds'] for row in rows):.1f} s "
        f"| {max(one.cpu_seconds for one in good):.1f} s |",
        f"| memory beyond that for the good file | {max(row['more'] for row in rows) / 1e6:.1f} MB "
        "| |",
        f"| files in the cache | {max(row['cached'] for row in rows) / 1e6:.3f} MB "
        f"| {max(one.cached for one in good) / 1e6:.3f} MB |",
    ]
    return "\n".join(lines) + "\n"


def one(
    number: int, good: dict[str, bytes], normal: dict[str, Ran], scratch: Path
) -> dict[str, Any]:
    """Return what became of an input by its number."""
    suffix = list(CONTAINERS)[number % len(CONTAINERS)]
    damage = DAMAGES[number // len(CONTAINERS) % len(DAMAGES)]
    rng = random.Random(number)
    folder = scratch / "work"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    source, output = folder / f"damaged.{suffix}", folder / "out.webm"
    source.write_bytes(damaged(good, suffix, damage, rng))
    run = ran(folder, source, output)
    wrong = faults(run, normal[suffix], source, output)
    kind = "refused" if run.exit_code else "encoded"
    if any("damaged" in note for note in run.result.get("notes", ())):
        kind = "encoded, damaged"
    return {
        "number": number,
        "suffix": suffix,
        "damage": damage,
        "kind": "fault" if wrong else kind,
        "faults": wrong,
        "words": run.words.replace(str(source), "IN").strip(),
        "cpu_seconds": run.cpu_seconds,
        "more": run.grown - normal[suffix].grown,
        "cached": run.cached,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--inputs", type=int, default=500)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--json", action="store_true", help="print JSON, and show no progress")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    rows, normal = [], {}
    with tempfile.TemporaryDirectory(prefix="fuzz-") as made, progress_bar(arguments.json) as bar:
        scratch = Path(made)
        load()
        make_good(scratch)
        good = {suffix: (scratch / f"good.{suffix}").read_bytes() for suffix in CONTAINERS}
        for suffix in CONTAINERS:
            folder = scratch / suffix
            folder.mkdir()
            source, output = folder / f"good.{suffix}", folder / "out.webm"
            source.write_bytes(good[suffix])
            normal[suffix] = ran(folder, source, output)
            if normal[suffix].exit_code:
                raise RuntimeError(f"the undamaged {suffix}: {normal[suffix].words}")
        task = bar.add_task("inputs", total=arguments.inputs)
        for number in range(arguments.first, arguments.first + arguments.inputs):
            rows.append(one(number, good, normal, scratch))
            bar.update(task, advance=1)
            if number % 10 == 9:
                _write(arguments.out, rows, normal)
    _write(arguments.out, rows, normal)
    wrong = [row for row in rows if row["faults"]]
    print(json.dumps(wrong) if arguments.json else table(rows, normal))
    raise SystemExit(1 if wrong else 0)


def _write(out: Path, rows: list[dict[str, Any]], normal: dict[str, Ran]) -> None:
    with atomic_write(out / "table.md") as temporary:
        temporary.write_text(table(rows, normal))
    with atomic_write(out / "inputs.json") as temporary:
        temporary.write_text("\n".join(json.dumps(row) for row in rows) + "\n")


if __name__ == "__main__":
    main()
