"""Sessions: what they present, what they take, and how they end."""

import dataclasses
import gc
import inspect
import os
import threading
import time
from typing import Any, cast

import numpy as np
import psutil
import pytest
from conftest import make_video

from vpxrc import (
    Decision,
    EncoderError,
    EncoderOptions,
    EncoderTimeoutError,
    EncodeSession,
    InputError,
    Policy,
    PolicyError,
    SessionPool,
    _native,
    _native_high,
    _search,
    encode,
    video_from_frames,
)
from vpxrc.datasets import load_clips
from vpxrc.encoder.first_pass import first_pass_stats
from vpxrc.encoder.types import FIRST_PASS_FIELDS, RECORD_DTYPE, TPL_FIELDS, State
from vpxrc.media.decoding import decode_vp9
from vpxrc.policies.constant import ConstantQ
from vpxrc.policies.libvpx import LibvpxQ, LibvpxVbr
from vpxrc.policies.replay import Replay

OPTIONS = EncoderOptions(target_bitrate=60, cpu_used=4, auto_alt_ref=6)


@pytest.fixture(scope="module")
def carphone():
    clip = load_clips("samples")[0]
    return dataclasses.replace(clip, num_frames=60).open()


class Recorder(Policy):
    """Constant q; keeps what it is shown."""

    def __init__(self, q_index=100, **decision):
        self.decision = Decision(q_index, **decision)

    def begin(self, episode):
        self.episode = episode
        self.frames, self.groups, self.tpl = [], [], []

    def decide(self, frame):
        self.frames.append(frame)
        self.groups.append(self.episode.group)
        self.tpl.append(self.episode.tpl)
        return self.decision


# What is presented


def test_a_record_of_the_log_is_what_stored_logs_have():
    place = ["coding_index", "show_index", "group_index", "group_position"]
    place += ["update_type", "layer_depth", "is_key", "is_shown"]
    whole = ["is_shown_again", "q_index", "tpl_q_index", "libvpx_q_index", "rdmult", "target_bits"]
    fields: list[Any] = [(name, "<i4") for name in place + whole] + [("lambda_scale", "<f8")]
    fields += [(name, "<i8") for name in ("bits", "sse_y", "sse_u", "sse_v")]
    fields += [("recode_trace", "<i4", (5,))]
    assert np.dtype(fields, align=True) == RECORD_DTYPE
    assert RECORD_DTYPE.itemsize == 120


@pytest.mark.parametrize("module", [_native, _native_high, _search])
def test_everything_bound_has_a_docstring(module):
    classes = [value for value in vars(module).values() if inspect.isclass(value)]
    if State in classes:
        classes.remove(State)  # pybind11 writes an enumeration's members into its docstring
    functions: list[Any]
    functions = [value for value in vars(module).values() if inspect.isbuiltin(value)]
    assert classes
    for bound in classes:
        assert bound.__doc__, bound
        for name, member in vars(bound).items():
            if isinstance(member, property):
                assert member.__doc__, f"{bound.__name__}.{name}"
            elif not name.startswith("_") or name == "__init__":
                functions.append(member)
    for bound in functions:
        signature, *words = (getattr(bound, "__doc__", None) or "").strip().splitlines()
        if signature.startswith(f"{bound.__name__}("):  # pybind11 writes that itself
            assert any(words), signature


@pytest.mark.parametrize("layers", [0, 1, 6])
def test_one_decision_per_coded_frame_and_every_frame_is_shown_once(carphone, layers):
    class Layers(Recorder):
        def options(self, options):
            return dataclasses.replace(options, auto_alt_ref=layers)

    policy = Layers()
    log = encode(carphone, OPTIONS, policy)
    records = log.records
    coded = log.coded
    assert [f.coding_index for f in policy.frames] == coded["coding_index"].tolist()
    assert coded["coding_index"].tolist() == np.flatnonzero(records["is_shown_again"] == 0).tolist()
    assert [f.show_index for f in policy.frames] == coded["show_index"].tolist()
    shown = records[records["is_shown"] != 0]["show_index"]
    assert shown.tolist() == list(range(carphone.num_frames))
    assert (coded["q_index"] == 100).all()
    assert (records["is_shown_again"] != 0).any() == (layers > 1)
    assert decode_vp9(log.stream, carphone.width, carphone.height).shape == carphone.frames.shape
    # Nothing of the stream is unaccounted for but the indices of packets with several frames.
    assert 0 <= log.bits - records["bits"].sum() < 0.01 * log.bits


def test_a_group_says_in_advance_what_is_coded(carphone):
    policy = Recorder()
    log = encode(carphone, OPTIONS, policy)
    coded_by_position = {}
    for row in log.records:
        coded_by_position[int(row["group_index"]), int(row["group_position"])] = row
    groups = {group.index: group for group in policy.groups}
    assert sorted(groups) == list(range(len(groups)))
    checked = 0
    for group in groups.values():
        for position in range(group.size):
            row = coded_by_position.get((group.index, position))
            if row is None:  # the clip ends within the group
                continue
            assert group.update_type[position] == row["update_type"]
            assert group.layer_depth[position] == row["layer_depth"]
            assert group.show_index[position] == row["show_index"]
            checked += 1
    # A last group of nothing but an ARF shown again asks for no decision.
    assert checked == np.isin(log.records["group_index"], list(groups)).sum() > 80


def test_references_of_a_group_are_those_of_its_frames(carphone):
    policy = Recorder()
    encode(carphone, OPTIONS, policy)
    coded = {(f.group_index, f.group_position): f.coding_index for f in policy.frames}
    compared = 0
    for frame, group in zip(policy.frames, policy.groups, strict=True):
        if frame.group_position == 0:
            continue
        planned = group.references[frame.group_position]
        for reference, position in zip(frame.reference_coding_index, planned, strict=True):
            if position > 0:
                assert reference == coded[group.index, position]
                compared += 1
            elif position < 0 and group.index == 0:
                raise AssertionError("nothing is before the first group")
    assert compared > 30


def test_tpl_statistics(carphone):
    policy = Recorder()
    encode(carphone, OPTIONS, policy)
    seen = 0
    for frame, group, tpl in zip(policy.frames, policy.groups, policy.tpl, strict=True):
        if frame.group_position == 0:
            assert tpl is None
            assert not frame.has_tpl
            assert np.isnan(frame.r0)
        if tpl is None:
            continue
        assert tpl.shape == (group.size, 5, 6, len(TPL_FIELDS))  # 176x144 in 32x32 blocks
        if not frame.has_tpl:
            continue
        mine = tpl[frame.group_position]
        intra, inter, flow, dependent = (mine[..., i] for i in range(4))
        assert (inter <= intra).all()
        assert (dependent >= intra).all()
        assert np.allclose(dependent, intra + flow)
        # The blocks at the right and lower edge are not whole, so this is near and not equal.
        assert frame.r0 == pytest.approx(intra.sum() / dependent.sum(), rel=0.1)
        assert 0 < frame.r0 <= 1
        seen += 1
    assert seen > 30


def test_first_pass_statistics_as_presented(carphone):
    with EncodeSession(carphone, OPTIONS) as session:
        stats = session.first_pass
    assert stats.shape == (carphone.num_frames, len(FIRST_PASS_FIELDS))
    assert stats[:, 0].tolist() == list(range(carphone.num_frames))
    blob = np.frombuffer(first_pass_stats(carphone, OPTIONS))
    per_frame = blob.reshape(carphone.num_frames + 1, -1)  # the last row is the total
    assert np.isin(stats[7], per_frame[7]).all()


def test_libvpxs_own_choice_is_what_it_takes(carphone):
    """With q left to libvpx in Q mode, which never recodes, the stream is libvpx's own."""
    options = dataclasses.replace(OPTIONS, rate_control="q", cq_level=30)
    log = encode(carphone, options, Recorder(-1))
    with EncodeSession(carphone, options, observe=True) as session:
        assert log.stream == session.log().stream
    coded = log.coded
    assert (coded["q_index"] == coded["libvpx_q_index"]).all()


# What is taken in


def test_lambda_scale_moves_bits_and_one_is_neutral(carphone):
    bits = [encode(carphone, OPTIONS, Recorder(lambda_scale=s)).bits for s in (0.5, 1.0, 2.0)]
    assert bits[0] > bits[1] > bits[2]
    log = encode(carphone, OPTIONS, Recorder(lambda_scale=2.0))
    plain = encode(carphone, OPTIONS, Recorder())
    first = log.records[0]["rdmult"], plain.records[0]["rdmult"]
    assert first[0] == pytest.approx(2 * first[1], abs=1)


class OwnMap(Recorder):
    """Hands libvpx's own TPL scale back as a superblock map, computed here from its formula."""

    def __init__(self, strength):
        super().__init__()
        self.strength = strength
        self.used = 0

    def decide(self, frame):
        super().decide(frame)
        if not frame.takes_superblock_scale or frame.layer_depth > 1:
            return self.decision
        tpl = self.episode.tpl[frame.group_position]
        rows, cols = tpl.shape[0], tpl.shape[1]
        scale = np.ones(((rows + 1) // 2, (cols + 1) // 2), np.float32)
        for r in range(scale.shape[0]):
            for c in range(scale.shape[1]):
                block = tpl[2 * r : 2 * r + 2, 2 * c : 2 * c + 2]
                rk = block[..., 0].sum() / block[..., 3].sum()
                scale[r, c] = np.clip(rk / frame.r0, 0.5, 1.5) ** self.strength
        self.used += 1
        return dataclasses.replace(self.decision, superblock_scale=scale)


def test_superblock_map(carphone):
    own = encode(carphone, OPTIONS, Recorder())
    none = encode(carphone, OPTIONS, neutral := OwnMap(0.0))
    mine = encode(carphone, OPTIONS, OwnMap(1.0))
    assert neutral.used >= 4  # an ARF per group
    assert own.stream != none.stream
    # In steps of 1/256 and with whole edge blocks: nearer to libvpx's own than neutral is.
    assert abs(mine.bits - own.bits) < abs(none.bits - own.bits)


class InnerMap(Recorder):
    """The same factor everywhere on the layers for which libvpx has no map of its own."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor
        self.depths = set()

    def decide(self, frame):
        super().decide(frame)
        if not (frame.takes_superblock_scale and frame.layer_depth > 1):
            return self.decision
        self.depths.add(frame.layer_depth)
        video = self.episode.video
        shape = -(-video.height // 64), -(-video.width // 64)
        scale = np.full(shape, self.factor, np.float32)
        return dataclasses.replace(self.decision, superblock_scale=scale)


def test_superblock_map_on_every_layer(carphone):
    options = dataclasses.replace(OPTIONS, auto_alt_ref=6)
    own = encode(carphone, options, Recorder())
    neutral = encode(carphone, options, inner := InnerMap(1.0))
    assert max(inner.depths) > 2
    assert neutral.stream == own.stream
    # Half the lambda: more bits for less distortion in those layers, logged at their own depth.
    finer = encode(carphone, options, InnerMap(0.5))
    deep = own.records["layer_depth"] > 1
    assert (finer.records["layer_depth"] == own.records["layer_depth"]).all()
    assert finer.records["bits"][deep].sum() > own.records["bits"][deep].sum()
    assert finer.records["sse_y"][deep].sum() < own.records["sse_y"][deep].sum()


def test_chroma_q_delta(carphone):
    def chroma_error(delta):
        return encode(carphone, OPTIONS, Recorder(delta_q_uv=delta)).records["sse_u"].sum()

    assert chroma_error(-15) < chroma_error(0) < chroma_error(15)


def test_a_plan_reaches_the_tpl_pass(carphone):
    class Planner(Recorder):
        def plan_group(self, group):
            return [50 + i for i in range(group.size + 1)]

    log = encode(carphone, OPTIONS, Planner())
    with_tpl = log.records[(log.records["tpl_q_index"] >= 0) & (log.records["group_position"] > 0)]
    assert len(with_tpl) > 20
    assert (with_tpl["tpl_q_index"] == 50 + with_tpl["group_position"]).all()


def test_a_script_equals_the_same_decisions_handed_over(carphone):
    log = encode(carphone, OPTIONS, ConstantQ(90))
    script = [Decision(90)] * len(log.records)
    with EncodeSession(carphone, OPTIONS, script=script) as session:
        assert session.log().stream == log.stream
    scale = np.full((3, 3), 0.5, np.float32)
    rich = [Decision(90, 1.2, scale, -5)] * len(log.records)

    class Rich(Recorder):
        def decide(self, frame):
            return rich[0]

    with EncodeSession(carphone, OPTIONS, script=rich) as session:
        assert session.log().stream == encode(carphone, OPTIONS, Rich()).stream != log.stream
    with pytest.raises(EncoderError, match="made: coded frame 3: the script has 3 decisions"):
        EncodeSession(make_video(), OPTIONS, script=script[:3])


@pytest.mark.parametrize(
    ("decision", "words"),
    [
        (Decision(256), "q_index 256 is not in 0..255"),
        (Decision(-2), "q_index -2"),
        (Decision(cast(int, float("nan"))), "q_index cannot be nan"),
        (Decision(100, lambda_scale=cast(float, "1")), "lambda_scale cannot be '1'"),
        (Decision(100, lambda_scale=0.0), r"lambda_scale must be in \(0, 64\]"),
        (Decision(100, lambda_scale=float("nan")), "lambda_scale"),
        (Decision(100, delta_q_uv=16), "delta_q_uv"),
        (Decision(100, superblock_scale=np.full((1, 1), np.nan, np.float32)), "superblock_scale"),
        (Decision(100, recode_trace=(1, 2)), "recode_trace must have 5 fields"),
    ],
)
def test_decisions_out_of_range_are_refused_and_the_session_goes_on(video, decision, words):
    with EncodeSession(video, OPTIONS) as session:
        session.step(Decision(100))
        with pytest.raises(PolicyError, match=f"(?s)made: coded frame 1: .*{words}"):
            session.step(decision)
        while session.frame is not None:
            session.step(Decision(100))
        assert session.log().stream == encode(video, OPTIONS, ConstantQ(100)).stream


def test_a_superblock_map_of_the_wrong_size_ends_the_encode(video):
    scale = np.ones((3, 3), np.float32)
    with EncodeSession(video, OPTIONS) as session, pytest.raises(EncoderError, match="superblock"):
        session.step(Decision(100, superblock_scale=scale))


@pytest.mark.parametrize("plan", [[1, 2, 3], [300] * 99, "abc"])
def test_bad_plans(video, plan):
    class Planner(Recorder):
        def plan_group(self, group):
            return plan if len(plan) < 99 else [300] * group.size

    with pytest.raises(PolicyError, match="made: coded frame 0"):
        encode(video, OPTIONS, Planner())


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("target_bitrate", 0),
        ("target_bitrate", -5),
        ("target_bitrate", 12.5),
        ("cpu_used", 9),
        ("auto_alt_ref", 7),
        ("max_quantizer", 64),
        ("rate_control", "cbr"),
    ],
)
def test_options_out_of_range(name, value):
    with pytest.raises(InputError, match=name):
        EncoderOptions(**{name: value})


# How it ends


def test_a_policy_that_raises_ends_the_encode_with_its_own_error(video):
    class Failing(Recorder):
        def decide(self, frame):
            if frame.coding_index == 5:
                raise KeyError("no such thing")
            return super().decide(frame)

    before = threading.active_count(), psutil.Process().num_threads()
    with pytest.raises(PolicyError, match=r"made: coded frame \d+: Failing raised: KeyError") as e:
        encode(video, OPTIONS, Failing())
    assert isinstance(e.value.__cause__, KeyError)
    assert (threading.active_count(), psutil.Process().num_threads()) == before


def test_a_stuck_encoder_is_an_error():
    large = make_video(640, 360, 4)
    options = EncoderOptions(target_bitrate=2000, cpu_used=0)
    first_pass_stats(large, options)
    with pytest.raises(EncoderTimeoutError, match=r"made: the encoder took more than 0\.001 s"):
        EncodeSession(large, options, timeout=0.001)


def test_the_timeout_is_per_frame_and_not_per_encode():
    video = make_video(320, 180, 40)
    options = EncoderOptions(target_bitrate=800, cpu_used=0, lag_in_frames=0)
    with EncodeSession(video, options, observe=True) as session:
        log = session.log()
        assert session.progress == len(log.records)
    # Far more than a frame takes, and less than all of them do, on a machine of any speed.
    timeout = log.encode_seconds / 2
    with EncodeSession(video, options, observe=True, timeout=timeout) as session:
        assert session.log().stream == log.stream
    pool = SessionPool(timeout=timeout)
    pool.open(video, options, observe=True)
    assert pool.next()[1].log().stream == log.stream
    pool.close()


def test_a_log_of_an_unfinished_encode_is_refused(video):
    with EncodeSession(video, OPTIONS) as session:
        with pytest.raises(EncoderError, match="not over"):
            session.log()
        session.close()
        session.close()
        with pytest.raises(EncoderError, match="closed"):
            session.step(Decision(100))


def test_five_hundred_sessions_closed_anywhere_leave_nothing_behind():
    video = make_video(48, 32, 12)
    process = psutil.Process()
    rng = np.random.default_rng(0)

    def open_and_close(count):
        for _ in range(count):
            kind = rng.integers(3)
            session = EncodeSession(
                video, OPTIONS, observe=bool(kind == 1), plan_groups=bool(kind == 2)
            )
            for _ in range(rng.integers(14)):
                if session.state == State.FRAME:
                    session.step(Decision(int(rng.integers(1, 256))))
                elif session.state == State.GROUP:
                    session.step_group(None)
            if rng.integers(2):
                session.close()
            del session

    open_and_close(50)  # allocators and caches settle
    gc.collect()
    threads, files, memory = process.num_threads(), process.num_fds(), process.memory_info().rss
    open_and_close(450)
    gc.collect()
    assert process.num_threads() == threads
    assert process.num_fds() == files
    # One leaked frame buffer per session would be 450 x 10 KiB and more.
    assert process.memory_info().rss - memory < 3 * 2**20


def test_many_sessions_at_once_equal_one_after_the_other(video):
    pool = SessionPool()
    for q in (60, 90, 120, 150):
        pool.open(video, dataclasses.replace(OPTIONS, target_bitrate=q))
    streams = {}
    while len(pool):
        session_id, session = pool.next()
        q = session.options.target_bitrate
        if session.state == State.FRAME:
            session.step(Decision(q))
        else:
            streams[q] = session.log().stream
            pool.close_session(session_id)
    for q, stream in streams.items():
        options = dataclasses.replace(OPTIONS, target_bitrate=q)
        assert stream == encode(video, options, ConstantQ(q)).stream
    assert len(streams) == 4


def test_the_gil_is_released_while_the_encoder_works():
    large = make_video(640, 360, 3)
    options = EncoderOptions(target_bitrate=2000, cpu_used=1)
    first_pass_stats(large, options)
    ticks = []
    stop = threading.Event()

    def tick():
        while not stop.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    thread = threading.Thread(target=tick)
    thread.start()
    encode(large, options, ConstantQ(20))
    stop.set()
    thread.join()
    # No tick waits for a whole frame, of which each takes tens of milliseconds.
    assert np.median(np.diff(ticks)) < 0.02


def test_reconstruction_is_what_the_decoder_shows(video):
    with EncodeSession(video, OPTIONS, keep_reconstruction=True) as session:
        assert session.reconstruction is None
        shown = {}
        while session.frame is not None:
            session.step(Decision(100))
            last = session.records()[-1]
            if last["is_shown"]:
                planes = [plane.ravel() for plane in session.reconstruction]
                shown[int(last["show_index"])] = np.concatenate(planes)
        decoded = decode_vp9(session.log().stream, video.width, video.height)
    assert len(shown) > 10
    for index, frame in shown.items():
        assert np.array_equal(frame, decoded[index])


@pytest.mark.parametrize(("width", "height"), [(33, 17), (64, 49), (177, 145), (16, 16)])
def test_odd_sizes(width, height):
    clip = make_video(width, height, 8)
    log = encode(clip, OPTIONS, Recorder(60))
    decoded = decode_vp9(log.stream, width, height).astype(np.int64)
    difference = decoded - clip.frames
    shown = log.shown
    total = sum(int(shown[name].sum()) for name in ("sse_y", "sse_u", "sse_v"))
    assert total == int((difference**2).sum())


def test_two_frames_are_enough_and_frames_are_checked():
    two = make_video(32, 32, 2)
    assert encode(two, OPTIONS, ConstantQ(100)).records["show_index"].tolist() == [0, 1]
    with pytest.raises(InputError):
        video_from_frames(two.frames[:1], 32, 32, 30)


def test_the_source_frames_are_not_copied(carphone):
    """Eight sessions at once take far less than eight copies of the clip."""
    large = make_video(640, 360, 40)
    first_pass_stats(large, OPTIONS)
    before = psutil.Process().memory_info().rss
    sessions = [EncodeSession(large, OPTIONS) for _ in range(2)]
    grown = psutil.Process().memory_info().rss - before
    for session in sessions:
        session.close()
    lookahead = 2 * 26 * (640 + 320) * (360 + 320) * 3 // 2  # libvpx's own, with its borders
    assert grown < 2 * 60 * 2**20 + lookahead


# Policies


def test_replay_follows_its_log_or_says_so(carphone):
    log = encode(carphone, OPTIONS, LibvpxVbr(6))
    other = dataclasses.replace(log, options=dataclasses.replace(log.options, auto_alt_ref=1))
    with pytest.raises(PolicyError, match="the log's shows"):
        encode(carphone, OPTIONS, Replay(other))
    assert encode(carphone, OPTIONS, Replay(log)).stream == log.stream


def test_q_mode_is_searched_to_the_best_level_that_fits(carphone):
    log = encode(carphone, OPTIONS, LibvpxQ(6))
    assert log.overshoot <= 0
    assert log.encodes >= 6
    better = dataclasses.replace(log.options, cq_level=log.options.cq_level - 1)
    with EncodeSession(carphone, better, observe=True) as session:
        assert session.log().overshoot > 0


def test_q_mode_keeps_the_worst_level_where_none_fits(carphone):
    starved = dataclasses.replace(OPTIONS, target_bitrate=1)
    log = encode(carphone, starved, LibvpxQ(1))
    assert log.options.cq_level == 63
    assert log.overshoot > 0


def test_no_file_of_ours_is_left_open():
    names = {os.path.basename(f.path) for f in psutil.Process().open_files()}
    assert not {name for name in names if name.endswith((".bin", ".ivf", ".y4m"))}
