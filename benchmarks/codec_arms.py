"""The claims of the papers on learned codecs, and the trainings that they compare."""

from dataclasses import dataclass

from vpxrc.codecs.papers.multirate import quality_of_bits

BITS = (2, 4, 8)  # of the multi-rate latent's levels
QUALITIES = (0.1, 0.3, 0.5, 0.7, 0.9)  # of the trained codec with added parts
CONVOLUTION, OCTAVE, SLIM = "mean-scale/small", "octave-mean-scale", "multirate/slim"


@dataclass(frozen=True)
class Arm:
    """A training.

    Attributes:
        codec: Name and width.
        start: The arm that it starts from, or :data:`TRAINED`.
        part: The part that is trained alone.
        teacher: The arm whose features are in its loss.
        rate: Learning rate.
    """

    codec: str
    start: str = ""
    part: str = ""
    teacher: str = ""
    rate: float = 5e-4


LATENTS = "ablation/entropy-mean-scale"
NEW_RATE = 5e-4  # of networks that start anew
ADDED_RATE = 2e-4  # does not undo in a few batches what the codec has learned
# 0.3 dB of the distortion alone, in percent of J, at the quality where that is least: the share of
# the distortion in J is 0.39 there.
DECIBELS = 100 * 0.39 * (10**0.03 - 1)
TRAINED = "trained"  # the codec of --trained, as it is
ADDED_FILTER, ADDED_STUDENT = "added filter alone", "ablation/added-student"
STUDENT, UNFILTERED = "improved-checkerboard/small", "ablation/asymmetric-unfiltered"
#: The arms that are no codec trained as a whole from random weights.
ARMS = {
    **{
        f"ablation/entropy-{name}": Arm(f"ablation/entropy-{name}", LATENTS, "latent")
        for name in (
            *("normal", "gmm", "gllmm", "checkerboard", "checkerboard-gmm"),
            *("two-gmm-gmm", "two-gllmm-gmm", "two-gmm-gllmm"),
        )
    },
    **{
        f"ablation/added-{name}": Arm(f"ablation/added-{name}", TRAINED, rate=ADDED_RATE)
        for name in (
            *("none", "concatenated", "residual", "two-residual", "deformable", "plain"),
            *("multiscale", "multiscale-encoder", "multiscale-three", "filter"),
            *("only-0.1", "only-0.5", "only-0.9"),
            *("importance", "l1-0.03", "l1-0.1"),
            *("noise", "straight-through", "stochastic"),
        )
    },
    **{
        f"ablation/added-{name}": Arm(f"ablation/added-{name}", TRAINED, rate=NEW_RATE)
        for name in (
            *("anew", "octave", "octave-plain"),
            *("octave-quarter", "octave-three-quarters"),
        )
    },
    "added swin": Arm("swin-roi/small", TRAINED, rate=NEW_RATE),
    "added convolutions": Arm("ablation/swin-roi-convolutions", TRAINED, rate=NEW_RATE),
    "added plain student": Arm(ADDED_STUDENT, TRAINED, "synthesis", rate=ADDED_RATE),
    "added distilled student": Arm(
        ADDED_STUDENT, TRAINED, "synthesis", teacher=TRAINED, rate=ADDED_RATE
    ),
    ADDED_FILTER: Arm("ablation/added-filter", TRAINED, "synthesis.restoration"),
    "filter alone": Arm("asymmetric/small", UNFILTERED, "synthesis.0"),
    "plain student": Arm(STUDENT, f"{STUDENT}-teacher", "synthesis"),
    "distilled student": Arm(
        STUDENT, f"{STUDENT}-teacher", "synthesis", teacher=f"{STUDENT}-teacher"
    ),
}


def arm_of(name: str) -> Arm:
    """Return an arm; a name that is none is that of a codec."""
    return ARMS.get(name, Arm(name))


@dataclass(frozen=True)
class Claim:
    """Two arms of which the first is said to be cheaper.

    Attributes:
        words: The claim.
        test: The arm that is claimed to be better.
        anchor: The other one.
        qualities: Those at which arms of variable quality are compared; none for arms that are
            trained once for each lambda.
        margin: The loss that the claim allows, in percent or in dB.
        of: What is compared: ``J``, ``bits`` or ``PSNR``.
    """

    words: str
    test: str
    anchor: str
    qualities: tuple[float, ...] = ()
    margin: float = 0.0
    of: str = "J"


CLAIMS = {
    "S10-a": Claim(
        "octave convolutions beat plain ones at equal multiplications",
        f"{OCTAVE}/medium",
        CONVOLUTION,
    ),
    "S10-b": Claim(
        "learned exchange between the parts beats pooling and repetition",
        f"{OCTAVE}/small",
        "ablation/octave-plain",
    ),
    "S10-c, a quarter": Claim(
        "half of the channels in the low part are better than a quarter",
        f"{OCTAVE}/small",
        "ablation/octave-quarter",
    ),
    "S10-c, three quarters": Claim(
        "half of the channels in the low part are better than three quarters",
        f"{OCTAVE}/small",
        "ablation/octave-three-quarters",
    ),
    **{
        f"S9-a, noise, B={bits}": Claim(
            "stochastic rounding is at least as good as noise",
            SLIM,
            "ablation/multirate-noise",
            (quality_of_bits(bits),),
        )
        for bits in BITS
    },
    **{
        f"S9-a, straight-through, B={bits}": Claim(
            "stochastic rounding is at least as good as plain rounding",
            SLIM,
            "ablation/multirate-straight-through",
            (quality_of_bits(bits),),
        )
        for bits in BITS
    },
    **{
        f"S9-b, B={bits}": Claim(
            "a model for all rates loses at most 0.3 dB to one for this rate",
            SLIM,
            f"ablation/multirate-only-{bits}",
            (quality_of_bits(bits),),
            margin=0.3,
            of="PSNR",
        )
        for bits in BITS
    },
    **{
        name: Claim(words, f"ablation/entropy-{test}", f"ablation/entropy-{anchor}", of="bits")
        for name, words, test, anchor in (
            ("S8-a, three normal", "three normal distributions beat one", "gmm", "normal"),
            ("S8-a, three families", "three families beat one", "gllmm", "gmm"),
            (
                "S4-b, two networks",
                "two networks beat one on a checkerboard",
                *("two-gmm-gmm", "checkerboard-gmm"),
            ),
            (
                "S4-b, two families",
                "three families in the first pass beat one in both",
                *("two-gllmm-gmm", "two-gmm-gmm"),
            ),
            (
                "S4-b, order",
                "three families belong into the first pass",
                *("two-gllmm-gmm", "two-gmm-gllmm"),
            ),
        )
    },
    "S4-a": Claim(
        "a plain checkerboard takes at most 1 % more bits than raster",
        "ablation/entropy-checkerboard",
        "ablation/entropy-normal",
        margin=1.0,
        of="bits",
    ),
    "S4-b, raster": Claim(
        "the improved checkerboard takes at most 1 % more bits than raster",
        "ablation/entropy-two-gllmm-gmm",
        "ablation/entropy-gmm",
        margin=1.0,
        of="bits",
    ),
    "S8-b, width": Claim(
        "concatenated residual blocks beat plain ones at equal width",
        "gllmm/small",
        "ablation/gllmm-plain",
    ),
    "S8-b, cost": Claim(
        "concatenated residual blocks beat plain ones at equal multiplications",
        "gllmm/small",
        "ablation/gllmm-plain-wide",
    ),
    "S7-a, three": Claim(
        "one block in the decoder in place of three loses at most 1 %",
        "asymmetric/small",
        "ablation/asymmetric-three",
        margin=1.0,
    ),
    "S7-a, none": Claim(
        "one block in the decoder beats none", "asymmetric/small", "ablation/asymmetric-none"
    ),
    "S7-b": Claim("an importance map helps", "asymmetric/small", "ablation/asymmetric-unweighted"),
    "S7-c": Claim("a filter after the quantiser helps", "asymmetric/small", UNFILTERED),
    "S7-c, alone": Claim(
        "the filter raises the PSNR at the same bytes", "filter alone", UNFILTERED, of="PSNR"
    ),
    **{
        f"S4-c, {weight}": Claim(
            f"an L1 norm of weight {weight} loses at most 1 %",
            STUDENT if weight == "0.03" else f"ablation/improved-checkerboard-l1-{weight}",
            "ablation/improved-checkerboard-l1-0",
            margin=1.0,
        )
        for weight in ("0.03", "0.1")
    },
    "S4-d": Claim(
        "distillation raises the PSNR at the same bytes",
        "distilled student",
        "plain student",
        of="PSNR",
    ),
    "S4-e": Claim(
        "deformable convolutions beat plain ones", STUDENT, "ablation/improved-checkerboard-plain"
    ),
    **{
        f"added {name}": Claim(
            words,
            test if test in ARMS else f"ablation/added-{test}",
            anchor if anchor == TRAINED or anchor in ARMS else f"ablation/added-{anchor}",
            QUALITIES,
            margin,
        )
        for name, words, test, anchor, margin in (
            (
                "S8-b, width",
                "a concatenated residual block beats a plain one of equal width",
                *("concatenated", "residual", 0.0),
            ),
            (
                "S8-b, cost",
                "a concatenated residual block beats two plain ones, of equal multiplications",
                *("concatenated", "two-residual", 0.0),
            ),
            (
                "S7-a, three",
                "one multi-scale block in the decoder in place of three loses at most 1 %",
                *("multiscale", "multiscale-three", 1.0),
            ),
            (
                "S7-a, none",
                "a multi-scale block in the decoder beats none",
                *("multiscale", "multiscale-encoder", 0.0),
            ),
            ("S7-c", "a filter after the quantiser helps", "filter", "none", 0.0),
            (
                "S7-c, alone",
                "a filter helps that is trained for a codec that stays as it is",
                *(ADDED_FILTER, TRAINED, 0.0),
            ),
            (
                "S4-e",
                "a deformable convolution beats a plain one in a residual block",
                *("deformable", "plain", 0.0),
            ),
            ("S7-b", "an importance map helps", "importance", "none", 0.0),
            ("S4-c, 0.03", "an L1 norm of weight 0.03 loses at most 1 %", "l1-0.03", "none", 1.0),
            ("S4-c, 0.1", "an L1 norm of weight 0.1 loses at most 1 %", "l1-0.1", "none", 1.0),
            (
                "S4-d",
                "distillation helps a decoder without residual blocks",
                *("added distilled student", "added plain student", 0.0),
            ),
            (
                "S10-a",
                "octave convolutions beat plain ones at equal multiplications",
                *("octave", "anew", 0.0),
            ),
            (
                "S10-b",
                "learned exchange between the parts beats pooling and repetition",
                *("octave", "octave-plain", 0.0),
            ),
            (
                "S10-c, a quarter",
                "half of the channels in the low part are better than a quarter",
                *("octave", "octave-quarter", 0.0),
            ),
            (
                "S10-c, three quarters",
                "half of the channels in the low part are better than three quarters",
                *("octave", "octave-three-quarters", 0.0),
            ),
            (
                "S5-c",
                "Swin blocks beat convolutions of about as many multiplications",
                *("added swin", "added convolutions", 0.0),
            ),
        )
    },
    **{
        f"added S9-b, {quality:g}": Claim(
            "a model for all rates loses at most 0.3 dB to one for this rate",
            "ablation/added-none",
            f"ablation/added-only-{quality:g}",
            (quality,),
            margin=DECIBELS,
        )
        for quality in QUALITIES[::2]
    },
    **{
        f"added S9-a, {name}, {quality:g}": Claim(
            f"stochastic rounding is at least as good as {words}",
            "ablation/added-stochastic",
            f"ablation/added-{name}",
            (quality,),
        )
        for name, words in (("noise", "noise"), ("straight-through", "plain rounding"))
        for quality in QUALITIES[::2]
    },
}
