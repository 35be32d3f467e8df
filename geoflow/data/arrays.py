"""Arrays in the cache: written once, by one process, and there only when they are whole."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock

from geoflow import runtime

Layout = dict[str, tuple[type, tuple[int, ...]]]
"""Name of an array → number type and shape."""


def cached(folder: Path, layout: Layout, fill: Callable[..., None], advice: str = "") -> None:
    """Make a folder of memory-mapped arrays (`NAME.npy`), if it is not there.

    Args:
        folder: in the cache.
        layout: what goes into the folder.
        fill: gets the arrays as keyword arguments and writes their numbers.
        advice: what helps if the disk is too small.

    Raises:
        OSError: not enough disk space.
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
