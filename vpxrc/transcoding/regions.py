"""Encodes of chunks that prefer a region of interest."""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.media.frames import Video
from vpxrc.policies.base import encode
from vpxrc.policies.region import WeightedRegion
from vpxrc.policies.registry import make_policy


@dataclass(frozen=True)
class RegionEncode:
    """Encodes under the policy of a name, with a region of interest.

    Attributes:
        policy: As :func:`vpxrc.make_policy` takes it.
        region: The region.
        frames: The region's number for each frame; None where they are the same.
    """

    policy: str
    region: WeightedRegion
    frames: tuple[int, ...] | None = None

    def of_frames(self, frames: Sequence[int], video: Video) -> Self:
        """Return the encode of some frames of a clip.

        Args:
            frames: Their numbers in the clip.
            video: The clip.

        Raises:
            InputError: The clip cannot have the region.
        """
        if self.frames is not None:
            frames = [self.frames[index] for index in frames]
        else:
            self.region.spec.check(video.width, video.height, video.num_frames)
        return dataclasses.replace(self, frames=tuple(frames))

    def __call__(
        self, video: Video, options: EncoderOptions, progress: Callable[[int], None]
    ) -> EncodeLog:
        """Encode a clip.

        Args:
            video: The clip.
            options: The encoder's options with the target.
            progress: Called with the number of frames coded so far.

        Raises:
            InputError: The region does not fit the clip.
        """
        policy = self.region.around(make_policy(self.policy), video, self.frames)
        return encode(video, options, policy, progress=progress)
