"""Short forms of the campaigns in docs/reliability.md: faults, mutated inputs, sessions, kills."""

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

from benchmarks import corpus, faults, fuzz, fuzz_encode


def ran(module: str, *arguments: str) -> str:
    """Run a campaign as its command; return its output."""
    command = [sys.executable, "-m", f"benchmarks.{module}", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parents[1])
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    return done.stdout


def test_calls_of_the_system_fail(tmp_path):
    """A rename, a write or a process that fails gives a line, and the next run is right."""
    arguments = ("--jobs", "encode", "--kinds", "write,rename,process", "--most", "2")
    written = ran("faults", "--out", str(tmp_path), *arguments)
    row = next(line for line in written.splitlines() if line.startswith("| all"))
    points, refused, passed, found = map(int, row.split("|")[3:7])
    assert points == refused + passed and points >= 5 and refused >= 3 and not found
    # A campaign that was stopped runs the points that are missing, one of them half written.
    kept = tmp_path / "points.jsonl"
    kept.write_bytes(kept.read_bytes()[:-4])
    again = ran("faults", "--out", str(tmp_path), *arguments)
    assert again == written
    assert len(kept.read_text().splitlines()) == points


def test_the_fault_campaign_sees_what_is_wrong(tmp_path):
    """Half an output, a foreign one and a temporary file are told apart from the right ones."""
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.json").write_text('{"rate": 1, "seconds": 2}')
    whole = faults.contents(tmp_path / "out")
    (tmp_path / "out" / "a.json").write_text('{"rate": 1, "seconds": 3}')
    assert faults.contents(tmp_path / "out") == whole
    (tmp_path / "out" / "a.json").write_text('{"rate": 1, "sec')
    assert faults.contents(tmp_path / "out") != whole
    assert not faults.leftovers(tmp_path)
    (tmp_path / "out" / ".vpxrc-1-2-0123abcd-0123456789ab.tmp").touch()
    assert len(faults.leftovers(tmp_path)) == 1


def test_mutated_inputs(tmp_path):
    written = ran("fuzz", "--inputs", "60", "--out", str(tmp_path))
    assert [written.count(f"| {reader.name} |") for reader in fuzz.READERS] == [1] * len(
        fuzz.READERS
    )
    assert not (tmp_path / "faults.txt").read_text()


def write_good(folder):
    (folder / "a").write_text("good")


def test_the_fuzzer_sees_crashes_hangs_tracebacks_and_lost_frames(monkeypatch):
    monkeypatch.setattr(fuzz, "PATIENCE", 1)
    programs = {
        "crash": "import os; os.abort()",
        "hangs": "while True: pass",
        "hangs in native code": "import signal, time; signal.alarm(0); time.sleep(99)",
        "traceback": "1 / 0",
        "lost": "frames = 11",
    }
    for kind, program in programs.items():

        def read(path, program=program):
            if path.read_bytes() == b"good":
                return fuzz.FRAMES
            place: dict[str, int] = {}
            exec(program, place)
            return place["frames"]

        kind = kind.split()[0]
        reader = fuzz.Reader(kind, write_good, read, 1)
        tally = fuzz.fuzz(reader, 0, 3)
        assert sum(tally.counts.values()) == 3
        assert tally.counts[kind] >= 2, tally.faults  # a mutation may be none
        assert len(tally.faults) == tally.counts[kind]


def test_the_fuzzer_sees_what_a_reader_leaves():
    def read(path):
        if path.read_bytes() != b"good":
            (path.parent / "x.tmp").touch()

    tally = fuzz.fuzz(fuzz.Reader("leaves", write_good, read, 1), 0, 3)
    assert sum(tally.counts.values()) == 3
    assert sum("left x.tmp" in fault for fault in tally.faults) >= 2


def test_sessions_are_closed_at_random_points(tmp_path):
    out = ("--sessions", "80", "--programs", "0", "--kills", "0", "--out", str(tmp_path))
    report = json.loads(ran("soak", *out))
    before, after = report["before"], report["after"]
    assert set(report["actions"]) == {"alone", "together", "pooled", "forked"}
    assert after["encoders"] == 0 and after["descriptors"] <= before["descriptors"]
    assert after["threads"] <= before["threads"] + 1


def test_a_killed_job_comes_to_the_same_bytes(tmp_path):
    """Resumes that are bit-equal: `encode` in chunks."""
    options = ("--sessions", "1", "--programs", "0", "--jobs", "encode --chunk")
    ran("soak", *options, "--kills", "2", "--out", str(tmp_path))
    assert json.loads((tmp_path / "soak.json").read_text())["kills"]["encode --chunk"] >= 2


def test_damaged_videos_through_the_command(tmp_path):
    """One of each container; ``all`` is the last row of the counts."""
    written = ran("fuzz_encode", "--inputs", "10", "--first", "10", "--out", str(tmp_path))
    row = next(line for line in written.splitlines() if line.startswith("| all"))
    inputs, encoded, noted, refused, found = map(int, row.split("|")[2:7])
    assert inputs == encoded + noted + refused == 10 and not found


def test_the_fuzzer_of_the_command_sees_what_is_wrong(tmp_path):
    normal = fuzz_encode.Ran(0, "", {}, 1.0, 0, 0)
    source, output = tmp_path / "in.mkv", tmp_path / "out.webm"
    refused = replace(normal, exit_code=2, words="vpxrc: IN: truncated\n")
    assert not fuzz_encode.faults(refused, normal, source, output)
    wrong = {
        "exit code": replace(normal, exit_code=-11),
        "message": replace(refused, words="Traceback\nvpxrc: x\n"),
        "left": replace(refused, left=["tmp/a"]),
        "the cache": replace(refused, cached=10**6),
        "memory": replace(refused, grown=10**9),
    }
    for words, run in wrong.items():
        (found,) = fuzz_encode.faults(run, normal, source, output)
        assert found.startswith(words)
    output.write_bytes(b"no video")
    assert fuzz_encode.faults(refused, normal, source, output) == [
        "refused, but there is an output"
    ]
    shown = replace(normal, result={"num_frames": 15, "notes": [], "width": 96, "height": 64})
    (found,) = fuzz_encode.faults(shown, normal, source, output)
    assert found.startswith("the output has 0 frames for 15")


def test_files_against_ffmpeg(tmp_path):
    """A film that comes out equal, a slide show of a varying rate, a text and a sound."""
    films = tmp_path / "films=1.0"
    films.mkdir()
    fuzz_encode.make_good(films)
    for path in films.iterdir():
        if path.suffix not in (".mp4", ".ogv"):
            path.unlink()
    (films / "text.mkv").write_text("no video")
    words = ("corpus", str(films), "--json", "--out", str(tmp_path / "out"))
    assert json.loads(ran(*words)) == {"equal": 2, "refused by both": 1}
    # What ffmpeg made of it says otherwise: told as unexplained, without another encode.
    for note in (tmp_path / "out" / "files").iterdir():
        row = json.loads(note.read_text())
        if "ffmpeg" in row:
            row["ffmpeg"]["num_frames"] += 1
            row["ffmpeg"]["labels"]["range"] = "full"
            assert corpus.verdict(row) == (
                "unexplained",
                "frames: 15 for 16; range: limited for full",
            )


def test_a_long_video_that_is_killed(tmp_path):
    words = ("--seconds", "130", "--fps", "2", "--kills", "1", "--out", str(tmp_path))
    assert "| same bytes as without kills | yes |" in ran("long_video", *words)
