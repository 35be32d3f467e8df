"""The commands that score and reproduce: `evaluate`, `tables`, `reproduce` and `results`."""

import re
from pathlib import Path
from typing import Annotated, Any

import geoflow
from geoflow import runtime
from geoflow.cli.common import (
    JUDGED,
    Model,
    Out,
    Seed,
    ShardsFolder,
    argument,
    check_out,
    check_seed,
    file_to_write,
    option,
    path,
    score_tiles,
    working_in,
)


def evaluate(
    model: Model = "tiles",
    data: ShardsFolder = None,
    out: Annotated[Path | None, option("folder for the reports as JSON", path)] = None,
    samples: Annotated[int, option("samples per image")] = 24,
    steps: Annotated[int | None, option("steps of the solver; default: the model's own")] = None,
    solver: Annotated[
        str | None, option("such as rk4, ab3 or euler; default: the model's own")
    ] = None,
    guidance: Annotated[float, option("weight of guidance; 0: none")] = 0.0,
    seed: Seed = 0,
    seeds: Annotated[int, option("number of seeds to average over")] = 1,
    labels: Annotated[bool, option("also compare country, region, sub-region and city")] = False,
    calibrated: Annotated[int, option("images whose highest-density regions are checked")] = 0,
    answer: Annotated[str, option("geoscore (highest expected one) or likeliest")] = "geoscore",
    views: Annotated[str, option("views of tiles: any or north-up; default: the model's")] = "",
    name: Annotated[str, option("name in reports; default: that of the data ('osv5m test')")] = "",
) -> None:
    """Score a model on shards of embeddings, or on Earth tiles of seen regions and of held-out
    blocks.

    Under `torchrun` the processes share the images, and each image counts once.
    """
    from geoflow.data.shards import FIELDS, open_shards
    from geoflow.scores import evaluation

    if views and data is not None:
        raise ValueError(f"--views {views} with --data; only Earth tiles have views")
    check_seed(seed)
    runtime.number(f"--guidance {guidance}", guidance)
    if out is not None:
        check_out(out)
    geo = geoflow.Geolocator.from_pretrained(model)
    evaluation.distributed_if_launched()
    how: dict[str, Any] = dict(samples=samples, steps=steps, solver=solver, guidance=guidance)
    how |= dict(seed=seed, seeds=seeds, labels=labels, calibrated=calibrated, answer=answer)
    if data is None:
        reports = (score_tiles(geo, split, runtime.scale(), views=views, **how) for split in JUDGED)
    else:
        shards = open_shards(data, FIELDS[geo.encoder.name] if geo.encoder is not None else None)
        if runtime.is_first_process():
            shards.verify_recorded()
        cond, x = shards.mapped()
        dataset = cond, geoflow.sphere.to_latlon(x)
        reports = [evaluation.evaluate(geo, dataset, name or shards.name, **how)]
    for report in reports:
        if runtime.is_first_process():
            if out is not None:
                stem = re.sub(r"[^\w.-]+", "-", report.dataset)[:100].strip(".-") or "data"
                report.to_json(out / f"{stem}.json")
            print(report.table())


def tables(
    results: Annotated[
        Path, argument("folder with reports of `geoflow evaluate`, at any depth", path)
    ],
    only: Annotated[str, option("one table, such as table1; default: all that have a report")] = "",
    dataset: Annotated[str, option("data set of the reports; default: that of each table")] = "",
    out: Annotated[Path | None, option("Markdown file to write", file_to_write)] = None,
) -> None:
    """Print the paper's tables 1, 2, A and B: the printed numbers, ours, and the differences.

    The paper's protocol is `geoflow evaluate --samples 1 --guidance 2 --labels --data SHARDS --out
    RESULTS/METHOD` for each method.
    """
    from geoflow.paper import tables

    reports = tables.read_reports(results)
    names = [only] if only else tables.names()
    drawn = [tables.table(table, reports, dataset or None) for table in names]
    shown = [table.markdown() for table in drawn if only or table.notes]
    if not shown:
        none = f"none of the {len(reports)} reports in {results} belongs to a row of the paper"
        raise ValueError(f"{none}; see `geoflow tables --help`")
    text = "\n\n".join(shown) + "\n"
    print(text, end="")
    if out is not None:
        runtime.write_atomically(out, text)


def reproduce(
    names: Annotated[list[str], argument("table1, fig5, …; all; earth-events; list: all names")],
    scale: Annotated[str, option("smoke, laptop, gpu or paper; default: GEOFLOW_SCALE")] = "",
    models: Annotated[
        Path | None, option("from `geoflow compare --out`; default: shipped", path)
    ] = None,
    data: ShardsFolder = None,
    out: Out = Path("outputs/reproduce"),
) -> None:
    """Run the paper's tables and figures again. Writes the figures, the tables beside the printed
    ones, and JSON files of all numbers with their origin.

    After an interruption, run it again to go on. On the paper's data: --scale paper --data SHARDS
    --models MODELS, where MODELS holds riemannian-0/model and so on, and for table A also
    riemannian-linear-0/model and riemannian-sigmoid-0/model.
    """
    from geoflow.paper import reproduce as again

    if names == ["list"]:
        for name, item in again.ITEMS.items():
            print(f"{name:12s} {item.title}")
        return
    items = again.chosen(names)
    setup = again.Setup(scale or runtime.scale(), out, models, data)
    try:
        with working_in(out):
            again.run(names, setup)
    finally:
        folders = {str(setup.folder_for(again.ITEMS[name].steps[0])): None for name in items}
        print(f"results: {', '.join(folders)}")


def results(
    folder: Annotated[Path, argument("results of `geoflow reproduce`", path)] = Path(
        "outputs/reproduce"
    ),
    out: Annotated[
        Path | None, option("Markdown file; default: RESULTS.md in the folder", file_to_write)
    ] = None,
) -> None:
    """Write a page of all results of `geoflow reproduce`: the printed numbers and ours, with scale,
    machine and minutes.
    """
    from geoflow.paper import reproduce as again

    target = out or folder / "RESULTS.md"
    runtime.write_atomically(target, again.page(folder, target))
    print(target)
