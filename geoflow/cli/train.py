"""The commands that train: `train`, `distil`, `plan` and `demo`."""

import re
import time
from pathlib import Path
from typing import Annotated

import geoflow
from geoflow import runtime
from geoflow.cli.common import (
    JUDGED,
    Method,
    Out,
    Seed,
    argument,
    check_seed,
    option,
    path,
    score_tiles,
    tile_encoder,
    working_in,
)
from geoflow.cli.data import SOURCES
from geoflow.training.recipes import read_recipe

# All that a demo holds until its first training is marked as its own.
BEGUN = re.compile(r"\.lock|encoder|run\.json" + runtime.PARTIAL)
ON_SHARDS = ("photos", *SOURCES, "combined")
Encoder = Annotated[str, option("model whose encoder to use; default: the shards', or a new one")]
Recipe = Annotated[str, argument("photos (your own), osv5m, inat21, yfcc, combined; or tiles")]
Scale = Annotated[
    str,
    option("tiles: smoke, demo, laptop, gpu; photos: smoke, laptop, gpu; else smoke, paper"),
]
Data = Annotated[
    list[Path] | None, option("from `geoflow embed`; given twice, it counts twice", path)
]
Steps = Annotated[int | None, option("training steps; default: the recipe's, or what fits")]
Batch = Annotated[int | None, option("images per step; default: the recipe's, or what fits")]
Patience = Annotated[
    int | None,
    option("end after so many of 20 validations without a lower loss; 0: never"),
]
Rate = Annotated[float | None, option("peak learning rate; default: the recipe's, or what fits")]


def train(
    recipe: Recipe = "",
    scale: Scale = "",
    method: Method = "riemannian",
    data: Data = None,
    encoder: Encoder = "",
    out: Out = Path("outputs/train"),
    seed: Seed = 0,
    steps: Steps = None,
    batch: Batch = None,
    lr: Rate = None,
    patience: Patience = None,
    devices: Annotated[
        int | None, option("GPUs, or CPU processes, of each machine; default: 1")
    ] = None,
    nodes: Annotated[int | None, option("machines; default: 1")] = None,
    field: Annotated[
        str | None, option("which embedding to read, if the tars hold several")
    ] = None,
    stream: Annotated[
        bool, option("read shards when they are needed: for a disk that cannot hold them twice")
    ] = False,
    wandb: Annotated[str, option("Weights & Biases project for loss curves (needs wandb)")] = "",
) -> None:
    """Train a model on your own photos (--data), on a published data set, or on Earth tiles. After
    an interruption, run it again to go on.

    Without a recipe, --data means your own photos: their number decides steps, batch, width and
    learning rate. Without --data the recipe is tiles. The default scale is GEOFLOW_SCALE.
    """
    folders = _folders(data)
    name = _recipe_name(recipe, folders)
    given = {"steps": steps, "batch": batch, "lr": lr, "patience": patience}
    machines = {"devices": devices, "nodes": nodes}
    flags = {"data": folders, "stream": stream, "wandb": wandb}
    flags = {what: value or None for what, value in flags.items()}
    _check(name, method, seed, {**flags, "field": field, **given, **machines})
    chosen = read_recipe(name, scale or _scale(name))
    with working_in(out):
        if name == "tiles":
            shared = tile_encoder(encoder, chosen) if encoder else None
            geoflow.training.trained_on_tiles(chosen, out, seed, method, shared)
        else:
            asked = {name: value or 1 for name, value in machines.items()}
            how = {"seed": seed, "method": method, "stream": stream, "wandb": wandb, **asked}
            shards = _open(folders, field, chosen.get("field"))
            _train_on_shards(name, chosen, shards, out, encoder, given, how)
    if runtime.is_first_process():
        print(f"model: {out / 'model'}")


def distil(
    model: Annotated[str, argument("a flow on the sphere: shipped, plonk-yfcc, a folder")],
    scale: Annotated[str, option("smoke, laptop, gpu; without --data also demo")] = "",
    data: Data = None,
    out: Out = Path("outputs/distil"),
    seed: Seed = 0,
    steps: Steps = None,
    batch: Batch = None,
    lr: Rate = None,
) -> None:
    """Make a flow map of a flow on the sphere: one call of its network draws a sample, not dozens.

    It learns on the embeddings of Earth tiles, or with --data on shards of the model's own
    embeddings. Run it again to go on after an interruption.
    """
    from geoflow.data import tiles
    from geoflow.flowmap import MAP
    from geoflow.training import modules, own

    folders, name = _folders(data), "distil" if data else "tiles"
    chosen = modules.recipe_of(read_recipe(name, scale or _scale(name)), MAP)
    _check(name, MAP, seed, {"data": folders or None})
    teacher = geoflow.Geolocator.from_pretrained(model)
    shards = _open(folders, None, None) if folders else None
    if shards:
        images = _trained(chosen, shards)
    else:
        images, taught = chosen["tiles"], teacher.provenance.get("recipe", chosen)
        chosen["views"] = tiles.views_of(taught)
    chosen = own.overridden(chosen, images, {"steps": steps, "batch": batch, "lr": lr})
    with working_in(out):
        geo = geoflow.training.distil(teacher, chosen, out, seed, shards)
        geo.save_pretrained(out / "model")
    print(f"model: {out / 'model'}")


def _folders(data: list[Path] | None) -> list[Path]:
    """The folders of --data, which exist."""
    for folder in data or []:
        if not folder.is_dir():
            what = "is a file" if folder.exists() else "does not exist"
            expected = "expected a folder of shards, as `geoflow embed` makes it"
            raise ValueError(f"--data {folder} {what}; {expected}")
    return data or []


def _recipe_name(recipe: str, folders: list[Path]) -> str:
    name = recipe or ("photos" if folders else "tiles")
    if name not in ("tiles", *ON_SHARDS) and Path(name).exists():
        raise ValueError(f"{name} is not a recipe; did you mean --data {name}?")
    return runtime.choose("recipe", name, ("tiles", *ON_SHARDS))


def _scale(recipe: str) -> str:
    """The scale of a recipe by GEOFLOW_SCALE."""
    published = "smoke" if runtime.scale() == "smoke" else "paper"
    return runtime.scale() if recipe in ("tiles", "photos", "distil") else published


def _check(name: str, method: str, seed: int, options: dict) -> None:
    """A ValueError for an option that does not apply or makes no sense; None: it is not given."""
    from geoflow.flowmap import NETWORKS

    runtime.choose("method", method, NETWORKS)
    given = " and ".join(f"--{what}" for what, value in options.items() if value is not None)
    if name == "tiles" and given:
        text = f"{given} cannot be used with recipe 'tiles'"
        raise ValueError(f"{text}; recipes on shards (--data): {', '.join(ON_SHARDS)}")
    if name != "tiles" and options["data"] is None:
        raise ValueError("--data is missing: folders of shards, as `geoflow embed` makes them")
    check_seed(seed)
    for what in ("devices", "nodes"):
        if options.get(what) is not None and options[what] < 1:
            raise ValueError(f"--{what} {options[what]}; expected at least 1")


def _open(folders: list[Path], asked: str | None, usual: str | None) -> list:
    """Open folders of shards: the embedding asked for; without a manifest, else the usual one."""
    from geoflow.data.shards import open_shards

    ours = [(folder / "manifest.json").exists() for folder in folders]
    fields = [asked if known else asked or usual for known in ours]
    return list(map(open_shards, folders, fields))


def _trained(recipe: dict, shards: list, stream: bool = False) -> int:
    """How many images of the shards train, and do not judge."""
    from geoflow.training import own

    share = own.judging_share(shards, recipe.get("validation"), stream)
    return own.count_training(shards, share)


def _fitted(name: str, recipe: dict, shards: list, given: dict, stream: bool) -> tuple[dict, list]:
    """A recipe with the given settings, for own data also those that fit; and lines on why."""
    from geoflow.training import own

    own.check_same_encoder(shards)
    images = _trained(recipe, shards, stream)
    if name != "photos":
        return own.overridden(recipe, images, given), []
    warning = own.warning(sum(map(len, shards)))
    fitted, why = own.fitted(recipe, images, given)
    lines = [f"  {line}" for line in why]
    title = (
        f"settings for {runtime.count(images, 'image')} (--steps, --batch and --lr change them):"
    )
    return fitted, [*([f"WARNING: {warning}"] if warning else []), title, *lines]


def _train_on_shards(name: str, recipe: dict, shards: list, out: Path, encoder: str, given, how):
    from geoflow.training import modules, own

    if (out / "model").exists() and not (out / "flow" / "run.json").exists():
        raise ValueError(f"{out / 'model'} is of another training; choose another folder")
    first = runtime.is_first_process()
    log = print if first else lambda line: None
    recipe, lines = _fitted(name, recipe, shards, given, how["stream"])
    for line in lines:
        log(line)
    found = own.encoder_of(shards[0], encoder, log)
    network, provenance = geoflow.training.train_shards(recipe, shards, out, log=log, **how)
    if first:
        schedule = modules.sampling_schedule_of(recipe, how["method"])
        geo = geoflow.Geolocator(network, how["method"], schedule, found, provenance)
        geo.save_pretrained(out / "model")


def plan(
    recipe: Annotated[str, argument("photos (your own), osv5m, inat21, yfcc or combined")] = "",
    gpus: Annotated[int, option("GPUs that share each batch, each as fast as this machine")] = 1,
    method: Method = "riemannian",
    scale: Annotated[str, option("photos: smoke, laptop, gpu; else smoke, paper")] = "",
    data: Data = None,
    steps: Steps = None,
    batch: Batch = None,
    lr: Rate = None,
) -> None:
    """Estimate what a training takes: steps, samples, storage, memory and time. A step is measured
    on this machine. With --data the training is on your own data, else on a published data set.
    """
    folders = _folders(data)
    name = recipe or ("photos" if folders else "osv5m")
    runtime.choose("recipe", name, ON_SHARDS)
    own_data = name == "photos" or bool(folders)
    default = _scale(name) if name == "photos" else "paper"
    chosen, width = read_recipe(name, scale or default), 1024
    given = {"steps": steps, "batch": batch, "lr": lr}
    if own_data:
        _check(name, method, 0, {"data": folders or None, **given})
        shards = _open(folders, None, chosen.get("field"))
        trained = _trained(chosen, shards)
        chosen, lines = _fitted(name, chosen, shards, given, stream=False)
        print(*lines, sep="\n", end="\n" if lines else "")
        chosen, width = {**chosen, "images": sum(map(len, shards))}, shards[0].dim
    else:
        from geoflow.training import own

        trained = chosen["images"]
        chosen = own.overridden(chosen, trained, given)
    p = geoflow.training.plan(chosen, method, gpus, width, trained)
    print(
        f"{name}, {method}, {gpus} × {runtime.machine()}\n"
        f"  {_millions(p['parameters'])} parameters\n"
        f"  {_size(p['state_gb'])} of weights, gradients and averages on each, activations on top\n"
        f"  {p['steps']:,} steps, {p['samples']:,} samples, {p['epochs']:.1f} epochs\n"
        f"  embeddings: {_size(p['shards_gb'])} in shards, and {_size(p['unpacked_gb'])} unpacked "
        "(not with --stream)\n"
        f"  {runtime.duration(p['seconds_per_step'])} per step, measured here: "
        f"{runtime.duration(3600 * p['hours'])}, if the devices need not wait for each other"
    )


def _millions(count: int) -> str:
    return f"{count / 1e6:.1f} million" if count >= 1e6 else f"{count:,}"


def _size(gigabytes: float) -> str:
    return f"{gigabytes:,.1f} GB" if gigabytes >= 1 else f"{1000 * gigabytes:.2g} MB"


def demo(out: Out = Path("outputs/demo"), seed: Seed = 0) -> None:
    """Train on satellite tiles, score the model, and draw where six example tiles could be. Run it
    again to go on, or to see the results again.
    """
    start = time.perf_counter()
    check_seed(seed)
    _check_is_demos(out)
    with working_in(out):
        _demo(out, seed)
    took = runtime.duration(time.perf_counter() - start)
    print(
        f"done in {took}. Look at {out}: density-*.png, trajectories.png, loss.png, "
        "metrics-*.txt, metrics-*.json, model/"
    )


def _check_is_demos(out: Path) -> None:
    """A ValueError if a folder holds other files than a demo's or a training's."""
    marks = (out / name for name in ("encoder/run.json", "flow/run.json", "model/config.json"))
    others = (file for file in out.rglob("*") if not BEGUN.fullmatch(file.name))
    if not any(mark.exists() for mark in marks) and any(others):
        raise ValueError(f"--out {out} holds other files than a demo's; choose another folder")


def _demo(out: Path, seed: int) -> None:
    from geoflow.data import tiles

    scale = "smoke" if runtime.scale() == "smoke" else "demo"
    print("geoflow demo: about 5 minutes on 2 CPU cores; Ctrl-C stops, running it again goes on")
    if not (out / "model").exists():  # what was drawn and scored is another model's
        scores = [f"metrics-{name}.{kind}" for name in JUDGED for kind in ("txt", "json")]
        for stale in (*scores, *(f"density-{name}.png" for name in tiles.EXAMPLES)):
            (out / stale).unlink(missing_ok=True)
    geo = geoflow.training.trained_on_tiles(read_recipe("tiles", scale), out, seed)
    for name in JUDGED:
        table = out / f"metrics-{name}.txt"
        if not table.exists():
            report = score_tiles(geo, name, scale)
            report.to_json(table.with_suffix(".json"))
            runtime.write_atomically(table, report.table() + "\n")
        print(table.read_text(encoding="utf-8"), end="")
    _draw(geo, out)


def _draw(geo, out: Path) -> None:
    from geoflow.data import tiles
    from geoflow.viz import charts, maps

    # Maps of a model that has learnt nothing take longest.
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
    charts.save_figure(charts.losses_figure(curves, units, {}), out / "loss.png", dpi=200)
