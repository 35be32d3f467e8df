"""OpenStreetView-5M as the hub has it (CC BY-SA 4.0).

`train.csv` and `test.csv` lie beside `images/SPLIT/*.zip` of jpgs, extracted or not.
"""

from pathlib import Path

import pyarrow as pa

from geoflow import runtime
from geoflow.data.records import (
    COORDINATES,
    Records,
    clean,
    existing,
    images_below,
    read_columns,
)
from geoflow.data.towns import LEVELS

SPLITS = ("train", "test")
NAMES = {name: name for name in ("id", *COORDINATES)} | {f"unique_{name}": name for name in LEVELS}


def read(root, split: str) -> Records:
    """Rows of a split whose image is there. Of the csv only the needed columns are read.

    Raises:
        FileNotFoundError: there is no csv.
        ValueError: unknown split, a damaged csv, or no image at all.
        OSError: a zip archive is not whole.
    """
    root = Path(root)
    name = f"{runtime.choose('split', split, SPLITS)}.csv"
    file = existing(root / name, f"the layout of osv5m/osv5m: {name} and images/{split}/")
    records = clean(f"osv5m {split}", read_columns(file, NAMES), root)
    images = images_below(root / "images" / split, root)
    paths = pa.array([images.get(id_) for id_ in records.rows["id"].to_pylist()], pa.string())
    rows = records.rows.append_column("path", paths)
    return Records(records.name, rows, root, records.dropped).with_images(paths.is_valid())
