"""What several commands share: options, and a score on Earth tiles.

Names of `geoflow` are imported on first use, so a command loads only what it needs.
"""

from pathlib import Path
from typing import Annotated

import typer

import geoflow

JUDGED = ("test", "held-out")  # tiles of seen regions, and of blocks that training never sees


def option(text: str):
    return typer.Option(help=text)


def argument(text: str):
    return typer.Argument(help=text)


Out = Annotated[Path, option("folder for results")]
Seed = Annotated[int, option("of weights, batches and noise")]
Model = Annotated[str, option("a shipped model, or a folder")]
Method = Annotated[str, option("riemannian, flow, diffusion, vmf or vmf-mixture")]
Shards = Annotated[Path | None, option("shards from `geoflow embed`; default: Earth tiles")]
Weights = Annotated[str, option("folder of the photo encoder's weights; default: published ones")]


def score_tiles(geo, name: str, scale: str, most: int | None = None, **options):
    """Score a model on `test` or `held-out` tiles, fewer at small scales: a Report.

    In a held-out block a likelihood says only that training never saw it, so none is computed.
    """
    from geoflow.data import tiles

    images = tiles.load(name, {"smoke": 100, "demo": 1000}.get(scale, 4000))[:most]
    if name == "held-out":
        options |= {"likelihood": False, "calibrated": 0}
    return geoflow.evaluate(geo, images, f"tiles, {name}", **options)
