"""The distillation of a codec in three steps, each of which is a training."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from vpxrc.codecs.papers import build
from vpxrc.codecs.training import Progress, TrainingConfig, TrainingJob, is_done, train_job


def steps_of(
    pictures: Sequence[Path], out: Path, config: TrainingConfig, teacher: Path | None
) -> list[TrainingJob]:
    """Return the trainings of a distillation.

    1. The teacher, whose decoder has all blocks; it is left out where there is one already.
    2. A codec of the same networks, from random weights, with the teacher's features in its loss.
    3. The student: the second codec, with fewer blocks in its decoder. The decoder alone is
       trained, with the second codec as its teacher. So both write the same streams.

    Args:
        pictures: The files to take crops from.
        out: The student's checkpoint; those of the other steps lie beside it.
        config: How each codec is trained; ``codec`` is the student, ``NAME/WIDTH``, and its teacher
            is ``NAME/WIDTH-teacher``.
        teacher: The checkpoint of a teacher.

    Raises:
        InputError: There is no such codec.
    """
    whole = f"{config.codec}-teacher"
    build(whole)  # a name that is unknown is told before hours of training
    alike = out.with_name(f"{out.stem}.alike{out.suffix}")
    first = out.with_name(f"{out.stem}.teacher{out.suffix}") if teacher is None else teacher
    files = tuple(pictures)
    jobs = [] if teacher else [TrainingJob(files, first, dataclasses.replace(config, codec=whole))]
    other = dataclasses.replace(config, codec=whole, seed=config.seed + 1)
    light = dataclasses.replace(config, part="synthesis")
    return [
        *jobs,
        TrainingJob(files, alike, other, teacher=first),
        TrainingJob(files, out, light, start=alike, teacher=alike),
    ]


def distill(
    pictures: Sequence[Path],
    out: Path,
    config: TrainingConfig,
    *,
    teacher: Path | None = None,
    progress: Progress | None = None,
) -> list[dict[str, Any]]:
    """Distil a codec; see :func:`steps_of`.

    Killed at any point, the same call goes on where it was: steps that are done are not repeated.

    Returns:
        What :func:`vpxrc.codecs.training.train` returns, for each step that was not done before.

    Raises:
        InputError: A setting cannot be used, or a file beside ``out`` is of another training.
        OutputError: The folder cannot be written.
    """
    work = steps_of(pictures, out, config, teacher)
    return [train_job(job, progress) for job in work if not is_done(job)]
