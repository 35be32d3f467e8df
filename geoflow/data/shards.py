"""Shards of embeddings: webdataset tars of `KEY.json` and `KEY.FIELD.npy`.

The json holds id, latitude, longitude and labels, the npy one embedding. Layout and field names are
those of the paper's official shards, so theirs can be read here and ours by webdataset. A folder of
ours has a `manifest.json` besides: which encoder, how many samples, checksums.
"""

import contextlib
import io
import itertools
import json
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from geoflow import runtime, sphere
from geoflow.data.archives import tar_members
from geoflow.data.arrays import cached

SAMPLE_OVERHEAD = 2048  # bytes of a sample apart from its embedding: headers, a json, padding
# encoder → field of its embeddings
FIELDS = {"tiles": "tiles", "dinov2": "dinov2_vitl14_registers", "streetclip": "street_clip"}


def key_of(id_: str) -> str:
    """A sample's name in the tar: its id, without the characters that separate names.

    >>> key_of("photo.1")
    'photo%2E1'
    """
    return id_.replace("%", "%25").replace(".", "%2E").replace("/", "%2F").replace("\\", "%5C")


class ShardWriter(contextlib.ExitStack):
    """Writes one shard and its description beside it (`00007.tar`, `00007.json`).

    Use it as a context manager. The shard gets its name at the end; an exception leaves nothing.
    """

    def __init__(self, file: Path, field: str):
        super().__init__()
        self.file, self.field, self.count = file, field, 0
        self.skipped: dict[str, str] = {}  # id → why it could not be read

    def __enter__(self) -> "ShardWriter":
        for left in self.file.parent.glob(f"{self.file.stem}.*.partial"):
            left.unlink()  # by a process that was killed
        self._partial = self.enter_context(runtime.replacing(self.file))
        self.push(self._describe)
        # pax is ustar but for long names
        self._tar = self.enter_context(tarfile.open(self._partial, "w", format=tarfile.PAX_FORMAT))
        return self

    def _describe(self, kind, *_) -> None:
        if kind is None:
            content = {"count": self.count, "sha256": runtime.sha256(self._partial)}
            runtime.write_json(self.file.with_suffix(".json"), content | {"skipped": self.skipped})

    def add(self, row: dict, embedding: Tensor) -> None:
        """Add a row (`id`, `latitude`, `longitude`, labels) and its embedding (C,), as float16."""
        half = embedding.to(torch.float16).numpy()
        if not np.isfinite(half).all():
            raise ValueError(f"the embedding of {row['id']!r} is not finite in float16")
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

    def __len__(self) -> int:
        return sum(self.counts)

    def read(self, number: int) -> tuple[Tensor, Tensor, list[dict]]:
        """A whole shard: embeddings (n, C) float16, (n, 2) float64 degrees, rows.

        Raises:
            OSError: it is gone or truncated, or the manifest says another number of samples.
            ValueError: a sample without coordinates or without an embedding of the right width.
        """
        file, expected = self.files[number], self.counts[number]
        embeddings, rows = np.zeros((expected, self.dim), np.float16), []
        for row, embedding in samples(file, self.field):
            if embedding.shape != (self.dim,):
                wrong = f"the embedding of {row['id']!r} has shape {embedding.shape}"
                raise ValueError(f"{file}: {wrong}, expected ({self.dim},)")
            if len(rows) < expected:
                embeddings[len(rows)] = embedding
            rows.append(row)
        if len(rows) != expected:
            text = f"{file} holds {len(rows)} samples, expected {expected}"
            raise OSError(f"{text}; it has changed since it was listed")
        places = [(row["latitude"], row["longitude"]) for row in rows]
        latlon = torch.tensor(places, dtype=torch.float64).reshape(-1, 2)
        return torch.from_numpy(embeddings), latlon, rows

    def but_last(self) -> "Shards":
        """All but the last shard."""
        return replace(self, files=self.files[:-1], counts=self.counts[:-1])

    def part(self, number: int) -> tuple[Tensor, Tensor]:
        """Embeddings (n, C) float16 and places (n, 3) float32 of a shard, in memory."""
        cond, latlon, _rows = self.read(number)
        return cond, sphere.from_latlon(latlon).float()

    def mapped(self) -> tuple[Tensor, Tensor]:
        """All embeddings (n, C) float16 and places (n, 3), memory-mapped, unpacked once."""
        known = [(str(f.resolve()), f.stat().st_size, f.stat().st_mtime_ns) for f in self.files]
        digest = runtime.sha256_of(json.dumps([known, self.field]))[:16]
        folder = runtime.cache_dir() / "shards" / digest
        n = len(self)
        layout = {"cond": (np.float16, (n, self.dim)), "x": (np.float32, (n, 3))}
        cached(folder, layout, self._unpack, "set GEOFLOW_CACHE elsewhere, or stream")
        cond, x = (np.load(folder / f"{name}.npy", mmap_mode="c") for name in layout)
        return torch.from_numpy(cond), torch.from_numpy(x)

    def _unpack(self, cond: np.ndarray, x: np.ndarray) -> None:
        """Read all shards into arrays."""
        first = 0
        with runtime.progress(total=len(self), desc="unpacking shards", unit="image") as bar:
            for number, count in enumerate(self.counts):
                rows = slice(first, first := first + count)
                cond[rows], x[rows] = (column.numpy() for column in self.part(number))
                bar.update(count)

    def verify(self) -> None:
        """Raise an OSError that names the first tar unlike the checksum in its description."""
        described = [file for file in self.files if file.with_suffix(".json").is_file()]
        for file in runtime.progress(described, desc="checking shards", unit="shard"):
            if runtime.sha256(file) != runtime.read_json(file.with_suffix(".json"))["sha256"]:
                raise OSError(f"{file} differs from its checksum; it is damaged")


def open_shards(folder, field: str | None = None) -> Shards:
    """Open a folder of shards.

    Ours are described by their manifest; of others (the official ones) the samples are counted.
    The field says which embedding, where there is no manifest and several are there.

    Raises:
        FileNotFoundError: no shards, or one that the manifest lists is gone.
        OSError: embedding was not finished, or a tar is truncated.
        ValueError: no such field.
    """
    folder = Path(folder)
    manifest = folder / "manifest.json"
    if manifest.is_file():
        described = runtime.read_json(manifest)
        files = tuple(folder / name for name in described["shards"])
        if gone := [file for file in files if not file.is_file()]:
            raise FileNotFoundError(f"{gone[0]} is gone; {manifest} lists it")
        runtime.choose("field", field or described["field"], (described["field"],))
        about = (described[name] for name in ("field", "dim", "encoder", "dataset"))
        return Shards(files, tuple(described["shards"].values()), *about)
    if (folder / "run.json").is_file():
        again = "run the same `geoflow embed` again"
        raise OSError(f"embedding into {folder} was not finished; {again}")
    if not (files := tuple(sorted(folder.glob("*.tar")))):
        raise FileNotFoundError(f"no shards (*.tar) in {folder}")
    suffixes = [[_split(name)[1] for name, *_span in tar_members(file)] for file in files]
    fields = sorted({s.removesuffix(".npy") for s in suffixes[0] if s.endswith(".npy")})
    if field is None and len(fields) != 1:
        found = ", ".join(fields) or "none"
        raise ValueError(f"{folder} holds several embeddings ({found}); say which field to read")
    field = runtime.choose("field", field or fields[0], fields)
    counts = tuple(inside.count(f"{field}.npy") for inside in suffixes)
    _row, first = next(samples(files[0], field))
    return Shards(files, counts, field, len(first), {}, folder.name)


def samples(file: Path, field: str) -> Iterator[tuple[dict, np.ndarray]]:
    """Rows and embeddings of a tar, in its order.

    The members of a sample follow each other, as in every webdataset. A tar that is gone or
    damaged is an OSError, a sample that lacks its embedding or its coordinates a ValueError.
    """
    listed = [(*_split(name), start, size) for name, start, size in tar_members(file)]
    content = file.read_bytes()
    for key, members in itertools.groupby(listed, lambda member: member[0]):
        spans = {suffix: content[start : start + size] for _, suffix, start, size in members}
        if f"{field}.npy" not in spans:
            raise ValueError(f"{file}: sample {key!r} has no {field}.npy")
        row = json.loads(spans.get("json", "{}"))
        if not all(isinstance(row.get(name), (int, float)) for name in ("latitude", "longitude")):
            raise ValueError(f"{file}: sample {key!r} has no latitude and longitude in its json")
        try:
            embedding = np.load(io.BytesIO(spans[f"{field}.npy"])).ravel()
        except (ValueError, EOFError) as error:
            raise ValueError(f"{file}: {field}.npy of {key!r} is damaged: {error}") from error
        if embedding.dtype.kind != "f":
            raise ValueError(f"{file}: {field}.npy of {key!r} holds {embedding.dtype}, not floats")
        yield {"id": key, **row}, embedding


def _split(name: str) -> tuple[str, str]:
    """Key and suffix of a member: `a/1.tiles.npy` → `a/1`, `tiles.npy`."""
    folder, slash, base = name.rpartition("/")
    stem, _dot, suffix = base.partition(".")
    return folder + slash + stem, suffix
