"""YFCC-100M: metadata as tab-separated text, and images named by a hash.

`yfcc100m_dataset` holds the metadata, `yfcc100m_hash` says photo → file, and the images lie at
`images/ab1/2cd/HASH.jpg`. The paper trains on photos whose geotag is at street level
(accuracy ≥ 12) and tests on YFCC4k, a list of 4,000 photos that the authors did not publish: put
one at `yfcc4k_ids.txt`, an id per line.
"""

import math
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from geoflow import runtime
from geoflow.data.records import (
    COORDINATES,
    Records,
    clean,
    existing,
    first_line,
    naming,
    types_of,
)

LEAST_ACCURACY = 12
COLUMNS = (
    *("id", "user_nsid", "user_nickname", "date_taken", "date_uploaded", "capture_device", "title"),
    *("description", "user_tags", "machine_tags", "longitude", "latitude", "accuracy", "page_url"),
    *("download_url", "license_name", "license_url", "server_id", "farm_id", "secret"),
    *("secret_original", "extension", "is_video"),
)


def read(root, split: str) -> Records:
    """Rows of a split whose image is there.

    The metadata are streamed: of 100 million rows only the photos of the split stay in memory.
    """
    root = Path(root)
    runtime.choose("split", split, ("train", "test"))
    ids = "the test photos, an id per line, which training leaves out"
    file = existing(root / "yfcc4k_ids.txt", ids)
    with naming(file):
        test = pa.array(file.read_text(encoding="utf-8-sig").split(), pa.string())
    photos, dropped = _photos(_file(root, "yfcc100m_dataset"), test, split)
    records = clean(f"yfcc {split}", photos, root, dropped)

    hashes = _stream(_file(root, "yfcc100m_hash"), ("id", "hash"), ("id", "hash"))
    wanted = records.rows["id"].combine_chunks()
    listed = pa.concat_tables(
        rows.filter(pc.and_(pc.is_in(rows["id"], value_set=wanted), pc.not_equal(rows["hash"], "")))
        for rows in hashes
    )
    listed = listed.group_by(["id", "hash"]).aggregate([])  # a line that occurs twice counts once
    times = listed.group_by("id").aggregate([("hash", "count")])
    unclear = times.filter(pc.greater(times["hash_count"], 1))["id"].combine_chunks()
    clear = pc.invert(pc.is_in(records.rows["id"], value_set=unclear))
    records = records.without("with two different hashes", clear)
    rows = records.rows.join(listed, "id", join_type="left outer").sort_by("id")
    hash_ = rows["hash"]
    folders = [pc.utf8_slice_codeunits(hash_, start, start + 3) for start in (0, 3)]
    image = pc.binary_join_element_wise(hash_, "jpg", ".")
    path = pc.binary_join_element_wise("images", *folders, image, "/")
    rows = rows.drop_columns("hash").append_column("path", path)
    hashed = replace(records, rows=rows).without("without a hash", pc.is_valid(path))
    return hashed.with_images()


def _file(root: Path, name: str) -> Path:
    layout = f"the tab-separated file of YFCC-100M, or {name}.bz2"
    return existing(root / name, layout, root / f"{name}.bz2")


def _photos(file: Path, test: pa.Array, split: str) -> tuple[pa.Table, dict[str, int]]:
    """Photos of a split (id, latitude, longitude), and why the others were left out."""
    found = first_line(file).count("\t") + 1
    names = COLUMNS if found == len(COLUMNS) else ("line", *COLUMNS)
    if found != len(names):
        text = f"{file} has {found} columns; expected {len(COLUMNS)}"
        numbered = f"or {len(COLUMNS) + 1} with a line number first"
        raise ValueError(f"{text}, {numbered}: it is another file, or damaged")
    # test photos count in any case, and one without accuracy lacks coordinates: counted later
    least = LEAST_ACCURACY if split == "train" else -math.inf
    keep = {
        "videos": lambda rows: pc.equal(rows["is_video"], "0"),
        "of the other split": lambda rows: pc.equal(
            pc.is_in(rows["id"], value_set=test), split == "test"
        ),
        f"of accuracy below {LEAST_ACCURACY}": lambda rows: pc.fill_null(
            pc.greater_equal(rows["accuracy"], least), True
        ),
    }
    kept, dropped = [], dict.fromkeys(keep, 0)
    for rows in _stream(file, names, ("id", *COORDINATES, "accuracy", "is_video")):
        for reason, kept_by in keep.items():
            left = rows.filter(kept_by(rows))
            dropped[reason] += rows.num_rows - left.num_rows
            rows = left
        kept.append(rows.select(["id", *COORDINATES]))
    return pa.concat_tables(kept), dropped


def _stream(file: Path, names: tuple[str, ...], columns: tuple[str, ...]):
    """Some columns of a tab-separated file without a header, block by block as tables."""
    options = pa.csv.ConvertOptions(
        include_columns=columns,
        column_types=types_of(columns, (*COORDINATES, "accuracy")),
        null_values=["", "NaN", "nan"],
    )
    reading = pa.csv.ReadOptions(column_names=names, block_size=16 << 20)
    parsing = pa.csv.ParseOptions(delimiter="\t", quote_char=False)
    with naming(file):
        reader = pa.csv.open_csv(file, reading, parsing, options)
        for batch in runtime.progress(reader, desc=f"reading {file.name}", unit="block"):
            yield pa.table(batch)
