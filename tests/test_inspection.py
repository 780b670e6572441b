"""The inspection of an encode: the model's flows, the table, the pictures and the command."""

import json

import numpy as np
import pandas as pd
import pytest
from conftest import make_video
from typer.testing import CliRunner

from vpxrc import Decision, EncoderOptions, EncodeSession, InputError, PolicyError, cli
from vpxrc._native import ac_quantizer
from vpxrc.dependency import analyse
from vpxrc.encoder.types import UPDATE_TYPES
from vpxrc.evaluation.inspection import inspect
from vpxrc.media.frames import video_from_frames, write_y4m
from vpxrc.policies.base import Policy, encode
from vpxrc.policies.constant import ConstantQ
from vpxrc.policies.registry import make_policy
from vpxrc.reports.dependency import write_inspection

VERSIONS = ("source", "reconstructed")
FILES = ["importance.png", "frames.png", "propagation.png", "dependency.parquet"]
SHOW_EXISTING = 6
OPTIONS = EncoderOptions(target_bitrate=60, cpu_used=5)


@pytest.fixture(scope="module")
def video():
    """Long enough for several groups, those of multi-layer ARFs too."""
    return make_video(num_frames=48)


# The flows


def dependency_cost(d):
    """What depends on each frame, ``[N]``."""
    step = ac_quantizer(d.lambda_q_index)
    cost = d.dep_distortion + 4.3 * step * step / 2048 * d.dep_rate
    return cost.sum(axis=(1, 2))


def inside(d, n, row, col):
    """The part of a block's area that its vector leaves inside the reference."""
    rows, cols = d.reference.shape[1:]
    y, x = (
        16 * at + ((int(v) + 2) >> 2) for at, v in zip((row, col), d.mv[n, row, col], strict=True)
    )
    height = min(y + 16, 16 * rows) - max(y, 0)
    width = min(x + 16, 16 * cols) - max(x, 0)
    return max(height, 0) * max(width, 0) / 256


def block_flow(d, n, row, col):
    """The recursion's formulas for one block."""
    at, weight = (n, row, col), d.weights[n]
    if d.version == "source":
        kept = 1 - d.inter_cost[at] / d.intra_cost[at]
        return kept * (weight * d.intra_cost[at] + d.dep_distortion[at])
    beta = d.source_distortion[at] / d.distortion[at]
    distortion = weight * (d.distortion[at] - d.source_distortion[at])
    distortion += (1 - beta) * d.dep_distortion[at]
    rate = weight * (d.rate[at] - d.source_rate[at])
    rate -= 128 * np.log2(beta + (1 - beta) * 2 ** (-2 * d.dep_rate[at] / 256))
    return distortion + 4.3 * ac_quantizer(d.lambda_q_index) ** 2 / 2048 * rate


@pytest.mark.parametrize("version", VERSIONS)
def test_flows_are_what_depends_on_a_frame(version):
    rng = np.random.default_rng(0)
    still = np.repeat(rng.integers(0, 240, (1, 64 * 48 * 3 // 2), np.uint8), 4, axis=0)
    noisy = still + rng.integers(0, 12, still.shape, np.uint8)
    video = video_from_frames(noisy, 64, 48, 30)
    references = [[-1, -1, -1], [0, -1, -1], [0, 1, -1], [1, 0, 2]]
    d = analyse(
        video,
        [0, 3, 1, 2],
        references,
        [40, 60, 80, 90],
        version=version,
        weights=[1, 2, 0.5, 3],
        lambda_q_index=70,
    )
    assert list(d.weights) == [1, 2, 0.5, 3]
    assert d.lambda_q_index == 70
    assert not d.mv.any()  # so nothing is lost
    flow = d.flow()
    assert flow.shape == (4, 4)
    assert flow.dtype == np.float64
    assert flow.sum(axis=0) == pytest.approx(dependency_cost(d), rel=1e-9)
    assert not np.triu(flow).any()
    assert set(zip(*np.nonzero(flow), strict=True)) <= {
        (1, 0),
        (2, 0),
        (2, 1),
        (3, 0),
        (3, 1),
        (3, 2),
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_flows_lose_what_falls_outside(video, version):
    references = [[-1, -1, -1], [0, -1, -1], [0, 1, -1], [2, 0, 1]]
    d = analyse(video, [0, 8, 4, 6], references, [60, 80, 100, 110], version=version)
    assert d.lambda_q_index == 110
    flow, kept = np.zeros((4, 4)), np.zeros(4)
    for n, row, col in np.argwhere(d.reference >= 0):
        reference, cost = d.reference[n, row, col], block_flow(d, n, row, col)
        flow[n, reference] += cost
        kept[reference] += cost * inside(d, n, row, col)
    assert d.flow() == pytest.approx(flow, rel=1e-9, abs=1e-6)
    assert dependency_cost(d) == pytest.approx(kept, rel=1e-9, abs=1e-6)
    assert (flow.sum(axis=0) > kept)[0]


# The table


def groups_by_hand(video, options, q_index):
    """Step through an encode at one q, and return its groups and its log."""
    groups = {}
    with EncodeSession(video, options) as session:
        while session.frame is not None:
            groups[session.group.index] = session.group
            session.step(Decision(q_index))
        return groups, session.log()


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_is_the_model_at_the_q_of_the_encode(video, version):
    groups, log = groups_by_hand(video, OPTIONS, 120)
    found = inspect(video, OPTIONS, ConstantQ(120), version=version)
    assert found.log.stream == log.stream
    assert found.num_groups == log.records["group_index"].max() + 1
    for index, table in found.table.groupby("group_index"):
        group = groups[index]
        coded = [
            position
            for position in range(group.size)
            if group.update_type[position] != SHOW_EXISTING
            and group.show_index[position] < video.num_frames
        ]
        place = {position: n for n, position in enumerate(coded)}
        references = [
            [place.get(int(reference), -1) for reference in group.references[position]]
            for position in coded
        ]
        d = analyse(video, group.show_index[coded], references, [120] * len(coded), version=version)
        rows = log.records[log.records["group_index"] == index]
        rows = rows[rows["update_type"] != SHOW_EXISTING]
        expected = {
            "group_position": coded,
            "show_index": group.show_index[coded],
            "update_type": [UPDATE_TYPES[kind] for kind in group.update_type[coded]],
            "layer_depth": group.layer_depth[coded],
            "q_index": [120] * len(coded),
            "bits": rows["bits"],
            "importance": d.frame_importance,
            "q_offset": d.q_offset(),
            "model_bits": d.rate.sum(axis=(1, 2)),
            "model_distortion": d.distortion.sum(axis=(1, 2)),
            "dep_distortion": d.dep_distortion.sum(axis=(1, 2)),
            "dep_bits": d.dep_rate.sum(axis=(1, 2)),
        }
        assert ["group_index", *expected] == list(table.columns)
        for name, values in expected.items():
            assert table[name].tolist() == list(values), name


@pytest.fixture(scope="module")
def layers(video):
    """An encode whose ARFs are shown again."""
    return inspect(video, OPTIONS, make_policy("libvpx-vbr-mlarf"))


def test_an_observed_encode_is_replayed(video, layers):
    assert layers.log.stream == encode(video, OPTIONS, make_policy("libvpx-vbr-mlarf")).stream
    records, table = layers.log.to_pandas(), layers.table
    key = ["group_index", "group_position"]
    both = table.merge(records, on=key, suffixes=("", "_logged"), validate="one_to_one")
    assert len(both) == len(table)
    assert (both["show_index"] == both["show_index_logged"]).all()
    assert (both["update_type"] != "show-existing").all()
    coded = both[~both["is_shown_again"]]
    assert (coded["q_index"] == coded["q_index_logged"]).all()
    again = both[both["is_shown_again"]]
    assert len(again)
    for _, row in again.iterrows():
        (source,) = records[
            (records["show_index"] == row["show_index"]) & ~records["is_shown_again"]
        ].to_dict("records")
        assert (row["group_position"], source["update_type"]) == (0, "arf")
        assert row["q_index"] == source["q_index"]


def test_the_encode_that_is_kept_is_modelled(video):
    class TwiceConstantQ(ConstantQ):
        """Keeps the first of two encodes."""

        first = None

        def options(self, options):
            layers = 0 if self.first else 6
            return EncoderOptions(target_bitrate=60, cpu_used=5, auto_alt_ref=layers)

        def review(self, log):
            if self.first is None:
                self.first = log
                return None
            return self.first

    found = inspect(video, OPTIONS, TwiceConstantQ(120))
    once = inspect(
        video, EncoderOptions(target_bitrate=60, cpu_used=5, auto_alt_ref=6), ConstantQ(120)
    )
    assert found.log.encodes == 2
    assert "arf" in found.table["update_type"].tolist()
    pd.testing.assert_frame_equal(found.table, once.table)


def test_errors_of_a_policy_pass_through(video):
    with pytest.raises(PolicyError, match="does not decide"):
        inspect(video, OPTIONS, Policy())


def test_lossless_frames_are_modelled_at_the_finest_q():
    ramp = np.arange(6)[:, None] + np.arange(64 * 48 * 3 // 2) // 40 % 200
    clip = video_from_frames(ramp.astype(np.uint8), 64, 48, 30)
    found = inspect(clip, OPTIONS, ConstantQ(0))
    assert (found.table["q_index"] == 0).all()
    assert (found.groups[0].dependency.q_index == 1).all()


def test_a_clip_without_anything_in_common_is_drawn(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (5, 32 * 16 * 3 // 2), np.uint8)
    found = inspect(
        video_from_frames(frames, 32, 16, 30), OPTIONS, ConstantQ(200), version="source"
    )
    assert [path.name for path in write_inspection(found, 0, tmp_path)] == FILES


def test_there_is_no_such_group(video, layers, tmp_path):
    with pytest.raises(InputError, match=f"no group 99: the encode has {layers.num_groups}"):
        write_inspection(layers, 99, tmp_path)
    assert not list(tmp_path.iterdir())


# The command


@pytest.fixture(scope="module")
def clip(video, tmp_path_factory):
    path = tmp_path_factory.mktemp("clips") / "made.y4m"
    write_y4m(video, path)
    return path


def run(*arguments):
    return CliRunner().invoke(cli.app, ["inspect", *map(str, arguments)])


def test_the_command_writes_and_says_it(clip, video, tmp_path):
    out = tmp_path / "new" / "out"
    options = ("--policy", "constant-q:120", "--cpu-used", 5, "-b", 60, "--out", out)
    result = run(clip, *options, "--group", 1, "--json")
    assert result.exit_code == 0, result.output
    found = inspect(video, OPTIONS, ConstantQ(120))
    facts = json.loads(result.stdout)
    assert facts["files"] == [str(out / name) for name in FILES]
    assert facts["num_groups"] == found.num_groups
    assert facts["group"] == 1
    assert facts["bitrate"] == pytest.approx(found.log.bitrate)
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    for name in FILES[:3]:
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    pd.testing.assert_frame_equal(pd.read_parquet(out / "dependency.parquet"), found.table)
    top = found.table.sort_values("importance", ascending=False).iloc[:5]
    assert [row["importance"] for row in facts["most_important"]] == top["importance"].tolist()
    assert list(facts["most_important"][0]) == list(found.table.columns)


def test_the_command_in_words_by_its_defaults(clip, tmp_path):
    result = run(clip, "--out", tmp_path, "--version", "source")
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    lines = result.stdout.splitlines()
    assert lines[:4] == [str(tmp_path / name) for name in FILES]
    assert "group(s) at " in lines[4]
    assert len(lines) == 10
    assert all(line.startswith("  frame ") for line in lines[5:])


def test_help_has_examples():
    result = CliRunner().invoke(cli.app, ["inspect", "--help"])
    assert result.exit_code == 0
    assert "\n    vpxrc inspect" in result.stdout


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"": "nowhere"}, "unknown set 'nowhere'"),
        ({"": "no/where.mp4"}, "no such file"),
        ({"": "samples"}, "give one of them"),
        ({"--version": "quantised"}, "'quantised'"),
        ({"--group": -1}, "--group"),
        ({"--group": 99}, "there is no group 99: the encode has "),
        ({"--policy": "magic"}, "unknown policy 'magic'"),
        ({"-b": 0}, "target_bitrate must be an integer in 1..2000000, not 0"),
        ({"--cpu-used": 9}, "cpu_used must be an integer in 0..8, not 9"),
    ],
)
def test_bad_options(clip, tmp_path, changes, words):
    out = tmp_path / "out"
    options = {"": clip, "-b": 60, "--cpu-used": 5, "--out": out, **changes}
    result = run(*(part for pair in options.items() for part in pair if part != ""))
    assert result.exit_code == 2, result.output
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    assert line.startswith("vpxrc: ")
    assert words in line
    assert not out.exists() or not list(out.iterdir())


def test_a_folder_that_cannot_be_written(clip, tmp_path):
    (tmp_path / "file").touch()
    result = run(clip, "--out", tmp_path / "file" / "out")
    assert result.exit_code == 2
    assert "cannot write" in result.stderr
