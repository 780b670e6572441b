"""Media files of all kinds: the command's output against what ffmpeg's own program makes of them.

python -m benchmarks.corpus FOLDER... --out build/corpus

Every media file below the folders goes through ``vpxrc.transcode`` and through ffmpeg, in a process
of its own with a limit of time. Both results are made thumbnails and compared: number of frames,
length, the time of the sound against the pictures, names of the colours, shape of the pixels, and
what every frame looks like. Larger videos are read whole and encoded at a smaller size, and the
largest ones are skipped. Results are kept by the file's checksum, so the same command goes on where
it was. A folder's name is its source in the table, so it should say package and version.
"""

import argparse
import functools
import json
import math
import multiprocessing
import os
import re
import subprocess
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import av
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpxrc import EncodeLog, EncoderOptions, Video, encode, make_policy, video_from_frames
from vpxrc.cli.common import progress_bar
from vpxrc.errors import VpxrcError
from vpxrc.media.ffmpeg import ffmpeg_program
from vpxrc.media.frames import Samples
from vpxrc.media.labels import MATRICES, PRIMARIES, TRANSFERS
from vpxrc.storage import atomic_write, sha256_file, write_frame
from vpxrc.transcoding import transcode

SUFFIXES = (
    "264|265|3g2|3gp|apng|asf|avc|avi|divx|dv|f4v|flv|gif|h264|hevc|ivf|jsv|jvt|m1v|m2ts|m2v|m4v|"
    "mj2|mjpeg|mjpg|mk3d|mkv|mov|mp4|mpeg|mpg|mts|mxf|nut|ogg|ogv|ps|rm|swf|ts|vob|webm|webp|wmv|y4m"
)
PATIENCE = 300  # seconds for one file
WIDTH, HEIGHT = 64, 48  # of a thumbnail
BITS_PER_PIXEL = 0.1  # of the encode, enough for the colours of the source
SPEED: dict[str, Any] = {"cpu_used": 8, "jobs": 1, "chunk": 0}
PROCESSES = multiprocessing.get_context("forkserver")  # starts quickly, with all modules loaded
# What counts as equal.
FRAMES_OF_TIME = 1.0  # in length and in sync, in frames of the output
CLOCK = 0.03  # s, beside that: containers round times, and packets of sound have a length
LEVELS = 3.0  # of 255, the mean of a frame's luma or chroma
# Of 255, the mean absolute difference of thumbnails, beside the encode's loss. Detailed pictures
# that were encoded at another size have thumbnails that differ by nearly so much.
PICTURE = 7.0


@dataclass(frozen=True)
class Limits:
    """The most pixels of all frames of a file.

    Attributes:
        read: Files with more are skipped.
        coded: Files with more are read as they are and encoded smaller.
    """

    read: float
    coded: float


@dataclass(frozen=True)
class Shown:
    """What a file shows.

    Attributes:
        num_frames: Number of frames.
        length: Seconds from the first frame to the end of the last one.
        sound: Seconds by which the sound begins after the pictures; None without sound.
        sound_length: Seconds of sound; 0 without.
        aspect: Width over height as it is to be seen.
        labels: Matrix, transfer, primaries and range by H.273's names.
    """

    num_frames: int
    length: float
    sound: float | None
    sound_length: float
    aspect: float
    labels: dict[str, str]


Frames = tuple[NDArray[np.float64], NDArray[np.uint8]]  # times, and thumbnails as rows


def thumbnails(path: Path, folder: Path) -> tuple[Shown, Frames]:
    """Return what a file shows, as ffmpeg's program reads it.

    Raises:
        RuntimeError: It cannot read it; the message is its last line.
    """
    small = folder / f"{path.stem[:20]}.thumbnails.mkv"
    filters = f"setsar=if(sar\\,sar\\,1),scale={WIDTH}:{HEIGHT}:flags=area,format=yuv420p"
    pictures = ("-map", "0:V:0", "-vf", filters)
    sound = ("-map", "0:a:0?", "-ac", "1", "-ar", "8000", "-c:a", "pcm_s16le")
    program = (ffmpeg_program(), "-nostdin", "-v", "error", "-y", "-threads", "1", "-i")
    words = ""
    for chosen in ((*pictures, *sound), pictures):  # there may be no decoder for the sound
        done = subprocess.run(
            [*program, f"file:{path}", *chosen, "-c:v", "ffv1", "-threads", "1", str(small)],
            capture_output=True,
            timeout=PATIENCE,
        )
        with suppress(av.FFmpegError, IndexError, ValueError):
            return read_thumbnails(small)
        words = words or done.stderr.decode(errors="replace").strip()
    raise RuntimeError(words.splitlines()[-1] if words else "no frame")


def read_thumbnails(path: Path) -> tuple[Shown, Frames]:
    """Return what a file of thumbnails shows.

    Raises:
        av.FFmpegError: It is no video.
        IndexError: It has no video stream.
        ValueError: It has no frame.
    """
    with av.open(path) as container:
        video = container.streams.video[0]
        aspect = video.sample_aspect_ratio or 1
        frames = list(container.decode(video))
    times = np.array([float(frame.time or 0) for frame in frames])
    rows = np.array([frame.to_ndarray().ravel() for frame in frames])
    if not len(frames):
        raise ValueError("no frame")
    begin = end = None
    with av.open(path) as container:
        for sound in container.decode(audio=0) if container.streams.audio else ():
            begin = sound.time if begin is None else begin
            end = (sound.time or 0) + sound.samples / sound.sample_rate
    # A frame lasts until the next one, and the last one as long as most do.
    last = float(np.median(np.diff(times))) if len(times) > 1 else 0.0
    first = frames[0]
    labels = {
        "matrix": MATRICES.get(int(first.colorspace), "unknown"),
        "transfer": TRANSFERS.get(int(first.color_trc), "unknown"),
        "primaries": PRIMARIES.get(int(first.color_primaries), "unknown"),
        "range": "full" if int(first.color_range) == 2 else "limited",
    }
    shown = Shown(
        num_frames=len(frames),
        length=float(times[-1] - times[0] + last),
        sound=None if begin is None else float(begin - times[0]),
        sound_length=0.0 if begin is None or end is None else float(end - begin),
        aspect=float(aspect * WIDTH / HEIGHT),
        labels=labels,
    )
    return shown, (times - times[0], rows)


def compared(ours: Frames, theirs: Frames) -> dict[str, float]:
    """Return how much the frames differ that are shown at the same times, in levels of 255."""
    half = float(np.median(np.diff(ours[0]))) / 2 if len(ours[0]) > 1 else 0.0
    # The middle of a frame: the times of both are rounded.
    shown = np.searchsorted(theirs[0], ours[0] + half, side="right") - 1
    mine, other = ours[1].astype(float), theirs[1][np.clip(shown, 0, None)].astype(float)
    luma, quarter = WIDTH * HEIGHT, WIDTH * HEIGHT // 4
    planes = (slice(luma), slice(luma, luma + quarter), slice(luma + quarter, None))
    means = [abs(mine[:, one].mean(1) - other[:, one].mean(1)).mean() for one in planes]
    pictures = abs(mine[:, :luma] - other[:, :luma]).mean(1)
    return {
        "levels": float(max(means)),
        "picture": float(np.median(pictures)),
        "worst_picture": float(pictures.max()),
    }


# One file


def num_pixels(path: Path) -> tuple[int, int]:
    """Return the pixels of a frame and of all frames; zeros where the file cannot be read."""
    with (
        suppress(av.FFmpegError, AttributeError, IndexError, OSError),
        av.open(path, metadata_errors="replace") as container,
    ):
        video = container.streams.video[0]
        pixels = video.width * video.height
        return pixels, pixels * sum(1 for packet in container.demux(video) if packet.size)
    return 0, 0


def examine(path: Path, folder: Path, limits: Limits) -> dict[str, Any]:
    """Return what became of a file; runs in a process of its own, which may be killed."""
    pixels, total = num_pixels(path)
    row: dict[str, Any] = {"pixels": total}
    if total > limits.read:
        return {**row, "skipped": True}
    output = folder / "out.webm"
    row |= encoded(path, output, max(math.ceil((total / limits.coded) ** 0.5), 1), pixels)
    ours = theirs = None
    try:
        shown, theirs = thumbnails(path, folder)
        row["ffmpeg"] = asdict(shown)
    except (RuntimeError, subprocess.TimeoutExpired) as error:
        row["ffmpeg_error"] = str(error)
    if row["exit_code"] == 0:
        shown, ours = thumbnails(output, folder)
        row["vpxrc"] = asdict(shown)
    if ours is not None and theirs is not None:
        row |= compared(ours, theirs)
    return row


def encoded(path: Path, output: Path, factor: int, pixels: int) -> dict[str, Any]:
    """Encode a file, and return the command's exit code, the result and the message."""
    rate = max(round(BITS_PER_PIXEL * max(pixels, 4096) * 25 / factor**2 / 1000), 1)
    coder = functools.partial(encode_smaller, factor)
    try:
        found = transcode(path, output, target_bitrate=rate, encode=coder, **SPEED).figures()
    except VpxrcError as error:
        return {"exit_code": 2, "message": f"vpxrc: {error}"}
    except Exception as error:
        place = traceback.extract_tb(error.__traceback__)[-1]
        words = f"{error!r:.300} at {Path(place.filename).name}:{place.lineno}"
        return {"exit_code": 1, "message": words}
    kept = ("fps", "num_frames", "width", "height", "notes", "seconds", "psnr")
    return {"exit_code": 0, "factor": factor, **{name: found[name] for name in kept}}


def encode_smaller(
    factor: int, video: Video, options: EncoderOptions, progress: Callable[[int], None]
) -> EncodeLog:
    """Encode a clip of which every pixel is the mean of a square of them."""
    if factor > 1:
        width, height = (max(side // factor // 2, 1) * 2 for side in (video.width, video.height))
        rows = [
            np.concatenate([_means(plane, factor, height, width) for plane in video.planes(index)])
            for index in range(video.num_frames)
        ]
        small = video_from_frames(np.array(rows), width, height, video.fps, video.name)
        video = replace(small, colours=video.colours)
    return encode(video, options, make_policy("libvpx-vbr"), progress=progress)


def _means(plane: Samples, factor: int, height: int, width: int) -> Samples:
    """Return the means of squares; a plane is as large as its share of a frame of that size."""
    is_luma = plane.shape[0] >= factor * height
    height, width = (height, width) if is_luma else (height // 2, width // 2)
    squares = plane[: factor * height, : factor * width].reshape(height, factor, width, factor)
    means: Samples = squares.mean((1, 3)).round().astype(plane.dtype).ravel()
    return means


def _child(path: Path, limits: Limits, note: Path) -> None:
    """Examine a file, and write down what became of it."""
    folder = note.parent
    os.environ |= {"VPXRC_CACHE": str(folder / "cache"), "TMPDIR": str(folder)}
    tempfile.tempdir = None
    result = examine(path, folder, limits)
    with atomic_write(note) as temporary:
        temporary.write_text(json.dumps(result))


def examined(path: Path, limits: Limits) -> dict[str, Any]:
    """Examine a file in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="corpus-") as folder:
        note = Path(folder) / "result.json"
        process = PROCESSES.Process(target=_child, args=(path, limits, note))
        process.start()
        process.join(PATIENCE)
        if process.is_alive():
            process.kill()
            process.join()
            return {"exit_code": None, "message": f"not done after {PATIENCE} s"}
        if process.exitcode:
            return {"exit_code": process.exitcode, "message": "the process ended"}
        row: dict[str, Any] = json.loads(note.read_text())
        return row


# Verdicts


def differences(row: dict[str, Any]) -> dict[str, str]:
    """Return in what the command's output is not ffmpeg's, by kind, in words."""
    ours, theirs = row["vpxrc"], row["ffmpeg"]
    frame = ours["length"] / ours["num_frames"]
    most = FRAMES_OF_TIME * frame + CLOCK
    found = {}
    if ours["num_frames"] != theirs["num_frames"]:
        found["frames"] = f"{ours['num_frames']} for {theirs['num_frames']}"
    if abs(ours["length"] - theirs["length"]) > most:
        found["length"] = f"{ours['length']:.2f} s for {theirs['length']:.2f} s"
    if (ours["sound"] is None) != (theirs["sound"] is None):
        found["sound"] = "none" if ours["sound"] is None else "more"
    elif ours["sound"] is not None:
        if abs(ours["sound"] - theirs["sound"]) > most:
            found["sync"] = f"{ours['sound']:+.3f} s for {theirs['sound']:+.3f} s"
        if abs(ours["sound_length"] - theirs["sound_length"]) > most:
            lengths = (ours["sound_length"], theirs["sound_length"])
            found["sound's length"] = "{:.2f} s for {:.2f} s".format(*lengths)
    for name, value in ours["labels"].items():
        if value != theirs["labels"][name]:
            found[name] = f"{value} for {theirs['labels'][name]}"
    rounding = 0.02 if row["factor"] == 1 else 0.02 + 2 / row["height"]  # to even sides
    if abs(ours["aspect"] / theirs["aspect"] - 1) > rounding:
        found["shape"] = f"{ours['aspect']:.3f} for {theirs['aspect']:.3f}"
    if row["levels"] > LEVELS:
        found["colours"] = f"{row['levels']:.1f} levels"
    loss = 255 * 10 ** (-row["psnr"] / 20)  # root mean square, which no mean of differences exceeds
    if row["picture"] > PICTURE + loss:
        found["pictures"] = f"{row['picture']:.1f} levels"
    return found


def explained(row: dict[str, Any], found: dict[str, str]) -> dict[str, str]:
    """Return the reasons why the output differs, by kind of difference."""
    notes = " ".join(row["notes"])
    reasons = {}
    if found.get("matrix") == "bt470bg for unknown":  # of YUV it would be unknown here, too
        reasons["matrix"] = RGB
    for kind in found:
        for words, kinds, reason in REASONS:
            if words in notes and kind in kinds:
                reasons[kind] = reason
                break
    return reasons


# Words of a note, the differences that they explain, and the reason.
REASONS = (
    ("variable frame rate", ("frames", "length"), "variable frame rate, made constant"),
    (
        "the file is damaged",
        ("frames", "length", "sync", "colours", "pictures"),
        "damaged: other frames are concealed, or as another decoder does it",
    ),
    ("audio is damaged", ("sound's length",), "damaged sound"),
    ("audio is left out", ("sound",), "sound without a decoder or a sample"),
)
RGB = "RGB is converted by BT.601 by both, and only vpxrc's output says so"


def verdict(row: dict[str, Any]) -> tuple[str, str]:
    """Return what became of a file in a word, and why."""
    if row.get("skipped"):
        return "skipped", "more pixels than the limit"
    if row["exit_code"] is None:
        return "too slow", row["message"]
    lines = row.get("message", "").splitlines()
    if row["exit_code"] not in (0, 2) or (row["exit_code"] == 2 and len(lines) != 1):
        return "crash", f"exit code {row['exit_code']}: {lines[-1] if lines else ''}"
    if row["exit_code"] == 2:
        line = re.sub(r"^vpxrc: .*?: |[;,] .*", "", lines[0])
        if "ffmpeg_error" not in row:
            return "refused", line
        return "no video in it" if line == "no video stream" else "refused by both", line
    if "ffmpeg_error" in row:
        return "read by vpxrc alone", row["ffmpeg_error"]
    found = differences(row)
    if not found:
        return "equal", ""
    reasons = explained(row, found)
    left = {kind: words for kind, words in found.items() if kind not in reasons}
    if left:
        return "unexplained", "; ".join(f"{kind}: {words}" for kind, words in left.items())
    return "different", ", ".join(dict.fromkeys(reasons.values()))


KINDS = (
    "equal",
    "different",
    "read by vpxrc alone",
    "refused",
    "refused by both",
    "no video in it",
    "skipped",
    "unexplained",
    "too slow",
    "crash",
)


def table(rows: pd.DataFrame) -> str:
    """Return counts by source, and the reasons, in Markdown."""
    lines = [
        f"| source | files | {' | '.join(KINDS)} |",
        f"| --- | --- |{' --- |' * len(KINDS)}",
    ]
    for source, of in [*rows.groupby("source"), ("all", rows)]:
        counts = Counter(of["verdict"])
        cells = [str(counts[kind]) for kind in KINDS]
        lines.append(f"| {source} | {len(of)} | {' | '.join(cells)} |")
    lines += ["", "| verdict | reason | files | one of them |", "| --- | --- | --- | --- |"]
    reasons = rows[~rows["verdict"].isin(("equal", "skipped"))]
    for (kind, reason), of in reasons.groupby(["verdict", "reason"]):
        lines.append(f"| {kind} | {reason} | {len(of)} | {of['file'].iloc[0]} |")
    return "\n".join(lines) + "\n"


def files_below(folders: list[Path]) -> Iterator[tuple[str, Path]]:
    """Yield the name of the folder and the path of every media file, each content once."""
    seen = set()
    for folder in folders:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and re.fullmatch(SUFFIXES, path.suffix[1:].lower()):
                checksum = sha256_file(path)
                if checksum not in seen:
                    seen.add(checksum)
                    yield folder.name, path


def note_of(out: Path, path: Path) -> Path:
    """Return where the result of a file is kept."""
    return out / "files" / f"{sha256_file(path)[:24]}.json"


def kept(out: Path, path: Path, limits: Limits) -> dict[str, Any]:
    """Return what became of a file, from the last time where that is known."""
    note = note_of(out, path)
    with suppress(OSError, ValueError):
        row: dict[str, Any] = json.loads(note.read_text())
        if not row.get("skipped") or row["pixels"] > limits.read:
            return row
    row = examined(path, limits)
    with atomic_write(note) as temporary:
        temporary.write_text(json.dumps(row))
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument(
        "--read", type=float, default=1e8, metavar="PIXELS", help="skip larger ones"
    )
    parser.add_argument("--coded", type=float, default=2e5, metavar="PIXELS", help="at full size")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--kept", action="store_true", help="only files whose result is kept")
    parser.add_argument("--json", action="store_true", help="print JSON, and show no progress")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    limits = Limits(arguments.read, arguments.coded)
    PROCESSES.set_forkserver_preload(["av", "pandas", "vpxrc.cli.common", "vpxrc.transcoding"])
    # Small files first: most kinds of files are among them.
    found = sorted(files_below(arguments.folders), key=lambda one: one[1].stat().st_size)
    if arguments.kept:
        found = [one for one in found if note_of(arguments.out, one[1]).exists()]
    rows: list[dict[Any, Any]] = []
    with progress_bar(arguments.json) as bar, ThreadPoolExecutor(arguments.jobs) as pool:
        task = bar.add_task("files", total=len(found))
        results = pool.map(lambda one: kept(arguments.out, one[1], limits), found)
        for (source, path), row in zip(found, results, strict=True):
            word, reason = verdict(row)
            reason = reason.replace(str(path), "IN").replace("|", "/")
            about = {"source": source, "file": path.name, "verdict": word, "reason": reason}
            for name in {"message", "ffmpeg_error"} & row.keys():
                row[name] = row[name].replace(str(path), "IN")
            flat = pd.json_normalize(row).iloc[0].to_dict()
            rows.append(about | {str(name): value for name, value in flat.items()})
            bar.update(task, advance=1)
    frame = pd.DataFrame(rows)
    with atomic_write(arguments.out / "files.parquet") as temporary:
        write_frame(frame.astype({"notes": str}), temporary)
    text = table(frame)
    with atomic_write(arguments.out / "table.md") as temporary:
        temporary.write_text(text)
    print(frame["verdict"].value_counts().to_json() if arguments.json else text)
    bad = frame["verdict"].isin(("unexplained", "too slow", "crash"))
    raise SystemExit(1 if bad.any() else 0)


if __name__ == "__main__":
    main()
