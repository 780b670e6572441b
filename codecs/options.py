"""The options of a learned codec that codes videos picture by picture."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.session import Session
from vpxrc.errors import EncoderError, InputError, needing
from vpxrc.media.frames import ClipFormat, Video
from vpxrc.media.muxing import ivf_packets
from vpxrc.storage import sha256_file


@dataclass(frozen=True)
class CodecOptions(EncoderOptions):
    """A codec, and the options that it shares with libvpx.

    Of these the target counts, and those that shape libvpx's first pass, which describes the clip
    here too. The others have no effect.

    Attributes:
        codec: Path of the checkpoint.
        weights: SHA-256 of the file in hexadecimal.
    """

    fourcc: ClassVar[str] = "VLC1"

    codec: str = ""
    weights: str = ""

    def __post_init__(self) -> None:
        """Check the ranges; libvpx's modes are none of a learned codec."""
        super().__post_init__()
        if self.rate_control != "vbr":
            raise InputError(f"a learned codec has no mode {self.rate_control!r}")

    @property
    def encoder(self) -> str:
        """The encoder, as :func:`vpxrc.encoder.registry.make_options` takes it."""
        return f"learned:{self.codec}"

    def for_control(self) -> "CodecOptions":
        """Return these options: a policy decides every picture in any case."""
        return self

    def for_prediction(self) -> "CodecOptions":
        """Refuse.

        Raises:
            InputError: Always.
        """
        raise InputError(
            "a learned codec predicts no picture from another one, so a policy that plans by "
            "prediction has nothing to go by: use layered, constant-q or equal-slope"
        )

    def open(self, video: Video, **arguments: Any) -> Session:
        """Start an encode with these options.

        Args:
            video: The clip.
            **arguments: Those of :class:`vpxrc.codecs.session.CodecSession`.

        Raises:
            InputError: The checkpoint cannot be used, or is another one than before; or the clip
                has more than 8 bits per sample.
            MissingDependencyError: PyTorch or constriction is missing.
        """
        if video.bit_depth > 8:
            raise InputError(
                f"{video.name}: {video.bit_depth} bits per sample; a learned codec takes 8"
            )
        with needing("learned codecs need", "codecs"):
            from vpxrc.codecs.session import CodecSession
        return CodecSession(video, self, **arguments)

    def decode(self, stream: bytes | Path, clip: ClipFormat) -> NDArray[np.uint8]:
        """Decode a stream with the checkpoint alone.

        Args:
            stream: An IVF file, or its bytes.
            clip: The clip, which has the stream's size.

        Returns:
            uint8 ``[num_frames, frame_bytes]``, rows as in :class:`vpxrc.Video`.

        Raises:
            EncoderError: The stream cannot be decoded or has another size.
            InputError: The checkpoint cannot be used.
            MissingDependencyError: PyTorch or constriction is missing.
        """
        with needing("learned codecs need", "codecs"):
            from vpxrc.codecs.frames import frame_of
            from vpxrc.codecs.session import open_codec
        codec = open_codec(self.codec, self.weights)
        try:
            data = stream.read_bytes() if isinstance(stream, Path) else stream
            pictures = [codec.decompress(packet) for packet in ivf_packets(data, self.fourcc)]
        except (OSError, InputError) as error:
            raise EncoderError(f"{clip.name}: the stream cannot be decoded: {error}") from error
        if any(picture.shape[:2] != (clip.height, clip.width) for picture in pictures):
            raise EncoderError(f"{clip.name}: the stream has pictures of another size")
        return np.stack([frame_of(picture) for picture in pictures])


def learned(codec: str = "", **fields: Any) -> CodecOptions:
    """Return the options of a codec of the zoo, or of a checkpoint.

    Args:
        codec: Its name or its path.
        **fields: Fields of :class:`CodecOptions`.

    Raises:
        InputError: There is no such codec, or none was named.
    """
    if not codec:
        raise InputError(
            "the encoder learned needs a codec of the zoo or a checkpoint: learned:CODEC"
        )
    from vpxrc.codecs.zoo import checkpoint

    path = checkpoint(codec)
    return CodecOptions(codec=str(path), weights=sha256_file(path), **fields)
