"""OpenStreetView-5M as the hub has it (CC BY-SA 4.0).

`train.csv` and `test.csv` lie beside `images/SPLIT/*.zip` of jpgs, extracted or not.
"""

from pathlib import Path

import pyarrow as pa

from geoflow import runtime
from geoflow.data import records
from geoflow.data.records import COORDINATES, Records
from geoflow.data.towns import LEVELS

NAMES = {name: name for name in ("id", *COORDINATES)} | {f"unique_{name}": name for name in LEVELS}


def read(root, split: str) -> Records:
    """Rows of a split whose image is there. Of the csv only the needed columns are read."""
    root = Path(root)
    name = runtime.choose("split", split, ("train", "test")) + ".csv"
    file = records.existing(root / name, f"the layout of osv5m/osv5m: {name} and images/{split}/")
    listed = records.clean(f"osv5m {split}", records.read_columns(file, NAMES), root)
    images = records.images_below(root / "images" / split, root)
    paths = pa.array([images.get(id_) for id_ in listed.rows["id"].to_pylist()], pa.string())
    rows = listed.rows.append_column("path", paths)
    return Records(listed.name, rows, root, listed.dropped).with_images(paths.is_valid())
