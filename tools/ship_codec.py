"""Puts a trained codec into the package.

    python tools/ship_codec.py build/gained-small.safetensors

The weights are rounded to half precision, which halves the file. They are rounded before anything
is measured: the codec of the package is the rounded one, and its identity is of these weights.
"""

import argparse
from pathlib import Path

import numpy as np

from vpxrc.codecs.zoo import FOLDER
from vpxrc.storage import atomic_write
from vpxrc.tensors import read_weights, tensor_bytes


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("checkpoint", type=Path)
    checkpoint = parser.parse_args().checkpoint
    weights, settings = read_weights(checkpoint)
    half = {name: values.astype(np.float16) for name, values in weights.items()}
    if not all(np.isfinite(values).all() for values in half.values()):
        raise SystemExit(f"{checkpoint}: a weight is too large for half precision")
    FOLDER.mkdir(exist_ok=True)
    target = FOLDER / checkpoint.name
    with atomic_write(target) as temporary:
        temporary.write_bytes(tensor_bytes(half, settings))
    print(f"{target}: {target.stat().st_size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
