"""Do densities add up? The integral of every model's density on random tiles, which should be 1:

python tests/benchmarks/integrals.py [MODEL …] [--tiles 50] [--points N]

Without --points it is that of a density map (20 to 50 s of one CPU thread; the better part of an hour for a method in R³). With it, an
estimate without a grid by importance sampling, and its standard error. Every tile is written to data/results/integrals.json when it is
done, so run it again to go on.
"""

import argparse

import torch

from geoflow import Geolocator, density, runtime, sphere
from geoflow.checkpoint import shipped_models
from geoflow.data import tiles

FILE = runtime.DATA / "results" / "integrals.json"
SAMPLES, STEPS = 8192, 24  # samples of the proposal; steps of RK4 in likelihoods


def places() -> list[list[float]]:
    """Latitudes and longitudes of 50 random places."""
    return sphere.to_latlon(sphere.uniform(50, torch.Generator().manual_seed(11))).tolist()


def integral(geo: Geolocator, image, points: int | None, seed: int) -> list[float]:
    """That of a map; or, with a number of points, an estimate without a grid and its standard error."""
    cond = geo.embed(image)
    if points is None:
        return [geo.density(cond=cond).integral]

    def log_prob(x: torch.Tensor) -> torch.Tensor:
        return geo.log_prob(sphere.to_latlon(x), cond=cond, steps=STEPS)[0]

    samples = sphere.from_latlon(geo.sample(cond=cond, n=SAMPLES, seed=0)[0])
    # Each tile has points of its own, so that their errors cancel in the mean over tiles.
    generator = torch.Generator().manual_seed(seed)
    return list(density.importance_integral(log_prob, samples, points, generator))


def read() -> dict:
    return runtime.read_json(FILE, dict) if FILE.exists() else {}


def summary(known: list[list[float]]) -> str:
    """Integrals of maps: their quantiles. Estimates with errors: their mean, and whether they scatter as they should."""
    values, *errors = torch.tensor(known, dtype=torch.float64).T
    n, mean = len(values), float(values.mean())
    if errors:
        chi2 = float(((values - mean) / errors[0]).square().sum())
        error = float(errors[0].square().sum().sqrt()) / n
        return f"{n} tiles: mean {mean:.4f} ± {error:.4f}, χ² {chi2:.0f} for {n - 1} degrees of freedom"
    low, middle, high = (float(values.quantile(q)) for q in (0, 0.5, 1))
    off = int(((values - 1).abs() > 0.01).sum())
    text = f"{n} tiles: {low:.4f}, {middle:.4f}, {high:.4f} (lowest, median, highest)"
    return f"{text}, mean {mean:.4f}, {off} off by over 1 %"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=shipped_models())
    parser.add_argument("--tiles", type=int, default=50)
    parser.add_argument("--points", type=int)
    options = parser.parse_args()
    kind = f"{options.points} points" if options.points else "map"
    for model in options.models:
        geo = Geolocator.from_pretrained(model)
        known = read().get(model, {}).get(kind, [])
        for place in runtime.progress(
            places()[len(known) : options.tiles], desc=model, unit="tile"
        ):
            values = integral(geo, tiles.tile(*place), options.points, len(known))
            known.append([round(x, 5) for x in values])
            found = read()  # again, since another model may be under way beside this one
            found.setdefault(model, {})[kind] = known
            runtime.write_json(FILE, found)
        print(f"{model}, {kind}, {summary(known[: options.tiles])}")


if __name__ == "__main__":
    main()
