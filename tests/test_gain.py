"""Rewards against a reference: each against its definition by hand on logs with chosen figures."""

import dataclasses
import json
import math

import numpy as np
import pytest
from conftest import make_video

from vpxrc import EncodeLog, EncoderOptions, InputError, UpdateType, encode, make_policy
from vpxrc.encoder.types import RECORD_DTYPE
from vpxrc.envs import (
    FirstRows,
    GainReward,
    HistoricalOpponent,
    PsnrReward,
    SelfCompetition,
    StepReward,
)

VIDEO = make_video(num_frames=6)  # 64x48 at 30 frames per second: 0.2 s
KEY, LEAF, GOLDEN, ARF, OVERLAY = list(UpdateType)[:5]


def hand_made(psnr, bits, target=100, arf_bits=0, packets=None, video=VIDEO):
    """A log of six shown frames and, before the fourth, an ARF that shows the sixth."""
    rows = np.zeros(7, RECORD_DTYPE)
    shown = [0, 1, 2, 5, 3, 4, 5]
    rows["coding_index"] = range(7)
    rows["show_index"] = shown
    rows["is_shown"] = [1, 1, 1, 0, 1, 1, 1]
    rows["update_type"] = [KEY, LEAF, LEAF, ARF, LEAF, LEAF, OVERLAY]
    rows["group_index"] = [0, 0, 0, 1, 1, 1, 1]
    levels = np.broadcast_to(np.asarray(psnr, float), 6)
    rows["sse_y"] = np.round(255**2 * 64 * 48 / 10 ** (levels[shown] / 10))
    rows["bits"][rows["is_shown"] != 0] = bits
    rows["bits"][3] = arf_bits
    packets = [(bytes(int(rows["bits"].sum()) // 8 if packets is None else packets), 0)]
    return EncodeLog(
        clip=video.format,
        options=EncoderOptions(target_bitrate=target),
        records=rows,
        packets=packets,
        first_pass=np.zeros((6, 26)),
        encode_seconds=0.0,
        cpu_seconds=0.0,
    )


def curve():
    """A reward that knows of 36 dB at 16000 bits and 40 dB at 32000: 4 dB per doubling."""
    reward = GainReward()
    reward.reference(hand_made(36, 2000, target=80, arf_bits=4000))
    reward.reference(hand_made(40, 4000, target=160, arf_bits=8000))
    return reward


def test_the_figures_of_the_logs_are_those_chosen():
    log = hand_made(36, 2000, target=80, arf_bits=4000)
    assert log.psnr == pytest.approx(36, abs=1e-4)
    assert log.bits == 16000 and log.bitrate == 80 and log.overshoot == 0


@pytest.mark.parametrize(
    ("psnr", "bits", "target", "expected"),
    [
        (36, 2000, 80, 0.0),
        (40, 4000, 160, 0.0),
        (37, 2000, 80, 100 * (1 - 2**-0.25)),  # a quarter of a doubling
        (36, 1750, 80, 12.5),  # 14000 + 4000 / 2 = 14000 of 16000 bits
        (35, 2000, 80, 100 * (1 - 2**0.25)),
        (41, 3500, 160, 100 * (1 - 2**-0.25 * 7 / 8)),
        (36, 2000, 81, 0.0),  # the reference at the nearest target
    ],
)
def test_the_gain_is_bits_saved_at_equal_quality(psnr, bits, target, expected):
    log = hand_made(psnr, bits, target, arf_bits=2 * bits)
    assert curve()(log) == pytest.approx(expected, abs=0.01)  # squared errors are integers


def test_a_reference_above_the_target_costs_the_first_step_nothing():
    reward = curve()
    log = hand_made(36, 2000, target=64, arf_bits=4000)  # 16000 bits of 12800, as the reference
    worth = [reward.so_far(FirstRows(log, rows)) for rows in (0, 3, 7)]
    # The first three frames take 6000 bits. The other 10000 count as 13056 / 16000 of that.
    middle = -100 * ((6000 + 10000 * 13056 / 16000) / 12800 - 1.02)
    assert worth == pytest.approx([0.0, middle, -23.0], abs=1e-9)
    assert reward(log) == pytest.approx(worth[-1], abs=1e-9)


def test_a_slope_that_is_given_is_taken():
    reward = GainReward()
    reward.reference(hand_made(36, 2000, target=80, arf_bits=4000), slope=2.0)
    better = hand_made(37, 2000, target=80, arf_bits=4000)
    assert reward(better) == pytest.approx(100 * (1 - 2**-0.5), abs=1e-3)


def test_in_the_middle_of_a_curve_the_slope_is_its_neighbours():
    reward = curve()
    reward.reference(hand_made(39, 2800, target=120, arf_bits=7200))
    better = hand_made(40, 2800, target=120, arf_bits=7200)
    assert reward(better) == pytest.approx(100 * (1 - 2**-0.25), abs=1e-3)
    reward.reference(hand_made(35, 2000, target=80, arf_bits=4000))  # replaces the one of 36 dB
    assert reward(better) == pytest.approx(100 * (1 - 2**-0.2), abs=1e-3)


def test_above_the_tolerance_only_the_overshoot_counts():
    reward = curve()
    for psnr in (30, 60):
        log = hand_made(psnr, 2200, 80, arf_bits=4400)
        assert log.overshoot == pytest.approx(0.1)
        assert reward(log) == pytest.approx(-8.0)
        assert reward.per_step(log, [(0, 3), (3, 7)]).sum() == pytest.approx(-8.0)
    within = hand_made(36, 2036, 80, arf_bits=4080)
    assert within.overshoot == pytest.approx(0.0185)
    assert reward(within) == pytest.approx(-1.85, abs=1e-3)
    assert GainReward(0.2).tolerance == 0.2
    with pytest.raises(InputError, match="tolerance"):
        GainReward(-0.1)


def test_steps_share_the_gain_by_their_frames():
    reward = curve()
    levels = np.array([36.4, 36, 36, 36, 35.8, 36.2])
    log = hand_made(levels, [2000, 2000, 1900, 2100, 2000, 1984], 80, arf_bits=4100)
    steps = [(0, 3), (3, 5), (5, 7)]
    shares = reward.per_step(log, steps)
    assert shares.dtype == np.float32 and shares.shape == (3,)
    # Of the first step 0.4 dB of one frame in six, and 100 bits less of 16000; of the second the
    # ARF's 100 bits more and a leaf's.
    first = 100 * (math.log(2) * 0.4 / 6 / 4 + 100 / 16000)
    second = 100 * -200 / 16000
    assert shares[:2] == pytest.approx([first, second], abs=1e-2)
    assert float(shares.sum()) == pytest.approx(reward(log), abs=1e-4)
    # While it is coded, the rest counts as the reference's: 100 bits less, then 100 more.
    for rows, better, bits in ((3, 0.4, 15900), (5, 0.4, 16100)):
        worth = reward.so_far(FirstRows(log, rows))
        saved = better / 6 / 4 - math.log2(bits / 16000)
        assert worth == pytest.approx(100 * (1 - 2**-saved), abs=1e-3)
    assert reward.so_far(FirstRows(log, 0)) == 0
    # The last step is left with what a linear account cannot say: little, where gains are small.
    # Its own frames are 0.2 dB worse and 0.2 dB better, and save 16 bits.
    assert shares[2] == pytest.approx(100 * 16 / 16000, abs=0.1)
    assert reward.per_step(log, [(0, 7)]) == pytest.approx([reward(log)], abs=1e-4)


def test_frames_that_the_reference_does_not_have_are_compared_with_its_groups():
    """libvpx sizes groups by the q of the frames before: here the second begins a frame earlier."""
    reward = curve()  # its first group has 3 x 2000 bits, the second 4000 + 3 x 2000
    log = hand_made(36, 2000, 80)
    rows = np.delete(log.records, 3)
    rows["update_type"] = [KEY, LEAF, GOLDEN, LEAF, LEAF, LEAF]
    rows["group_index"] = [0, 0, 1, 1, 1, 1]
    rows["bits"] = [2000, 1900, 6000, 1000, 2000, 3000]
    log = dataclasses.replace(log, records=rows, packets=[(bytes(15900 // 8), 0)])
    shares = reward.per_step(log, [(0, 2), (2, 6)])
    assert shares[0] == pytest.approx(100 * 100 / 16000, abs=1e-3)
    assert reward.so_far(FirstRows(log, 2)) == pytest.approx(0.625, abs=1e-3)
    # Of the second group 9000 bits are spent, and of its three frames' 10000 two thirds are due.
    there = 15900 - 3000 + 10000 / 3
    worth = reward.so_far(FirstRows(log, 5))
    assert worth == pytest.approx(100 * (1 - there / 16000), abs=1e-3)
    assert float(shares.sum()) == pytest.approx(reward(log), abs=1e-5)
    # Of single frames in that group, each is worth its bits' part of it; here that is nothing.
    single = reward.per_step(log, [(n, n + 1) for n in range(6)])
    assert single[:2] == pytest.approx([0, 0.625], abs=1e-3)
    assert single[2:5] == pytest.approx(0, abs=1e-3)
    assert float(single.sum()) == pytest.approx(reward(log), abs=1e-5)


def test_no_frame_is_above_100_db():
    reward = GainReward()
    reward.reference(hand_made(36, 2000, target=80, arf_bits=4000), slope=4.0)
    log = hand_made([200, 36, 36, 36, 36, 36], 2000, 80, arf_bits=4000)
    assert log.psnr == pytest.approx((100 + 5 * 36) / 6, abs=1e-3)
    worth = reward.so_far(FirstRows(log, 1))
    assert worth == pytest.approx(100 * (1 - 2 ** -(64 / 6 / 4)), abs=1e-2)


def test_an_encode_that_is_the_reference_is_worth_nothing():
    video = make_video(num_frames=20)
    options = EncoderOptions(target_bitrate=80, cpu_used=8, auto_alt_ref=6)
    reward = GainReward(tolerance=0.5)
    for target in (60, 80):
        logged = encode(
            video, EncoderOptions(target_bitrate=target, cpu_used=8), make_policy("dependency")
        )
        reward.reference(logged)
        assert len(logged.records) > video.num_frames  # it has ARFs
    log = encode(video, options, make_policy("dependency"))
    assert log.overshoot < 0.5
    assert reward(log) == 0
    steps = [(n, n + 1) for n in range(len(log.records))]
    assert not reward.per_step(log, steps).any()
    other = encode(video, options, make_policy("constant-q:220"))
    assert other.overshoot < 0.5
    assert reward(other) < -1
    shares = reward.per_step(other, steps[: len(other.records)])
    assert float(shares.sum()) == pytest.approx(reward(other), abs=1e-3)


def test_without_a_reference_or_a_slope_there_is_no_gain():
    log = hand_made(36, 2000, 80)
    reward = GainReward()
    with pytest.raises(InputError, match="made: no reference"):
        reward(log)
    reward.reference(log)
    with pytest.raises(InputError, match="1 reference encodes give no slope at 80"):
        reward(log)
    reward.reference(hand_made(35, 4000, 160))  # worse with more bits
    with pytest.raises(InputError, match="2 reference encodes give no slope"):
        reward.per_step(log, [(0, 7)])
    for slope in (0.0, 0.05, -1.0, math.inf):
        with pytest.raises(InputError, match="slope must be"):
            reward.reference(log, slope=slope)
    other = make_video(num_frames=6, seed=1, name="other")
    with pytest.raises(InputError, match="other: no reference"):
        reward(hand_made(36, 2000, 80, video=other))


def test_references_survive_json():
    reward, other = curve(), GainReward()
    reward.reference(hand_made(38, 3000, target=120, arf_bits=5000), slope=3.5)
    state = json.loads(json.dumps(reward.state_dict()))
    other.load_state_dict(state)
    assert other.state_dict() == reward.state_dict()
    steps = [(0, 3), (3, 7)]
    for target in (80, 120, 160):
        log = hand_made([36.5, 37, 36, 36, 36, 36], 1900, target, arf_bits=3900)
        assert other(log) == reward(log)
        assert np.array_equal(other.per_step(log, steps), reward.per_step(log, steps))


def test_which_rewards_are_paid_by_step():
    assert isinstance(GainReward(), StepReward)
    for reward in (PsnrReward(), SelfCompetition(), HistoricalOpponent()):
        assert not isinstance(reward, StepReward)


# The historical opponent


def test_the_opponent_is_beaten_by_quality_or_by_less_overshoot():
    reward = HistoricalOpponent()
    assert reward(hand_made(36, 2000, 80)) == 0  # nobody to compete with
    reward.record(hand_made(36, 2000, 80))  # 12000 bits: overshoot -0.25
    assert reward(hand_made(36, 2000, 80)) == 0
    assert reward(hand_made(36.1, 2600, 80)) == 1
    assert reward(hand_made(35.9, 1000, 80)) == -1
    assert reward(hand_made(60, 2800, 80)) == -1  # 16800 bits are too many
    assert reward(hand_made(60, 2000, 79)) == 0  # another pair
    ((key, (quality, overshoot)),) = reward.table.items()
    assert (key, overshoot) == ((VIDEO.content_hash, 80), -0.25)
    assert quality == pytest.approx(36, abs=1e-3)
    reward.record(hand_made(60, 2800, 80))  # the opponent overshoots: 0.05
    assert reward(hand_made(10, 2700, 80)) == 1
    assert reward(hand_made(70, 2900, 80)) == -1
    assert reward(hand_made(70, 2800, 80)) == 0


def test_the_opponents_bits_have_a_price():
    reward = HistoricalOpponent(overshoot_price=0.005)
    reward.record(hand_made(36, 2000, 80))  # 60 kbit/s of 80: quality 36.1
    assert reward(hand_made(36, 1600, 80)) == 1  # 48 kbit/s: 36.16
    assert reward(hand_made(36.02, 2400, 80)) == -1  # 72 kbit/s: 36.06
    with pytest.raises(InputError, match="overshoot_price"):
        HistoricalOpponent(-1)


def test_the_opponents_records_survive_json():
    reward, other = HistoricalOpponent(), HistoricalOpponent()
    reward.record(hand_made(36, 2000, 80))
    other.load_state_dict(json.loads(json.dumps(reward.state_dict())))
    assert other.table == reward.table != {}
    assert other(hand_made(37, 2000, 80)) == 1
