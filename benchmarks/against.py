"""Compare policies of studies that were made apart, on the same clips, targets and speed.

python -m benchmarks.against docs/results/imitation-eval docs/results/layered-eval --agent imitation

A searched baseline takes hours on the clips of an evaluation and does not change. Where two
studies share a policy, its streams must be the same, byte for byte: only then are they of one
libvpx and one set of clips.
"""

import argparse
from pathlib import Path

import pandas as pd

from vpxrc.errors import InputError
from vpxrc.metrics import bd_rate, mean_ci95

QUALITIES = ("psnr", "psnr_overall", "ssim", "vmaf")
KEYS = ["clip", "target_bitrate", "cpu_used"]


def join(folders: list[Path]) -> pd.DataFrame:
    """Return the encodes of all studies, those of a shared policy once."""
    studies = [pd.read_parquet(folder / "encodes.parquet") for folder in folders]
    joined = studies[0]
    for folder, study in zip(folders[1:], studies[1:], strict=True):
        if set(map(tuple, joined[KEYS].to_numpy())) != set(map(tuple, study[KEYS].to_numpy())):
            raise InputError(f"{folder}: other clips, targets or speed than {folders[0]}")
        both = joined.merge(study, on=["policy", *KEYS], suffixes=("", "_other"))
        if not len(both):
            raise InputError(f"{folder} shares no policy with {folders[0]}")
        if (both["stream_sha256"] != both["stream_sha256_other"]).any():
            raise InputError(f"{folder}: the same policy gave other streams than in {folders[0]}")
        joined = pd.concat([joined, study[~study["policy"].isin(joined["policy"])]])
    return joined


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("studies", type=Path, nargs="+")
    parser.add_argument("--agent", required=True)
    arguments = parser.parse_args()
    encodes = join(arguments.studies)
    clips = dict.fromkeys(encodes["clip"])
    curves = dict(list(encodes.groupby(["policy", "clip"])))
    print("| against | PSNR | overall PSNR | SSIM | VMAF | encodes per result |")
    print("| --- | --- | --- | --- | --- | --- |")
    for anchor in dict.fromkeys(encodes["policy"]):
        if anchor == arguments.agent:
            continue
        cells = []
        for quality in QUALITIES:
            found = []
            for clip in clips:
                theirs, ours = curves[anchor, clip], curves[arguments.agent, clip]
                result = bd_rate(theirs["bitrate"], theirs[quality], ours["bitrate"], ours[quality])
                if result.percent is not None:
                    found.append(result.percent)
            figures = mean_ci95(found)
            low, high = figures.ci95
            some = f" n={figures.n}" if figures.n < len(clips) else ""
            cells.append(
                f"{figures.mean:+.2f} ({figures.median:+.2f}) [{low:+.2f}, {high:+.2f}]{some}"
            )
        spent = encodes.loc[encodes["policy"] == anchor, "encodes"].mean()
        print(f"| {anchor} | {' | '.join(cells)} | {spent:.1f} |")


if __name__ == "__main__":
    main()
