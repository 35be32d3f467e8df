"""Arrays in the cache: written once, by one process, and there only when they are whole."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock

from geoflow import runtime


def cached(folder: Path, layout: dict, fill: Callable[..., None], advice: str = "") -> None:
    """Make a folder of memory-mapped arrays (`NAME.npy`) in the cache, if it is not there.

    Args:
        layout: name of an array → number type and shape.
        fill: gets the arrays as keyword arguments and writes their numbers.
        advice: what helps if the disk is too small, which is an OSError.
    """
    if folder.exists():
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # of several processes one writes
        if folder.exists():
            return
        for left in folder.parent.glob(f"{folder.name}.*partial"):
            shutil.rmtree(left)  # by a process that was killed
        sizes = (math.prod(shape) * np.dtype(kind).itemsize for kind, shape in layout.values())
        runtime.require_space(folder.parent, sum(sizes), advice)
        with runtime.replacing(folder) as partial:
            partial.mkdir()
            arrays = {
                name: np.lib.format.open_memmap(partial / f"{name}.npy", "w+", kind, shape)
                for name, (kind, shape) in layout.items()
            }
            fill(**arrays)
            for array in arrays.values():
                array.flush()
