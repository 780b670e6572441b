"""The dependencies between the frames of one encode."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from vpxrc.dependency import Dependency, Version, analyse
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.types import UPDATE_TYPES, Group, UpdateType
from vpxrc.errors import InputError
from vpxrc.media.frames import Video
from vpxrc.policies.base import Episode, Policy, encode
from vpxrc.policies.replay import Replay
from vpxrc.policies.wrapper import PolicyWrapper

_MAX_DEPTH = 99  # more than any layer's


@dataclass(frozen=True, eq=False)
class GroupModel:
    """The dependency model of one golden-frame group as it was encoded.

    Attributes:
        index: Number of the group within the encode.
        rows: The log's row of each frame, ``[N]``. Frames that are shown again are left out, except
            an ARF at position 0, from which the group's frames are predicted.
        q_index: q index that each picture was coded at, int32 ``[N]``.
        dependency: The model; its positions are those of ``rows``.
    """

    index: int
    rows: NDArray[np.void]
    q_index: NDArray[np.int32]
    dependency: Dependency

    def label(self, position: int) -> str:
        """Return a frame's type in words, for an ARF with its layer."""
        row = self.rows[position]
        kind = UPDATE_TYPES[int(row["update_type"])]
        return f"ARF, layer {row['layer_depth']}" if kind == "arf" else kind

    @property
    def level(self) -> NDArray[np.int64]:
        """Row of each frame in a graph, int64 ``[N]``: 0 is the first frame's, the last leaves'."""
        depth = np.where(
            self.rows["update_type"] == UpdateType.LEAF, _MAX_DEPTH, self.rows["layer_depth"]
        )
        depth[self.rows["group_position"] == 0] = 0
        return np.unique(depth, return_inverse=True)[1]


@dataclass(frozen=True, eq=False)
class Inspection:
    """An encode and the model of each of its groups.

    Attributes:
        video: The clip.
        log: The encode.
        groups: The groups that have at least two frames to model, in order.
    """

    video: Video
    log: EncodeLog
    groups: list[GroupModel]

    @property
    def num_groups(self) -> int:
        """Number of golden-frame groups, including those without a model."""
        return int(self.log.records["group_index"].max()) + 1

    def group(self, index: int) -> GroupModel:
        """Return the model of a group.

        Raises:
            InputError: There is no such group, or it has no model.
        """
        if not 0 <= index < self.num_groups:
            raise InputError(
                f"{self.video.name}: there is no group {index}: the encode has "
                f"{self.num_groups}, counted from 0"
            )
        for group in self.groups:
            if group.index == index:
                return group
        raise InputError(f"{self.video.name}: group {index} has fewer than two frames, so no model")

    @cached_property
    def table(self) -> pd.DataFrame:
        """A row per modelled frame of every group.

        An ARF that is shown again at the start of the next group has a row in both groups, because
        the frames of both depend on it. In the second row, ``bits`` are those of showing it.
        ``dep_distortion`` and ``dep_bits`` are the distortion and the bits that the frame's errors
        cost later frames; lambda would make one cost of them.
        """
        return pd.concat([group_table(group) for group in self.groups], ignore_index=True)


def inspect(
    video: Video,
    options: EncoderOptions,
    policy: Policy,
    *,
    version: Version = "reconstructed",
    progress: Callable[[int], None] | None = None,
) -> Inspection:
    """Encode a clip under a policy and model every group at the q that it was coded at.

    Args:
        video: The clip.
        options: Options that the policy is asked for.
        policy: Policy that decides. The log of an observing policy is replayed, because only a
            deciding policy is told the groups.
        version: Version of the model.
        progress: Called with the number of frames coded so far; see :func:`vpxrc.encode`.

    Raises:
        InputError: ``version`` is unknown, or no group has two frames.
        PolicyError: The policy raised or answered out of range.
        EncoderError: libvpx failed.
    """
    recorder = _Recorder(policy)
    log = encode(video, options, recorder, progress=progress)
    if policy.observes:
        recorder = _Recorder(Replay(log))
        groups = recorder.groups_of(encode(video, log.options, recorder, progress=progress))
    else:
        groups = recorder.groups_of(log)
    models = [
        model for group in groups if (model := _model(video, log, group, version)) is not None
    ]
    if not models:
        raise InputError(f"{video.name}: no group has two frames, so there is nothing to model")
    return Inspection(video, log, models)


def group_table(group: GroupModel) -> pd.DataFrame:
    """Return a row per coded frame of a group; see :attr:`Inspection.table`."""
    rows, d = group.rows, group.dependency
    return pd.DataFrame(
        {
            "group_index": rows["group_index"],
            "group_position": rows["group_position"],
            "show_index": rows["show_index"],
            "update_type": [UPDATE_TYPES[int(kind)] for kind in rows["update_type"]],
            "layer_depth": rows["layer_depth"],
            "q_index": group.q_index,
            "bits": rows["bits"],
            "importance": d.frame_importance,
            "q_offset": d.q_offset(),
            "model_bits": d.rate.sum(axis=(1, 2)),
            "model_distortion": d.distortion.sum(axis=(1, 2)),
            "dep_distortion": d.dep_distortion.sum(axis=(1, 2)),
            "dep_bits": d.dep_rate.sum(axis=(1, 2)),
        }
    )


class _Recorder(PolicyWrapper):
    """Keeps the groups that a policy is told."""

    def __init__(self, policy: Policy) -> None:
        super().__init__(policy)
        self._groups: list[Group] = []
        self._encodes: list[tuple[NDArray[np.void], list[Group]]] = []

    def begin(self, episode: Episode) -> None:
        self._groups = []
        super().begin(episode)

    def plan_group(self, group: Group) -> ArrayLike | None:
        self._groups.append(group)
        return super().plan_group(group)

    def review(self, log: EncodeLog) -> EncodeLog | None:
        self._encodes.append((log.records, self._groups))
        return super().review(log)

    def groups_of(self, log: EncodeLog) -> list[Group]:
        """Return the groups of one encode, of all that the policy tried."""
        return next(groups for records, groups in self._encodes if records is log.records)


def _model(video: Video, log: EncodeLog, group: Group, version: Version) -> GroupModel | None:
    rows = log.records[
        (log.records["group_index"] == group.index)
        & (log.records["update_type"] != UpdateType.SHOWN_AGAIN)
    ]
    if len(rows) < 2:
        return None
    q_index = rows["q_index"].copy()
    for n in np.flatnonzero(rows["is_shown_again"]):  # coded in the previous group
        same = log.coded[log.coded["show_index"] == rows[n]["show_index"]]
        q_index[n] = same["q_index"][-1]
    place = {int(position): n for n, position in enumerate(rows["group_position"])}
    references = [
        [place.get(int(reference), -1) for reference in group.references[position]]
        for position in place
    ]
    dependency = analyse(
        video,
        rows["show_index"],
        references,
        np.maximum(q_index, 1),  # 0 is lossless, which the model cannot express
        version=version,
    )
    return GroupModel(group.index, rows, q_index, dependency)
