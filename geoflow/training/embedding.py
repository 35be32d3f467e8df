"""Images → shards of embeddings, once, before any training.

Embedding can be killed at any moment and run again, on any number of processes. A folder keeps the
order of its ids in `ids.parquet`: that of the data set, and what is added to it later at the end.
Shard k holds the ids k·S … (k+1)·S − 1, so it makes no difference who writes it, and when; of rows
that were removed it lacks the ids. A shard counts as done when it is there under its name, which it
gets when it is whole, is as its checksum says, and was made of the rows and image files as they are
now.
"""

import contextlib
import json
import re
import time
from collections.abc import Generator, Iterator
from dataclasses import replace
from pathlib import Path

import lightning as L
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import torch
from PIL import Image
from torch import Tensor

from geoflow import runtime
from geoflow.data import archives
from geoflow.data.images import load_image
from geoflow.data.records import Records, read_ids, write_ids
from geoflow.data.shards import (
    FIELDS,
    SAMPLE_OVERHEAD,
    Shards,
    ShardWriter,
    dataset_name,
    open_shards,
    read_manifest,
)
from geoflow.runtime import count
from geoflow.training.interruptions import end_quietly

IDS = "ids.parquet"
# What a killed process was writing.
PARTIAL = re.compile(
    r"(run\.json|manifest\.json|ids\.parquet|\d{5,}\.(tar|json))" + runtime.PARTIAL
)
PATIENCE = 8.0  # seconds to wait until the readers of a killed run have ended and released its lock
# Encoders that differ in one of these are different ones.
CONTENT = ("name", "weights", "preprocessing")


def embed(
    records: Records,
    encoder,
    out,
    shard=None,
    batch=64,
    workers=0,
    devices=1,
    log=print,
    model: str | None = None,
) -> Shards | None:
    """Embed every image of a data set.

    An image that cannot be read is skipped, and named in its shard's description. Under `torchrun`
    or SLURM, or with several devices, the processes share the shards. A shard that is damaged, or
    whose rows or image files have changed since it was written, is made anew; rows that are new to
    a folder come at its end.

    Args:
        encoder: of `geoflow.encoders`.
        out: folder of the shards.
        shard: S, samples in each; None: the folder's, or 10,000, or a twentieth of a small data
            set, because the last shard validates a training.
        batch: images per call of the encoder.
        workers: processes that read images, for each device.
        devices: GPUs, or CPU processes, of this machine.
        model: name or folder of the model whose encoder it is, for the manifest.

    Returns:
        The shards; None in a process that ended before another had finished its share.

    Raises:
        ValueError: the folder holds embeddings of other images or by another encoder, a number is
            below 1, or no image is readable.
        OSError: not enough disk space, or another process writes to the folder.
        KeyboardInterrupt: it was interrupted; the message says what is kept.
    """
    out = Path(out)
    usual = _usual(_before(out), len(records))
    shard = usual if shard is None else shard
    _check(len(records), shard, batch, workers, devices)
    fabric = L.Fabric(accelerator="auto", devices=devices)
    fabric.launch()
    first = fabric.global_rank == 0
    claimed = runtime.alone(out, PATIENCE) if first else contextlib.nullcontext()
    with claimed, _telling_what_is_kept(out):
        if first and (described := records.describe()):
            log(described)
        encoder = encoder.to(fabric.device)
        layout, about = _identity(encoder, shard)
        if first:
            _claim(out, {**layout, "encoder": {name: about[name] for name in CONTENT}})
            _add_ids(out, records, log)
        fabric.barrier()  # wait until the order of the ids is written
        records, ends = _ordered(records, read_ids(out / IDS), shard)
        parts = enumerate(zip([0, *ends], ends, strict=False))
        spans = {out / f"{number:05d}.tar": range(*part) for number, part in parts}
        todo = _todo(records, spans, log if first else lambda line: None)
        if first and todo:
            (out / "manifest.json").unlink(missing_ok=True)  # written again in the end
        fabric.barrier()  # nobody writes before every process has seen what there is to do

        mine = {file: spans[file] for file in todo[fabric.global_rank :: fabric.world_size]}
        left = sum(map(len, mine.values()))
        needed = left * (2 * layout["dim"] + SAMPLE_OVERHEAD)
        runtime.require_space(out, needed)
        there = f"shards there: {len(spans) - len(todo)} of {len(spans)}"
        log(f"{records}; {there}, {count(left, 'image')} to embed, {needed / 1e6:,.1f} MB")
        _write_shards(mine, records, encoder, batch, workers, log, bar=first)
        if not all(file.exists() for file in spans):
            log("the other processes have not finished; the last one writes the manifest")
            return None
        layout |= {"dataset": dataset_name(records.name), "images": len(records)}
        about |= {"model": model}
        return _write_manifest(out, {**layout, "encoder": about}, list(spans), log)


def _usual(before: dict, images: int) -> int:
    """The default number of samples in a shard: that of the folder's shards, if there are any."""
    there = before.get("shard")
    return there if type(there) is int and there > 0 else max(1, min(10_000, images // 20))


def _before(out: Path) -> dict:
    """What the shards of a folder are, by its `run.json` or else its manifest; empty if it is new.

    A ValueError if it holds other files, or is one.
    """
    if out.exists() and not out.is_dir():
        raise ValueError(f"{out} is a file; expected a folder for the shards")
    run, manifest = out / "run.json", out / "manifest.json"
    if run.is_file():
        found = runtime.read_json(run, dict)
        if found.keys() >= {"shard", "field", "dim"}:
            if isinstance(found.get("encoder"), dict):
                return found
            wrong = f"encoder = {found.get('encoder')!r}, expected dict"
            raise ValueError(f"{run} is damaged: {wrong}")
    elif manifest.is_file():
        with contextlib.suppress(ValueError):
            return read_manifest(manifest)
    elif not out.exists() or all(_is_ours(file.name) for file in out.iterdir()):
        return {}
    raise ValueError(f"{out} holds other files than shards; expected a folder of their own")


def _is_ours(name: str) -> bool:
    """Whether a file is a lock, or what a killed process was writing."""
    return name == ".lock" or PARTIAL.fullmatch(name) is not None


def _check(images: int, shard: int, batch: int, workers: int, devices: int) -> None:
    """A ValueError if numbers make no sense."""
    if min(shard, batch, devices, images) < 1:
        text = f"shards of {shard}, batches of {batch}, {count(devices, 'device')}"
        text = f"{text}, {count(images, 'image')}"
        raise ValueError(f"{text}; expected at least 1 of each")
    if workers < 0:
        raise ValueError(f"--workers {workers}; expected 0, which reads in this process, or more")


@contextlib.contextmanager
def _telling_what_is_kept(out: Path) -> Generator[None]:
    """Let an interruption (Ctrl-C, SIGTERM) say what it leaves."""
    try:
        yield
    except KeyboardInterrupt as error:
        there = count(len(list(out.glob("*.tar"))), "whole shard")
        raise type(error)(f"{there} in {out} kept") from None


def _cut(rows: range, size: int) -> list[range]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _identity(encoder, shard: int) -> tuple[dict, dict]:
    """What tells one folder of shards from another, and what its manifest says of the encoder."""
    (width,) = encoder.embed(encoder.preprocess(Image.new("RGB", (64, 64)))[None])[0].shape
    layout = {"shard": shard, "field": FIELDS[encoder.name], "dim": width}
    weights = runtime.sha256_of_weights(encoder)[:16]
    about = {"name": encoder.name, "config": encoder.config, "weights": weights}
    return layout, about | encoder.describe()


def _claim(out: Path, now: dict) -> None:
    """Mark a folder as one of these embeddings; a `ValueError` if it holds some of another kind."""
    there = _before(out)
    before = {name: there.get(name, value) for name, value in now.items()}
    before["encoder"] = {name: before["encoder"].get(name) for name in CONTENT}
    if other := runtime.difference(before, now):
        names = [run["encoder"]["name"] for run in (before, now)]
        if before["shard"] != now["shard"]:
            other = f"in shards of {before['shard']!r}, not {now['shard']} (--shard)"
        elif names[0] != names[1]:
            other = f"by the encoder {names[0]!r}, not {names[1]!r}"
        else:
            other = f"by the encoder {names[0]!r} with other weights or settings ({other})"
        advice = f"choose another --out, or delete {out} to embed anew"
        raise ValueError(f"{out} holds embeddings made {other}; {advice}")
    runtime.write_json(out / "run.json", now)


def _add_ids(out: Path, records: Records, log) -> None:
    """Write the order of the ids of a folder, those that are new to it at the end.

    A `ValueError` if most of those in it are no longer listed: it must be another data set.
    """
    now, file = records.rows["id"], out / IDS
    order = read_ids(file) if file.exists() else now.slice(0, 0)
    gone = order.filter(pc.invert(pc.is_in(order, value_set=now)))
    new = now.filter(pc.invert(pc.is_in(now, value_set=order)))
    changes = {"no longer listed": gone, "new": new}
    said = [f"{len(ids):,} {what} (the first: {ids[0]})" for what, ids in changes.items() if ids]
    text = f"of the {count(len(order), 'row')} in {out}, compared with {records.name}: "
    if 2 * len(gone) > len(order):
        advice = f"choose another --out, or delete {out} to embed anew"
        raise ValueError(f"{text}{', '.join(said)}: this is another data set; {advice}")
    if len(order) and said:
        log(f"{text}{', '.join(said)}; what is new is embedded at the end")
    if len(new):
        write_ids(file, pa.chunked_array([*order.chunks, *new.chunks]))


def _ordered(records: Records, order: pa.ChunkedArray, shard: int) -> tuple[Records, list[int]]:
    """The rows in the order of a folder, and the row at which each shard ends."""
    place = pc.index_in(order, value_set=records.rows["id"]).combine_chunks()
    listed = place.drop_null().to_numpy()
    if (np.diff(listed) != 1).any():
        records = replace(records, rows=records.rows.take(listed))
    counts = np.add.reduceat(
        place.is_valid().to_numpy(False), range(0, len(order), shard), dtype=int
    )
    return records, np.cumsum(counts).tolist()


def _todo(records: Records, spans: dict[Path, range], log) -> list[Path]:
    """The shards that are not there, or not made of the rows and images as they are now."""
    there = [file for file in spans if file.exists()]
    bar = runtime.progress(there, desc="looking for changes", unit="shard")
    changed = {file for file in bar if not _is_as_now(file, records, spans[file])}
    if changed:
        names = ", ".join(sorted(file.name for file in changed)[:5])
        why = "as they are damaged, or their rows or image files have changed"
        log(f"shards made anew, {why}: {len(changed)} of {len(there)}: {names}")
    return [file for file in spans if file in changed or file not in there]


def _made_now(records: Records, span: range) -> str:
    """A checksum of the rows of a span, and of the size and date of each of their images."""
    rows = records.rows.slice(span.start, len(span)).to_pylist()
    lines = (_line(row, archives.state(records.root / row["path"])) for row in rows)
    return runtime.sha256_of(*lines)


def _line(row: dict, state: tuple[int, int] | None) -> str:
    return json.dumps([row, state], sort_keys=True) + "\n"


def _is_as_now(tar: Path, records: Records, span: range) -> bool:
    """Whether a shard is whole, by its description, and was made of the rows as they are now."""
    try:
        described = runtime.read_json(tar.with_suffix(".json"), dict)
    except (ValueError, FileNotFoundError):
        return False
    embedded, skipped = described.get("count"), described.get("skipped")
    return (
        isinstance(skipped, dict)
        and all(isinstance(why, str) for why in skipped.values())
        and type(embedded) is int
        and embedded + len(skipped) == len(span)
        and described.get("sha256") == runtime.sha256(tar)
        and described.get("rows") == _made_now(records, span)
    )


def _write_shards(
    spans: dict[Path, range], records: Records, encoder, batch: int, workers: int, log, bar: bool
) -> None:
    """Write the given shards, each with the rows of its span."""
    batches = {file: _cut(span, batch) for file, span in spans.items()}
    sampler = [part for parts in batches.values() for part in parts]
    images = _Images(records, encoder.preprocess)
    readers: dict = {"num_workers": workers, "worker_init_fn": end_quietly}
    loader = iter(torch.utils.data.DataLoader(images, None, sampler=sampler, **readers))
    started, total, done = time.perf_counter(), sum(map(len, sampler)), 0
    with runtime.progress(total=total, desc="embedding", unit="image", disable=not bar) as shown:
        for file, parts in batches.items():
            with ShardWriter(file, FIELDS[encoder.name]) as writer:
                lines: list[str] = []
                for part in parts:
                    rows, pixels, unreadable, seen = _next(loader)
                    embeddings = encoder.embed(pixels) if rows else ()
                    for row, embedding in zip(rows, embeddings, strict=True):
                        writer.add(row, embedding)
                    writer.skipped |= unreadable
                    lines += seen
                    done += len(part)
                    shown.update(len(part))
                    # After the first batch the whole time can be estimated.
                    if done == len(part) < total:
                        rate = done / (time.perf_counter() - started)
                        log(f"{rate:,.3g} images a second: about {runtime.duration(total / rate)}")
                writer.rows = runtime.sha256_of(*lines)


def _next(loader: Iterator):
    """The next batch; an `OSError` if a process that reads images has died."""
    try:
        return next(loader)
    except RuntimeError as error:
        advice = "fewer --workers (0: none) or a smaller --batch help if memory was short"
        raise OSError(f"a process that reads images was killed; {advice}") from error


class _Images(torch.utils.data.Dataset):
    """Batches of row numbers → (rows, pixels, {id: why it cannot be read}, lines of `_line`)."""

    def __init__(self, records: Records, preprocess):
        self.records, self.preprocess = records, preprocess

    def __getitem__(self, index: range) -> tuple[list[dict], Tensor, dict[str, str], list[str]]:
        rows, pixels, unreadable, lines = [], [], {}, []
        for row in self.records.rows.slice(index[0], len(index)).to_pylist():
            path = row["path"]
            lines.append(_line(row, archives.state(self.records.root / path)))
            try:
                pixels.append(self.preprocess(load_image(self.records.read(path), path)))
                rows.append({name: value for name, value in row.items() if name != "path"})
            except Exception as error:  # one bad photo must not end hours of work
                said = f"{path}: {type(error).__name__}: {error}"
                unreadable[row["id"]] = str(error) if path in str(error) else said
        return rows, torch.stack(pixels) if pixels else torch.zeros(0), unreadable, lines


def _write_manifest(out: Path, about: dict, files: list[Path], log) -> Shards:
    described = {file.name: runtime.read_json(file.with_suffix(".json"), dict) for file in files}
    skipped = {id_: why for shard in described.values() for id_, why in shard["skipped"].items()}
    first = f", the first: {next(iter(skipped.values()))}" if skipped else ""
    if len(skipped) == about["images"]:
        none = f"none of {count(len(skipped), 'image')} could be read"
        raise ValueError(f"{out}: {none}{first}")
    columns = {"shards": "count", "sha256": "sha256"}
    filled = {name: shard for name, shard in described.items() if shard["count"]}
    columns = {to: {n: s[name] for n, s in filled.items()} for to, name in columns.items()}
    runtime.write_json(out / "manifest.json", {**about, **columns, "skipped": skipped})
    for left in filter(lambda file: PARTIAL.fullmatch(file.name), out.iterdir()):
        left.unlink(missing_ok=True)  # left by a process that was killed
    shards = open_shards(out)
    written = f"{count(len(shards), 'embedding')} in {count(len(filled), 'shard')}"
    all_ = f" ({out / 'manifest.json'} names all)" if len(skipped) > 1 else ""
    log(f"{out}: {written}; {count(len(skipped), 'image')} could not be read{all_}{first}")
    return shards
