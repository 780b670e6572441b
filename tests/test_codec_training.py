"""Training of learned codecs, and the commands `vpxrc codec`."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

torch = pytest.importorskip("torch")
pytest.importorskip("constriction")

# These import torch and constriction.
from test_cli import complaint, run

from vpxrc.codecs import frozen, papers, training
from vpxrc.codecs.bitstream import unpack
from vpxrc.codecs.classical import CLASSICAL
from vpxrc.codecs.codec import load_codec, read_checkpoint, save_checkpoint
from vpxrc.codecs.distiller import Distiller, up_blocks
from vpxrc.codecs.model import Moment
from vpxrc.codecs.papers import build
from vpxrc.codecs.papers.improved_checkerboard import improved_checkerboard
from vpxrc.codecs.papers.multirate import multirate
from vpxrc.codecs.pictures import Crops, PictureStore, Prefetch, find_pictures, read_picture
from vpxrc.codecs.training import TrainingConfig, TrainingJob, train, train_all
from vpxrc.errors import InputError

SHARED_IMAGES = Path(__file__).parents[2] / "shared" / "images"


@pytest.fixture(scope="module", autouse=True)
def _cache(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VPXRC_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Pictures of blobs, as PNG files."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(0)
    for name in "abc":
        small = rng.integers(0, 256, (12, 15, 3), dtype=np.uint8)
        Image.fromarray(small).resize((180, 165), Image.Resampling.BICUBIC).save(
            folder / f"{name}.png"
        )
    return folder


@pytest.fixture(scope="module")
def source(photos, tmp_path_factory):
    """A corner of one, 45x31."""
    path = tmp_path_factory.mktemp("source") / "s.png"
    Image.open(photos / "a.png").crop((20, 30, 65, 61)).save(path)
    return path


def tiny_config(**changes):
    values = {"codec": "factorized/small", "steps": 6, "batch": 2, "crop": 64, **changes}
    return TrainingConfig(**values)


# The loader


def test_a_batch_depends_on_its_number_alone(photos):
    store = PictureStore(find_pictures([photos]))
    assert [one.shape for one in store.pictures] == [(165, 180, 3)] * 3
    assert np.array_equal(store.pictures[1], read_picture(photos / "b.png"))
    crops = Crops(store, 64, 5, seed=3)
    batch = crops(7)
    assert batch.shape == (5, 3, 64, 64)
    assert batch.dtype == torch.uint8
    assert torch.equal(Crops(PictureStore(find_pictures([photos])), 64, 5, seed=3)(7), batch)
    assert not torch.equal(crops(8), batch)
    assert not torch.equal(Crops(store, 64, 5, seed=4)(7), batch)
    with Prefetch(crops, 2, 9) as ahead:
        found = dict(ahead)
    assert list(found) == list(range(2, 9))
    assert torch.equal(found[7], batch)


def test_damaged_pictures_of_the_cache_are_decoded_again(photos, tmp_path, monkeypatch):
    monkeypatch.setenv("VPXRC_CACHE", str(tmp_path))
    paths = find_pictures([photos])
    PictureStore(paths)
    (kept,) = (tmp_path / "pictures").glob("*.rgb")
    data = kept.read_bytes()
    assert data == b"".join(read_picture(path).tobytes() for path in paths)
    kept.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    assert np.array_equal(PictureStore(paths).pictures[2], read_picture(paths[2]))
    assert kept.read_bytes() == data


def test_crops_are_mirrored_and_scaled(photos):
    """A ramp shows the scale of a crop, and whether it is mirrored."""
    ramp = np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (160, 1, 3))
    store = PictureStore(find_pictures([photos]))
    store.pictures = [ramp]
    slopes = []
    for number in range(60):
        crop = Crops(store, 64, 1, 0)(number)[0, 0].double()
        slopes.append(float((crop[:, 60] - crop[:, 4]).mean()) / 56)
    sizes = np.abs(slopes)
    assert 0.98 < sizes.min() < 1.2
    assert 1.7 < sizes.max() < 2.05
    assert 15 < sum(slope < 0 for slope in slopes) < 45


def test_an_error_of_the_loader_is_raised(photos):
    store = PictureStore(find_pictures([photos]))
    with pytest.raises(InputError, match="pixels a side"):
        Crops(store, 256, 1, 0)
    broken = Crops(store, 64, 1, 0)
    broken._pictures = [np.zeros((3, 3, 3), np.uint8)]
    with Prefetch(broken, 0, 3) as ahead, pytest.raises(ValueError, match=r"."):
        list(ahead)


def test_pictures_that_cannot_be_read(tmp_path):
    with pytest.raises(InputError, match="no such file"):
        find_pictures([tmp_path / "none"])
    with pytest.raises(InputError, match="no pictures"):
        find_pictures([tmp_path])
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    with pytest.raises(InputError, match="cannot read"):
        read_picture(tmp_path / "a.png")
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="8 bits"):
        read_picture(tmp_path / "b.png")
    Image.new("RGBA", (4, 4)).save(tmp_path / "c.png")
    with pytest.raises(InputError, match="transparency"):
        read_picture(tmp_path / "c.png")
    Image.new("L", (4, 3), 9).save(tmp_path / "d.png")
    assert (read_picture(tmp_path / "d.png") == np.full((3, 4, 3), 9)).all()


# Training


def test_training_learns(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CURVE_EVERY", 10)
    result = train(
        find_pictures([photos]), tmp_path / "a.safetensors", tiny_config(steps=40, rate=2e-3)
    )
    rows = json.loads((tmp_path / "a.curve.json").read_text())
    assert [row["step"] for row in rows] == [10, 20, 30, 40]
    assert rows[-1]["loss"] < 0.5 * rows[0]["loss"]
    assert rows[-1] == result["last"]
    assert result["skipped"] == 0
    assert 0 <= result["waiting"] < 1
    assert [path.name for path in tmp_path.iterdir() if path.suffix == ".state"] == []
    settings = read_checkpoint(tmp_path / "a.safetensors")[1]
    assert json.loads(settings["config"])["steps"] == 40
    picture = read_picture(photos / "a.png")
    codec = load_codec(tmp_path / "a.safetensors")
    done = codec.compress(picture)
    assert np.array_equal(codec.decompress(done.data), done.picture)


KILLED = """
import os, signal, sys
from pathlib import Path
from vpxrc.codecs import training
from vpxrc.codecs.pictures import find_pictures
training.STATE_EVERY, training.CURVE_EVERY = 0.0, 2
config = training.TrainingConfig("factorized/small", steps=6, batch=2, crop=64)
def progress(done, total, words, figures):
    if done == 4:
        os.kill(os.getpid(), signal.SIGKILL)
training.train(find_pictures([Path(sys.argv[1])]), Path(sys.argv[2]), config, progress=progress)
"""


@pytest.fixture(scope="module")
def straight(photos, tmp_path_factory):
    """The checkpoint of a training that nothing has interrupted."""
    path = tmp_path_factory.mktemp("straight") / "straight.safetensors"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "CURVE_EVERY", 2)
        train(find_pictures([photos]), path, tiny_config())
    return path


def curve_of(checkpoint):
    return checkpoint.with_suffix(".curve.json").read_bytes()


def test_a_killed_training_goes_on_to_the_same_curve(photos, straight, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CURVE_EVERY", 2)
    pictures, killed = find_pictures([photos]), tmp_path / "killed.safetensors"
    done = subprocess.run([sys.executable, "-c", KILLED, str(photos), str(killed)], env=os.environ)
    assert done.returncode == -signal.SIGKILL
    assert not killed.exists()
    seen = []
    train(pictures, killed, tiny_config(), progress=lambda done, *_: seen.append(done))
    assert seen == [4, 5, 6]  # the state is that of step 3
    assert curve_of(killed) == curve_of(straight)
    assert load_codec(straight).identity == load_codec(killed).identity


def test_a_training_that_stops_early_leaves_a_checkpoint_and_goes_on(
    photos, straight, tmp_path, monkeypatch
):
    monkeypatch.setattr(training, "CURVE_EVERY", 2)
    pictures, out = find_pictures([photos]), tmp_path / "x.safetensors"
    early = train(pictures, out, tiny_config(), until=4)
    assert early["steps"] == early["last"]["step"] == 4
    assert read_checkpoint(out)[1]["steps"] == "4"
    first = load_codec(out).identity
    assert train(pictures, out, tiny_config(), until=3)["steps"] == 4  # the state has passed it
    assert load_codec(out).identity == first != load_codec(straight).identity
    assert train(pictures, out, tiny_config())["steps"] == 6
    assert load_codec(out).identity == load_codec(straight).identity
    assert curve_of(out) == curve_of(straight)
    assert not (tmp_path / "x.safetensors.state").exists()
    monkeypatch.undo()
    with pytest.raises(InputError, match="begins at step 100"):
        train(pictures, out, tiny_config(), until=4)


def test_a_training_in_half_precision_learns_the_same_and_goes_on(photos, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CURVE_EVERY", 2)
    pictures = find_pictures([photos])
    results = {}
    for name, precision, until in (
        *(("whole", "bfloat16", None), ("cut", "bfloat16", 3), ("cut", "bfloat16", None)),
        ("single", "float32", None),
    ):
        config = tiny_config(codec="checkerboard/small", precision=precision)
        results[name] = train(pictures, tmp_path / f"{name}.safetensors", config, until=until)
    whole, cut, single = (tmp_path / f"{name}.safetensors" for name in ("whole", "cut", "single"))
    assert load_codec(whole).identity == load_codec(cut).identity
    assert curve_of(whole) == curve_of(cut) != curve_of(single)
    assert results["whole"]["last"]["loss"] == pytest.approx(results["single"]["last"]["loss"], 0.1)


def test_a_state_of_another_training_is_refused(photos, tmp_path):
    out = tmp_path / "x.safetensors"
    state = tmp_path / "x.safetensors.state"
    state.write_bytes(b"nothing")
    with pytest.raises(InputError, match="not a state"):
        train(find_pictures([photos]), out, tiny_config())
    training.Learner(tiny_config(), None).save_state(state, "other")
    with pytest.raises(InputError, match="another training"):
        train(find_pictures([photos]), out, tiny_config())
    state.unlink()
    with pytest.raises(InputError, match="multiples of 64"):
        train(find_pictures([photos]), out, tiny_config(codec="raster/small", crop=96))
    save_checkpoint(tmp_path / "other.safetensors", build("octave/small"), "octave/small", {})
    with pytest.raises(InputError, match="has no layer of the transforms"):
        train(find_pictures([photos]), out, tiny_config(), start=tmp_path / "other.safetensors")


def test_a_training_starts_from_the_transforms_of_another_codec(tmp_path):
    torch.manual_seed(1)
    old = build("gained/small")
    save_checkpoint(tmp_path / "old.safetensors", old, "gained/small", {})
    config = tiny_config(codec="gained-checkerboard/small")
    model: Any = training.Learner(config, tmp_path / "old.safetensors").model
    x, quality = torch.rand(1, 3, 64, 64), torch.tensor([0.3])
    with torch.no_grad():
        torch.manual_seed(0)
        mine = model(x, quality)
        torch.manual_seed(0)
        theirs = old(x, quality)
    # The context's network starts with zeros: the same codec, until it is trained.
    assert torch.allclose(mine.x_hat, theirs.x_hat)
    assert torch.allclose(mine.bits["y"], theirs.bits["y"])
    model.latent.y.network.network[-1].weight.data.normal_()
    torch.manual_seed(0)
    assert not torch.allclose(model(x, quality).bits["y"], theirs.bits["y"])


# Trainings of a part


@pytest.fixture(scope="module")
def start(tmp_path_factory):
    path = tmp_path_factory.mktemp("start") / "start.safetensors"
    torch.manual_seed(1)
    save_checkpoint(path, build("mean-scale/small"), "mean-scale/small", {})
    return path


def changed(path, other):
    """Return the first names of the weights that differ."""
    one, two = (read_checkpoint(path)[0].state_dict() for path in (path, other))
    return {name.split(".")[0] for name in one if not torch.equal(one[name], two.get(name))}


def test_a_part_is_trained_alone(photos, start, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CURVE_EVERY", 1)
    config = tiny_config(codec="mean-scale/small", steps=2, part="synthesis")
    train(find_pictures([photos]), tmp_path / "a.safetensors", config, start=start)
    assert changed(start, tmp_path / "a.safetensors") == {"synthesis"}
    config = tiny_config(codec="mean-scale/small", steps=2, part="synthesis.0")
    train(find_pictures([photos]), tmp_path / "b.safetensors", config, start=start)
    before, after = (
        read_checkpoint(path)[0].state_dict() for path in (start, tmp_path / "b.safetensors")
    )
    different = [name for name in before if not torch.equal(before[name], after[name])]
    assert different == ["synthesis.0.weight", "synthesis.0.bias"]


def test_entropy_models_are_trained_on_the_same_latents(photos, start, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "CURVE_EVERY", 5)
    monkeypatch.setattr(frozen, "BATCHES", 2)
    pictures, out = find_pictures([photos]), tmp_path / "c.safetensors"
    config = tiny_config(codec="checkerboard/small", steps=20, part="latent", rate=3e-3)
    result = train(pictures, out, config, start=start)
    rows = json.loads((tmp_path / "c.curve.json").read_text())
    assert rows[-1]["bpp"] < 0.9 * rows[0]["bpp"]
    assert "mse" not in result["last"]
    ours: Any = load_codec(out).model
    theirs = load_codec(start).model
    for part in ("analysis", "synthesis"):
        weights = zip(*(getattr(one, part).parameters() for one in (ours, theirs)), strict=True)
        assert all(torch.equal(one, other) for one, other in weights)
    crops = Crops(PictureStore(pictures), 64, 2, 0)
    latents = frozen.FrozenLatents(ours.analysis, crops)
    assert torch.equal(latents(1), ours.analysis(crops(1).float() / 255))
    assert latents(3) is latents(1)
    y = latents(0)
    torch.manual_seed(0)
    bpp = frozen.rate(ours, y)[1]["bpp"]
    torch.manual_seed(0)
    bits = sum(float(one.sum()) for one in ours.latent(y)[1].values())
    assert bpp == pytest.approx(bits / (2 * 64 * 64))


def test_parts_that_do_not_fit_are_told(photos, start, tmp_path):
    pictures, out = find_pictures([photos]), tmp_path / "x.safetensors"
    for config, given, words in (
        (tiny_config(part="nothing"), start, "are called nothing"),
        (tiny_config(part="latent"), None, "has the other weights"),
        (tiny_config(codec="checkerboard/small", part="synthesis"), start, "does not have"),
        (tiny_config(codec="raster/low", part="latent"), start, "does not have the weights"),
        (tiny_config(codec="multirate/slim", part="latent"), start, "are called latent"),
    ):
        with pytest.raises(InputError, match=words):
            train(pictures, out, config, start=given)
    with pytest.raises(InputError, match="has no teacher"):
        train(
            pictures,
            out,
            tiny_config(codec="checkerboard/small", part="latent"),
            start=start,
            teacher=start,
        )
    with pytest.raises(InputError, match="of the student's widths"):
        train(pictures, out, tiny_config(codec="mean-scale/small"), teacher=start)
    assert list(tmp_path.iterdir()) == []


# Distillation

SMALL = "improved-checkerboard/small"


def test_a_students_loss_has_the_teachers_features(monkeypatch):
    torch.manual_seed(0)
    teacher: Any = improved_checkerboard(8, teacher=True)
    student: Any = improved_checkerboard(8)
    student.load_state_dict(teacher.state_dict(), strict=False)
    x = torch.rand(2, 3, 64, 64)
    # The same weights and the same noise: only the picture differs, by the block that is missing.
    monkeypatch.setattr(torch, "rand_like", lambda y: torch.full_like(y, 0.3))
    distiller = Distiller(student, teacher)
    with torch.no_grad():
        start, found = distiller.objective(x, 0.01, Moment(0, 10))
        half, _ = distiller.objective(x, 0.01, Moment(5, 10))
        own, _ = student.objective(x, 0.01, Moment(0, 10))
        pictures = [model.code(x).x_hat for model in (student, teacher)]
        error = 255**2 * float((pictures[0] - pictures[1]).square().mean())
    assert found["features"] == 0
    assert float(start - own) == pytest.approx(0.01 * error, rel=1e-3)
    assert float(half - own) == pytest.approx(0.55 * 0.01 * error, rel=1e-3)
    assert len(up_blocks(student)) == 3
    with torch.no_grad():
        student.synthesis[0].trunk[0].body[0].weight.add_(0.1)
        loss, moved = distiller.objective(x, 0.01, Moment(0, 10))
    assert moved["features"] > 0
    assert moved["loss"] == pytest.approx(float(loss))
    assert moved["mse"] > 0
    assert not any(one.requires_grad for one in teacher.parameters())
    with pytest.raises(InputError, match="widths"):
        Distiller(improved_checkerboard(12), teacher)


def test_distillation_in_three_steps_that_goes_on_where_it_was(photos, source, tmp_path):
    out = tmp_path / "s.safetensors"
    options = ("--steps", 2, "--batch", 1, "--crop", 64)
    command = ("codec", "distill", SMALL, photos, "--out", out, *options)
    result = run(*command, "--json")
    assert result.exit_code == 0, result.output
    names = ["s.teacher.safetensors", "s.alike.safetensors", "s.safetensors"]
    rows = json.loads(result.stdout)
    assert [Path(row["output"]).name for row in rows] == names
    assert [row["codec"] for row in rows] == [f"{SMALL}-teacher"] * 2 + [SMALL]
    assert rows[2]["last"]["features"] > 0
    # The decoder alone is another one than that of the second codec, so the streams are the same.
    picture = read_picture(source)
    alike, student = load_codec(tmp_path / names[1]), load_codec(out)
    codings = [codec.compress(picture) for codec in (alike, student)]
    streams = [unpack(one.data).streams for one in codings]
    assert streams[0] == streams[1]
    assert not np.array_equal(codings[0].picture, codings[1].picture)
    kept = {name: (tmp_path / name).read_bytes() for name in names}
    out.unlink()
    assert [row["output"] for row in json.loads(run(*command, "--json").stdout)] == [str(out)]
    assert {name: (tmp_path / name).read_bytes() for name in names} == kept
    assert run(*command).stdout == f"{out} is ready.\n"
    assert "another training" in complaint(*command, "--seed", 3)
    assert "small-teacher-teacher" in complaint(
        "codec", "distill", f"{SMALL}-teacher", *command[3:]
    )
    assert "--lambda" in complaint(*command, "--lambda", 0)
    assert {name: (tmp_path / name).read_bytes() for name in names} == kept


def test_a_batch_that_is_not_finite_is_skipped():
    learner = training.Learner(tiny_config(), None)
    before = {name: one.clone() for name, one in learner.model.state_dict().items()}
    with torch.no_grad():
        dict(learner.model.named_parameters())["analysis.0.bias"][0] = torch.inf
    learner.run(torch.zeros(2, 3, 64, 64, dtype=torch.uint8))
    assert learner.skipped == 1
    after = learner.model.state_dict()
    assert all(
        torch.equal(after[name], one) for name, one in before.items() if "analysis.0" not in name
    )


@pytest.mark.parametrize("rate_term", [True, False])
def test_objectives_of_the_multi_rate_codec(rate_term):
    torch.manual_seed(0)
    model = multirate((8, 8, 8, 8), 8, rate_term)
    loss, figures = model.objective(torch.rand(2, 3, 192, 192), 0.0125, Moment(0, 1))
    torch.autograd.backward(loss)
    assert figures["loss"] > 0
    weights: dict[str, Any] = dict(model.named_parameters())
    assert weights["levels.high.prior.biases.0"].grad.abs().sum() > 0
    first = weights["analysis.0.high.0.weight"]
    assert first.grad.abs().sum() > 0
    model.zero_grad()
    rates = model(torch.rand(2, 3, 64, 64), torch.tensor([0.2, 0.9])).bits
    torch.autograd.backward(torch.stack(list(rates.values())).sum())
    # Without a term of rate, the bits train the prior alone.
    assert weights["levels.high.prior.biases.0"].grad.abs().sum() > 0
    assert (first.grad is not None) == rate_term


# Classical codecs


def test_jpeg_2000_has_its_colour_transform():
    data = CLASSICAL["jpeg2000"].encode(np.zeros((64, 64, 3), np.uint8), 30)
    # In the segment COD, after its length, style, progression and layers: ISO 15444-1, A.6.1.
    assert data[data.index(b"\xff\x52") + 8] == 1


@pytest.mark.parametrize("name", CLASSICAL)
def test_classical_codecs_code_better_with_more_bytes(name, photos):
    picture = read_picture(photos / "a.png")[:96, :128]
    codec = CLASSICAL[name]
    sizes, errors = [], []
    for setting in (codec.settings[0], codec.settings[-1]):
        data = codec.encode(picture, setting)
        decoded = codec.decode(data)
        assert decoded.shape == picture.shape
        sizes.append(len(data))
        errors.append(np.square(decoded.astype(float) - picture).mean())
    assert sizes[1] > sizes[0]
    assert errors[1] < errors[0]
    assert errors[1] < 20


# Commands


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory):
    """Codecs with random weights."""
    folder = tmp_path_factory.mktemp("codecs")
    torch.manual_seed(0)
    for name in ("factorized", "multirate"):
        save_checkpoint(folder / f"{name}.safetensors", build(f"{name}/small"), f"{name}/small", {})
    return folder


def test_commands_code_and_decode(source, checkpoints, tmp_path):
    coded, out = tmp_path / "a.vlc", tmp_path / "a.png"
    codec = checkpoints / "multirate.safetensors"
    result = run(
        "codec", "encode", source, "-o", coded, "--codec", codec, "--quality", 0.2, "--json"
    )
    assert result.exit_code == 0, result.output
    facts = json.loads(result.stdout)
    assert facts["bytes"] == coded.stat().st_size
    assert facts["bpp"] == pytest.approx(8 * facts["bytes"] / (45 * 31))
    result = run("codec", "decode", coded, "-o", out, "--codec", codec)
    assert result.stdout == f"{out}: 45x31\n"
    error = np.square(read_picture(out).astype(float) - read_picture(source)).mean()
    assert facts["psnr"] == pytest.approx(10 * np.log10(255**2 / error))
    most = facts["bytes"] + 200
    result = run("codec", "encode", source, "-o", coded, "--codec", codec, "--bytes", most)
    assert result.exit_code == 0, result.output
    assert 0.7 * most < coded.stat().st_size <= most


def test_a_region_is_coded_by_the_command(source, tmp_path):
    coded, out = tmp_path / "a.vlc", tmp_path / "a.png"
    encode = ("codec", "encode", source, "-o", coded, "--codec", "gained-checkerboard-small")
    sizes = []
    for more in ((), ("--roi", "box:8,8,16,16"), ("--roi", "box:8,8,16,16", "--roi-weight", 16)):
        result = run(*encode, "--quality", 0.2, *more, "--json")
        assert result.exit_code == 0, result.output
        facts = json.loads(result.stdout)
        sizes.append(facts["bytes"])
        # The map of qualities, z and y; 4 bytes each for a length and a checksum are the file's.
        assert len(facts["streams"]) == (3 if more else 2)
        assert 0 < facts["bytes"] - sum(facts["streams"]) < 60
        decoded = run("codec", "decode", coded, "-o", out, "--codec", "gained-checkerboard-small")
        assert decoded.stdout == f"{out}: 45x31\n"
    assert sizes == sorted(sizes)
    coded.unlink()
    assert "--roi-weight goes with --roi" in complaint(*encode, "--roi-weight", 3)
    assert "above 1" in complaint(*encode, "--roi", "box:8,8,16,16", "--roi-weight", 1)
    assert "whole picture" in complaint(*encode, "--roi", "box:0,0,45,31")
    assert "reaches beyond" in complaint(*encode, "--roi", "box:40,0,16,16")
    assert "no such file" in complaint(*encode, "--roi", tmp_path / "none.png")
    frames = [Image.fromarray(np.eye(2, dtype=np.uint8)[::turn] * 255) for turn in (1, -1)]
    frames[0].save(tmp_path / "two.gif", save_all=True, append_images=frames[1:])
    assert "2 masks" in complaint(*encode, "--roi", tmp_path / "two.gif")
    assert not coded.exists()


def test_commands_complain_in_one_line(photos, source, checkpoints, tmp_path):
    coded, out = tmp_path / "a.vlc", tmp_path / "a.png"
    factorized, multirate = (
        checkpoints / f"{one}.safetensors" for one in ("factorized", "multirate")
    )
    encode = ("codec", "encode", source, "-o", coded, "--codec")
    assert "has one quality" in complaint(*encode, factorized, "--quality", 0.5)
    assert "between 0 and 1" in complaint(*encode, multirate, "--quality", 1.5)
    assert "exclude" in complaint(*encode, multirate, "--quality", 0.5, "--bpp", 1)
    assert "--bpp is above 0" in complaint(*encode, multirate, "--bpp", 0)
    assert "lowest quality" in complaint(*encode, multirate, "--bytes", 10)
    assert "no such checkpoint" in complaint(*encode, "nothing")
    assert "not a checkpoint" in complaint(*encode, source)
    assert list(tmp_path.iterdir()) == []
    assert run(*encode, factorized).exit_code == 0
    decode = ("codec", "decode", coded, "-o", out, "--codec")
    assert "other weights" in complaint(*decode, multirate)
    assert "ends in .png" in complaint("codec", "decode", coded, "-o", coded, "--codec", factorized)
    data = bytearray(coded.read_bytes())
    data[-5] ^= 1
    coded.write_bytes(data)
    assert "damaged in stream 1" in complaint(*decode, factorized)
    assert "cannot read" in complaint("codec", "decode", "none", "-o", out, "--codec", factorized)
    assert not out.exists()
    train = ("codec", "train", "factorized/small", photos, "--out")
    assert "ends in .safetensors" in complaint(*train, out)
    for text in (0, "x", "1,", "0.5,0.50", "inf", "nan"):
        assert "--lambda" in complaint(*train, tmp_path / "x.safetensors", "--lambda", text)
    table = ("codec", "table", photos, "--out", tmp_path / "table")
    assert "unknown codec" in complaint(*table, "--classical", "gif")
    assert "no codec to measure" in complaint(*table, "--classical", "")
    (tmp_path / "other").mkdir()
    other = shutil.copy(factorized, tmp_path / "other")
    assert "two codecs are called factorized" in complaint(
        *table, "--codec", factorized, "--codec", other, "--classical", ""
    )
    assert not (tmp_path / "table" / "rows").exists()


def test_command_train_and_zoo(photos, tmp_path, monkeypatch):
    out = tmp_path / "c.safetensors"
    options = ("--steps", 2, "--batch", 1, "--crop", 64, "--json")
    result = run("codec", "train", "factorized/small", photos, "--out", out, *options)
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["steps"] == 2
    assert load_codec(out).spec == "factorized/small"
    # All of them together take long: the networks of every width are built in test_codecs.py.
    # All but the first are shipped.
    names = ("octave", "gained-checkerboard", "gained-octave", "multirate")
    few = {name: papers.PAPERS[name] for name in names}
    monkeypatch.setattr(papers, "PAPERS", few)
    listed = json.loads(run("codec", "zoo", "--json").stdout)
    assert [row["codec"] for row in listed["codecs"]] == [
        *(f"octave/{width}" for width in ("small", "medium", "low", "high")),
        *(f"{name}/{width}" for name in names[1:] for width in papers.PAPERS[name].widths),
    ]


def test_several_trainings_are_those_that_run_alone(photos, tmp_path):
    options = ("--steps", 2, "--batch", 1, "--crop", 64, "--json", "--lambda")
    train = ("codec", "train", "factorized/small", photos, "--out")
    result = run(*train, tmp_path / "c.safetensors", *options, "0.01,0.002", "--jobs", 2)
    assert result.exit_code == 0, result.output
    rows = json.loads(result.stdout)
    names = ["c-0.01", "c-0.002"]
    assert [row["output"] for row in rows] == [
        str(tmp_path / f"{name}.safetensors") for name in names
    ]
    assert run(*train, tmp_path / "alone.safetensors", *options, 0.002).exit_code == 0
    alone = load_codec(tmp_path / "alone.safetensors")
    assert load_codec(tmp_path / "c-0.002.safetensors").identity == alone.identity
    assert load_codec(tmp_path / "c-0.01.safetensors").identity != alone.identity


@pytest.mark.xdist_group("ray")
def test_a_training_on_ray_is_the_same(photos, tmp_path, local_ray):
    pictures = tuple(find_pictures([photos]))
    jobs = [
        TrainingJob(pictures, tmp_path / f"{seed}.safetensors", tiny_config(steps=2, seed=seed))
        for seed in range(2)
    ]
    results = train_all(jobs, 2, "local", lambda *_: None)
    assert [row["output"] for row in results] == [str(job.out) for job in jobs]
    train(pictures, tmp_path / "alone.safetensors", jobs[1].config)
    alone = load_codec(tmp_path / "alone.safetensors")
    assert load_codec(jobs[1].out).identity == alone.identity


@pytest.mark.skipif(not (SHARED_IMAGES / "train").is_dir(), reason="no training pictures beside it")
def test_training_pictures_that_are_there_can_be_read():
    paths = find_pictures([SHARED_IMAGES / "train"])
    assert len(paths) == 703
    assert min(read_picture(paths[0]).shape[:2]) == 321
