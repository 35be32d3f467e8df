"""YFCC-100M: `yfcc100m_dataset` (tab-separated metadata), `yfcc100m_hash` (photo → file), `images/ab1/2cd/HASH.jpg`.

The paper trains on photos whose geotag is at street level (accuracy ≥ 12) and tests on YFCC4k, a list of 4,000 photos that the
authors did not publish: put one at `yfcc4k_ids.txt`, an id per line.
"""

from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv

from geoflow import runtime
from geoflow.data.records import Records, clean, first_line
from geoflow.runtime import choose

SPLITS = ("train", "test")
LEAST_ACCURACY = 12
COLUMNS = [
    "id", "user_nsid", "user_nickname", "date_taken", "date_uploaded", "capture_device", "title", "description", "user_tags",
    "machine_tags", "longitude", "latitude", "accuracy", "page_url", "download_url", "license_name", "license_url", "server_id",
    "farm_id", "secret", "secret_original", "extension", "is_video",
]  # fmt: skip


def read(root, split: str) -> Records:
    """Rows of a split whose image is there. The metadata are streamed: of 100 million rows only the photos of the split stay in memory.

    Raises:
        FileNotFoundError: metadata, hashes or, for a split, the list of test photos are missing.
        ValueError: unknown split, a damaged file, or no image at all.
    """
    root = Path(root)
    choose("split", split, SPLITS)
    ids_file = root / "yfcc4k_ids.txt"
    if not ids_file.is_file():
        raise FileNotFoundError(
            f"no {ids_file.name} in {root}; it lists the test photos, an id per line, which training leaves out"
        )
    test = pa.array(ids_file.read_text().split(), pa.string())
    photos, dropped = _photos(_file(root, "yfcc100m_dataset"), test, split)
    records = clean(f"yfcc {split}", photos, root, dropped)

    hashes = _stream(_file(root, "yfcc100m_hash"), ["id", "hash"], ["id", "hash"])
    wanted = records.rows["id"].combine_chunks()
    known = pa.concat_tables(
        [pa.table(batch).filter(pc.is_in(batch["id"], value_set=wanted)) for batch in hashes]
    )
    rows = records.rows.join(known, "id", join_type="left outer").sort_by("id")
    hash_ = rows["hash"]
    folders = [pc.utf8_slice_codeunits(hash_, start, start + 3) for start in (0, 3)]
    path = pc.binary_join_element_wise(
        "images", *folders, pc.binary_join_element_wise(hash_, "jpg", "."), "/"
    )
    hashed = Records(
        records.name, rows.drop_columns("hash").append_column("path", path), root, records.dropped
    )
    return hashed.without("without a hash", pc.is_valid(path)).with_images()


def _file(root: Path, name: str) -> Path:
    for file in (root / name, root / f"{name}.bz2"):
        if file.is_file():
            return file
    raise FileNotFoundError(
        f"no {name} in {root}; expected the tab-separated file of YFCC-100M, or {name}.bz2"
    )


def _photos(file: Path, test: pa.Array, split: str) -> tuple[pa.Table, dict[str, int]]:
    found = first_line(file).count("\t") + 1
    names = {len(COLUMNS): COLUMNS, len(COLUMNS) + 1: ["line", *COLUMNS]}.get(found)
    if names is None:
        raise ValueError(
            f"{file} has {found} columns; expected {len(COLUMNS)}, or {len(COLUMNS) + 1} with a line number first"
        )
    kept, dropped = (
        [],
        {"videos": 0, "of the other split": 0, f"of accuracy below {LEAST_ACCURACY}": 0},
    )
    for batch in _stream(file, names, ["id", "longitude", "latitude", "accuracy", "is_video"]):
        rows = pa.table(batch)
        for reason, keep in (
            ("videos", lambda r: pc.equal(r["is_video"], "0")),
            (
                "of the other split",
                lambda r: pc.equal(pc.is_in(r["id"], value_set=test), split == "test"),
            ),
            (f"of accuracy below {LEAST_ACCURACY}", lambda r: _precise(r, split)),
        ):
            left = rows.filter(keep(rows))
            dropped[reason] += rows.num_rows - left.num_rows
            rows = left
        kept.append(rows.select(["id", "latitude", "longitude"]))
    return pa.concat_tables(kept), dropped


def _precise(rows: pa.Table, split: str):
    """A photo without coordinates has no accuracy either and is counted for that, later; test photos count whatever theirs."""
    return (
        pc.fill_null(pc.greater_equal(rows["accuracy"], LEAST_ACCURACY), True)
        if split == "train"
        else pa.repeat(True, rows.num_rows)
    )


def _stream(file: Path, names: list[str], columns: list[str]):
    types = {
        name: pa.float64() if name in ("longitude", "latitude", "accuracy") else pa.string()
        for name in columns
    }
    try:
        reader = pa.csv.open_csv(
            file,
            read_options=pa.csv.ReadOptions(column_names=names, block_size=16 << 20),
            parse_options=pa.csv.ParseOptions(delimiter="\t", quote_char=False),
            convert_options=pa.csv.ConvertOptions(
                include_columns=columns, column_types=types, null_values=["", "NaN", "nan"]
            ),
        )
        yield from runtime.progress(reader, desc=f"reading {file.name}", unit="block")
    except pa.ArrowInvalid as error:
        raise ValueError(f"{file} cannot be read: {error}") from error
