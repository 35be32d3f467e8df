"""What a Geolocator is handed, checked; and large requests computed in parts.

Every function raises a `ValueError` that names the value and what was expected.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from geoflow import methods, samplers, sphere
from geoflow.data.images import as_list
from geoflow.runtime import choose, number, whole
from geoflow.samplers import SolverOptions

STATES_PER_CALL = 1024  # evaluated at once on a CPU: more do not fit into its cache
STATES_PER_CALL_ON_GPU = 64 * STATES_PER_CALL


def tensor(name: str, values, shape: str) -> Tensor:
    """Finite numbers as floats of the default precision, whose shape the caller checks."""
    try:
        values = torch.as_tensor(values)
        bad = values[~values.isfinite()].tolist()
    except (TypeError, ValueError, RuntimeError) as error:
        why = str(error).partition("\n")[0]
        raise ValueError(f"{name} holds no numbers ({why}); expected {shape}") from error
    if values.is_complex():
        raise ValueError(f"{name} holds complex numbers; expected {shape}")
    if bad:
        raise ValueError(f"{name} holds NaN or infinite values ({bad[0]}); expected finite {shape}")
    return values.to(torch.get_default_dtype())


def generator(seed) -> torch.Generator | None:
    """A generator of that seed; None, torch's global one, without a seed."""
    if seed is None:
        return None
    seed = whole(f"seed={seed!r}", seed, -(2**63), 2**64 - 1)
    return torch.Generator().manual_seed(seed)


def device(name) -> torch.device:
    """A device that can be used here."""
    try:
        found = torch.device(name)
        torch.zeros(1, device=found).cpu()
    except (AssertionError, ImportError, RuntimeError, TypeError) as error:
        kinds = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        here = ", ".join(["'cpu'", *(repr(kind) for kind, usable in kinds.items() if usable)])
        raise ValueError(f"device {name!r} cannot be used here; expected one of {here}") from error
    return found


def check_one_given(images, cond) -> None:
    """Refuse both or neither."""
    if (images is None) == (cond is None):
        got = "both" if images is not None else "neither"
        raise ValueError(f"give exactly one of images and cond; got {got}")


def check_cond(cond, width: int | None = None) -> Tensor:
    """Finite embeddings as float32, (B, width); None: of any width."""
    shape = f"(B, {'C' if width is None else width})"
    cond = tensor("cond", cond, f"embeddings {shape}").float()
    if cond.ndim != 2 or width not in (None, cond.shape[1]) or not len(cond):
        raise ValueError(f"cond has shape {tuple(cond.shape)}; expected {shape}")
    return cond


def condition(geo, images, cond) -> tuple[int, Tensor | None]:
    """Number of images, and what the method of a Geolocator is conditioned on."""
    if geo.method in methods.REFERENCES:
        count = 1 if images is None else len(as_list(images))
        return (count if cond is None else len(check_cond(cond))), None
    gallery = geo.network is None  # a `Retrieval`
    width = geo.model.gallery.shape[1] if gallery else geo.network.config["cond_dim"]
    if width == 0:
        if images is not None or cond is not None:
            raise ValueError("this model is unconditional; give neither images nor cond")
        return 1, None
    check_one_given(images, cond)
    cond = check_cond(geo.embed(images) if cond is None else cond, width)
    return len(cond), cond.to(geo.device)


def starting_points(model, batch: int, n: int, seed, noise, options: SolverOptions) -> Tensor:
    """(batch, n, 3): the noise given, or n points that all images share."""
    if noise is None:
        return model.noise((whole(f"n={n!r} samples", n),), generator(seed)).expand(batch, -1, -1)
    noise = tensor("noise", noise, f"points ({batch}, n, 3)")
    if noise.ndim != 3 or (len(noise), noise.shape[-1]) != (batch, 3) or not noise.shape[1]:
        raise ValueError(f"noise has shape {tuple(noise.shape)}; expected ({batch}, n, 3), n ≥ 1")
    return noise if options.solver == samplers.PLONK else model.prepare(noise)


def solver_options(model, steps=None, solver=None, guidance: float = 0.0) -> SolverOptions:
    """Options of a method, its own defaults where they are None."""
    guidance = number(f"guidance of {guidance!r}", guidance)
    if guidance and not model.guidable:
        text = f"guidance of {guidance} with method {model.name!r}, which has none"
        raise ValueError(f"{text}; expected 0")
    steps = model.defaults.steps if steps is None else whole(f"{steps!r} steps", steps)
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
