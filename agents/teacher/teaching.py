"""Many searches of the teacher at the same time."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

from vpxrc.agents.progress import Progress, silent
from vpxrc.agents.teacher.lessons import Lesson, learn, results, scaled
from vpxrc.errors import OutputError
from vpxrc.parallel import open_workers
from vpxrc.storage import check_writable


def teach(
    lessons: Sequence[Lesson],
    *,
    pixels: int | None = None,
    jobs: int = 1,
    ray: str | None = None,
    progress: Progress = silent,
) -> list[dict[str, Any]]:
    """Run searches, and return what each of them found, in their order.

    A search whose result is in its folder is not run again. Killed at any point, the same call
    goes on where it was.

    Args:
        lessons: The searches, at least one, with their clips at any size.
        pixels: Larger clips are scaled to about so many luma pixels; None: none is scaled.
        jobs: Searches that run at the same time.
        ray: None for processes of this machine, else an address; see
            :func:`vpxrc.parallel.open_workers`. The folder has the same path on all machines.
        progress: Told after each search.

    Returns:
        The results, as :func:`vpxrc.agents.teacher.lessons.results` yields them.

    Raises:
        InputError: A clip cannot be read, a start cannot be used, or a result that is there is
            another search's.
        EncoderError: libvpx failed.
        OutputError: A folder cannot be written, or is not shared with Ray's machines.
    """
    with open_workers(min(jobs, len(lessons)), ray) as workers:
        progress(0, None, "opening the clips", None)
        clips = list(dict.fromkeys(lesson.clip for lesson in lessons))
        sized = dict(workers.unordered(partial(scaled, pixels=pixels), clips))
        work = [dataclasses.replace(lesson, clip=sized[lesson.clip]) for lesson in lessons]
        for folder in {lesson.folder for lesson in work}:
            check_writable(folder)
        progress(0, len(work), "searching", None)
        for done, (lesson, path) in enumerate(workers.unordered(learn, work), 1):
            if not path.is_file():
                raise OutputError(
                    f"{lesson}: the result is not in {lesson.folder}, which has to be shared"
                )
            progress(done, len(work), str(lesson), None)
    return [next(results(lesson.path)) for lesson in work]
