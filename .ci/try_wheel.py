"""Try an installed vpxrc: every part imports, and a few frames of a synthetic video are coded.

Also says whether the wheel carries its licences. Runs anywhere, without the repository.
"""

import importlib.metadata
import subprocess
import sys
import tempfile
from pathlib import Path

import imageio_ffmpeg
import numpy as np

import vpxrc
import vpxrc.agents
import vpxrc.datasets
import vpxrc.envs
from vpxrc import _native, _native_high
from vpxrc.media.frames import frame_bytes
from vpxrc.quality import measure, summarize

WIDTH, HEIGHT, FRAMES = 96, 80, 20


def synthetic() -> vpxrc.Video:
    rng = np.random.default_rng(0)
    texture = rng.integers(60, 190, (HEIGHT + FRAMES, WIDTH), dtype=np.uint8)
    frames = np.full((FRAMES, frame_bytes(WIDTH, HEIGHT)), 128, np.uint8)
    for n in range(FRAMES):
        frames[n, : WIDTH * HEIGHT] = texture[n : n + HEIGHT].ravel()
    return vpxrc.video_from_frames(frames, WIDTH, HEIGHT, 25, name="synthetic")


def main() -> None:
    flat = synthetic()
    frames = flat.frames.astype(np.uint16) * 4
    deep = vpxrc.video_from_frames(frames, WIDTH, HEIGHT, 25, name="10 bits")
    for name, video in (("libvpx-vbr", flat), ("dependency", flat), ("imitation", deep)):
        options = vpxrc.EncoderOptions(target_bitrate=200, cpu_used=5)
        log = vpxrc.encode(video, options, vpxrc.make_policy(name))
        table = measure(log.options.decode(log.stream, log.clip), video, ["psnr"])
        decoded = summarize(table, WIDTH, HEIGHT, video.bit_depth)
        assert abs(decoded["psnr"] - log.psnr) < 1e-6, (decoded, log.psnr)
        print(f"{name}: {log.bitrate:.0f} kbit/s, {log.psnr:.2f} dB")

    files = [str(file) for file in importlib.metadata.files("vpxrc") or []]
    for licence in ("LICENSE", "THIRD_PARTY.md"):
        assert any(file.endswith(f"licenses/{licence}") for file in files), licence
    for module in (_native, _native_high):
        command = ["ldd", module.__file__]
        libraries = subprocess.run(command, capture_output=True, text=True).stdout
        assert "libvpx" not in libraries, libraries

    with tempfile.TemporaryDirectory() as folder:
        clip, output = Path(folder) / "in.mp4", Path(folder) / "out.webm"
        source = ["-f", "lavfi", "-i", "testsrc2=s=96x80:r=25", "-frames:v", "12"]
        program = imageio_ffmpeg.get_ffmpeg_exe()
        subprocess.run([program, "-v", "error", *source, "-pix_fmt", "yuv420p", clip], check=True)
        vpxrc_program = Path(sys.executable).with_name("vpxrc")
        subprocess.run([vpxrc_program, "encode", clip, "-b", "100", "-o", output], check=True)
        assert output.stat().st_size > 0


if __name__ == "__main__":
    main()
