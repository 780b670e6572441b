"""Clip catalogues: which videos there are, where they come from and under which licence."""

from vpxrc.datasets.catalogue import Clip, clip_sets, load_clips

__all__ = ["Clip", "clip_sets", "load_clips"]
