"""The temporal dependency model: against a second implementation, known answers and libvpx."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from dependency_reference import reference

from vpxrc import (
    Decision,
    EncoderOptions,
    EncodeSession,
    InputError,
    UpdateType,
    Video,
    video_from_frames,
)
from vpxrc._native import ac_quantizer
from vpxrc.datasets import load_clips
from vpxrc.dependency import Dependency, analyse
from vpxrc.media.frames import frame_bytes

VERSIONS = ("source", "reconstructed")
INTEGERS = (
    "intra_cost",
    "inter_cost",
    "reference",
    "mv",
    "source_rate",
    "source_distortion",
    "rate",
    "distortion",
)
FLOATS = ("dep_rate", "dep_distortion", "importance", "frame_importance")
CPU_FLAGS = {"sse4.1": "sse4_1", "avx2": "avx2"}
NONE = [-1, -1, -1]
# An ARF in three layers: frames 0, 4, 2, 1, 3 of a clip.
PYRAMID_ORDER = [0, 4, 2, 1, 3]
PYRAMID = [NONE, [0, 0, 0], [0, -1, 1], [0, 1, 2], [3, 2, 1]]


def chain(num_frames):
    """Every frame from the one before it."""
    return [NONE, *([n, -1, -1] for n in range(num_frames - 1))]


def video_of(luma, name="made"):
    luma = np.asarray(luma, np.uint8)
    num_frames, height, width = luma.shape
    frames = np.full((num_frames, frame_bytes(width, height)), 128, np.uint8)
    frames[:, : height * width] = luma.reshape(num_frames, -1)
    return video_from_frames(frames, width, height, 30, name=name)


def analyse_luma(luma, references, q_index=100, **arguments):
    q_index = np.broadcast_to(q_index, len(luma)).tolist()
    return analyse(video_of(luma), list(range(len(luma))), references, q_index, **arguments)


def assert_same(ours, theirs, rtol=0.0):
    for name in INTEGERS:
        np.testing.assert_array_equal(getattr(ours, name), theirs[name], err_msg=name)
    for name in FLOATS:
        atol = 1e-9 if rtol else 0.0  # a rate that is nothing but rounding
        np.testing.assert_allclose(
            getattr(ours, name), theirs[name], rtol=rtol, atol=atol, err_msg=name
        )


# Pictures


def noise(num_frames, height, width, seed=0, values=256):
    return np.random.default_rng(seed).integers(0, values, (num_frames, height, width), np.uint8)


def smooth(rows, columns):
    """A texture that is known between the samples too, coarse enough for a search by steps."""
    return (
        128
        + 60 * np.sin(rows / 19 + columns / 23)
        + 40 * np.cos(columns / 17 - rows / 29)
        + 12 * np.sin(rows / 3.1) * np.cos(columns / 2.7)
    )


def moving(num_frames, height, width, motion):
    """The smooth texture; a frame shows at (y, x) what the one before has at (y, x) + motion."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack(
        [
            np.rint(smooth(rows + n * motion[0], columns + n * motion[1])).astype(np.uint8)
            for n in range(num_frames)
        ]
    )


def saturated(num_frames, height, width):
    """Only black and white, every 8x8 square its own pattern of noise, stripes and flat areas."""
    luma = np.where(noise(num_frames, height, width, seed=5) > 127, 255, 0)
    rows, columns = np.mgrid[:height, :width]
    kind = (rows // 8 + 2 * (columns // 8)) % 4
    stripes = np.where((rows + columns + np.arange(num_frames)[:, None, None]) % 2, 255, 0)
    flat = np.where(np.arange(num_frames) % 2, 255, 0)[:, None, None]
    return np.where(kind == 0, luma, np.where(kind < 3, stripes, flat)).astype(np.uint8)


def periodic(num_frames, height, width):
    """Stripes and steps: many vectors and modes cost the same, and the first must be taken."""
    rows, columns = np.mgrid[:height, :width]
    frames = [
        80 + 60 * ((columns + 2 * n) // 4 % 2) + 40 * (rows // 8 % 2) for n in range(num_frames)
    ]
    return np.stack(frames).astype(np.uint8)


def crop(name, height=64, width=96, y=40, x=40, start=0, every=1, num_frames=5):
    (clip,) = (clip for clip in load_clips("samples") if clip.name == name)
    video = clip.open()
    frames = [video.planes(start + every * n)[0] for n in range(num_frames)]
    return np.stack([frame[y : y + height, x : x + width] for frame in frames])


PICTURES = {
    "noise": lambda: noise(4, 48, 64),
    "faint noise": lambda: noise(4, 33, 50, seed=1, values=6),
    "smallest": lambda: noise(3, 16, 16, seed=2),
    "one row of blocks": lambda: moving(3, 16, 100, (0, 2)),
    "one column of blocks": lambda: moving(3, 90, 17, (3, 0)),
    "moving": lambda: moving(4, 50, 70, (2, -3)),
    "moving far": lambda: moving(3, 81, 113, (-11, 17)),
    "moving between samples": lambda: moving(4, 50, 70, (-0.75, 1.5)),
    "saturated": lambda: saturated(4, 41, 57),
    "periodic": lambda: periodic(3, 48, 80),
    "flat": lambda: np.full((3, 20, 40), 255, np.uint8),
    "carphone": lambda: crop("carphone", num_frames=4),
    "bikes": lambda: crop("bikes", every=2, num_frames=4, height=63, width=90),
}


# The second implementation


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("picture", PICTURES)
def test_equals_the_reference(picture, version):
    luma = PICTURES[picture]()
    q_index = [60, 90, 120, 150][: len(luma)]
    ours = analyse_luma(luma, chain(len(luma)), q_index, version=version)
    assert_same(ours, reference(luma, chain(len(luma)), q_index, version), rtol=1e-9)


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("name", ["carphone", "bikes", "bigbuckbunny"])
def test_equals_the_reference_over_a_pyramid_with_weights(name, version):
    luma = crop(name, start=10, every=3, height=70, width=100)
    video, q_index, weights = video_of(luma), [70, 80, 100, 130, 131], [0.5, 1.0, 3.0, 1.0, 7.25]
    ours = analyse(
        video,
        PYRAMID_ORDER,
        PYRAMID,
        q_index,
        version=version,
        weights=weights,
        lambda_q_index=110,
    )
    theirs = reference(luma[PYRAMID_ORDER], PYRAMID, q_index, version, weights, lambda_q_index=110)
    assert_same(ours, theirs, rtol=1e-9)
    used = np.unique(ours.reference)
    assert len(used) >= 4  # what is compared has several references


@pytest.mark.parametrize("q_index", [1, 30, 100, 200, 255])
@pytest.mark.parametrize("picture", ["saturated", "bikes"])
def test_equals_the_reference_at_every_quantizer(picture, q_index):
    luma = PICTURES[picture]()[:3]
    ours = analyse_luma(luma, chain(3), q_index)
    assert_same(ours, reference(luma, chain(3), [q_index] * 3), rtol=1e-9)


def test_a_frame_may_be_coded_twice_and_a_reference_named_twice():
    luma = crop("carphone", num_frames=3)
    order, references = [2, 0, 0, 1], [NONE, [0, 0, 0], [1, 1, 0], [1, -1, 1]]
    ours = analyse(video_of(luma), order, references, [90] * 4)
    assert_same(ours, reference(luma[order], references, [90] * 4), rtol=1e-9)
    assert (ours.reference[2] == 1).all()
    assert not ours.mv[2].any()


# Levels of the processor


def test_every_level_gives_the_same_numbers():
    flags = next(
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")
    ).split()
    levels = [level for level, flag in CPU_FLAGS.items() if flag in flags]
    for picture in PICTURES.values():
        luma = picture()
        for version in VERSIONS:
            q_index = [30, 1, 255, 140][: len(luma)]
            arguments = (luma, chain(len(luma)), q_index)
            scalar = analyse_luma(*arguments, version=version, level="scalar")
            for level in [*levels, "best"]:
                ours = analyse_luma(*arguments, version=version, level=level)
                assert_same(ours, {name: getattr(scalar, name) for name in INTEGERS + FLOATS})
    for level in CPU_FLAGS.keys() - set(levels):
        with pytest.raises(InputError, match=level):
            analyse_luma(luma, chain(len(luma)), level=level)


# Known answers


@pytest.mark.parametrize("num_frames", [2, 4, 7])
def test_a_still_clip_is_worth_its_frames(num_frames):
    luma = np.repeat(noise(1, 48, 64), num_frames, axis=0)
    for version in VERSIONS:
        d = analyse_luma(luma, chain(num_frames), version=version)
        assert (d.reference[1:] == np.arange(num_frames - 1)[:, None, None]).all()
        assert not d.mv.any()
        frames_left = num_frames - np.arange(num_frames)
        assert d.frame_importance == pytest.approx(frames_left, rel=0.04)
        assert d.importance == pytest.approx(
            np.broadcast_to(frames_left[:, None, None], d.importance.shape), rel=0.08
        )
        assert (d.importance[-1] == 1).all()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_recursion_by_hand_where_nothing_moves(version):
    weights = [2.0, 3.0, 0.25, 5.0]
    luma = noise(1, 48, 64, values=200) + noise(4, 48, 64, seed=1, values=12)
    d = analyse_luma(
        luma, chain(4), [40, 60, 80, 100], version=version, weights=weights, lambda_q_index=70
    )
    assert not d.mv.any()
    assert (d.reference[1:] >= 0).all()
    distortion, rate = np.zeros((4, 3, 4)), np.zeros((4, 3, 4))
    for n in (3, 2, 1):
        if version == "source":
            kept = 1 - d.inter_cost[n] / d.intra_cost[n]
            distortion[n - 1] = kept * (weights[n] * d.intra_cost[n] + distortion[n])
            continue
        beta = d.source_distortion[n] / d.distortion[n]
        more_distortion = d.distortion[n] - d.source_distortion[n]
        distortion[n - 1] = weights[n] * more_distortion + (1 - beta) * distortion[n]
        rate[n - 1] = weights[n] * (d.rate[n] - d.source_rate[n])
        rate[n - 1] -= 128 * np.log2(beta + (1 - beta) * 4 ** (-rate[n] / 256))
    step = ac_quantizer(70)
    cost = distortion + 4.3 * step**2 / 2048 * rate
    own = d.intra_cost if version == "source" else d.distortion
    assert d.dep_distortion == pytest.approx(distortion, rel=1e-9)
    assert d.dep_rate == pytest.approx(rate, rel=1e-9, abs=1e-9)
    assert d.importance == pytest.approx(1 + cost / own, rel=1e-9)
    assert d.frame_importance == pytest.approx(
        1 + cost.sum(axis=(1, 2)) / own.sum(axis=(1, 2)), rel=1e-9
    )
    assert (d.importance[:3] > 1).all()


@pytest.mark.parametrize("version", VERSIONS)
def test_independent_noise_depends_on_nothing(version):
    d = analyse_luma(noise(5, 64, 80, seed=3), PYRAMID, version=version)
    assert d.importance == pytest.approx(np.ones((5, 4, 5)), rel=0.01)
    assert d.frame_importance == pytest.approx(np.ones(5), rel=0.01)


@pytest.mark.parametrize("version", VERSIONS)
def test_nothing_crosses_a_scene_cut(version):
    first, second = noise(2, 48, 64, seed=4)
    d = analyse_luma([first] * 3 + [second] * 3, chain(6), version=version)
    assert d.frame_importance == pytest.approx([3, 2, 1, 3, 2, 1], rel=0.03)
    assert (d.reference[3] == -1).all()
    assert (d.importance[2] == 1).all()


@pytest.mark.parametrize("motion", [(2, 3), (-5, 4), (0, -7), (0.25, 3), (-3.75, 1), (3.25, -6)])
def test_a_translation_is_found(motion):
    d = analyse_luma(moving(3, 96, 112, motion), chain(3), 40, version="source")
    interior = d.mv[1:, 1:-1, 1:-1]
    assert (d.reference[1:, 1:-1, 1:-1] >= 0).all()
    assert (interior == 4 * np.array(motion)).all()


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("motion", [(0, 16), (0, -16), (16, 0), (-16, 0)])
def test_what_leaves_the_picture_is_worth_less(motion, version):
    """One row or column of blocks leaves per frame: k blocks from that side, it stays k frames."""
    num_frames, rows, cols = 4, 5, 6
    world = noise(1, 16 * (rows + 8), 16 * (cols + 8), seed=6)[0]
    starts = [(64 + n * motion[0], 64 + n * motion[1]) for n in range(num_frames)]
    luma = [world[y : y + 16 * rows, x : x + 16 * cols] for y, x in starts]
    d = analyse_luma(luma, chain(num_frames), version=version)
    axis = 0 if motion[0] else 1
    distance = np.moveaxis(np.indices((rows, cols)), 0, -1)[..., axis]
    if sum(motion) < 0:
        distance = distance[::-1, ::-1]
    expected = 1 + np.minimum(distance, num_frames - 1)
    assert (d.mv[1:][d.reference[1:] >= 0] == 4 * np.array(motion)).all()
    assert d.importance[0] == pytest.approx(expected, rel=0.05)


# What it is for


@pytest.fixture(scope="module", params=VERSIONS)
def analysed(request):
    luma = moving(5, 100, 150, (2, -3)) + noise(5, 100, 150, values=6)
    order = luma[PYRAMID_ORDER]
    return analyse_luma(order, PYRAMID, [60, 70, 80, 90, 100], version=request.param)


def test_what_a_result_holds(analysed):
    assert isinstance(analysed, Dependency)
    assert analysed.version in VERSIONS
    assert list(analysed.show_index) == [0, 1, 2, 3, 4]
    assert list(analysed.q_index) == [60, 70, 80, 90, 100]
    assert np.asarray(analysed.references).tolist() == PYRAMID
    for name in INTEGERS + FLOATS:
        values = getattr(analysed, name)
        shape = {"mv": (5, 7, 10, 2), "frame_importance": (5,)}.get(name, (5, 7, 10))
        assert values.shape == shape
        assert values.dtype.kind == ("i" if name in INTEGERS else "f")
    assert (analysed.importance >= 1).all()
    assert analysed.frame_importance[0] > 1.1


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0, 1.7])
def test_q_offset(analysed, strength):
    expected = [-0.5 * strength * np.log2(value) for value in analysed.frame_importance]
    offset = analysed.q_offset(strength)
    assert offset.dtype == np.float64
    assert offset == pytest.approx(expected, rel=1e-12, abs=1e-15)
    assert (analysed.q_offset() == analysed.q_offset(1.0)).all()


@pytest.mark.parametrize("strength", [0.0, 0.3, 1.0, 4.0])
@pytest.mark.parametrize("position", [0, 1, 4])
def test_superblock_scale(analysed, position, strength):
    own = analysed.intra_cost if analysed.version == "source" else analysed.distortion
    own, total = own[position], (own * analysed.importance)[position]
    expected = np.zeros((2, 3))
    for i, j in np.ndindex(2, 3):
        at = slice(4 * i, 4 * i + 4), slice(4 * j, 4 * j + 4)
        rk, r0 = own[at].sum() / total[at].sum(), own.sum() / total.sum()
        expected[i, j] = min(1.5, max(0.5, (rk / r0) ** strength))
    scale = analysed.superblock_scale(position, strength)
    assert scale.dtype == np.float32
    assert scale.shape == (2, 3)
    assert scale == pytest.approx(expected, rel=1e-6)
    assert (analysed.superblock_scale(position) == analysed.superblock_scale(position, 1.0)).all()


# libvpx's own model


def ranks(values):
    """Ranks from 1, the mean one for equals."""
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(counts) - (counts - 1) / 2)[inverse]


def spearman(a, b):
    return float(np.corrcoef(ranks(np.ravel(a)), ranks(np.ravel(b)))[0, 1])


def libvpx_groups(video, layers):
    """Yield the golden-frame groups of an encode and their TPL statistics.

    The quantizer is fine, because libvpx searches the reconstruction of position 0, we its source.
    """
    options = EncoderOptions(target_bitrate=100, cpu_used=4, auto_alt_ref=layers)
    seen = set()
    with EncodeSession(video, options) as session:
        while (frame := session.frame) is not None:
            if frame.has_tpl and session.group.index not in seen:
                seen.add(session.group.index)
                yield session.group, session.tpl
            session.step(Decision(10))


def pooled(values):
    """Sums of 2x2 blocks, ``[n, rows, cols] -> [n, ceil(rows / 2), ceil(cols / 2)]``."""
    _, rows, cols = values.shape
    padded = np.pad(values, ((0, 0), (0, rows % 2), (0, cols % 2)))
    return sum(padded[:, i::2, j::2] for i in (0, 1) for j in (0, 1))


def analyse_group(video, group):
    """Return our model of a group and the positions of its frames, those coded."""
    # a frame shown again is no reference
    coded = np.flatnonzero(group.update_type != UpdateType.SHOWN_AGAIN)
    place = {int(position): n for n, position in enumerate(coded)} | {-1: -1}
    references = [[place[int(k)] for k in group.references[position]] for position in coded]
    show_index = group.show_index[coded].tolist()
    if group.update_type[1] == UpdateType.ARF:  # libvpx counts the overlay of the base ARF as well
        references.append([len(coded) - 1, 0, 1])
        show_index.append(show_index[1])
    d = analyse(video, show_index, references, [100] * len(show_index), version="source")
    return d, coded


def compare_with_libvpx(video, group, tpl):
    """Return rank correlations of importance, ours with libvpx's.

    Over the group's frames, over all its 32x32 blocks, and over the blocks of a frame (mean over
    frames). Then, for comparison, what frames in the plain order of coding and mirrored blocks get.
    """
    d, coded = analyse_group(video, group)
    with_tpl = [n for n, position in enumerate(coded) if not np.isnan(tpl[position]).any()]
    own = d.intra_cost[with_tpl]
    ours = pooled(own * d.importance[with_tpl]) / pooled(own)
    intra, dependent = np.moveaxis(tpl[coded][with_tpl][..., [0, 3]], -1, 0)
    theirs = -np.log(intra / dependent)
    frames = -np.log(intra.sum(axis=(1, 2)) / dependent.sum(axis=(1, 2)))

    def within(values):
        pairs = zip(values, theirs, strict=True)
        return np.mean([spearman(a, b) for a, b in pairs if np.ptp(a) > 0 and np.ptp(b) > 0])

    return {
        "frames": spearman(d.frame_importance[with_tpl], frames),
        "blocks": spearman(ours, theirs),
        "within": within(ours),
        "frames in order": spearman(-np.arange(len(frames)), frames),
        "within mirrored": within(ours[:, :, ::-1]),
    }


@pytest.mark.parametrize("layers", [1, 6])
@pytest.mark.parametrize("name", ["carphone", "bikes", "bigbuckbunny"])
def test_source_ranks_like_libvpx(name, layers):
    (clip,) = (clip for clip in load_clips("samples") if clip.name == name)
    video = dataclasses.replace(clip, num_frames=60).open()
    found = [compare_with_libvpx(video, *group) for group in libvpx_groups(video, layers)]
    assert len(found) >= 4
    mean = {key: np.mean([correlations[key] for correlations in found]) for key in found[0]}
    if layers == 1:  # importance falls from frame to frame: their order alone ranks as well
        assert mean["frames"] > 0.8
        assert mean["blocks"] > 0.55
    else:
        assert mean["frames"] > 0.92
        assert mean["frames"] > mean["frames in order"] + 0.2
        assert mean["blocks"] > 0.78
    assert mean["within"] > 0.2
    assert mean["within"] > mean["within mirrored"] + 0.2


# Bad input


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"show_index": [0], "references": [NONE], "q_index": [9]}, "1 frame"),
        ({"q_index": [0, 9, 9]}, "q_index"),
        ({"q_index": [9, 256, 9]}, "q_index"),
        ({"q_index": [9, -1, 9]}, "q_index"),
        ({"q_index": [9, 9]}, "q_index|length"),
        ({"references": [NONE, [0, 1, -1], NONE]}, "reference"),
        ({"references": [NONE, NONE, [3, -1, -1]]}, "reference"),
        ({"references": [[0, -1, -1], NONE, NONE]}, "reference"),
        ({"references": [NONE, [-2, 0, 0], NONE]}, "reference"),
        ({"references": [NONE, NONE]}, "reference|length"),
        ({"references": [[-1, -1]] * 3}, "reference"),
        ({"show_index": [0, 1, 3]}, "show_index"),
        ({"show_index": [0, -1, 2]}, "show_index"),
        ({"show_index": [0, 1]}, "show_index|length"),
        ({"version": "quantised"}, "version|quantised"),
        ({"level": "avx9"}, "level|avx9"),
        ({"weights": [1.0, 0.0, 1.0]}, "weight"),
        ({"weights": [1.0, -1.0, 1.0]}, "weight"),
        ({"weights": [1.0, np.nan, 1.0]}, "weight"),
        ({"weights": [1.0, np.inf, 1.0]}, "weight"),
        ({"weights": [1.0, 1.0]}, "weight"),
        ({"lambda_q_index": 0}, "lambda_q_index"),
        ({"lambda_q_index": 256}, "lambda_q_index"),
    ],
)
def test_bad_input_is_refused(changes, words):
    arguments = {"show_index": [0, 1, 2], "references": chain(3), "q_index": [9, 9, 9]}
    video = video_of(noise(3, 16, 16))
    analyse(video, **arguments)
    with pytest.raises(InputError, match=words):
        analyse(video, **(arguments | changes))


@pytest.mark.parametrize(("width", "height"), [(15, 16), (16, 15)])
def test_a_picture_below_a_block_is_refused(width, height):
    frames = np.zeros((2, frame_bytes(width, height)), np.uint8)
    video = Video("small", frames, width, height, Fraction(30), "")
    with pytest.raises(InputError, match="16"):
        analyse(video, [0, 1], chain(2), [9, 9])


def test_a_position_outside_is_refused(analysed):
    with pytest.raises((InputError, IndexError)):
        analysed.superblock_scale(5)
