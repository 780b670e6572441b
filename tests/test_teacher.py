"""The teacher: trajectories repeat bit for bit, and the search's arithmetic is what it says."""

import dataclasses
import json
import math

import bjontegaard
import numpy as np
import pandas as pd
import pytest
from conftest import make_video

from vpxrc import Decision, EncoderOptions, Policy, UpdateType, encode, make_policy
from vpxrc.agents.teacher import curve, objective
from vpxrc.agents.teacher import lessons as teach
from vpxrc.agents.teacher.curve import Measured, Point, anchor_curve, saved
from vpxrc.agents.teacher.directions import phases, units
from vpxrc.agents.teacher.lessons import (
    Search,
    bounds,
    learn,
    pack,
    replay,
    results,
    scaled,
    searches,
)
from vpxrc.agents.teacher.objective import Candidate, Objective, next_offset
from vpxrc.agents.teacher.rounds import lesson_table
from vpxrc.agents.teacher.search import SearchOptions, parabola, search
from vpxrc.agents.teacher.trajectory import Follow, Record, Trajectory
from vpxrc.datasets import Clip, load_clips
from vpxrc.encoder.log import EncodeLog
from vpxrc.encoder.types import RECORD_DTYPE
from vpxrc.errors import InputError
from vpxrc.evaluation.bd_rate import more_bits
from vpxrc.media.frames import write_y4m
from vpxrc.policies.constant import ConstantQ

OPTIONS = EncoderOptions(target_bitrate=60, cpu_used=5)
SHORT = SearchOptions(directions=("level", "arf"))


@pytest.fixture(scope="module")
def video():
    return make_video(num_frames=40)


@pytest.fixture(scope="module")
def wide():
    return make_video(width=200, height=72, num_frames=30)


@pytest.fixture(scope="module")
def recorded(wide):
    """An encode of ``dependency``, which has maps per superblock, and its trajectory."""
    recorder = Record(make_policy("dependency"))
    log = encode(wide, OPTIONS, recorder)
    return log, Trajectory.of(log, recorder.decisions)


@pytest.fixture(scope="module")
def clip(video, tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "tiny.y4m"
    write_y4m(video, path)
    return Clip("tiny", str(path))


@pytest.fixture
def counted(monkeypatch):
    """Every encode of the teacher, as it is made."""
    made = []

    def count(*arguments, **named):
        made.append(arguments)
        return encode(*arguments, **named)

    for module in (objective, curve, teach):
        monkeypatch.setattr(module, "encode", count)
    return made


def assert_same(one, other):
    for field in dataclasses.fields(Trajectory):
        a, b = getattr(one, field.name), getattr(other, field.name)
        if field.name == "region":
            assert a == b == ()  # tests/test_region.py has those that have some
            continue
        if field.name != "superblock_scale":
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)
            continue
        assert len(a) == len(b)
        for mine, yours in zip(a, b, strict=True):
            assert (mine is None) == (yours is None)
            if mine is not None:
                np.testing.assert_array_equal(mine, yours, strict=True)


# Trajectories


def test_a_trajectory_survives_tables_and_files(recorded, tmp_path):
    _, trajectory = recorded
    maps = [scale for scale in trajectory.superblock_scale if scale is not None]
    assert maps and maps[0].shape == (2, 4)
    moved = trajectory.moved(0.123, np.linspace(-1, 1, len(trajectory)))
    table = moved.to_pandas()
    assert_same(Trajectory.from_pandas(table), moved)
    table.to_parquet(tmp_path / "table.parquet")
    assert_same(Trajectory.from_pandas(pd.read_parquet(tmp_path / "table.parquet")), moved)
    columns = json.loads(json.dumps(table.to_dict("list")))
    assert_same(Trajectory.from_pandas(pd.DataFrame(columns)), moved)
    with pytest.raises(InputError, match="no column 'step'"):
        Trajectory.from_pandas(table.drop(columns="step"))


def test_a_trajectory_is_followed_bit_for_bit(wide, recorded):
    log, trajectory = recorded
    assert trajectory.fits(log)
    again = encode(wide, OPTIONS, Follow(trajectory))
    assert again.stream == log.stream
    np.testing.assert_array_equal(again.records, log.records)


def test_moves_end_at_the_quantizers_limits(wide, recorded):
    _, trajectory = recorded
    for step, q_index in ((99.0, 255), (-99.0, 1)):
        followed = encode(wide, OPTIONS, Follow(trajectory.moved(step)))
        assert (followed.coded["q_index"] == q_index).all()


def test_a_start_is_recorded_as_it_will_be_followed(video):
    recorder = Record(ConstantQ(120))
    log = encode(video, OPTIONS, recorder)
    assert log.options.auto_alt_ref == 6
    trajectory = Trajectory.of(log, recorder.decisions)
    assert encode(video, OPTIONS, Follow(trajectory)).stream == log.stream


class Searching(Policy):
    """Has a word on groups, and tries three q of which the second is kept."""

    def __init__(self):
        self.groups = self.tried = 0
        self.kept = None

    def plan_group(self, group):
        self.groups += 1
        return [60] * group.size

    def decide(self, frame):
        return Decision(100 + self.tried, superblock_scale=None, lambda_scale=1 + self.tried / 4)

    def review(self, log):
        self.tried += 1
        if self.tried == 2:
            self.kept = log
        return self.kept if self.tried == 3 else None


def test_a_start_has_its_groups_and_its_own_search(video):
    start = Searching()
    recorder = Record(start)
    log = encode(video, OPTIONS, recorder)
    assert log.encodes == 3 and start.groups >= 3
    assert set(log.coded["q_index"]) == {101}
    # The decisions are those of the encode that was kept, not of the last one.
    assert {decision.q_index for decision in recorder.decisions} == {101}
    assert len(recorder.decisions) == len(log.coded)
    assert encode(video, log.options, Searching()).stream == log.stream

    # No more encodes than are allowed: the last one is kept then.
    recorder = Record(Searching(), most=1)
    log = encode(video, OPTIONS, recorder)
    assert log.encodes == 1 and {decision.q_index for decision in recorder.decisions} == {100}


def test_a_search_counts_the_starts_encodes(video):
    found = search(video, OPTIONS, Searching(), dataclasses.replace(SHORT, max_encodes=4))
    assert found.encodes <= 4
    # What is kept is followed exactly, though the start planned its groups.
    assert encode(video, OPTIONS, Follow(found.trajectory)).stream == found.log.stream


# The search's arithmetic


def tiny_log(video, rows, stream_bits=800):
    """A log of rows (show index, update type, shown again, bits, mean squared error)."""
    records = np.zeros(len(rows), RECORD_DTYPE)
    for record, (show_index, kind, again, bits, mse) in zip(records, rows, strict=True):
        record["show_index"], record["update_type"], record["is_shown_again"] = (
            show_index,
            kind,
            again,
        )
        record["is_shown"] = kind != UpdateType.ARF
        record["bits"], record["sse_y"] = bits, mse * video.width * video.height
    packets = [(bytes(stream_bits // 8), 0)]
    return EncodeLog(video.format, OPTIONS, records, packets, np.zeros((3, 26)), 0.0, 0.0)


ROWS = [
    (0, UpdateType.KEY, 0, 400, 10.0),
    (3, UpdateType.ARF, 0, 200, 10.0),
    (1, UpdateType.LEAF, 0, 100, 10.0),
    (2, UpdateType.LEAF, 0, 90, 10.0),
    (3, UpdateType.LEAF, 1, 10, 10.0),
]


def tiny_candidate(video, rows, quality, stream_bits=800):
    log = tiny_log(video, rows, stream_bits)
    decisions = [ConstantQ(100).decide(None)] * len(log.coded)
    return Candidate(Trajectory.of(log, decisions), Measured(video, log, quality))


def judged(video, trial, quality="psnr"):
    """What a trial costs more than ``ROWS`` where 1 dB is worth 25 % of the bits."""
    made = Objective(video, OPTIONS, quality)
    made.quality_per_bits = {quality: 4.0}
    trial = tiny_candidate(video, trial, quality)
    return made.costs(trial, tiny_candidate(video, ROWS, quality))


def test_costs_up_to_each_frame(video):
    rows = [list(row) for row in ROWS]
    rows[1][3] = 280  # the ARF takes 10 % of the 800 bits more,
    rows[3][4] = 20.0  # one of the four shown frames loses 3.01 dB,
    rows[4][3] = 18  # and the ARF shown again takes 1 % more
    loss = 100 * 10 * math.log10(2) / 4 / 4.0
    assert judged(video, rows) == pytest.approx([0, 0, 10, 10, 11 + loss])


def test_costs_of_the_mean_error_add_up(video):
    rows = [list(row) for row in ROWS]
    rows[2][4] = 10.004  # small enough for the tangent
    loss = 100 * (tiny_log(video, ROWS).psnr_overall - tiny_log(video, rows).psnr_overall) / 4.0
    assert judged(video, rows, "psnr_overall") == pytest.approx([0, 0, 0, loss, loss], rel=1e-3)


def test_costs_end_where_the_frames_differ(video):
    rows = [list(row) for row in ROWS]
    rows[2][1] = UpdateType.GOLDEN
    costs = judged(video, rows)
    assert costs[:3] == pytest.approx([0, 0, 0])
    assert np.isnan(costs[3:]).all()
    longer = judged(video, [*ROWS, (9, UpdateType.ARF, 0, 5, 0)])
    assert longer[:4] == pytest.approx([0, 0, 0, 0])
    assert np.isnan(longer[4])


# The quality that has four


MEASURED = {  # bits of a stream: SSIM and VMAF of its frames by show index
    800: {"ssim": [0.9, 0.9, 0.9, 0.9], "vmaf": [80.0, 80, 80, 80]},
    880: {"ssim": [0.9, 0.9, 0.86, 0.9], "vmaf": [80.0, 84, 80, 80]},
}


@pytest.fixture
def measured(monkeypatch):
    """Figures instead of ffmpeg's; the list has the bits of the streams that were measured."""
    made = []

    def measure(stream, video, metrics):
        bits = 8 * (len(stream) - 32 - 12)  # without the headers of IVF
        made.append(bits)
        return {metric: np.array(MEASURED[bits][metric]) for metric in metrics}

    monkeypatch.setattr(curve, "measure_stream", measure)
    return made


def test_costs_in_all_four_by_hand(video, measured):
    rows = [list(row) for row in ROWS]
    rows[1][3] += 80  # the ARF takes 10 % of the 800 bits more,
    rows[3][4] = 20.0  # frame 2 loses 3.01 dB, and 0.04 SSIM, while frame 1 gains 4 VMAF
    made = Objective(video, OPTIONS)
    assert made.quality == "balanced"
    slopes = {"psnr": 5.0, "psnr_overall": 4.0, "ssim": 0.05, "vmaf": 10.0}
    made.quality_per_bits = slopes
    candidate = tiny_candidate(video, ROWS, "balanced")
    trial = tiny_candidate(video, rows, "balanced", 880)
    costs = made.costs(trial, candidate)
    gain = 100 * (4 / 4 / slopes["vmaf"]) / 4
    psnr = 10 * math.log10(2) / 4 / slopes["psnr"]
    # The error of a frame of four doubles: the mean error grows by a quarter, on the tangent.
    overall = 10 / math.log(10) / 4 / slopes["psnr_overall"]
    loss = 100 * (psnr + overall + 0.04 / 4 / slopes["ssim"]) / 4
    assert costs == pytest.approx([0, 0, 10, 10 - gain, 10 - gain + loss])
    assert made.costs(candidate, candidate) == pytest.approx(np.zeros(5))
    # Each encode is measured once, however often it is asked.
    assert sorted(measured) == [800, 880]

    made.origin = candidate.encode.point
    assert made.score(candidate) == 0
    overall = tiny_log(video, ROWS).psnr_overall - tiny_log(video, rows).psnr_overall
    loss = 100 * (psnr + overall / slopes["psnr_overall"] + 0.04 / 4 / slopes["ssim"]) / 4
    assert made.score(trial) == pytest.approx(100 * math.log(1.1) - gain + loss)

    # A quality that does not answer to the bits is left out of the mean.
    made.quality_per_bits = {"ssim": 0.05}
    assert made.costs(trial, candidate)[-1] == pytest.approx(10 + 100 * 0.04 / 4 / 0.05)


def test_only_what_a_quality_needs_is_measured(video, measured):
    for quality, metrics in (
        ("psnr", []),
        ("psnr_overall", []),
        ("ssim", ["ssim"]),
        ("vmaf", ["vmaf"]),
        ("balanced", ["ssim", "vmaf"]),
    ):
        measured.clear()
        encoded = tiny_candidate(video, ROWS, quality).encode
        assert measured == []
        point = encoded.point
        assert [
            metric for metric in ("ssim", "vmaf") if not math.isnan(getattr(point, metric))
        ] == (metrics)
        assert len(measured) == bool(metrics)


def test_slopes_of_the_four(video, monkeypatch):
    """Where the bits fall by half: as they are, and with a VMAF that is at its end."""
    found = {800: (0.95, 90.0), 400: (0.9, 80.0)}

    def measure(stream, video, metrics):
        ssim, vmaf = found[8 * (len(stream) - 44)]
        return {"ssim": np.full(4, ssim), "vmaf": np.full(4, vmaf)}

    monkeypatch.setattr(curve, "measure_stream", measure)
    coarse = [(*row[:4], 2 * row[4]) for row in ROWS]
    start = tiny_candidate(video, ROWS, "balanced")
    moved = tiny_candidate(video, coarse, "balanced", 400)
    made = Objective(video, OPTIONS)
    monkeypatch.setattr(made, "evaluate", lambda trajectory: moved)
    made.measure_slopes(start, 0.5)
    assert made.bits_per_step == pytest.approx(-2)
    psnr = 10 * math.log10(2) / math.log(2)
    expected = {"psnr": psnr, "ssim": 0.05 / math.log(2), "vmaf": 10 / math.log(2)}
    assert made.quality_per_bits == pytest.approx({**expected, "psnr_overall": psnr})
    found[400] = (0.9, 90.1)
    moved = tiny_candidate(video, coarse, "balanced", 400)
    made.measure_slopes(start, 0.5)
    assert set(made.quality_per_bits) == {"psnr", "psnr_overall", "ssim"}
    # If none answers, all count, and none as more bits than its least slope says.
    found[400], moved = found[800], tiny_candidate(video, ROWS, "balanced", 400)
    made.measure_slopes(start, 0.5)
    assert made.quality_per_bits == {"psnr": 0.3, "psnr_overall": 0.3, "ssim": 1e-5, "vmaf": 1.0}


def test_bits_saved_in_all_four():
    rates = (100, 200, 400)
    anchors = tuple(
        Point(rate, 30 + 3 * n, 30 + 3 * n, 0.9 + 0.02 * n, 80 + 5 * n)
        for n, rate in enumerate(rates)
    )
    # At 150 kbit/s with the quality of 200: a quarter is saved. VMAF is that of 100.
    point = Point(150, 33, 33, 0.92, 80)
    assert saved(anchors, point, "vmaf") == pytest.approx(-50)
    assert saved(anchors, point, "balanced") == pytest.approx((25 + 25 + 25 - 50) / 4)
    full = (*anchors[:2], dataclasses.replace(anchors[2], vmaf=85))
    assert saved(full, point, "psnr") == pytest.approx(25)
    assert saved(full, point, "balanced") is None


def test_moves_of_a_parabola():
    # 2 m**2 - m has its minimum at 1/4, of which four fifths are gone.
    assert parabola(2 * 0.25 - 0.5, 2 * 0.25 + 0.5, 0.5, 9) == pytest.approx((-1.0, 4.0, 0.2))
    # Too far away:
    assert parabola(-9.0, 9.1, 0.5, 1.5)[2] == 0.75
    assert parabola(9.1, -9.0, 0.5, 1.5)[2] == -0.75
    # No minimum, so the better side, if it is better than nothing:
    assert parabola(-3.0, 1.0, 0.5, 1.5)[2] == 0.5
    assert parabola(-1.0, -3.0, 0.5, 1.5)[2] == -0.5
    assert parabola(0.0, 0.0, 0.5, 1.5)[2] == 0.0


def test_where_to_land_next():
    assert next_offset([(0.0, 0.5)], -2.0) == pytest.approx(0.25)
    assert next_offset([(0.0, 0.5)], -0.01) == pytest.approx(0.5 / 0.3)  # not believed
    # The slope between two on one side, and the interpolation between two sides:
    assert next_offset([(0.0, 0.5), (0.2, 0.3)], -2.0) == pytest.approx(0.5)
    assert next_offset([(0.0, 0.5), (1.0, -0.3)], -2.0) == pytest.approx(0.625)
    # A staircase is halved at its flat end, from the nearest points on either side:
    assert next_offset([(0.0, 0.5), (1.0, -0.01), (0.5, 0.6)], -1.0) == pytest.approx(0.95)


def test_what_is_moved_together(recorded):
    _, t = recorded
    for direction, expected in (("key", 1), ("frame", 4), ("level", 2)):
        found = phases(t, direction)
        assert len(found) == expected
        assert not np.logical_and.reduce(found[:2]).any() or expected == 1
        np.testing.assert_array_equal(sum(found) > 0, units(t, direction) >= 0)
    assert (t.update_type[phases(t, "key")[0]] == UpdateType.KEY).all()
    assert (t.update_type[sum(phases(t, "frame")) > 0] == UpdateType.LEAF).all()
    still = dataclasses.replace(t, update_type=np.full_like(t.update_type, UpdateType.KEY))
    assert phases(still, "inner") == []


def test_bits_saved_by_hand():
    anchors = tuple(Point(rate, psnr, psnr) for rate, psnr in ((100, 30), (200, 33), (400, 36)))
    assert saved(anchors, Point(150, 33, 33), "psnr") == pytest.approx(25)
    # The curve goes straight on: 3 dB for twice the rate.
    assert saved(anchors, Point(400, 39, 0), "psnr") == pytest.approx(50)
    assert saved(anchors, Point(100, 27, 27), "psnr_overall") == pytest.approx(-100)
    # Two points: half the bits and the same bits are the geometric mean of both.
    assert more_bits([100, 200], [30, 33], [50, 200], [30, 33]) == pytest.approx(
        100 * (math.sqrt(0.5) - 1)
    )
    falling = (*anchors[:2], Point(400, 32, 36))
    assert saved(falling, Point(150, 33, 33), "psnr") is None


def test_bits_saved_as_the_bjontegaard_package_has_them():
    anchor_rates, anchor_psnr = np.array([100, 180, 300, 520]), np.array([30, 32.4, 34, 36.2])
    psnr = np.linspace(30, 36.2, 401)
    rates = np.exp(np.interp(psnr, anchor_psnr, np.log(anchor_rates)) - 0.1 - 0.01 * (psnr - 33))
    theirs = bjontegaard.bd_rate(
        anchor_rates, anchor_psnr, rates, psnr, method="pchip", require_matching_points=False
    )
    assert more_bits(anchor_rates, anchor_psnr, rates, psnr) == pytest.approx(theirs, abs=0.02)


# The search


def test_a_search_improves_and_lands(video, counted):
    progress = []
    start = make_policy("imitation-prior")
    found = search(video, OPTIONS, start, SearchOptions("psnr"), progress=progress.append)
    assert found.encodes == found.log.encodes == len(counted) == progress[-1]
    assert progress == list(range(1, len(counted) + 1))
    assert abs(found.log.overshoot) <= SearchOptions().tolerance
    assert (found.found.bitrate, found.found.psnr) == (found.log.bitrate, found.log.psnr)
    anchors = anchor_curve(video, OPTIONS)
    assert saved(anchors, found.found, "psnr") >= saved(anchors, found.start, "psnr")
    assert encode(video, OPTIONS, Follow(found.trajectory)).stream == found.log.stream
    assert set(found.responses["direction"]) <= set(SearchOptions().directions)
    assert (found.responses["first_row"] <= found.responses["last_row"]).all()


@pytest.mark.parametrize("quality", ["balanced", "psnr_overall", "ssim", "vmaf"])
def test_a_search_for_another_quality(video, quality):
    options = SearchOptions(quality=quality, directions=("arf",))
    found = search(video, OPTIONS, make_policy("layered"), options)
    assert abs(found.log.overshoot) <= options.tolerance
    assert math.isnan(found.found.ssim) == (quality not in ("ssim", "balanced"))
    assert math.isnan(found.found.vmaf) == (quality not in ("vmaf", "balanced"))
    anchors = anchor_curve(video, OPTIONS, quality)
    assert saved(anchors, found.found, quality) is not None


@pytest.mark.parametrize(("most", "rows"), [(1, 0), (2, 0), (3, 0), (7, 0), (9, 1), (14, 5)])
def test_a_search_keeps_to_its_encodes(counted, most, rows):
    small = dataclasses.replace(load_clips("samples")[0], width=96, height=80, num_frames=50)
    options = SearchOptions(max_encodes=most)
    # Far from the target, where most of the encodes are needed to get there.
    found = search(small.open(), EncoderOptions(30, cpu_used=5), ConstantQ(150), options)
    assert found.encodes == found.log.encodes == len(counted) <= most
    assert len(found.responses) == rows
    if most >= 3:
        assert abs(found.log.overshoot) <= options.tolerance


def test_a_stopped_search_goes_on(video, tmp_path, counted):
    start = make_policy("imitation-prior")
    whole = search(video, OPTIONS, start, SHORT)
    state = tmp_path / "state"
    for stop in (2, 9, 13):  # before, between and after the directions

        def interrupt(encodes, stop=stop):
            if encodes == stop:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search(video, OPTIONS, start, SHORT, state=state, progress=interrupt)
    assert state.is_file()
    counted.clear()
    found = search(video, OPTIONS, start, SHORT, state=state)
    assert len(counted) < whole.encodes / 2
    assert found.log.stream == whole.log.stream
    assert found.encodes == whole.encodes
    assert dataclasses.asdict(found.start) == pytest.approx(
        dataclasses.asdict(whole.start), rel=0, abs=0, nan_ok=True
    )
    assert_same(found.trajectory, whole.trajectory)
    pd.testing.assert_frame_equal(found.responses, whole.responses)
    # Nothing of it goes into another search.
    counted.clear()
    search(video, OPTIONS, start, SearchOptions(directions=()), state=state, key="another")
    assert len(counted) < 5
    state.write_text("{")
    search(video, OPTIONS, start, SearchOptions(directions=()), state=state)


def test_what_a_search_refuses(video):
    with pytest.raises(InputError, match="decides every frame itself"):
        search(video, OPTIONS, make_policy("libvpx-vbr"))
    for words, arguments in (
        ("unknown quality 'xpsnr'", {"quality": "xpsnr"}),
        ("unknown direction 'up'", {"directions": ("level", "up")}),
        ("max_encodes", {"max_encodes": 0}),
    ):
        with pytest.raises(InputError, match=words):
            SearchOptions(**arguments)


# Lessons


def lesson(clip, folder, **changes):
    arguments = {"start": "imitation-prior", "search_options": SHORT, **changes}
    (made,) = searches([clip], [60], dataclasses.replace(OPTIONS), folder, **arguments)
    return made


@pytest.fixture(scope="module")
def taught(clip, tmp_path_factory):
    """The result of a lesson."""
    folder = tmp_path_factory.mktemp("taught")
    path = learn(lesson(scaled(clip, None), folder))
    assert sorted(file.name for file in folder.iterdir()) == [
        "tiny-64x48-60.json",
        "tiny-64x48-60.responses.parquet",
        "tiny-64x48-60.trajectory.parquet",
    ]
    return path


def copied(taught, folder):
    for file in taught.parent.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder / taught.name


def test_a_lesson_is_learnt_once(taught, clip, counted):
    made = lesson(scaled(clip, None), taught.parent)
    before = taught.stat().st_mtime_ns
    assert learn(made) == taught
    assert counted == []
    assert taught.stat().st_mtime_ns == before
    for changes, words in (
        ({"start": "dependency"}, "another start:"),
        ({"search_options": SearchOptions()}, "another search:"),
    ):
        with pytest.raises(InputError, match=words):
            learn(lesson(scaled(clip, None), taught.parent, **changes))
    faster = dataclasses.replace(made, options=dataclasses.replace(made.options, cpu_used=8))
    with pytest.raises(InputError, match="another options:"):
        learn(faster)


def test_a_stopped_lesson_goes_on(taught, clip, tmp_path, counted, monkeypatch):
    made = lesson(scaled(clip, None), tmp_path)
    monkeypatch.setattr(teach, "anchor_curve", lambda *_: 1 / 0)  # all is found, nothing written
    with pytest.raises(ZeroDivisionError):
        learn(made)
    assert [file.suffix for file in tmp_path.iterdir()] == [".state"]
    monkeypatch.setattr(teach, "anchor_curve", anchor_curve)
    counted.clear()
    assert learn(made).read_text() == taught.read_text()
    assert len(counted) <= 2 + 6 + 3  # where it was, its way to the target, libvpx-vbr
    assert not list(tmp_path.glob("*.state"))


def test_what_a_lesson_says(taught):
    (result,) = results(taught.parent)
    assert result["path"] == taught
    assert 0 < result["points"]["start"]["ssim"] < 1 < result["points"]["start"]["vmaf"] <= 100
    assert "NaN" not in taught.read_text()
    (row,) = bounds([result]).to_dict("records")
    assert (row["clip"], row["size"], row["target_bitrate"]) == ("tiny", "64x48", 60)
    anchors = tuple(Point(**point) for point in result["points"]["libvpx-vbr"])
    for quality in ("psnr", "psnr_overall", "ssim", "vmaf", "balanced"):
        point = Point(**result["points"]["found"])
        assert row[f"{quality}_found"] == pytest.approx(saved(anchors, point, quality))
    no_curve = {**result, "saved": {"psnr": {"start": None, "found": 1.5}}}
    assert math.isnan(bounds([no_curve])["psnr_start"][0])


@pytest.mark.parametrize("given", ["json", "parquet", "folder"])
def test_a_lesson_replays(taught, clip, given):
    place = {
        "json": taught,
        "parquet": taught.with_suffix(".trajectory.parquet"),
        "folder": taught.parent,
    }[given]
    (result,) = results(place)
    # Where the clip was when the search ran, or wherever one says.
    for clips in (None, [Clip("other", "none.mp4"), clip]):
        check = replay(result, clips)
        assert check.passed
        assert "[tiny, 64x48, 60 kbit/s]" in check.name


@pytest.mark.parametrize(
    ("column", "change", "words"),
    [
        ("bits", 1, "1 of"),
        ("sse_v", 1, "1 of"),
        ("step", 0.5, "frames differ, from frame 3"),
        ("show_index", 1, "other frames"),
    ],
)
def test_a_lesson_that_was_tampered_with_does_not(taught, tmp_path, column, change, words):
    path = copied(taught, tmp_path)
    trajectory = path.with_suffix(".trajectory.parquet")
    table = pd.read_parquet(trajectory)
    table.loc[3, column] += change
    table.to_parquet(trajectory)
    (result,) = results(path)
    check = replay(result)
    assert not check.passed
    assert words in check.figure


def test_what_a_replay_refuses(taught, clip, tmp_path):
    path = copied(taught, tmp_path)
    (result,) = results(path)
    with pytest.raises(InputError, match="tiny, which is not among the clips"):
        replay(result, [dataclasses.replace(clip, name="other")])
    with pytest.raises(InputError, match="another clip than this tiny"):
        replay(result, [dataclasses.replace(clip, num_frames=20)])
    with pytest.raises(InputError, match="does not say where tiny is"):
        replay({**result, "source": None})
    path.with_suffix(".trajectory.parquet").unlink()
    with pytest.raises(InputError, match=r"cannot read .*trajectory\.parquet"):
        replay(result)


# Rounds


@pytest.fixture
def packed(taught, clip, tmp_path):
    """Two lessons in one file, the second without a source and with no responses."""
    folder = tmp_path / "single"
    folder.mkdir()
    copied(taught, folder)
    facts = json.loads(taught.read_text())
    del facts["source"]
    facts["points"]["start"]["ssim"] = 0.1 + 0.2
    other = folder / "tiny-64x48-61.json"
    other.write_text(json.dumps(facts))
    for name in ("trajectory", "responses"):
        table = pd.read_parquet(taught.with_suffix(f".{name}.parquet"))
        if name == "responses":
            table = table[:0].astype(object)
        else:
            table["superblock_scale"] = [[0.25], *[None] * (len(table) - 1)]
            table["superblock_rows"] = [1, *[0] * (len(table) - 1)]
        table.to_parquet(other.with_suffix(f".{name}.parquet"))
    pack(tmp_path / "round.parquet", list(results(folder)))
    return tmp_path / "round.parquet"


def test_a_round_has_all_that_its_lessons_have(packed):
    singles, rows = list(results(packed.parent / "single")), list(results(packed))
    assert [row.pop("row") for row in rows] == [0, 1]
    assert {row.pop("path") for row in rows} == {packed}
    assert rows == [{k: v for k, v in one.items() if k not in ("path", "row")} for one in singles]
    for number, single in enumerate(singles):
        table = teach.stored_trajectory({"path": packed, "row": number})
        expected = teach.stored_trajectory(single)
        pd.testing.assert_frame_equal(table, expected, check_exact=True)
        trajectories = [Trajectory.from_pandas(one) for one in (table, expected)]
        assert_same(*trajectories)
        assert len({one.content_hash for one in trajectories}) == 1
    assert trajectories[0].superblock_scale[0].tolist() == [[0.25]]
    responses = pd.read_parquet(singles[0]["path"].with_suffix(".responses.parquet"))
    pd.testing.assert_frame_equal(lesson_table(packed, 0, "responses"), responses, check_exact=True)
    assert lesson_table(packed, 1, "responses").empty
    # It can be read without us.
    table = pd.read_parquet(packed)
    assert table["clip"].tolist() == ["tiny", "tiny"]
    assert json.loads(table["options"][0])["target_bitrate"] == 60
    assert table["trajectory"][0][3]["bits"] == expected["bits"][3]


def test_a_lesson_of_a_round_replays(packed, clip):
    first, second = results(packed)
    check = replay(first)
    assert check.passed and "[tiny, 64x48, 60 kbit/s]" in check.name
    with pytest.raises(InputError, match="does not say where tiny is"):
        replay(second)


def test_the_hash_of_a_trajectory_tells_decisions_apart(recorded):
    _, trajectory = recorded
    hashes = {trajectory.content_hash}
    for name in ("step", "lambda_scale", "show_index"):
        values = getattr(trajectory, name).copy()
        values[3] = np.nextafter(values[3], 99) if values.dtype == float else values[3] + 1
        hashes.add(dataclasses.replace(trajectory, **{name: values}).content_hash)
    maps = [None if one is None else one.copy() for one in trajectory.superblock_scale]
    at = next(place for place, one in enumerate(maps) if one is not None)
    maps[at][0, 0] *= 1.5
    hashes.add(dataclasses.replace(trajectory, superblock_scale=tuple(maps)).content_hash)
    maps[at] = None
    hashes.add(dataclasses.replace(trajectory, superblock_scale=tuple(maps)).content_hash)
    assert len(hashes) == 6
    again = Trajectory.from_pandas(trajectory.to_pandas())
    assert again.content_hash == trajectory.content_hash


def test_what_is_not_a_round(taught, packed, tmp_path):
    wrong = tmp_path / "wrong.parquet"
    for content, words in (
        (b"PAR1", "not a round"),
        (taught.with_suffix(".responses.parquet").read_bytes(), "not a round"),
    ):
        wrong.write_bytes(content)
        with pytest.raises(InputError, match=words):
            list(results(wrong))
    pd.read_parquet(packed).drop(columns="content_hash").to_parquet(wrong)
    with pytest.raises(InputError, match=r"wrong\.parquet: not a lesson"):
        list(results(wrong))
    with pytest.raises(InputError, match=r"cannot read .*none\.parquet"):
        list(results(tmp_path / "none.parquet"))
    first, _ = results(packed)
    packed.unlink()
    with pytest.raises(InputError, match=r"cannot read .*round\.parquet"):
        replay(first)


@pytest.mark.parametrize("text", ["{", "[]", '{"clip": "tiny"}'])
def test_what_is_not_a_lesson(tmp_path, text):
    with pytest.raises(InputError, match="no lessons"):
        list(results(tmp_path))
    with pytest.raises(InputError, match="cannot read"):
        list(results(tmp_path / "none.json"))
    (tmp_path / "a-2x2-60.json").write_text(text)
    with pytest.raises(InputError, match="not a lesson"):
        list(results(tmp_path))


def test_sizes(clip, tmp_path):
    odd = make_video(width=51, height=35, num_frames=2)
    write_y4m(odd, tmp_path / "odd.y4m")
    own = Clip("odd", str(tmp_path / "odd.y4m"))
    for pixels in (None, 51 * 35):
        assert scaled(own, pixels).open().content_hash == own.open().content_hash
    small = scaled(clip, 32 * 24)
    assert (small.width, small.height) == (32, 24)
    assert small.open().num_frames == 40
    assert (scaled(clip, 1).width, scaled(clip, 1).height) == (16, 16)


def test_targets_by_turns(tmp_path):
    clips = [Clip(name, "none.mp4") for name in "abc"]
    made = searches(clips, [10, 20], OPTIONS, tmp_path, per_clip=1)
    assert [(one.clip.name, one.options.target_bitrate) for one in made] == [
        ("a", 10),
        ("b", 20),
        ("c", 10),
    ]
    assert len({one.path for one in searches(clips, [10, 20], OPTIONS, tmp_path)}) == 6
    assert isinstance(made[0], Search)
    for rates, per_clip, words in (
        ([], None, "nothing to teach"),
        ([10, 10], None, "given twice"),
        ([10, 20], 3, "3 targets per clip, of 2"),
        ([0], None, "target_bitrate"),
    ):
        with pytest.raises(InputError, match=words):
            searches(clips, rates, OPTIONS, tmp_path, per_clip=per_clip)
