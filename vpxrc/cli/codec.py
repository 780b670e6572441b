"""The commands ``codec``: learned image codecs."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from vpxrc.cli.common import CORES, Jobs, Json, RoiWeight, progress_bar, watched
from vpxrc.cli.residuals import residuals
from vpxrc.errors import InputError, needing
from vpxrc.media.masks import RegionSpec
from vpxrc.policies.region import DEFAULT_WEIGHT, WeightedRegion
from vpxrc.storage import atomic_write, check_writable

app = typer.Typer(
    help="""Learned image codecs: code pictures, train codecs, compare them.

    \b
    Examples:
      vpxrc codec zoo
      vpxrc codec encode photo.png -o photo.vlc --codec checkpoint.safetensors
    """
)
app.command()(residuals)

Checkpoint = Annotated[
    str,
    typer.Option("--codec", metavar="NAME_OR_FILE", help="A codec of the zoo, or a checkpoint."),
]
TradeOffs = Annotated[
    str,
    typer.Option(
        "--lambda",
        metavar="L,...",
        help="Weight of the mean squared error against bits per pixel; a codec of variable quality "
        "has its own weights. Several weights are several trainings, and each checkpoint has its "
        "weight in its name.",
    ),
]
Roi = Annotated[
    list[str] | None,
    typer.Option(
        metavar="MASK|box:X,Y,W,H",
        help="A region that gets more of the bits: a box in pixels, or a picture that is white "
        "inside; repeatable. --quality is then that of the rest.",
    ),
]
Batch = Annotated[int, typer.Option(metavar="N", min=1, help="Crops of a batch.")]
Crop = Annotated[int, typer.Option(metavar="N", min=32, help="Side of a crop.")]
Published = Annotated[
    Path | None,
    typer.Option(
        metavar="TSV",
        help="Published points, with the columns codec, dataset, bpp, psnr and ms_ssim.",
    ),
]
Anchors = Annotated[str, typer.Option(metavar="A,B,...", help="Codecs of the published points.")]
Dataset = Annotated[str, typer.Option(metavar="NAME", help="Pictures of the published points.")]
Precision = Annotated[
    Literal["float32", "bfloat16"],
    typer.Option(
        help="What the transforms are computed in. bfloat16 is faster where the processor has it."
    ),
]
Rate = Annotated[float, typer.Option(metavar="R", help="Learning rate of Adam.")]
Seed = Annotated[int, typer.Option(metavar="N", min=0, help="Seed of everything random.")]
Device = Annotated[str, typer.Option(metavar="NAME", help="cpu or cuda.")]
Until = Annotated[
    int | None,
    typer.Option(
        metavar="N",
        min=1,
        help="Stop at this step with a checkpoint of the weights so far. Without the option, the "
        "same command goes on.",
    ),
]
TrainingRay = Annotated[
    str | None,
    typer.Option(
        metavar="ADDRESS",
        help="Train on a Ray cluster, --jobs trainings at once: local, auto or HOST:PORT. Its "
        "machines need the pictures and the folder of --out under the same paths.",
    ),
]
Ray = Annotated[
    str | None,
    typer.Option(metavar="ADDRESS", help="Code on a Ray cluster: local, auto or HOST:PORT."),
]


def _load(spec: str) -> Any:
    with needing("learned codecs need", "codecs"):
        from vpxrc.codecs.codec import load_codec
        from vpxrc.codecs.zoo import checkpoint
    return load_codec(checkpoint(spec))


@app.command()
def encode(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="A picture of 8 bits.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="FILE", help="The coded picture.")],
    codec: Checkpoint,
    quality: Annotated[
        float | None, typer.Option(metavar="Q", help="Quality from 0 to 1, any number between.")
    ] = None,
    bpp: Annotated[
        float | None, typer.Option(metavar="B", help="At most so many bits per pixel.")
    ] = None,
    size: Annotated[
        int | None, typer.Option("--bytes", metavar="N", min=1, help="At most so many bytes.")
    ] = None,
    roi: Roi = None,
    roi_weight: RoiWeight = None,
    as_json: Json = False,
) -> None:
    """Code a picture.

    Quality, bits per pixel and bytes are for codecs of variable quality; at most one is given.

    \b
    Examples:
      vpxrc codec encode photo.png -o photo.vlc --codec codec.safetensors --quality 0.4
      vpxrc codec encode photo.png -o photo.vlc --codec codec.safetensors --bytes 20000
      vpxrc codec encode photo.png -o photo.vlc --codec codec.safetensors --roi mask.png
    """  # noqa: D301 - typer wants the \b as it is
    if sum(value is not None for value in (quality, bpp, size)) > 1:
        raise InputError("--quality, --bpp and --bytes exclude each other")
    if bpp is not None and not bpp > 0:
        raise InputError(f"--bpp is above 0, not {bpp:g}")
    if roi_weight is not None and not roi:
        raise InputError("--roi-weight goes with --roi")
    weight = DEFAULT_WEIGHT if roi_weight is None else roi_weight
    wish = WeightedRegion(RegionSpec.parse(roi), weight) if roi else None
    loaded = _load(codec)
    from vpxrc.codecs.codec import Region, compress_to_size
    from vpxrc.codecs.pictures import read_picture

    pixels = read_picture(picture)
    height, width = pixels.shape[:2]
    region = None
    if wish is not None:
        wish.spec.check(width, height, 1)
        region = Region(wish.spec.mask(width, height), weight)
    most = int(bpp * height * width / 8) if bpp is not None else size
    with progress_bar(hidden=as_json) as bar:
        task = bar.add_task(picture.name, total=None)
        if most is None:
            result = loaded.compress(pixels, quality, region)
        else:
            result = compress_to_size(
                loaded,
                pixels,
                most,
                lambda done, total: bar.update(task, completed=done, total=total),
                region,
            )
    with atomic_write(out) as temporary:
        temporary.write_bytes(result.data)
    coded = 8 * len(result.data) / (height * width)
    facts = {"output": str(out), "codec": loaded.spec, "bytes": len(result.data), "bpp": coded}
    psnr = _psnr(pixels, result.picture)
    if as_json:
        print(json.dumps({**facts, "psnr": psnr, "streams": result.stream_sizes}))
    else:
        print(f"{out}: {len(result.data)} bytes, {coded:.4f} bpp, PSNR {psnr:.2f} dB")


def _psnr(a: Any, b: Any) -> float:
    from vpxrc.codecs.picture_quality import psnr
    from vpxrc.codecs.pictures import to_unit

    return float(psnr(to_unit(a), to_unit(b)))


@app.command()
def decode(
    coded: Annotated[Path, typer.Argument(metavar="FILE", help="A coded picture.")],
    out: Annotated[Path, typer.Option("-o", "--out", metavar="PICTURE", help="A PNG file.")],
    codec: Checkpoint,
    as_json: Json = False,
) -> None:
    """Decode a picture, with the checkpoint that it was coded with.

    \b
    Example:
      vpxrc codec decode photo.vlc -o decoded.png --codec codec.safetensors
    """  # noqa: D301 - typer wants the \b as it is
    if out.suffix.lower() != ".png":
        raise InputError(f"{out}: the decoded picture's name ends in .png")
    try:
        data = coded.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {coded}: {error.strerror or error}") from error
    loaded = _load(codec)
    from vpxrc.codecs.pictures import write_png

    try:
        picture = loaded.decompress(data)
    except InputError as error:
        raise InputError(f"{coded}: {error}") from error
    write_png(out, picture)
    height, width = picture.shape[:2]
    if as_json:
        print(json.dumps({"output": str(out), "width": width, "height": height}))
    else:
        print(f"{out}: {width}x{height}")


@app.command()
def train(
    spec: Annotated[
        str, typer.Argument(metavar="CODEC", help="Name and width, as `vpxrc codec zoo` has them.")
    ],
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURES", help="Files and folders to train on.")
    ],
    out: Annotated[Path, typer.Option(metavar="FILE", help="The checkpoint, .safetensors.")],
    trade_offs: TradeOffs = "0.0125",
    steps: Annotated[int, typer.Option(metavar="N", min=1, help="Batches.")] = 50_000,
    until: Until = None,
    batch: Batch = 8,
    crop: Crop = 128,
    rate: Rate = 5e-4,
    start: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A checkpoint to start from.")
    ] = None,
    part: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="Train a part alone: latent (the entropy model, on latents that do not change), "
            "synthesis (the decoder), or another beginning of the weights' names. The other "
            "weights come from --start.",
        ),
    ] = "",
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Precision = "float32",
    jobs: Jobs = 1,
    ray: TrainingRay = None,
    tensorboard: Annotated[
        Path | None, typer.Option(metavar="DIR", help="A folder for TensorBoard.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Train a codec on crops of pictures.

    A command that was interrupted or killed continues where it was when it is run again. The curve
    is written beside the checkpoint.

    \b
    Examples:
      vpxrc codec train mean-scale/small photos/ --lambda 0.0125 --out mean-scale.safetensors
      vpxrc codec train multirate/small photos/ --steps 80000 --out multirate.safetensors
      vpxrc codec train mean-scale/small photos/ --lambda 0.0035,0.0125,0.045 --jobs 3 \\
        --out mean-scale.safetensors
    """  # noqa: D301 - typer wants the \b as it is
    _check_training(out, rate)
    weights = _weights(trade_offs)
    with needing("learned codecs need", "codecs"):
        from vpxrc.codecs.pictures import find_pictures
        from vpxrc.codecs.training import TrainingConfig, TrainingJob, train_all
    found = tuple(find_pictures(pictures))
    work = [
        TrainingJob(
            found,
            out if len(weights) == 1 else out.with_name(f"{out.stem}-{weight:g}{out.suffix}"),
            TrainingConfig(spec, weight, steps, batch, crop, rate, seed, device, part, precision),
            start,
            until,
        )
        for weight in weights
    ]
    with watched(as_json, tensorboard) as progress:
        results = train_all(work, jobs, ray, progress)
    if as_json:
        print(json.dumps(results[0] if len(work) == 1 else results))
        return
    _print_trainings(results)


def _check_training(out: Path, rate: float) -> None:
    """Check the options of a training.

    Raises:
        InputError: One cannot be used.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"{out}: a checkpoint's name ends in .safetensors")
    if not 0 < rate < float("inf"):
        raise InputError(f"--rate is above 0, not {rate:g}")


def _print_trainings(results: list[dict[str, Any]]) -> None:
    for result in results:
        last = result["last"]
        error = f", mean squared error {last['mse']:.1f}" if "mse" in last else ""
        print(
            f"{result['output']}: {result['steps']} steps in {result['seconds']:.0f} s; "
            f"loss {last['loss']:.3f}, {last['bpp']:.3f} bpp{error}"
        )


@app.command()
def distill(
    spec: Annotated[
        str,
        typer.Argument(metavar="CODEC", help="The student, as improved-checkerboard/small."),
    ],
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURES", help="Files and folders to train on.")
    ],
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The student's checkpoint, .safetensors.")
    ],
    teacher: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A checkpoint of the teacher; else it is trained first."),
    ] = None,
    trade_off: Annotated[
        float,
        typer.Option(
            "--lambda", metavar="L", help="Weight of the squared error against bits per pixel."
        ),
    ] = 0.0125,
    steps: Annotated[
        int, typer.Option(metavar="N", min=1, help="Batches of each of the three trainings.")
    ] = 50_000,
    batch: Batch = 8,
    crop: Crop = 128,
    rate: Rate = 5e-4,
    seed: Seed = 0,
    device: Device = "cpu",
    precision: Precision = "float32",
    as_json: Json = False,
) -> None:
    """Train a codec with a light decoder from one with a heavy decoder.

    The teacher is the codec with `-teacher` in its name. A second codec of the same networks learns
    from the teacher's features. Then blocks of its decoder are removed, and the decoder alone
    learns from the second codec. The checkpoints of the teacher and of the second codec lie beside
    that of the student.

    A command that was interrupted or killed continues where it was when it is run again.

    \b
    Example:
      vpxrc codec distill improved-checkerboard/small photos/ --out student.safetensors
    """  # noqa: D301 - typer wants the \b as it is
    _check_training(out, rate)
    if not 0 < trade_off < float("inf"):
        raise InputError(f"--lambda is above 0, not {trade_off:g}")
    with needing("learned codecs need", "codecs"):
        from vpxrc.codecs.distillation import distill as distill_codec
        from vpxrc.codecs.pictures import find_pictures
        from vpxrc.codecs.training import TrainingConfig
    config = TrainingConfig(
        spec, trade_off, steps, batch, crop, rate, seed, device, precision=precision
    )
    with watched(as_json, None) as progress:
        results = distill_codec(
            find_pictures(pictures), out, config, teacher=teacher, progress=progress
        )
    if as_json:
        print(json.dumps(results))
        return
    _print_trainings(results)
    print(f"{out} is ready.")


def _weights(text: str) -> list[float]:
    """Return the weights of ``--lambda``.

    Raises:
        InputError: One of them is no number above 0, or there are equal ones.
    """
    try:
        weights = [float(part) for part in text.split(",")]
    except ValueError:
        raise InputError(f"--lambda takes numbers with commas between, not {text!r}") from None
    for weight in weights:
        if not 0 < weight < float("inf"):
            raise InputError(f"--lambda is above 0, not {weight:g}")
    if len({f"{weight:g}" for weight in weights}) < len(weights):
        raise InputError(f"--lambda has a number twice: {text}")
    return weights


@app.command()
def table(
    pictures: Annotated[
        list[Path], typer.Argument(metavar="PICTURES", help="Files and folders to code.")
    ],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the table and its rows.")],
    codec: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME_OR_FILE", help="A codec of the zoo, or a checkpoint; repeatable."
        ),
    ] = None,
    classical: Annotated[
        str,
        typer.Option(metavar="A,B,...", help="Codecs that are not learned; empty for none."),
    ] = "jpeg,jpeg444,jpeg2000,webp,avif,jxl,hevc",
    published: Published = None,
    anchors: Anchors = "",
    dataset: Dataset = "kodak",
    jobs: Jobs = CORES,
    ray: Ray = None,
    as_json: Json = False,
) -> None:
    """Compare codecs: bits, PSNR, MS-SSIM and BD-rates in both, from real files.

    Each file is decoded in another process than the one that coded it. A command that was
    interrupted or killed continues where it was when it is run again.

    \b
    Examples:
      vpxrc codec table kodak/ --codec multirate.safetensors --classical jpeg,webp --out table
      vpxrc codec table kodak/ --codec gained.safetensors --published points.tsv \\
        --anchors av1,vtm --out table
    """  # noqa: D301 - typer wants the \b as it is
    with needing("learned codecs need", "codecs"):
        from vpxrc.codecs import rate_distortion as rd
        from vpxrc.codecs.pictures import find_pictures
        from vpxrc.codecs.zoo import checkpoint
    from vpxrc.reports.codecs import write_pictures

    check_writable(out)
    checkpoints = [checkpoint(spec) for spec in codec or []]
    names = [name for name in classical.split(",") if name]
    if bool(anchors) != (published is not None):
        raise InputError("--published and --anchors belong together")
    wanted = [name for name in anchors.split(",") if name]
    points = None if published is None else rd.published_points(published, wanted, dataset)
    work = rd.jobs_of(find_pictures(pictures), checkpoints, names)
    if not work:
        raise InputError("there is no codec to measure")
    with progress_bar(hidden=as_json) as bar:
        task = bar.add_task("starting", total=None)
        rows = rd.measure(
            work,
            out,
            workers=jobs,
            ray=ray,
            progress=lambda done, total, words: bar.update(
                task, completed=done, total=total, description=words
            ),
        )
    means = rd.curves(rows)
    if points is not None:
        means = rd.joined(means, points)
    learned = [path.stem for path in checkpoints]
    found = {"curves": means, "bd_rates": rd.bd_rates(rows, means, learned)}
    found["trade_offs"] = rd.trade_offs(rows, means)
    for name, frame in {"rows": rows, **found}.items():
        with atomic_write(out / f"{name}.csv") as temporary:
            frame.to_csv(temporary, index=False)
    write_pictures(means, found["trade_offs"], learned, out)
    if as_json:
        records = {name: json.loads(one.to_json(orient="records")) for name, one in found.items()}
        print(json.dumps(records))
        return
    print(means.to_string(index=False, float_format="%.4g"))
    if len(found["bd_rates"]):
        print("\nBD-rates, by the pictures' means; and that of the picture where it is largest:")
        print(found["bd_rates"].to_string(index=False, float_format="%.2f"))
    print(f"\nEverything is in {out}: rd.png and trade_off.png have the plots.")


@app.command()
def zoo(as_json: Json = False) -> None:
    """List the codecs, their widths, and the trained ones that come with the package.

    \b
    Example:
      vpxrc codec zoo
    """  # noqa: D301 - typer wants the \b as it is
    with needing("learned codecs need", "codecs"):
        from vpxrc.codecs.papers import PAPERS, describe
        from vpxrc.codecs.zoo import describe_checkpoint, shipped
    trained = [describe_checkpoint(path) for path in shipped().values()]
    kinds = [
        describe(f"{name}/{width}") for name, paper in PAPERS.items() for width in paper.widths
    ]
    if as_json:
        print(json.dumps({"trained": trained, "codecs": [asdict(kind) for kind in kinds]}))
        return
    for kind in kinds:
        print(
            f"{kind.codec:30} {kind.megabytes:7.1f} MB {kind.encoder_kmac:7.1f} + "
            f"{kind.decoder_kmac:6.1f} kMAC/pixel  {kind.title}"
        )
    for row in trained:
        print(f"{row['name']}: {row['codec']}, {row['bytes']} bytes, {row['steps']} steps")
    if not trained:
        print("No trained codec comes with this version: `vpxrc codec train` makes one.")
