"""The result of a study."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import pandas as pd

from vpxrc.media.frames import Video


class Clip(Protocol):
    """What is evaluated on; :class:`vpxrc.datasets.Clip` is one. It must pickle."""

    @property
    def name(self) -> str:
        """What tables call the clip; differs from every other clip's."""

    def open(self) -> Video:
        """Return the frames."""


@dataclass(frozen=True)
class Evaluation:
    """A finished evaluation.

    Attributes:
        folder: Where its files are.
        summary: What ``summary.json`` has.
        encodes: A row per encode: ``clip``, ``policy``, ``target_bitrate`` and achieved ``bitrate``
            (kbit/s), ``overshoot``, the qualities measured, ``encodes`` spent, ``encode_seconds``
            and ``cpu_seconds`` (all passes but the first and the policy's own time), the clip's
            geometry and ``content_hash``, ``stream_sha256``, the encoder's options as used, and
            ``key``, the name of the result's files in ``encodes/``.
        frames: A row per coded frame: ``EncodeLog.to_pandas`` with clip, policy and target.
        comparisons: A row per test, anchor, clip and quality (``metric``) with ``percent``,
            ``status`` and ``overlap`` of :class:`BdRate`: the agent against every
            baseline, then every other baseline against the first.
    """

    folder: Path
    summary: dict[str, Any]
    encodes: pd.DataFrame
    frames: pd.DataFrame
    comparisons: pd.DataFrame
