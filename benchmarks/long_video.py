"""A video of hours: time and memory, and the same bytes after kills.

python -m benchmarks.long_video --seconds 7200 --kills 3 --out build/long

The video is made by ffmpeg, small and with sound. ``vpxrc encode`` encodes it once without
interruption, and once while it is killed (SIGKILL) whenever another share of the chunks is in the
cache, and goes on by ``--resume``. Resident memory of the command and its workers is sampled. What
is anonymous is the programs' own; the rest is files that the kernel may drop, such as the frames.
The run without interruption is kept, so the same command goes on after it.
"""

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from vpxrc.media.ffmpeg import ffmpeg_program
from vpxrc.storage import atomic_write

INTERVAL = 1.0  # seconds between two looks at the memory
MIB = 1 << 20


def make_source(path: Path, seconds: int, fps: int) -> None:
    """Write a video of moving test pictures with a tone, which repeats every minute."""
    program = (ffmpeg_program(), "-nostdin", "-v", "error", "-y", "-threads", "1")
    tone = path.with_name("tone.mka")
    sound = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000:duration=60")
    subprocess.run([*program, *sound, "-c:a", "libopus", "-b:a", "16k", str(tone)], check=True)
    pictures = ("-f", "lavfi", "-i", f"testsrc2=size=64x48:rate={fps}:duration={seconds}")
    inputs = (*pictures, "-stream_loop", "-1", "-i", str(tone), "-t", str(seconds))
    video = ("-c:v", "libx264", "-preset", "ultrafast", "-g", str(10 * fps), "-threads", "1")
    subprocess.run([*program, *inputs, *video, "-c:a", "copy", str(path)], check=True)


def command(source: Path, output: Path, resume: bool) -> list[str]:
    """Return the words of the encode."""
    words = [sys.executable, "-m", "vpxrc", "encode", str(source), "-o", str(output), "-b", "5"]
    words += ["--policy", "libvpx-vbr", "--cpu-used", "8", "--jobs", "1", "--chunk", "60"]
    return [*words, "--json", *(["--resume"] if resume else [])]


def memory(process: psutil.Process) -> tuple[float, float]:
    """Return MiB of a process and its children: anonymous, and all that is resident."""
    anonymous = resident = 0
    with suppress(psutil.Error, OSError):
        for one in (process, *process.children(recursive=True)):
            lines = Path(f"/proc/{one.pid}/status").read_text().splitlines()
            fields = dict(line.split(":", 1) for line in lines if ":" in line)
            anonymous += int(fields.get("RssAnon", "0 kB").split()[0])
            resident += int(fields.get("VmRSS", "0 kB").split()[0])
    return anonymous / 1024, resident / 1024


def num_chunks(cache: Path) -> int:
    """Return the number of finished chunks in the cache."""
    return len(list((cache / "chunks").glob("*.npz")))


def run(words: list[str], cache: Path, kill_at: int | None = None) -> dict[str, Any]:
    """Run an encode, and kill it once ``kill_at`` chunks are in the cache.

    Raises:
        RuntimeError: It failed.
    """
    begin = time.monotonic()
    samples = []
    with subprocess.Popen(
        words, env={**os.environ, "VPXRC_CACHE": str(cache)}, stdout=subprocess.PIPE
    ) as started:
        process = psutil.Process(started.pid)
        while True:
            try:
                output, _ = started.communicate(timeout=INTERVAL)
                break
            except subprocess.TimeoutExpired:
                samples.append(memory(process))
            if kill_at is not None and num_chunks(cache) >= kill_at:
                for child in process.children(recursive=True):
                    child.kill()
                started.kill()
                started.wait()
                return {"killed_with": num_chunks(cache), "seconds": time.monotonic() - begin}
    if started.returncode:
        raise RuntimeError(f"exit code {started.returncode}")
    found = json.loads(output)
    quarter = max(len(samples) // 4, 1)
    return {
        "seconds": time.monotonic() - begin,
        "num_frames": found["num_frames"],
        "num_chunks": len(found["chunks"]),
        "size": found["size"],
        "notes": found["notes"],
        "peak_mib_by_quarters": [
            max((one for one, _ in samples[part * quarter :][:quarter]), default=0.0)
            for part in range(4)
        ],
        "peak_resident_mib": max((one for _, one in samples), default=0.0),
    }


def checksum(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def table(found: dict[str, Any]) -> str:
    """Return the figures in Markdown."""
    whole, resumed = found["whole"], found["resumed"]
    peaks = ", ".join(f"{one:.0f}" for one in whole["peak_mib_by_quarters"])
    used = [note for note in resumed["notes"] if "earlier encode" in note]
    lines = [
        "| figure | value |",
        "| --- | --- |",
        f"| video | {found['seconds']} s, {whole['num_frames']} frames of 64x48, "
        f"{whole['num_chunks']} chunks, Opus |",
        f"| processor time of a whole encode | {found['cpu_seconds']:.0f} s |",
        f"| peak of the programs' own memory, by quarters of the run | {peaks} MiB |",
        f"| peak of the resident memory, files included | {whole['peak_resident_mib']:.0f} MiB |",
        f"| decoded frames | {found['decoded_mib']:.0f} MiB |",
        f"| chunks in the cache at the kills | {', '.join(map(str, found['killed_with']))} |",
        f"| note of the last run | {'; '.join(used)} |",
        f"| same bytes as without kills | {'yes' if found['is_same'] else 'no'} |",
    ]
    return "\n".join(lines) + "\n"


def whole_run(source: Path, out: Path) -> dict[str, Any]:
    """Return the run without interruption, from the last time where it is kept."""
    note, output, cache = out / "whole.json", out / "whole.webm", out / "whole-cache"
    if note.exists() and output.exists():
        kept: dict[str, Any] = json.loads(note.read_text())
        return kept
    shutil.rmtree(cache, ignore_errors=True)
    before = os.times()
    found = run(command(source, output, resume=False), cache)
    after = os.times()
    found["cpu_seconds"] = sum(after[2:4]) - sum(before[2:4])
    with atomic_write(note) as temporary:
        temporary.write_text(json.dumps(found))
    shutil.rmtree(cache)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=int, default=7200)
    parser.add_argument("--fps", type=int, default=5)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    out, cache = arguments.out, arguments.out / "cache"
    out.mkdir(parents=True, exist_ok=True)
    source = out / f"source-{arguments.seconds}-{arguments.fps}.mkv"
    if not source.exists():
        made = out / "unfinished.mkv"
        make_source(made, arguments.seconds, arguments.fps)
        made.replace(source)
    whole = whole_run(source, out)
    shutil.rmtree(cache, ignore_errors=True)
    kills = []
    for number in range(arguments.kills):
        kill_at = max(whole["num_chunks"] * (number + 1) // (arguments.kills + 1), 1)
        words = command(source, out / "resumed.webm", resume=True)
        kills.append(run(words, cache, kill_at)["killed_with"])
        print(f"killed with {kills[-1]} of {whole['num_chunks']} chunks", flush=True)
    resumed = run(command(source, out / "resumed.webm", resume=True), cache)
    found = {
        "seconds": arguments.seconds,
        "whole": whole,
        "resumed": resumed,
        "cpu_seconds": whole["cpu_seconds"],
        "decoded_mib": whole["num_frames"] * 64 * 48 * 1.5 / MIB,
        "killed_with": kills,
        "is_same": checksum(out / "whole.webm") == checksum(out / "resumed.webm"),
    }
    (out / "long.json").write_text(json.dumps(found, indent=1))
    (out / "table.md").write_text(table(found))
    print(table(found))
    raise SystemExit(0 if found["is_same"] else 1)


if __name__ == "__main__":
    main()
