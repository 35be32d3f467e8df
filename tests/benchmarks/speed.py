"""What a reader waits for: the import, samples, the likeliest of many, PRDC, a density map, beside the solvers' error. Run on an idle machine:

python tests/benchmarks/speed.py [MODEL]
"""

import statistics
import subprocess
import sys
import time

import torch

from geoflow import Geolocator, likelihood, maps, metrics, sphere
from geoflow.data import tiles
from geoflow.runtime import machine


def median_seconds(call, runs: int = 5) -> float:
    """Median wall time of a call after one warm-up."""
    call()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - start)
    return statistics.median(seconds)


def import_seconds(*statements: str) -> list[float]:
    """Median wall times of statements in fresh interpreters, by their own clocks and taken in turn."""
    code = "import time; start = time.perf_counter(); {}; print(time.perf_counter() - start)"
    rounds = [
        [float(subprocess.check_output([sys.executable, "-c", code.format(s)])) for s in statements]
        for _ in range(7)
    ]
    return [statistics.median(seconds) for seconds in zip(*rounds, strict=True)]


def main() -> None:
    geo = Geolocator.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "tiles")
    print(f"{machine()}, torch {torch.__version__}, medians of 5")
    both, torch_alone = import_seconds("import torch, geoflow", "import torch")
    print(f"import torch, geoflow {both:22.3f} s   torch alone {torch_alone:.3f} s")

    taiga = geo.embed(tiles.tile(*tiles.EXAMPLES["taiga"]))
    fine = sphere.from_latlon(geo.sample(cond=taiga, n=1024, steps=64, seed=0))
    for solver, steps in (("euler", 64), ("midpoint", 32), ("rk4", 16)):
        seconds = median_seconds(
            lambda solver=solver, steps=steps: geo.sample(
                cond=taiga, n=1024, steps=steps, solver=solver, seed=0
            )
        )
        ends = sphere.from_latlon(
            geo.sample(cond=taiga, n=1024, steps=steps, solver=solver, seed=0)
        )
        km = sphere.distance_km(ends, fine).median()
        print(
            f"1,024 samples, 64 evaluations, {solver:9}{seconds:7.3f} s   median error {km:.2f} km"
        )

    x = sphere.uniform((1, 1024), torch.Generator().manual_seed(0))
    time_of = {}
    for name, field in (
        ("layer by layer", geo.velocity),
        ("torch.func.jvp", lambda *inputs: geo.velocity(*inputs)),
    ):
        with torch.no_grad():
            time_of[name] = median_seconds(
                lambda field=field: likelihood.divergence(
                    field, geo.path, x, torch.tensor(0.5), taiga
                )
            )
    ratio = time_of["torch.func.jvp"] / time_of["layer by layer"]
    print(
        f"divergence of 1,024 points {time_of['layer by layer']:15.3f} s   by torch.func.jvp {ratio:.1f} times that"
    )
    places = sphere.to_latlon(fine[0])
    print(
        f"log p of 1,024 places {median_seconds(lambda: geo.log_prob(places, cond=taiga)):20.3f} s"
    )

    one = median_seconds(lambda: geo.sample(cond=taiga, n=1, seed=0), runs=15)
    many = median_seconds(lambda: geo.sample_likeliest(cond=taiga, n=32, seed=0), runs=15)
    print(
        f"one sample of one image {one:19.3f} s   the likeliest of 32: {many / one:.1f} times that"
    )

    generator = torch.Generator().manual_seed(0)
    real, fake = sphere.uniform(10_000, generator), sphere.uniform(10_000, generator)
    print(
        f"PRDC of 10,000 + 10,000 points {median_seconds(lambda: metrics.prdc(real, fake)):12.3f} s"
    )

    for name, latlon in tiles.EXAMPLES.items():
        cond = geo.embed(tiles.tile(*latlon))
        seconds = median_seconds(lambda cond=cond: geo.density(cond=cond), runs=1)
        density = geo.density(cond=cond)
        draw = median_seconds(
            lambda density=density: maps.density_figure(density)._repr_png_(), runs=3
        )
        cells = f"{len(density.x):,} cells, integral {density.integral:.4f}"
        print(f"density map, {name:8} {seconds:19.2f} s   {cells}; drawn in {draw:.2f} s")


if __name__ == "__main__":
    main()
