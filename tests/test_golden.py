"""No output has changed since ``tests/golden.json`` was written; and the comparison can fail."""

import copy
import json

import golden
import numpy as np
import pytest

KEPT = json.loads(golden.FILE.read_text())
HERE = golden.machine()


@pytest.mark.parametrize("group", golden.GROUPS)
def test_no_output_has_changed(group, tmp_path):
    computed = golden.compute(group, tmp_path)
    differences, skipped = golden.compare(computed, KEPT["groups"][group], HERE, KEPT["machine"])
    assert differences == []
    if skipped:
        reasons = sorted({line.partition(": ")[2] for line in skipped})
        pytest.skip(
            f"{len(skipped)} of {len(computed)} entries are of another machine "
            f"({'; '.join(reasons)}); the others agree"
        )


def test_all_groups_are_kept():
    assert list(KEPT["groups"]) == sorted(golden.GROUPS)
    names = [name for entries in KEPT["groups"].values() for name in entries]
    assert len(set(names)) == len(names)


# The comparison itself


@pytest.fixture(scope="module")
def computed(tmp_path_factory):
    return golden.compute("rewards", tmp_path_factory.mktemp("rewards"))


def changed(name, value):
    wrong = copy.deepcopy(KEPT["groups"]["rewards"])
    wrong[name]["value"] = value
    return wrong


def test_a_wrong_file_is_noticed(computed):
    right = KEPT["groups"]["rewards"]
    wrong = changed("reward/gain/steps", "0" * 64)
    here = KEPT["machine"]
    (line,) = set(golden.compare(computed, wrong, HERE, HERE)[0]) - set(
        golden.compare(computed, right, HERE, HERE)[0]
    )
    assert line.startswith("reward/gain/steps: ") and line.endswith(f"is not {'0' * 64!r}")
    # Of what the file has alone: nothing depends on this machine.
    for other, words in (
        (wrong, "reward/gain/steps: "),
        ({name: one for name, one in right.items() if name != "reward/psnr"}, "reward/psnr: not"),
        ({**right, "more": golden.entry("integer", 1)}, "more: not "),
        ({**right, "reward/psnr": golden.entry("integer", 1)}, "reward/psnr: of class "),
    ):
        differences, skipped = golden.compare(right, other, here, here)
        assert len(differences) == 1 and differences[0].startswith(words)
        assert skipped == []
    assert golden.compare(right, right, here, here) == ([], [])


def test_every_number_counts():
    """A stream of one bit more, or a row of a table within an entry."""
    streams = KEPT["groups"]["streams-carphone"]
    wrong = copy.deepcopy(streams)
    wrong["stream/libvpx-vbr/carphone/64"]["value"]["bits"] += 1
    other = {**KEPT["machine"], "numpy": "0"}
    differences, skipped = golden.compare(streams, wrong, other, KEPT["machine"])
    # Whatever the machine, libvpx's own streams are compared; what is skipped says why.
    assert len(differences) == 1
    assert differences[0].startswith("stream/libvpx-vbr/carphone/64: bits: ")
    floats = [name for name, one in streams.items() if one["class"] != "integer"]
    assert len(skipped) == len(floats) > 0
    assert all("numpy '0' is not " in line for line in skipped)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ([1, 2], [12]),
        (["a", "b"], ["ab"]),
        ({"a": 1}, {"b": 1}),
        (1, 1.0),
        (0.1 + 0.2, 0.3),
        ([[1], 2], [[1, 2]]),
        (b"1", "1"),
    ],
)
def test_hashes_tell_apart(one, other):
    assert golden.digest(one) == golden.digest(one)
    assert golden.digest(one) != golden.digest(other)


def test_hashes_of_arrays_tell_apart():
    zeros = np.zeros((2, 3), np.float32)
    different = [
        *(zeros, zeros.T, zeros.astype(np.float64), zeros + 1e-7, zeros.ravel(), -zeros),
        zeros.astype(object),
    ]
    assert len({golden.digest(one) for one in different}) == len(different)
    assert golden.digest(zeros) == golden.digest(np.asfortranarray(zeros))
