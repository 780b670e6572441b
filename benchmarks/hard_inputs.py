"""A policy on inputs that are hard for rate control, worst first.

python -m benchmarks.hard_inputs --agent imitation --baseline libvpx-vbr-mlarf --out build/hard

The clips are made of ffmpeg's own sources and of the package's sample clips, the same on every
machine with the same ffmpeg: stills, slides, fades, flashes, cuts, grain, clips of two frames and
of 900, odd shapes and rates, and targets from starved to near-lossless. Every clip has rates of its
own. Encodes are kept, so the same command goes on where it was.
"""

import argparse
import dataclasses
import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ffmpeg
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpxrc import EncoderOptions, Video, video_from_frames
from vpxrc.cli.common import DEFAULT_POLICY, progress_bar
from vpxrc.datasets import load_clips
from vpxrc.errors import EncoderError, InputError
from vpxrc.evaluation.result import Evaluation
from vpxrc.evaluation.study import evaluate
from vpxrc.media.ffmpeg import run_ffmpeg
from vpxrc.media.frames import frame_bytes, to_8_bits
from vpxrc.quality import QUALITIES
from vpxrc.storage import atomic_write

Frames = NDArray[np.uint8]  # [num_frames, frame_bytes], I420
USUAL = (0.02, 0.05, 0.1, 0.2)  # bits per pixel
STARVED = (0.006, 0.008, 0.01, 0.014)
NEAR_LOSSLESS = (0.4, 0.6, 0.8, 1.0)


@dataclass(frozen=True)
class HardClip:
    """A clip that is made when it is opened.

    Attributes:
        name: Name in tables.
        make: Returns the frames, given width and height.
        width: Luma width in pixels.
        height: Luma height in pixels.
        fps: Frames per second.
        num_frames: Number of frames.
        bits_per_pixel: Four targets.
    """

    name: str
    make: Callable[[int, int], Frames]
    width: int
    height: int
    fps: int
    num_frames: int
    bits_per_pixel: tuple[float, ...] = USUAL

    @property
    def bitrates(self) -> list[int]:
        """The targets in kbit/s, all different."""
        pixels = self.width * self.height * self.fps
        rates: list[int] = []
        for bits in self.bits_per_pixel:
            rates.append(max(round(bits * pixels / 1000), rates[-1] + 1 if rates else 1))
        return rates

    def open(self) -> Video:
        """Return the frames."""
        frames = self.make(self.width, self.height)[: self.num_frames]
        return video_from_frames(frames, self.width, self.height, self.fps, self.name)


def filtered(source: Any, width: int, height: int, data: bytes | None = None) -> Frames:
    """Return the frames of an ffmpeg-python stream, scaled."""
    scaled = source.filter("scale", width, height, flags="bicubic+accurate_rnd+bitexact")
    raw = scaled.output("pipe:", format="rawvideo", pix_fmt="yuv420p", fps_mode="passthrough")
    # With one thread a filter draws its random numbers in one order.
    raw = raw.global_args("-filter_threads", "1", "-filter_complex_threads", "1")
    output = run_ffmpeg(raw, EncoderError, "cannot make a clip", data)
    return np.frombuffer(output, np.uint8).reshape(-1, frame_bytes(width, height))


def drawn(graph: str, seconds: float, width: int, height: int) -> Frames:
    """Return what a graph of ffmpeg's sources and filters draws."""
    return filtered(ffmpeg.input(graph, format="lavfi", t=seconds), width, height)


def sample(name: str, width: int, height: int) -> Frames:
    """Return the frames of a sample clip, scaled."""
    (clip,) = (clip for clip in load_clips("samples") if clip.name == name)
    return to_8_bits(dataclasses.replace(clip, width=width, height=height).open().frames)


def edited(name: str, filter_name: str, options: dict[str, Any], width: int, height: int) -> Frames:
    """Return the frames of a sample clip that went through one of ffmpeg's filters."""
    own = (352, 198)
    raw = {"format": "rawvideo", "pix_fmt": "yuv420p", "video_size": own, "framerate": 25}
    stream = ffmpeg.input("pipe:", **raw).filter(filter_name, **options)
    return filtered(stream, width, height, sample(name, *own).tobytes())


# What the clips show


def still(width: int, height: int) -> Frames:
    return np.repeat(sample("bikes", width, height)[:1], 100, axis=0)


def slides(width: int, height: int) -> Frames:
    """Six pictures of 20 frames each."""
    pictures = [
        frames[index]
        for name in ("bikes", "bigbuckbunny", "carphone")
        for frames in [sample(name, width, height)]
        for index in (10, 110)
    ]
    return np.repeat(np.array(pictures), 20, axis=0)


def flashes(width: int, height: int) -> Frames:
    """A film with white frames, one at a time."""
    frames = sample("bigbuckbunny", width, height)[:100].copy()
    frames[[20, 55, 57, 90], : width * height] = 235
    frames[[20, 55, 57, 90], width * height :] = 128
    return frames


def cuts(width: int, height: int) -> Frames:
    """A cut every 25 frames."""
    names = ("bikes", "bigbuckbunny", "carphone")
    films = [sample(name, width, height) for name in names]
    return np.concatenate([films[i % 3][25 * (i // 3) :][:25] for i in range(5)])


def short_last_scene(width: int, height: int) -> Frames:
    """A long scene, and four frames of another one."""
    last = sample("bigbuckbunny", width, height)[60:64]
    return np.concatenate([sample("bikes", width, height)[:70], last])


def fade_to_black(width: int, height: int) -> Frames:
    fade = {"type": "out", "start_frame": 40, "nb_frames": 30}
    return edited("bigbuckbunny", "fade", fade, width, height)


def grain(width: int, height: int) -> Frames:
    noisy = {"all_seed": 7, "alls": 20, "allf": "t"}
    return edited("bikes", "noise", noisy, width, height)


def long(width: int, height: int) -> Frames:
    """120 frames forwards and backwards, four times."""
    frames = sample("carphone", width, height)[:120]
    return np.concatenate([frames, frames[::-1]] * 4)


def fixed_camera(width: int, height: int) -> Frames:
    """A noisy picture that stands still, through which two small ones walk."""
    picture = sample("bikes", width, height)[0]
    noise = np.random.default_rng(3).normal(0, 1.5, (60, width * height)).round().astype(np.int16)
    frames = np.repeat(picture[None], 60, axis=0)
    luma = np.clip(frames[:, : width * height] + noise, 0, 255).astype(np.uint8)
    frames[:, : width * height] = luma
    walker = sample("carphone", 32, 48)[:60, : 32 * 48].reshape(60, 48, 32)
    for index, frame in enumerate(frames):
        view = frame[: width * height].reshape(height, width)
        for row, step in ((20, 3), (height - 70, -4)):
            column = (40 + step * index) % (width - 32)
            view[row : row + 48, column : column + 32] = walker[index]
    return frames


def vertical(width: int, height: int) -> Frames:
    crop = {"out_w": f"in_h*{width}/{height}", "out_h": "in_h"}
    return edited("bigbuckbunny", "crop", crop, width, height)


CLIPS = (
    HardClip("still", still, 352, 150, 25, 100, (0.005, 0.01, 0.02, 0.05)),
    HardClip("slides", slides, 320, 180, 25, 120),
    HardClip("fade-to-black", fade_to_black, 320, 180, 25, 90),
    HardClip("white-flashes", flashes, 320, 180, 25, 100),
    HardClip("cut-every-second", cuts, 320, 180, 25, 125),
    HardClip("short-last-scene", short_last_scene, 320, 136, 25, 74),
    HardClip("two-frames", functools.partial(sample, "bikes"), 320, 136, 25, 2),
    HardClip("900-frames", long, 176, 144, 30, 900),
    HardClip("60-fps", functools.partial(drawn, "mandelbrot=s=640x360:r=60", 2), 320, 180, 60, 120),
    HardClip("grain", grain, 320, 136, 25, 60, (0.05, 0.1, 0.2, 0.4)),
    HardClip("1280x720", functools.partial(sample, "bigbuckbunny"), 1280, 720, 25, 24),
    HardClip(
        "near-lossless", functools.partial(sample, "carphone"), 176, 144, 30, 90, NEAR_LOSSLESS
    ),
    HardClip("starved", functools.partial(sample, "bigbuckbunny"), 352, 198, 25, 120, STARVED),
    HardClip("fixed-camera-10-fps", fixed_camera, 320, 180, 10, 60),
    HardClip("vertical", vertical, 108, 192, 25, 120),
    HardClip(
        "text-scrolls",
        functools.partial(drawn, "testsrc2=s=320x180:r=30,scroll=vertical=0.01", 3),
        320,
        180,
        30,
        90,
    ),
)


def compared(evaluation: Evaluation, agent: str, baseline: str) -> dict[str, Any]:
    """Return how a policy does on the clip of a study, against a baseline.

    ``spent`` and ``baseline_spent`` are achieved over target bitrates, mean. Each quality has
    ``percent`` more bits at equal quality, or, where the curves give no BD-rate, None with the
    ``status``; ``difference`` is the quality at the targets less the baseline's, mean. ``more`` is
    the mean of the percents, with the difference in spent bits in place of those that are missing.
    """
    mine, theirs = (
        evaluation.encodes[evaluation.encodes["policy"] == policy].set_index("target_bitrate")
        for policy in (agent, baseline)
    )
    bits = float(100 * np.expm1(np.log(mine["bitrate"] / theirs["bitrate"]).mean()))
    rows = evaluation.comparisons
    rows = rows[(rows["test"] == agent) & (rows["anchor"] == baseline)]
    rows = rows[rows["metric"].isin(QUALITIES)]  # their mean is formed below
    qualities: dict[str, dict[str, Any]] = {}
    for row in rows.to_dict("records"):
        name = row["metric"]
        qualities[name] = {
            "percent": None if pd.isna(row["percent"]) else float(row["percent"]),
            "status": row["status"],
            "difference": float((mine[name] - theirs[name]).mean()),
        }
    found = [bits if one["percent"] is None else one["percent"] for one in qualities.values()]
    return {
        "spent": float((mine["bitrate"] / mine.index).mean()),
        "baseline_spent": float((theirs["bitrate"] / theirs.index).mean()),
        "most_spent": float((mine["bitrate"] / mine.index).max()),
        "bits": bits,
        "qualities": qualities,
        "more": float(np.mean(found)),
    }


def table(found: dict[str, dict[str, Any]], agent: str, baseline: str, cpu_used: int) -> str:
    """Return the clips in Markdown, worst first."""
    lines = [
        f"{agent} against {baseline} on hard inputs, cpu-used {cpu_used}: percent more bits at "
        "equal quality (BD-rate), worst first. Where the curves give none, the cell has the "
        "difference of the quality at the targets, and the mean counts the difference in bits. "
        "Bits are over the target, mean (most).",
        "",
        f"| clip | kbit/s | {' | '.join(one.label for one in QUALITIES.values())} | mean | bits "
        f"| bits of {baseline} | more bits |",
        f"| --- | --- |{' --- |' * (len(QUALITIES) + 4)}",
    ]
    rates = {clip.name: clip.bitrates for clip in CLIPS}
    for name, row in sorted(found.items(), key=lambda one: -one[1]["more"]):
        cells = [name, ", ".join(map(str, rates[name]))]
        for quality, one in row["qualities"].items():
            digits = 4 if quality == "ssim" else 2
            by_difference = f"({one['difference']:+.{digits}f}; {one['status']})"
            cells.append(by_difference if one["percent"] is None else f"{one['percent']:+.1f}")
        cells += [
            f"{row['more']:+.1f}",
            f"{row['spent']:.2f} ({row['most_spent']:.2f})",
            f"{row['baseline_spent']:.2f}",
            f"{row['bits']:+.1f} %",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--agent", default=DEFAULT_POLICY)
    parser.add_argument("--baseline", default="libvpx-vbr-mlarf")
    parser.add_argument("--clips", help="names, comma-separated; by default all")
    parser.add_argument("--cpu-used", type=int, default=2)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    known = {clip.name: clip for clip in CLIPS}
    names = arguments.clips.split(",") if arguments.clips else list(known)
    if unknown := [name for name in names if name not in known]:
        parser.error(f"no clip named {', '.join(unknown)}: choose from {', '.join(known)}")
    found = {}
    with progress_bar(hidden=False) as bar:
        task = bar.add_task("clips", total=len(names))
        for name in names:
            clip = known[name]
            try:
                evaluation = evaluate(
                    arguments.agent,
                    [arguments.baseline],
                    [clip],
                    clip.bitrates,
                    arguments.out / name,
                    options=EncoderOptions(cpu_used=arguments.cpu_used),
                    jobs=arguments.jobs,
                )
            except InputError as error:
                parser.error(str(error))
            found[name] = compared(evaluation, arguments.agent, arguments.baseline)
            text = table(found, arguments.agent, arguments.baseline, arguments.cpu_used)
            with atomic_write(arguments.out / "table.md") as temporary:
                temporary.write_text(text)
            bar.update(task, advance=1)
    print(text)


if __name__ == "__main__":
    main()
