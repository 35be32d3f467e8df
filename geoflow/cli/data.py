"""The commands that bring data: `data fetch` and `embed`."""

import importlib
from pathlib import Path
from typing import Annotated

import geoflow
from geoflow.cli.common import Weights, argument, option
from geoflow.runtime import choose

SOURCES = ("osv5m", "inat21", "yfcc")

Split = Annotated[str, option("train or test")]


def fetch(
    dataset: Annotated[str, argument("osv5m, inat21 or earth-events")],
    root: Annotated[
        Path | None, option("folder of the data set; default for earth events: the cache")
    ] = None,
    split: Split = "test",
) -> None:
    """Download a data set, checked by size and checksum; its licence is shown first. Run it again
    to go on after an interruption.
    """
    from geoflow.data import earth_events
    from geoflow.data.fetch import fetch as download

    if root is None:
        if dataset != "earth-events":
            raise ValueError(f"--root is missing: the folder where {dataset} is to lie")
        root = earth_events.default_root()
    download(dataset, split, root)


def embed(
    dataset: Annotated[
        str,
        argument(
            "osv5m, inat21, yfcc; a .csv, .tsv, .parquet of id, latitude, longitude, path; "
            "or a folder of tars"
        ),
    ],
    out: Annotated[Path, option("folder for the shards")],
    root: Annotated[
        Path | None,
        option("folder of the data set; for a table, of its images (default: beside it)"),
    ] = None,
    split: Split = "train",
    encoder: Annotated[
        str, option("dinov2, streetclip, or a model whose encoder to use")
    ] = "dinov2",
    weights: Weights = "",
    shard: Annotated[
        int | None, option("samples per shard; default: 10,000, fewer for small data sets")
    ] = None,
    batch: Annotated[int, option("images per call of the encoder")] = 64,
    workers: Annotated[int, option("processes that read images, for each device")] = 2,
    devices: Annotated[int, option("GPUs, or CPU processes, that share the work")] = 1,
) -> None:
    """Images → shards of embeddings, to train and evaluate on. Run it again to go on after an
    interruption.

    Prints what is listed, usable and missing, what it will take, and what could not be read.
    """
    from geoflow.encoders import PHOTO_ENCODERS, PhotoEncoder
    from geoflow.training.embedding import embed as write

    if encoder in PHOTO_ENCODERS:
        chosen = PhotoEncoder(encoder, weights or None)
    else:
        chosen = geoflow.Geolocator.from_pretrained(encoder).encoder
    write(_records(dataset, root, split), chosen, out, shard, batch, workers, devices)


def _records(dataset: str, root: Path | None, split: str):
    """Return the located images of a data set, of a table, or of a folder of tars."""
    from geoflow.data.records import read_table, read_tars

    if Path(dataset).is_dir():
        return read_tars(dataset)
    if Path(dataset).suffix:
        return read_table(dataset, root).with_images()
    reader = importlib.import_module(f"geoflow.data.{choose('data set', dataset, SOURCES)}")
    if root is None:
        raise ValueError(f"--root is missing: the folder where {dataset} lies")
    return reader.read(root, split)
