"""Time and memory of reading files, beside another version of the package.

python -m benchmarks.reading_speed --old FOLDER --out build/reading-speed

FOLDER has the other version as ``FOLDER/vpxrc``, native modules included: a site-packages folder,
or what ``tools/package_view.py`` makes of a checkout. Both versions decode and encode the same
clips in processes of their own, in turn, and the medians of the ratios are compared, so a busy
machine does not decide. Processor time includes the programs that a version starts; memory is the
peak of the Python process alone.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import vpxrc
from vpxrc.cli.common import progress_bar
from vpxrc.media.ffmpeg import ffmpeg_program
from vpxrc.storage import atomic_write

CLIPS = {  # name: size, rate, seconds, and whether it is encoded, too
    "1280x720, 100 frames": ("1280x720", 25, 4, False),
    "320x180, 75 frames": ("320x180", 25, 3, True),
}
CODECS = (
    "-c:v",
    "libx264",
    "-preset",
    "veryfast",
    "-bf",
    "2",
    "-pix_fmt",
    "yuv420p",
    "-c:a",
    "aac",
)
# A version that is installed in place is found before anything else, unless its finder goes.
PREAMBLE = """
import sys, time
sys.meta_path = [one for one in sys.meta_path if "Redirecting" not in type(one).__name__]
sys.path.insert(0, sys.argv[1])
source, output, begin = sys.argv[2], sys.argv[3], float(sys.argv[4])
"""
PEAK = """
lines = open("/proc/self/status").read().splitlines()
print(*[one.split()[1] for one in lines if one.startswith("VmHWM")])  # KiB
"""
DECODE = PREAMBLE + "from vpxrc import open_video\nopen_video(source)\n" + PEAK
ENCODE = (
    PREAMBLE
    + """
from vpxrc.transcoding import transcode
first = []
def progress(done, total):
    if done and not first:
        first.append(time.monotonic() - begin)
transcode(source, output, target_bitrate=200, cpu_used=8, jobs=1, progress=progress)
print(first[0])
"""
    + PEAK
)
FIGURES = ("processor time", "memory", "time to the first coded frame")


def measured(program: str, version: Path, clip: Path) -> dict[str, float]:
    """Run a program with a version of the package, and return its figures: seconds and MiB.

    Raises:
        RuntimeError: It failed.
    """
    with tempfile.TemporaryDirectory(prefix="reading-") as folder:
        surroundings = {**os.environ, "VPXRC_CACHE": folder, "OMP_NUM_THREADS": "1"}
        words = [sys.executable, "-c", program, str(version), str(clip), f"{folder}/out.webm"]
        begin = time.monotonic()
        child = subprocess.Popen([*words, str(begin)], env=surroundings, stdout=subprocess.PIPE)
        assert child.stdout is not None
        *first, peak = child.stdout.read().split() or ("nan",)
        _, status, used = os.wait4(child.pid, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        child.stdout.close()
    if child.returncode:
        raise RuntimeError(f"{version}: exit code {child.returncode}")
    figures = [used.ru_utime + used.ru_stime, float(peak) / 1024, *map(float, first)]
    return dict(zip(FIGURES, figures, strict=False))


def table(rows: dict[str, dict[str, list[list[float]]]]) -> str:
    """Return medians and the median of the ratios in Markdown."""
    lines = [
        "| work | clip | figure | before | now | ratio, median (least to most) |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    for name, figures in rows.items():
        for figure, pairs in figures.items():
            old, new = np.median(pairs, axis=0)
            unit = "MiB" if figure == "memory" else "s"
            ratios = [pair[1] / pair[0] for pair in pairs]
            spread = f"{np.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
            lines.append(f"| {name} | {figure} | {old:.2f} {unit} | {new:.2f} {unit} | {spread} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--old", type=Path, required=True)
    parser.add_argument("--new", type=Path, default=Path(vpxrc.__file__).parent.parent)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    rows: dict[str, dict[str, list[list[float]]]] = {}
    works = (("decode", DECODE), ("encode", ENCODE))
    with tempfile.TemporaryDirectory(prefix="reading-") as folder, progress_bar(False) as bar:
        task = bar.add_task("runs", total=None)
        for number, (name, (*clip, is_encoded)) in enumerate(CLIPS.items()):
            path = Path(folder) / f"{number}.mp4"
            make_clip(path, *clip)
            for work, program in works[: 1 + is_encoded]:
                row = rows[f"{work} | {name}"] = {}
                for repeat in range(arguments.repeats):
                    order = (arguments.old, arguments.new)[:: 1 if repeat % 2 else -1]
                    found = {}
                    for version in order:
                        found[version] = measured(program, version, path)
                        bar.update(task, advance=1)
                    for figure, value in found[arguments.old].items():
                        row.setdefault(figure, []).append([value, found[arguments.new][figure]])
                with atomic_write(arguments.out / "speed.json") as temporary:
                    temporary.write_text(json.dumps(rows, indent=1))
    (arguments.out / "table.md").write_text(table(rows))
    print(table(rows))


def make_clip(path: Path, size: Any, rate: Any, seconds: Any) -> None:
    """Write a clip of moving test pictures with a tone."""
    inputs = ("-f", "lavfi", "-i", f"testsrc2=s={size}:r={rate}:d={seconds}")
    sound = ("-f", "lavfi", "-i", f"sine=440:d={seconds}")
    command = [ffmpeg_program(), "-nostdin", "-v", "error", *inputs, *sound, *CODECS, str(path)]
    subprocess.run(command, check=True)


if __name__ == "__main__":
    main()
