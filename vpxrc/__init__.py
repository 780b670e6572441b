"""Video-encoder rate control as a reinforcement-learning problem, on the real libvpx."""

from typing import TYPE_CHECKING, Any

from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.quantizer import LOG2_STEP, nearest_q
from vpxrc.encoder.session import EncodeSession, SessionPool
from vpxrc.encoder.types import Decision, Frame, Group, Region, UpdateType
from vpxrc.errors import (
    EncoderError,
    EncoderTimeoutError,
    InputError,
    MissingDependencyError,
    OutputError,
    PolicyError,
    VpxrcError,
)
from vpxrc.media.decoding import open_video
from vpxrc.media.frames import Video, video_from_frames
from vpxrc.policies.base import Episode, Policy, encode
from vpxrc.policies.region import RegionOfInterest
from vpxrc.policies.registry import make_policy, policy_names
from vpxrc.policies.wrapper import PolicyWrapper

if TYPE_CHECKING:
    from vpxrc.transcoding import QualityTarget, Transcoded, transcode

__all__ = [
    "LOG2_STEP",
    "Decision",
    "EncodeLog",
    "EncodeSession",
    "EncoderError",
    "EncoderOptions",
    "EncoderTimeoutError",
    "Episode",
    "Frame",
    "Group",
    "InputError",
    "MissingDependencyError",
    "OutputError",
    "Policy",
    "PolicyError",
    "PolicyWrapper",
    "QualityTarget",
    "Region",
    "RegionOfInterest",
    "SessionPool",
    "Transcoded",
    "UpdateType",
    "Video",
    "VpxrcError",
    "encode",
    "make_policy",
    "nearest_q",
    "open_video",
    "policy_names",
    "transcode",
    "video_from_frames",
]


def __getattr__(name: str) -> Any:
    """Import what makes files at its first use, so that the import of the package stays quick."""
    if name in ("QualityTarget", "Transcoded", "transcode"):
        from vpxrc import transcoding

        return getattr(transcoding, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
