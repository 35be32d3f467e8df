"""The commands: `geoflow demo | train | plan | compare | data fetch | embed | evaluate | tables | reproduce | results | locate | explore |
doctor`."""

import importlib
import importlib.metadata
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import Annotated

import typer

from geoflow import runtime
from geoflow.runtime import choose
from geoflow.training import trained_on_tiles
from geoflow.training.recipes import read_recipe

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)


def main() -> None:
    """Run a command; what is wrong with its input is told in one line, and the exit status is 1."""
    try:
        app()
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"geoflow: {error}", file=sys.stderr)
        sys.exit(1)


JUDGED = (
    "test",
    "held-out",
)  # tiles of seen regions, and of blocks of the Earth that training never sees


def _dataset(name: str, scale: str):
    from geoflow.data import tiles

    return tiles.load(name, {"smoke": 100, "demo": 1000}.get(scale, 4000))


Out = Annotated[Path, typer.Option(help="folder for results")]
Seed = Annotated[int, typer.Option(help="of weights, batches and noise")]
Model = Annotated[str, typer.Option(help="a shipped model, or a folder")]


@app.command()
def train(
    recipe: Annotated[
        str,
        typer.Argument(help="tiles, or osv5m, inat21, yfcc, combined (for your own photos too)"),
    ] = "tiles",
    scale: Annotated[
        str,
        typer.Option(
            help="smoke, demo, laptop or gpu; but for tiles smoke or paper; default: GEOFLOW_SCALE"
        ),
    ] = "",
    method: Annotated[
        str, typer.Option(help="riemannian, flow, diffusion, vmf or vmf-mixture")
    ] = "riemannian",
    data: Annotated[
        list[Path] | None,
        typer.Option(help="shards from `geoflow embed`; given twice they count twice"),
    ] = None,
    encoder: Annotated[
        str,
        typer.Option(
            help="a model whose encoder to use; default: train one, or that of the shards"
        ),
    ] = "",
    out: Out = Path("outputs/train"),
    seed: Seed = 0,
    devices: Annotated[int, typer.Option(help="GPUs, or CPU processes, of each machine")] = 1,
    nodes: Annotated[int, typer.Option(help="machines")] = 1,
    stream: Annotated[
        bool,
        typer.Option(
            help="read shards as they are needed: for data that the disk cannot hold twice"
        ),
    ] = False,
    wandb: Annotated[
        str,
        typer.Option(help="project in Weights & Biases (needs wandb) that gets the loss curve too"),
    ] = "",
) -> None:
    """Train a model on Earth tiles, or on shards of embeddings; run it again to go on after an interruption."""
    from geoflow.geolocator import Geolocator

    shared = Geolocator.from_pretrained(encoder).encoder if encoder else None
    if recipe == "tiles":
        trained_on_tiles(read_recipe("tiles", scale or runtime.scale()), out, seed, method, shared)
    else:
        chosen = read_recipe(recipe, scale or ("smoke" if runtime.scale() == "smoke" else "paper"))
        _train_on_shards(
            chosen, data or [], out, seed, method, shared, devices, nodes, stream, wandb
        )
    print(f"model: {out / 'model'}")


def _train_on_shards(
    recipe: dict,
    data: list[Path],
    out: Path,
    seed: int,
    method: str,
    encoder,
    devices: int,
    nodes: int,
    stream: bool,
    wandb: str,
):
    from geoflow.data.shards import FIELDS, open_shards
    from geoflow.encoders import PHOTO_ENCODERS, PhotoEncoder
    from geoflow.geolocator import Geolocator
    from geoflow.training.runs import is_first_process, train_shards

    if not data:
        raise ValueError("--data is missing: folders of shards, as `geoflow embed` makes them")
    shards = [
        open_shards(folder, recipe["field"] if not (folder / "manifest.json").exists() else None)
        for folder in data
    ]
    say = print if is_first_process() else lambda line: None
    network, provenance = train_shards(
        recipe, shards, out, seed, method, devices, nodes, stream, wandb, say
    )
    if is_first_process():
        photo = {FIELDS[name]: name for name in PHOTO_ENCODERS}.get(shards[0].field)
        encoder = encoder or (PhotoEncoder(photo) if photo else None)
        Geolocator(
            network, method, recipe["sampling_schedule"], encoder, provenance
        ).save_pretrained(out / "model")


@app.command()
def plan(
    recipe: Annotated[str, typer.Argument(help="osv5m, inat21, yfcc or combined")] = "osv5m",
    gpus: Annotated[
        int, typer.Option(help="that share each batch, each taken to be as fast as this machine")
    ] = 1,
    method: Annotated[
        str, typer.Option(help="riemannian, flow, diffusion, vmf or vmf-mixture")
    ] = "riemannian",
    scale: Annotated[str, typer.Option(help="smoke or paper")] = "paper",
) -> None:
    """What a training takes, before it starts: steps, samples, storage, memory, hours, from a step measured on this machine."""
    from geoflow.runtime import machine
    from geoflow.training.runs import plan as estimate

    p = estimate(read_recipe(choose("recipe", recipe, (*SOURCES, "combined")), scale), method, gpus)
    print(f"{recipe}, {method}, {gpus} × {machine()}")
    print(f"  {p['parameters'] / 1e6:.1f} million parameters")
    print(
        f"  {p['state_gb']:.2f} GB of weights, gradients and averages on each, activations on top"
    )
    print(f"  {p['steps']:,} steps, {p['samples']:,} samples, {p['epochs']:.1f} epochs")
    print(
        f"  embeddings: {p['shards_gb']:.1f} GB in shards, and {p['unpacked_gb']:.1f} GB unpacked (not with --stream)"
    )
    print(
        f"  {p['seconds_per_step']:.3f} s per step, measured here: {p['hours']:,.1f} h, if the devices need not wait for each other"
    )


@app.command()
def compare(
    scale: Annotated[
        str, typer.Option(help="smoke, demo, laptop or gpu; default: GEOFLOW_SCALE")
    ] = "",
    encoder: Annotated[
        str, typer.Option(help="a model whose encoder to use; default: train one")
    ] = "",
    seeds: Annotated[int, typer.Option(help="how many of each method, with seeds 0, 1, …")] = 3,
    out: Out = Path("outputs/compare"),
) -> None:
    """Every method on equal terms: train each with every seed on one encoder, score all on the same tiles, and the references too.

    Run it again to go on after an interruption.
    """
    from geoflow import evaluation
    from geoflow.geolocator import Geolocator
    from geoflow.methods import METHODS, TRAINED

    scale = scale or runtime.scale()
    first = out / f"{TRAINED[0]}-0" / "model"
    shared = (
        Geolocator.from_pretrained(encoder or first).encoder if encoder or first.exists() else None
    )
    for method in METHODS:
        runs = range(seeds) if method in TRAINED else range(1)
        for seed in runs:
            folder = out / f"{method}-{seed}"
            if all((folder / f"{name}.json").exists() for name in JUDGED):
                continue
            if method in TRAINED:
                geo = trained_on_tiles(read_recipe("tiles", scale), folder, seed, method, shared)
                shared = geo.encoder
            else:
                geo = _reference(method, scale, shared)
            for name in JUDGED:
                report = evaluation.evaluate(
                    geo,
                    _dataset(name, scale)[:500],
                    f"tiles, {name}",
                    likelihood=name == "test",
                    labels=True,
                )
                folder.mkdir(parents=True, exist_ok=True)
                report.to_json(folder / f"{name}.json")
        for name in JUDGED:
            reports = [
                evaluation.read_report(out / f"{method}-{seed}" / f"{name}.json") for seed in runs
            ]
            mean = evaluation.mean_report(reports)
            mean.to_json(out / f"{method}-{name}.json")
            print(f"{method}, {len(reports)} trained\n{mean.table()}")


def _reference(method: str, scale: str, encoder):
    """A method that is not trained, on the recipe's tiles."""
    from geoflow.data import tiles
    from geoflow.geolocator import Geolocator
    from geoflow.methods import REFERENCES, Retrieval

    if method in REFERENCES:
        return Geolocator(None, method)
    recipe = read_recipe("tiles", scale)
    train, validation = (
        tiles.load("train", recipe["tiles"]),
        tiles.load("validation", recipe["validation_tiles"]),
    )
    retrieval = Retrieval(encoder.embed(train.images), train.x).tuned(
        encoder.embed(validation.images), validation.x
    )
    return Geolocator(retrieval, method, encoder=encoder)


SOURCES = ("osv5m", "inat21", "yfcc")

data_app = typer.Typer(help="Data sets that others publish.", no_args_is_help=True)
app.add_typer(data_app, name="data")


@data_app.command()
def fetch(
    dataset: Annotated[str, typer.Argument(help="osv5m, inat21 or earth-events")],
    root: Annotated[
        Path | None,
        typer.Option(help="folder of the data set; default for earth events: the cache"),
    ] = None,
    split: Annotated[str, typer.Option(help="train or test")] = "test",
) -> None:
    """Download a data set, checked by size and checksum; its licence is shown first. Run it again to go on after an interruption."""
    from geoflow.data import earth_events
    from geoflow.data.fetch import fetch as download

    if root is None:
        if dataset != "earth-events":
            raise ValueError(f"--root is missing: the folder where {dataset} is to lie")
        root = earth_events.default_root()
    download(dataset, split, root)


@app.command()
def embed(
    dataset: Annotated[
        str,
        typer.Argument(
            help="osv5m, inat21, yfcc; a .csv, .tsv, .parquet of id, latitude, longitude, path; or a folder of tars"
        ),
    ],
    out: Annotated[Path, typer.Option(help="folder for the shards")],
    root: Annotated[
        Path | None,
        typer.Option(
            help="folder of the data set; for a table, of its images (default: beside it)"
        ),
    ] = None,
    split: Annotated[str, typer.Option(help="train or test")] = "train",
    encoder: Annotated[
        str, typer.Option(help="dinov2, streetclip, or a model whose encoder to use")
    ] = "dinov2",
    weights: Annotated[
        str,
        typer.Option(help="folder with the photo encoder's weights; default: the published ones"),
    ] = "",
    shard: Annotated[
        int | None,
        typer.Option(help="samples per shard; default: 10,000, fewer for small data sets"),
    ] = None,
    batch: Annotated[int, typer.Option(help="images per call of the encoder")] = 64,
    workers: Annotated[int, typer.Option(help="processes that read images, for each device")] = 2,
    devices: Annotated[int, typer.Option(help="GPUs, or CPU processes, that share the work")] = 1,
) -> None:
    """Images → shards of embeddings, to train and evaluate on. Run it again to go on after an interruption.

    Prints what is listed, usable and missing, what it will take, and what could not be read.
    """
    from geoflow.training.embedding import embed as write
    from geoflow.encoders import PHOTO_ENCODERS, PhotoEncoder
    from geoflow.geolocator import Geolocator

    chosen = (
        PhotoEncoder(encoder, weights or None)
        if encoder in PHOTO_ENCODERS
        else Geolocator.from_pretrained(encoder).encoder
    )
    write(_records(dataset, root, split), chosen, out, shard, batch, workers, devices)


def _records(dataset: str, root: Path | None, split: str):
    """The located images of a data set, or of a table."""
    from geoflow.data.records import read_table, read_tars

    if Path(dataset).is_dir():
        return read_tars(dataset)
    if Path(dataset).suffix:
        return read_table(dataset, root).with_images()
    reader = importlib.import_module(f"geoflow.data.{choose('data set', dataset, SOURCES)}")
    if root is None:
        raise ValueError(f"--root is missing: the folder where {dataset} lies")
    return reader.read(root, split)


@app.command()
def evaluate(
    model: Model = "tiles",
    data: Annotated[
        Path | None, typer.Option(help="shards from `geoflow embed`; default: Earth tiles")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="folder for the reports as JSON")] = None,
    samples: Annotated[int, typer.Option(help="per image")] = 24,
    steps: int = 16,
    solver: str = "rk4",
    guidance: float = 0.0,
    seed: Seed = 0,
    seeds: Annotated[int, typer.Option(help="how many seeds to average over")] = 1,
    labels: Annotated[
        bool, typer.Option(help="compare country, region, sub-region and city")
    ] = False,
    calibrated: Annotated[
        int, typer.Option(help="images whose highest-density regions are checked")
    ] = 0,
    answer: Annotated[
        str, typer.Option(help="which sample answers: geoscore (highest expected one) or likeliest")
    ] = "geoscore",
    name: Annotated[
        str, typer.Option(help="of the data in reports; default: as embedded, such as 'osv5m test'")
    ] = "",
) -> None:
    """Score a model on shards of embeddings, or on seen regions and on held-out blocks of the Earth tiles.

    Under `torchrun` the processes share the images, and each image is counted once.
    """
    from geoflow import sphere
    from geoflow.data.shards import FIELDS, open_shards
    from geoflow.evaluation import distributed_if_launched
    from geoflow.evaluation import evaluate as score
    from geoflow.geolocator import Geolocator
    from geoflow.training.runs import is_first_process

    geo = Geolocator.from_pretrained(model)
    distributed_if_launched()
    if data is None:
        judged = [
            (f"tiles, {split}", _dataset(split, runtime.scale()), split != "held-out")
            for split in JUDGED
        ]
    else:
        shards = open_shards(data, FIELDS[geo.encoder.name] if geo.encoder is not None else None)
        cond, x = shards.mapped()
        judged = [(name or shards.name, (cond, sphere.to_latlon(x)), True)]
    for (
        title,
        images,
        likely,
    ) in judged:  # no training tile lies in a held-out block: a likelihood there says only that
        how = (
            samples,
            steps,
            solver,
            guidance,
            seed,
            seeds,
            likely,
            labels,
            calibrated if likely else 0,
            answer,
        )
        report = score(geo, images, title, *how)
        if is_first_process():
            if out is not None:
                out.mkdir(parents=True, exist_ok=True)
                report.to_json(out / f"{title.replace(', ', '-').replace(' ', '-')}.json")
            print(report.table())


@app.command()
def tables(
    results: Annotated[
        Path, typer.Argument(help="folder with reports of `geoflow evaluate --out`, at any depth")
    ],
    only: Annotated[str, typer.Option(help="one table; default: all that have a report")] = "",
    dataset: Annotated[
        str,
        typer.Option(
            help="whose reports stand beside the printed rows; default: each table's own data set"
        ),
    ] = "",
    out: Annotated[Path | None, typer.Option(help="Markdown file")] = None,
) -> None:
    """The paper's tables 1, 2, A and B with our numbers beside the printed ones, and the difference.

    The paper's protocol: `geoflow evaluate --samples 1 --guidance 2 --labels --data SHARDS --out RESULTS/METHOD` for each method.
    """
    from geoflow.paper import tables
    from geoflow.runtime import write_atomically

    reports = tables.read_reports(results)
    drawn = [
        tables.table(table, reports, dataset or None)
        for table in ([only] if only else tables.names())
    ]
    shown = [table.markdown() for table in drawn if only or table.notes]
    if not shown:
        raise ValueError(
            f"none of the {len(reports)} reports in {results} belongs to a row of the paper; see `geoflow tables --help`"
        )
    text = "\n\n".join(shown) + "\n"
    print(text, end="")
    if out is not None:
        write_atomically(out, text)


@app.command()
def reproduce(
    names: Annotated[
        list[str],
        typer.Argument(
            help="table1, table2, tableA, tableB, fig1, fig2, fig4, fig5, fig6, fig7, figA; all; earth-events; list"
        ),
    ],
    scale: Annotated[
        str, typer.Option(help="smoke, laptop, gpu or paper; default: GEOFLOW_SCALE")
    ] = "",
    models: Annotated[
        Path | None,
        typer.Option(
            help="models by method, from `geoflow compare --out`; default: the shipped ones"
        ),
    ] = None,
    data: Annotated[
        Path | None, typer.Option(help="shards from `geoflow embed`; default: Earth tiles")
    ] = None,
    out: Out = Path("outputs/reproduce"),
) -> None:
    """Run the paper's tables and figures again: numbers as JSON with their origin, tables beside the printed ones, figures.

    Run it again to go on after an interruption. On the paper's data: --scale paper --data SHARDS --models MODELS, where MODELS holds
    riemannian-0/model and so on, and for table A riemannian-linear-0/model and riemannian-sigmoid-0/model.
    """
    from geoflow.paper import reproduce as again

    if names == ["list"]:
        for name, item in again.ITEMS.items():
            print(f"{name:12s} {item.title}")
        return
    again.chosen(names)
    setup = again.Setup(scale or runtime.scale(), out, models, data)
    print(again.estimate(names, setup))
    try:
        again.run(names, setup)
    finally:
        print(
            f"results: {', '.join({str(setup.folder_for(again.ITEMS[name].steps[0])): None for name in again.chosen(names)})}"
        )


@app.command()
def results(
    folder: Annotated[Path, typer.Argument(help="of results, from `geoflow reproduce`")] = Path(
        "outputs/reproduce"
    ),
    out: Annotated[
        Path | None, typer.Option(help="Markdown file; default: RESULTS.md in the folder")
    ] = None,
) -> None:
    """Write a page of all that was reproduced: printed, ours, at which scale, on which machine, in how many minutes."""
    from geoflow.paper import reproduce as again
    from geoflow.runtime import write_atomically

    file = out or folder / "RESULTS.md"
    write_atomically(file, again.page(folder, file))
    print(file)


@app.command()
def locate(
    images: Annotated[
        list[Path], typer.Argument(help="image files, folders, or patterns in quotes")
    ],
    model: Model = "tiles",
    weights: Annotated[
        str,
        typer.Option(help="folder with the photo encoder's weights; default: the published ones"),
    ] = "",
    out: Out = Path("outputs/locate"),
    k: Annotated[int, typer.Option(help="places per image")] = 3,
    guidance: float = 0.0,
    seed: Seed = 0,
    maps: Annotated[
        bool,
        typer.Option(
            help="draw a map and write regions and densities, some 10 s per image on 2 CPU cores"
        ),
    ] = True,
    exif: Annotated[
        bool,
        typer.Option(
            help="say how far the answer is from where the camera says it was; no model sees that"
        ),
    ] = False,
) -> None:
    """Where could these images have been taken?

    Prints the k best places of each, with probability, radius and nearest town, and writes them to places.csv; for each image a map
    (.png), samples and regions of 50, 90 and 95 % (.geojson), and the density (.tif), both for a GIS. What cannot be read is told,
    and the others go on. Run it again to go on after an interruption: what was asked and answered before is kept.
    """
    from geoflow.data import photos
    from geoflow.encoders import PHOTO_ENCODERS, PhotoEncoder, load_image
    from geoflow.geolocator import Geolocator

    files = photos.find(images)
    if k < 1:
        raise ValueError(f"--k {k}; expected at least 1")
    geo = Geolocator.from_pretrained(model)
    if weights:
        if geo.encoder is None or geo.encoder.name not in PHOTO_ENCODERS:
            raise ValueError(f"--weights {weights}: model {model} has no photo encoder")
        geo.encoder = PhotoEncoder(geo.encoder.name, weights)
    out.mkdir(parents=True, exist_ok=True)
    stems = {file: out / stem for file, stem in zip(files, photos.stems(files), strict=True)}
    unmapped = [
        file
        for file, stem in stems.items()
        if maps and not all(_beside(stem, kind).exists() for kind in _MAP_FILES)
    ]
    answers = photos.answers(
        out / "places.csv", files, k, unmapped, model=model, guidance=guidance, seed=seed, exif=exif
    )
    todo = [file for file in files if str(file) not in answers.done]
    print(
        f"{len(files)} image{'s' * (len(files) > 1)}"
        + (f", {len(answers.done)} answered before" if answers.done else "")
    )
    failed: list[str] = []
    with runtime.progress(total=len(todo), unit="image") as bar:
        for batch in (todo[start : start + 8] for start in range(0, len(todo), 8)):
            readable = {}
            for file in batch:
                try:
                    readable[file] = load_image(file)
                except (ValueError, OSError) as error:
                    failed.append(str(error))
                    print(f"geoflow: {error}", file=sys.stderr)
                    bar.update()
            conditions = geo.embed(list(readable.values())) if readable else ()
            for (file, image), cond in zip(readable.items(), conditions, strict=True):
                camera = photos.exif_latlon(file) if exif else None
                best = geo.predict(cond=cond[None], k=k, guidance=guidance, seed=seed)
                rows = photos.rows(best, camera)
                print(file)
                if maps:
                    print(
                        f"  {_map(geo, image, cond[None], stems[file], file.name, best, rows, camera, guidance, seed)}"
                    )
                print("\n".join(f"  {_sentence(row)}" for row in rows))
                if exif and camera is None:
                    print("  the camera did not say where it was")
                answers.add({"file": file, **row} for row in rows)
                bar.update()
    print(f"results: {out}")
    if failed:
        raise ValueError(f"{len(failed)} of {len(files)} images could not be read")


_MAP_FILES = (".png", ".geojson", ".tif")


def _beside(stem: Path, kind: str) -> Path:
    return stem.with_name(stem.name + kind)


def _map(
    geo,
    image,
    cond,
    stem: Path,
    title: str,
    best,
    rows: list[dict],
    camera,
    guidance: float,
    seed: int,
) -> str:
    """Write the map of one image, and what a GIS reads; a line about it."""
    from geoflow.data import photos
    from geoflow.runtime import write_atomically
    from geoflow.viz.maps import density_figure

    density = geo.density(cond=cond, guidance=guidance)
    picture, regions, raster = (_beside(stem, kind) for kind in _MAP_FILES)
    _save(density_figure(density, image, camera, best.latlon[0], best.mass[0], title), picture)
    samples = geo.sample(cond=cond, n=1000, guidance=guidance, seed=seed)[0]
    write_atomically(regions, json.dumps(photos.to_geojson(density, samples, rows)))
    density.to_geotiff(raster)
    return f"density integrates to {density.integral:.3f}; half of the probability on {density.region_area_km2(0.5):,.0f} km²"


def _sentence(row: dict) -> str:
    """One of the best places, for a reader."""
    lat, lon = row["latitude"], row["longitude"]
    where = f"{abs(lat):5.1f}°{'NS'[lat < 0]} {abs(lon):5.1f}°{'EW'[lon < 0]}"
    away = "" if row["exif_km"] is None else f"; {row['exif_km']:,.0f} km from where the camera was"
    return f"{row['mass']:6.1%}  {where}  half within {row['half_within_km']:,.0f} km; nearest town {row['nearest_town']}{away}"


@app.command()
def explore(
    out: Annotated[Path, typer.Option(help="the page to write")] = Path("explore.html"),
    points: Annotated[int, typer.Option(help="of each flow")] = 240,
    seed: Seed = 0,
) -> None:
    """Write a page to explore without Python or a network: six telling tiles, six methods, steps, guidance. A few minutes."""
    from geoflow.viz import widgets

    text = (
        "Random points flow to where a satellite tile could have been taken. Pick a tile, a method, the solver's number of steps and the "
        "guidance; press play, or drag the slider from noise to places; drag the maps to turn them."
    )
    file = widgets.atlas(n=points, seed=seed).save_html(
        out, "geoflow: where could this tile be?", text
    )
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, opens in any browser")


@app.command()
def demo(out: Out = Path("outputs/demo"), seed: Seed = 0) -> None:
    """Train on satellite tiles, score, and draw where six telling tiles could be. Run it again to reuse or resume."""
    from geoflow.evaluation import evaluate as score
    from geoflow.runtime import write_atomically

    start = time.perf_counter()
    scale = "smoke" if runtime.scale() == "smoke" else "demo"
    out.mkdir(parents=True, exist_ok=True)
    print("geoflow demo: about 5 minutes on 2 CPU cores; Ctrl-C stops, running it again goes on")
    if not (out / "model").exists():
        for stale in (*out.glob("*.png"), *out.glob("*.json"), *out.glob("*.txt")):
            stale.unlink()
    geo = trained_on_tiles(read_recipe("tiles", scale), out, seed)
    for name in JUDGED:
        table = out / f"metrics-{name}.txt"
        if not table.exists():
            report = score(geo, _dataset(name, scale), f"tiles, {name}", likelihood=name == "test")
            report.to_json(table.with_suffix(".json"))
            write_atomically(table, report.table() + "\n")
        print(table.read_text(), end="")
    _draw_demo(geo, out)
    minutes = (time.perf_counter() - start) / 60
    print(
        f"done in {minutes:.1f} min. Look at {out}: density-*.png, trajectories.png, loss.png, metrics-*.txt, metrics-*.json, model/"
    )


def _draw_demo(geo, out: Path) -> None:
    from geoflow import schedules, sphere
    from geoflow.data import tiles
    from geoflow.training.runs import loss_curve
    from geoflow.viz import maps

    telling = list(tiles.EXAMPLES.items())[
        : 2 if runtime.scale() == "smoke" else None
    ]  # maps of a model that learnt nothing take longest
    for name, latlon in runtime.progress(telling, desc="density maps"):
        file = out / f"density-{name}.png"
        if file.exists():
            continue
        image = tiles.tile(*latlon)
        density, places = geo.density(image), geo.predict(image, k=3)
        inset = "south-pole" if name == "ice" else None
        title = f"{name}: entropy {density.entropy - -sphere.LOG_UNIFORM:+.1f} nats over uniform, integral {density.integral:.3f}"
        figure = maps.density_figure(
            density, image, latlon, places.latlon[0], places.mass[0], title, inset
        )
        _save(figure, file)
    image = tiles.tile(*tiles.EXAMPLES["taiga"])
    steps = 32
    paths = geo.trajectories(image, n=400, steps=steps, seed=0)[:, 0]
    figure = maps.trajectories_figure(
        paths, schedules.time_grid(geo.schedule, steps), image, tiles.EXAMPLES["taiga"]
    )
    _save(figure, out / "trajectories.png")
    _save(
        _loss_figure({part: loss_curve(out / part) for part in ("encoder", "flow")}),
        out / "loss.png",
    )


def _save(figure, file: Path) -> None:
    partial = file.with_name(file.name + ".partial")
    figure.savefig(partial, format="png", dpi=200)
    partial.replace(file)


def _loss_figure(curves: dict[str, dict[str, list[tuple[int, float]]]]):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 2.6), layout="constrained")
    for ax, (part, losses) in zip(figure.subplots(1, len(curves)), curves.items(), strict=True):
        for (name, points), color in zip(losses.items(), ("#9ecae1", "#08519c"), strict=True):
            if points:
                ax.plot(
                    *zip(*points, strict=True),
                    color=color,
                    label={"loss": "training batch", "val_loss": "validation"}[name],
                )
        ax.set(
            title=part,
            xlabel="step",
            ylabel={"encoder": "cross-entropy (nats)", "flow": "flow-matching loss"}[part],
        )
        ax.legend(frameon=False)
    return figure


@app.command()
def doctor() -> None:
    """Print versions, devices, where data and caches are, what is missing and the command that mends it."""
    import torch

    from geoflow.geolocator import shipped_models

    print(
        f"geoflow {importlib.metadata.version('geoflow')}, Python {sys.version.split()[0]} at {sys.prefix}"
    )
    problems = []
    for package in [
        "torch",
        "lightning",
        "cartopy",
        "anywidget",
        "ipywidgets",
        "torchdiffeq",
        "einops",
        "jupytext",
        "jupyterlab",
        "basemap-data",
        "rasterio",
    ]:
        try:
            print(f"  {package} {importlib.metadata.version(package)}")
        except importlib.metadata.PackageNotFoundError:
            print(f"  {package} missing")
            problems.append(
                f"{package} is not installed: pip install -c constraints.txt -e '.[notebooks,dev]'"
            )
    cuda = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    mps = "yes" if torch.backends.mps.is_available() else "none"
    print(
        f"devices: {os.cpu_count()} CPU cores ({torch.get_num_threads()} torch threads), CUDA {cuda}, MPS {mps}"
    )
    print(f"scale: {runtime.scale()} (GEOFLOW_SCALE)")
    cache = runtime.cache_dir()
    size = sum(file.stat().st_size for file in cache.rglob("*") if file.is_file())
    print(
        f"data: {runtime.DATA}\ncache: {cache} ({size / 1e6:.0f} MB, safe to delete; {shutil.disk_usage(cache).free / 1e9:.0f} GB free)"
    )
    for leftover in cache.rglob("*.partial"):
        problems.append(f"{leftover} is left from an interrupted run: rm -r {leftover}")
    models = shipped_models()
    print(f"models: {', '.join(models) or 'none'}")
    if "tiles" not in models:
        problems.append(
            f"the shipped model is missing from {runtime.DATA / 'models'}: git checkout data/models"
        )
    try:
        from geoflow.data import tiles

        tiles.blue_marble()
    except FileNotFoundError as error:
        problems.append(str(error))
    print("\n".join(f"problem: {problem}" for problem in problems) or "nothing is missing")
    if problems:
        raise typer.Exit(1)
