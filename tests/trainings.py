"""Small trainings that are interrupted: by an exception, a signal, or a kill in the middle of a write."""

import contextlib
import os
import time
from datetime import timedelta
from pathlib import Path

import torch

from geoflow import paths, runtime, schedules, sphere
from geoflow.training import FlowModule, Optimization, checkpoints, fit
from geoflow.training.batches import Order, Rows, TensorBatches
from geoflow.velocity import VelocityTransformer

RUN = {"recipe": {"steps": 12}, "seed": 0}


class Killed(Exception):
    """Stands for a process that ends."""


def end():
    raise Killed


def flow(steps=12, ema=0.9, kill_at=None, killer=end, loss=None, patience=0):
    """A small flow module whose training is killed at a step."""

    class Module(FlowModule):
        seen: list[int]

        def training_step(self, batch, index):
            if self.global_step == kill_at:
                killer()
            self.seen.append(self.global_step)
            return super().training_step(batch, index)

        def loss(self, batch, *how):
            value = super().loss(batch, *how)
            return value if loss is None else value * loss(self.global_step)

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = VelocityTransformer(cond_dim=4, dim=16, depth=1)
    o = Optimization(steps=steps, batch=16, lr=1e-2, warmup=3, ema=ema, patience=patience)
    path = paths.by_name("riemannian")
    module = Module(network, path, o, schedule=schedules.linear, draws=2, dropout=0.1)
    module.seen = []
    return module


def in_memory(module, rows, judged):
    o = module.optimization
    return TensorBatches(Rows(rows), Rows(judged), Order(o.batch, o.steps))


def batches(module, n=50):
    generator = torch.Generator().manual_seed(0)
    cond, x = torch.randn(n, 4, generator=generator), sphere.uniform(n, generator)
    return in_memory(module, (cond, x), (cond[:20], x[:20]))


def train(folder, log=print, **options):
    module = flow(**options)
    fit(module, batches(module), folder, RUN, log=log)
    return module


def weights_of(path):
    return torch.load(path, weights_only=True)["state_dict"]


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def train_and_hang(folder: Path, name: str, moment: str, number: int) -> None:
    """In a process of its own: train, and stand still in the n-th write of a checkpoint: while it is `written`, or when the one before has
    been `renamed` and it has not.
    """
    torch.set_num_threads(1)
    checkpoints.EVERY = timedelta(0)
    fsync, replacing, begun = os.fsync, runtime.replacing, []

    def hang_if(now: str, descriptor: int = 0) -> None:
        if (now, begun.count(f"{name}.ckpt"), begun[-1]) == (moment, number, f"{name}.ckpt"):
            if moment == "written":
                os.ftruncate(descriptor, 1000)
            (folder.parent / "hanging").touch()
            time.sleep(60)

    @contextlib.contextmanager
    def noted(target):
        begun.append(Path(target).name)
        with replacing(target) as partial:
            yield partial
            hang_if("renamed")

    def half(descriptor: int) -> None:
        hang_if("written", descriptor)
        fsync(descriptor)

    os.fsync, runtime.replacing = half, noted
    train(folder)
