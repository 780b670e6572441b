"""The codecs that people use, with files of real sizes: by Pillow, and by ffmpeg."""

import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import ffmpeg
import numpy as np
from PIL import Image

from vpxrc.codecs.pictures import Pixels
from vpxrc.errors import EncoderError, InputError
from vpxrc.media.ffmpeg import run_ffmpeg

# A setting of a codec makes bytes of a picture, and bytes make pixels again.
Encode = Callable[[Pixels, float], bytes]
Decode = Callable[[bytes], Pixels]
Options = Callable[[float], Mapping[str, str]]  # of ffmpeg, for a setting


@dataclass(frozen=True)
class Classical:
    """A codec that is not learned.

    Attributes:
        title: Name in tables.
        settings: Settings from few bits to many.
        encode: Makes a file of a picture and a setting.
        decode: Makes a picture of a file.
    """

    title: str
    settings: tuple[float, ...]
    encode: Encode
    decode: Decode


def _pillow(
    form: str, name: str, options: Mapping[str, Any], picture: Pixels, value: float
) -> bytes:
    file = io.BytesIO()
    setting: Any = [value] if name == "quality_layers" else int(value)
    Image.fromarray(picture).save(file, form, **{name: setting}, **options)
    return file.getvalue()


def _open(data: bytes) -> Pixels:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _to_ffmpeg(form: str, options: Options, picture: Pixels, value: float) -> bytes:
    height, width = picture.shape[:2]
    source = ffmpeg.input("pipe:", format="rawvideo", pix_fmt="rgb24", s=f"{width}x{height}")
    stream = source.output("pipe:", format=form, vframes=1, **options(value))
    return run_ffmpeg(stream, EncoderError, "cannot code the picture", picture.tobytes())


def _from_ffmpeg(form: str, options: Mapping[str, str], data: bytes) -> Pixels:
    source = ffmpeg.input("pipe:", format=form)
    png = {"format": "image2pipe", "vcodec": "png", "pix_fmt": "rgb24"}
    stream = source.output("pipe:", vframes=1, **png, **options)
    return _open(run_ffmpeg(stream, InputError, "cannot decode the picture", data))


_ACCURATE = "flags=accurate_rnd+full_chroma_int+bitexact"


def _hevc(value: float) -> dict[str, str]:
    """Return a still picture in YCbCr 4:4:4 of full range, as BPG has it by default."""
    return {
        "vf": f"scale=out_color_matrix=bt601:out_range=pc:{_ACCURATE},format=yuv444p",
        "vcodec": "libx265",
        "preset": "slow",
        "x265-params": f"qp={value:g}:keyint=1:range=full:aq-mode=0:info=0:log-level=none",
    }


_HEVC_BACK = {"vf": f"scale=in_color_matrix=bt601:in_range=pc:{_ACCURATE}"}


def _jxl(value: float) -> dict[str, str]:
    return {"vcodec": "libjxl", "effort": "7", "distance": f"{value:g}"}


CLASSICAL: Mapping[str, Classical] = {
    "jpeg": Classical(
        "JPEG 4:2:0",
        (5, 10, 20, 35, 50, 70, 85, 93),
        partial(_pillow, "JPEG", "quality", {"subsampling": 2, "optimize": True}),
        _open,
    ),
    "jpeg444": Classical(
        "JPEG 4:4:4",
        (5, 10, 20, 35, 50, 70, 85, 93),
        partial(_pillow, "JPEG", "quality", {"subsampling": 0, "optimize": True}),
        _open,
    ),
    "jpeg2000": Classical(
        "JPEG 2000",
        (27, 29, 31, 33, 35, 38, 41),
        # Without mct, Pillow codes R, G and B as they are, in two and a half times the bits.
        partial(
            _pillow,
            "JPEG2000",
            "quality_layers",
            {"quality_mode": "dB", "irreversible": True, "mct": 1},
        ),
        _open,
    ),
    "webp": Classical(
        "WebP",
        (1, 10, 25, 50, 70, 85, 93, 98),
        partial(_pillow, "WEBP", "quality", {"method": 6}),
        _open,
    ),
    "avif": Classical(
        "AVIF",
        (15, 25, 35, 45, 55, 65, 75, 85),
        partial(_pillow, "AVIF", "quality", {"subsampling": "4:4:4", "speed": 4}),
        _open,
    ),
    "jxl": Classical(
        "JPEG XL",
        (10, 7, 5, 3.5, 2.5, 1.7, 1.1, 0.7),
        partial(_to_ffmpeg, "image2pipe", _jxl),
        partial(_from_ffmpeg, "jpegxl_pipe", {}),
    ),
    "hevc": Classical(
        "HEVC intra 4:4:4",
        (45, 41, 37, 33, 29, 25, 21),
        partial(_to_ffmpeg, "hevc", _hevc),
        partial(_from_ffmpeg, "hevc", _HEVC_BACK),
    ),
}
