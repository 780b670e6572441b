"""What vpxrc puts out, as hashes: streams, observations, rewards, searches, files and pages.

``tests/golden.json`` keeps them, and ``tests/test_golden.py`` computes them again and compares.
A change that is not meant to change any output leaves the file alone. After one that is meant to,

    python -m tests.golden [GROUP ...]

writes the file again, all of it or some groups, and prints the names of what has changed.

An entry's class says on which other machines it has to be the same:

- ``integer``: on all. libvpx's streams under its own rate control and at a constant q.
- ``float``: with the same numpy, processor features and C library, whose last bits decide what a
  network or a model says.
- ``muxed``: with the same ffmpeg, which writes WebM.
- ``audio``: with both, since ffmpeg codes the sound.
- ``drawn``: as ``float``, and with the same libraries that draw.

Each machine has a cache of its own for these tests, so nothing comes from an older first pass.
libvpx-q takes seven encodes per result, so only one clip has it.
"""

import contextlib
import ctypes
import dataclasses
import hashlib
import importlib.metadata
import itertools
import json
import math
import os
import platform
import re
import subprocess
import sys
import tempfile
import wave
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import gymnasium
import imageio_ffmpeg
import numpy as np
import pandas as pd
from plotly.offline import get_plotlyjs
from safetensors.numpy import save as save_tensors
from typer.testing import CliRunner

# --- What may move or be renamed: all of vpxrc that is used here, under the tests' own names ---
from vpxrc import EncoderOptions, encode, make_policy, video_from_frames
from vpxrc.agents.checkpoints import checkpoint_metadata
from vpxrc.agents.imitation.dataset import observe as imitation_lessons
from vpxrc.agents.muzero.config import MuZeroConfig
from vpxrc.agents.muzero.network import Network as MuZeroNetwork
from vpxrc.agents.muzero.network import Trained as MuZeroTrained
from vpxrc.agents.muzero.network import shapes as muzero_shapes
from vpxrc.agents.rllib.policy import FORMAT as RLLIB_FORMAT
from vpxrc.agents.teacher import search
from vpxrc.agents.teacher.search import SearchOptions
from vpxrc.agents.teacher.trajectory import Trajectory
from vpxrc.cli import app
from vpxrc.datasets import load_clips
from vpxrc.dependency import analyse
from vpxrc.envs import (  # registers the environments too
    OBSERVATION,
    FirstRows,
    GainReward,
    HistoricalOpponent,
    LagrangianReward,
    PsnrReward,
    SelfCompetition,
)
from vpxrc.envs import ResidualConfig as ResidualConfig
from vpxrc.policies.replay import Replay

POLICIES = {  # neutral name: spec
    "libvpx-vbr": "libvpx-vbr",
    "libvpx-vbr-mlarf": "libvpx-vbr-mlarf",
    "libvpx-q": "libvpx-q",
    "libvpx-q-mlarf": "libvpx-q-mlarf",
    "constant-q": "constant-q:120",
    "layered": "layered",
    "dependency": "dependency",
    "imitation-prior": "imitation-prior",
    "imitation": "imitation",
}
DIRECT, DIRECT_CONTINUOUS, RESIDUAL, RESIDUAL_CONTINUOUS = (
    *("vpxrc/RateControl-v2", "vpxrc/RateControlContinuous-v2"),
    *("vpxrc/ResidualRateControl-v1", "vpxrc/ResidualRateControlContinuous-v1"),
)
BASE, OFFSETS = "base", "offsets"  # arguments of the residual environments and of their config
NOT_COMPARED = ("key", "encode_seconds", "cpu_seconds")  # columns of encodes.parquet
# --- End of what may move ---

FILE = Path(__file__).with_name("golden.json")
INTEGER, FLOAT, MUXED, AUDIO, DRAWN = "integer", "float", "muxed", "audio", "drawn"
_ARITHMETIC = ("architecture", "simd", "blas", "libc", "numpy", "scipy")
DEPENDS = {  # class: parts of the machine
    INTEGER: (),
    FLOAT: _ARITHMETIC,
    MUXED: ("ffmpeg",),
    AUDIO: (*_ARITHMETIC, "ffmpeg"),
    DRAWN: (*_ARITHMETIC, "matplotlib", "pillow", "plotly"),
}
EXACT = ("libvpx-vbr", "libvpx-vbr-mlarf", "libvpx-q", "libvpx-q-mlarf", "constant-q")
TARGETS = (64, 144)
FRAMES = {"carphone": 80, "bikes": 48, "bigbuckbunny": 48}  # the first ones
FAST = EncoderOptions(cpu_used=8)

Entries = dict[str, dict[str, object]]


def entry(kind: str, value: object) -> dict[str, object]:
    return {"class": kind, "value": value}


def machine() -> dict[str, str]:
    """Return all that the classes depend on."""
    simd = np.show_config(mode="dicts")["SIMD Extensions"]
    return {
        "architecture": platform.machine(),
        "simd": " ".join([*simd["baseline"], *simd.get("found", [])]),
        "blas": _blas_kernel(),
        "libc": " ".join(platform.libc_ver()),
        "ffmpeg": imageio_ffmpeg.get_ffmpeg_version(),
        **{
            name: importlib.metadata.version(name)
            for name in ("numpy", "scipy", "matplotlib", "pillow", "plotly")
        },
    }


def _blas_kernel() -> str:
    """Return which kernels numpy's OpenBLAS has chosen for this processor."""
    libraries = sorted(Path(np.__file__).parents[1].glob("numpy.libs/libscipy_openblas*.so"))
    with contextlib.suppress(OSError, AttributeError, IndexError):
        name = ctypes.CDLL(str(libraries[0])).scipy_openblas_get_corename64_
        name.restype = ctypes.c_char_p
        return str(name().decode())
    return "unknown"


# Hashes


def digest(*values: object) -> str:
    """Return a hash of numbers, words, arrays, tables, logs, and what is made of them."""
    found = hashlib.sha256()
    for value in values:
        _feed(found, value)
    return found.hexdigest()


def _feed(found, value) -> None:
    if hasattr(value, "stream"):  # a log
        _feed(found, value.stream)
    elif dataclasses.is_dataclass(value):
        _feed(found, [getattr(value, field.name) for field in dataclasses.fields(value)])
    elif isinstance(value, pd.DataFrame):
        _feed(found, {name: value[name].to_numpy() for name in value.columns})
    elif isinstance(value, dict):
        _feed(found, [[key, value[key]] for key in sorted(value)])
    elif isinstance(value, list | tuple):
        found.update(b"[%d" % len(value))
        for one in value:
            _feed(found, one)
    elif isinstance(value, np.ndarray | np.generic):
        array = np.asarray(value)
        if array.dtype.names:
            _feed(found, {name: array[name] for name in array.dtype.names})
        elif array.dtype == object:
            _feed(found, array.tolist())
        else:
            found.update(f"{array.dtype.str}{array.shape}".encode())
            found.update(np.ascontiguousarray(array).tobytes())
    elif isinstance(value, bytes):
        found.update(b"b%d:" % len(value) + value)
    elif isinstance(value, np.integer):
        _feed(found, int(value))
    elif value is None or isinstance(value, bool | int | float | str):
        found.update(f"{type(value).__name__}:{value!r};".encode())
    else:
        raise TypeError(f"no hash of {type(value)}")


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def log_entries(name: str, log, kind: str) -> Entries:
    """Return what an encode gave: its stream, and all fields of its log and first pass."""
    fields = log.records.dtype.names
    whole = [field for field in fields if log.records[field].dtype.kind in "iub"]
    rest = {field: log.records[field] for field in fields if field not in whole}
    return {
        name: entry(
            kind,
            {
                "stream_sha256": sha256(log.stream),
                "bits": log.bits,
                "encodes": log.encodes,
                "coded_frames": len(log.records),
                "records": digest({field: log.records[field] for field in whole}),
            },
        ),
        f"{name}/floats": entry(
            FLOAT,
            {
                "psnr": log.psnr,
                "psnr_overall": log.psnr_overall,
                "records": digest(rest),
                "first_pass": digest(log.first_pass),
            },
        ),
    }


# Clips


def sample(name: str, num_frames: int | None = None):
    (clip,) = (clip for clip in load_clips("samples") if clip.name == name)
    if num_frames is not None:
        clip = dataclasses.replace(clip, num_frames=num_frames)
    return clip.open()


def drawn_frames(width: int, height: int, num_frames: int, seed: int = 0):
    """Return I420 frames ``[num_frames, bytes]``: a drifting texture, noise and a scene cut."""
    rng = np.random.default_rng(seed)
    texture = rng.integers(40, 200, (2, height + num_frames, width + num_frames), dtype=np.uint8)
    chroma = 2 * ((width + 1) // 2) * ((height + 1) // 2)
    frames = np.empty((num_frames, width * height + chroma), np.uint8)
    for n in range(num_frames):
        luma = texture[int(n >= num_frames * 2 // 3), n : n + height, n : n + width]
        noise = rng.integers(0, 6, (height, width), dtype=np.uint8)
        frames[n, : width * height] = (luma + noise).ravel()
        frames[n, width * height :] = 128 + (np.arange(chroma) + n) % 16
    return frames


def tiny(num_frames: int = 20, seed: int = 0):
    return video_from_frames(
        drawn_frames(64, 48, num_frames, seed), 64, 48, 30, name=f"tiny{num_frames}-{seed}"
    )


def write_clip(path: Path, width: int, height: int, num_frames: int) -> Path:
    frames = drawn_frames(width, height, num_frames)
    body = b"".join(b"FRAME\n" + frame.tobytes() for frame in frames)
    path.write_bytes(f"YUV4MPEG2 W{width} H{height} F30:1 Ip A1:1 C420jpeg\n".encode() + body)
    return path


def write_film(path: Path, width: int, height: int, num_frames: int) -> Path:
    """Write a clip with a tone, lossless both, in BT.709 of studio range."""
    picture = write_clip(path.with_suffix(".y4m"), width, height, num_frames)
    rate, seconds = 48_000, num_frames / 30
    tone = 8000 * np.sin(np.arange(int(rate * seconds)) * (2 * math.pi * 440 / rate))
    with wave.open(str(path.with_suffix(".wav")), "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(rate)
        sound.writeframes(tone.round().astype("<i2").tobytes())
    command = [imageio_ffmpeg.get_ffmpeg_exe(), "-nostdin", "-v", "error", "-y", "-i", picture]
    command += ["-i", path.with_suffix(".wav"), "-c:v", "ffv1", "-c:a", "pcm_s16le"]
    command += ["-color_range", "tv", "-colorspace", "bt709", "-color_trc", "bt709"]
    command += ["-color_primaries", "bt709", "-fflags", "bitexact", path]
    subprocess.run([*map(str, command)], check=True)
    return path


def vpxrc_command(folder: Path, *arguments: object) -> dict[str, Any]:
    """Run the program in a folder, and return what it printed as JSON."""
    words = [*map(str, arguments), "--json"]
    with contextlib.chdir(folder), mock.patch.object(sys, "argv", ["vpxrc", *words]):
        done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.stderr
    printed: dict[str, Any] = json.loads(done.stdout)
    return printed


# The groups


def streams(clip: str, folder: Path) -> Entries:
    video, found = sample(clip, FRAMES[clip]), Entries()
    for name, spec in POLICIES.items():
        slow = name.startswith("libvpx-q")
        if slow and clip != "carphone":
            continue
        for target in TARGETS[:1] if slow else TARGETS:
            log = encode(video, EncoderOptions(target, cpu_used=5), make_policy(spec))
            kind = INTEGER if name in EXACT else FLOAT
            found |= log_entries(f"stream/{name}/{clip}/{target}", log, kind)
    return found


def replays(folder: Path) -> Entries:
    """The default speed, and a log that is encoded again."""
    video, found = sample("carphone", 60), Entries()
    log = encode(video, EncoderOptions(64), make_policy(POLICIES["imitation"]))
    own = encode(video, EncoderOptions(64), make_policy(POLICIES["libvpx-vbr"]))
    found |= log_entries("replay/imitation/log", log, FLOAT)
    found |= log_entries("replay/libvpx-vbr/log", own, INTEGER)
    for name, logged, kind in (("imitation", log, FLOAT), ("libvpx-vbr", own, INTEGER)):
        for exact in (True, False):
            again = encode(video, FAST, Replay(logged, exact=exact))
            # A replay of imitation's log has not its factors per superblock, which no log keeps.
            assert not exact or kind != INTEGER or again.stream == logged.stream
            found |= log_entries(f"replay/{name}/{'exact' if exact else 'decisions'}", again, kind)
    return found


def play(name: str, env, choose: Callable[[], Any], episodes: int = 2) -> Entries:
    """Play with seeded actions, and return what was seen, paid and told."""
    seen, rewards, infos, streams, pictures = [], [], [], [], []
    for number in range(episodes):
        observation, info = env.reset(seed=7 if number == 0 else None)
        seen.append(observation)
        infos.append(info)
        done = False
        while not done:
            observation, reward, done, _, info = env.step(choose())
            seen.append(observation)
            rewards.append(float(reward))
            infos.append(info)
        streams.append(sha256(env.unwrapped.log.stream))
        pictures.append(env.render())
    env.close()
    parts = seen[0].keys() if isinstance(seen[0], dict) else ()
    observations = {part: digest([one[part] for one in seen]) for part in parts}
    return {
        name: entry(
            FLOAT,
            {
                "observations": observations or digest(seen),
                "rewards": digest(rewards),
                "return": sum(rewards),
                "steps": len(rewards),
                "infos": digest(infos),
                "streams": streams,
            },
        ),
        f"{name}/picture": entry(FLOAT, digest(pictures)),
    }


def direct(continuous: bool, folder: Path) -> Entries:
    rng = np.random.default_rng(1)
    env = gymnasium.make(
        DIRECT_CONTINUOUS if continuous else DIRECT,
        clips=[sample("carphone", 30), tiny(24)],
        target_bitrate=[64, 144],
        cpu_used=8,
        observation="dict",
        render_mode="rgb_array",
        reward=SelfCompetition() if continuous else PsnrReward(),
    )
    name = f"environment/direct{'-continuous' if continuous else ''}"
    if continuous:
        return play(name, env, lambda: rng.uniform(-1, 1, 3))
    return play(name, env, lambda: int(rng.integers(60, 256)))


def residual(kind: str, folder: Path) -> Entries:
    rng, video = np.random.default_rng(2), sample("carphone", 45)
    base = POLICIES["dependency" if kind == "frame" else "imitation"]
    reward = GainReward()
    for target in (48, 64, 144):
        options = EncoderOptions(target, cpu_used=8)
        reward.reference(encode(video, options, make_policy(base)))
    arguments: dict[str, Any] = {
        "clips": [video],
        "target_bitrate": [64, 144],
        BASE: base,
        "decisions": "frame" if kind == "frame" else "group",
        "reward": reward,
        "cpu_used": 8,
        "observation": "columns",
        "render_mode": "rgb_array",
    }
    name = f"environment/residual-{kind}"
    if kind == "continuous":
        env = gymnasium.make(RESIDUAL_CONTINUOUS, reach=0.6, **arguments)
        return play(name, env, lambda: rng.uniform(-1, 1, 2))
    env = gymnasium.make(RESIDUAL, **arguments)
    assert isinstance(env.action_space, gymnasium.spaces.Discrete)
    actions = env.action_space.n
    return play(name, env, lambda: int(rng.integers(actions)))


def vector(folder: Path) -> Entries:
    """Two environments, some episodes each, with the resets between."""
    found = {}
    for name, env_id in (("vector", DIRECT), ("vector-continuous", DIRECT_CONTINUOUS)):
        rng = np.random.default_rng(3)
        env = gymnasium.make_vec(
            env_id,
            num_envs=2,
            observation="dict",
            clips=[tiny(14, seed) for seed in range(2)],
            target_bitrate=[40, 80],
            cpu_used=8,
        )
        first, steps = env.reset(seed=5), []
        for _ in range(40):
            action = rng.integers(256, size=2) if name == "vector" else rng.uniform(-1, 1, (2, 3))
            steps.append(env.step(action))
        env.close()
        columns = ("observations", "rewards", "terminations", "truncations", "infos")
        values: dict[str, Any] = {"reset": digest(first)}
        for place, column in enumerate(columns):
            values[column] = digest([step[place] for step in steps])
        values["return"] = float(sum(step[1].sum() for step in steps))
        found[f"environment/{name}"] = entry(FLOAT, values)
    return found


def rewards(folder: Path) -> Entries:
    """What a few encodes are worth, and the model behind the observations."""
    video, found = tiny(30), {}
    logs = [
        encode(video, dataclasses.replace(FAST, target_bitrate=target), make_policy(spec))
        for spec in (POLICIES["layered"], POLICIES["libvpx-vbr"], POLICIES["dependency"])
        for target in (40, 80)
    ]
    gain, opponent = GainReward(), HistoricalOpponent(0.005)
    for log in logs[:2]:
        gain.reference(log)
        opponent.record(log)
    for name, reward in (
        ("psnr", PsnrReward()),
        ("lagrangian", LagrangianReward()),
        ("self-competition", SelfCompetition()),
        ("self-competition-augmented", SelfCompetition(overshoot_price=0.005)),
        ("opponent", opponent),
        ("gain", gain),
    ):
        found[f"reward/{name}"] = entry(FLOAT, [reward(log) for log in (*logs, *logs)])
    steps: list[Any] = []
    for log in logs:
        coded = np.flatnonzero(log.records["is_shown_again"] == 0).tolist()
        pairs = list(zip(coded, [*coded[1:], len(log.records)], strict=True))
        whole = log.records["group_index"][coded]
        starts = [coded[n] for n in range(len(coded)) if n == 0 or whole[n] != whole[n - 1]]
        groups = list(zip(starts, [*starts[1:], len(log.records)], strict=True))
        steps += [gain.per_step(log, pairs), gain.per_step(log, groups)]
        steps += [gain.so_far(FirstRows(log, b)) for _, b in groups]
    found["reward/gain/steps"] = entry(FLOAT, digest(steps))
    references = [[-1, -1, -1], [0, -1, -1], [0, 1, -1], [2, 1, -1], [3, 2, 1]]
    for version in ("reconstructed", "source"):
        model = analyse(video, [0, 4, 2, 1, 3], references, [60, 80, 90, 120, 120], version=version)
        values = [model, model.flow(), model.q_offset(), model.superblock_scale(1)]
        found[f"dependency-model/{version}"] = entry(FLOAT, digest(values))
    return found


def _residual_config(decisions: str, offsets=None):
    return ResidualConfig(**{BASE: POLICIES["imitation"], "decisions": decisions, OFFSETS: offsets})


def muzero(folder: Path) -> Entries:
    """A network of random numbers, by its own choice and by a search."""
    rng, found = np.random.default_rng(4), {}
    video, options = sample("carphone", 45), EncoderOptions(64, cpu_used=8)
    for decisions in ("group", "frame"):
        problem, config = _residual_config(decisions), MuZeroConfig(hidden=16, width=32)
        shapes = muzero_shapes(len(OBSERVATION), len(problem.actions), config.hidden, config.width)
        tensors = {
            name: rng.normal(0, 0.1 if name.endswith(".bias") else 0.6, shape).astype(np.float32)
            for name, shape in shapes.items()
        }
        tensors["observation_gain"] = np.full(len(OBSERVATION), 4, np.float32)
        trained = MuZeroTrained(
            MuZeroNetwork(tensors), problem, config, frozenset(["0" * 64]), {"cpu_used": 8}
        )
        path = folder / f"muzero-{decisions}.safetensors"
        trained.save(path)
        found[f"muzero/{decisions}/file"] = entry(INTEGER, digest(sorted(tensors.items())))
        for simulations in (0, 8):
            spec = f"muzero:{path}@{simulations}" if simulations else f"muzero:{path}"
            log = encode(video, options, make_policy(spec))
            name = f"muzero/{decisions}/{simulations}"
            found |= log_entries(name, log, FLOAT)
            found[f"{name}/choices"] = entry(FLOAT, _choices(path, simulations, video, log))
    return found


def _choices(path: Path, simulations: int, video, log) -> dict[str, object]:
    """Play the same in the environment; return the actions and what the search counted."""
    trained = MuZeroTrained.load(path)
    arguments = {**dataclasses.asdict(trained.residual), "observation": "columns"}
    env = gymnasium.make(RESIDUAL, clips=[video], target_bitrate=64, cpu_used=8, **arguments)
    observation, _ = env.reset(seed=0)
    actions, visits, weights, done = [], [], [], False
    while not done:
        if simulations:
            searched = trained.network.search(observation[None], simulations, config=trained.config)
            actions.append(int(searched.action[0]))
            visits.append(searched.visits[0].tolist())
            weights += [searched.action_weights, searched.value, searched.qvalues]
        else:
            logits, value = trained.network.predict(trained.network.represent(observation[None]))
            actions.append(int(logits[0].argmax()))
            weights += [logits, value]
        observation, _, done, *_ = env.step(actions[-1])
    env.close()
    assert env.unwrapped.log.stream == log.stream  # the policy and the environment are one
    return {"actions": actions, "visits": digest(visits), "numbers": digest(weights)}


def rllib(folder: Path) -> Entries:
    """Networks of random numbers, decided with in numpy: one of indices, one of amounts."""
    rng, found = np.random.default_rng(5), Entries()
    video, options = sample("carphone", 45), EncoderOptions(64, cpu_used=8)
    for algorithm, activation in (("ppo", "tanh"), ("sac", "relu")):
        problem = _residual_config("frame", ((0, 0), (0.4, 0), (-0.4, 0.2), (0, -0.5)))
        sizes = [len(OBSERVATION), 24, 4]  # four logits, or two means and two deviations
        tensors = {"mean": rng.normal(0, 0.3, sizes[0]), "gain": rng.uniform(0.5, 2, sizes[0])}
        for place, (inputs, outputs) in enumerate(itertools.pairwise(sizes)):
            tensors[f"layers.{place}.weight"] = rng.normal(0, 0.3, (outputs, inputs))
            tensors[f"layers.{place}.bias"] = rng.normal(0, 0.3, outputs)
        settings = {"algorithm": algorithm, "activation": activation, "reach": "0.5"}
        about = checkpoint_metadata(RLLIB_FORMAT, problem, ["0" * 64], **settings)
        path = folder / f"{algorithm}.safetensors"
        small = {name: value.astype(np.float32) for name, value in tensors.items()}
        path.write_bytes(save_tensors(small, about))
        log = encode(video, options, make_policy(f"rllib:{path}"))
        found |= log_entries(f"rllib/{algorithm}", log, FLOAT)
    return found


def command_encode(folder: Path) -> Entries:
    """``vpxrc encode``: containers, sound, chunks, sizes and effort."""
    film, found = write_film(folder / "film.mkv", 96, 80, 75), {}
    exact, learned = POLICIES["libvpx-vbr"], POLICIES["imitation"]
    for name, kind, output, policy, *arguments in (
        ("whole", INTEGER, "a.ivf", exact, "-b", 90, "--two-pass-log", "passes"),
        ("silent", MUXED, "b.webm", exact, "-b", 90, "--no-audio"),
        ("sound", AUDIO, "c.webm", exact, "-b", 90),
        ("chunks", AUDIO, "d.webm", learned, "-b", 90, "--chunk", 1, "--jobs", 2),
        ("size", AUDIO, "e.webm", learned, "--size", 0.03, "--no-audio", "--chunk", 1),
        ("effort", FLOAT, "f.ivf", learned, "-b", 90, "--effort", 12, "--fps", 15),
    ):
        facts = vpxrc_command(
            folder,
            *("encode", film.name, "-o", output, "--policy", policy, "--cpu-used", 8),
            *("--log", f"{name}.parquet", *arguments),
        )
        for changing in ("seconds", "encode_seconds", "output"):
            del facts[changing]
        words = facts.pop("notes")
        table = pd.read_parquet(folder / f"{name}.parquet")
        found[f"encode/{name}/file"] = entry(kind, sha256((folder / output).read_bytes()))
        found[f"encode/{name}/facts"] = entry(AUDIO if kind == AUDIO else FLOAT, facts)
        found[f"encode/{name}/notes"] = entry(AUDIO if kind == AUDIO else FLOAT, words)
        found[f"encode/{name}/frames"] = entry(FLOAT, digest(table))
    found["encode/first-pass"] = entry(FLOAT, sha256((folder / "passes").read_bytes()))
    return found


def command_evaluate(folder: Path) -> Entries:
    """``vpxrc evaluate`` and ``compare``: figures, tables, pictures and pages."""
    write_clip(folder / "clip.y4m", 64, 48, 24)
    found = {}
    for study, agent in (("one", POLICIES["imitation"]), ("two", POLICIES["layered"])):
        summary = vpxrc_command(
            folder,
            *("evaluate", "--agent", agent, "--baseline", POLICIES["libvpx-vbr"], "--out", study),
            *("--clips", "clip.y4m", "--bitrates", "30,60,120,240", "--metrics", "psnr,ssim"),
            *("--cpu-used", 8, "--jobs", 1, "--figures"),
        )
        if study == "two":
            continue
        out = folder / study
        encodes = pd.read_parquet(out / "encodes.parquet").drop(columns=[*NOT_COMPARED])
        own = encodes["policy"] == POLICIES["libvpx-vbr"]
        found["evaluate/streams"] = entry(INTEGER, encodes[own]["stream_sha256"].tolist())
        found["evaluate/encodes"] = entry(FLOAT, _columns(encodes))
        frames = pd.read_parquet(out / "frames.parquet")
        found["evaluate/frames"] = entry(FLOAT, _columns(frames))
        found["evaluate/table"] = entry(FLOAT, sha256((out / "table.md").read_bytes()))
        versions = summary.pop("versions")
        found["evaluate/summary"] = entry(FLOAT, _without_times(summary))
        found |= _page("evaluate/page", out / "report.html", versions)
        for picture in ("rd.png", "frames.png"):
            found[f"evaluate/{picture}"] = entry(DRAWN, sha256((out / picture).read_bytes()))
        for path in sorted((out / "figures").iterdir()):
            hashed = sha256(path.read_bytes())
            found[f"evaluate/figures/{path.name}"] = entry(DRAWN, hashed)
    facts = vpxrc_command(folder, "compare", "one", "two", "--out", "compared.html")
    found["compare/facts"] = entry(FLOAT, facts)
    found |= _page("compare/page", folder / "compared.html", versions)
    return found


def _columns(table: pd.DataFrame) -> dict[str, str]:
    """Return a hash per column, so that a difference has a name."""
    return {name: digest(table[name].to_numpy()) for name in table.columns}


def _without_times(value):
    """Return JSON without what the clock says."""
    if isinstance(value, dict):
        return {key: _without_times(one) for key, one in value.items() if "seconds" not in key}
    return [_without_times(one) for one in value] if isinstance(value, list) else value


def _page(name: str, path: Path, versions: dict[str, str]) -> Entries:
    """Return the parts of a page, without the versions of programs and Plotly's own script."""
    page = path.read_text().replace(get_plotlyjs(), "")
    pattern = r'(<script type="application/json" id="data">)(.*?)(</script>)'
    match = re.search(pattern, page, re.DOTALL)
    assert match
    data = json.loads(match[2])
    page = re.sub(pattern, r"\1\3", page, flags=re.DOTALL)
    for program, version in versions.items():
        row = f"<tr><td>{program}</td><td>{version}</td></tr>"
        assert name.startswith("compare") or row in page
        page = page.replace(row, f"<tr><td>{program}</td><td></td></tr>")
    code = re.findall(r"<(?:style|script)>(.*?)</(?:style|script)>", page, re.DOTALL)
    words = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.DOTALL)
    return {
        f"{name}/words": entry(FLOAT, sha256(words.encode())),
        f"{name}/code": entry(INTEGER, sha256("\n".join(code).encode())),
        f"{name}/plots": entry(FLOAT, digest(data["plots"])),
        f"{name}/viewer": entry(DRAWN, digest(data["viewer"])),
    }


def command_inspect(folder: Path) -> Entries:
    write_clip(folder / "clip.y4m", 96, 80, 40)
    found = {}
    for name in ("imitation", "libvpx-vbr"):
        facts = vpxrc_command(
            folder,
            *("inspect", "clip.y4m", "--out", name, "-b", 80, "--policy", POLICIES[name]),
            *("--cpu-used", 8, "--group", 1),
        )
        found[f"inspect/{name}/facts"] = entry(FLOAT, facts)
        table = pd.read_parquet(folder / name / "dependency.parquet")
        found[f"inspect/{name}/table"] = entry(FLOAT, _columns(table))
        for picture in ("importance.png", "frames.png", "propagation.png"):
            hashed = sha256((folder / name / picture).read_bytes())
            found[f"inspect/{name}/{picture}"] = entry(DRAWN, hashed)
    return found


def teacher(folder: Path) -> Entries:
    """A short search, ``vpxrc teach``, and what imitation learns from its lesson."""
    write_clip(folder / "clip.y4m", 64, 48, 40)
    options = EncoderOptions(60, cpu_used=8)
    asked = SearchOptions(directions=("level", "arf", "leaf_lambda"), max_encodes=14)
    result = search(tiny(40), options, make_policy(POLICIES["dependency"]), asked)
    found = {
        "teacher/search": entry(
            FLOAT,
            {
                "trajectory": _columns(result.trajectory.to_pandas()),
                "stream_sha256": sha256(result.log.stream),
                "encodes": result.encodes,
                "start": dataclasses.asdict(result.start)["bitrate"],
                "found": dataclasses.asdict(result.found)["bitrate"],
                "responses": digest(result.responses),
            },
        )
    }
    facts = vpxrc_command(
        folder,
        *("teach", "clip.y4m", "--bitrates", 60, "--out", "lessons", "--cpu-used", 8),
        *("--directions", "key,inner,arf_lambda", "--jobs", 1),
    )
    del facts["command"]
    (path,) = (folder / "lessons").glob("*.json")
    lesson = json.loads(path.read_text())
    del lesson["source"]
    trajectory, responses = (
        pd.read_parquet(path.with_suffix(f".{part}.parquet"))
        for part in ("trajectory", "responses")
    )
    found["teach/facts"] = entry(FLOAT, facts)
    found["teach/lesson"] = entry(FLOAT, lesson)
    found["teach/trajectory"] = entry(FLOAT, _columns(trajectory))
    found["teach/responses"] = entry(FLOAT, _columns(responses))
    seen = imitation_lessons(
        "clip", tiny(40), options, Trajectory.from_pandas(trajectory), views=2, seed=3
    )
    assert seen[0].groups
    found["teach/imitation"] = entry(FLOAT, [digest(view) for view in seen])
    return found


def grouped(function: Callable[..., Entries], *arguments: object) -> Callable[[Path], Entries]:
    return lambda folder: function(*arguments, folder)


GROUPS: dict[str, Callable[[Path], Entries]] = {
    **{f"streams-{clip}": grouped(streams, clip) for clip in FRAMES},
    "replays": replays,
    "direct": grouped(direct, False),
    "direct-continuous": grouped(direct, True),
    **{f"residual-{kind}": grouped(residual, kind) for kind in ("group", "frame", "continuous")},
    "vector": vector,
    "rewards": rewards,
    "muzero": muzero,
    "rllib": rllib,
    "encode": command_encode,
    "evaluate": command_evaluate,
    "inspect": command_inspect,
    "teacher": teacher,
}


# The comparison


@contextlib.contextmanager
def own_cache(folder: Path):
    """Let nothing come from an older cache; for the processes that are started here too."""
    before = os.environ.get("VPXRC_CACHE")
    os.environ["VPXRC_CACHE"] = str(folder)
    try:
        yield
    finally:
        if before is None:
            del os.environ["VPXRC_CACHE"]
        else:
            os.environ["VPXRC_CACHE"] = before


def compute(group: str, folder: Path) -> Entries:
    """Return a group's entries, as JSON would give them back."""
    work = folder / "work"
    work.mkdir(parents=True)
    with own_cache(folder / "cache"):
        entries: Entries = json.loads(json.dumps(GROUPS[group](work)))
    return entries


def compare(
    computed: Entries, kept: Entries, here: dict[str, str], there: dict[str, str]
) -> tuple[list[str], list[str]]:
    """Return a line for everything that differs, and for everything that cannot be compared.

    Args:
        computed: The entries of a group.
        kept: The same, from the file.
        here: This machine.
        there: The machine that wrote the file.
    """
    differences, skipped = [], []
    for name in sorted(computed.keys() | kept.keys()):
        if name not in kept or name not in computed:
            where = "in golden.json" if name not in kept else "computed any more"
            differences.append(f"{name}: not {where}")
            continue
        ours, theirs = computed[name], kept[name]
        other = [
            f"{part} {here[part]!r} is not {there.get(part)!r}"
            for part in DEPENDS[str(ours["class"])]
            if here[part] != there.get(part)
        ]
        if ours["class"] != theirs["class"]:
            differences.append(f"{name}: of class {ours['class']}, not {theirs['class']}")
        elif other:
            skipped.append(f"{name} ({ours['class']}): {'; '.join(other)}")
        else:
            differences += _differences(name, ours["value"], theirs["value"])
    return differences, skipped


def _differences(name: str, ours: object, theirs: object) -> list[str]:
    if isinstance(ours, dict) and isinstance(theirs, dict):
        return [
            line
            for part in sorted(ours.keys() | theirs.keys())
            for line in _differences(f"{name}: {part}", ours.get(part, ...), theirs.get(part, ...))
        ]
    return [] if ours == theirs else [f"{name}: {ours!r} is not {theirs!r}"]


def main(names: list[str]) -> None:
    """Write the file, or some groups of it."""
    if unknown := [name for name in names if name not in GROUPS]:
        raise SystemExit(f"unknown group {unknown[0]!r}: choose from {', '.join(GROUPS)}")
    here = machine()
    old: dict[str, Any]
    old = json.loads(FILE.read_text()) if FILE.is_file() else {"machine": here, "groups": {}}
    if names and old["machine"] != here:
        raise SystemExit("the other groups were written on another machine: write all")
    kept = {name: old["groups"][name] for name in GROUPS if name in old["groups"]}
    for name in names or GROUPS:
        with tempfile.TemporaryDirectory(prefix="vpxrc-golden-") as folder:
            entries = compute(name, Path(folder))
        differences, skipped = compare(entries, kept.get(name, {}), here, old["machine"])
        print(f"{name}: {len(entries)} entries, {len(differences)} differences", flush=True)
        for line in (*differences, *skipped) if name in kept else ():
            print(f"  {line}")
        kept[name] = entries
    made = {"machine": here, "groups": {name: kept[name] for name in GROUPS if name in kept}}
    FILE.write_text(json.dumps(made, indent=1, sort_keys=True) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
