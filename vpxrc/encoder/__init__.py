"""The encoder: options, sessions that stop at every decision, and logs of finished encodes."""

from vpxrc.encoder.first_pass import first_pass_stats, first_pass_table
from vpxrc.encoder.log import MAX_PSNR, EncodeLog, coded_rows, psnr, shown_rows
from vpxrc.encoder.options import EncoderOptions
from vpxrc.encoder.quantizer import LOG2_STEP, MULTI_LAYER, nearest_q
from vpxrc.encoder.session import EncodeSession, Session, SessionPool
from vpxrc.encoder.types import (
    DEFAULT_TIMEOUT,
    FIRST_PASS_FIELDS,
    RECORD_DTYPE,
    TPL_FIELDS,
    UPDATE_TYPES,
    Decision,
    Frame,
    Group,
    State,
    UpdateType,
)

__all__ = [
    "DEFAULT_TIMEOUT",
    "FIRST_PASS_FIELDS",
    "LOG2_STEP",
    "MAX_PSNR",
    "MULTI_LAYER",
    "RECORD_DTYPE",
    "TPL_FIELDS",
    "UPDATE_TYPES",
    "Decision",
    "EncodeLog",
    "EncodeSession",
    "EncoderOptions",
    "Frame",
    "Group",
    "Session",
    "SessionPool",
    "State",
    "UpdateType",
    "coded_rows",
    "first_pass_stats",
    "first_pass_table",
    "nearest_q",
    "psnr",
    "shown_rows",
]
