"""Is another version of geoflow as fast? Two versions side by side, with one checkpoint and in turn. Run it on an idle machine:

git worktree add --detach ../other COMMIT
python tests/benchmarks/versions.py ../other [--model ../other/data/models/tiles]     # some 10 minutes of one CPU thread

The checkpoint must be one that both versions read. Each round starts a process of either version. Times are of the processor; what is printed
is their median over the rounds, and the median ratio of this version to the other.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ROUNDS = 7
PLACE = (24.0, 6.0)  # a tile of the Sahara


def tasks(model: str) -> dict:
    """What is timed, by name, with the geoflow that this process imports."""
    import torch

    from geoflow import Geolocator, losses, paths, schedules, sphere
    from geoflow.data import tiles

    geo = Geolocator.from_pretrained(model)
    cond = geo.embed(tiles.tile(*PLACE))
    generator = torch.Generator().manual_seed(0)
    places = sphere.to_latlon(sphere.uniform(1024, generator))
    x = sphere.uniform(1024, generator)
    many = torch.randn(1024, cond.shape[-1], generator=generator)
    network = Geolocator.from_pretrained(model).network.train().requires_grad_(True)
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)
    how = {"schedule": schedules.by_name("skewed-sigmoid"), "draws": 2, "dropout": 0.1}

    def training_step():
        optimizer.zero_grad()
        losses.flow_matching_loss(
            network, paths.by_name("riemannian"), x, many, generator=generator, **how
        ).backward()
        optimizer.step()

    return {
        "1,024 samples": (lambda: geo.sample(cond=cond, n=1024, seed=0), 3),
        "guided samples": (lambda: geo.sample(cond=cond, n=1024, seed=0, guidance=2.0), 2),
        "log p of 1,024 places": (lambda: geo.log_prob(places, cond=cond), 2),
        "a training step of 1,024 × 2": (training_step, 5),
        "a density map": (lambda: geo.density(cond=cond), 1),
    }


def work(root: Path, model: str) -> None:
    """Print the processor seconds of each task as JSON: the least of its calls, after one more."""
    import torch

    import geoflow

    assert Path(geoflow.__file__).is_relative_to(root), f"{geoflow.__file__} is not of {root}"
    torch.set_num_threads(1)
    seconds = {}
    for name, (call, calls) in tasks(model).items():
        times = []
        for _ in range(calls + (calls > 1)):
            start = time.process_time()
            call()
            times.append(time.process_time() - start)
        seconds[name] = min(times)
    print(json.dumps(seconds))


def seconds_of(root: Path, model: str) -> dict[str, float]:
    """The seconds of a version, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(root), "OMP_NUM_THREADS": "1", "CI": "1"}
    command = [sys.executable, __file__, str(root), "--model", model, "--work"]
    return json.loads(subprocess.check_output(command, env=environment, cwd=root))


def compare(other: Path, model: str, number: int) -> None:
    """Print the table."""
    rounds = [(seconds_of(ROOT, model), seconds_of(other.resolve(), model)) for _ in range(number)]
    print("| | this version | the other | ratio |\n|---|---|---|---|")
    for name in rounds[0][0]:
        here, there = ([r[i][name] for r in rounds] for i in (0, 1))
        ratio = statistics.median(a / b for a, b in zip(here, there, strict=True))
        print(
            f"| {name} | {statistics.median(here):.3f} s | {statistics.median(there):.3f} s | {ratio:.2f} |"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("other", type=Path, help="folder of the other version")
    parser.add_argument("--model")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    a = parser.parse_args()
    model = str(Path(a.model or a.other / "data" / "models" / "tiles").resolve())
    if a.work:
        work(a.other, model)
    else:
        compare(a.other, model, a.rounds)


if __name__ == "__main__":
    main()
