"""Exactness checks on a clip: the hook changes nothing, and its logs replay exactly."""

import dataclasses
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from vpxrc import _native, _native_high
from vpxrc.encoder.first_pass import first_pass_stats, geometry, library
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import InputError, PolicyError
from vpxrc.media.frames import Video, write_y4m
from vpxrc.media.muxing import ivf_bytes
from vpxrc.policies.base import encode
from vpxrc.policies.replay import Replay
from vpxrc.quality import measure, summarize
from vpxrc.storage import cache_dir, temporary_folder

PSNR_TOLERANCE = 1e-9  # dB


@dataclass(frozen=True)
class Check:
    """The outcome of one check.

    Attributes:
        name: The claim, with the clip and the options.
        passed: Whether it held.
        figure: The measured sizes or differences, in words.
    """

    name: str
    passed: bool
    figure: str


def verify(
    video: Video,
    cpu_used: Sequence[int] = (1, 2, 4),
    auto_alt_ref: Sequence[int] = (1, 6),
    target_bitrate: int | None = None,
    oracle: Path | None = None,
) -> Iterator[Check]:
    """Run all checks on a clip, under every pair of speed and layers.

    Args:
        video: The clip.
        cpu_used: Speeds, 0..8.
        auto_alt_ref: Layers of alternate reference frames, 0..6.
        target_bitrate: In kbit/s; 0.06 bits per pixel by default.
        oracle: libvpx's own encoder; :func:`oracle_program` of the clip's bit depth by default.

    Yields:
        Each check as soon as it is done. Without an oracle there are no checks against it.

    Raises:
        InputError: An option is out of range, or ``oracle`` is no program.
        EncoderError: An encode failed.
    """
    oracle = oracle_program(oracle, video.bit_depth)
    settings = [
        EncoderOptions.for_clip(video, target_bitrate, cpu_used=speed, auto_alt_ref=layers)
        for speed in cpu_used
        for layers in auto_alt_ref
    ]
    for options in settings:
        for rate_control in ("vbr", "cq", "q"):
            log = observe(video, dataclasses.replace(options, rate_control=rate_control))
            yield check_plain(video, log)
            if oracle is not None:
                yield check_oracle(video, log, oracle)
            if rate_control == "vbr":
                yield check_replay(video, log)
                yield check_psnr(video, log)
        without_tpl = dataclasses.replace(options, tpl=False)
        yield check_replay(video, observe(video, without_tpl))


def oracle_program(path: Path | None = None, bit_depth: int = 8) -> Path | None:
    """Return the program ``vpxenc``, or None if the build left none in the cache.

    Args:
        path: Program to use instead of the cache's.
        bit_depth: Bits per sample of the videos that it is to encode, 8 or 10.

    Raises:
        InputError: ``path`` is no file.
    """
    if path is not None and not path.is_file():
        raise InputError(f"{path}: no such program")
    build = (_native if bit_depth == 8 else _native_high).LIBVPX_BUILD
    program = path or cache_dir() / build / "vpxenc"
    return program if program.is_file() else None


def observe(video: Video, options: EncoderOptions) -> EncodeLog:
    """Return the log of an encode under libvpx's own rate control."""
    with options.open(video, observe=True) as session:
        return session.log()


def check_plain(video: Video, log: EncodeLog) -> Check:
    """Compare an observed stream with that of the same libvpx without the hook."""
    packets = library(video).run_plain_second_pass(
        *geometry(video),
        log.options,
        first_pass_stats(video, log.options),
    )
    plain = ivf_bytes(packets, video.width, video.height, video.fps, log.fourcc)
    return _same_stream("observed = plain libvpx", log, plain)


def check_oracle(video: Video, log: EncodeLog, oracle: Path) -> Check:
    """Compare an observed stream, including the IVF header, with the file that ``vpxenc`` writes.

    Raises:
        InputError: The program fails.
    """
    options = log.options
    arguments = [
        "--codec=vp9",
        "--passes=2",
        "--good",
        "--ivf",
        f"--end-usage={options.rate_control}",
        f"--target-bitrate={options.target_bitrate}",
        f"--cpu-used={options.cpu_used}",
        f"--auto-alt-ref={options.auto_alt_ref}",
        f"--lag-in-frames={options.lag_in_frames}",
        f"--kf-max-dist={options.key_frame_max_distance}",
        f"--threads={options.threads}",
        f"--min-q={options.min_quantizer}",
        f"--max-q={options.max_quantizer}",
        f"--enable-tpl={int(options.tpl)}",
    ]
    if video.bit_depth > 8:
        depth = video.bit_depth
        arguments += ["--profile=2", f"--bit-depth={depth}", f"--input-bit-depth={depth}"]
    if options.rate_control != "vbr":
        arguments.append(f"--cq-level={options.cq_level}")
    with temporary_folder() as folder:
        source, output = folder / "source.y4m", folder / "output.ivf"
        write_y4m(video, source)
        command = [str(oracle.absolute()), *arguments, f"--output={output}", str(source)]
        try:
            subprocess.run(
                command, check=True, stdin=subprocess.DEVNULL, capture_output=True, text=True
            )
        except (OSError, subprocess.CalledProcessError) as error:
            words = getattr(error, "stderr", None) or str(error)
            raise InputError(f"{oracle} failed: {words.strip().splitlines()[-1]}") from None
        return _same_stream("observed = vpxenc", log, output.read_bytes())


def check_replay(video: Video, log: EncodeLog) -> Check:
    """Encode again with a log's decisions, once exactly and once by q and lambda alone.

    Only the exact replay has to give the same stream.
    """
    name = "exact replay"
    try:
        exact = encode(video, log.options, Replay(log))
    except PolicyError as error:
        return Check(_name(name, log), False, str(error))
    check = _same_stream(name, log, exact.stream)
    try:
        rough = encode(video, log.options, Replay(log, exact=False))
    except PolicyError as error:
        alone = str(error)
    else:
        alone = _difference(rough, log)
    figure = f"{check.figure} ({_difference(exact, log)}); by q and lambda alone: {alone}"
    return dataclasses.replace(check, figure=figure)


def check_psnr(video: Video, log: EncodeLog) -> Check:
    """Compare the encoder's PSNR with the PSNR of the stream as ffmpeg decodes it."""
    decoded = summarize(
        measure(log.options.decode(log.stream, log.clip), video, ["psnr"]),
        video.width,
        video.height,
        video.bit_depth,
    )
    gap = max(abs(log.psnr - decoded["psnr"]), abs(log.psnr_overall - decoded["psnr_overall"]))
    return Check(
        _name("encoder's PSNR = PSNR decoded by ffmpeg", log),
        gap <= PSNR_TOLERANCE,
        f"{log.psnr:.4f} dB, {gap:.1e} apart",
    )


def _same_stream(name: str, log: EncodeLog, other: bytes) -> Check:
    ours = log.stream
    if ours == other:
        return Check(_name(name, log), True, f"{len(ours)} bytes, identical")
    pairs = enumerate(zip(ours, other, strict=False))
    first = next((at for at, (a, b) in pairs if a != b), min(len(ours), len(other)))
    figure = f"{len(ours)} and {len(other)} bytes, different from byte {first}"
    return Check(_name(name, log), False, figure)


def _difference(replayed: EncodeLog, log: EncodeLog) -> str:
    bits = 100 * (replayed.bits / log.bits - 1)
    return f"bits {bits:+.3f} %, PSNR {replayed.psnr - log.psnr:+.4f} dB"


def _name(what: str, log: EncodeLog) -> str:
    options = log.options
    return (
        f"{what} [{log.clip.name}, {options.rate_control}, cpu-used {options.cpu_used}, "
        f"auto-alt-ref {options.auto_alt_ref}, TPL {'on' if options.tpl else 'off'}]"
    )
