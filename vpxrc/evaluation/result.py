"""The result of a study."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from vpxrc.media.frames import Video


class Clip(Protocol):
    """A clip to evaluate on, such as :class:`vpxrc.datasets.Clip`. It must pickle."""

    @property
    def name(self) -> str:
        """Name in tables, different from every other clip's."""

    def open(self) -> Video:
        """Return the frames."""


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        folder: Folder of its files.
        summary: Contents of ``summary.json``.
        encodes: A row per encode: ``clip``, ``policy``, ``target_bitrate`` and achieved ``bitrate``
            in kbit/s, ``overshoot`` (achieved over target, less 1), the measured qualities, the
            number of ``encodes`` that the policy took, ``encode_seconds`` and ``cpu_seconds`` (the
            policy and all passes except the first), the clip's geometry and ``content_hash``,
            ``stream_sha256``, the encoder's options as used, and ``key``, the name of the files in
            ``encodes/``.
        frames: A row per coded frame: :meth:`vpxrc.EncodeLog.to_pandas` with clip, policy and
            target.
        comparisons: A row per test, anchor, clip and quality (column ``metric``) with ``percent``,
            ``status`` and ``overlap`` of :class:`vpxrc.evaluation.bd_rate.BdRate`. The agent is
            compared with every baseline, then every other baseline with the first.
    """

    folder: Path
    summary: dict[str, Any]
    encodes: pd.DataFrame
    frames: pd.DataFrame
    comparisons: pd.DataFrame
