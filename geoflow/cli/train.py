"""The commands that train: `train`, `plan`, `compare` and `demo`."""

import time
from pathlib import Path
from typing import Annotated

import geoflow
from geoflow import runtime
from geoflow.cli.common import JUDGED, Method, Out, Seed, argument, option, score_tiles
from geoflow.cli.data import SOURCES
from geoflow.training.recipes import read_recipe

Encoder = Annotated[str, option("a model whose encoder to use; default: the shards', or train one")]


def train(
    recipe: Annotated[
        str, argument("tiles, or osv5m, inat21, yfcc, combined (for your own photos too)")
    ] = "tiles",
    scale: Annotated[
        str, option("tiles: smoke, demo, laptop, gpu; else smoke, paper; default: GEOFLOW_SCALE")
    ] = "",
    method: Method = "riemannian",
    data: Annotated[list[Path] | None, option("from `geoflow embed`; twice counts twice")] = None,
    encoder: Encoder = "",
    out: Out = Path("outputs/train"),
    seed: Seed = 0,
    devices: Annotated[int, option("GPUs, or CPU processes, of each machine")] = 1,
    nodes: Annotated[int, option("machines")] = 1,
    stream: Annotated[
        bool, option("read shards as they are needed: for data that the disk cannot hold twice")
    ] = False,
    wandb: Annotated[str, option("project in Weights & Biases (needs wandb) for loss curves")] = "",
) -> None:
    """Train a model on Earth tiles, or on shards of embeddings; run it again to go on after an
    interruption.
    """
    shared = geoflow.Geolocator.from_pretrained(encoder).encoder if encoder else None
    if recipe == "tiles":
        chosen = read_recipe("tiles", scale or runtime.scale())
        geoflow.training.trained_on_tiles(chosen, out, seed, method, shared)
    else:
        chosen = read_recipe(recipe, scale or ("smoke" if runtime.scale() == "smoke" else "paper"))
        machines = {"devices": devices, "nodes": nodes, "wandb": wandb}
        _train_on_shards(chosen, data or [], out, seed, method, shared, stream, machines)
    print(f"model: {out / 'model'}")


def _train_on_shards(recipe, data: list[Path], out, seed, method, encoder, stream, machines):
    from geoflow.data.shards import FIELDS, open_shards
    from geoflow.encoders import PHOTO_ENCODERS, PhotoEncoder

    if not data:
        raise ValueError("--data is missing: folders of shards, as `geoflow embed` makes them")
    ours = [(folder / "manifest.json").exists() for folder in data]
    fields = [None if known else recipe["field"] for known in ours]
    shards = list(map(open_shards, data, fields))
    first = runtime.is_first_process()
    log = print if first else lambda line: None
    network, provenance = geoflow.training.train_shards(
        recipe, shards, out, seed, method, stream, log, **machines
    )
    if first:
        photo = {FIELDS[name]: name for name in PHOTO_ENCODERS}.get(shards[0].field)
        encoder = encoder or (PhotoEncoder(photo) if photo else None)
        geo = geoflow.Geolocator(network, method, recipe["sampling_schedule"], encoder, provenance)
        geo.save_pretrained(out / "model")


def plan(
    recipe: Annotated[str, argument("osv5m, inat21, yfcc or combined")] = "osv5m",
    gpus: Annotated[int, option("that share each batch, each as fast as this machine")] = 1,
    method: Method = "riemannian",
    scale: Annotated[str, option("smoke or paper")] = "paper",
) -> None:
    """What a training takes, before it starts: steps, samples, storage, memory, hours, from a step
    measured on this machine.
    """
    runtime.choose("recipe", recipe, (*SOURCES, "combined"))
    p = geoflow.training.plan(read_recipe(recipe, scale), method, gpus)
    print(
        f"{recipe}, {method}, {gpus} × {runtime.machine()}\n"
        f"  {p['parameters'] / 1e6:.1f} million parameters\n"
        f"  {p['state_gb']:.2f} GB of weights, gradients and averages on each, activations on top\n"
        f"  {p['steps']:,} steps, {p['samples']:,} samples, {p['epochs']:.1f} epochs\n"
        f"  embeddings: {p['shards_gb']:.1f} GB in shards, and {p['unpacked_gb']:.1f} GB unpacked "
        "(not with --stream)\n"
        f"  {p['seconds_per_step']:.3f} s per step, measured here: {p['hours']:,.1f} h, "
        "if the devices need not wait for each other"
    )


def compare(
    scale: Annotated[str, option("smoke, demo, laptop or gpu; default: GEOFLOW_SCALE")] = "",
    encoder: Annotated[str, option("a model whose encoder to use; default: train one")] = "",
    seeds: Annotated[int, option("how many of each method, with seeds 0, 1, …")] = 3,
    out: Out = Path("outputs/compare"),
) -> None:
    """Every method on equal terms: train each with every seed on one encoder, score all on the same
    tiles, and the references too.

    Run it again to go on after an interruption.
    """
    from geoflow.methods import METHODS, TRAINED
    from geoflow.scores import evaluation

    scale = scale or runtime.scale()
    first = out / f"{TRAINED[0]}-0" / "model"
    known = encoder or (first if first.exists() else None)
    shared = geoflow.Geolocator.from_pretrained(known).encoder if known else None
    for method in METHODS:
        folders = [out / f"{method}-{seed}" for seed in range(seeds if method in TRAINED else 1)]
        for seed, folder in enumerate(folders):
            missing = [name for name in JUDGED if not (folder / f"{name}.json").exists()]
            if missing:
                geo = _competitor(method, scale, folder, seed, shared)
                shared = geo.encoder or shared
                folder.mkdir(parents=True, exist_ok=True)
            for name in missing:
                report = score_tiles(geo, name, scale, most=500, labels=True)
                report.to_json(folder / f"{name}.json")
        for name in JUDGED:
            reports = [evaluation.read_report(folder / f"{name}.json") for folder in folders]
            mean = evaluation.mean_report(reports)
            mean.to_json(out / f"{method}-{name}.json")
            print(f"{method}, {len(reports)} trained\n{mean.table()}")


def _competitor(method: str, scale: str, folder: Path, seed: int, encoder):
    """Return a model of a method, trained or made from the recipe's tiles."""
    from geoflow.data import references, tiles
    from geoflow.methods import REFERENCES, TRAINED

    recipe = read_recipe("tiles", scale)
    if method in TRAINED:
        return geoflow.training.trained_on_tiles(recipe, folder, seed, method, encoder)
    if method in REFERENCES:
        return geoflow.Geolocator(None, method)
    train = tiles.load("train", recipe["tiles"])
    validation = tiles.load("validation", recipe["validation_tiles"])
    retrieval = references.Retrieval(encoder.embed(train.images), train.x)
    tuned = retrieval.tuned(encoder.embed(validation.images), validation.x)
    return geoflow.Geolocator(tuned, method, encoder=encoder)


def demo(out: Out = Path("outputs/demo"), seed: Seed = 0) -> None:
    """Train on satellite tiles, score, and draw where six telling tiles could be. Run it again to
    reuse or resume.
    """
    start = time.perf_counter()
    scale = "smoke" if runtime.scale() == "smoke" else "demo"
    out.mkdir(parents=True, exist_ok=True)
    print("geoflow demo: about 5 minutes on 2 CPU cores; Ctrl-C stops, running it again goes on")
    if not (out / "model").exists():
        for stale in (*out.glob("*.png"), *out.glob("*.json"), *out.glob("*.txt")):
            stale.unlink()
    geo = geoflow.training.trained_on_tiles(read_recipe("tiles", scale), out, seed)
    for name in JUDGED:
        table = out / f"metrics-{name}.txt"
        if not table.exists():
            report = score_tiles(geo, name, scale)
            report.to_json(table.with_suffix(".json"))
            runtime.write_atomically(table, report.table() + "\n")
        print(table.read_text(encoding="utf-8"), end="")
    _draw(geo, out)
    print(
        f"done in {(time.perf_counter() - start) / 60:.1f} min. Look at {out}: density-*.png, "
        "trajectories.png, loss.png, metrics-*.txt, metrics-*.json, model/"
    )


def _draw(geo, out: Path) -> None:
    from geoflow.data import tiles
    from geoflow.viz import charts, maps

    # Maps of a model that learnt nothing take longest.
    examples = list(tiles.EXAMPLES.items())[: 2 if runtime.scale() == "smoke" else None]
    for name, latlon in runtime.progress(examples, desc="density maps"):
        file = out / f"density-{name}.png"
        if file.exists():
            continue
        image = tiles.tile(*latlon)
        density, places = geo.density(image), geo.predict(image, k=3)
        entropy = f"entropy {density.entropy + geoflow.sphere.LOG_UNIFORM:+.1f} nats over uniform"
        title = f"{name}: {entropy}, integral {density.integral:.3f}"
        inset = "south-pole" if name == "ice" else None
        guesses = places.latlon[0], places.mass[0]
        figure = maps.density_figure(density, image, latlon, *guesses, title, inset)
        charts.save_figure(figure, file, dpi=200)
    place, steps = tiles.EXAMPLES["taiga"], 32
    image = tiles.tile(*place)
    paths = geo.trajectories(image, n=400, steps=steps, seed=0)[:, 0]
    times = geoflow.schedules.time_grid(geo.schedule, steps)
    figure = maps.trajectories_figure(paths, times, image, place)
    charts.save_figure(figure, out / "trajectories.png", dpi=200)
    units = {"encoder": "cross-entropy (nats)", "flow": "flow-matching loss"}
    curves = {part: geoflow.training.loss_curve(out / part) for part in units}
    charts.save_figure(charts.loss_figure(curves, units), out / "loss.png", dpi=200)
