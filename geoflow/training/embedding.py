"""Images → shards of embeddings, once, before any training. It can be killed at any moment and run again, on any number of processes.

Shard k holds the rows k·S … (k+1)·S − 1 of the data set, in order, so that who writes it, and when, makes no difference; processes take
turns. A shard counts as done when it is there under its name, and it gets its name when it is whole.
"""

import hashlib
import io
import json
import shutil
import time
from pathlib import Path

import lightning as L
import torch
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from geoflow import runtime
from geoflow.data.records import Records
from geoflow.data.shards import FIELDS, SAMPLE_OVERHEAD, Shards, ShardWriter, open_shards
from geoflow.encoders import load_image
from geoflow.runtime import write_atomically

SHARD = 10_000


def embed(
    records: Records,
    encoder,
    out,
    shard: int | None = None,
    batch: int = 64,
    workers: int = 0,
    devices: int = 1,
    say=print,
) -> Shards | None:
    """Embed every image of a data set.

    An image that cannot be read is skipped, and named in its shard's description. Under `torchrun` or SLURM, or with several devices,
    the processes share the shards.

    Args:
        records: which images.
        encoder: of `geoflow.encoders`.
        out: folder of the shards.
        shard: S, samples in each; default: 10,000, or a twentieth of a small data set (the last shard validates a training).
        batch: images per call of the encoder.
        workers: processes that read images, for each device.
        devices: GPUs, or CPU processes, of this machine.
        say: takes lines of text about what happens.

    Returns:
        The shards; None in a process that ended before another had finished its share.

    Raises:
        ValueError: the folder holds embeddings of other images or by another encoder, or a number is below 1.
        OSError: not enough disk space.
    """
    shard = max(1, min(SHARD, len(records) // 20)) if shard is None else shard
    if min(shard, batch, devices) < 1 or not len(records):
        raise ValueError(
            f"shards of {shard}, batches of {batch}, {devices} devices, {len(records)} images; expected at least 1 of each"
        )
    fabric = L.Fabric(accelerator="auto", devices=devices)
    fabric.launch()
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    encoder = encoder.to(fabric.device)
    (width,) = encoder.embed(encoder.preprocess(Image.new("RGB", (64, 64)))[None])[0].shape
    run = {
        "dataset": records.name, "images": len(records), "ids": _fingerprint(records), "shard": shard, "field": FIELDS[encoder.name],
        "dim": width, "encoder": {"name": encoder.name, "config": encoder.config, "weights": _weights(encoder), **encoder.describe()},
    }  # fmt: skip
    if fabric.global_rank == 0:
        _claim(out / "run.json", run)
    fabric.barrier()

    files = [out / f"{number:05d}.tar" for number in range(-(-len(records) // shard))]
    todo = [number for number in range(len(files)) if not files[number].exists()]
    mine = todo[fabric.global_rank :: fabric.world_size]
    left = sum(min(shard, len(records) - number * shard) for number in mine)
    needed, free = left * (2 * width + SAMPLE_OVERHEAD), shutil.disk_usage(out).free
    if free < 1.05 * needed:
        raise OSError(f"{needed / 1e9:.2f} GB are needed in {out}, {free / 1e9:.2f} GB are free")
    say(
        f"{records}; {len(files) - len(todo)} of {len(files)} shards are there, {left:,} images to embed, {needed / 1e9:.2f} GB"
    )
    with runtime.progress(
        total=left, desc="embedding", unit="image", disable=fabric.global_rank > 0
    ) as bar:
        _write_shards(
            records,
            encoder,
            [(number, files[number]) for number in mine],
            shard,
            batch,
            workers,
            bar,
            say,
        )
    if not all(file.exists() for file in files):
        say("the other processes have not finished; the last one writes the manifest")
        return None
    return _write_manifest(out, run, files, say)


def _write_shards(
    records: Records,
    encoder,
    mine: list[tuple[int, Path]],
    shard: int,
    batch: int,
    workers: int,
    bar,
    say,
) -> None:
    spans = [
        range(number * shard, min((number + 1) * shard, len(records))) for number, _file in mine
    ]
    batches = [
        span[start : start + batch] for span in spans for start in range(0, len(span), batch)
    ]
    loader = iter(
        torch.utils.data.DataLoader(
            _Images(records, encoder.preprocess), None, sampler=batches, num_workers=workers
        )
    )
    started, done = time.perf_counter(), 0
    for span, (_number, file) in zip(spans, mine, strict=True):
        with ShardWriter(file, FIELDS[encoder.name]) as writer:
            for _start in range(0, len(span), batch):
                rows, pixels, unreadable = next(loader)
                for row, embedding in zip(rows, encoder.embed(pixels) if rows else (), strict=True):
                    writer.add(row, embedding)
                writer.skipped |= unreadable
                done += len(rows) + len(unreadable)
                bar.update(len(rows) + len(unreadable))
                if done == len(rows) + len(unreadable) < sum(map(len, spans)):
                    seconds = (time.perf_counter() - started) / done
                    say(
                        f"{1 / seconds:,.0f} images a second: about {seconds * sum(map(len, spans)) / 3600:.2f} h"
                    )


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
            except (
                OSError,
                UnidentifiedImageError,
                Image.DecompressionBombError,
                SyntaxError,
                ValueError,
            ) as error:
                unreadable[row["id"]] = f"{path}: {error}"
        return rows, torch.stack(pixels) if pixels else torch.zeros(0), unreadable


def _write_manifest(out: Path, run: dict, files: list[Path], say) -> Shards:
    described = {file.name: json.loads(file.with_suffix(".json").read_text()) for file in files}
    skipped = {id_: why for shard in described.values() for id_, why in shard["skipped"].items()}
    manifest = {
        **run,
        "shards": {name: shard["count"] for name, shard in described.items()},
        "skipped": skipped,
    }
    write_atomically(out / "manifest.json", json.dumps(manifest, indent=1))
    shards = open_shards(out)
    say(
        f"{out}: {len(shards):,} embeddings in {len(files)} shards; {len(skipped)} images could not be read{_first(skipped)}"
    )
    return shards


def _first(skipped: dict[str, str]) -> str:
    return f", the first: {next(iter(skipped.values()))}" if skipped else ""


def _claim(file: Path, run: dict) -> None:
    run = json.loads(json.dumps(run))
    before = json.loads(file.read_text()) if file.exists() else run
    for key, value in run.items():
        if before.get(key) != value:
            raise ValueError(
                f"{file.parent} holds embeddings with {key} = {before.get(key)!r}, not {value!r}; choose another folder"
            )
    write_atomically(file, json.dumps(run, indent=1))


def _fingerprint(records: Records) -> str:
    digest = hashlib.sha256()
    for chunk in records.rows["id"].chunks:
        digest.update("\n".join(chunk.to_pylist()).encode() + b"\n")
    return digest.hexdigest()[:16]


def _weights(encoder) -> str:
    """Checksum of what the encoder has learnt: two encoders of one name may differ."""
    digest = hashlib.sha256()
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(name.encode())
        digest.update(value.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
