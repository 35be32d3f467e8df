"""The command that compares all methods on equal terms: `compare`."""

import functools
from pathlib import Path
from typing import Annotated

import torch
from safetensors.torch import load_file, save_file

import geoflow
from geoflow import runtime
from geoflow.cli.common import Out, option, score_tiles, tile_encoder, working_in
from geoflow.training.recipes import read_recipe

GUIDANCE = 2.0
REPORTS = {"test": 0.0, "held-out": 0.0, "test-guided": GUIDANCE, "held-out-guided": GUIDANCE}
BETTER = {"nll": -1, "energy_km": -1, "geoscore": 1, "single_geoscore": 1}


def compare(
    scale: Annotated[str, option("smoke, demo, laptop or gpu; default: GEOFLOW_SCALE")] = "",
    encoder: Annotated[
        str, option("model whose encoder all use; default: a new one for each seed")
    ] = "",
    seeds: Annotated[int, option("trainings of each method, with seeds 0, 1, …")] = 3,
    tiles: Annotated[int, option("how many tiles of each kind to score, at most")] = 2000,
    out: Out = Path("outputs/compare"),
) -> None:
    """Compare all methods on equal terms. Each method is trained with every seed; the flow map
    learns from the Riemannian flow. All are scored on the same tiles, beside references that need
    no training, and flows also with guidance. The differences to the Riemannian flow have standard
    errors, from a paired bootstrap over tiles and seeds.

    Run it again to go on after an interruption.
    """
    if seeds < 1:
        raise ValueError(f"--seeds {seeds}; expected at least 1")
    if tiles < 1:
        raise ValueError(f"--tiles {tiles}; expected at least 1")
    with working_in(out):
        _compare(scale or runtime.scale(), encoder, seeds, tiles, out)


def _compare(scale: str, encoder: str, seeds: int, tiles: int, out: Path) -> None:
    from geoflow.flowmap import MAP
    from geoflow.methods import METHODS, REFERENCES
    from geoflow.scores import evaluation

    recipe = read_recipe("tiles", scale)
    given = tile_encoder(encoder, recipe) if encoder else None
    weights = runtime.sha256_of_weights(given)[:16] if given else None
    runtime.claim(out, {"scale": scale, "encoder": weights, "tiles": tiles}, "a comparison")
    rows = {}
    for method in (*METHODS, MAP):
        folders = [out / f"{method}-{i}" for i in range(1 if method in REFERENCES else seeds)]
        for seed, folder in enumerate(folders):
            score(
                folder,
                functools.partial(competitor, recipe, method, out, seed, given),
                scale,
                tiles,
            )
        for name in REPORTS:
            reports = [evaluation.read_report(folder / f"{name}.json") for folder in folders]
            mean = evaluation.mean_report(reports)
            mean.to_json(out / f"{method}-{name}.json")
            print(f"{method}, {name}, {len(reports)} trained\n{mean.table()}")
            parts = [load_file(folder / f"{name}.safetensors") for folder in folders]
            rows[method, name] = {kind: torch.stack([p[kind] for p in parts]) for kind in parts[0]}
    runtime.write_json(out / "differences.json", found := differences(rows))
    print(differences_table(found))


def score(folder: Path, model, scale: str, tiles: int) -> None:
    """Score `model()`, and write the reports and the scores of each tile that a folder lacks."""
    missing = [name for name in REPORTS if not (folder / f"{name}.json").exists()]
    if not missing:
        return
    geo = model()
    folder.mkdir(parents=True, exist_ok=True)
    for name in missing:
        guidance = REPORTS[name] if geo.model.guidable else 0.0
        how = {"guidance": guidance, "labels": not guidance, "likelihood": not REPORTS[name]}
        report = score_tiles(geo, name.removesuffix("-guided"), scale, tiles, "", **how)
        with runtime.replacing(folder / f"{name}.safetensors") as partial:
            save_file(report.rows, partial)
        report.to_json(folder / f"{name}.json")


def competitor(recipe: dict, method: str, out: Path, seed: int, given):
    """A model of a method, trained on the recipe's tiles or made of them."""
    from geoflow.data import references, tiles
    from geoflow.flowmap import MAP
    from geoflow.methods import REFERENCES, TRAINED

    if method in REFERENCES:
        return geoflow.Geolocator(None, method, provenance={"recipe": recipe})
    first = out / f"{TRAINED[0]}-{seed}" / "model"
    if method == MAP:
        return _distilled(recipe, first, out / f"{method}-{seed}", seed)
    known = tile_encoder(str(first), recipe) if first.exists() and not given else given
    if method in TRAINED:
        encoder = None if method == TRAINED[0] and not given else known
        folder = out / f"{method}-{seed}"
        return geoflow.training.trained_on_tiles(recipe, folder, seed, method, encoder)
    assert known is not None
    views = tiles.views_of(recipe)
    train = tiles.load("train", recipe["tiles"], views)
    judged = tiles.load("validation", recipe["validation_tiles"], views)
    retrieval = references.Retrieval(known.embed(train.images), train.x)
    tuned = retrieval.tuned(known.embed(judged.images), judged.x)
    return geoflow.Geolocator(tuned, method, encoder=known, provenance={"recipe": recipe})


def _distilled(recipe: dict, teacher: Path, out: Path, seed: int):
    """The flow map of a flow of the comparison."""
    from geoflow.flowmap import MAP
    from geoflow.training.modules import recipe_of

    if not (out / "model").exists():
        flow = geoflow.Geolocator.from_pretrained(teacher)
        geo = geoflow.training.distil(flow, recipe_of(recipe, MAP), out, seed)
        geo.save_pretrained(out / "model")
    return geoflow.Geolocator.from_pretrained(out / "model", MAP)


def differences(rows: dict) -> dict[str, dict[str, dict[str, list[float]]]]:
    """How far the Riemannian flow is ahead of each method, by report and score: [mean, error].

    A positive number means that the flow is better, also where a low score is good. A reference
    has no trainings; it is compared with every training of the flow.
    """
    from geoflow.scores import metrics

    first = next(iter(rows))[0]
    found: dict = {name: {} for name in REPORTS}
    for (method, name), theirs in rows.items():
        if method == first:
            continue
        pairs = {kind: (row, theirs[kind]) for kind, row in rows[first, name].items()}
        found[name][method] = {
            kind: list(metrics.paired_difference(BETTER[kind] * a, BETTER[kind] * b.expand_as(a)))
            for kind, (a, b) in pairs.items()
        }
    return found


def differences_table(found: dict) -> str:
    """The differences as lines of text; `=` marks those within two standard errors."""
    lines = ["The Riemannian flow is ahead by (± standard error; = within two of them):"]
    for name, methods in found.items():
        for method, scores in methods.items():
            parts = [
                f"{kind} {mean:+.2f} ± {error:.2f}{'' if abs(mean) > 2 * error else ' ='}"
                for kind, (mean, error) in scores.items()
            ]
            lines.append(f"  {name}, {method}: {', '.join(parts)}")
    return "\n".join(lines)
