"""Located images as rows: what a data set lists, which of it is usable, and why the rest is not.

Every reader ends here. A row has an `id`, `latitude` and `longitude` in degrees and, where images are at hand, a `path`, relative to
the data set's root; a path may lead into an archive (`images/test/00.zip/00/1.jpg`, `0000.tar/1.jpg`). Partial copies are legal: what
is missing is counted, never guessed.
"""

import bz2
import functools
import gzip
import json
import os
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet
import torch
from torch import Tensor

from geoflow import runtime

LABELS = ("country", "region", "sub-region", "city")
NULLS = ["", "NaN", "nan", "NA"]
MOST_OUTSIDE = 0.01
"""Share of rows with impossible coordinates from which a file is refused: its columns are swapped, or in other units."""


@dataclass(frozen=True)
class Records:
    """Located images.

    Attributes:
        name: of the data set and split.
        rows: `id` (string), `latitude`, `longitude` (degrees); `path` if images are at hand; labels if there are any.
        root: folder that the paths are relative to.
        dropped: why rows were left out → how many.
    """

    name: str
    rows: pa.Table
    root: Path
    dropped: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.rows.num_rows

    def __str__(self) -> str:
        listed = len(self) + sum(self.dropped.values())
        reasons = "".join(
            f", {count:,} {reason}" for reason, count in self.dropped.items() if count
        )
        return f"{self.name}: {listed:,} listed{reasons}; {len(self):,} usable"

    @property
    def latlon(self) -> Tensor:
        """(n, 2) latitude and longitude in degrees, float64."""
        columns = [
            torch.from_numpy(self.rows[name].to_numpy().copy())
            for name in ("latitude", "longitude")
        ]
        return torch.stack(columns, -1)

    def without(self, reason: str, keep: pa.Array | pa.ChunkedArray) -> "Records":
        """The rows where `keep` is true; the others are counted under the reason."""
        kept = self.rows.filter(keep)
        lost = self.rows.num_rows - kept.num_rows
        return Records(
            self.name, kept, self.root, {**self.dropped, reason: self.dropped.get(reason, 0) + lost}
        )

    def with_images(self) -> "Records":
        """The rows whose image is there, in a folder or in an archive.

        Raises:
            ValueError: no image is there at all.
        """

        def there(path: str) -> bool:
            archive, member = _split_at_archive(self.root / path)
            return (
                (self.root / path).is_file()
                if archive is None
                else archive.is_file() and member in _opened(archive)
            )

        paths = runtime.progress(
            self.rows["path"], desc=f"looking for images of {self.name}", unit="image"
        )
        found = np.fromiter((there(path.as_py()) for path in paths), bool, len(self))
        if len(self) and not found.any():
            raise ValueError(
                f"{self.name}: none of the {len(self):,} images is in {self.root}; the first is {self.rows['path'][0].as_py()!r}"
            )
        return self.without("whose image is missing", pa.array(found))

    def read(self, path: str) -> bytes:
        """The bytes of an image, by its path.

        Raises:
            OSError: it is missing or its archive is damaged.
        """
        archive, member = _split_at_archive(self.root / path)
        return (self.root / path).read_bytes() if archive is None else _opened(archive).read(member)


def clean(name: str, table: pa.Table, root, dropped: dict[str, int] | None = None) -> Records:
    """Rows with coordinates on the Earth and ids of their own, the others counted.

    Raises:
        ValueError: a column is missing, coordinates are no numbers, or so many are impossible that columns must be swapped.
    """
    for column in ("id", "latitude", "longitude"):
        if column not in table.column_names:
            raise ValueError(
                f"{name}: no column {column!r}; expected id, latitude, longitude, found {', '.join(table.column_names)}"
            )
    table = table.set_column(table.column_names.index("id"), "id", table["id"].cast(pa.string()))
    for column in ("latitude", "longitude"):
        try:
            numbers = table[column].cast(pa.float64())
        except pa.ArrowInvalid as error:
            raise ValueError(f"{name}: {column} should be degrees, but {error}") from error
        table = table.set_column(table.column_names.index(column), column, numbers)
    records = Records(name, table, Path(root), dict(dropped or {}))

    finite = pc.and_(pc.is_finite(table["latitude"]), pc.is_finite(table["longitude"]))
    records = records.without("without coordinates", pc.fill_null(finite, False))
    rows = records.rows
    on_earth = pc.and_(
        pc.less_equal(pc.abs(rows["latitude"]), 90), pc.less_equal(pc.abs(rows["longitude"]), 180)
    )
    outside = rows.filter(pc.invert(on_earth)).slice(0, 1).to_pylist()
    if len(records) and pc.sum(pc.invert(on_earth)).as_py() > MOST_OUTSIDE * len(records):
        first = outside[0]
        raise ValueError(
            f"{name}: {pc.sum(pc.invert(on_earth)).as_py():,} of {len(records):,} places are not on Earth, the first of them "
            f"{first['id']!r} with latitude {first['latitude']}, longitude {first['longitude']}: are the columns swapped, or no degrees?"
        )
    records = records.without("not on Earth", on_earth)
    return records.without("with the id of an earlier row", _first_of_each(records.rows["id"]))


def _first_of_each(ids: pa.ChunkedArray) -> pa.Array:
    """Whether each value is the first of its kind."""
    if pc.count_distinct(ids).as_py() == len(ids):
        return pa.repeat(True, len(ids))
    numbered = pa.table({"id": ids, "row": pa.array(range(len(ids)))})
    first = numbered.group_by("id").aggregate([("row", "min")])["row_min"]
    return pc.is_in(numbered["row"], value_set=first.combine_chunks())


def read_table(file, root=None) -> Records:
    """Any CSV, TSV or Parquet of (id, latitude, longitude[, path][, country, region, sub-region, city]); other columns are ignored.

    Args:
        file: ends in .csv, .tsv or .parquet; .gz and .bz2 after that are fine.
        root: folder of the images; default: the file's.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it cannot be read, or columns are missing or hold no numbers.
    """
    file = Path(file)
    if not file.is_file():
        raise FileNotFoundError(f"no table at {file}")
    kind = next((s for s in reversed(file.suffixes) if s in (".csv", ".tsv", ".parquet")), None)
    if kind is None:
        raise ValueError(f"{file} should end in .csv, .tsv or .parquet")
    wanted = ("id", "latitude", "longitude", "path", *LABELS)
    try:
        if kind == ".parquet":
            names = pa.parquet.read_schema(file).names
            table = pa.parquet.read_table(file, columns=[name for name in wanted if name in names])
        else:
            table = read_columns(
                file, {name: name for name in wanted}, "\t" if kind == ".tsv" else ","
            )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    return clean(file.name, table, file.parent if root is None else root)


def read_columns(file: Path, names: dict[str, str], delimiter: str = ",") -> pa.Table:
    """Some columns of a delimited text file with a header: {its name: our name} → table. Columns that are absent are left out.

    Raises:
        ValueError: a coordinate is no number; the message names the row.
    """
    header = first_line(file).rstrip("\r\n").removeprefix("\ufeff").split(delimiter)
    present = [name for name in names if name in (column.strip('"') for column in header)]
    types = {
        name: pa.float64() if names[name] in ("latitude", "longitude") else pa.string()
        for name in present
    }
    options = pa.csv.ConvertOptions(
        include_columns=present,
        column_types=types,
        strings_can_be_null=True,
        null_values=["", "NaN", "nan", "NA"],
    )
    try:
        table = pa.csv.read_csv(
            file,
            parse_options=pa.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=options,
        )
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
    return table.rename_columns([names[name] for name in present])


def first_line(file: Path) -> str:
    """The first line of a text file that may be compressed."""
    opened = {".bz2": bz2.open, ".gz": gzip.open}.get(file.suffix, open)
    with opened(file, "rt", encoding="utf-8") as lines:
        return lines.readline()


def images_below(folder: Path, root: Path) -> dict[str, str]:
    """Stem → path relative to the root, of every .jpg below a folder and in the zip archives below it."""
    found: dict[str, str] = {}
    for file in sorted(folder.rglob("*")):
        inside = (
            [file]
            if file.suffix == ".jpg"
            else (file / name for name in _opened(file))
            if file.suffix == ".zip"
            else ()
        )
        found |= {
            image.stem: str(image.relative_to(root)) for image in inside if image.suffix == ".jpg"
        }
    return found


def read_tars(folder) -> Records:
    """Images in webdataset tars, as the paper's official shards have them: `KEY.json` with latitude and longitude, `KEY.jpg` (or .png).

    Raises:
        FileNotFoundError: no tars.
        OSError: one is damaged.
        ValueError: a json is damaged, or no image is there at all.
    """
    folder = Path(folder)
    files = sorted(folder.glob("*.tar"))
    if not files:
        raise FileNotFoundError(f"no tars of images in {folder}")
    rows: list[dict] = []
    for file in runtime.progress(files, desc=f"listing {folder.name}", unit="tar"):
        archive = _opened(file)
        images = {
            name.rpartition(".")[0]: name
            for name in archive
            if name.endswith((".jpg", ".jpeg", ".png"))
        }
        for name in archive:
            if name.endswith(".json"):
                key = name.removesuffix(".json")
                try:
                    found = json.loads(archive.read(name))
                    row = {"latitude": found.get("latitude"), "longitude": found.get("longitude")}
                    row |= {
                        label: found.get(f"unique_{label}", found.get(label)) for label in LABELS
                    }
                except (ValueError, AttributeError) as error:
                    raise ValueError(f"{file}: {name} is no json of a sample: {error}") from error
                rows.append(
                    {
                        "id": str(found.get("id", key)),
                        **row,
                        "path": f"{file.name}/{images[key]}" if key in images else None,
                    }
                )
    columns = {
        name: [row[name] for row in rows]
        for name in ("id", "latitude", "longitude", "path", *LABELS)
    }
    types = {
        name: pa.float64() if name in ("latitude", "longitude") else pa.string() for name in columns
    }
    records = clean(
        folder.name,
        pa.table({name: pa.array(column, types[name]) for name, column in columns.items()}),
        folder,
    )
    if len(records) and records.rows["path"].null_count == len(records):
        raise ValueError(f"the tars in {folder} hold no images (.jpg, .png)")
    return records.without("whose image is missing", pc.is_valid(records.rows["path"]))


class _Archive:
    """What a zip or tar archive holds: an iterable of names, and their bytes."""

    def __init__(self, file: Path):
        self.file = file
        try:
            self._archive = zipfile.ZipFile(file) if file.suffix == ".zip" else _Tar(file)
            self._names = dict.fromkeys(self._archive.namelist())
        except (zipfile.BadZipFile, tarfile.TarError, EOFError, OSError) as error:
            raise OSError(
                f"{file} is no whole {file.suffix[1:]} archive ({error}); fetch it again"
            ) from error

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def read(self, name: str) -> bytes:
        try:
            return self._archive.read(name)
        except (KeyError, zipfile.BadZipFile, EOFError) as error:
            raise OSError(f"{name} cannot be read from {self.file}: {error}") from error


class _Tar:
    """An uncompressed tar with `ZipFile`'s interface."""

    def __init__(self, file: Path):
        with tarfile.open(file, "r:") as opened:
            self._spans = {
                member.name: (member.offset_data, member.size)
                for member in opened
                if member.isfile()
            }
        end = max((start + size for start, size in self._spans.values()), default=0)
        if file.stat().st_size < end:
            raise EOFError(f"{file.stat().st_size:,} bytes, expected at least {end:,}")
        self._file = file

    def namelist(self) -> list[str]:
        return list(self._spans)

    def read(self, name: str) -> bytes:
        start, size = self._spans[name]
        with self._file.open("rb") as opened:
            opened.seek(start)
            return opened.read(size)


def _opened(file: Path) -> _Archive:
    """An archive that stays open: its list of members is read once by each process, which must not share another's file position."""
    return _opened_by(os.getpid(), file, file.stat().st_size, file.stat().st_mtime_ns)


@functools.lru_cache(maxsize=128)
def _opened_by(_process: int, file: Path, _size: int, _date: int) -> _Archive:
    return _Archive(file)


def _split_at_archive(path: Path) -> tuple[Path | None, str]:
    """A path into an archive → the archive and the member; (None, "") for an ordinary one."""
    for parent in path.parents:
        if parent.suffix in (".zip", ".tar"):
            return parent, path.relative_to(parent).as_posix()
    return None, ""
