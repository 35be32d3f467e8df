"""Shards of embeddings: webdataset tars of `KEY.json` (id, latitude, longitude, labels) and `KEY.FIELD.npy` (one embedding).

The layout and the field names are those of the paper's official shards, so theirs can be read here and ours by webdataset. A folder
of ours has a `manifest.json` besides: which encoder, how many, checksums. Tars are parsed here directly, from memory: the standard
library and webdataset read some 7,000 samples a second, this ten times as many.
"""

import hashlib
import io
import json
import os
import shutil
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from geoflow import runtime, sphere
from geoflow.runtime import choose, sha256, write_atomically

BLOCK = 512
SAMPLE_OVERHEAD = 2048
"""Bytes of a sample in a shard apart from its embedding: two headers, a json and padding."""
FIELDS = {"tiles": "tiles", "dinov2": "dinov2_vitl14_registers", "streetclip": "street_clip"}
"""Encoder → field of its embeddings."""


def key_of(id_: str) -> str:
    """A sample's name in the tar: its id, but for what webdataset and file systems take for more than a name."""
    return id_.replace("%", "%25").replace(".", "%2E").replace("/", "%2F").replace("\\", "%5C")


class ShardWriter:
    """Writes one shard. It appears under its name when it is whole, after its description beside it (`00007.tar`, `00007.json`).

    Use as a context manager; an exception inside leaves nothing behind.

    Args:
        file: the tar's final name.
        field: of the embeddings.
    """

    def __init__(self, file: Path, field: str):
        self.file, self.field = file, field
        self.count = 0
        self.skipped: dict[str, str] = {}

    def __enter__(self) -> "ShardWriter":
        for left in self.file.parent.glob(
            f"{self.file.stem}.*.partial"
        ):  # by a process that was killed
            left.unlink()
        self._partial = self.file.with_name(f"{self.file.name}.{os.getpid()}.partial")
        self._tar = tarfile.open(
            self._partial, "w", format=tarfile.PAX_FORMAT
        )  # as ustar, but for long names
        return self

    def add(self, row: dict, embedding: Tensor) -> None:
        """One sample: its row (`id`, `latitude`, `longitude`, labels) and its embedding (C,), kept as float16.

        Raises:
            ValueError: the embedding is not finite in float16.
        """
        half = embedding.to(torch.float16).numpy()
        if not np.isfinite(half).all():
            raise ValueError(f"the embedding of {row['id']!r} is not finite in float16")
        array = io.BytesIO()
        np.save(array, half)
        key = key_of(row["id"])
        for name, content in (
            (f"{key}.json", json.dumps(row).encode()),
            (f"{key}.{self.field}.npy", array.getvalue()),
        ):
            member = tarfile.TarInfo(name)  # with the time 0: the same samples make the same file
            member.size = len(content)
            self._tar.addfile(member, io.BytesIO(content))
        self.count += 1

    def __exit__(self, kind, *_) -> None:
        try:
            self._tar.close()
            if kind is None:
                content = {
                    "count": self.count,
                    "sha256": sha256(self._partial),
                    "skipped": self.skipped,
                }
                write_atomically(self.file.with_suffix(".json"), json.dumps(content))
                self._partial.replace(self.file)
        finally:
            self._partial.unlink(missing_ok=True)


@dataclass(frozen=True)
class Shards:
    """A folder of shards, opened.

    Attributes:
        files: the tars, in order.
        counts: samples in each.
        field: which embedding is read.
        dim: C, its width.
        encoder: what the manifest says of the encoder; empty for shards without one.
        name: of the data set, by the manifest; else of the folder.
    """

    files: tuple[Path, ...]
    counts: tuple[int, ...]
    field: str
    dim: int
    encoder: dict
    name: str

    def __len__(self) -> int:
        return sum(self.counts)

    def read(self, number: int) -> tuple[Tensor, Tensor, list[dict]]:
        """A whole shard: embeddings (n, C) float16, latitude and longitude (n, 2) float64 in degrees, rows.

        Raises:
            OSError: it is gone, truncated, or holds another number of samples than the manifest says.
            ValueError: an embedding of another width, or a sample without embedding or coordinates.
        """
        file = self.files[number]
        embeddings, rows = [], []
        for row, embedding in samples(file, self.field):
            if embedding.shape != (self.dim,):
                raise ValueError(
                    f"{file}: the embedding of {row.get('id')!r} has shape {embedding.shape}, expected ({self.dim},)"
                )
            embeddings.append(embedding)
            rows.append(row)
        if len(rows) != self.counts[number]:
            raise OSError(
                f"{file} holds {len(rows)} samples, expected {self.counts[number]}; it has changed since it was listed"
            )
        latlon = torch.tensor(
            [[row["latitude"], row["longitude"]] for row in rows], dtype=torch.float64
        ).reshape(-1, 2)
        stacked = (
            np.stack(embeddings).astype(np.float16)
            if embeddings
            else np.zeros((0, self.dim), np.float16)
        )
        return torch.from_numpy(stacked), latlon, rows

    def but_last(self) -> "Shards":
        """All but the last shard."""
        return replace(self, files=self.files[:-1], counts=self.counts[:-1])

    def last(self) -> tuple[Tensor, Tensor]:
        """Embeddings (n, C) and places (n, 3) of the last shard, in memory."""
        cond, latlon, _rows = self.read(len(self.files) - 1)
        return cond, sphere.from_latlon(latlon).float()

    def mapped(self) -> tuple[Tensor, Tensor]:
        """All embeddings (n, C) float16 and places (n, 3) float32, memory-mapped: unpacked once to the cache.

        Raises:
            OSError: not enough disk space, or a shard is gone or damaged.
        """
        known = [
            (str(file.resolve()), file.stat().st_size, file.stat().st_mtime_ns)
            for file in self.files
        ]
        name = hashlib.sha256(json.dumps([known, self.field]).encode()).hexdigest()[:16]
        folder = runtime.cache_dir() / "shards" / name
        folder.parent.mkdir(exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):  # of several processes one unpacks
            if not folder.exists():
                self._unpack(folder)
        cond, x = (
            torch.from_numpy(np.load(folder / f"{column}.npy", mmap_mode="c"))
            for column in ("cond", "x")
        )
        return cond, x

    def _unpack(self, folder: Path) -> None:
        needed, free = len(self) * (2 * self.dim + 12), shutil.disk_usage(folder.parent).free
        if free < 1.05 * needed:
            raise OSError(
                f"{needed / 1e9:.2f} GB are needed in {folder.parent}, {free / 1e9:.2f} GB are free; set GEOFLOW_CACHE elsewhere, or stream"
            )
        partial = folder.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir()
        cond = np.lib.format.open_memmap(
            partial / "cond.npy", "w+", np.float16, (len(self), self.dim)
        )
        x = np.lib.format.open_memmap(partial / "x.npy", "w+", np.float32, (len(self), 3))
        first = 0
        with runtime.progress(total=len(self), desc="unpacking shards", unit="image") as bar:
            for number, count in enumerate(self.counts):
                embeddings, latlon, _rows = self.read(number)
                cond[first : first + count], x[first : first + count] = (
                    embeddings.numpy(),
                    sphere.from_latlon(latlon).float().numpy(),
                )
                first += count
                bar.update(count)
        cond.flush()
        x.flush()
        partial.rename(folder)

    def verify(self) -> None:
        """Compare every tar with its checksum.

        Raises:
            OSError: one differs; the message names it.
        """
        for file in self.files:
            described = json.loads(file.with_suffix(".json").read_text())
            if sha256(file) != described["sha256"]:
                raise OSError(f"{file} differs from its checksum; it is damaged")


def open_shards(folder, field: str | None = None) -> Shards:
    """Shards of a folder: ours by their manifest, others (the official ones) by counting what each holds.

    Args:
        folder: of the tars.
        field: which embedding; needed where there is no manifest and several are there.

    Raises:
        FileNotFoundError: no shards, or one that the manifest lists is gone.
        OSError: embedding was not finished, or a tar is truncated.
        ValueError: no such field.
    """
    folder = Path(folder)
    manifest = folder / "manifest.json"
    if manifest.is_file():
        described = json.loads(manifest.read_text())
        files = tuple(folder / name for name in described["shards"])
        for file in files:
            if not file.is_file():
                raise FileNotFoundError(f"{file} is gone; {manifest} lists it")
        choose("field", field or described["field"], (described["field"],))
        return Shards(
            files,
            tuple(described["shards"].values()),
            described["field"],
            described["dim"],
            described["encoder"],
            described["dataset"],
        )
    if (folder / "run.json").is_file():
        raise OSError(
            f"embedding into {folder} was not finished; run the same `geoflow embed` again"
        )
    files = tuple(sorted(folder.glob("*.tar")))
    if not files:
        raise FileNotFoundError(f"no shards (*.tar) in {folder}")
    fields = sorted(
        {
            suffix.removesuffix(".npy")
            for _key, suffix, _content in _members(files[0])
            if suffix.endswith(".npy")
        }
    )
    if field is None and len(fields) != 1:
        raise ValueError(
            f"{folder} holds several embeddings ({', '.join(fields) or 'none'}); say which field to read"
        )
    field = choose("field", field or fields[0], fields)
    counts = tuple(
        sum(suffix == f"{field}.npy" for _key, suffix, _content in _members(file)) for file in files
    )
    first = next(samples(files[0], field))[1]
    return Shards(files, counts, field, len(first), {}, folder.name)


def samples(file: Path, field: str) -> Iterator[tuple[dict, np.ndarray]]:
    """Rows and embeddings of a tar, in its order. Members of a sample follow each other, as in every webdataset.

    Raises:
        OSError: the file is gone or truncated.
        ValueError: a sample lacks its embedding or its coordinates.
    """
    key, row, embedding = None, None, None
    for member, suffix, content in _members(file):
        if member != key:
            if key is not None:
                yield _complete(file, key, row, embedding, field)
            key, row, embedding = member, None, None
        if suffix == "json":
            row = json.loads(bytes(content))
        elif suffix == f"{field}.npy":
            embedding = _array(content, f"{file}, {member}.{suffix}")
    if key is not None:
        yield _complete(file, key, row, embedding, field)


def _complete(
    file: Path, key: str, row: dict | None, embedding: np.ndarray | None, field: str
) -> tuple[dict, np.ndarray]:
    if embedding is None:
        raise ValueError(f"{file}: sample {key!r} has no {field}.npy")
    if row is None or not all(
        isinstance(row.get(name), (int, float)) for name in ("latitude", "longitude")
    ):
        raise ValueError(f"{file}: sample {key!r} has no latitude and longitude in its json")
    return {"id": key, **row}, embedding


def _array(content: memoryview, where: str) -> np.ndarray:
    """A .npy file of one vector; the header is read here, since numpy's own reader takes longer than all the rest."""
    version, start = content[6], 10 if content[6] == 1 else 12
    length = int.from_bytes(content[8:start], "little")
    header = bytes(content[start : start + length])
    if bytes(content[:6]) != b"\x93NUMPY" or version not in (1, 2, 3):
        raise ValueError(f"{where} is no .npy file")
    for kind in (np.float16, np.float32, np.float64):
        if f"'{np.dtype(kind).str}'".encode() in header:
            return np.frombuffer(content[start + length :], kind)
    raise ValueError(f"{where} holds {header.decode().strip()}; expected floating-point numbers")


def _members(file: Path) -> Iterator[tuple[str, str, memoryview]]:
    """Key, suffix and content of the files in a tar (ustar, with pax or GNU headers for long names)."""
    with file.open("rb") as opened:
        buffer = memoryview(opened.read())
    offset, long_name = 0, None
    while True:
        header = buffer[offset : offset + BLOCK]
        if len(header) < BLOCK:
            raise OSError(
                f"{file} is truncated: it ends at byte {len(buffer)} without a closing block"
            )
        if header[0] == 0:
            return
        size = int(bytes(header[124:136]).strip(b" \0") or b"0", 8)
        content = buffer[offset + BLOCK : offset + BLOCK + size]
        if len(content) < size:
            raise OSError(
                f"{file} is truncated: its last member needs {size} bytes and has {len(content)}"
            )
        offset += BLOCK + (size + BLOCK - 1) // BLOCK * BLOCK
        kind = header[156]
        if kind in b"L":
            long_name = bytes(content).rstrip(b"\0")
        elif kind in b"x":
            long_name = _pax_path(bytes(content)) or long_name
        elif kind in b"0\0":
            name = (long_name or bytes(header[:100]).split(b"\0", 1)[0]).decode()
            folder, _, base = name.rpartition("/")
            stem, _, suffix = base.partition(".")
            yield f"{folder}/{stem}" if folder else stem, suffix, content
            long_name = None


def _pax_path(content: bytes) -> bytes | None:
    """The path in a pax header: records "LENGTH KEY=VALUE\\n"."""
    while content:
        length = int(content.split(b" ", 1)[0])
        name, _, value = content[:length].split(b" ", 1)[1].partition(b"=")
        if name == b"path":
            return value.rstrip(b"\n")
        content = content[length:]
    return None
