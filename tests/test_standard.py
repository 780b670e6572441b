"""The standard tasks and the leaderboard."""

import json

import gymnasium
import numpy as np
import pytest
from typer.testing import CliRunner

from vpxrc import InputError
from vpxrc.cli import app
from vpxrc.datasets import load_clips
from vpxrc.envs.standard import MEDIUM, SMALL, STANDARD_TASKS, play_split
from vpxrc.evaluation.leaderboard import check_submission, score_policy, write_submission


@pytest.fixture(scope="module")
def episodes():
    return play_split(SMALL, lambda observation: np.full(2, 0.5, np.float32))


def test_the_splits_have_no_frames_in_common():
    for task in STANDARD_TASKS.values():
        seen: dict[str, list[tuple[float, float, str]]] = {}
        for split in ("train", "test"):
            for clip in load_clips(f"{task.clips}-{split}"):
                assert clip.source is not None and clip.num_frames is not None
                seen.setdefault(clip.source, []).append(
                    (clip.start, clip.start + clip.num_frames / 24, split)
                )
        for parts in seen.values():
            for start, end, split in parts:
                for other_start, other_end, other in parts:
                    assert split == other or end <= other_start or other_end <= start


def test_a_task_is_an_environment():
    env = gymnasium.make(SMALL.env_id, split="test")
    observation, info = env.reset(seed=0)
    assert env.observation_space.contains(observation)
    assert info["target_bitrate"] in SMALL.targets
    env.close()
    with pytest.raises(InputError, match="split must be one of 'train', 'test'"):
        gymnasium.make(SMALL.env_id, split="all")
    vector = gymnasium.make_vec(SMALL.env_id, num_envs=2)
    assert vector.reset(seed=0)[0].shape == (2, *observation.shape)
    vector.close()


def test_a_submission_is_played_again(episodes, tmp_path):
    path = tmp_path / "mine.json"
    write_submission(path, SMALL, "half", [episodes, episodes])
    task, score = check_submission(path)
    assert task is SMALL and score.seeds == 2 and len(score.episodes) == 24
    assert score.value.mean == pytest.approx(np.mean([one.value for one in episodes]))
    with pytest.raises(InputError, match="is for the task Small-v0, not Medium-v0"):
        check_submission(path, MEDIUM)
    text = json.loads(path.read_text())

    def complaint(change):
        changed = json.loads(json.dumps(text))
        change(changed)
        path.write_text(json.dumps(changed))
        with pytest.raises(InputError) as error:
            check_submission(path)
        return str(error.value)

    assert "not those of the test split" in complaint(lambda text: text["seeds"][0].pop())
    assert "returns" in complaint(lambda text: text["seeds"][1][0].update(value=9.0))
    assert "too many actions" in complaint(lambda t: t["seeds"][0][-1]["actions"].append([0, 0]))
    assert "returns" in complaint(lambda text: text["seeds"][0][0].update(value=float("nan")))
    assert "is no submission" in complaint(lambda text: text.pop("name"))
    for field, value in (("value", "high"), ("overshoot", None), ("actions", [["a", 0]])):
        words = complaint(lambda t, f=field, v=value: t["seeds"][0][0].update({f: v}))
        assert "is no submission" in words
    assert "is no submission" in complaint(lambda t: t["seeds"][0][0].update(value=10**400))
    assert "unknown task" in complaint(lambda text: text.update(task="Large-v0"))


def test_the_leaderboard_on_the_smallest_task(episodes, tmp_path):
    path = tmp_path / "mine.json"
    write_submission(path, SMALL, "half", [episodes])
    command = ["leaderboard", str(path), "--policies", "random,libvpx-vbr", "--seeds", "2"]
    result = CliRunner().invoke(app, [*command, "--json"])
    assert result.exit_code == 0, result.output
    rows = {row["name"]: row for row in json.loads(result.stdout)["scores"]}
    assert rows.keys() == {"half", "random", "libvpx-vbr"}
    assert rows["random"]["mean"] < rows["libvpx-vbr"]["mean"]
    assert rows["random"]["seeds"] == 2
    for row in rows.values():
        low, high = row["ci95"]
        assert low <= row["mean"] <= high
    assert score_policy(SMALL, "libvpx-vbr").value.mean == rows["libvpx-vbr"]["mean"]
