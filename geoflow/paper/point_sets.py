"""Densities of events on the sphere, without images: a flow, a mixture of vMF, a kernel density.

The protocol is that of the published table (Mathieu & Nickel, 2020): five random splits
80 / 10 / 10, choices by validation, the mean negative log-likelihood of the test events in nats.
Many events repeat coordinates exactly. A density may put ever sharper peaks on such places, where
the likelihood has no upper bound. So every result also holds the test events at new places, and
`distinct` takes each place once before splitting.
"""

import math
import time
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

import geoflow
from geoflow import density, runtime, sphere, vmf
from geoflow.data import earth_events
from geoflow.geolocator import Geolocator
from geoflow.paper.kernels import KernelMixture, fit_kernels
from geoflow.paper.mixtures import fit_mixture
from geoflow.paper.results import read_versioned
from geoflow.paper.tables import markdown_table, read_yaml
from geoflow.training.recipes import overridden

COMPONENTS = (10, 30, 100, 300)
CONCENTRATIONS = tuple(10 ** (k / 4) for k in range(6, 33))  # kernels of 1,100 km to 0.6 km
STEPS = 128  # steps of RK4 in likelihoods: repeated places make the field change fast
FORMAT = 2  # format of result.json
DENSITIES = {
    "flow": "Riemannian flow, ours",
    "mixture": "mixture of vMF, ours",
    "kernel": "kernel density, ours",
    "kernels": "kernels of many widths, ours",
}


def tuned_mixture(train: Tensor, validation: Tensor, seed: int = 0) -> vmf.Mixture:
    """Mixture of vMF of (n, 3) points; other points choose the number of components."""
    mixtures = []
    for components in [k for k in COMPONENTS if k <= len(train) // 2] or COMPONENTS[:1]:
        generator = torch.Generator().manual_seed(seed)
        mixtures.append(fit_mixture(train, components, 100, generator=generator))
    return min(mixtures, key=lambda mixture: nll(mixture, validation))


def tuned_kernel(train: Tensor, validation: Tensor) -> vmf.Mixture:
    """Kernel density of (n, 3) points; other points choose the concentration κ."""
    x = train[None].double()
    weight = torch.full(x.shape[:2], -math.log(len(train)), dtype=torch.float64)
    kernels = (vmf.Mixture(weight, x, torch.full_like(weight, k)) for k in CONCENTRATIONS)
    return min(kernels, key=lambda kernel: nll(kernel, validation))


def log_density(model, x: Tensor, steps: int = STEPS, solver: str = "rk4") -> Tensor:
    """Log-density in nats of (n, 3) points under a model of `DENSITIES`: (n,)."""
    if isinstance(model, KernelMixture):
        return model.log_prob(x)
    if isinstance(model, vmf.Mixture):
        return torch.cat([model.log_prob(part[None].double())[0] for part in x.split(256)])
    return model.log_prob(sphere.to_latlon(x), steps=steps, solver=solver)[0].double()


def nll(model, x: Tensor) -> float:
    """Mean negative log-density of (n, 3) unit vectors in nats.

    >>> nll(Geolocator(None, "uniform"), sphere.uniform(100))  # log 4π
    2.531024...
    """
    return -float(log_density(model, x).mean())


def density_map(
    flow: Geolocator,
    max_cells: int,
    steps: int = STEPS,
    samples: int = 1 << 16,
    guide_steps: int = 16,
) -> density.DensityMap:
    """The density of an unconditional flow, on a finer grid than that of `Geolocator.density`.

    The samples, which say where the grid is refined, are drawn with `guide_steps`.

    >>> round(density_map(Geolocator(None, "uniform"), max_cells=1000, samples=64).integral, 3)
    1.0
    """
    log_prob, guide = _guided(flow, steps, samples, guide_steps)
    return density.density_map(log_prob, guide, 1.0, 1 / 2000, max_cells, "density map")


def sampled_integral(
    flow: Geolocator,
    points: int,
    steps: int = STEPS,
    samples: int = 1 << 16,
    guide_steps: int = STEPS,
    seed: int = 0,
) -> tuple[float, float]:
    """∫ p over the sphere and its standard error, from points that are drawn, without a grid.

    The points lie around samples of `guide_steps`. Samples of too few steps miss the tops of narrow
    peaks, and the few points there then count so much that the error grows.

    >>> value, error = sampled_integral(Geolocator(None, "uniform"), points=500, samples=200)
    >>> abs(value - 1) < 4 * error
    True
    """
    log_prob, guide = _guided(flow, steps, samples, guide_steps)
    generator = torch.Generator().manual_seed(seed)
    return density.importance_integral(log_prob, guide, points, generator, desc="integral")


def _guided(flow: Geolocator, steps: int, samples: int, guide_steps: int):
    """The log-density of a flow, and samples that say where to evaluate it."""
    guide = sphere.from_latlon(flow.sample(n=samples, seed=0, steps=guide_steps))[0]
    return partial(log_density, flow, steps=steps), guide


def splits(latlon: Tensor, seed: int, distinct: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Train, validation and test events of a split as unit vectors, float64.

    Errors are those of `fit_and_judge`.

    >>> [len(part) for part in splits(sphere.to_latlon(sphere.uniform(50)), seed=0)]
    [40, 5, 5]
    """
    parts = earth_events.split(earth_events.distinct(latlon) if distinct else latlon, seed)
    train, validation, test = map(sphere.from_latlon, parts)
    return train, validation, test


def recipe_of(recipe: dict, events: str) -> dict:
    """The recipe with the settings that its `events` says of this set.

    >>> of_fire = {"fire": {"optimization": {"steps": 4}}}
    >>> recipe_of({"flow": {"optimization": {"steps": 2}}, "events": of_fire}, "fire")
    {'flow': {'optimization': {'steps': 4}}}

    Raises:
        ValueError: an unknown setting.
    """
    shared = {name: value for name, value in recipe.items() if name != "events"}
    return shared | {"flow": overridden(recipe["flow"], recipe.get("events", {}).get(events, {}))}


def known(x: Tensor, others: Tensor) -> Tensor:
    """Which of (n, 3) points are exactly one of the others: (n,).

    >>> known(torch.eye(3), torch.eye(3)[:1]).tolist()
    [True, False, False]
    """
    places = set(map(tuple, others.tolist()))
    return torch.tensor([tuple(point) in places for point in x.tolist()], dtype=torch.bool)


def fit_and_judge(
    events: str, latlon: Tensor, seed: int, recipe: dict, folder, distinct: bool = False, log=print
) -> dict:
    """Fit all densities to one split and judge them; a finished folder is read.

    Args:
        events: `volcano`, `earthquake`, `flood`, `fire`, or a name of your own.
        latlon: (n, 2) degrees, such as `earth_events.load` gives.
        seed: of the split, the weights, batches and noise.
        recipe: see `geoflow/training/recipes/earth-events.yaml`.
        folder: for the flow's run, its model and `result.json`; an interrupted training goes on.
        distinct: take each place once, before splitting.
        log: takes lines of text about what happens.

    The result holds `nll` of each density on all test events and on those at new places, what was
    chosen, `solver_gap` between two solvers in nats, counts, inputs, machine and seconds.
    ValueError for fewer than 10 events, what is no place, or a folder of another run.
    """
    from geoflow.training import train_points  # Training needs Lightning.

    folder = Path(folder)
    train, validation, test = splits(latlon, seed, distinct)
    asked = dict(format=FORMAT, events=events, seed=seed, distinct=distinct, recipe=recipe)
    asked["sha256"] = runtime.sha256_of(latlon.double().numpy().tobytes())
    file = folder / "result.json"
    if file.exists():
        found = read_versioned(file, "result on earth events", FORMAT)
        if other := runtime.difference({key: found.get(key) for key in asked}, asked):
            advice = "choose another folder or delete it"
            raise ValueError(f"{file} is the result of a run with {other}; {advice}")
        return found
    began = time.perf_counter()
    mixture, kernel = tuned_mixture(train, validation, seed), tuned_kernel(train, validation)
    kernels = fit_kernels(train, validation)
    took = {"closed forms": time.perf_counter() - began}
    network, took["flow"] = train_points(recipe, train, validation, folder / "flow", seed, log)
    flow = Geolocator(network, schedule=recipe["sampling_schedule"], provenance=asked)
    flow.save_pretrained(folder / "model")
    flow.to(runtime.device())
    began = time.perf_counter()
    new = ~known(test, train)
    fitted = {"flow": flow, "mixture": mixture, "kernel": kernel, "kernels": kernels}
    each = {name: -log_density(model, test) for name, model in fitted.items()}
    scores = {k: {"test": float(v.mean()), "new": float(v[new].mean())} for k, v in each.items()}
    few = test[:256]
    gap = (log_density(flow, few) - log_density(flow, few, 1, "dopri5")).mean()
    counts = {"train": len(train), "validation": len(validation), "test": len(test)}
    counts["new"] = int(new.sum())
    result = asked | {"nll": scores, "solver_gap": abs(float(gap)), "counts": counts}
    concentration = float(kernel.concentration[0, 0])
    result |= {"components": mixture.mean.shape[1], "concentration": concentration}
    weights = {"weights": kernels.weights.tolist()}
    took["scores"] = time.perf_counter() - began
    result |= {"seconds": took, "machine": runtime.machine(), "geoflow": geoflow.__version__}
    runtime.write_json(file, result | weights | {"threads": torch.get_num_threads()})
    return runtime.read_json(file)


def mean_and_deviation(results, events: str, name: str, which="test") -> tuple[float, float]:
    """NLL of one of `DENSITIES` on some events over splits; NaN where there are too few.

    >>> results = [{"events": "fire", "nll": {"flow": {"test": nats}}} for nats in (-1.0, -2.0)]
    >>> mean_and_deviation(results, "fire", "flow")
    (-1.5, 0.7071067811865476)
    """
    values = [result["nll"][name][which] for result in results if result["events"] == events]
    x = torch.tensor(values, dtype=torch.float64)
    return float(x.mean()), float(x.std()) if len(x) > 1 else math.nan


def table(results: list[dict], which: str = "test", published: bool = True) -> str:
    """The published table of NLL and ours below it, mean ± standard deviation over splits.

    >>> table([]).splitlines()[0]
    '|  | volcano | earthquake | flood | fire |'

    The results are of `fit_and_judge`, all with or all without `distinct`. With `which="new"` they
    are judged by the test events at places that training has not seen. `published` shows the
    published rows, which are of all test events.
    """
    names = list(earth_events.SOURCES)
    others = read_yaml("earth-events") if published else {}
    rows = [[f"{k}, published", *(_cell(*row[e]) for e in names)] for k, row in others.items()]
    counts = [sum(result["events"] == events for result in results) for events in names]
    for name, title in DENSITIES.items():
        ours = (mean_and_deviation(results, events, name, which) for events in names)
        rows.append([title, *(_cell(*scores) for scores in ours)])
    return markdown_table(["", *names], [*rows, ["splits", *counts]])


def _cell(mean: float, deviation: float) -> str:
    if math.isnan(mean):
        return ""
    return f"{mean:.2f}" + ("" if math.isnan(deviation) else f" ± {deviation:.2f}")
