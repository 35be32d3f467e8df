"""Located images as rows: what a data set lists, which of it is usable, and why the rest is not.

Every reader ends here. It raises a `FileNotFoundError` that names what is missing, a `ValueError`
for an unknown split, a damaged table or no image at all, and an `OSError` for a damaged archive. A
row has an `id`, `latitude` and `longitude` in degrees and, where images are at hand, a `path`
relative to the data set's root, which may lead into an archive. Partial copies are legal: what is
missing is counted, never guessed.
"""

import bz2
import gzip
import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import torch
from torch import Tensor

from geoflow import runtime
from geoflow.data import archives
from geoflow.data.towns import LEVELS

COORDINATES = ("latitude", "longitude")
COLUMNS = ("id", *COORDINATES, "path", *LEVELS)
MOST_OUTSIDE = 0.01  # share of impossible coordinates above which columns must be swapped


@dataclass(frozen=True)
class Records:
    """Located images."""

    name: str  # of the data set and split
    rows: pa.Table  # `id` (string), `latitude`, `longitude`; `path` and labels if there are any
    root: Path  # folder that the paths are relative to
    dropped: dict[str, int] = field(default_factory=dict)  # why rows were left out → how many

    def __len__(self) -> int:
        return self.rows.num_rows

    def __str__(self) -> str:
        listed = len(self) + sum(self.dropped.values())
        reasons = "".join(f", {n:,} {reason}" for reason, n in self.dropped.items() if n)
        return f"{self.name}: {listed:,} listed{reasons}; {len(self):,} usable"

    @property
    def latlon(self) -> Tensor:
        """(n, 2) latitude and longitude in degrees, float64."""
        columns = [torch.from_numpy(self.rows[name].to_numpy().copy()) for name in COORDINATES]
        return torch.stack(columns, -1)

    def without(self, reason: str, keep: pa.Array | pa.ChunkedArray) -> "Records":
        """The rows where `keep` is true; the others are counted under the reason."""
        kept = self.rows.filter(keep)
        lost = self.dropped.get(reason, 0) + len(self) - kept.num_rows
        return Records(self.name, kept, self.root, {**self.dropped, reason: lost})

    def with_images(self, found: pa.Array | pa.ChunkedArray | None = None) -> "Records":
        """The rows whose image is there, as `found` says; None: every path is looked up."""
        if "path" not in self.rows.column_names:
            raise ValueError(f"{self.name}: no column 'path', which says where each image is")
        paths = self.rows["path"]
        if found is None:
            bar = runtime.progress(paths, desc=f"looking for images of {self.name}", unit="image")
            there = (each.is_valid and archives.exists(self.root / each.as_py()) for each in bar)
            found = pa.array(there, pa.bool_())
        if len(self) and not pc.any(found).as_py():
            first = f"; the first is {paths[0]}" if paths[0].is_valid else ""
            text = f"{self.name}: none of the {len(self):,} images is in {self.root}"
            raise ValueError(f"{text}{first}")
        return self.without("whose image is missing", found)

    def read(self, path: str) -> bytes:
        """The bytes of an image, by its path."""
        return archives.read(self.root / path)


def clean(name: str, table: pa.Table, root, dropped: dict[str, int] | None = None) -> Records:
    """Rows with coordinates on the Earth and ids of their own, the others counted."""
    for column, kind in types_of(("id", *COORDINATES)).items():
        if column not in table.column_names:
            found = ", ".join(table.column_names)
            text = f"{name}: no column {column!r}"
            raise ValueError(f"{text}; expected id, latitude, longitude, found {found}")
        try:
            values = table[column].cast(kind)
        except pa.ArrowInvalid as error:
            raise ValueError(f"{name}: {column} should be degrees, but {error}") from error
        table = table.set_column(table.column_names.index(column), column, values)
    records = Records(name, table, Path(root), dict(dropped or {}))

    finite = pc.and_(*(pc.is_finite(table[column]) for column in COORDINATES))
    records = records.without("without coordinates", pc.fill_null(finite, False))
    sizes = {90: records.rows["latitude"], 180: records.rows["longitude"]}
    on_earth = pc.and_(*(pc.less_equal(pc.abs(size), most) for most, size in sizes.items()))
    outside = records.rows.filter(pc.invert(on_earth))
    if outside.num_rows > MOST_OUTSIDE * len(records):
        text = f"{name}: {outside.num_rows:,} of {len(records):,} places are not on Earth"
        id_, lat, lon = (outside[column][0].as_py() for column in ("id", *COORDINATES))
        text += f", the first of them {id_!r} with latitude {lat}, longitude {lon}"
        raise ValueError(f"{text}: are the columns swapped, or no degrees?")
    records = records.without("not on Earth", on_earth)
    return records.without("with the id of an earlier row", _first_of_each(records.rows["id"]))


def _first_of_each(ids: pa.ChunkedArray) -> pa.Array:
    """Whether each value is the first of its kind."""
    if pc.count_distinct(ids).as_py() == len(ids):
        return pa.repeat(True, len(ids))
    numbered = pa.table({"id": ids, "row": pa.array(range(len(ids)))})
    first = numbered.group_by("id").aggregate([("row", "min")])["row_min"]
    return pc.is_in(numbered["row"], value_set=first.combine_chunks())


def existing(file: Path, layout: str, *others: Path) -> Path:
    """The file, or the first of the others, that is there; an error states the layout expected."""
    if found := next(filter(Path.is_file, (file, *others)), None):
        return found
    raise FileNotFoundError(f"no {file.name} in {file.parent}; expected {layout}")


def types_of(columns: Iterable[str], numbers: Iterable[str] = COORDINATES) -> dict:
    """Column → its type: a number or a text."""
    return {name: pa.float64() if name in numbers else pa.string() for name in columns}


def read_table(file, root=None) -> Records:
    """Any CSV, TSV or Parquet of id, latitude, longitude and perhaps path, country, …, city.

    Args:
        file: ends in .csv, .tsv or .parquet; .gz and .bz2 after that are fine.
        root: folder of the images; default: the file's.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"no table at {file}")
    kind = next((s for s in reversed(file.suffixes) if s in (".csv", ".tsv", ".parquet")), None)
    if kind is None:
        raise ValueError(f"{file} should end in .csv, .tsv or .parquet")
    try:
        if kind == ".parquet":
            names = pa.parquet.read_schema(file).names
            table = pa.parquet.read_table(file, columns=[name for name in COLUMNS if name in names])
        else:
            delimiter = "\t" if kind == ".tsv" else ","
            table = read_columns(file, {name: name for name in COLUMNS}, delimiter)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    return clean(file.name, table, file.parent if root is None else root)


def read_columns(file: Path, names: dict[str, str], delimiter: str = ",") -> pa.Table:
    """Some columns of a delimited text file with a header: {its name: our name} → table.

    Columns that are absent are left out. The text "NA" is not missing: it is Namibia.
    """
    header = first_line(file).rstrip("\r\n").removeprefix("\ufeff").split(delimiter)
    columns = [column.strip('"') for column in header]
    present = {name: ours for name, ours in names.items() if name in columns}
    options = pa.csv.ConvertOptions(
        include_columns=list(present),
        column_types=dict(zip(present, types_of(present.values()).values(), strict=True)),
        null_values=["", "NaN", "nan", "NA"],  # of numbers
    )
    parsing = pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    try:
        table = pa.csv.read_csv(file, parse_options=parsing, convert_options=options)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    given = table.rename_columns(list(present.values()))
    for number, name in enumerate(given.column_names):
        if name not in COORDINATES:
            missing = pc.is_in(given[name], value_set=pa.array(["", "NaN", "nan"]))
            text = pc.if_else(missing, pa.scalar(None, pa.string()), given[name])
            given = given.set_column(number, name, text)
    return given


def first_line(file: Path) -> str:
    """The first line of a text file that may be compressed."""
    opened = {".bz2": bz2.open, ".gz": gzip.open}.get(file.suffix, open)
    with opened(file, "rt", encoding="utf-8") as lines:
        return lines.readline()


def images_below(folder: Path, root: Path) -> dict[str, str]:
    """Stem → path relative to the root, of every .jpg below a folder and in its zip archives."""
    found: dict[str, str] = {}
    for file in sorted(folder.rglob("*")):
        names = archives.members(file) if file.suffix == ".zip" else [""]
        images = (image for image in map(file.joinpath, names) if image.suffix == ".jpg")
        found |= {image.stem: str(image.relative_to(root)) for image in images}
    return found


def read_tars(folder) -> Records:
    """Images in webdataset tars like the official ones: a json of coordinates beside each image."""
    folder = Path(folder)
    files = sorted(folder.glob("*.tar"))
    if not files:
        raise FileNotFoundError(f"no tars of images in {folder}")
    rows: list[dict] = []
    for file in runtime.progress(files, desc=f"listing {folder.name}", unit="tar"):
        members = archives.members(file)
        pictures = (name for name in members if name.endswith((".jpg", ".jpeg", ".png")))
        images = {name.rpartition(".")[0]: f"{file.name}/{name}" for name in pictures}
        for name in (name for name in members if name.endswith(".json")):
            key = name.removesuffix(".json")
            try:
                found = json.loads(members[name]())
                row = {"id": str(found.get("id", key)), "path": images.get(key)}
                row |= {column: found.get(column) for column in COORDINATES}
                rows.append(row | {to: found.get(f"unique_{to}", found.get(to)) for to in LEVELS})
            except (ValueError, AttributeError) as error:
                raise ValueError(f"{file}: {name} is no json of a sample: {error}") from error
    table = pa.Table.from_pylist(rows, schema=pa.schema(types_of(COLUMNS)))
    records = clean(folder.name, table, folder)
    return records.with_images(records.rows["path"].is_valid())
