"""From a video file to a video file: chunks, bitrate or size, sound and container."""

from vpxrc.transcoding.chunks import Chunk, ChunkedEncode, encode_by, share

__all__ = [
    "Chunk",
    "ChunkedEncode",
    "encode_by",
    "share",
]
