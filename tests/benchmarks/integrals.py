"""Do densities add up? The integral of every model's density on random tiles, which should be 1:

python tests/benchmarks/integrals.py [MODEL …] [--tiles 50] [--points N]

Without --points it is that of a density map (20 to 50 s of one CPU thread, minutes for a method in R³); with it, an estimate without a grid
by importance sampling, and its standard error. Every tile is written to data/results/integrals.json when it is done, so run it again to go on.
"""

import argparse
from collections.abc import Callable

import torch

from geoflow import Geolocator, density, runtime, sphere
from geoflow.checkpoint import shipped_models
from geoflow.data import tiles

FILE = runtime.DATA / "results" / "integrals.json"


def places() -> list[list[float]]:
    """Latitudes and longitudes of 50 random places."""
    return sphere.to_latlon(sphere.uniform(50, torch.Generator().manual_seed(11))).tolist()


def by_map(geo: Geolocator, cond: torch.Tensor) -> list[float]:
    return [geo.density(cond=cond).integral]


def by_importance(points: int) -> Callable[[Geolocator, torch.Tensor], list[float]]:
    def integral(geo: Geolocator, cond: torch.Tensor) -> list[float]:
        def log_prob(x: torch.Tensor) -> torch.Tensor:
            return geo.log_prob(sphere.to_latlon(x), cond=cond)[0]

        samples = sphere.from_latlon(geo.sample(cond=cond, n=8192, seed=0)[0])
        generator = torch.Generator().manual_seed(0)
        return list(density.importance_integral(log_prob, samples, points, generator))

    return integral


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=shipped_models())
    parser.add_argument("--tiles", type=int, default=50)
    parser.add_argument("--points", type=int)
    options = parser.parse_args()
    found = runtime.read_json(FILE, dict) if FILE.exists() else {}
    kind = f"{options.points} points" if options.points else "map"
    compute = by_importance(options.points) if options.points else by_map
    for model in options.models:
        geo = Geolocator.from_pretrained(model)
        known = found.setdefault(model, {}).setdefault(kind, [])
        for place in runtime.progress(
            places()[len(known) : options.tiles], desc=model, unit="tile"
        ):
            known.append([round(x, 5) for x in compute(geo, geo.embed(tiles.tile(*place)))])
            runtime.write_json(FILE, found)
        values = torch.tensor([value for value, *_ in known[: options.tiles]], dtype=torch.float64)
        off = int(((values - 1).abs() > 0.01).sum())
        low, middle, high = (float(values.quantile(q)) for q in (0, 0.5, 1))
        text = f"{model}, {kind}, {len(values)} tiles: {low:.4f}, {middle:.4f}, {high:.4f}"
        print(f"{text} (lowest, median, highest), mean {values.mean():.4f}, {off} off by over 1 %")


if __name__ == "__main__":
    main()
