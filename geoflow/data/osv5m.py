"""OpenStreetView-5M as the hub has it (CC BY-SA 4.0).

`train.csv` and `test.csv` lie beside `images/SPLIT/*.zip` of jpgs, extracted or not.
"""

import csv
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

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
    listed = records.clean(f"osv5m {split}", _table(file), root)
    images = records.images_below(root / "images" / split, root)
    paths = pa.array([images.get(id_) for id_ in listed.rows["id"].to_pylist()], pa.string())
    rows = listed.rows.append_column("path", paths)
    return replace(listed, rows=rows).with_images(paths.is_valid())


def _table(file: Path) -> pa.Table:
    """The columns of `NAMES` that are there. The text "NA" is not missing: it is Namibia."""
    header = next(csv.reader([records.first_line(file)]), [])
    present = {name: ours for name, ours in NAMES.items() if name in header}
    options = pa.csv.ConvertOptions(
        include_columns=list(present),
        column_types=dict(zip(present, records.types_of(present.values()).values(), strict=True)),
        null_values=["", "NaN", "nan", "NA"],  # of numbers
    )
    parsing = pa.csv.ParseOptions(newlines_in_values=True)
    with records.naming(file):
        table = pa.csv.read_csv(file, parse_options=parsing, convert_options=options)
    table = table.rename_columns(list(present.values()))
    for number, name in enumerate(table.column_names):
        if name not in COORDINATES:
            missing = pc.is_in(table[name], value_set=pa.array(["", "NaN", "nan"]))
            text = pc.if_else(missing, pa.scalar(None, pa.string()), table[name])
            table = table.set_column(number, name, text)
    return table
