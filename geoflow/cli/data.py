"""The commands that bring data: `data fetch`, `embed` and `data verify`."""

import importlib
from pathlib import Path
from typing import Annotated

import geoflow
from geoflow.cli.common import Weights, argument, interruptible, option, path
from geoflow.runtime import choose, count

SOURCES = ("osv5m", "inat21", "yfcc")
Split = Annotated[str, option("train or test")]


def fetch(
    dataset: Annotated[str, argument("osv5m, inat21 or earth-events")],
    root: Annotated[
        Path | None, option("folder of the data; earth-events has a default", path)
    ] = None,
    split: Split = "test",
) -> None:
    """Show the licence of a data set, download it, and check sizes and checksums. After an
    interruption, run it again to go on.
    """
    from geoflow.data import earth_events
    from geoflow.data.fetch import LICENCES
    from geoflow.data.fetch import fetch as download

    choose("data set", dataset, LICENCES)
    if root is None:
        if dataset != "earth-events":
            raise ValueError(f"--root is missing: the folder for the files of {dataset}")
        root = earth_events.default_root()
    download(dataset, split, root)


def embed(
    dataset: Annotated[str, argument("osv5m, inat21 or yfcc; or a table; or a folder of tars")],
    out: Annotated[Path, option("folder for the shards", path)],
    root: Annotated[
        Path | None,
        option("folder of the data; for a table, of its images (default: beside it)", path),
    ] = None,
    columns: Annotated[
        list[str] | None,
        option("columns of a table: latitude=NAME, longitude=NAME, path=NAME, id=NAME, …"),
    ] = None,
    split: Annotated[str | None, option("train or test, for a data set; default: train")] = None,
    encoder: Annotated[str, option("dinov2, streetclip, or a model with an encoder")] = "dinov2",
    weights: Weights = "",
    shard: Annotated[int | None, option("samples per shard; default: up to 10,000")] = None,
    batch: Annotated[int, option("images per call of the encoder")] = 64,
    workers: Annotated[int, option("processes that read images, for each device")] = 2,
    devices: Annotated[int, option("GPUs, or CPU processes, that share the work")] = 1,
) -> None:
    """Turn images into shards of embeddings, to train and evaluate on. After an interruption, run
    it again to go on.

    A table is a .csv, .tsv or .parquet file with the columns id, latitude, longitude and path.
    Other usual names, delimiters and encodings are understood; the command prints its choice.

    The command prints how many images are listed, usable, missing and unreadable, and how much
    space they take; manifest.json names the unreadable ones. It makes shards again that are
    damaged, or whose rows or images have changed.
    """
    from geoflow.training.embedding import embed as write

    with interruptible(out):
        chosen = _encoder(encoder, weights)
        images = _images(dataset, root, split, columns or [])
        model = str(Path(encoder).resolve()) if Path(encoder).is_dir() else encoder
        write(images, chosen, out, shard, batch, workers, devices, model=model)


def _encoder(encoder: str, weights: str):
    """The encoder of that name."""
    from geoflow.encoders import PHOTO_ENCODERS, PhotoEncoder

    if encoder in PHOTO_ENCODERS:
        return PhotoEncoder(encoder, weights or None)
    if weights:
        names = " and ".join(PHOTO_ENCODERS)
        raise ValueError(f"--weights is for {names}; {encoder!r} has its own")
    if (chosen := geoflow.Geolocator.from_pretrained(encoder).encoder) is None:
        raise ValueError(f"model {encoder!r} has no image encoder; expected one that has")
    return chosen


def _images(dataset: str, root: Path | None, split: str | None, columns: list[str]):
    """The located images of a table, a folder of tars, or a data set."""
    from geoflow.data import records

    folder, table = Path(dataset).is_dir(), bool(Path(dataset).suffix)
    if split is not None and (folder or table):
        raise ValueError(f"--split is for {', '.join(SOURCES)}; {dataset} has no splits")
    if folder and root is not None:
        raise ValueError(f"--root is for tables and data sets; the images are in {dataset} itself")
    if columns and (folder or not table):
        raise ValueError(f"--columns is for tables; {dataset} is not one")
    if odd := [text for text in columns if not all(text.partition("=")[::2])]:
        raise ValueError(f"--columns {odd[0]}; expected for example latitude=NAME")
    if folder:
        return records.read_tars(dataset)
    if table:
        named = dict(text.split("=", 1) for text in columns)
        return records.read_table(dataset, root, named).with_images()
    name = choose("table, folder or data set", dataset, SOURCES)
    reader = importlib.import_module(f"geoflow.data.{name}")
    if root is None:
        raise ValueError(f"--root is missing: the folder where {dataset} lies")
    return reader.read(root, split or "train")


def verify(
    folder: Annotated[
        Path, argument("folder of shards, from `geoflow embed` or from others", path)
    ],
    field: Annotated[str | None, option("which embedding, if the tars hold several")] = None,
) -> None:
    """Check that shards are complete: by their checksums, number of samples and width or, where
    they have no checksum, by reading every sample. A training compares the checksums before its
    first step, and the rest while it reads.
    """
    from geoflow.data.shards import open_shards

    shards = open_shards(folder, field)
    shards.verify()
    how = "as their checksums say" if all(shards.recorded) else "every sample was read"
    what = (
        f"{count(len(shards), 'embedding')} ({shards.field}) in {count(len(shards.files), 'shard')}"
    )
    print(f"{folder}: whole: {what}; {how}")
