"""Scores against minutes of training, and against the number of components of a mixture:

python tests/benchmarks/curves.py [--seeds 1] [--tiles 2000] [--out outputs/curves]     # about 3 hours of one CPU thread a seed

All trainings share the shipped encoder and its embeddings of 300,000 tiles, and have the settings of the recipe `laptop` but for their
steps: each learning rate falls to zero within its own budget, and the weights of the lowest validation loss are kept. Scores are of test
tiles of seen regions and of held-out blocks. Run it again to go on. Results: data/results/curves.json and curves.png, with differences
to the flow of the same steps and seeds by a paired bootstrap over tiles.
"""

import argparse
import shutil
import time
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from geoflow import Geolocator, evaluate, metrics, runtime, sphere
from geoflow.cli.compare import GUIDANCE
from geoflow.data import tiles
from geoflow.training import fit, read_recipe
from geoflow.training.batches import Order, Rows, TensorBatches
from geoflow.training.modules import network_module, sampling_schedule_of
from geoflow.viz import charts, lessons_comparison

RESULTS = runtime.DATA / "results"
FLOW, MIXTURE = "riemannian", "vmf-mixture"
BUDGETS = (500, 1000, 2000, 4000, 8000, 32_000)
COMPONENTS = (1, 3, 8, 16, 32)
SHARED = 2000  # steps of the mixtures with other numbers of components
RUNS = (
    *((FLOW, 0, steps) for steps in BUDGETS),
    *((MIXTURE, k, steps) for k in (3, 16) for steps in BUDGETS[:4]),  # longer ones overfit
    *((MIXTURE, k, SHARED) for k in COMPONENTS if k not in (3, 16)),
)
SPLITS = ("test", "held-out")
BETTER = {"nll": -1, "energy_km": -1, "geoscore": 1, "guided": 1}


def name_of(method: str, components: int, steps: int) -> str:
    return f"{method}-{components}-{steps}" if components else f"{method}-{steps}"


def embedded(out: Path, most: int) -> dict[str, torch.Tensor]:
    """Embeddings and places of all splits, by the encoder of the shipped model."""
    file = out / f"embeddings-{most}.safetensors"
    if not file.exists():
        recipe, encoder = read_recipe("tiles", "laptop"), Geolocator.from_pretrained("tiles")
        numbers = {"train": recipe["tiles"], "validation": recipe["validation_tiles"]}
        found = {}
        for split, n in (numbers | dict.fromkeys(SPLITS, most)).items():
            part = tiles.load(split, n, tiles.views_of(recipe))
            found[split], found[f"{split}-x"] = encoder.embed(part.images), part.x
        with runtime.replacing(file) as partial:
            save_file(found, partial)
    return load_file(file)


def trained(data: dict, method: str, components: int, steps: int, seed: int, out: Path):
    """A model trained for so many steps, and its minutes of processor time."""
    recipe = read_recipe("tiles", "laptop") | {"components": components or 1}
    recipe["flow"]["optimization"]["steps"] = steps
    recipe["methods"].get(method, {}).pop("optimization", None)
    torch.manual_seed(seed)
    module = network_module(recipe, method, data["train"].shape[1], seed)
    rows = [Rows((data[split], data[f"{split}-x"])) for split in ("train", "validation")]
    o = module.optimization
    start = time.process_time()
    run = {"method": method, "components": components, "steps": steps, "seed": seed}
    fit(module, TensorBatches(*rows, Order(o.batch, steps, seed)), out / "flow", run)
    minutes = (time.process_time() - start) / 60
    return Geolocator(module.network, method, sampling_schedule_of(recipe, method)), minutes


def scored(geo: Geolocator, data: dict) -> dict[str, torch.Tensor]:
    """Scores of each tile by `split-score`; `guided` is a single sample's GeoScore, guided if it can be."""
    found = {}
    for split in SPLITS:
        images = data[split], sphere.to_latlon(data[f"{split}-x"])
        rows = evaluate(geo, images, split, likelihood=split == "test").rows
        if geo.model.guidable:
            how = {"guidance": GUIDANCE, "samples": 1, "likelihood": False}
            rows["guided"] = evaluate(geo, images, split, **how).rows["single_geoscore"]
        else:
            rows["guided"] = rows["single_geoscore"]
        found |= {f"{split}-{kind}": rows[kind] for kind in BETTER if kind in rows}
    return found


def compute(seeds: int, most: int, out: Path) -> None:
    """Train and score every run that the folder lacks."""
    data = embedded(out, most)
    for seed in range(seeds):
        for method, components, steps in RUNS:
            folder = out / f"{name_of(method, components, steps)}-{seed}"
            if (folder / "scores.safetensors").exists():
                continue
            shutil.rmtree(folder, ignore_errors=True)  # so that the minutes are of one whole run
            geo, minutes = trained(data, method, components, steps, seed, folder)
            runtime.write_json(folder / "minutes.json", {"minutes": minutes})
            with runtime.replacing(folder / "scores.safetensors") as partial:
                save_file(scored(geo, data), partial)
            print(f"{folder.name}: {minutes:.1f} minutes", flush=True)


def collected(out: Path) -> list[dict]:
    """One row for each run, means over its seeds, with differences to the flow of the same steps.

    A difference says by how much the flow is ahead: [mean, standard error].
    """
    rows = []
    for method, components, steps in RUNS:
        folders = sorted(out.glob(f"{name_of(method, components, steps)}-[0-9]"))
        folders = [folder for folder in folders if (folder / "scores.safetensors").exists()]
        if not folders:
            continue
        parts = [load_file(folder / "scores.safetensors") for folder in folders]
        minutes = [
            runtime.read_json(folder / "minutes.json", dict)["minutes"] for folder in folders
        ]
        means = {kind: float(torch.stack([p[kind] for p in parts]).mean()) for kind in parts[0]}
        means["test-nll"] += sphere.LOG_UNIFORM  # over a uniform guess
        row = {"method": method, "components": components, "steps": steps, "seeds": len(folders)}
        row |= {"minutes": sum(minutes) / len(minutes), "scores": means}
        if method != FLOW:
            row["flow_ahead"] = differences(out, folders, parts, steps)
        rows.append(row)
    return rows


def differences(out: Path, folders: list[Path], parts: list[dict], steps: int) -> dict:
    """By how much the flow of the same steps and seeds is ahead, where it is there."""
    pairs = []
    for folder, theirs in zip(folders, parts, strict=True):
        seed = folder.name.rsplit("-", 1)[1]
        file = out / f"{name_of(FLOW, 0, steps)}-{seed}" / "scores.safetensors"
        if file.exists():
            pairs.append((load_file(file), theirs))
    found = {}
    for kind in parts[0] if pairs else ():
        sign = BETTER[kind.removeprefix("test-").removeprefix("held-out-")]
        ours, theirs = (torch.stack([pair[i][kind] for pair in pairs]) for i in (0, 1))
        found[kind] = list(metrics.paired_difference(sign * ours, sign * theirs))
    return found


def table(rows: list[dict]) -> None:
    print("| method | steps | minutes | NLL | GeoScore | guided | energy | held-out: GeoScore |")
    print("|---|---|---|---|---|---|---|---|")
    for row in rows:
        s, k = row["scores"], row["components"]
        name = f"mixture of {k}" if k else "flow"
        kinds = ("test-geoscore", "test-guided", "test-energy_km", "held-out-geoscore")
        numbers = " | ".join(f"{s[kind]:.0f}" for kind in kinds)
        print(
            f"| {name} | {row['steps']:,} | {row['minutes']:.1f} | {s['test-nll']:.2f} | {numbers} |"
        )
    for row in rows:
        if row.get("flow_ahead"):
            ahead = ", ".join(f"{k} {a:.2f} ± {e:.2f}" for k, (a, e) in row["flow_ahead"].items())
            print(f"flow ahead of {row['components']} components, {row['steps']:,} steps: {ahead}")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=1)
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--out", type=Path, default=Path("outputs/curves"))
    a = parser.parse_args()
    a.out.mkdir(parents=True, exist_ok=True)
    compute(a.seeds, a.tiles, a.out)
    rows = collected(a.out)
    about = {"machine": runtime.machine(), "torch": torch.__version__, "tiles": a.tiles}
    runtime.write_json(RESULTS / "curves.json", about | {"rows": rows})
    charts.save_figure(lessons_comparison.budgets_figure(rows, SHARED), RESULTS / "curves.png")
    table(rows)


if __name__ == "__main__":
    main()
