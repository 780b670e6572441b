"""The claims of the papers at small scale, trained and measured here.

python -m benchmarks.codec_claims ../shared/images/train --test ../shared/images/kodak \\
    --steps 20000 --jobs 2 --out build/claims

Every arm is trained with the same seeds, crops and steps. The cost of a picture is
``J = lambda * MSE + bits per pixel`` with the lambda of its training, from the bytes of real files.
A claim's figure is the mean over pictures, lambdas and seeds of the loss of one arm against
another: the difference of J or of the bits in percent, or of PSNR in dB. It has a bootstrap
interval over the pictures. Entropy models (S8-a, S4-a, S4-b) are trained on the same latents, those
of a codec that is trained already (`--trained`), so bits are compared at equal distortion. The arms
of the claims whose names begin with `added` are that codec with another part, and its training goes
on with it; they have one set of weights for all rates, and are compared at five of them. The noise
floor is the largest difference between the seeds of an arm. What lies below the floor, or whose
interval has 0, is not resolved. A command that was interrupted or killed goes on where it was.
`--list` shows the trainings and the cost of the arms.
"""

import argparse
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.av1_closed_loop import middle
from benchmarks.codec_arms import (
    BITS,
    CLAIMS,
    LATENTS,
    OCTAVE,
    QUALITIES,
    SLIM,
    TRAINED,
    Claim,
    arm_of,
)
from vpxrc.cli.common import progress_bar
from vpxrc.codecs.bitstream import QUALITY_STEPS, unpack
from vpxrc.codecs.channel_mask import ChannelMask
from vpxrc.codecs.codec import Codec, load_codec, save_checkpoint
from vpxrc.codecs.latents import Hyperprior
from vpxrc.codecs.model import TransformModel, VariableModel, from_pixels
from vpxrc.codecs.papers import build, describe
from vpxrc.codecs.papers.gained import Gained
from vpxrc.codecs.papers.multirate import MultiRate, MultiRateCoder, quality_of_bits
from vpxrc.codecs.pictures import Pixels, find_pictures, read_picture
from vpxrc.codecs.training import TrainingConfig, TrainingJob, train_all
from vpxrc.codecs.zoo import checkpoint
from vpxrc.errors import InputError
from vpxrc.evaluation.bd_rate import bd_rate
from vpxrc.parallel import open_workers
from vpxrc.storage import atomic_write, digest, sha256_file

LAMBDAS = (0.0035, 0.0075, 0.015, 0.035)
ENHANCED = (0.15, 0.3, 0.45, 0.6, 0.75, 0.9, 1.0)  # qualities with the enhancement layer
RESAMPLES = 2000
SHIPPED = "gained-checkerboard-small"


Row = dict[str, Any]  # what JSON takes

# Measuring: in the workers


@dataclass(frozen=True)
class Measurement:
    """A checkpoint to be measured on pictures.

    Attributes:
        checkpoint: The file.
        pictures: The files.
        path: Where the rows are kept.
        middle: Width and height of what is coded, the middle of each picture; None for all of it.
    """

    checkpoint: Path
    pictures: tuple[Path, ...]
    path: Path
    middle: tuple[int, int] | None

    def __str__(self) -> str:
        """What errors call it."""
        return str(self.checkpoint)


def measure(job: Measurement) -> list[Row]:
    """Return a row for each picture and setting: bpp, mse, and the bytes of the streams."""
    torch.set_num_threads(1)
    codec = load_codec(job.checkpoint)
    rows: list[Row] = []
    for path in job.pictures:
        picture = read_picture(path)
        if job.middle is not None:
            picture = middle(picture, *job.middle)
        if isinstance(codec.model, MultiRate):
            found = _multi_rate(codec, picture)
        elif isinstance(codec.model, VariableModel):
            found = _variable(codec, picture)
        else:
            found = _single(codec, picture)
        rows += [{"picture": path.name, **row} for row in found]
    return rows


def _row(setting: str, picture: Pixels, decoded: Pixels, streams: Sequence[bytes]) -> Row:
    error = float(np.square(picture.astype(np.float64) - decoded).mean())
    sizes = [len(stream) for stream in streams]
    bpp = 8 * sum(sizes) / (picture.shape[0] * picture.shape[1])
    return {"setting": setting, "bpp": bpp, "mse": error, "streams": sizes}


def _single(codec: Codec, picture: Pixels) -> list[Row]:
    coded = codec.compress(picture)
    assert np.array_equal(codec.decompress(coded.data), coded.picture)
    streams = unpack(coded.data).streams
    row = _row("", picture, coded.picture, streams)
    latent = codec.model.latent if isinstance(codec.model, TransformModel) else None
    if isinstance(latent, Hyperprior) and latent.y.skip_zeros:
        mask, _ = ChannelMask.unpack(streams[-1], latent.y_channels)
        row["zero_channels"] = 1 - len(mask.kept) / mask.channels
    return [row]


def _variable(codec: Codec, picture: Pixels) -> list[Row]:
    """Return a row for each quality at which arms are compared."""
    assert isinstance(codec.model, VariableModel)
    latent = codec.model.latent.coder() if isinstance(codec.model, Gained) else None
    rows, sides = [], [-(-side // 64) * 4 for side in picture.shape[:2]]  # of the latent
    for quality in QUALITIES:
        coded = codec.compress(picture, quality)
        assert np.array_equal(codec.decompress(coded.data), coded.picture)
        streams = unpack(coded.data).streams
        row = _row(f"{quality:g}", picture, coded.picture, streams)
        if latent is not None:
            values = latent.decode(streams, sides[0], sides[1])[0].abs().flatten(1)
            row["zero_channels"] = float((values < 0.5).all(1).float().mean())
        rows.append({**row, "trade_off": codec.model.trade_off(quality)})
    return rows


@torch.no_grad()
def _multi_rate(codec: Codec, picture: Pixels) -> list[Row]:
    """Return the base alone at each B and quality, and with the enhancement."""
    model = codec.model
    assert isinstance(model, MultiRate)
    rows = []
    height, width = (side - side % model.multiple for side in picture.shape[:2])
    cut = np.ascontiguousarray(picture[:height, :width])
    pixels = torch.from_numpy(cut.transpose(2, 0, 1).copy())
    latent, coder = model.latent(from_pixels(pixels)), MultiRateCoder(model)
    for quality in sorted({*ENHANCED, *map(quality_of_bits, BITS)}):
        streams, decoded = coder.encode_base(latent, round(quality * QUALITY_STEPS))
        row = _row(f"{quality:g}", cut, decoded.numpy().transpose(1, 2, 0), streams)
        rows.append({**row, "trade_off": model.trade_off(quality)})
    for quality in ENHANCED:
        coded = codec.compress(cut, quality)
        parts = unpack(coded.data).streams
        rows.append(_row(f"enhanced {quality:g}", cut, coded.picture, parts))
    return rows


# Comparing


def costs(rows: list[Row], setting: str, weight: float) -> NDArray[np.float64]:
    """Return J of each picture at a setting; a codec of variable quality has its own lambda."""
    found = [
        row.get("trade_off", weight) * row["mse"] + row["bpp"]
        for row in rows
        if row["setting"] == setting
    ]
    return np.array(found)


def bits(rows: list[Row], setting: str) -> NDArray[np.float64]:
    """Return the bits per pixel of each picture at a setting."""
    return np.array([row["bpp"] for row in rows if row["setting"] == setting])


def psnrs(rows: list[Row], setting: str) -> NDArray[np.float64]:
    """Return the PSNR of each picture at a setting, in dB."""
    found = [10 * np.log10(255**2 / row["mse"]) for row in rows if row["setting"] == setting]
    return np.array(found)


def interval(values: NDArray[np.float64]) -> tuple[float, float]:
    """Return the 95 % bootstrap interval of the mean over pictures."""
    draws = np.random.default_rng(0).integers(0, len(values), (RESAMPLES, len(values)))
    low, high = np.percentile(values[draws].mean(axis=1), (2.5, 97.5))
    return float(low), float(high)


def verdict(mean: float, low: float, high: float, floor: float, margin: float) -> str:
    """Return ``holds``, ``does not`` or ``not resolved``; negative differences favour the claim."""
    # One seed has no floor, but NaN.
    if not abs(mean - margin) > floor or low <= margin <= high:
        return "not resolved"
    return "holds" if mean < margin else "does not"


Rows = dict[tuple[str, float, int], list[Row]]  # by arm, lambda and seed


def compare(claim: Claim, rows: Rows, weights: Sequence[float], seeds: Sequence[int]) -> Row:
    """Return the figures of a claim."""
    points = [(weight, "") for weight in weights]
    if claim.qualities:
        points = [(0.0, f"{quality:g}") for quality in claim.qualities]

    def cost(arm: str, seed: int) -> NDArray[np.float64]:
        """Return what is compared, by point and picture."""
        if claim.of == "PSNR":
            return np.array([psnrs(rows[arm, key, seed], setting) for key, setting in points])
        if claim.of == "bits":
            return np.array([bits(rows[arm, key, seed], setting) for key, setting in points])
        return np.array([costs(rows[arm, key, seed], setting, key) for key, setting in points])

    def loss_of(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return the loss of the first arm: percent, or dB."""
        loss = b - a if claim.of == "PSNR" else 100 * (a / b - 1)
        return np.asarray(loss.mean(axis=0))

    by_seed = [loss_of(cost(claim.test, seed), cost(claim.anchor, seed)) for seed in seeds]
    difference = np.mean(by_seed, axis=0)
    floor = max(
        (
            abs(float(loss_of(cost(arm, a), cost(arm, b)).mean()))
            for arm in (claim.test, claim.anchor)
            for a in seeds
            for b in seeds
            if a < b
        ),
        default=float("nan"),
    )
    mean, (low, high) = float(difference.mean()), interval(difference)
    return {
        "claim": claim.words,
        "test": claim.test,
        "anchor": claim.anchor,
        "unit": "dB" if claim.of == "PSNR" else f"percent of {claim.of}",
        "loss": mean,
        "interval": [low, high],
        "by_seed": [float(one.mean()) for one in by_seed],
        "noise_floor": floor,
        "bd_rate": _bd_rates(claim, rows, points, seeds),
        "verdict": verdict(mean, low, high, floor, claim.margin),
    }


def _bd_rates(
    claim: Claim, rows: Rows, points: Sequence[tuple[float, str]], seeds: Sequence[int]
) -> list[float | None]:
    """Return the BD-rate in PSNR for each seed."""

    def curve(arm: str, seed: int) -> tuple[list[float], list[float]]:
        at = [(rows[arm, key, seed], setting) for key, setting in points]
        return (
            [float(bits(*one).mean()) for one in at],
            [float(psnrs(*one).mean()) for one in at],
        )

    return [bd_rate(*curve(claim.anchor, seed), *curve(claim.test, seed)).percent for seed in seeds]


def shares(rows: Rows, weights: Sequence[float], seeds: Sequence[int]) -> dict[str, float]:
    """Return the share of the latent's bytes that are in its low part, by arm (S10-c)."""
    found = {}
    for arm in (f"{OCTAVE}/small", "ablation/octave-quarter", "ablation/octave-three-quarters"):
        streams = np.array(
            [row["streams"] for w in weights for s in seeds for row in rows[arm, w, s]]
        )
        # The streams are z high, z low, y low and y high.
        found[arm] = float(streams[:, 2].sum() / streams[:, 2:].sum())
    return found


def zero_channels(rows: Rows) -> dict[str, float]:
    """Return the mean share of channels that are zero in a picture, by arm (S7-b, S4-c)."""
    shares: dict[str, list[float]] = {}
    for (arm, _, _), found in rows.items():
        shares.setdefault(arm, []).extend(
            row["zero_channels"] for row in found if "zero_channels" in row
        )
    return {arm: float(np.mean(one)) for arm, one in shares.items() if one}


def crossing(rows: Rows, seeds: Sequence[int]) -> list[Row]:
    """Return rate and PSNR of the base alone and with its enhancement, by quality (S9-c)."""
    found = []
    every = [row for seed in seeds for row in rows[SLIM, 0.0, seed]]
    for quality in ENHANCED:
        row: dict[str, float] = {"quality": quality}
        for kind, setting in (("base", f"{quality:g}"), ("enhanced", f"enhanced {quality:g}")):
            row[f"{kind}_bpp"] = float(bits(every, setting).mean())
            row[f"{kind}_psnr"] = float(psnrs(every, setting).mean())
        found.append(row)
    return found


Key = tuple[str, float, int]  # arm, lambda (0 for multi-rate arms) and seed


def trainings(
    given: argparse.Namespace, claims: dict[str, Claim], pictures: tuple[Path, ...]
) -> dict[Key, TrainingJob]:
    """Return the trainings that claims need; each comes after those that it starts from."""
    found: dict[Key, TrainingJob] = {}
    trained = checkpoint(given.trained)

    def add(name: str, weight: float, seed: int) -> Path:
        arm = arm_of(name)
        if name == LATENTS:
            return _fixed_latents(given, weight)
        if name == TRAINED:  # it is there, and is measured alone
            found[name, weight, seed] = TrainingJob(pictures, trained, TrainingConfig(name))
            return trained
        start, teacher = (
            (trained if other == TRAINED else add(other, weight, seed)) if other else None
            for other in (arm.start, arm.teacher)
        )
        file = f"{name.replace('/', '-').replace(' ', '-')}-{weight:g}-{seed}.safetensors"
        config = TrainingConfig(
            *(arm.codec, weight or 0.0125, given.steps, given.batch, given.crop),
            rate=arm.rate,
            seed=seed,
            part=arm.part,
            precision=given.precision,
        )
        out: Path = given.out / "codecs" / file
        found[name, weight, seed] = TrainingJob(pictures, out, config, start=start, teacher=teacher)
        return out

    for claim in claims.values():
        for arm in (claim.test, claim.anchor):
            for weight in (0.0,) if claim.qualities else given.lambdas:
                for seed in given.seeds:
                    add(arm, weight, seed)
    return found


def _fixed_latents(given: argparse.Namespace, weight: float) -> Path:
    """Write a codec with one quality of ``--trained``, the one that has this lambda."""
    out: Path = given.out / "codecs" / f"latents-{weight:g}.safetensors"
    if not out.exists():
        gained = load_codec(checkpoint(given.trained)).model
        model = build(LATENTS)
        if not (isinstance(gained, Gained) and isinstance(model, TransformModel)):
            raise InputError(f"{given.trained} is not of the codec gained")
        model.analysis, model.synthesis = gained.transforms(gained.quality_of(weight))
        side = {
            name: value
            for name, value in gained.latent.state_dict().items()
            if not name.startswith("y.")
        }
        model.latent.load_state_dict({**model.latent.state_dict(), **side})
        save_checkpoint(out, model, LATENTS, {})
    return out


def train_missing(given: argparse.Namespace, work: dict[Key, TrainingJob]) -> None:
    """Do the trainings that are not done, first those that others start from."""
    missing = [job for job in work.values() if not job.out.exists()]
    with progress_bar(hidden=False) as bar:
        task = bar.add_task("training", total=None)

        def tell(done: int, total: int | None, words: str, figures: object) -> None:
            bar.update(task, completed=done, total=total, description=words)

        while missing:
            ready = [job for job in missing if all(map(_is_there, (job.start, job.teacher)))]
            train_all(ready, given.jobs, given.ray, tell)
            missing = [job for job in missing if job not in ready]


def _is_there(path: Path | None) -> bool:
    return path is None or path.exists()


def _size(text: str) -> tuple[int, int]:
    width, height = map(int, text.split("x"))
    return width, height


def main(arguments: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("train", type=Path, nargs="+", help="pictures to train on")
    parser.add_argument("--test", type=Path, nargs="+", required=True, help="pictures to measure")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument(
        "--middle", type=_size, metavar="WxH", help="code the middle of each picture alone"
    )
    parser.add_argument("--claims", default="S", help="beginnings of claims, as S10-a")
    parser.add_argument(
        "--trained", default=SHIPPED, help="a trained codec `gained`, that arms start from"
    )
    parser.add_argument("--steps", type=int, default=20_000)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--crop", type=int, default=128)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--lambdas", type=float, nargs="+", default=list(LAMBDAS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--ray", help="address of a Ray cluster")
    parser.add_argument("--list", action="store_true", help="show the trainings and end")
    given = parser.parse_args(arguments)
    beginnings = tuple(given.claims.split(","))
    claims = {name: claim for name, claim in CLAIMS.items() if name.startswith(beginnings)}
    work = trainings(given, claims, tuple(find_pictures(given.train)))
    if given.list:
        for arm in dict.fromkeys(arm for arm, _, _ in work if arm != TRAINED):
            cost = describe(arm_of(arm).codec)
            count = sum(one == arm for one, _, _ in work)
            kmac = cost.encoder_kmac + cost.decoder_kmac
            print(f"{arm:36} {kmac:6.1f} kMAC/pixel, {count} trainings")
        return
    train_missing(given, work)
    rows = _measured(given, work, tuple(find_pictures(given.test)))
    result = {
        "steps": given.steps,
        "seeds": given.seeds,
        "lambdas": given.lambdas,
        "claims": {
            name: compare(claim, rows, given.lambdas, given.seeds) for name, claim in claims.items()
        },
    }
    if "S10-c, a quarter" in claims:
        result["share_of_bytes_in_the_low_part"] = shares(rows, given.lambdas, given.seeds)
    result["zero_channels"] = zero_channels(rows)
    if any(name.startswith("S9") for name in claims):
        result["enhancement"] = crossing(rows, given.seeds)
    with atomic_write(given.out / "claims.json") as temporary:
        temporary.write_text(json.dumps(result, indent=1) + "\n")
    for name, found in result["claims"].items():
        low, high = found["interval"]
        print(
            f"{name:28} {found['loss']:+7.2f} {found['unit']} [{low:+.2f}, {high:+.2f}], noise "
            f"floor {found['noise_floor']:.2f}: {found['verdict']}"
        )


def _measured(
    given: argparse.Namespace,
    work: dict[Key, TrainingJob],
    pictures: tuple[Path, ...],
) -> Rows:
    """Return the rows of all checkpoints; those in the folder are not measured again."""
    jobs = {}
    for key, job in work.items():
        hashes = [sha256_file(job.out), [sha256_file(path) for path in pictures]]
        name = digest([*hashes, given.middle] if given.middle else hashes)[:24]
        path = given.out / "rows" / f"{name}.json"
        jobs[key] = Measurement(job.out, pictures, path, given.middle)
    missing = list({one for one in jobs.values() if not one.path.exists()})
    if missing:
        with open_workers(min(given.jobs, len(missing)), given.ray) as workers:
            for done, rows in workers.unordered(measure, missing):
                with atomic_write(done.path) as temporary:
                    temporary.write_text(json.dumps(rows))
    return {key: json.loads(one.path.read_text()) for key, one in jobs.items()}


if __name__ == "__main__":
    main()
