"""Located images as rows: what a data set lists, which of it is usable, and why the rest is not.

Every reader ends here. It raises a `FileNotFoundError` that names what is missing, a `ValueError`
for an unknown split, a damaged table or no image at all, and an `OSError` for a damaged archive. A
row has an `id`, `latitude` and `longitude` in degrees and, where images are at hand, a `path`
relative to the data set's root, which may lead into an archive. Partial copies are legal: what is
missing is counted, never guessed.
"""

import bz2
import contextlib
import gzip
from collections.abc import Generator, Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet
import torch
from torch import Tensor

from geoflow import runtime
from geoflow.data import archives, delimited
from geoflow.data.towns import LEVELS
from geoflow.data.typed import brief, loads

COORDINATES = ("latitude", "longitude")
COLUMNS = ("id", *COORDINATES, "path", *LEVELS)
MOST_OUTSIDE = 0.01  # a larger share of impossible coordinates means that columns are swapped


@dataclass(frozen=True)
class Records:
    """Located images."""

    name: str  # of the data set and split
    rows: pa.Table  # `id` (string), `latitude`, `longitude`; `path` and labels if there are any
    root: Path  # folder that the paths are relative to
    dropped: dict[str, int] = field(default_factory=dict)  # why rows were left out → how many
    notes: tuple[str, ...] = ()  # how it was read

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

    def describe(self) -> str:
        """How the data set was read, and which part of the Earth it covers, in words."""
        lines = [f"{self.name}: {'; '.join(self.notes)}"] if self.notes else []
        if len(self):
            (south, west), (north, east) = (f(self.latlon, 0) for f in (torch.amin, torch.amax))
            box = f"latitudes {south:.4f} to {north:.4f}, longitudes {west:.4f} to {east:.4f}"
            lines.append(f"{self.name}: {box}")
        if nowhere := int((self.latlon == 0).all(-1).sum()):
            lines.append(f"{self.name}: {nowhere:,} at (0, 0), which often stands for no place")
        return "\n".join(lines)

    def without(self, reason: str, keep: pa.Array | pa.ChunkedArray) -> "Records":
        """The rows where `keep` is true; the others are counted under the reason."""
        kept = self.rows.filter(keep)
        lost = self.dropped.get(reason, 0) + len(self) - kept.num_rows
        return replace(self, rows=kept, dropped={**self.dropped, reason: lost})

    def with_images(self, found: pa.Array | pa.ChunkedArray | None = None) -> "Records":
        """The rows whose image is there, as `found` says; None: every path is looked up."""
        if "path" not in self.rows.column_names:
            names = ", ".join(delimited.NAMES["path"][:4])
            text = f"{self.name}: no column of path, which says where each image is"
            expected = f"expected one called {names}, or --columns path=NAME"
            raise ValueError("; ".join([f"{text}; {expected}", *self.notes]))
        paths = self.rows["path"]
        if found is None:
            bar = runtime.progress(paths, desc=f"looking for images of {self.name}", unit="image")
            there = (each.is_valid and archives.exists(self.root / each.as_py()) for each in bar)
            found = pa.array(there, pa.bool_())
        if not len(self):
            raise ValueError(f"{self}: there is no image")
        if not pc.any(found).as_py():
            first = f"; the first is {brief(paths[0])}" if paths[0].is_valid else ""
            text = f"{self.name}: none of {runtime.count(len(self), 'image')} is in {self.root}"
            raise ValueError(f"{text}{first}")
        records = self.without("whose image is missing", found)
        if len(records) < len(self):
            lost = self.rows.filter(pc.invert(found)).slice(0, 3).to_pylist()
            names = [brief(row["path"] or row["id"]) for row in lost]
            number = len(self) - len(records)
            more = ["…"] if number > len(names) else []
            said = f"{number:,} missing: {', '.join(names + more)}"
            records = replace(records, notes=(*self.notes, said))
        return records

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
        except pa.ArrowException as error:
            kind = "texts" if column == "id" else "degrees"
            raise ValueError(f"{name}: {column} should be {kind}, but {brief(error)}") from error
        table = table.set_column(table.column_names.index(column), column, values)
    records = Records(name, table, Path(root), dict(dropped or {}))

    finite = pc.and_(*(pc.is_finite(table[column]) for column in COORDINATES))
    records = records.without("without coordinates", pc.fill_null(finite, False))
    there = pc.fill_null(pc.not_equal(records.rows["id"], ""), False)
    records = records.without("without an id", there)
    odd = records.rows.filter(pc.match_substring_regex(records.rows["id"], r"[\x00-\x1f\x7f]"))
    if odd.num_rows:
        id_ = brief(odd["id"][0])
        raise ValueError(f"{name}: the id {id_!r} holds a control character")
    sizes = {90: records.rows["latitude"], 180: records.rows["longitude"]}
    on_earth = pc.and_(*(pc.less_equal(pc.abs(size), most) for most, size in sizes.items()))
    outside = records.rows.filter(pc.invert(on_earth))
    if outside.num_rows > MOST_OUTSIDE * len(records):
        places = runtime.count(len(records), "place")
        text = f"{name}: not on Earth: {outside.num_rows:,} of {places}"
        id_, lat, lon = (outside[column][0].as_py() for column in ("id", *COORDINATES))
        text += f", the first of them {brief(id_)!r} with latitude {lat}, longitude {lon}"
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
    """The first of some files that exists; otherwise an error that states the expected layout."""
    if found := next(filter(Path.is_file, (file, *others)), None):
        return found
    raise FileNotFoundError(f"no {file.name} in {file.parent}; expected {layout}")


def types_of(columns: Iterable[str], numbers: Iterable[str] = COORDINATES) -> dict:
    """Column → its type: a number or a text."""
    return {name: pa.float64() if name in numbers else pa.string() for name in columns}


def read_table(file, root=None, columns: dict[str, str] | None = None) -> Records:
    """Any CSV, TSV or Parquet of id, latitude, longitude and perhaps path, country, …, city.

    See `geoflow.data.delimited` for what the columns may be called and how texts may be written.

    Args:
        file: ends in .csv, .tsv, .txt or .parquet; of a text .gz and .bz2 after that are fine.
        root: folder of the images; default: the file's.
        columns: our name → name of the column that is meant, where it is not a usual one.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"no table at {file}")
    kinds = (".csv", ".tsv", ".txt", ".parquet")
    kind = next((s.lower() for s in reversed(file.suffixes) if s.lower() in kinds), None)
    if kind is None:
        raise ValueError(f"{file} should end in .csv, .tsv or .parquet")
    table = (_parquet if kind == ".parquet" else delimited.read)(file, columns)
    types = types_of(name for name in COLUMNS if name in table.values)
    arrays = {name: pa.array(table.values[name], kind) for name, kind in types.items()}
    root = file.parent if root is None else root
    return replace(clean(file.name, pa.table(arrays), root), notes=table.notes)


def _parquet(file: Path, given: dict[str, str] | None) -> delimited.Columns:
    """The columns of a Parquet file that we know, checked like those of a text."""
    with naming(file):
        header = pa.parquet.read_schema(file).names
        found = delimited.columns_of(str(file), header, given)
        wanted = sorted({header[i] for i in found.values()})
        table = pa.parquet.read_table(file, columns=wanted, page_checksum_verification=True)
        values = {name: _texts(file, name, table.select([header[i]])) for name, i in found.items()}
    notes = (delimited.names_in(header, found),)
    return delimited.checked(delimited.Columns(values, lambda i: f"{file}, row {i + 1}", notes))


def _texts(file: Path, name: str, table: pa.Table) -> list[str]:
    """A column as texts, "" where it has none; a `ValueError` if it holds no texts or numbers."""
    try:
        return pc.fill_null(table[0].cast(pa.string()), "").to_pylist()
    except (pa.ArrowException, UnicodeDecodeError) as error:
        (column,) = table.schema
        unknown = isinstance(error, pa.ArrowNotImplementedError)
        what = f"{brief(column.type)}{'' if unknown else ' that is not UTF-8'}"
        expected = f"expected {'degrees' if name in COORDINATES else 'texts'}"
        raise ValueError(
            f"{file}: column {brief(column.name)!r} holds {what}; {expected}"
        ) from error


def write_ids(file: Path, ids: pa.ChunkedArray) -> None:
    """Write a list of ids, whole or not at all."""
    with runtime.replacing(file) as partial:
        pa.parquet.write_table(pa.table({"id": ids}), partial)


def read_ids(file: Path) -> pa.ChunkedArray:
    """A list that `write_ids` wrote; a damaged one is a `ValueError`."""
    with naming(file):
        table = pa.parquet.read_table(file, page_checksum_verification=True)
    expected = "expected one column id of texts, each of which occurs once"
    if table.schema.names != ["id"] or table.schema.types != [pa.string()]:
        columns = ", ".join(f"{column.name} ({column.type})" for column in table.schema)
        raise ValueError(f"{file} is damaged: it holds {columns or 'no column'}; {expected}")
    ids = table["id"]
    if different := len(ids) - pc.count_distinct(ids, mode="only_valid").as_py():
        wrong = f"{runtime.count(different, 'row')} without an id or with that of another row"
        raise ValueError(f"{file} is damaged: it holds {wrong}; {expected}")
    return ids


@contextlib.contextmanager
def naming(file: Path) -> Generator[None]:
    """Turn whatever pyarrow and decompression say of a damaged file into one line that names it."""
    try:
        yield
    except (pa.ArrowException, OSError, EOFError, UnicodeDecodeError, MemoryError) as error:
        said = brief(" ".join(str(error).split()), 200)
        raise ValueError(f"{file} cannot be read: {said}") from error


def first_line(file: Path) -> str:
    """The first line of a text file that may be compressed."""
    opened = {".bz2": bz2.open, ".gz": gzip.open}.get(file.suffix.lower(), open)
    with naming(file), opened(file, "rt", encoding="utf-8-sig") as lines:
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
        advice = "a folder of photos needs a table of id, latitude, longitude, path: give that"
        raise FileNotFoundError(f"no tars of images in {folder}; {advice}")
    rows, alone = [], 0
    for file in runtime.progress(files, desc=f"listing {folder.name}", unit="tar"):
        members = archives.members(file)
        stems = {name: name.rpartition(".")[0] for name in members}
        images = {stems[name]: f"{file.name}/{name}" for name in members if is_image(name)}
        described = {stems[name]: name for name in members if name.endswith(".json")}
        alone += len(images.keys() - described.keys())
        for key, name in described.items():
            try:
                rows.append({**_row(loads(members[name]()), key), "path": images.get(key)})
            except ValueError as error:
                where = f"{file}: {brief(name)}"
                raise ValueError(f"{where} is not the json of a sample: {error}") from error
    if not rows:
        raise ValueError(f"the tars in {folder} hold no .json, which says where an image was taken")
    table = pa.Table.from_pylist(rows, schema=pa.schema(types_of(COLUMNS)))
    name = folder.name or folder.resolve().name
    records = clean(name, table, folder, {"image without a json of its place": alone})
    return records.with_images(records.rows["path"].is_valid())


def is_image(name: str) -> bool:
    """Whether a file in a tar is an image of a sample."""
    return name.lower().endswith((".jpg", ".jpeg", ".png", ".webp"))


def _row(found, key: str) -> dict:
    """A row from a sample's json; its id is the sample's key if it has none of its own."""
    if not isinstance(found, dict):
        raise ValueError(f"a {type(found).__name__}, not an object")
    texts = {name: found.get(f"unique_{name}", found.get(name)) for name in LEVELS}
    texts["id"] = key if found.get("id") is None else found["id"]
    row: dict = {name: text if text is None else str(text) for name, text in texts.items()}
    "".join([key, *filter(None, row.values())]).encode()  # no Unicode: a UnicodeEncodeError here
    for name, most in delimited.COORDINATES.items():
        value = found.get(name)
        if type(value) not in (float, int, type(None)):
            expected = f"expected degrees, −{most} to {most}"
            raise ValueError(f"{name} {brief(repr(value))}; {expected}")
        row[name] = None if value is None else float(value)  # Arrow takes no integers above 2⁵³
    return row
