"""Files that survive a kill, a loss of power and damage: atomic writes, temporaries, the cache."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import make_video

from vpxrc import (
    Decision,
    EncoderOptions,
    EncodeSession,
    Video,
    cache,
    encode,
    make_policy,
    open_video,
    storage,
)
from vpxrc.cache import (
    DEFAULT_SIZE,
    cache_limit,
    clear_cache,
    has_entry,
    open_entry,
    read_entry,
    write_entry,
)
from vpxrc.encoder.first_pass import first_pass_stats
from vpxrc.errors import InputError, VpxrcError
from vpxrc.media.frames import write_y4m
from vpxrc.quality import measure_stream
from vpxrc.storage import atomic_write, sweep, temporary_folder


@pytest.fixture(autouse=True)
def _looks_again(monkeypatch):
    """A process looks through a folder for stale files once; each test here is a new one."""
    monkeypatch.setattr(storage, "_swept", set())


def put(path: Path, data: bytes = b"frames") -> Path:
    with write_entry(path) as (temporary, note):
        temporary.write_bytes(data)
        note.about = {"length": len(data)}
    return path


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# Writes


def test_a_file_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    calls: list[tuple[str, str]] = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor):
        calls.append(("fsync", os.readlink(f"/proc/self/fd/{descriptor}")))
        fsync(descriptor)

    def renamed(self, target):
        calls.append(("rename", str(target)))
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", renamed)
    target = tmp_path / "summary.json"
    with atomic_write(target) as temporary:
        temporary.write_text("1")
    assert calls == [
        ("fsync", str(temporary)),
        ("rename", str(target)),
        ("fsync", str(tmp_path)),
    ]


KILLED = """
import os, signal, sys
from pathlib import Path
from vpxrc.storage import atomic_write, temporary_folder
with temporary_folder() as folder, atomic_write(Path(sys.argv[1]) / "out.webm") as temporary:
    temporary.write_bytes(b"half")
    (folder / "half").write_bytes(b"half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_what_a_killed_process_leaves_is_removed_and_nothing_else(tmp_path, monkeypatch):
    outputs, scratch = tmp_path / "outputs", tmp_path / "scratch"
    outputs.mkdir()
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setattr("tempfile.tempdir", None)
    killed = subprocess.run([sys.executable, "-c", KILLED, str(outputs)])
    assert killed.returncode == -signal.SIGKILL
    assert len(names(outputs)) == len(names(scratch)) == 1
    (outputs / ".notes.tmp").touch()
    (outputs / ".vpxrc-mine.tmp").touch()
    (scratch / "vpxrc-notes").mkdir()
    with atomic_write(outputs / "alive") as mine:
        mine.write_bytes(b"whole")
        storage._swept.clear()
        with atomic_write(outputs / "other.webm") as temporary:
            temporary.write_bytes(b"other")
        assert mine.exists()
    assert names(outputs) == [".notes.tmp", ".vpxrc-mine.tmp", "alive", "other.webm"]
    with temporary_folder() as folder:
        assert names(scratch) == sorted([folder.name, "vpxrc-notes"])
    assert names(scratch) == ["vpxrc-notes"]


KILLED_PROBE = """
import os, signal, sys
from pathlib import Path
from vpxrc import storage
storage.sync = lambda path: path.is_dir() and os.kill(os.getpid(), signal.SIGKILL)
storage.check_writable(Path(sys.argv[1]))
"""


def test_what_a_killed_look_at_a_folder_leaves_is_removed(tmp_path):
    killed = subprocess.run([sys.executable, "-c", KILLED_PROBE, str(tmp_path)])
    assert killed.returncode == -signal.SIGKILL
    assert len(names(tmp_path)) == 1
    storage.check_writable(tmp_path)
    assert not names(tmp_path)


def test_a_number_that_another_process_has_now_counts_as_dead(tmp_path):
    with atomic_write(tmp_path / "file") as temporary:
        temporary.touch()
        kind, number, start, *rest = temporary.name.split("-")
        reused = tmp_path / "-".join([kind, number, str(int(start) + 1), *rest])
        reused.touch()
        storage._swept.clear()
        sweep(tmp_path)
        assert temporary.exists() and not reused.exists()


def test_another_machines_temporaries_are_removed_after_a_week(tmp_path):
    old, new = (tmp_path / f".vpxrc-1-1-0123abcd-{digit * 12}.tmp" for digit in "01")
    for path in (old, new):
        path.touch()
    os.utime(old, (0, time.time() - 8 * 86400))
    sweep(tmp_path)
    assert names(tmp_path) == [new.name]


def test_without_proc_nothing_counts_as_dead(tmp_path, monkeypatch):
    """As in a chroot: other processes may be alive."""
    with atomic_write(tmp_path / "file") as other:
        other.touch()

        def none(pid):
            raise FileNotFoundError("/proc")

        monkeypatch.setattr(storage, "_start_time", none)
        storage._swept.clear()
        with atomic_write(tmp_path / "mine") as mine:
            mine.touch()
        assert other.exists()
    assert names(tmp_path) == ["file", "mine"]


# The cache


@pytest.mark.parametrize(
    "damage",
    [
        lambda data: b"",
        lambda data: data[:-1],
        lambda data: bytes(len(data)),
        lambda data: data[:3] + b"X" + data[4:],
        lambda data: data + b"X",
    ],
    ids=["empty", "cut", "zeros", "a byte", "longer"],
)
@pytest.mark.parametrize("note", [False, True], ids=["file", "note"])
def test_a_damaged_entry_is_absent_and_can_be_made_again(tmp_path, damage, note):
    path = put(tmp_path / "frames" / "a")
    assert read_entry(path) == b"frames"
    target = path.with_name("a.json") if note else path
    target.write_bytes(damage(target.read_bytes()))
    assert read_entry(path) is None
    assert open_entry(path) is None
    assert not has_entry(path)
    put(path)
    assert read_entry(path) == b"frames"


@pytest.mark.parametrize("text", ["null", "[]", "{}", '{"size": 6}', "[" * 5000, '{"size": "6"}'])
def test_a_note_that_is_none_is_absent(tmp_path, text):
    path = put(tmp_path / "frames" / "a")
    path.with_name("a.json").write_text(text)
    assert open_entry(path) is None


def test_a_small_entry_is_compared_whenever_it_is_read(tmp_path):
    """A damaged disk changes no time stamp."""
    path = put(tmp_path / "first_pass" / "a")
    before = path.stat()
    path.write_bytes(b"framez")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert read_entry(path) is None


def test_an_entry_is_compared_once_after_something_touched_it(tmp_path):
    path = put(tmp_path / "frames" / "a")
    shutil.copytree(tmp_path / "frames", tmp_path / "copy")
    copy = tmp_path / "copy" / "a"
    facts = json.loads(copy.with_name("a.json").read_text())["facts"]
    entry = open_entry(copy)
    assert entry is not None and entry.about == {"length": 6}
    with entry:
        assert entry.file.read() == b"frames"
    assert json.loads(copy.with_name("a.json").read_text())["facts"] != facts
    assert has_entry(path)


def test_the_limit_is_kept_by_what_was_used_longest_ago(tmp_path, monkeypatch):
    monkeypatch.setenv("VPXRC_CACHE_SIZE", "250")
    (tmp_path / "downloads").mkdir()
    (tmp_path / "downloads" / "clip.mp4").write_bytes(bytes(1000))  # cannot be made again here
    (tmp_path / "downloads" / "clip.mp4.json").write_text("{}")
    paths = [tmp_path / kind / "x" for kind in ("frames", "first_pass", "lessons")]
    for age, path in enumerate(paths[:2]):
        put(path, bytes(100))
        os.utime(path.with_name("x.json"), (0, 1000 + age))
    assert has_entry(paths[0])  # now the second one was used longest ago
    put(paths[2], bytes(100))
    assert [path.exists() for path in paths] == [True, False, True]
    assert names(tmp_path / "first_pass") == []
    put(tmp_path / "frames" / "large", bytes(1000))  # above the limit by itself
    assert names(tmp_path / "frames") == ["large", "large.json"]
    assert names(tmp_path / "downloads") == ["clip.mp4", "clip.mp4.json"]


def test_an_entry_that_is_in_use_stays(tmp_path, monkeypatch):
    monkeypatch.setenv("VPXRC_CACHE_SIZE", "150")
    path = put(tmp_path / "frames" / "mapped", bytes(100))
    entry = open_entry(path)
    assert entry is not None
    with entry:
        frames = np.memmap(entry.file, np.uint8, mode="r")
    program = (
        "import sys; from pathlib import Path; from vpxrc.cache import write_entry\n"
        "with write_entry(Path(sys.argv[1])) as (temporary, _): temporary.write_bytes(bytes(100))"
    )
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", program, str(path.with_name(name))], check=True)
    assert names(tmp_path / "frames") == ["mapped", "mapped.json", "two", "two.json"]
    assert not frames.any()
    del frames
    put(path.with_name("three"), bytes(100))
    assert names(tmp_path / "frames") == ["three", "three.json"]


CUT = """
import os, sys
from pathlib import Path
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from vpxrc.cache import check_not_cut, map_file, open_entry
from vpxrc.errors import InputError

def read(path):
    with open_entry(Path(path)) as entry:
        return map_file(entry.file)

whole, half, page, elsewhere = map(read, sys.argv[1:5])
os.truncate(sys.argv[2], 50_000)
os.truncate(sys.argv[3], 99_999)  # within the last page, where there is no signal
assert (half[:50_000] == 7).all() and not half[53_248:].any()
assert (whole == 7).all()
for data, is_cut in ((whole, False), (half, True), (page, True)):
    for part in (data, data[-1:], data.reshape(10, -1)[3:]):
        try:
            check_not_cut(part, "clip")
        except InputError as error:
            assert is_cut and "clip: another program has cut" in str(error)
        else:
            assert not is_cut
del half, page
again = read(sys.argv[1])
check_not_cut(again, "clip")
print("so far", flush=True)
unknown = np.memmap(sys.argv[4], np.uint8, "r")  # of nobody's concern here
os.truncate(sys.argv[4], 10)
assert elsewhere[-1] == 0
print(unknown[-1])
"""


def test_a_map_survives_when_its_file_is_cut(tmp_path):
    """Zeros take the place of what is gone, and it is told; other maps end the process as ever."""
    paths = [put(tmp_path / "frames" / name, b"\7" * 100_000) for name in "abcd"]
    for option, end in ((), b""), (("-X", "faulthandler"), b"Bus error"):
        for path in paths:
            put(path, b"\7" * 100_000)
        run = subprocess.run(
            [sys.executable, *option, "-c", CUT, *map(str, paths)], capture_output=True
        )
        assert run.stdout == b"so far\n", run.stderr
        assert run.returncode == -signal.SIGBUS and end in run.stderr
    assert [has_entry(path) for path in paths] == [True, False, False, False]


def test_old_files_without_a_note_are_removed(tmp_path, monkeypatch):
    """As an older version and a killed process left them; what is new or no entry stays."""
    folder, downloads = tmp_path / "frames", tmp_path / "downloads"
    downloads.mkdir()
    path = folder / f"{'a' * 64}.i420"
    with write_entry(path) as (temporary, _):
        temporary.write_bytes(b"kept")
    names = [f"{'b' * 64}.i420", f"{'b' * 64}.json", f"{'c' * 64}.i420.json", f"{'d' * 64}.bin"]
    others = [folder / "readme.txt", downloads / f"{'b' * 64}.i420", folder / f"{'e' * 64}.i420"]
    for other in [*others, *(folder / name for name in names)]:
        other.write_bytes(b"12345")
        if other != others[-1]:
            os.utime(other, (1, 1))
    assert clear_cache(tmp_path) == 5 * len(names) + 4
    assert all(other.exists() for other in others)
    assert sorted(folder.iterdir()) == sorted([others[0], others[2]])
    with write_entry(path) as (temporary, _):
        temporary.write_bytes(b"again")
    for name in names:
        (folder / name).write_bytes(b"12345")
        os.utime(folder / name, (1, 1))
    monkeypatch.setattr(cache, "_searched", set())  # as in a new process
    with write_entry(folder / f"{'f' * 64}.i420") as (temporary, _):
        temporary.write_bytes(b"new")
    assert not any((folder / name).exists() for name in names) and path.exists()


FOREIGN = """
import faulthandler, os, signal, sys
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from vpxrc.cache import map_file

maps = []
for step in sys.argv[2]:
    if step == "m":
        with open(sys.argv[1], "rb") as file:
            maps.append(map_file(file))
    elif step == "f":
        faulthandler.enable()
    elif step == "d":
        faulthandler.disable()
    else:
        signal.signal(signal.SIGBUS, lambda *_: print("handled", flush=True))
if sys.argv[3] == "sent":
    os.kill(os.getpid(), signal.SIGBUS)
    print("alive", flush=True)
else:
    other = np.memmap(sys.argv[4], np.uint8, "r")
    os.truncate(sys.argv[4], 10)
    print(other[-1])
"""


@pytest.mark.parametrize("way", ["read", "sent"])
@pytest.mark.parametrize(
    ("steps", "reports"), [("m", 0), ("fm", 1), ("mf", 1), ("mfm", 1), ("mfmfm", 1)]
)
def test_a_signal_of_nobodys_map_ends_the_process_once(tmp_path, steps, reports, way):
    """In whatever order maps and faulthandler come, it reports once and does not loop."""
    for name in ("ours", "other"):
        (tmp_path / name).write_bytes(b"\7" * 9000)
    arguments = [str(tmp_path / "ours"), steps, way, str(tmp_path / "other")]
    run = subprocess.run(
        [sys.executable, "-c", FOREIGN, *arguments], capture_output=True, timeout=60
    )
    assert run.returncode == -signal.SIGBUS and run.stdout == b""
    assert run.stderr.count(b"Fatal Python error: Bus error") == reports


@pytest.mark.parametrize("steps", ["fmd", "mfd", "mfmd", "mfmdm"])
def test_a_read_of_nobodys_map_ends_the_process_after_faulthandler_was_disabled(tmp_path, steps):
    for name in ("ours", "other"):
        (tmp_path / name).write_bytes(b"\7" * 9000)
    arguments = [str(tmp_path / "ours"), steps, "read", str(tmp_path / "other")]
    run = subprocess.run(
        [sys.executable, "-c", FOREIGN, *arguments], capture_output=True, timeout=60
    )
    assert (run.returncode, run.stdout, run.stderr) == (-signal.SIGBUS, b"", b"")


@pytest.mark.parametrize("steps", ["pm", "mp", "mpm"])
def test_a_handler_of_python_has_the_signals_that_are_sent(tmp_path, steps):
    (tmp_path / "ours").write_bytes(b"\7" * 9000)
    arguments = [str(tmp_path / "ours"), steps, "sent"]
    run = subprocess.run(
        [sys.executable, "-c", FOREIGN, *arguments], capture_output=True, timeout=60
    )
    assert (run.returncode, run.stdout) == (0, b"handled\nalive\n"), run.stderr


def test_no_result_comes_of_a_clip_whose_file_is_cut(tmp_path, monkeypatch):
    monkeypatch.setenv("VPXRC_CACHE", str(tmp_path / "cache"))
    write_y4m(make_video(64, 48, 12), tmp_path / "clip.y4m")
    options = EncoderOptions(target_bitrate=60, cpu_used=8)

    def opened() -> tuple[Video, Path]:
        video = open_video(tmp_path / "clip.y4m")
        assert isinstance(video.frames, np.memmap)
        return video, Path(str(video.frames.filename))

    video, path = opened()
    size = path.stat().st_size
    stream = encode(video, options, make_policy("libvpx-vbr")).stream
    for rest in (0, size // 2, size - 1):
        video, path = opened()
        with EncodeSession(video, options) as session:
            os.truncate(path, rest)
            while session.frame is not None:
                session.step(Decision(120))
            with pytest.raises(InputError, match="another program has cut"):
                session.log()
        video, path = opened()  # made again
        os.truncate(path, rest)
        with pytest.raises(InputError, match="another program has cut"):
            first_pass_stats(video, EncoderOptions(target_bitrate=60, cpu_used=7))
        video, path = opened()
        os.truncate(path, rest)
        with pytest.raises(VpxrcError, match=r"another program has cut|ffmpeg measured"):
            measure_stream(stream, video, ("ssim", "vmaf"))
    assert encode(opened()[0], options, make_policy("libvpx-vbr")).stream == stream


@pytest.mark.parametrize(
    ("text", "size"),
    [("", DEFAULT_SIZE), ("5GB", 5 * 10**9), ("1.5 mb", 1_500_000), ("70", 70), ("0", 0)],
)
def test_sizes(monkeypatch, text, size):
    monkeypatch.setenv("VPXRC_CACHE_SIZE", text)
    assert cache_limit() == size


@pytest.mark.parametrize("text", ["much", "-1", "5 GiB", "nan", "1e9"])
def test_what_is_no_size_is_refused(monkeypatch, tmp_path, text):
    monkeypatch.setenv("VPXRC_CACHE_SIZE", text)
    with pytest.raises(InputError, match=r"VPXRC_CACHE_SIZE: .* is not a size such as 5GB"):
        put(tmp_path / "frames" / "a")


# Tables

_NO_THREADS = """
import os, sys
import numpy as np, pandas as pd
import pyarrow.parquet  # has a thread of its own for memory
from vpxrc.storage import read_frame, write_frame

before = set(os.listdir("/proc/self/task"))
frame = pd.DataFrame({"q": np.arange(3000), "psnr": np.arange(3000) / 7, "clip": ["a", "b"] * 1500})
write_frame(frame, sys.argv[1])
read = read_frame(sys.argv[1])
print(len(set(os.listdir("/proc/self/task")) - before))
pd.testing.assert_frame_equal(read, pd.read_parquet(sys.argv[1]), check_exact=True)
pd.testing.assert_frame_equal(read, frame, check_exact=True)
"""


def test_tables_need_no_threads(tmp_path):
    """Where no thread can be started, Arrow's reader raises or waits for ever."""
    command = [sys.executable, "-c", _NO_THREADS, str(tmp_path / "table.parquet")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert (done.stdout.strip(), done.returncode) == ("0", 0), done.stderr


@pytest.mark.parametrize("note", [b"{", b'{"columns": [{"name": "a"}]}', b"[1]", b"\xff\xfe"])
def test_a_table_is_read_whatever_pandas_noted_in_it(tmp_path, note):
    table = pa.table({"a": [1, 2], "b": ["x", "y"]})
    pq.write_table(table.replace_schema_metadata({b"pandas": note}), tmp_path / "t.parquet")
    frame = storage.read_frame(tmp_path / "t.parquet")
    assert frame.to_dict("list") == {"a": [1, 2], "b": ["x", "y"]}
