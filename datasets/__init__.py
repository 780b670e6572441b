"""Clip catalogues: which videos there are, where they come from and under which licence."""

from vpxrc.datasets.catalogue import clip_sets, load_clips
from vpxrc.datasets.clip import Clip, Origin, Recipe
from vpxrc.datasets.local import CLIPS_VARIABLE

__all__ = ["CLIPS_VARIABLE", "Clip", "Origin", "Recipe", "clip_sets", "load_clips"]
