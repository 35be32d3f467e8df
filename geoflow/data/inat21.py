"""iNaturalist 2021: `train.json` and `val.json` (COCO style) beside `train/` and `val/`. The paper tests on the public validation set."""

import json
from pathlib import Path

import pyarrow as pa

from geoflow.data.records import Records, clean
from geoflow.runtime import choose

FILES = {"train": "train.json", "test": "val.json"}


def read(root, split: str) -> Records:
    """Rows of a split whose image is there. Images without coordinates, some in each split, are counted.

    Raises:
        FileNotFoundError: there is no json.
        ValueError: unknown split, a damaged json, or no image at all.
    """
    root = Path(root)
    file = root / FILES[choose("split", split, FILES)]
    if not file.is_file():
        raise FileNotFoundError(
            f"no {file.name} in {root}; expected the layout of iNat21: {file.name} beside {file.stem}/"
        )
    try:
        images = json.loads(file.read_text(encoding="utf-8"))["images"]
        columns = {
            "id": [str(image["id"]) for image in images],
            "path": [image["file_name"] for image in images],
            "latitude": pa.array([image.get("latitude") for image in images], pa.float64()),
            "longitude": pa.array([image.get("longitude") for image in images], pa.float64()),
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"{file} is no COCO-style json with images of id and file_name: {error!r}"
        ) from error
    return clean(f"inat21 {split}", pa.table(columns), root).with_images()
