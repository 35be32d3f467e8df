"""Result files of `geoflow reproduce`: numbers, how they were obtained, maps in few characters."""

import base64
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

import geoflow
from geoflow import runtime, sphere
from geoflow.data import typed
from geoflow.density import DensityMap, Raster, raster_axes

FORMAT = 1
COMMITTED = runtime.DATA / "results" / "reproduce"


@dataclass(frozen=True)
class Result:
    """The numbers of a step, and how they were obtained."""

    step: str
    scale: str
    data: str  # name of the data set
    inputs: dict[str, str]  # weights, data, recipe → SHA-256
    settings: dict[str, Any]  # sizes and seed
    seconds: float  # what computing took; for trainings the sum over all interruptions
    machine: str
    date: str  # when it was finished
    values: dict[str, Any]  # the numbers
    geoflow: str = geoflow.__version__
    format: int = FORMAT

    def difference(self, asked: dict[str, Any]) -> str:
        """How it differs from the result that is asked for, in words; empty if it is that one."""
        for key, now in asked.items():
            before = getattr(self, key)
            pair = (before, now) if isinstance(now, dict) else ({key: before}, {key: now})
            if other := runtime.difference(*pair):
                return f"was computed with {other}"
        return ""


def read_versioned(file, what: str, version: int) -> dict[str, Any]:
    """A JSON object; ValueError if it is damaged, or its `format` is not the version."""
    try:
        found = runtime.read_json(file)
        number = found["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no {what}: {error!r}") from error
    if number != version:
        raise ValueError(f"{file} has format {number}; this version reads {version}")
    return found


def read_result(file) -> Result:
    """A result that was written. Errors as `read_versioned`."""
    found = read_versioned(file, what := "result of `geoflow reproduce`", FORMAT)
    try:
        return typed.from_json(Result, found)
    except ValueError as error:
        raise ValueError(f"{file} is no {what}: {error}") from error


def read_results(folder) -> dict[Path, dict[str, Result]]:
    """All results below a folder (an error if there is none): folder of a data set → step → result.

    >>> read_results(COMMITTED)[COMMITTED / "tiles-laptop"]["score-uniform"].settings
    {'images': 500, 'seed': 0}
    """
    found: dict[Path, dict[str, Result]] = {}
    for file in sorted(Path(folder).glob("*/*.json")):
        result = read_result(file)
        found.setdefault(file.parent, {})[result.step] = result
    if not found:
        files = "DATA-SCALE/STEP.json, from `geoflow reproduce`"
        raise FileNotFoundError(f"no results ({files}) in {folder}")
    return found


def packed(values: Tensor, step: float) -> dict:
    """Numbers as multiples of `step`, 16 bits each, compressed; ValueError if they do not fit."""
    multiples = (values.double() / step).round()
    if not bool((multiples.abs() <= 32767).all()):
        most, limit = values.abs().max().item(), f"finite ones of at most {32767 * step:g}"
        raise ValueError(f"values up to {most} in steps of {step}; expected {limit}")
    content = zlib.compress(multiples.numpy().astype("<i2").tobytes(), 9)
    return {"shape": list(values.shape), "step": step, "zlib": base64.b64encode(content).decode()}


def unpacked(file: dict) -> Tensor:
    """The numbers that were `packed`, in float64."""
    multiples = np.frombuffer(zlib.decompress(base64.b64decode(file["zlib"])), "<i2")
    return torch.from_numpy(multiples.reshape(file["shape"]).astype(np.float64)) * file["step"]


def packed_map(density: DensityMap) -> dict:
    """A density map for a file: `nats_over_uniform`, packed, `integral` and `half_area_km2`.

    >>> from geoflow import Geolocator
    >>> kept = packed_map(Geolocator(None, "uniform").density(resolution=10.0))
    >>> raster(kept).log_density.shape
    torch.Size([18, 36])
    """
    shown = (density.log_density - sphere.LOG_UNIFORM).clamp(min=-3)  # Maps show what is above 0.
    kept = {"integral": density.integral, "half_area_km2": density.region_area_km2(0.5)}
    return {"nats_over_uniform": packed(shown, 0.02), **kept}


def raster(density: dict) -> Raster:
    """The map that was `packed_map`, to draw it.

    >>> result = read_result(COMMITTED / "tiles-laptop" / "figA-uniform.json")
    >>> raster(result.values["density"]).log_density.shape
    torch.Size([180, 360])
    """
    values = unpacked(density["nats_over_uniform"])
    return Raster(*raster_axes(180 / len(values)), values + sphere.LOG_UNIFORM)
