"""The flow beside the mixture of three on north-up tiles, where nearly every tile has one answer:

python tests/benchmarks/north_up.py [--scale demo] [--seeds 0 1 2] [--out outputs/north-up]   # demo: some 10 minutes of one CPU thread a seed

Both methods of a seed share an encoder that was trained with this seed, and have the settings of the recipe; only the tiles' views are
others. Scores are of 2,000 tiles of seen regions, differences by a paired bootstrap over tiles and trainings. Run it again to go on.
"""

import argparse
import functools
from pathlib import Path

import torch
from safetensors.torch import load_file

from geoflow import runtime
from geoflow.cli.compare import competitor, differences, score
from geoflow.training import read_recipe

FLOW, MIXTURE = "riemannian", "vmf-mixture"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scale", default="demo", choices=("smoke", "demo", "laptop", "gpu"))
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2])
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("outputs/north-up"))
    a = parser.parse_args()
    recipe, out = read_recipe("tiles", a.scale) | {"views": "north-up"}, a.out / a.scale
    rows: dict = {}
    for method in (FLOW, MIXTURE):
        for seed in a.seeds:
            made = functools.partial(competitor, recipe, method, out, seed, None)
            score(out / f"{method}-{seed}", made, a.scale, a.tiles)
        reports = [
            runtime.read_json(out / f"{method}-{seed}" / "test.json", dict) for seed in a.seeds
        ]
        for seed, report in zip(a.seeds, reports, strict=True):
            found = report["metrics"]
            text = ", ".join(
                f"{k} {found[k]:.2f}"
                for k in ("nll_over_uniform", "geoscore", "median_km", "energy_km")
            )
            print(f"{method}, seed {seed}: {text}", flush=True)
        parts = [load_file(out / f"{method}-{seed}" / "test.safetensors") for seed in a.seeds]
        rows[method, "test"] = {kind: torch.stack([p[kind] for p in parts]) for kind in parts[0]}
    for kind, (mean, error) in differences(rows)["test"][MIXTURE].items():
        print(f"the flow is ahead in {kind} by {mean:.2f} ± {error:.2f}")


if __name__ == "__main__":
    main()
