"""How every frame of an encode is decided: recorded, moved, followed, kept in a table."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.quantizer import LOG2_STEP, log2_steps, nearest_q
from vpxrc.encoder.types import Decision, Frame, Region
from vpxrc.errors import InputError
from vpxrc.policies.base import Episode, Policy
from vpxrc.policies.wrapper import PolicyWrapper
from vpxrc.storage import digest

_FRAME_FIELDS = ("show_index", "group_index", "group_position", "update_type", "layer_depth")


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The decisions of an encode, a row per coded frame in coding order, ``T`` of them.

    Attributes:
        show_index: Display index of the frame, int32 ``[T]``.
        group_index: Number of the frame's golden-frame group, int32 ``[T]``.
        group_position: Place in that group, int32 ``[T]``.
        update_type: A :class:`vpxrc.UpdateType` each, int32 ``[T]``.
        layer_depth: 1 for the base layer of ARFs, int32 ``[T]``.
        step: log2 of the quantiser step, float64 ``[T]``; the q index is the nearest one.
        lambda_scale: Factor on lambda, float64 ``[T]``.
        superblock_scale: Factors on lambda per superblock, or None, ``T`` of them.
        region: The region of interest, or None, ``T`` of them; empty where no frame has one.
    """

    show_index: NDArray[np.int32]
    group_index: NDArray[np.int32]
    group_position: NDArray[np.int32]
    update_type: NDArray[np.int32]
    layer_depth: NDArray[np.int32]
    step: NDArray[np.float64]
    lambda_scale: NDArray[np.float64]
    superblock_scale: tuple[NDArray[np.float32] | None, ...]
    region: tuple[Region | None, ...] = ()

    def __len__(self) -> int:
        """Return the number of coded frames."""
        return len(self.step)

    @classmethod
    def of(cls, log: EncodeLog, decisions: list[Decision]) -> Self:
        """Return the trajectory of a log and the decisions that made it."""
        rows = log.coded
        regions = tuple(decision.region for decision in decisions)
        return cls(
            **{name: rows[name].copy() for name in _FRAME_FIELDS},
            step=log2_steps(log.clip.bit_depth)[rows["q_index"]],
            lambda_scale=rows["lambda_scale"].copy(),
            superblock_scale=tuple(decision.superblock_scale for decision in decisions),
            region=regions if any(region is not None for region in regions) else (),
        )

    def fits(self, log: EncodeLog) -> bool:
        """Return whether a log has the trajectory's frames, in its groups and places."""
        rows = log.coded
        return len(rows) == len(self) and all(
            np.array_equal(rows[name], getattr(self, name)) for name in _FRAME_FIELDS
        )

    def moved(
        self,
        step: NDArray[np.float64] | float = 0.0,
        log2_lambda: NDArray[np.float64] | float = 0.0,
    ) -> Self:
        """Return the trajectory with so much added to its steps and to log2 of its lambdas."""
        return dataclasses.replace(
            self,
            step=np.clip(self.step + step, LOG2_STEP[1], LOG2_STEP[255]),
            lambda_scale=np.clip(self.lambda_scale * np.exp2(log2_lambda), 2.0**-6, 2.0**6),
        )

    def to_pandas(self) -> pd.DataFrame:
        """Return a table with the attributes as columns; maps are flat, with their rows beside."""
        table = pd.DataFrame(
            {
                field.name: getattr(self, field.name)
                for field in dataclasses.fields(self)
                if field.name not in ("superblock_scale", "region")
            }
        )
        _put_maps(table, "superblock", "scale", self.superblock_scale)
        if self.region:  # most trajectories have none, and no columns for them
            regions = [region or Region() for region in self.region]
            _put_maps(table, "block", "scale", [region.block_scale for region in regions])
            _put_maps(table, "segment", "map", [region.segment_map for region in regions])
            offsets = [list(region.segment_q_offset) for region in regions]
            table["segment_q_offset"] = pd.Series(offsets, dtype=object)
        return table

    @property
    def content_hash(self) -> str:
        """SHA-256 of all decisions in hexadecimal."""
        return digest(self.to_pandas().to_dict("list"))

    @classmethod
    def from_pandas(cls, table: pd.DataFrame) -> Self:
        """Return the trajectory that :meth:`to_pandas` made the table of.

        Raises:
            InputError: Columns are missing, or have something else than finite numbers.
        """
        try:
            columns: dict[str, NDArray[Any]] = {
                name: table[name].to_numpy(np.float64)
                for name in (*_FRAME_FIELDS, "step", "lambda_scale")
            }
            if not all(np.isfinite(values).all() for values in columns.values()):
                raise ValueError("not all of its numbers are finite")
            for name in _FRAME_FIELDS:
                columns[name] = _whole_numbers(table, name)
            maps = _taken_maps(table, "superblock", "scale", np.float32)
            regions = _taken_regions(table) if "segment_q_offset" in table else ()
        except KeyError as error:
            raise InputError(f"not a table of a trajectory: no column {error}") from error
        except (TypeError, ValueError) as error:
            raise InputError(f"not a table of a trajectory: {error}") from error
        return cls(**columns, superblock_scale=tuple(maps), region=regions)


def _put_maps(
    table: pd.DataFrame, block: str, name: str, maps: Sequence[NDArray[Any] | None]
) -> None:
    """Add the columns ``{block}_{name}`` of flat maps and ``{block}_rows`` of their rows."""
    flat = [None if m is None else m.ravel().tolist() for m in maps]
    table[f"{block}_{name}"] = pd.Series(flat, dtype=object)
    table[f"{block}_rows"] = [0 if m is None else m.shape[0] for m in maps]


def _whole_numbers(table: pd.DataFrame, name: str) -> NDArray[np.int32]:
    """Return a column of whole numbers.

    Raises:
        ValueError: It has others.
    """
    values = table[name].to_numpy(np.float64)
    if not np.isfinite(values).all():
        raise ValueError("not all of its numbers are finite")
    if (values != np.clip(np.rint(values), -(2**31), 2**31 - 1)).any():
        raise ValueError(f"{name} has something else than whole numbers")
    return values.astype(np.int32)


def _taken_maps(
    table: pd.DataFrame, block: str, name: str, dtype: type[np.generic]
) -> list[NDArray[Any] | None]:
    """Return the maps that :func:`_put_maps` has added.

    Raises:
        ValueError: They are no maps, or have something else than finite numbers.
    """
    maps: list[NDArray[Any] | None] = []
    for flat, rows in zip(
        table[f"{block}_{name}"], _whole_numbers(table, f"{block}_rows"), strict=True
    ):
        values = np.asarray(flat if rows else (), dtype=np.float64)
        if not np.isfinite(values).all():
            raise ValueError(f"not all of its {block} maps are finite")
        maps.append(values.astype(dtype).reshape(rows, -1) if rows else None)
    return maps


def _taken_regions(table: pd.DataFrame) -> tuple[Region | None, ...]:
    """Return the regions of a table that has some.

    Raises:
        ValueError: They are none.
    """
    scales = _taken_maps(table, "block", "scale", np.float32)
    maps = _taken_maps(table, "segment", "map", np.uint8)
    offsets = [tuple(int(q) for q in row) for row in table["segment_q_offset"]]
    return tuple(
        None if scale is None and segments is None else Region(scale, segments, offset)
        for scale, segments, offset in zip(scales, maps, offsets, strict=True)
    )


class Record(PolicyWrapper):
    """Another policy, with its decisions kept.

    Args:
        policy: The policy.
        most: The most encodes that it may ask for; None: as many as it asks for.

    Attributes:
        decisions: Those of the encode that is running or was kept, in coding order.
    """

    def __init__(self, policy: Policy, most: int | None = None) -> None:
        super().__init__(policy)
        self.decisions: list[Decision] = []
        self._most = most
        self._encodes: list[tuple[NDArray[np.void], list[Decision]]] = []

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the policy's options, in the mode and with the layers that are followed in."""
        return super().options(options).for_control()

    def begin(self, episode: Episode) -> None:
        """Start on the decisions of another encode."""
        self.decisions = []
        super().begin(episode)

    def decide(self, frame: Frame) -> Decision:
        """Return the policy's decision."""
        self.decisions.append(super().decide(frame))
        return self.decisions[-1]

    def review(self, log: EncodeLog) -> EncodeLog | None:
        """Return the encode that the policy keeps, the last one where it may ask for no more."""
        self._encodes.append((log.records, self.decisions))
        kept = super().review(log)
        if kept is None and len(self._encodes) == self._most:
            kept = log
        if kept is not None:
            records = kept.records
            self.decisions = next(made for of, made in self._encodes if of is records)
            self._encodes = []
        return kept


class Follow(Policy):
    """Follows a trajectory: exactly while the encode takes its course, else the nearest frame's.

    libvpx shapes its golden-frame groups by the q indices that it has seen, so a trajectory that
    was moved may meet groups that it was not made for. A frame that is not where the trajectory has
    it is decided as the frame of its kind that is shown nearest to it.
    """

    def __init__(self, trajectory: Trajectory) -> None:
        self._trajectory = trajectory
        self._position = 0

    def options(self, options: EncoderOptions) -> EncoderOptions:
        """Return the options in VBR mode, which shapes the groups, with all layers."""
        return options.for_control()

    def begin(self, episode: Episode) -> None:
        """Go back to the first frame."""
        self._position = 0
        self._log2_step = episode.log2_step

    def decide(self, frame: Frame) -> Decision:
        """Return the decision of the trajectory's frame in this place, or of the nearest."""
        t, at = self._trajectory, self._position
        self._position += 1
        same_place = at < len(t) and (t.show_index[at], t.update_type[at], t.layer_depth[at]) == (
            frame.show_index,
            frame.update_type,
            frame.layer_depth,
        )
        if not same_place:
            strangeness = np.abs(t.show_index - frame.show_index)
            strangeness += 10_000 * (t.update_type != frame.update_type)
            strangeness += 1_000 * np.abs(t.layer_depth - frame.layer_depth)
            at = int(strangeness.argmin())
        scale = t.superblock_scale[at] if same_place else None
        q_index = nearest_q(float(t.step[at]), self._log2_step)
        region = t.region[at] if t.region else None
        return Decision(q_index, float(t.lambda_scale[at]), scale, region=region)
