"""What several commands share: options, and the Earth tiles that models are judged on."""

from pathlib import Path
from typing import Annotated

import typer

JUDGED = ("test", "held-out")
"""Tiles of seen regions, and of blocks of the Earth that training never sees."""


def option(text: str):
    """An option with a line of help."""
    return typer.Option(help=text)


Out = Annotated[Path, option("folder for results")]
Seed = Annotated[int, option("of weights, batches and noise")]
Model = Annotated[str, option("a shipped model, or a folder")]
Method = Annotated[str, option("riemannian, flow, diffusion, vmf or vmf-mixture")]
Shards = Annotated[Path | None, option("shards from `geoflow embed`; default: Earth tiles")]
Weights = Annotated[
    str, option("folder with the photo encoder's weights; default: the published ones")
]


def judged_tiles(name: str, scale: str):
    """Return the tiles that a model is judged on: fewer at small scales."""
    from geoflow.data import tiles

    return tiles.load(name, {"smoke": 100, "demo": 1000}.get(scale, 4000))
