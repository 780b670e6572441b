from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

LIBVPX_VERSION: str
LIBVPX_SHA256: str
LIBVPX_BUILD: str
FIRST_PASS_FIELDS: tuple[str, ...]
TPL_FIELDS: tuple[str, ...]
FRAME_RECORD: np.dtype[np.void]

class State:
    RUNNING: State
    GROUP: State
    FRAME: State
    DONE: State
    FAILED: State

class RateControl:
    vbr: RateControl
    cq: RateControl
    q: RateControl

class EncoderOptions:
    def __init__(
        self,
        *,
        target_bitrate: int,
        cpu_used: int,
        lag_in_frames: int,
        auto_alt_ref: int,
        tpl: bool,
        threads: int,
        key_frame_max_distance: int,
        min_quantizer: int,
        max_quantizer: int,
        rate_control: RateControl,
        cq_level: int,
    ) -> None: ...

class Group:
    @property
    def index(self) -> int: ...
    @property
    def size(self) -> int: ...
    @property
    def first_show_index(self) -> int: ...
    @property
    def max_layer_depth(self) -> int: ...
    @property
    def update_type(self) -> NDArray[np.int32]: ...
    @property
    def layer_depth(self) -> NDArray[np.int32]: ...
    @property
    def show_index(self) -> NDArray[np.int32]: ...
    @property
    def bit_allocation(self) -> NDArray[np.int32]: ...
    @property
    def gfu_boost(self) -> NDArray[np.int32]: ...
    @property
    def references(self) -> NDArray[np.int32]: ...

class Frame:
    @property
    def coding_index(self) -> int: ...
    @property
    def show_index(self) -> int: ...
    @property
    def group_index(self) -> int: ...
    @property
    def group_position(self) -> int: ...
    @property
    def update_type(self) -> int: ...
    @property
    def layer_depth(self) -> int: ...
    @property
    def is_key(self) -> bool: ...
    @property
    def is_shown(self) -> bool: ...
    @property
    def tpl_q_index(self) -> int: ...
    @property
    def reference_coding_index(self) -> tuple[int, int, int]: ...
    @property
    def libvpx_q_index(self) -> int: ...
    @property
    def libvpx_q_low(self) -> int: ...
    @property
    def libvpx_q_high(self) -> int: ...
    @property
    def libvpx_rdmult(self) -> int: ...
    @property
    def target_bits(self) -> int: ...
    @property
    def gfu_boost(self) -> int: ...
    @property
    def frames_to_key(self) -> int: ...
    @property
    def has_tpl(self) -> bool: ...
    @property
    def takes_superblock_scale(self) -> bool: ...
    @property
    def r0(self) -> float: ...

class ReadyQueue:
    def __init__(self) -> None: ...
    def pop(self, timeout_s: float) -> int | None: ...

class Session:
    def __init__(
        self,
        frames: NDArray[np.uint8],
        width: int,
        height: int,
        fps_num: int,
        fps_den: int,
        options: EncoderOptions,
        first_pass_stats: bytes,
        *,
        observe: bool = False,
        plan_groups: bool = False,
        keep_reconstruction: bool = False,
        script: Sequence[tuple[Any, ...]] | None = None,
        queue: ReadyQueue | None = None,
        id: int = 0,
    ) -> None: ...
    def wait(self, timeout_s: float) -> State: ...
    def step(
        self,
        q_index: int,
        lambda_scale: float = 1.0,
        superblock_scale: NDArray[np.float32] | None = None,
        delta_q_uv: int = 0,
        recode_trace: Sequence[int] = (),
        timeout_s: float = 0.0,
    ) -> State: ...
    def step_group(self, plan: Any, timeout_s: float = 0.0) -> State: ...
    def close(self, grace_s: float = 30.0) -> bool: ...
    def records(self, start: int = 0) -> NDArray[np.void]: ...
    @property
    def state(self) -> State: ...
    @property
    def progress(self) -> int: ...
    @property
    def frame(self) -> Frame: ...
    @property
    def group(self) -> Group: ...
    @property
    def tpl(self) -> NDArray[np.float64] | None: ...
    @property
    def num_records(self) -> int: ...
    @property
    def packets(self) -> list[tuple[bytes, int]]: ...
    @property
    def first_pass(self) -> NDArray[np.float64]: ...
    @property
    def reconstruction(self) -> NDArray[np.uint8] | None: ...
    @property
    def error(self) -> str: ...
    @property
    def encode_seconds(self) -> float: ...
    @property
    def cpu_seconds(self) -> float: ...

def linked_version() -> str: ...
def ac_quantizer(q_index: int) -> int: ...
def kernel_levels() -> list[str]: ...
def temporal_dependency(
    frames: NDArray[np.uint8],
    width: int,
    height: int,
    *,
    show_index: Sequence[int],
    references: Sequence[Sequence[int]],
    q_index: Sequence[int],
    weights: Sequence[float],
    reconstructed: bool,
    lambda_q_index: int,
    level: str,
) -> dict[str, NDArray[Any]]: ...
def run_first_pass(
    frames: NDArray[np.uint8],
    width: int,
    height: int,
    fps_num: int,
    fps_den: int,
    options: EncoderOptions,
) -> bytes: ...
def run_plain_second_pass(
    frames: NDArray[np.uint8],
    width: int,
    height: int,
    fps_num: int,
    fps_den: int,
    options: EncoderOptions,
    first_pass_stats: bytes,
) -> list[tuple[bytes, int]]: ...
