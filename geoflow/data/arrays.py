"""Arrays in the cache: written once, by one process, and there only when they are whole."""

import math
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from filelock import FileLock

from geoflow import runtime


def cached(
    folder: Path, layout: dict, fill: Callable[..., None], advice: str = ""
) -> dict[str, np.ndarray]:
    """The arrays of a folder in the cache (`NAME.npy`), memory-mapped; made if it is not there.

    Args:
        layout: name of an array → number type and shape.
        fill: gets the arrays as keyword arguments and writes their numbers.
        advice: what helps if the disk is too small.

    Returns:
        Name of an array → array, whose changes stay in memory.

    Raises:
        OSError: the disk is too small, or a file of the folder is missing or damaged.
    """
    _make(folder, layout, fill, advice)
    return {name: _mapped(folder / f"{name}.npy", *kind) for name, kind in layout.items()}


def _mapped(file: Path, kind, shape: tuple[int, ...]) -> np.ndarray:
    """An array on disk, memory-mapped, if it is as it was written: checksum, type and shape."""
    try:
        if runtime.sha256(file) != file.with_suffix(".sha256").read_text(encoding="utf-8"):
            raise ValueError("it differs from its checksum")
        array = np.load(file, mmap_mode="c")
        if (array.dtype, array.shape) != (np.dtype(kind), shape):
            wrong = f"{array.dtype} of shape {array.shape}"
            raise ValueError(f"{wrong}, expected {np.dtype(kind)} of shape {shape}")
    except Exception as error:  # numpy parses headers as Python, with all errors of its parser
        text = f"{file} is missing or damaged ({error})"
        raise OSError(f"{text}; delete its folder and it is built again") from error
    return array


def _is_there(folder: Path) -> bool:
    return folder.exists() and any(folder.glob("*.sha256"))


def _make(folder: Path, layout: dict, fill: Callable[..., None], advice: str) -> None:
    """Write the arrays, if the folder is not there, or is of a version without checksums."""
    if _is_there(folder):
        return
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(folder.with_suffix(".lock")):  # one of several processes writes, the others wait
        if _is_there(folder):
            return
        for left in folder.parent.glob(f"{folder.name}.*partial"):
            shutil.rmtree(left)  # left by a process that was killed
        sizes = (math.prod(shape) * np.dtype(kind).itemsize for kind, shape in layout.values())
        runtime.require_space(folder.parent, sum(sizes), advice)
        with runtime.replacing(folder) as partial:
            partial.mkdir()
            arrays = {
                name: np.lib.format.open_memmap(partial / f"{name}.npy", "w+", kind, shape)
                for name, (kind, shape) in layout.items()
            }
            fill(**arrays)
            for name, array in arrays.items():
                array.flush()
                sums = partial / f"{name}.sha256"
                sums.write_text(runtime.sha256(partial / f"{name}.npy"), encoding="utf-8")
