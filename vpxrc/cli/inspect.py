"""The command ``inspect``."""

import json
from pathlib import Path
from typing import Annotated

import typer

from vpxrc.cli.common import DEFAULT_POLICY, CpuUsed, Json, progress_bar
from vpxrc.datasets import clip_sets, load_clips
from vpxrc.dependency import Version
from vpxrc.encoder.options import EncoderOptions
from vpxrc.errors import InputError
from vpxrc.media.frames import Video
from vpxrc.policies.registry import make_policy
from vpxrc.storage import check_writable

MOST_IMPORTANT = 5  # frames that are listed


def inspect(
    clip: Annotated[
        str, typer.Argument(metavar="CLIP", help="A video file, or a clip of a set by name.")
    ],
    out: Annotated[Path, typer.Option(help="Folder for the pictures and the table.")],
    bitrate: Annotated[
        int | None,
        typer.Option(
            "-b",
            "--bitrate",
            help="Target bitrate in kbit/s. By default it follows from the clip's size.",
        ),
    ] = None,
    policy: Annotated[
        str, typer.Option(help="The policy: NAME or NAME:ARGUMENT. `vpxrc doctor` lists the names.")
    ] = DEFAULT_POLICY,
    cpu_used: CpuUsed = 2,
    group: Annotated[
        int, typer.Option(min=0, help="The golden-frame group that the maps and arrows show.")
    ] = 0,
    version: Annotated[
        Version,
        typer.Option(
            help="The model to draw: ours on reconstructed frames, or libvpx's on source frames."
        ),
    ] = "reconstructed",
    as_json: Json = False,
) -> None:
    """Encode a clip and draw how its frames depend on each other.

    The dependencies are those of the temporal dependency model. importance.png shows how much
    errors in each block cost in later frames, propagation.png shows which frames these are, and
    frames.png and dependency.parquet cover all frames of the clip.

    \b
    Examples:
      vpxrc inspect carphone --out build/carphone
      vpxrc inspect holiday.mp4 -b 400 --policy layered --group 2 --out build/holiday
    """  # noqa: D301 - typer wants the \b as it is
    chosen = make_policy(policy)
    video = _open(clip)
    options = EncoderOptions.for_clip(video, bitrate, cpu_used=cpu_used)
    check_writable(out)
    # These draw: they take as long to import as all else together.
    from vpxrc.evaluation.inspection import inspect as inspect_encode
    from vpxrc.reports.dependency import write_inspection

    with progress_bar(hidden=as_json) as bar:
        task = bar.add_task(f"{video.name}, {policy}", total=None)
        found = inspect_encode(
            video,
            options,
            chosen,
            version=version,
            progress=lambda coded: bar.update(
                task, total=video.num_frames, completed=min(coded, video.num_frames)
            ),
        )
        bar.update(task, description="drawing")
        files = write_inspection(found, group, out)
    frames = found.table.nlargest(MOST_IMPORTANT, "importance").to_dict("records")
    if as_json:
        result = {
            "files": [str(file) for file in files],
            "policy": policy,
            "bitrate": found.log.bitrate,
            "group": group,
            "num_groups": found.num_groups,
            "most_important": frames,
        }
        print(json.dumps(result))
        return
    print("\n".join(map(str, files)))
    print(f"{found.num_groups} group(s) at {found.log.bitrate:.1f} kbit/s; what matters most:")
    for frame in frames:
        print(
            f"  frame {frame['show_index']}, {frame['update_type']} in group "
            f"{frame['group_index']}: importance {frame['importance']:.2f}, q {frame['q_index']}"
        )


def _open(name: str) -> Video:
    clips = [clip for clip in load_clips(clip_sets()) if clip.name == name] or load_clips(name)
    if len(clips) > 1:
        some = ", ".join(clip.name for clip in clips[:3])
        raise InputError(f"{name} has {len(clips)} clips ({some}, ...): give one of them")
    return clips[0].open()
