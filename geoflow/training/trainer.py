"""Runs a training with Lightning: checkpoints, interruptions, averaged weights, the loss curve.

A run is a folder. It holds `run.json`, the plain values that identify it; `last.ckpt` and
`best.ckpt`, to resume from; `log-…/`, the loss curve as `metrics.csv` and for TensorBoard; and
`done.json` when it has ended. Batches depend on the seed and the step alone, so a run that was
interrupted and resumed ends with the same weights as one that was not.
"""

import copy
import csv
import logging
import math
import time
import warnings
from datetime import timedelta
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from torch import Tensor

from geoflow.runtime import claim, read_json, show_progress, write_json
from geoflow.training.batches import Batches
from geoflow.training.modules import Module, Optimization

CHECKPOINT_EVERY = timedelta(seconds=20)


def fit(
    module: Module, batches: Batches, folder, run: dict, devices=1, nodes=1, wandb=None
) -> float:
    """Train a module in place: from the start, from an interruption, or not at all if it is done.

    The module ends in evaluation mode on the CPU, with the weights of lowest validation loss (the
    averaged ones where an average is kept).

    Args:
        folder: folder of checkpoints and the loss curve.
        run: plain values that identify the run; a folder with other values is refused.
        devices: GPUs, or CPU processes, of each machine; under `torchrun` or SLURM as many as
            were started there.
        nodes: number of machines.
        wandb: Weights & Biases project that gets the loss curve too.

    Returns:
        Seconds of training, over all interruptions.

    Raises:
        ValueError: the folder holds another run, or wandb is not installed.
        FloatingPointError: the loss is not finite.
    """
    folder = Path(folder)
    claim(folder, run)
    done, last = folder / "done.json", folder / "last.ckpt"
    if not done.exists():
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module="lightning")
            warnings.filterwarnings("ignore", message=".*LeafSpec.*")
            trainer = _trainer(module.optimization, folder, devices, nodes, wandb)
            resumed = last if last.exists() else None
            trainer.fit(module, batches, ckpt_path=resumed, weights_only=False)
        write_json(done, {"seconds": batches.seconds})
    best = torch.load(folder / "best.ckpt", map_location="cpu", weights_only=False)
    module.load_state_dict(best["state_dict"])
    module.cpu().eval()
    return read_json(done)["seconds"]


def _trainer(o: Optimization, folder: Path, devices: int, nodes: int, wandb: str | None):
    keep: dict[str, Any] = {"dirpath": folder, "enable_version_counter": False}
    callbacks: list[L.Callback] = [
        ModelCheckpoint(filename="best", monitor="val_loss", **keep),
        ModelCheckpoint(filename="last", train_time_interval=CHECKPOINT_EVERY, **keep),
        _StopOnNaN(),
    ]
    if o.ema:
        callbacks.append(WeightEMA(o.ema))
    if show_progress():
        callbacks.append(_Progress(folder.name))
    return L.Trainer(
        max_steps=o.steps,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        use_distributed_sampler=False,  # `batches` knows the ranks
        precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
        logger=_loggers(folder, wandb),
        callbacks=callbacks,
        gradient_clip_val=1.0,
        val_check_interval=max(o.steps // 20, 1),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_progress_bar=show_progress(),
        enable_model_summary=False,
    )


def _loggers(folder: Path, wandb: str | None) -> list[Logger]:
    name: dict[str, Any] = {"name": "", "version": f"log-{time.time_ns()}"}
    loggers: list[Logger] = [CSVLogger(folder, **name), TensorBoardLogger(folder, **name)]
    if wandb:
        try:
            loggers.append(WandbLogger(project=wandb, name=folder.parent.name, save_dir=folder))
        except ModuleNotFoundError as error:
            text = f"to log to the Weights & Biases project {wandb!r}, install it"
            raise ValueError(f"{text}: pip install wandb") from error
    return loggers


class WeightEMA(WeightAveraging):
    """Exponential moving average of the weights, which validation and checkpoints use.

    The decay grows as (1 + n) / (10 + n) with the step n up to its final value, so a short run
    does not remember its first weights.
    """

    def __init__(self, decay: float):
        def average(averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
            n = float(count)
            torch._foreach_lerp_(averaged, current, 1 - min(decay, (1 + n) / (10 + n)))

        super().__init__(use_buffers=False, multi_avg_fn=average)


class _Progress(TQDMProgressBar):
    """One bar over all steps, with the loss."""

    def __init__(self, description: str):
        super().__init__(refresh_rate=10)
        self.description = description

    def on_train_epoch_start(self, trainer, *_):
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.initial = trainer.global_step
        self.train_progress_bar.reset(total=trainer.max_steps)
        self.train_progress_bar.set_description(self.description)


class _StopOnNaN(L.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if not math.isfinite(loss := float(outputs["loss"])):
            text = f"the loss is {loss} at step {trainer.global_step}"
            raise FloatingPointError(f"{text}; the last checkpoint is intact")


def seconds_per_step(module: Module, batches: Batches, trials: int = 4) -> float:
    """Measure one training step on this machine, on a copy of the module."""
    mps = "mps" if torch.backends.mps.is_available() else "cpu"
    device = "cuda" if torch.cuda.is_available() else mps
    module = copy.deepcopy(module).to(device)
    optimizer = module.optimization.optimizer_of(module.parameters())
    batch = tuple(column.to(device) for column in batches.example())
    for trial in range(trials + 1):
        if trial == 1:  # the first step warms up
            start = time.perf_counter()
        optimizer.zero_grad()
        module.loss(batch, module.generator(trial)).backward()
        optimizer.step()
    return (time.perf_counter() - start) / trials


def loss_curve(folder) -> dict[str, list[tuple[int, float]]]:
    """{"loss": [(step, value), …], "val_loss": …} of a run, over all its interruptions.

    >>> loss_curve("a folder without a run")
    {'loss': [], 'val_loss': []}
    """
    curves: dict[str, dict[int, float]] = {"loss": {}, "val_loss": {}}
    for file in sorted(Path(folder).glob("log-*/metrics.csv")):
        with file.open(encoding="utf-8") as rows:
            for row in csv.DictReader(rows):
                for name, curve in curves.items():
                    if row.get(name):
                        curve[int(row["step"])] = float(row[name])
    return {name: sorted(curve.items()) for name, curve in curves.items()}
