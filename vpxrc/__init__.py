"""Video-encoder rate control as a reinforcement-learning problem, on the real libvpx."""

from vpxrc.encoder import (
    Decision,
    EncodeLog,
    EncoderOptions,
    EncodeSession,
    Frame,
    Group,
    SessionPool,
    UpdateType,
)
from vpxrc.errors import (
    EncoderError,
    EncoderTimeoutError,
    InputError,
    MissingDependencyError,
    OutputError,
    PolicyError,
    VpxrcError,
)
from vpxrc.policy import Episode, Policy, PolicyWrapper, encode, make_policy, policy_names
from vpxrc.quantizer import LOG2_STEP, nearest_q
from vpxrc.video import Video, open_video, video_from_frames

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
    "SessionPool",
    "UpdateType",
    "Video",
    "VpxrcError",
    "encode",
    "make_policy",
    "nearest_q",
    "open_video",
    "policy_names",
    "video_from_frames",
]
