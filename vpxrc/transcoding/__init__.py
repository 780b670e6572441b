"""A video file to a video file: chunks, bitrate or size, sound and container."""

from vpxrc.transcoding.chunks import Chunk, ChunkedEncode, encode_by, share
from vpxrc.transcoding.pipeline import Transcoded, transcode

__all__ = [
    "Chunk",
    "ChunkedEncode",
    "Transcoded",
    "encode_by",
    "share",
    "transcode",
]
