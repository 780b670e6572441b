"""A video file to a video file: chunks, bitrate, size or quality, sound and container."""

from vpxrc.transcoding.chunks import Chunk, ChunkedEncode, encode_by, share
from vpxrc.transcoding.pipeline import Transcoded, transcode
from vpxrc.transcoding.regions import RegionEncode
from vpxrc.transcoding.target import QualityTarget, Try

__all__ = [
    "Chunk",
    "ChunkedEncode",
    "QualityTarget",
    "RegionEncode",
    "Transcoded",
    "Try",
    "encode_by",
    "share",
    "transcode",
]
