"""iNaturalist 2021: `train.json` and `val.json` (COCO style) beside `train/` and `val/`.

The paper tests on the public validation set.
"""

from pathlib import Path

import pyarrow as pa

from geoflow import runtime
from geoflow.data.records import COORDINATES, Records, clean, existing, types_of

FILES = {"train": "train.json", "test": "val.json"}


def read(root, split: str) -> Records:
    """Rows of a split whose image is there. Images without coordinates are counted."""
    root = Path(root)
    name = FILES[runtime.choose("split", split, FILES)]
    file = existing(root / name, f"the layout of iNat21: {name} beside {Path(name).stem}/")
    try:
        images = runtime.read_json(file)["images"]
        columns = {
            "id": [str(image["id"]) for image in images],
            "path": [image["file_name"] for image in images],
        }
        for name in COORDINATES:
            columns[name] = pa.array([image.get(name) for image in images], pa.float64())
        table = pa.table(columns, pa.schema(types_of(columns)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        text = f"{file} is no COCO-style json with images of id and file_name"
        raise ValueError(f"{text}: {' '.join(repr(error).split())}") from error
    return clean(f"inat21 {split}", table, root).with_images()
