"""Policies: the rate control that decides how each frame is coded."""

from vpxrc.policies.base import Episode, Policy, encode
from vpxrc.policies.constant import ConstantQ
from vpxrc.policies.dependency import DependencyParameters, DependencyPolicy
from vpxrc.policies.layered import Layered, LayeredParameters
from vpxrc.policies.libvpx import (
    LibvpxQ,
    LibvpxVbr,
    libvpx_q,
    libvpx_q_mlarf,
    libvpx_vbr,
    libvpx_vbr_mlarf,
)
from vpxrc.policies.region import RegionOfInterest, WeightedRegion
from vpxrc.policies.registry import make_policy, policy_names
from vpxrc.policies.replay import Replay
from vpxrc.policies.wrapper import PolicyWrapper

__all__ = [
    "ConstantQ",
    "DependencyParameters",
    "DependencyPolicy",
    "Episode",
    "Layered",
    "LayeredParameters",
    "LibvpxQ",
    "LibvpxVbr",
    "Policy",
    "PolicyWrapper",
    "RegionOfInterest",
    "Replay",
    "WeightedRegion",
    "encode",
    "libvpx_q",
    "libvpx_q_mlarf",
    "libvpx_vbr",
    "libvpx_vbr_mlarf",
    "make_policy",
    "policy_names",
]
