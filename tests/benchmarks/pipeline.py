"""What scales how: the same path for 20,000 and for 200,000 embeddings of 1,024 channels. Run it on an idle machine with 2 GB of disk:

python tests/benchmarks/pipeline.py [--scratch FOLDER]     # some 5 minutes on 2 CPU cores

Shards are written, streamed and unpacked as training does; peak memory is that of a process of its own; the time that a training step
waits for its batch is measured with the network of the paper's size; and a small one is trained on two processes, killed, resumed and
evaluated.
"""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import memory
import torch

DIM, BATCH = 1024, 1024
SIZES = (20_000, 200_000)


def write(folder: Path, n: int, shard: int = 2_500) -> None:
    """Random embeddings and places as `geoflow embed` leaves them."""
    from geoflow import sphere
    from geoflow.data.shards import ShardWriter

    generator = torch.Generator().manual_seed(0)
    counts = {}
    for number in range(n // shard):
        file = folder / f"{number:05d}.tar"
        latlon = sphere.to_latlon(sphere.uniform(shard, generator)).tolist()
        with ShardWriter(file, "street_clip") as writer:
            for i, embedding in enumerate(torch.randn(shard, DIM, generator=generator)):
                writer.add(
                    {
                        "id": f"{number}-{i}",
                        "latitude": latlon[i][0],
                        "longitude": latlon[i][1],
                        "country": "CL",
                    },
                    embedding,
                )
        counts[file.name] = shard
    manifest = {
        "dataset": "random",
        "shards": counts,
        "field": "street_clip",
        "dim": DIM,
        "encoder": {},
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))


def stream(folder: Path) -> dict:
    """One epoch in this process: embeddings a second of one core, peak memory."""
    from geoflow.data.shards import open_shards
    from geoflow.training.batches import Order, ShardStream

    shards = open_shards(folder)
    before = memory.peak_gb()
    start, count = time.perf_counter(), 0
    for cond, _x in ShardStream([shards], Order(BATCH, len(shards) // BATCH)):
        count += len(cond)
    return {
        "rate": count / (time.perf_counter() - start),
        "gb": memory.peak_gb(),
        "gb_before": before,
    }


def mapped(folder: Path) -> dict:
    """Batches of random rows from the memory-mapped file, after it was unpacked: seconds of that, embeddings a second, peak memory."""
    from geoflow.data.shards import open_shards
    from geoflow.training.batches import Order, Rows, StepSampler

    shards = open_shards(folder)
    start = time.perf_counter()
    rows = Rows(shards.mapped())
    unpacking = time.perf_counter() - start
    steps = 2 * (len(rows) // BATCH)
    start, count = time.perf_counter(), 0
    for index in StepSampler(len(rows), Order(BATCH, steps)):
        count += len(rows[index][0])
    return {
        "rate": count / (time.perf_counter() - start),
        "unpacking": unpacking,
        "gb": memory.peak_gb(),
    }


def waiting(folder: Path, steps: int = 12) -> dict:
    """Share of a training's time that it waits for batches, streamed and memory-mapped: 512 wide, 12 blocks, LAMB."""
    from geoflow import training
    from geoflow.data.shards import open_shards
    from geoflow.training.batches import Order, Rows, StreamBatches, TensorBatches
    from geoflow.training.recipes import read_recipe

    shards = open_shards(folder)
    module = training.network_module(read_recipe("osv5m", "paper"), "riemannian", DIM)
    optimizer = module.optimization.optimizer_of(module.parameters())
    rows = Rows(shards.mapped())
    order = Order(BATCH, steps + 2)
    loaders = {
        "streamed": StreamBatches([shards], rows, order).loader(order),
        "mapped": TensorBatches(rows, rows, order).loader(order),
    }
    found = {}
    for name, loader in loaders.items():
        batches = iter(loader)
        waited = busy = 0.0
        for step in range(steps + 2):
            start = time.perf_counter()
            batch = next(batches)
            ready = time.perf_counter()
            optimizer.zero_grad()
            module.loss(batch, module.generator(step)).backward()
            optimizer.step()
            if step >= 2:  # the first two fill the queue and warm up
                waited, busy = waited + ready - start, busy + time.perf_counter() - ready
        found[name] = waited / (waited + busy)
        found["seconds_per_step"] = (waited + busy) / steps
    return found


def path(folder: Path, work: Path) -> None:
    """Training on two processes, killed and started again, evaluation on two, a table: by the commands, with the smallest network."""
    geoflow = str(Path(sys.executable).parent / "geoflow")
    environment = {
        **os.environ,
        "GEOFLOW_SCALE": "smoke",
        "GEOFLOW_CACHE": str(work / "cache"),
        "CI": "1",
        "OMP_NUM_THREADS": "1",
    }
    two = [
        sys.executable,
        "-m",
        "torch.distributed.run",
        "--nproc-per-node",
        "2",
        "--master-port",
        "29530",
        geoflow,
    ]
    quiet = {"env": environment, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    train = [*two, "train", "osv5m", "--data", folder, "--out", work / "run", "--devices", "2"]
    start = time.perf_counter()
    with subprocess.Popen(train, start_new_session=True, **quiet) as process:
        while not list(work.glob("run/flow/log-*/metrics.csv")) and process.poll() is None:
            time.sleep(0.1)
        os.killpg(process.pid, signal.SIGKILL)
    subprocess.run(train, check=True, **quiet)
    trained = time.perf_counter() - start
    score = [
        "evaluate",
        "--model",
        work / "run" / "model",
        "--data",
        folder,
        "--samples",
        "1",
        "--steps",
        "4",
        "--guidance",
        "2",
        "--labels",
    ]
    start = time.perf_counter()
    subprocess.run(
        [*two, *score, "--name", "osv5m random", "--out", work / "results"], check=True, **quiet
    )
    (report,) = work.glob("results/*.json")
    found = json.loads(report.read_text())["metrics"]
    print(
        f"  two processes: trained, killed and resumed in {trained:.0f} s; {found['images']:,} images evaluated in "
        f"{time.perf_counter() - start:.0f} s: GeoScore {found['geoscore']:.0f}, NLL {found['nll_over_uniform']:+.3f} nats over uniform"
    )
    tables = subprocess.run(
        [geoflow, "tables", work / "results", "--only", "table1-osv5m"],
        check=True,
        capture_output=True,
        text=True,
    )
    print(
        "  "
        + next(
            line
            for line in tables.stdout.splitlines()
            if line.startswith("| RFM S²") and "→" in line
        )
    )


def in_a_process(task: str, folder: Path, cache: Path) -> dict:
    command = [sys.executable, __file__, "--task", task, "--scratch", folder]
    environment = {**os.environ, "GEOFLOW_CACHE": str(cache), "CI": "1"}
    return json.loads(
        subprocess.run(
            command, check=True, stdout=subprocess.PIPE, text=True, env=environment
        ).stdout.splitlines()[-1]
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--scratch", type=Path, default=Path(tempfile.gettempdir()))
    parser.add_argument("--task", choices=("stream", "mapped", "waiting"), help=argparse.SUPPRESS)
    a = parser.parse_args()
    if a.task:
        print(
            json.dumps({"stream": stream, "mapped": mapped, "waiting": waiting}[a.task](a.scratch))
        )
        return
    from geoflow.runtime import machine

    print(f"{machine()}, torch {torch.__version__}; {DIM} channels, batches of {BATCH}")
    with tempfile.TemporaryDirectory(dir=a.scratch) as name:
        for n in SIZES:
            folder, cache = Path(name) / str(n), Path(name) / f"cache-{n}"
            folder.mkdir()
            start = time.perf_counter()
            write(folder, n)
            seconds = time.perf_counter() - start
            size = sum(file.stat().st_size for file in folder.iterdir())
            print(
                f"{n:,} embeddings: {size / 1e9:.2f} GB of shards written in {seconds:.0f} s ({n / seconds:,.0f} a second)",
                flush=True,
            )
            s, m = in_a_process("stream", folder, cache), in_a_process("mapped", folder, cache)
            print(
                f"  streamed: {s['rate']:,.0f} a second on one core, peak memory {s['gb']:.2f} GB ({s['gb_before']:.2f} before the first shard)"
            )
            print(
                f"  memory-mapped: {m['rate']:,.0f} a second, after {m['unpacking']:.1f} s of unpacking; peak memory {m['gb']:.2f} GB, pages included"
            )
            w = in_a_process("waiting", folder, cache)
            print(
                f"  a training step of {w['seconds_per_step']:.2f} s waits for its batch {w['streamed']:.2%} (streamed), {w['mapped']:.2%} (mapped) "
                "of its time",
                flush=True,
            )  # fmt: skip
            work = Path(name) / f"work-{n}"
            work.mkdir()
            path(folder, work)


if __name__ == "__main__":
    main()
