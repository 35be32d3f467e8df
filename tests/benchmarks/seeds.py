"""The comparison with several trainings, each with an encoder of its own:

python tests/benchmarks/seeds.py [--seeds 0 1 2 3 4] [--methods …] [--out outputs/seeds]     # 8 minutes a seed on a GPU, two hours on a CPU

The flow, mixtures of 3, 8 and 16 components, the other methods and retrieval, by the recipe `laptop`. All methods of a seed share an encoder that
was trained with this seed. Scores are of the tiles of `geoflow compare`. Several processes may work on different seeds of one folder. Run it again
to go on. Results: data/results/seeds.json, with differences to the flow by a paired bootstrap over tiles and trainings.
"""

import argparse
import functools
import statistics
from pathlib import Path

import torch
from safetensors.torch import load_file

from geoflow import Geolocator, runtime
from geoflow.cli.compare import REPORTS, competitor, differences, score
from geoflow.training import read_recipe

FLOW, MIXTURE, SCALE = "riemannian", "vmf-mixture", "laptop"
COMPONENTS = {f"{MIXTURE}-16": 16, f"{MIXTURE}-8": 8}
METHODS = (FLOW, MIXTURE, *COMPONENTS, "flow", "diffusion", "vmf", "retrieval")
RESULTS = runtime.DATA / "results" / "seeds.json"
KEPT = ("nll_over_uniform", "geoscore", "median_km", "single_geoscore", "energy_km")


def folder_of(out: Path, method: str, seed: int) -> Path:
    if method in COMPONENTS:
        return out / f"{COMPONENTS[method]} components" / f"{MIXTURE}-{seed}"
    return out / f"{method}-{seed}"


def compute(methods: list[str], seed: int, tiles: int, out: Path) -> None:
    """Train and score what the folder lacks of a seed."""
    recipe = read_recipe("tiles", SCALE)
    for method in methods:
        folder, settings, encoder = folder_of(out, method, seed), recipe, None
        if method in COMPONENTS:
            settings = recipe | {"components": COMPONENTS[method]}
            encoder = Geolocator.from_pretrained(folder_of(out, FLOW, seed) / "model").encoder
        name = MIXTURE if method in COMPONENTS else method
        made = functools.partial(competitor, settings, name, folder.parent, seed, encoder)
        score(folder, made, SCALE, tiles)
        print(f"seed {seed}, {method}: scored", flush=True)


def seeds_of(out: Path, method: str) -> list[int]:
    """The seeds of which all reports are there."""
    of = folder_of(out, method, 0)
    found = (int(f.name.rsplit("-", 1)[1]) for f in of.parent.glob(f"{of.name[:-1]}[0-9]"))
    complete = [
        s
        for s in found
        if all((of.parent / f"{of.name[:-1]}{s}" / f"{name}.json").exists() for name in REPORTS)
    ]
    return sorted(complete)


def collected(out: Path) -> dict:
    """Means over trainings, standard deviations between them, and how far the flow is ahead: [mean, standard error]."""
    rows = {}
    for method in METHODS:
        seeds = seeds_of(out, method)
        if not seeds:
            continue
        row: dict = {"seeds": seeds, "machines": [], "mean": {}, "deviation": {}, "flow_ahead": {}}
        for name in REPORTS:
            folders = [folder_of(out, method, seed) for seed in seeds]
            found = [runtime.read_json(f / f"{name}.json", dict) for f in folders]
            row["machines"] = sorted({report["machine"] for report in found})
            reports = [report["metrics"] for report in found]
            scores = {kind: [r[kind] for r in reports] for kind in KEPT if kind in reports[0]}
            row["mean"][name] = {kind: statistics.mean(values) for kind, values in scores.items()}
            if len(seeds) > 1:
                row["deviation"][name] = {
                    k: statistics.stdev(values) for k, values in scores.items()
                }
            if method != FLOW:
                row["flow_ahead"][name] = ahead(out, method, name, seeds)
        rows[method] = row
    return rows


def ahead(out: Path, method: str, name: str, seeds: list[int]) -> dict[str, list[float]]:
    """By how much the flow of the same seeds is ahead in each score."""
    rows = {}
    for m in (FLOW, method):
        parts = [load_file(folder_of(out, m, seed) / f"{name}.safetensors") for seed in seeds]
        rows[m, name] = {kind: torch.stack([part[kind] for part in parts]) for kind in parts[0]}
    return differences(rows)[name][method]


def table(rows: dict) -> None:
    print(
        "| method | trainings | NLL | GeoScore | guided sample | energy | held-out: GeoScore | energy |"
    )
    print("|---|---|---|---|---|---|---|---|")
    columns = (
        *(("test", "nll_over_uniform"), ("test", "geoscore"), ("test-guided", "single_geoscore")),
        *(("test", "energy_km"), ("held-out", "geoscore"), ("held-out", "energy_km")),
    )
    for method, row in rows.items():
        numbers = []
        for name, kind in columns:
            digits = 2 if kind.startswith("nll") else 0
            spread = row["deviation"].get(name, {}).get(kind)
            numbers.append(
                f"{row['mean'][name][kind]:.{digits}f}"
                + ("" if spread is None else f" ± {spread:.{digits}f}")
            )
        print(f"| {method} | {len(row['seeds'])} | {' | '.join(numbers)} |")
    for method, row in rows.items():
        for name, found in row["flow_ahead"].items():
            parts = [
                f"{kind} {mean:.2f} ± {error:.2f}{'' if abs(mean) > 2 * error else ' ='}"
                for kind, (mean, error) in found.items()
            ]
            print(f"flow ahead of {method}, {name}: {', '.join(parts)}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2, 3, 4])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("outputs/seeds"))
    a = parser.parse_args()
    for seed in a.seeds:
        compute(a.methods, seed, a.tiles, a.out)
    rows = collected(a.out)
    runtime.write_json(RESULTS, {"scale": SCALE, "tiles": a.tiles, "methods": rows})
    table(rows)


if __name__ == "__main__":
    main()
