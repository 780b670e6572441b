"""A region of interest in the environments: in the decisions, and in what rewards see."""

import dataclasses
from typing import Any, Generic

from numpy.typing import ArrayLike

from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import Decision, Frame, Group
from vpxrc.envs.checks import check_positive
from vpxrc.envs.episode import Controller, Seen
from vpxrc.envs.gain import GainReward
from vpxrc.envs.reference import weighted_log
from vpxrc.envs.relative import RelativeReward
from vpxrc.envs.rewards import AnyReward, PreparedReward, VideoReward
from vpxrc.envs.tasks import Tasks
from vpxrc.errors import InputError
from vpxrc.media.frames import Video
from vpxrc.media.masks import RegionSpec
from vpxrc.policies.region import DEFAULT_WEIGHT, FrameRegions, WeightedRegion


def region_of(roi: Any, weight: Any) -> WeightedRegion | None:
    """Return the region of an environment's arguments; None without one.

    Args:
        roi: As :meth:`RegionSpec.of` takes it; None for no region.
        weight: How much more an error inside counts; None for the default.

    Raises:
        InputError: An argument cannot be used.
    """
    if roi is None:
        if weight is not None:
            raise InputError("roi_weight goes with roi")
        return None
    weight = DEFAULT_WEIGHT if weight is None else check_positive("roi_weight", weight)
    return WeightedRegion(RegionSpec.of(roi), weight)


def check_region(region: WeightedRegion, tasks: Tasks) -> None:
    """Check that every clip can have a region; this opens the clips.

    Raises:
        InputError: One cannot, or the encoder knows no regions.
    """
    if tasks.encoder != "vp9":
        raise InputError(f"roi needs the encoder vp9, not {tasks.encoder}")
    for name in tasks.clip_names:
        try:
            region.check(tasks.open(name))
        except InputError as error:
            raise InputError(f"roi, clip {name}: {error}") from None


class RegionController(Generic[Seen]):
    """A controller whose decisions have a region of interest.

    Args:
        controller: The controller.
        regions: The regions of the clip's frames.

    Attributes:
        view: The controller's.
    """

    def __init__(self, controller: Controller[Seen], regions: FrameRegions) -> None:
        self.view = controller.view
        self._controller = controller
        self._regions = regions
        self._frame: Frame | None = None

    def plan_group(self, group: Group) -> ArrayLike | None:
        """Return the controller's provisional q indices."""
        return self._controller.plan_group(group)

    def consider(self, frame: Frame) -> Seen | None:
        """Return the controller's observation."""
        self._frame = frame
        return self._controller.consider(frame)

    def answer(self, action: Any = None) -> Decision:
        """Return the controller's decision, with the region of the frame.

        Raises:
            InputError: The action is no such action; nothing has changed.
        """
        decision = self._controller.answer(action)
        assert self._frame is not None  # the controller has considered one
        return dataclasses.replace(decision, region=self._regions.of(self._frame))

    def end(self) -> Seen:
        """Return the controller's last observation."""
        return self._controller.end()


class RegionReward:
    """Another reward, which sees the weighted PSNR in place of the PSNR: a ``VideoReward``.

    The weight of a pixel's squared error is R inside the region and 1 outside. The other reward is
    asked with a log whose luma errors are weighted like this, so all that it computes of them is.
    The error of a frame is measured on the decoded stream, so everything is paid at the end.

    libvpx's own encodes, which ``relative`` and ``gain`` compare with, have the same region and the
    same weights. So these two pay for rate control, and the region alone earns nothing.

    Args:
        reward: The other reward.
        region: The region.
    """

    def __init__(self, reward: AnyReward, region: WeightedRegion) -> None:
        self.reward = reward
        self._region = region

    @property
    def range(self) -> tuple[float, float]:
        """Lowest and highest value."""
        return self.reward.range

    @property
    def deterministic(self) -> bool:
        """Whether the same encode is always worth the same."""
        return self.reward.deterministic

    def prepare(self, video: Video, options: EncoderOptions) -> None:
        """Get the other reward ready for encodes of a clip.

        Raises:
            EncoderError: A reference encode failed.
            OutputError: The cache cannot be written.
        """
        if isinstance(self.reward, RelativeReward | GainReward):
            self.reward.prepare(video, options, self._region)
        elif isinstance(self.reward, PreparedReward):
            self.reward.prepare(video, options)

    def of_video(self, log: EncodeLog, video: Video) -> Any:
        """Return the worth of a finished encode.

        Args:
            log: The encode.
            video: The clip.
        """
        log = weighted_log(log, video, self._region)
        if isinstance(self.reward, VideoReward):
            return self.reward.of_video(log, video)
        return self.reward(log)
