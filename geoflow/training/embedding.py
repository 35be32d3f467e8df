"""Images → shards of embeddings, once, before any training.

Embedding can be killed at any moment and run again, on any number of processes. Shard k holds the
rows k·S … (k+1)·S − 1 of the data set, in order, so it makes no difference who writes it, and when.
A shard counts as done when it is there under its name, which it gets when it is whole.
"""

import io
import time
from pathlib import Path

import lightning as L
import torch
from PIL import Image
from torch import Tensor

from geoflow import runtime
from geoflow.data.records import Records
from geoflow.data.shards import FIELDS, SAMPLE_OVERHEAD, Shards, ShardWriter, open_shards
from geoflow.encoders import load_image


def embed(
    records: Records, encoder, out, shard=None, batch=64, workers=0, devices=1, log=print
) -> Shards | None:
    """Embed every image of a data set.

    An image that cannot be read is skipped, and named in its shard's description. Under `torchrun`
    or SLURM, or with several devices, the processes share the shards.

    Args:
        encoder: of `geoflow.encoders`.
        out: folder of the shards.
        shard: S, samples in each; None: 10,000, or a twentieth of a small data set, because the
            last shard validates a training.
        batch: images per call of the encoder.
        workers: processes that read images, for each device.
        devices: GPUs, or CPU processes, of this machine.

    Returns:
        The shards; None in a process that ended before another had finished its share.

    Raises:
        ValueError: the folder holds other embeddings, or a number is below 1.
        OSError: not enough disk space.
    """
    shard = max(1, min(10_000, len(records) // 20)) if shard is None else shard
    if min(shard, batch, devices, len(records)) < 1:
        text = f"shards of {shard}, batches of {batch}, {devices} devices, {len(records)} images"
        raise ValueError(f"{text}; expected at least 1 of each")
    fabric = L.Fabric(accelerator="auto", devices=devices)
    fabric.launch()
    out = Path(out)
    encoder = encoder.to(fabric.device)
    run = _identity(records, encoder, shard)
    if fabric.global_rank == 0:
        runtime.claim(out, run, "embeddings")
    fabric.barrier()

    parts = enumerate(_cut(range(len(records)), shard))
    spans = {out / f"{number:05d}.tar": part for number, part in parts}
    todo = [file for file in spans if not file.exists()]
    mine = {file: spans[file] for file in todo[fabric.global_rank :: fabric.world_size]}
    left = sum(map(len, mine.values()))
    needed = left * (2 * run["dim"] + SAMPLE_OVERHEAD)
    runtime.require_space(out, needed)
    there = f"{len(spans) - len(todo)} of {len(spans)} shards are there"
    log(f"{records}; {there}, {left:,} images to embed, {needed / 1e9:.2f} GB")
    hidden = fabric.global_rank > 0
    with runtime.progress(total=left, desc="embedding", unit="image", disable=hidden) as bar:
        _write_shards(mine, _Images(records, encoder.preprocess), encoder, batch, workers, bar, log)
    if not all(file.exists() for file in spans):
        log("the other processes have not finished; the last one writes the manifest")
        return None
    return _write_manifest(out, run, list(spans), log)


def _cut(rows: range, size: int) -> list[range]:
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _identity(records: Records, encoder, shard: int) -> dict:
    """What tells one embedding from another: data set, encoder with its weights, and layout."""
    (width,) = encoder.embed(encoder.preprocess(Image.new("RGB", (64, 64)))[None])[0].shape
    chunks = ("\n".join(chunk.to_pylist()) + "\n" for chunk in records.rows["id"].chunks)
    weights = runtime.sha256_of_weights(encoder)[:16]
    described = {"name": encoder.name, "config": encoder.config, "weights": weights}
    return {
        "dataset": records.name,
        "images": len(records),
        "ids": runtime.sha256_of(*chunks)[:16],
        "shard": shard,
        "field": FIELDS[encoder.name],
        "dim": width,
        "encoder": described | encoder.describe(),
    }


def _write_shards(
    spans: dict[Path, range], images: "_Images", encoder, batch: int, workers: int, bar, log
) -> None:
    """Write the given shards, each with the rows of its span."""
    batches = {file: _cut(span, batch) for file, span in spans.items()}
    sampler = [part for parts in batches.values() for part in parts]
    loader = iter(torch.utils.data.DataLoader(images, None, sampler=sampler, num_workers=workers))
    started, total, done = time.perf_counter(), sum(map(len, sampler)), 0
    for file, parts in batches.items():
        with ShardWriter(file, FIELDS[encoder.name]) as writer:
            for part in parts:
                rows, pixels, unreadable = next(loader)
                for row, embedding in zip(rows, encoder.embed(pixels) if rows else (), strict=True):
                    writer.add(row, embedding)
                writer.skipped |= unreadable
                done += len(part)
                bar.update(len(part))
                if done == len(part) < total:  # the first batch tells how long it will take
                    seconds = (time.perf_counter() - started) / done
                    log(f"{1 / seconds:,.0f} images a second: about {seconds * total / 3600:.2f} h")


class _Images(torch.utils.data.Dataset):
    """Batches of row numbers → (rows, pixels, {id: why it cannot be read})."""

    def __init__(self, records: Records, preprocess):
        self.records, self.preprocess = records, preprocess

    def __getitem__(self, index: range) -> tuple[list[dict], Tensor, dict[str, str]]:
        rows, pixels, unreadable = [], [], {}
        for row in self.records.rows.slice(index[0], len(index)).to_pylist():
            path = row.pop("path")
            try:
                with Image.open(io.BytesIO(self.records.read(path))) as image:
                    pixels.append(self.preprocess(load_image(image)))
                rows.append(row)
            except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
                unreadable[row["id"]] = f"{path}: {error}"
        return rows, torch.stack(pixels) if pixels else torch.zeros(0), unreadable


def _write_manifest(out: Path, run: dict, files: list[Path], log) -> Shards:
    described = {file.name: runtime.read_json(file.with_suffix(".json")) for file in files}
    counts = {name: shard["count"] for name, shard in described.items()}
    skipped = {id_: why for shard in described.values() for id_, why in shard["skipped"].items()}
    runtime.write_json(out / "manifest.json", {**run, "shards": counts, "skipped": skipped})
    shards = open_shards(out)
    first = f", the first: {next(iter(skipped.values()))}" if skipped else ""
    written = f"{out}: {len(shards):,} embeddings in {len(files)} shards"
    log(f"{written}; {len(skipped)} images could not be read{first}")
    return shards
