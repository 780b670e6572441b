"""The policy ``constant-quality``: libvpx's steps, the probe, the rate model and the encodes."""

import dataclasses

import numpy as np
import pytest
from conftest import make_video

from vpxrc import Decision, EncoderOptions, Policy, encode, make_policy, video_from_frames
from vpxrc.datasets import load_clips
from vpxrc.encoder.quantizer import LOG2_STEP
from vpxrc.encoder.types import UpdateType
from vpxrc.errors import InputError
from vpxrc.media.frames import frame_bytes, split_planes
from vpxrc.policies.base import Episode
from vpxrc.policies.constant_quality import PARAMETERS, constant_quality
from vpxrc.policies.libvpx import LibvpxVbr
from vpxrc.policies.libvpx_steps import libvpx_steps
from vpxrc.policies.probe import KEY_STEP, LEVEL_LOG2_STEP, Probe, probe, small_picture
from vpxrc.policies.rate_model import RateModel, RateParameters


def sample(name, num_frames=None):
    (clip,) = (clip for clip in load_clips("samples") if clip.name == name)
    return dataclasses.replace(clip, num_frames=num_frames).open()


class LeftToLibvpx(Policy):
    def __init__(self, layers):
        self.layers = layers

    def options(self, options):
        return dataclasses.replace(options, auto_alt_ref=self.layers)

    def decide(self, frame):
        return Decision(-1)


@pytest.mark.parametrize("layers", [1, 6])
@pytest.mark.parametrize("cpu_used", [1, 2, 4])
def test_what_is_left_to_libvpx_is_libvpxs_own_stream(layers, cpu_used):
    """Recode loop included, which codes frames several times at the slower speeds."""
    carphone = sample("carphone", 60)
    options = EncoderOptions(target_bitrate=60, cpu_used=cpu_used)
    own = encode(carphone, options, LibvpxVbr(layers))
    left = encode(carphone, options, LeftToLibvpx(layers))
    assert left.stream == own.stream
    if cpu_used <= 2:
        coded = left.coded
        assert (coded["q_index"] != coded["libvpx_q_index"]).any(), "nothing was coded again"


class Steps(Policy):
    """Leaves all frames to constant-quality mode, and notes its steps and the formula's."""

    def begin(self, episode):
        self.episode, self.found, self.arf_step = episode, [], None

    def decide(self, frame):
        group, options = self.episode.group, self.episode.options
        base = LEVEL_LOG2_STEP[options.cq_level]
        position = np.array([frame.group_position])
        pixels = self.episode.video.width * self.episode.video.height
        (step,) = libvpx_steps(group, position, float(base), pixels, self.arf_step)
        own = base - LOG2_STEP[frame.libvpx_q_index]
        if frame.update_type == UpdateType.ARF and frame.layer_depth == 1:
            self.arf_step = float(LOG2_STEP[frame.libvpx_q_index])
        self.found.append((frame.update_type, own, step))
        return Decision(-1)


@pytest.mark.parametrize("name", ["carphone", "bikes", "bigbuckbunny"])
def test_the_steps_are_those_of_libvpxs_constant_quality_mode(name):
    clip = sample(name)
    options = EncoderOptions(
        rate_control="q", cq_level=40, auto_alt_ref=6, cpu_used=5, key_frame_max_distance=64
    )
    policy = Steps()
    encode(clip, options, policy)
    kinds, own, formula = (np.array(column) for column in zip(*policy.found, strict=True))
    assert (kinds == UpdateType.KEY).sum() >= 2 and (kinds == UpdateType.ARF).sum() > 10
    # libvpx rounds to q indices in between, and mixes indices, not logarithms of steps.
    assert np.abs(own - formula).max() < 0.15
    assert formula.max() > 1.0


def test_small_pictures_are_means_of_squares():
    clip = make_video(width=150, height=90, num_frames=3)
    small = small_picture(clip)
    assert (small.width, small.height, small.fps, small.num_frames) == (74, 44, clip.fps, 3)
    for index in range(3):
        for ours, source in zip(small.planes(index), clip.planes(index), strict=True):
            rows, columns = ours.shape
            blocks = source[: 2 * rows, : 2 * columns].reshape(rows, 2, columns, 2)
            assert np.abs(ours - blocks.mean(axis=(1, 3))).max() <= 0.5


@pytest.mark.parametrize(
    ("width", "height", "small"),
    [(63, 48, (63, 48)), (64, 64, (32, 32)), (640, 360, (320, 180)), (1280, 720, (320, 180))],
)
def test_the_size_of_the_small_picture(width, height, small):
    frames = np.full((2, frame_bytes(width, height)), 90, dtype=np.uint8)
    found = small_picture(video_from_frames(frames, width, height, 30))
    assert (found.width, found.height) == small


def test_a_probe_has_the_bits_of_an_encode_of_the_small_picture():
    clip = sample("bikes", 40)
    options = EncoderOptions(target_bitrate=100, cpu_used=2)
    found = probe(clip, small_picture(clip), options, 9.0)
    level = int(np.abs(LEVEL_LOG2_STEP - 9.0).argmin())
    constant = EncoderOptions(rate_control="q", cq_level=level, tpl=False, cpu_used=5)
    with constant.open(small_picture(clip), observe=True) as session:
        log = session.log()
    assert found.base == LEVEL_LOG2_STEP[level]
    records = log.records
    assert found.other_bits.sum() == records["bits"][records["is_key"] == 0].sum()
    assert len(found.error) == clip.num_frames


def test_a_probe_has_the_bits_of_key_frames_at_full_size():
    clip = sample("bikes", 40)
    options = EncoderOptions(target_bitrate=100, cpu_used=2)
    found = probe(clip, small_picture(clip), options, 9.0)
    # A clip's first frame does not depend on those that follow, but for libvpx's choice of q.
    step = found.base - KEY_STEP
    q_index = int(np.abs(LOG2_STEP - step).argmin())
    with options.open(clip) as session:
        session.step(Decision(q_index))
        (first,) = session.records()[:1]
    assert np.flatnonzero(found.key_bits).tolist() == [0, 30]  # a cut
    assert found.key_bits[0] == pytest.approx(first["bits"], rel=0.1)


def flat_probe(num_frames, key=1000.0, other=100.0):
    keys = np.zeros(num_frames)
    keys[0] = key
    others = np.full(num_frames, other)
    others[0] = 0.0
    return Probe(9.0, keys, others, np.full(num_frames, 4.0), 12 * 16, np.ones((num_frames, 26)))


def test_the_rate_model_solves_for_the_target():
    """By hand: the ratios are 1 and 2, and bits halve when the step doubles."""
    clip = make_video(width=32, height=24, num_frames=100)
    bits = 1000 + 2 * 99 * 100
    options = EncoderOptions(target_bitrate=1)
    constants = RateParameters(
        slope=1.0,
        other=(1.0, *[0.0] * 9),
        key_growth=0.0,
        tail=1.0,
        margin=0.0,
    )
    with options.open(clip) as session:
        model = RateModel(constants, Episode(session), flat_probe(100))
    assert model.start() == pytest.approx(9.0 + np.log2(bits / model.target))


def test_a_later_key_frame_is_foreseen_by_its_own_step():
    """By hand: 100 frames, key frames of 1000 bits at 0 and 80, no other bits."""
    clip = make_video(width=32, height=24, num_frames=100)
    keys = np.zeros(100)
    keys[[0, 80]] = 1000.0
    seen = Probe(9.0, keys, np.zeros(100), np.full(100, 4.0), 12 * 16, np.ones((100, 26)))
    constants = RateParameters(slope=1.0, key_growth=0.5, margin=0.0, slack=0.0)

    def base_of(bits):
        return pytest.approx(9.0 + np.log2(bits / model.target))

    with EncoderOptions(target_bitrate=1).open(clip) as session:
        model = RateModel(constants, Episode(session), seen)
        growth = np.sqrt(np.array([80, 20]) / 128)  # by the frames that follow
        assert model.wanted(9.0) == base_of(1000 * growth.sum())
        # Known to be coded a log2 step coarser, the first one takes half; the second one follows
        # it, and takes less still by its fewer followers.
        model.expect_key(KEY_STEP - 1.0, 0)
        assert model.wanted(9.0) == base_of(500 * (1 + growth[1] / growth[0]))
        model.open(0, 79, np.ones(80), np.arange(80) == 0)
        # Once the second one's own step is known, the number of its followers says nothing more.
        model.expect_key(KEY_STEP, 80)
        assert model.wanted(9.0) == base_of(500 + 1000)


@pytest.mark.parametrize("name", ["carphone", "bikes", "bigbuckbunny"])
def test_one_encode_meets_the_target_at_a_steady_base(name):
    clip = sample(name)
    target = round(0.06 * clip.width * clip.height * float(clip.fps) / 1000)
    log = encode(
        clip, EncoderOptions(target_bitrate=target, cpu_used=4), make_policy("constant-quality")
    )
    assert log.encodes == 1
    assert abs(log.overshoot) < 0.06
    coded = log.coded
    leaves = LOG2_STEP[coded["q_index"][coded["update_type"] == UpdateType.LEAF]]
    assert leaves.std() < 0.5


def still(width, height, num_frames):
    picture = np.random.default_rng(1).integers(0, 256, frame_bytes(width, height), dtype=np.uint8)
    for plane in split_planes(picture, width, height):
        plane[:] = np.cumsum(plane % 3, axis=1) % 200
    return video_from_frames(np.tile(picture, (num_frames, 1)), width, height, 25, name="still")


@pytest.mark.parametrize(
    ("clip", "target"),
    [
        (still(96, 64, 60), 20),
        (make_video(num_frames=2), 100),
        (make_video(width=16, height=16, num_frames=20), 5),
        (make_video(num_frames=40), 1),
        (make_video(num_frames=40), 20_000),
    ],
    ids=["still", "two frames", "tiny", "starved", "near lossless"],
)
@pytest.mark.parametrize("tune", PARAMETERS)
def test_odd_clips_are_coded_whole(clip, target, tune):
    policy = constant_quality(tune)
    options = EncoderOptions(target_bitrate=target, cpu_used=4)
    log = encode(clip, options, policy)
    assert log.shown["show_index"].tolist() == list(range(clip.num_frames))
    assert encode(clip, options, policy).stream == log.stream


def test_a_still_spends_its_bits_on_the_key_frame():
    clip = still(160, 96, 100)
    options = EncoderOptions(target_bitrate=40, cpu_used=4)
    log = encode(clip, options, make_policy("constant-quality"))
    own = encode(clip, options, make_policy("libvpx-vbr-mlarf"))
    assert log.overshoot < 0.05
    assert log.psnr > own.psnr - 0.5


@pytest.mark.parametrize("target", [1, 20_000], ids=["starved", "nearly lossless"])
def test_unusual_clips_are_left_to_libvpx(video, target):
    """Never worse: the stream is libvpx's own where the policy does not know the kind of clip."""
    options = EncoderOptions(target_bitrate=target, cpu_used=2)
    policy = constant_quality()
    log = encode(video, options, policy)
    assert policy.is_left
    assert log.stream == encode(video, options, make_policy("libvpx-vbr-mlarf")).stream


def test_usual_clips_are_not_left():
    policy = constant_quality()
    encode(sample("carphone", 60), EncoderOptions(target_bitrate=60, cpu_used=2), policy)
    assert not policy.is_left


def test_a_tuning_is_named():
    with pytest.raises(InputError, match="balanced, psnr, ssim, vmaf, not 'film'"):
        make_policy("constant-quality:film")


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("film=1", "has no 'film'"),
        ("dependency=2", r"dependency must be in 0\.\.1"),
        ("dependency=x", r"dependency must be in 0\.\.1"),
        ("probes=1.5", r"probes must be in 1\.\.4"),
        ("moves=nan", r"moves must be in 0\.\.1"),
    ],
)
def test_a_parameter_out_of_range_is_refused(spec, message):
    with pytest.raises(InputError, match=message):
        make_policy(f"constant-quality:{spec}")


def test_a_base_that_does_not_move_stays_as_the_probe_foresaw_it():
    clip = sample("carphone", 40)
    policy = make_policy("constant-quality:moves=0,dependency=0")
    log = encode(clip, EncoderOptions(target_bitrate=60), policy)
    leaves = log.records[log.records["update_type"] == UpdateType.LEAF]
    assert np.ptp(LOG2_STEP[leaves["q_index"]]) < 0.45  # groups that cost more are coded coarser
    moving = encode(clip, EncoderOptions(target_bitrate=60), make_policy("constant-quality"))
    assert moving.stream != log.stream


def test_a_clip_is_not_left_to_libvpx_where_that_is_switched_off():
    flat = make_video(width=32, height=32, num_frames=20)
    options = EncoderOptions(target_bitrate=2000)
    asked, libvpx = (
        encode(flat, options, make_policy(spec))
        for spec in ("constant-quality:falls_back=0", "libvpx-vbr-mlarf")
    )
    usual = encode(flat, options, make_policy("constant-quality"))
    assert usual.stream == libvpx.stream
    assert asked.stream != libvpx.stream
