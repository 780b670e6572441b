"""The exactness checks pass on a real clip, and each of them can fail."""

import dataclasses

import numpy as np
import pytest

from vpxrc import EncoderOptions
from vpxrc.datasets import load_clips
from vpxrc.errors import InputError
from vpxrc.evaluation import verify
from vpxrc.evaluation.verify import check_oracle, check_plain, check_psnr, check_replay, observe


@pytest.fixture(scope="module")
def video():
    clip = load_clips("samples")[0]
    return dataclasses.replace(clip, num_frames=50).open()


@pytest.fixture(scope="module")
def log(video):
    return observe(video, EncoderOptions(target_bitrate=60, cpu_used=4, auto_alt_ref=6))


def changed(log, column, amount):
    records = log.records.copy()
    records[column][1] += amount
    return dataclasses.replace(log, records=records)


def test_all_checks_pass(video):
    checks = list(verify.verify(video, cpu_used=[2], auto_alt_ref=[6]))
    assert [check for check in checks if not check.passed] == []
    names = [check.name.split(" [")[0] for check in checks]
    assert names.count("observed = plain libvpx") == 3
    assert names.count("exact replay") == 2
    assert names.count("encoder's PSNR = PSNR decoded by ffmpeg") == 1
    assert names.count("observed = vpxenc") == 3 * (verify.oracle_program() is not None)
    assert all("carphone" in check.name for check in checks)


def test_the_oracle_agrees(video, log):
    oracle = verify.oracle_program()
    if oracle is None:
        pytest.skip("no vpxenc in the cache")
    assert check_oracle(video, log, oracle).passed
    other = dataclasses.replace(log, options=dataclasses.replace(log.options, auto_alt_ref=1))
    assert not check_oracle(video, other, oracle).passed


def test_another_stream_is_not_plain(video, log):
    assert check_plain(video, log).passed
    packets = list(log.packets)
    data, pts = packets[3]
    packets[3] = (data[:-1] + bytes([data[-1] ^ 1]), pts)
    check = check_plain(video, dataclasses.replace(log, packets=packets))
    assert not check.passed
    assert "different from byte" in check.figure


@pytest.mark.parametrize(("column", "amount"), [("q_index", 1), ("show_index", 1)])
def test_another_log_does_not_replay(video, log, column, amount):
    assert check_replay(video, log).passed
    assert not check_replay(video, changed(log, column, amount)).passed


def test_another_error_is_not_the_decoders(video, log):
    assert check_psnr(video, log).passed
    shown = int(np.flatnonzero(log.records["is_shown"])[0])
    records = log.records.copy()
    records["sse_y"][shown] += 1
    assert not check_psnr(video, dataclasses.replace(log, records=records)).passed


def test_an_oracle_that_is_none(video, tmp_path):
    with pytest.raises(InputError, match="no such program"):
        next(iter(verify.verify(video, oracle=tmp_path / "vpxenc")))
    log = observe(video, EncoderOptions(cpu_used=8))
    (tmp_path / "vpxenc").write_text("#!/bin/sh\necho nonsense >&2\nexit 3\n")
    (tmp_path / "vpxenc").chmod(0o755)
    with pytest.raises(InputError, match="failed: nonsense"):
        check_oracle(video, log, tmp_path / "vpxenc")
