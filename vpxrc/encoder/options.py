"""The options of libvpx's VP9 encoder."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from vpxrc.encoder.quantizer import MULTI_LAYER
from vpxrc.errors import InputError
from vpxrc.media.decoding import decode_vp9
from vpxrc.media.frames import ClipFormat, Samples, Video

if TYPE_CHECKING:
    from vpxrc.encoder.session import Session

BITS_PER_PIXEL = 0.06  # a middling quality


@dataclass(frozen=True)
class EncoderOptions:
    """What libvpx is told. Everything not named here keeps the library's default.

    Attributes:
        target_bitrate: Target in kbit/s, at least 1.
        cpu_used: libvpx's speed, 0 (slowest) to 8, good quality deadline.
        lag_in_frames: Lookahead, 0 to 25 frames.
        auto_alt_ref: 0 no alternate reference frames, 1 one layer, 2 to 6 so many layers.
        tpl: Whether libvpx runs its temporal-dependency model.
        threads: Threads of one encode, at least 1; more than one do not change the stream.
        key_frame_max_distance: The most frames between key frames, 0 to 9999.
        min_quantizer: Lower bound of libvpx's own choice, libvpx's 0..63 scale.
        max_quantizer: Its upper bound, not below ``min_quantizer``. A policy's q is not clipped.
        rate_control: The mode underneath, which also shapes libvpx's golden-frame groups: ``vbr``
            (two-pass variable bitrate), ``cq`` (the same, no finer than ``cq_level``) or ``q``
            (constant quality at ``cq_level``).
        cq_level: Quality of the ``cq`` and ``q`` modes, libvpx's 0..63 scale.
    """

    fourcc: ClassVar[str] = "VP90"  # the codec, in the header of an IVF file

    target_bitrate: int = 256
    cpu_used: int = 2
    lag_in_frames: int = 25
    auto_alt_ref: int = 1
    tpl: bool = True
    threads: int = 1
    key_frame_max_distance: int = 128
    min_quantizer: int = 0
    max_quantizer: int = 63
    rate_control: Literal["vbr", "cq", "q"] = "vbr"
    cq_level: int = 32

    def __post_init__(self) -> None:
        """Check every range, with the option's name in the complaint."""
        for name, low, high in (
            ("target_bitrate", 1, 2_000_000),
            ("cpu_used", 0, 8),
            ("lag_in_frames", 0, 25),
            ("auto_alt_ref", 0, 6),
            ("threads", 1, 64),
            ("key_frame_max_distance", 0, 9999),
            ("min_quantizer", 0, 63),
            ("max_quantizer", 0, 63),
            ("cq_level", 0, 63),
        ):
            value = getattr(self, name)
            if not isinstance(value, int | np.integer) or not low <= value <= high:
                raise InputError(f"{name} must be an integer in {low}..{high}, not {value!r}")
        if self.min_quantizer > self.max_quantizer:
            raise InputError(
                f"min_quantizer {self.min_quantizer} is above max_quantizer {self.max_quantizer}"
            )
        if self.rate_control not in ("vbr", "cq", "q"):
            raise InputError(f"rate_control must be 'vbr', 'cq' or 'q', not {self.rate_control!r}")

    @property
    def encoder(self) -> str:
        """The encoder, as :func:`vpxrc.encoder.registry.make_options` takes it."""
        return "vp9"

    @classmethod
    def for_clip(
        cls, video: Video, target_bitrate: int | None = None, **options: Any
    ) -> "EncoderOptions":
        """Return options with a target that suits the size of a clip, where none is given.

        Args:
            video: The clip.
            target_bitrate: Target in kbit/s; by default ``BITS_PER_PIXEL``, a middling quality.
            **options: Other fields.

        Raises:
            InputError: An option is out of range.
        """
        if target_bitrate is None:
            pixels = video.width * video.height * float(video.fps)
            target_bitrate = max(1, round(BITS_PER_PIXEL * pixels / 1000))
        return cls(target_bitrate=target_bitrate, **options)

    def for_control(self) -> "EncoderOptions":
        """Return the options under which a policy decides every frame by itself.

        That is VBR, which shapes the golden-frame groups and gives an estimate of q, with all
        layers of alternate reference frames.
        """
        return dataclasses.replace(self, rate_control="vbr", auto_alt_ref=MULTI_LAYER)

    def for_prediction(self) -> "EncoderOptions":
        """Return those of :meth:`for_control`, for a policy that plans by what predicts what.

        Raises:
            InputError: The encoder predicts no frame from another one.
        """
        return self.for_control()

    def open(self, video: Video, **arguments: Any) -> "Session":
        """Start an encode with these options.

        Args:
            video: The clip.
            **arguments: Those of :class:`EncodeSession`.
        """
        from vpxrc.encoder.session import EncodeSession  # a session is made of options

        return EncodeSession(video, self, **arguments)

    def decode(self, stream: bytes | Path, clip: ClipFormat) -> Samples:
        """Decode a stream by a program that is not the encoder's: ffmpeg's own VP9 decoder.

        Args:
            stream: An IVF or WebM file, or its bytes.
            clip: The clip, which has the stream's size and bit depth.

        Returns:
            ``[num_frames, frame_samples]``, rows as in :class:`vpxrc.Video`: exactly the frames
            that are shown.

        Raises:
            EncoderError: The stream cannot be decoded, or has another size or bit depth.
            MissingDependencyError: There is no ffmpeg.
        """
        return decode_vp9(stream, clip.width, clip.height, clip.bit_depth)
