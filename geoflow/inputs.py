"""What a Geolocator is handed, checked; and large requests computed in parts.

Every function raises a `ValueError` that names the value and what was expected.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from geoflow import samplers, sphere
from geoflow.runtime import choose
from geoflow.samplers import SolverOptions

STATES_PER_CALL = 1024  # of the network on a CPU, whose cache holds no more
STATES_PER_CALL_ON_GPU = 64 * STATES_PER_CALL


def as_list(images) -> list:
    """One image or several → a list that is not empty."""
    images = list(images) if isinstance(images, (list, tuple)) else [images]
    if not images:
        raise ValueError("an empty list of images; expected at least one")
    return images


def check_one_given(images, cond) -> None:
    """Refuse both or neither."""
    if (images is None) == (cond is None):
        got = "both" if images is not None else "neither"
        raise ValueError(f"give exactly one of images and cond; got {got}")


def check_cond(cond, width: int) -> Tensor:
    """Finite embeddings as float32, (B, width)."""
    cond = torch.as_tensor(cond, dtype=torch.float32)
    if cond.ndim != 2 or cond.shape[1] != width or not len(cond):
        raise ValueError(f"cond has shape {tuple(cond.shape)}; expected (B, {width})")
    if not bool(cond.isfinite().all()):
        raise ValueError("cond holds NaN or infinite values; expected finite embeddings")
    return cond


def starting_points(model, batch: int, n: int, seed, noise, options: SolverOptions) -> Tensor:
    """(batch, n, 3): the noise given, or n points that all images share."""
    if noise is None:
        if int(n) != n or n < 1:
            raise ValueError(f"n={n} samples; expected a whole number of at least 1")
        generator = torch.Generator().manual_seed(seed) if seed is not None else None
        return model.noise((int(n),), generator).expand(batch, -1, -1)
    if noise.ndim != 3 or (len(noise), noise.shape[-1]) != (batch, 3) or not noise.shape[1]:
        raise ValueError(f"noise has shape {tuple(noise.shape)}; expected ({batch}, n, 3), n ≥ 1")
    return noise if options.solver == samplers.PLONK else model.prepare(noise)


def solver_options(model, steps=None, solver=None, guidance: float = 0.0) -> SolverOptions:
    """Options of a method, its own defaults where they are None."""
    if not math.isfinite(guidance):
        raise ValueError(f"guidance of {guidance}; expected a finite number, 0 for none")
    if guidance and not model.guidable:
        text = f"guidance of {guidance} with method {model.name!r}, which has none"
        raise ValueError(f"{text}; expected 0")
    steps = model.defaults.steps if steps is None else steps
    solver = model.defaults.solver if solver is None else solver
    return SolverOptions(steps, choose("solver", solver, samplers.NAMES), guidance)


def places(latlon, batch: int) -> Tensor:
    """Unit vectors (batch, N, 3) of (batch, N, 2) or (N, 2) degrees."""
    x = sphere.from_latlon(latlon).float()
    x = x.expand(batch, -1, -1) if x.ndim == 2 else x
    if x.ndim != 3 or len(x) != batch or not x.shape[1]:
        have = tuple(torch.as_tensor(latlon).shape)
        raise ValueError(f"latlon has shape {have}; expected ({batch}, N, 2) or (N, 2), N ≥ 1")
    return x


def by_parts(compute: Callable, points: Tensor, cond: Tensor | None, states: int = 1):
    """`compute(points, cond)` in calls of bounded size: some images, or some points of one.

    Args:
        compute: (b, n, 3), (b, C) or None → a tensor (b, n, ...), or a tuple of them.
        points: (B, N, 3).
        cond: (B, C) or None.
        states: how many states of the network each point becomes.

    Returns:
        The result for all, on the CPU: (B, N, ...), or a tuple.
    """
    on_cpu = points.device.type == "cpu"
    size = max(1, (STATES_PER_CALL if on_cpu else STATES_PER_CALL_ON_GPU) // states)
    images = max(1, size // points.shape[1])
    rows = []
    for start in range(0, len(points), images):
        some = slice(start, start + images)
        c = None if cond is None else cond[some]
        results = [compute(part, c) for part in points[some].split(size, dim=1)]
        rows.append([torch.cat(parts, 1) for parts in _columns(results)])
    found = tuple(torch.cat(parts).cpu() for parts in zip(*rows, strict=True))
    return found if isinstance(results[0], tuple) else found[0]


def _columns(results: list):
    return zip(*results, strict=True) if isinstance(results[0], tuple) else [results]
