"""Shards of embeddings: webdataset tars of `KEY.json` and `KEY.FIELD.npy`.

The json holds id, latitude, longitude and labels, the npy one embedding. Layout and field names are
those of the paper's official shards, so theirs can be read here and ours by webdataset. A folder of
ours has a `manifest.json` besides: which encoder with which weights, how many samples, checksums.
A shard that has a checksum is compared with it whenever it is read.
"""

import contextlib
import functools
import io
import itertools
import json
import re
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geoflow import runtime, sphere
from geoflow.data.archives import check_unrepeated, read_span, tar_members
from geoflow.data.arrays import cached
from geoflow.data.typed import brief, loads

MOST_DIM = 65_536  # width of an embedding above which a file is damaged
MOST_SAMPLES = 10**9  # number of samples of a shard above which a manifest is damaged
MOST_NAME = 255  # characters in the name of a data set: as many as in that of a file
SAMPLE_OVERHEAD = 2048  # bytes of a sample apart from its embedding: headers, a json, padding
# encoder → field of its embeddings
FIELDS = {"tiles": "tiles", "dinov2": "dinov2_vitl14_registers", "streetclip": "street_clip"}
ENCODER = ("name", "weights", "preprocessing", "model")  # what a manifest says of one in words


def key_of(id_: str) -> str:
    """A sample's name in the tar: its id, without characters that separate names or end them.

    >>> key_of("photo.1")
    'photo%2E1'
    """
    return re.sub(r"[%./\\\x00-\x1f\x7f]", lambda match: f"%{ord(match[0]):02X}", id_)


def dataset_name(text: str) -> str:
    """The name of a data set as a manifest holds it, which may become that of a file.

    >>> dataset_name("../photos.csv")
    '.._photos.csv'
    """
    return re.sub(r"[/\\\x00-\x1f\x7f-\x9f\ud800-\udfff]", "_", text)[:MOST_NAME] or "images"


class ShardWriter(contextlib.ExitStack):
    """Writes one shard and its description beside it (`00007.tar`, `00007.json`).

    Use it as a context manager. The shard gets its name at the end; an exception leaves nothing.
    """

    def __init__(self, file: Path, field: str):
        super().__init__()
        self.file, self.field, self.count = file, field, 0
        self.skipped: dict[str, str] = {}  # id → why it could not be read
        self.rows: str | None = None  # what the shard was made of, as a checksum

    def __enter__(self) -> "ShardWriter":
        self._partial = self.enter_context(runtime.replacing(self.file))
        self.push(self._describe)
        # pax is ustar but for long names
        self._tar = self.enter_context(tarfile.open(self._partial, "w", format=tarfile.PAX_FORMAT))
        return self

    def _describe(self, kind, *_) -> None:
        if kind is None:
            content = {"count": self.count, "sha256": runtime.sha256(self._partial)}
            about = {"rows": self.rows, "skipped": self.skipped}
            runtime.write_json(self.file.with_suffix(".json"), {**content, **about})

    def add(self, row: dict, embedding: Tensor) -> None:
        """Add a row (`id`, `latitude`, `longitude`, labels) and its embedding (C,), as float16."""
        half = embedding.to(torch.float16).numpy()
        if not np.isfinite(half).all():
            raise ValueError(f"the embedding of {brief(row['id'])!r} is not finite in float16")
        array = io.BytesIO()
        np.save(array, half)
        contents = {"json": json.dumps(row).encode(), f"{self.field}.npy": array.getvalue()}
        for suffix, content in contents.items():
            # a member has the time 0, so that the same samples make the same file
            member = tarfile.TarInfo(f"{key_of(row['id'])}.{suffix}")
            member.size = len(content)
            self._tar.addfile(member, io.BytesIO(content))
        self.count += 1


@dataclass(frozen=True)
class Shards:
    """A folder of shards, opened."""

    files: tuple[Path, ...]  # the tars, in order
    counts: tuple[int, ...]  # samples in each
    field: str  # which embedding is read
    dim: int  # C, its width
    encoder: dict  # what the manifest says of the encoder; empty for shards without one
    name: str  # of the data set, by the manifest; else of the folder
    recorded: tuple[str | None, ...] = ()  # checksum of each tar, None where none was written down

    def __len__(self) -> int:
        return sum(self.counts)

    @functools.cached_property
    def checksums(self) -> tuple[str, ...]:
        """The checksum of each tar: the recorded one, else that of the file as it is."""
        known = self.recorded or (None,) * len(self.files)
        pairs = list(zip(self.files, known, strict=True))
        bar = runtime.progress(pairs, desc="checksums", unit="shard", disable=all(known))
        return tuple(checksum or runtime.sha256(file) for file, checksum in bar)

    @functools.cached_property
    def fingerprint(self) -> str:
        """What identifies the content, wherever it lies: names, sizes and checksums of the tars,
        which embedding, which encoder. 64 hexadecimal digits.
        """
        names = [file.name for file in self.files]
        encoder = [self.encoder.get(name) for name in ("name", "weights", "preprocessing")]
        content = [names, self.counts, self.checksums, self.field, self.dim, encoder]
        return runtime.sha256_of(json.dumps(content, sort_keys=True))

    def read(self, number: int) -> tuple[Tensor, Tensor, list[dict]]:
        """A whole shard: embeddings (n, C) float16, (n, 2) float64 degrees, rows.

        Raises:
            OSError: it is gone or damaged, or the manifest says another number of samples.
            ValueError: a sample without coordinates or without a finite embedding of the right
                width.
        """
        file, expected = self.files[number], self.counts[number]
        self._check(number)
        halves, rows = [], []
        for row, embedding in samples(file, self.field):
            if embedding.shape != (self.dim,):
                wrong = f"the embedding of {brief(row['id'])!r} has shape {embedding.shape}"
                raise ValueError(f"{file}: {wrong}, expected ({self.dim},)")
            with np.errstate(over="ignore"):
                halves.append(embedding.astype(np.float16))
            if not np.isfinite(halves[-1]).all():
                text = f"the embedding of {brief(row['id'])!r} is not finite in float16"
                raise ValueError(f"{file}: {text}")
            rows.append(row)
        _check_count(file, len(rows), expected)
        places = [(row["latitude"], row["longitude"]) for row in rows]
        latlon = torch.tensor(places, dtype=torch.float64).reshape(-1, 2)
        embeddings = np.array(halves, np.float16).reshape(-1, self.dim)
        return torch.from_numpy(embeddings), latlon, rows

    def _check(self, number: int) -> None:
        """An OSError if a tar differs from its recorded checksum."""
        file, known = self.files[number], self.recorded[number] if self.recorded else None
        if known and runtime.sha256(file) != known:
            advice = "if `geoflow embed` made it, the same command makes it anew"
            raise OSError(f"{file} differs from its checksum; it is damaged: {advice}")

    def _check_list(self, number: int) -> None:
        """An OSError if a tar differs from its checksum or lists another number of samples, a
        ValueError if its first embedding has another width.
        """
        self._check(number)
        file, suffix = self.files[number], f"{self.field}.npy"
        members = [(_split(name), span) for name, *span in tar_members(file)]
        found = [(key, span) for (key, kind), span in members if kind == suffix]
        _check_count(file, len(found), self.counts[number])
        for key, span in found[:1]:
            width = len(_array(f"{file}: {suffix} of {brief(key)!r}", read_span(file, *span)))
            if width != self.dim:
                raise ValueError(f"{file}: its embeddings have width {width}, expected {self.dim}")

    def but_last(self) -> "Shards":
        """All but the last shard."""
        parts = {"files": self.files, "counts": self.counts, "recorded": self.checksums}
        return replace(self, **{name: part[:-1] for name, part in parts.items()})

    def part(self, number: int) -> tuple[Tensor, Tensor]:
        """Embeddings (n, C) float16 and places (n, 3) float32 of a shard, in memory."""
        cond, latlon, _rows = self.read(number)
        return cond, sphere.from_latlon(latlon).float()

    def mapped(self) -> tuple[Tensor, Tensor]:
        """All embeddings (n, C) float16 and places (n, 3), memory-mapped, unpacked once."""
        folder = runtime.cache_dir() / "shards" / self.fingerprint[:16]
        n = len(self)
        layout = {"cond": (np.float16, (n, self.dim)), "x": (np.float32, (n, 3))}
        arrays = cached(folder, layout, self._unpack, "set GEOFLOW_CACHE elsewhere, or stream")
        return torch.from_numpy(arrays["cond"]), torch.from_numpy(arrays["x"])

    def _unpack(self, cond: np.ndarray, x: np.ndarray) -> None:
        """Read all shards into arrays."""
        first = 0
        with runtime.progress(total=len(self), desc="unpacking shards", unit="image") as bar:
            for number, count in enumerate(self.counts):
                rows = slice(first, first := first + count)
                cond[rows], x[rows] = (column.numpy() for column in self.part(number))
                bar.update(count)

    def verify_recorded(self) -> None:
        """Compare shards with their checksums, if all have one.

        What they hold is checked when it is read. An OSError names the damaged ones.
        """
        if all(self.recorded):
            self._verify(self._check)

    def verify(self) -> None:
        """Compare every tar with its checksum, its samples and their width with what is said of
        them, and read those that have no checksum. An OSError names the damaged ones.
        """
        known = self.recorded or (None,) * len(self.files)
        self._verify(lambda n: self._check_list(n) if known[n] else self.read(n))

    def _verify(self, check: Callable[[int], object]) -> None:
        damaged: dict[str, str] = {}
        numbers = range(len(self.files))
        for number in runtime.progress(numbers, desc="checking shards", unit="shard"):
            try:
                check(number)
            except (OSError, ValueError) as error:
                damaged[self.files[number].name] = str(error)
        if damaged:
            first, *others = damaged
            more = f"; also damaged: {', '.join(others[:9])}" if others else ""
            more += f" and {len(others) - 9} more" if len(others) > 9 else ""
            raise OSError(f"{damaged[first]}{more}")


def open_shards(folder, field: str | None = None) -> Shards:
    """Open a folder of shards.

    Ours are described by their manifest; of others (the official ones) the samples are counted.
    The field says which embedding, where there is no manifest and several are there.

    Raises:
        FileNotFoundError: no shards, or one that the manifest lists is gone.
        OSError: embedding was not finished, or a tar is truncated.
        ValueError: no such field, or a damaged manifest.
    """
    folder = Path(folder)
    manifest = folder / "manifest.json"
    if manifest.is_file():
        described = read_manifest(manifest)
        files = tuple(folder / name for name in described["shards"])
        if gone := [file for file in files if not file.is_file()]:
            raise FileNotFoundError(f"{gone[0]} is gone; {manifest} lists it")
        runtime.choose("field", field or described["field"], (described["field"],))
        about = (described[name] for name in ("field", "dim", "encoder", "dataset"))
        recorded = tuple(described["sha256"].get(file.name) or _beside(file) for file in files)
        return Shards(files, tuple(described["shards"].values()), *about, recorded)
    if (folder / "run.json").is_file():
        again = "run the same `geoflow embed` again"
        raise OSError(f"embedding into {folder} was not finished; {again}")
    if not (files := tuple(sorted(folder.glob("*.tar")))):
        advice = "`geoflow embed` makes them of images"
        raise FileNotFoundError(f"no shards (*.tar) in {folder}; {advice}")
    suffixes = [[_split(name)[1] for name, *_span in tar_members(file)] for file in files]
    inside = itertools.chain(*suffixes)
    fields = sorted({s.removesuffix(".npy") for s in inside if s.endswith(".npy")})
    if not fields:
        text = "its tars hold no embeddings (*.npy); `geoflow embed` makes them of images"
        raise ValueError(f"{folder}: {text}")
    if field is None and len(fields) != 1:
        found = brief(", ".join(fields))
        raise ValueError(f"{folder} holds several embeddings ({found}); say which field to read")
    field = runtime.choose("field", field or fields[0], fields)
    counts = tuple(inside.count(f"{field}.npy") for inside in suffixes)
    first = next((embedding for file in files for _row, embedding in samples(file, field)), ())
    if not len(first):
        raise ValueError(f"{folder}: its tars hold no sample with an embedding {field}")
    name, recorded = folder.name or folder.resolve().name, tuple(map(_beside, files))
    return Shards(files, counts, field, len(first), {}, name, recorded)


def read_manifest(file: Path) -> dict:
    """A manifest whose entries are what `embed` writes; anything else is a ValueError."""
    found = runtime.read_json(file, dict)
    found.setdefault("sha256", {})  # earlier versions wrote it beside each tar only
    if wrong := _wrong_entries(found):
        raise ValueError(f"{file} is damaged: {wrong}")
    return found


def _wrong_entries(found: dict) -> str:
    """What is wrong with a manifest, in words; empty if it is whole."""
    kinds = {"dataset": str, "field": str, "dim": int, "encoder": dict, "shards": dict}
    for name, kind in {**kinds, "sha256": dict}.items():
        if type(found.get(name)) is not kind:
            return f"{name} = {brief(repr(found.get(name)))}, expected {kind.__name__}"
    if found["dataset"] != dataset_name(found["dataset"]):
        expected = f"expected 1 to {MOST_NAME} characters, and no / or \\ or control character"
        return f"dataset = {found['dataset'][:40]!r}, {expected}"
    if not 1 <= found["dim"] <= MOST_DIM:
        return f"dim = {brief(found['dim'])}, expected 1 to {MOST_DIM:,}"
    for name, count in found["shards"].items():
        named = Path(name).name == name and len(name) <= MOST_NAME
        if not named or type(count) is not int or not 0 <= count <= MOST_SAMPLES:
            expected = f"expected a file's name and its samples, at most {MOST_SAMPLES:,}"
            return f"shards has {brief(name)!r}: {brief(repr(count))}, {expected}"
    if not any(found["shards"].values()):
        return "shards lists no sample, expected at least one"
    if not isinstance(config := found["encoder"].get("config") or {}, dict):
        return f"encoder.config = {brief(repr(config))}, expected dict"
    texts = {f"encoder.{name}": found["encoder"].get(name) for name in ENCODER}
    texts |= {"encoder.config.source": config.get("source")}
    texts |= {f"sha256 of {name}": checksum for name, checksum in found["sha256"].items()}
    wrong = [name for name, text in texts.items() if not isinstance(text, str | None)]
    said = [f"{brief(name)} = {brief(repr(texts[name]))}, expected a text" for name in wrong]
    return said[0] if said else ""


def _check_count(file: Path, found: int, expected: int) -> None:
    """An OSError if a tar holds another number of samples than expected."""
    if found != expected:
        text = f"{file} holds {runtime.count(found, 'sample')}, expected {expected}"
        raise OSError(f"{text}; it has changed since it was listed")


def _beside(tar: Path) -> str | None:
    """The checksum in the description beside a tar; None if there is none."""
    file = tar.with_suffix(".json")
    checksum = runtime.read_json(file, dict).get("sha256") if file.is_file() else None
    return checksum if isinstance(checksum, str) else None


def samples(file: Path, field: str) -> Iterator[tuple[dict, np.ndarray]]:
    """Rows and embeddings of a tar, in its order.

    The members of a sample follow each other, as in every webdataset. A tar that is gone or
    damaged is an OSError, a sample that lacks its embedding or its coordinates a ValueError.
    """
    members = tar_members(file)
    check_unrepeated(file, [name for name, *_span in members])
    listed = [(*_split(name), start, size) for name, start, size in members]
    content = file.read_bytes()
    for key, members in itertools.groupby(listed, lambda member: member[0]):
        spans = {suffix: content[start : start + size] for _, suffix, start, size in members}
        if f"{field}.npy" not in spans:
            raise ValueError(f"{file}: sample {brief(key)!r} has no {field}.npy")
        row = _row(f"{file}: the json of sample {brief(key)!r}", spans.get("json", b"{}"))
        array = _array(f"{file}: {field}.npy of {brief(key)!r}", spans[f"{field}.npy"])
        yield {"id": key, **row}, array


def _array(where: str, content: bytes) -> np.ndarray:
    """The floats of an npy file, without axes."""
    try:
        array = np.lib.format.read_array(io.BytesIO(content)).ravel()
    except Exception as error:  # numpy parses headers as Python, with all errors of its parser
        said = brief(" ".join(str(error).split()), 200)
        raise ValueError(f"{where} is damaged: {said}") from error
    if array.dtype.kind != "f":
        raise ValueError(f"{where} holds {array.dtype}, not floats")
    return array


def _row(where: str, text: bytes) -> dict:
    """The row in a sample's json, which has a place on Earth."""
    try:
        row = loads(text)
    except ValueError as error:
        raise ValueError(f"{where} is damaged: {error}") from error
    for name, most in {"latitude": 90, "longitude": 360}.items():
        value = row.get(name) if isinstance(row, dict) else None
        if value is None:
            raise ValueError(f"{where} has no latitude and longitude")
        if type(value) not in (int, float) or not abs(value) <= most:
            expected = f"expected degrees, −{most} to {most}"
            raise ValueError(f"{where}: {name} {brief(repr(value))}; {expected}")
    return row


def _split(name: str) -> tuple[str, str]:
    """Key and suffix of a member: `a/1.tiles.npy` → `a/1`, `tiles.npy`."""
    folder, slash, base = name.rpartition("/")
    stem, _dot, suffix = base.partition(".")
    return folder + slash + stem, suffix
