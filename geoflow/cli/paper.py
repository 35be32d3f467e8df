"""The commands that score and reproduce: `evaluate`, `tables`, `reproduce` and `results`."""

from pathlib import Path
from typing import Annotated, Any

import geoflow
from geoflow import runtime
from geoflow.cli.common import (
    JUDGED,
    Model,
    Out,
    Seed,
    Shards,
    argument,
    check_out,
    option,
    score_tiles,
    working_in,
)


def evaluate(
    model: Model = "tiles",
    data: Shards = None,
    out: Annotated[Path | None, option("folder for the reports as JSON")] = None,
    samples: Annotated[int, option("per image")] = 24,
    steps: Annotated[int | None, option("default: the model's own")] = None,
    solver: Annotated[str | None, option("default: the model's own")] = None,
    guidance: float = 0.0,
    seed: Seed = 0,
    seeds: Annotated[int, option("how many seeds to average over")] = 1,
    labels: Annotated[bool, option("compare country, region, sub-region and city")] = False,
    calibrated: Annotated[int, option("images whose highest-density regions are checked")] = 0,
    answer: Annotated[str, option("geoscore (highest expected one) or likeliest")] = "geoscore",
    views: Annotated[str, option("of tiles: any or north-up; default: the model's")] = "",
    name: Annotated[str, option("of the data in reports; default: its own ('osv5m test')")] = "",
) -> None:
    """Score a model on shards of embeddings, or on seen regions and on held-out blocks of the
    Earth tiles.

    Under `torchrun` the processes share the images, and each image is counted once.
    """
    from geoflow.data.shards import FIELDS, open_shards
    from geoflow.scores import evaluation

    if views and data is not None:
        raise ValueError(f"--views {views} with --data; only Earth tiles have views")
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
                stem = report.dataset.replace(", ", "-").replace(" ", "-")
                report.to_json(out / f"{stem}.json")
            print(report.table())


def tables(
    results: Annotated[Path, argument("folder with reports of `geoflow evaluate`, at any depth")],
    only: Annotated[str, option("one table; default: all that have a report")] = "",
    dataset: Annotated[str, option("whose reports to show; default: each table's own data")] = "",
    out: Annotated[Path | None, option("Markdown file")] = None,
) -> None:
    """The paper's tables 1, 2, A and B with our numbers, and differences, beside the printed ones.

    The paper's protocol: `geoflow evaluate --samples 1 --guidance 2 --labels --data SHARDS --out
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
    names: Annotated[list[str], argument("table1, fig5, …; all; earth-events; list: every name")],
    scale: Annotated[str, option("smoke, laptop, gpu or paper; default: GEOFLOW_SCALE")] = "",
    models: Annotated[Path | None, option("from `geoflow compare --out`; default: shipped")] = None,
    data: Shards = None,
    out: Out = Path("outputs/reproduce"),
) -> None:
    """Run the paper's tables and figures again: numbers as JSON with their origin, tables beside
    the printed ones, figures.

    Run it again to go on after an interruption. On the paper's data: --scale paper --data SHARDS
    --models MODELS, where MODELS holds riemannian-0/model and so on, and for table A
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
    folder: Annotated[Path, argument("results of `geoflow reproduce`")] = Path("outputs/reproduce"),
    out: Annotated[Path | None, option("Markdown file; default: RESULTS.md in the folder")] = None,
) -> None:
    """Write a page of all that was reproduced: printed, ours, at which scale, on which machine, in
    how many minutes.
    """
    from geoflow.paper import reproduce as again

    file = out or folder / "RESULTS.md"
    runtime.write_atomically(file, again.page(folder, file))
    print(file)
