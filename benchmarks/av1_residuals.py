"""Learned transforms for AV1's intra residuals: the claims of the paper, and AV1's own coder.

python -m benchmarks.av1_residuals photos/ --test kodak/ --out av1-residuals

The blocks are the square luma blocks of AV1, whose residuals `vpxrc codec residuals` records. Each
arm is a block codec, trained on the records of the training pictures. On the test pictures it codes
the same blocks as AV1 at several steps. Its bits are read off at AV1's distortion, for each of
AV1's q indices apart, because the residuals of each one are others.

Everything goes on where it was when the command is run again: records, trainings, and what was
measured.
"""

import argparse
import functools
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.interpolate import PchipInterpolator

from benchmarks.av1_records import Q_INDICES, checked, large, recorded, spread
from vpxrc.codecs.block_coder import steps_around
from vpxrc.codecs.block_training import BlockTraining, model_of, read_block_model, train_blocks
from vpxrc.codecs.papers.adaptive_transform import BlockModel, Design, level_of
from vpxrc.codecs.papers.selected_transform import SelectedDesign, SelectedModel
from vpxrc.codecs.pictures import find_pictures
from vpxrc.codecs.residual_blocks import Blocks, read_blocks
from vpxrc.codecs.selected_coder import coder_of, operations
from vpxrc.codecs.training import prepare_processor
from vpxrc.errors import InputError
from vpxrc.storage import atomic_write, digest

FACTORS = (0.45, 0.55, 0.67, 0.82, 1.0, 1.2)  # of AV1's steps
RESAMPLES = 200
REAL_PICTURES = 2  # whose blocks are written to streams
SINGLE = "one rate"  # the arm of a model for each q index


Models = dict[int | None, BlockModel | SelectedModel]  # by q index; None is for all


@dataclass(frozen=True)
class Arm:
    """Trainings that are compared with others.

    Attributes:
        name: In tables.
        design: Parts of the block codec.
        seed: Of the trainings.
        single: Whether each q index has a model of its own.
        times: How often as many batches it gets as other arms.
    """

    name: str
    design: Design | SelectedDesign
    seed: int = 0
    single: bool = False
    times: int = 1

    def trainings(self, steps: int) -> dict[int | None, BlockTraining]:
        """Return the trainings by their q index; None is for all."""
        wanted: Sequence[int | None] = Q_INDICES if self.single else (None,)
        count = self.times * steps
        return {q: BlockTraining(self.design, count, seed=self.seed, q_index=q) for q in wanted}


BEST = "selected, long"  # ours, and the best that we have
LONG = 8  # times as many batches
AT_8_AND_16 = ("scalar static", "scalar hyperprior", "matrix hyperprior", "modes groups")
AT_16 = (
    "matrix static",
    "matrix context",
    "linear hyperprior",
    "network static",
    "network hyperprior",
)


def arms(sides: Sequence[int]) -> list[Arm]:
    """Return the arms; most are for blocks of 16x16 alone, because trainings take time."""
    found = []
    for side in sides:
        found.append(Arm(BEST, SelectedDesign(side), times=LONG))
        basic = AT_8_AND_16 if side in (8, 16) else ()
        for pair in (*basic, *(AT_16 if side == 16 else ())):
            transform, entropy = pair.split()
            found.append(Arm(pair, Design(side, transform, entropy)))
        if side >= 16:
            found.append(Arm("selected", SelectedDesign(side)))
        if side == 16:
            design = Design(side, "matrix", "hyperprior")
            found.append(Arm("matrix hyperprior, another seed", design, seed=1))
            found.append(Arm(f"matrix hyperprior, {SINGLE}", design, single=True))
    return found


# Blocks of all sides, which take minutes to read.
Read = Callable[[], dict[int, Blocks]]


def checkpoint_of(arm: str, side: int, q_index: int | None, folder: Path) -> Path:
    """Return where an arm's model is; ``q_index`` is None for the model of all rates."""
    words = [str(side), *arm.replace(",", "").split()]
    words += [] if q_index is None else [str(q_index)]
    return folder / f"{'-'.join(words)}.safetensors"


def trained(arm: Arm, read: Read, steps: int, folder: Path) -> Models:
    """Return the models of an arm by q index; what is missing is trained.

    Raises:
        InputError: A checkpoint is another training's.
    """
    models: Models = {}
    for q_index, training in arm.trainings(steps).items():
        path = checkpoint_of(arm.name, arm.design.side, q_index, folder)
        if not path.exists():
            print(f"training {path.name}", flush=True)
            train_blocks(read()[arm.design.side], path, training)
        models[q_index], settings = read_block_model(path)
        if settings["config"] != json.dumps(asdict(training)):
            raise InputError(f"{path}: the checkpoint of another training")
    return models


@dataclass(frozen=True)
class Curve:
    """What blocks of one q index cost, by picture and factor of the step.

    Attributes:
        bits: ``[pictures, factors]``.
        errors: ``[pictures, factors]``, sums of squared errors.
        av1_bits: ``[pictures]``.
        av1_errors: ``[pictures]``.
    """

    bits: NDArray[np.float64]
    errors: NDArray[np.float64]
    av1_bits: NDArray[np.float64]
    av1_errors: NDArray[np.float64]

    def __add__(self, other: "Curve") -> "Curve":
        """Return the curve of both sets of blocks together."""
        return Curve(
            self.bits + other.bits,
            self.errors + other.errors,
            self.av1_bits + other.av1_bits,
            self.av1_errors + other.av1_errors,
        )

    def log_ratio(self, pictures: NDArray[np.int64]) -> float:
        """Return the logarithm of our bits over AV1's, at AV1's distortion, for some pictures.

        Beyond the factors that were tried, and without blocks, the result is not a number.
        """
        bits, errors = self.bits[pictures].sum(0), self.errors[pictures].sum(0)
        if not (bits > 0).all() or not (errors > 0).all():
            return math.nan
        # Two steps have the same error where both leave nothing of the blocks.
        errors, first = np.unique(errors, return_index=True)
        if len(errors) < 2:
            return math.nan
        at = PchipInterpolator(np.log(errors), np.log(bits[first]), extrapolate=False)
        wanted = np.log(self.av1_errors[pictures].sum())
        return float(at(wanted) - np.log(self.av1_bits[pictures].sum()))


def measured(models: Models, blocks: Blocks) -> dict[int, Curve]:
    """Return the curves of an arm by q index."""
    count = int(blocks.pictures.max()) + 1
    found = {}
    for q_index in Q_INDICES:
        part = blocks.take(blocks.q_indices == q_index)
        coder = coder_of(models.get(q_index) or models[None])
        columns = []
        for factor in FACTORS:
            coded = coder.quantize(part, level_of(steps_around(part, factor)))
            error = (coded.decoded.double() - part.residuals).square().sum(1)
            columns.append((by_picture(coded.bits, part, count), by_picture(error, part, count)))
        bits, errors = (np.stack(one, 1) for one in zip(*columns, strict=True))
        own = by_picture(part.bits, part, count), by_picture(part.errors, part, count)
        found[q_index] = Curve(bits, errors, *own)
    return found


def stored(arm: Arm, models: Models, read: Read, facts: Any, folder: Path) -> dict[str, Any]:
    """Return curves by q index, and figures of real bytes, from a file where it is there.

    Args:
        arm: What is measured.
        models: Its models.
        read: Gives the blocks.
        facts: What the blocks depend on, as JSON takes it.
        folder: Of the files.
    """
    weights = [
        float(value.double().square().sum())
        for model in models.values()
        for value in model.state_dict().values()
    ]
    key = digest([weights, facts, FACTORS])
    path = folder / f"{arm.design.side}-{arm.name.replace(', ', '-').replace(' ', '-')}.json"
    note = json.loads(path.read_text()) if path.exists() else {}
    if note.get("key") != key:
        curves = {
            q: {name: getattr(curve, name).tolist() for name in Curve.__dataclass_fields__}
            for q, curve in measured(models, read()[arm.design.side]).items()
        }
        note = {"key": key, "curves": curves}
    if arm.name == BEST and note.get("real") is None:
        note["real"] = real_bytes(models, read()[arm.design.side])
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(note))
    found = {
        int(q): Curve(**{name: np.array(values) for name, values in curve.items()})
        for q, curve in note["curves"].items()
    }
    return {"curves": found, "real": note.get("real")}


def by_picture(values: torch.Tensor, blocks: Blocks, count: int) -> NDArray[np.float64]:
    """Return the sums ``[count]`` of values of blocks."""
    sums = torch.zeros(count, dtype=torch.float64)
    return np.asarray(sums.index_add(0, blocks.pictures, values.double()).numpy())


Curves = dict[int, Curve]  # by q index


def percent(log_ratio: float) -> float | None:
    """Return a logarithm of a ratio in percent; None where it is not a number."""
    return None if math.isnan(log_ratio) else round(100 * float(np.expm1(log_ratio)), 2)


def mean_ratio(curves: Curves, pictures: NDArray[np.int64]) -> float:
    """Return the mean over the q indices of the logarithm of our bits over AV1's."""
    return float(np.mean([curve.log_ratio(pictures) for curve in curves.values()]))


def against(ours: Curves, other: Curves | None) -> list[float | None]:
    """Return percent of bits against AV1 or another arm, and an interval of 95 percent.

    Pictures are drawn with replacement, and the same ones for both. The mean is over the q indices
    at which the distortion is within the factors that were tried, for both; if there is none, the
    figures are None.
    """
    count = len(next(iter(ours.values())).av1_bits)
    every = np.arange(count)
    shared = [
        q
        for q, curve in ours.items()
        if not math.isnan(curve.log_ratio(every))
        and (other is None or not math.isnan(other[q].log_ratio(every)))
    ]
    if not shared:
        return [None, None, None]
    ours = {q: ours[q] for q in shared}
    base = None if other is None else {q: other[q] for q in shared}
    rng = np.random.default_rng(0)

    def difference(pictures: NDArray[np.int64]) -> float:
        return mean_ratio(ours, pictures) - (mean_ratio(base, pictures) if base else 0.0)

    draws = [difference(rng.integers(0, count, count)) for _ in range(RESAMPLES)]
    return [percent(one) for one in (difference(every), *np.nanquantile(draws, [0.025, 0.975]))]


CLAIMS = {
    "S6-a": ("side information saves bits", [("scalar hyperprior", "scalar static")]),
    "S6-b": (
        "a matrix of steps in place of one step saves bits",
        [("matrix static", "scalar static"), ("matrix hyperprior", "scalar hyperprior")],
    ),
    "S6-c": (
        "matrix and side information against networks of three layers",
        [("matrix hyperprior", "network static"), ("matrix hyperprior", "network hyperprior")],
    ),
    "S6-d": (
        "one model for all rates against a model for each",
        [("matrix hyperprior", f"matrix hyperprior, {SINGLE}")],
    ),
    "ours": (
        "parts of ours",
        [
            ("matrix context", "matrix hyperprior"),
            ("linear hyperprior", "matrix hyperprior"),
            ("modes groups", "matrix context"),
            ("modes groups", "matrix hyperprior"),
            ("selected", "modes groups"),
            ("selected", "matrix hyperprior"),
            (BEST, "selected"),
        ],
    ),
    "noise": ("another seed", [("matrix hyperprior, another seed", "matrix hyperprior")]),
}


def real_bytes(models: Models, blocks: Blocks) -> dict[str, float]:
    """Return the real bits of streams over those of the frequencies.

    There is a stream for each of some pictures and q indices. Every one is decoded and compared.
    """
    coder = coder_of(models[None])
    ideal = real = streams = different = 0.0
    for picture in blocks.pictures.unique()[:REAL_PICTURES]:
        for q_index in Q_INDICES:
            part = blocks.take((blocks.pictures == picture) & (blocks.q_indices == q_index))
            if not len(part):
                continue
            level = level_of(steps_around(part, 1.0))
            stream, coded = coder.encode(part, level)
            decoded = coder.decode(stream, part.known, level)
            different += not torch.equal(decoded, coded.decoded)
            ideal, real = ideal + float(coded.bits.sum()), real + 8 * len(stream)
            streams += 1
    ratio = round(100 * (real / ideal - 1), 3)
    return {"streams": streams, "different": different, "percent_over_ideal": ratio}


def tables(
    curves: dict[tuple[int, str], Curves], kinds: dict[tuple[int, str], Arm]
) -> dict[str, Any]:
    """Return all that is reported."""
    rows = []
    for (side, name), found in curves.items():
        every = np.arange(len(found[Q_INDICES[0]].av1_bits))
        rows.append(
            {
                "side": side,
                "arm": name,
                **{str(q): percent(curve.log_ratio(every)) for q, curve in found.items()},
                "mean": against(found, None),
                "operations": operations(model_of(kinds[side, name].design)),
            }
        )
    together = []
    if parts := [found for (_, name), found in curves.items() if name == BEST]:
        whole = {q: sum_of([part[q] for part in parts]) for q in Q_INDICES}
        every = np.arange(len(whole[Q_INDICES[0]].av1_bits))
        figures = {str(q): percent(curve.log_ratio(every)) for q, curve in whole.items()}
        together.append({"arm": BEST, **figures, "mean": against(whole, None)})
    claims = []
    for claim, (words, pairs) in CLAIMS.items():
        for ours, other in pairs:
            for side in sorted({side for side, _ in curves}):
                if (side, ours) in curves and (side, other) in curves:
                    change = against(curves[side, ours], curves[side, other])
                    claims.append(
                        {"claim": claim, "words": words, "arm": ours, "against": other}
                        | {"side": side, "percent": change}
                    )
    return {"against_av1": rows, "all_sizes": together, "claims": claims}


def markdown(result: dict[str, Any]) -> str:
    """Return the tables of a result."""
    heads = ["blocks", "arm", *(f"q {q}" for q in Q_INDICES), "mean", "encoder", "decoder"]
    rows = [heads, ["---"] * len(heads)]
    for row in (*result["against_av1"], *result["all_sizes"]):
        work = row.get("operations", {})
        rows.append(
            [
                f"{row['side']}x{row['side']}" if "side" in row else "all",
                row["arm"],
                *(shown(row[str(q)]) for q in Q_INDICES),
                interval(row["mean"]),
                *(f"{work[end]:.0f}" if work else "" for end in ("encoder", "decoder")),
            ]
        )
    heads = ["claim", "arm", "against", "blocks", "bits, %"]
    claims = [heads, ["---"] * len(heads)]
    for row in result["claims"]:
        where = f"{row['side']}x{row['side']}"
        what = [row["claim"], row["arm"], row["against"], where]
        claims.append([*what, interval(row["percent"])])
    parts = ["\n".join(f"| {' | '.join(cells)} |" for cells in part) for part in (rows, claims)]
    return "\n\n".join(parts) + "\n"


def shown(figure: float | None) -> str:
    """Return a figure with its sign."""
    return "beyond" if figure is None else f"{figure:+.1f}"


def interval(figures: Sequence[float | None]) -> str:
    """Return a mean with its interval."""
    mean, low, high = map(shown, figures)
    return f"{mean} ({low} to {high})"


def sum_of(curves: Sequence[Curve]) -> Curve:
    """Return the curve of all blocks together."""
    whole = curves[0]
    for curve in curves[1:]:
        whole = whole + curve
    return whole


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("pictures", nargs="+", type=Path, help="to train on")
    parser.add_argument("--test", nargs="+", type=Path, required=True, help="to report on")
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--work", type=Path, help="folder of records and checkpoints")
    parser.add_argument("--train-pictures", type=int, default=48)
    parser.add_argument("--test-pictures", type=int, default=12)
    parser.add_argument("--longest", type=int, help="train on pictures downscaled to this side")
    parser.add_argument("--sides", default="4,8,16,32")
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--arms", help="names of a few, separated by semicolons; default: all")
    given = parser.parse_args(arguments)
    prepare_processor()
    work = given.work or given.out / "kept"
    sides = [int(side) for side in given.sides.split(",")]
    usable = large(find_pictures(given.pictures), given.longest)
    train_paths = spread(usable, given.train_pictures)
    test_paths = spread(find_pictures(given.test), given.test_pictures)
    train_files = recorded(train_paths, work / "train", given.longest)
    test_files = recorded(test_paths, work / "test")
    facts = [[path.name, path.stat().st_size] for path in test_files]
    train = functools.cache(lambda: read_blocks(train_files, sides))
    test = functools.cache(lambda: read_blocks(test_files, sides))
    curves, kinds, real = {}, {}, {}
    wanted = None if given.arms is None else given.arms.split(";")
    for arm in arms(sides):
        if wanted is not None and arm.name not in wanted:
            continue
        side = arm.design.side
        models = trained(arm, train, given.steps, work / "checkpoints")
        found = stored(arm, models, test, facts, work / "measured")
        kinds[side, arm.name], curves[side, arm.name] = arm, found["curves"]
        if found["real"] is not None:
            real[str(side)] = found["real"]
    result = {
        "train_pictures": len(train_paths),
        "test_pictures": len(test_paths),
        "steps": given.steps,
        "records": checked(test_files),
        "real_bytes": real,
        **tables(curves, kinds),
    }
    for name, text in (
        ("results.json", json.dumps(result) + "\n"),
        ("tables.md", markdown(result)),
    ):
        with atomic_write(given.out / name) as temporary:
            temporary.write_text(text)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
