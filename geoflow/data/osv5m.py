"""OpenStreetView-5M as the hub has it: `train.csv`, `test.csv`, and `images/SPLIT/*.zip` of jpgs, extracted or not (CC BY-SA 4.0)."""

from pathlib import Path

import pyarrow as pa

from geoflow.data.records import LABELS, Records, clean, images_below, read_columns
from geoflow.runtime import choose

SPLITS = ("train", "test")
NAMES = {
    "id": "id",
    "latitude": "latitude",
    "longitude": "longitude",
    **{f"unique_{label}": label for label in LABELS},
}


def read(root, split: str) -> Records:
    """Rows of a split whose image is there. Of the 2.9 GB of train.csv only the needed columns are read.

    Raises:
        FileNotFoundError: there is no csv.
        ValueError: unknown split, a damaged csv, or no image at all.
        OSError: a zip archive is not whole.
    """
    root = Path(root)
    file = root / f"{choose('split', split, SPLITS)}.csv"
    if not file.is_file():
        raise FileNotFoundError(
            f"no {file.name} in {root}; expected the layout of osv5m/osv5m: {file.name} and images/{split}/"
        )
    records = clean(f"osv5m {split}", read_columns(file, NAMES), root)
    images = images_below(root / "images" / split, root)
    paths = pa.array([images.get(id_) for id_ in records.rows["id"].to_pylist()], pa.string())
    if len(records) and paths.null_count == len(paths):
        raise ValueError(
            f"{records.name}: none of the {len(records):,} images is in {root / 'images' / split}"
        )
    placed = Records(records.name, records.rows.append_column("path", paths), root, records.dropped)
    return placed.without("whose image is missing", paths.is_valid())
