"""Many searches of the teacher at the same time."""

import dataclasses
from collections.abc import Sequence
from functools import partial
from typing import Any

from vpxrc.agents.progress import Progress, silent
from vpxrc.agents.teacher.lessons import Search, learn, results, scaled
from vpxrc.errors import OutputError
from vpxrc.parallel import open_workers
from vpxrc.storage import check_writable


def teach(
    searches: Sequence[Search],
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
        searches: The searches, at least one, with their clips at any size.
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
    with open_workers(min(jobs, len(searches)), ray) as workers:
        progress(0, None, "opening the clips", None)
        clips = list(dict.fromkeys(job.clip for job in searches))
        sized = dict(workers.unordered(partial(scaled, pixels=pixels), clips))
        work = [dataclasses.replace(job, clip=sized[job.clip]) for job in searches]
        for folder in {job.folder for job in work}:
            check_writable(folder)
        progress(0, len(work), "searching", None)
        for done, (job, path) in enumerate(workers.unordered(learn, work), 1):
            if not path.is_file():
                raise OutputError(
                    f"{job}: the result is not in {job.folder}, which has to be shared"
                )
            progress(done, len(work), str(job), None)
    return [next(results(job.path)) for job in work]
