"""Densities of events on the sphere, without images: a flow, a mixture of von Mises–Fisher and a kernel density, on splits of a point set.

The protocol is that of the published table (Mathieu & Nickel, 2020): five random splits 80 / 10 / 10, choices by validation, the mean
negative log-likelihood of the test events in nats. Many events repeat coordinates exactly, so that a density may put ever sharper peaks on
places it has seen, and likelihood has no lower bound there. So every result also holds the test events at places that are new, and
`distinct` takes each place once before splitting.
"""

import hashlib
import json
import math
import time
from pathlib import Path

import torch
import yaml
from torch import Tensor

import geoflow
from geoflow import likelihood, runtime, sphere, vmf
from geoflow.data import earth_events
from geoflow.geolocator import Geolocator
from geoflow.runtime import machine, write_atomically
from geoflow.training.fit import train_points

FORMAT = 1
COMPONENTS = (10, 30, 100, 300)
CONCENTRATIONS = tuple(10 ** (k / 4) for k in range(6, 33))  # kernels from 1,100 km down to 0.6 km
STEPS = 128  # of RK4, in likelihoods: repeated places make needles
DENSITIES = {
    "flow": "Riemannian flow, ours",
    "mixture": "mixture of vMF, ours",
    "kernel": "kernel density, ours",
}
CHECKED = 256  # test events whose likelihood is computed by a second solver


def tuned_mixture(train: Tensor, validation: Tensor, seed: int = 0) -> vmf.Mixture:
    """The mixture of von Mises–Fisher, fitted to (n, 3) points, whose number of components suits other points best.

    Raises:
        ValueError: fewer points than the fewest components.
    """
    counts = [k for k in COMPONENTS if k <= len(train) // 2] or COMPONENTS[:1]
    fitted = [
        vmf.fit_mixture(train, k, 100, generator=torch.Generator().manual_seed(seed))
        for k in counts
    ]
    return min(fitted, key=lambda mixture: nll(mixture, validation))


def tuned_kernel(train: Tensor, validation: Tensor) -> vmf.Mixture:
    """The kernel density of (n, 3) points: a von Mises–Fisher of one κ around each; κ suits other points best."""
    n = len(train)
    weight = train.new_full((1, n), -math.log(n)).double()
    kernels = (
        vmf.Mixture(weight, train[None].double(), torch.full_like(weight, kappa))
        for kappa in CONCENTRATIONS
    )
    return min(kernels, key=lambda kernel: nll(kernel, validation))


def log_prob(density, x: Tensor, steps: int = STEPS, solver: str = "rk4") -> Tensor:
    """Log-density in nats of (n, 3) unit vectors under a mixture, or an unconditional flow: (n,)."""
    if isinstance(density, vmf.Mixture):
        return torch.cat([density.log_prob(part[None].double())[0] for part in x.split(256)])
    return density.log_prob(sphere.to_latlon(x), steps=steps, solver=solver)[0].double()


def nll(density, x: Tensor) -> float:
    """Mean negative log-density of (n, 3) unit vectors in nats; uniform: 2.531."""
    return -float(log_prob(density, x).mean())


def density_map(
    flow: Geolocator, max_cells: int, steps: int = STEPS, samples: int = 1 << 16
) -> likelihood.DensityMap:
    """The density of an unconditional flow; events make many needles, so its grid is finer than `Geolocator.density`'s.

    Args:
        flow: without images.
        max_cells: see `likelihood.density_map`.
        steps: of RK4, in each cell.
        samples: that say where the density is; they decide sooner than the map which cells are split, so 16 steps do.
    """
    drawn = _rough_samples(flow, samples)
    return likelihood.density_map(
        lambda x: log_prob(flow, x, steps),
        drawn,
        cell_mass=1 / 2000,
        max_cells=max_cells,
        desc="density map",
    )


def integral(
    flow: Geolocator, points: int, steps: int = STEPS, samples: int = 1 << 16, seed: int = 0
) -> tuple[float, float]:
    """∫ p over the sphere of an unconditional flow, and its standard error, by `likelihood.integral`: needles need no grid there.

    Args:
        flow: without images.
        points: at which the density is computed.
        steps: of RK4, at each.
        samples: that say where the density is.
        seed: of the points.
    """
    generator = torch.Generator().manual_seed(seed)
    return likelihood.integral(
        lambda x: log_prob(flow, x, steps),
        _rough_samples(flow, samples),
        points,
        generator,
        desc="integral",
    )


def _rough_samples(flow: Geolocator, n: int) -> Tensor:
    return sphere.from_latlon(flow.sample(n=n, seed=0, steps=16))[0]


def splits(latlon: Tensor, seed: int, distinct: bool = False) -> tuple[Tensor, Tensor, Tensor]:
    """Train, validation and test events of a split as unit vectors, float64. Arguments and errors as `run`."""
    parts = earth_events.split(earth_events.distinct(latlon) if distinct else latlon, seed)
    train, validation, test = (sphere.from_latlon(part) for part in parts)
    return train, validation, test


def run(
    events: str, latlon: Tensor, seed: int, recipe: dict, folder, distinct: bool = False, say=print
) -> dict:
    """Fit all densities to one split and judge them. A finished folder is read, an interrupted training goes on.

    Args:
        events: what they are: `volcano`, `earthquake`, `flood`, `fire`, or a name of your own.
        latlon: (n, 2) degrees, such as `earth_events.load` gives.
        seed: of the split, the weights, batches and noise.
        recipe: see `geoflow/recipes/earth-events.yaml`.
        folder: for the flow's run, its model and `result.json`.
        distinct: take each place once, before splitting.
        say: takes lines of text about what happens.

    Returns:
        The result: `nll` of each density on the test events and on those of them at new places; what was
        chosen; how far two solvers are apart, in nats; counts; the inputs, machine and seconds.

    Raises:
        ValueError: fewer than 10 events, what is no place, or a folder that holds the result of something else.
    """
    folder = Path(folder)
    train, validation, test = splits(latlon, seed, distinct)
    asked = {
        "format": FORMAT, "events": events, "seed": seed, "distinct": distinct, "recipe": recipe,
        "sha256": hashlib.sha256(latlon.double().numpy().tobytes()).hexdigest(),
    }  # fmt: skip
    file = folder / "result.json"
    if file.exists():
        found = read(file)
        if any(found[key] != value for key, value in asked.items()):
            raise ValueError(
                f"{file} is the result of other events, another split or recipe; choose another folder or delete it"
            )
        return found
    start = time.perf_counter()
    mixture, kernel = tuned_mixture(train, validation, seed), tuned_kernel(train, validation)
    closed = time.perf_counter() - start
    network, seconds = train_points(recipe, train, validation, folder / "flow", seed, say)
    flow = Geolocator(network, schedule=recipe["sampling_schedule"], provenance=asked)
    flow.save_pretrained(folder / "model")
    start = time.perf_counter()
    new = ~known(test, train)
    scores = {}
    for name, density in {"flow": flow, "mixture": mixture, "kernel": kernel}.items():
        values = log_prob(density, test)
        scores[name] = {"test": -float(values.mean()), "new": -float(values[new].mean())}
    few = test[:CHECKED]
    gap = abs(float((log_prob(flow, few) - log_prob(flow, few, 1, "dopri5")).mean()))
    result = asked | {
        "counts": {
            "train": len(train),
            "validation": len(validation),
            "test": len(test),
            "new": int(new.sum()),
        },
        "nll": scores,
        "components": mixture.mean.shape[1],
        "concentration": float(kernel.concentration[0, 0]),
        "solver_gap": gap,
        "seconds": {"closed forms": closed, "flow": seconds, "scores": time.perf_counter() - start},
        "machine": machine(),
        "threads": torch.get_num_threads(),
        "geoflow": geoflow.__version__,
    }
    write_atomically(file, json.dumps(result, indent=1) + "\n")
    return result


def recipe_of(recipe: dict, events: str) -> dict:
    """The recipe with the number of steps that it has for these events."""
    flow = recipe["flow"]
    steps = recipe.get("steps", {}).get(events, flow["optimization"]["steps"])
    flow = flow | {"optimization": flow["optimization"] | {"steps": steps}}
    return {key: value for key, value in recipe.items() if key != "steps"} | {"flow": flow}


def known(x: Tensor, others: Tensor) -> Tensor:
    """Which of (n, 3) points are exactly one of the others: (n,)."""
    places = set(map(tuple, others.tolist()))
    return torch.tensor([tuple(point) in places for point in x.tolist()], dtype=torch.bool)


def read(file) -> dict:
    """A result that `run` wrote.

    Raises:
        ValueError: the file is damaged or of another version.
    """
    try:
        result = json.loads(Path(file).read_text(encoding="utf-8"))
        version = result["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{file} is no result on earth events: {error!r}") from error
    if version != FORMAT:
        raise ValueError(f"{file} has format {version}; this version reads {FORMAT}")
    return result


def published() -> dict[str, dict[str, tuple[float, float]]]:
    """The published table: method → events → (mean, deviation) over splits, nats."""
    text = (runtime.DATA / "paper" / "earth-events.yaml").read_text(encoding="utf-8")
    return {
        method: {events: (row[0], row[1]) for events, row in rows.items()}
        for method, rows in yaml.safe_load(text).items()
    }


def mean_and_deviation(values: list[float]) -> tuple[float, float]:
    """Over splits; the deviation of a single one is NaN."""
    x = torch.tensor(values, dtype=torch.float64)
    return float(x.mean()), float(x.std()) if len(x) > 1 else math.nan


def table(results: list[dict], which: str = "test") -> str:
    """The published table and ours below it, as Markdown: test NLL in nats, mean ± deviation over the splits there are.

    Args:
        results: of `run`, all with or all without `distinct`.
        which: `test`, or `new` for the test events at places that training has not seen.
    """
    names = list(earth_events.SOURCES)
    lines = [f"| | {' | '.join(names)} |", "|---" * (1 + len(names)) + "|"]
    for method, row in published().items():
        lines.append(
            f"| {method}, published | {' | '.join(f'{row[e][0]:.2f} ± {row[e][1]:.2f}' for e in names)} |"
        )
    for name in DENSITIES:
        cells = []
        for events in names:
            values = [
                result["nll"][name][which] for result in results if result["events"] == events
            ]
            mean, deviation = mean_and_deviation(values) if values else (math.nan, math.nan)
            cells.append(
                f"{mean:.2f} ± {deviation:.2f}"
                if len(values) > 1
                else f"{mean:.2f}"
                if values
                else ""
            )
        lines.append(f"| {DENSITIES[name]} | {' | '.join(cells)} |")
    counts = [sum(result["events"] == events for result in results) for events in names]
    return "\n".join([*lines, f"| splits | {' | '.join(map(str, counts))} |"])
