"""How good is a flow map with few calls, beside solvers of the flow that taught it? Prints the tables of data/results/flow-map.md:

python tests/benchmarks/flowmap.py [--map tiles-flow-map] [--tiles 1000]     # some six minutes on one idle CPU thread

All rows have the same tiles of seen regions and the same noise, 24 samples of each tile. Differences to sixteen steps of RK4 have standard
errors by a paired bootstrap over tiles. `off` is the median distance in km of a sample from where RK4 takes the same noise.
"""

import argparse
import time

import torch

from geoflow import Geolocator, metrics, runtime, samplers, sphere
from geoflow.data import tiles

SAMPLES, GUIDANCE = 24, 2.0
ROWS = (
    ("map", "jump", (1, 2, 4)),
    ("flow", "euler", (1, 2, 4)),
    ("flow", "midpoint", (1, 2)),
    ("flow", "rk4", (1,)),
    ("flow", "ab3", (1, 3)),
)
DENSITIES = 200  # tiles whose NLL is computed
TIMES = 8  # of which the shortest counts


def scores(geo, cond, truth, noise, solver: str, steps: int, guidance: float):
    """Ends (B, n, 3); GeoScores of the best sample and of the first one, and energy scores: (B,)."""
    parts = zip(cond.split(100), noise.split(100), strict=True)
    how = {"solver": solver, "steps": steps, "guidance": guidance}
    ends = torch.cat([sphere.from_latlon(geo.sample(cond=c, noise=x, **how)) for c, x in parts])
    best, one = (
        metrics.geoscore(metrics.error_km(x, truth))
        for x in (metrics.best_for_geoscore(ends), ends[:, 0])
    )
    return ends, best, one, metrics.energy_score(ends, truth)


def table(models: dict, cond, truth, noise, guidance: float) -> None:
    """One line for each way to sample, a row of the page's table."""

    def judge(name: str, solver: str, steps: int):
        return scores(models[name], cond, truth, noise, solver, steps, guidance)

    ends, best, one, energy = judge("flow", "rk4", 16)
    twice = 2 if guidance else 1
    print(f"\nω = {guidance:g}\n| | calls | GeoScore | | energy | | one sample | off |")
    print("|---|---|---|---|---|---|---|---|")
    of_calls: dict[int, dict[str, tuple]] = {}
    print(
        f"| flow, rk4, 16 steps | {64 * twice} | {best.mean():.0f} | 100 % | {energy.mean():.0f} | | {one.mean():.0f} | 0 |"
    )
    for name, solver, several in ROWS:
        for steps in several:
            x, b, o, e = judge(name, solver, steps)
            ahead, error = metrics.paired_difference(b, best)
            worse, energy_error = metrics.paired_difference(e, energy)
            calls = samplers.evaluations(solver, steps) * (twice if name == "flow" else 1)
            off = sphere.distance_km(x, ends).median()
            of_calls.setdefault(calls, {})[f"{name}, {solver}"] = b, e
            print(
                f"| {name}, {solver}, {runtime.count(steps, 'step')} | {calls} | {b.mean():.0f} | {b.mean() / best.mean():.1%} ({ahead:+.0f} ± {error:.0f}) | "
                f"{e.mean():.0f} | {e.mean() / energy.mean() - 1:+.1%} ({worse:+.0f} ± {energy_error:.0f}) | {o.mean():.0f} | {off:,.0f} |",
                flush=True,
            )
    for calls, rows in of_calls.items():
        if mine := rows.pop("map, jump", None):
            compare(calls, mine, rows)


def compare(calls: int, mine: tuple, solvers: dict[str, tuple]) -> None:
    """By how much the map is ahead of the solvers that make as many calls, by (best, energy)."""
    for name, (best, energy) in solvers.items():
        ahead, error = metrics.paired_difference(mine[0], best)
        km, km_error = metrics.paired_difference(energy, mine[1])
        text = f"GeoScore {ahead:+.0f} ± {error:.0f}, energy {km:+.0f} ± {km_error:.0f} km"
        print(f"{runtime.count(calls, 'call')}: the map is ahead of {name} by {text}")


def densities(models: dict, cond, truth) -> None:
    """Mean NLL of the true places by the velocity of either network."""
    places = sphere.to_latlon(truth)[:, None]
    minus = {name: -geo.log_prob(places, cond=cond)[:, 0] for name, geo in models.items()}
    lost, error = metrics.paired_difference(minus["map"], minus["flow"])
    nats = ", ".join(f"{k} {v.mean() + sphere.LOG_UNIFORM:.2f}" for k, v in minus.items())
    print(f"\nNLL of {len(cond)} tiles over uniform: {nats}; difference {lost:.2f} ± {error:.2f}")


def durations(models: dict, cond) -> None:
    """Processor time of 1,024 samples of one image, the least of some."""

    def seconds(geo, **how) -> float:
        times = []
        for _ in range(TIMES):
            start = time.process_time()
            geo.sample(cond=cond[:1], n=1024, seed=0, **how)
            times.append(time.process_time() - start)
        return min(times)

    jump, solved = seconds(models["map"], steps=1), seconds(models["flow"])
    usual = models["flow"].model.defaults
    calls = samplers.evaluations(usual.solver, usual.steps)
    print(
        f"1,024 samples of one image: one jump {1000 * jump:.1f} ms, {usual.solver} with {usual.steps} steps {1000 * solved:.1f} ms: "
        f"{solved / jump:.0f} times as long, {calls} times the calls"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--flow", default="tiles")
    parser.add_argument("--map", default="tiles-flow-map")
    parser.add_argument("--tiles", type=int, default=1000)
    a = parser.parse_args()
    models = {name: Geolocator.from_pretrained(getattr(a, name)) for name in ("flow", "map")}
    test = tiles.load("test", a.tiles)
    cond, truth = models["flow"].embed(test.images), test.x
    noise = sphere.uniform((a.tiles, SAMPLES), torch.Generator().manual_seed(0))
    print(f"{runtime.machine()}, torch {torch.__version__}; {a.tiles} test tiles; {a.map}")
    for guidance in (0.0, GUIDANCE):
        table(models, cond, truth, noise, guidance)
    densities(models, cond[:DENSITIES], truth[:DENSITIES])
    durations(models, cond)


if __name__ == "__main__":
    main()
