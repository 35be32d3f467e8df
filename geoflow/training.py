"""Training through Lightning: modules, batches, averaging, checkpoints. No mathematics lives here.

A run is a folder: `last.ckpt` and `best.ckpt` to resume from, `log-…/metrics.csv` with the loss curve. Batches depend on the seed
and the step alone, so a run that was interrupted and resumed sees the same data, noise and dropout as one that was not.
"""

import copy
import csv
import json
import logging
import math
import platform
import time
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar, WeightAveraging
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn

from geoflow import losses, methods, paths, schedules, settings
from geoflow.data import tiles
from geoflow.encoders import GeocellClassifier, TileEncoder
from geoflow.files import write_atomically
from geoflow.schedules import Schedule

CHECKPOINT_EVERY = timedelta(seconds=20)


@dataclass(frozen=True)
class Optimization:
    """How a module is optimised: AdamW, linear warm-up, cosine decay to zero, clipped gradients.

    Attributes:
        steps: optimiser steps.
        batch: images per step, over all devices.
        lr: peak learning rate.
        weight_decay: AdamW's.
        warmup: steps to the peak.
        ema: decay of the weight average; 0 keeps none.
    """

    steps: int
    batch: int
    lr: float
    weight_decay: float = 0.0
    warmup: int = 100
    ema: float = 0.0

    def lr_factor(self, step: int) -> float:
        """Learning rate at a step, relative to the peak."""
        return min(1.0, (step + 1) / self.warmup) * 0.5 * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))


class _Module(L.LightningModule):
    """What both trainings share: the optimiser, and randomness keyed by (seed, step, rank)."""

    def __init__(self, optimization: Optimization, seed: int):
        super().__init__()
        self.optimization = optimization
        self.seed = seed

    def loss(self, batch, generator: torch.Generator) -> Tensor:
        """The loss of a batch, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    def configure_optimizers(self):
        o = self.optimization
        optimizer = torch.optim.AdamW(self.parameters(), lr=o.lr, weight_decay=o.weight_decay)
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, o.lr_factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def generator(self, step: int) -> torch.Generator:
        """Source of randomness of one step on this process."""
        return torch.Generator(self.device).manual_seed((self.seed * 1_000_003 + step) * 4099 + self.global_rank)

    def training_step(self, batch, _):
        loss = self.loss(batch, self.generator(self.global_step))
        self.log("loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch, index):
        loss = self.loss(batch, self.generator(-1 - index))
        self.log("val_loss", loss, prog_bar=True, batch_size=len(batch[1]), sync_dist=True)


class EncoderModule(_Module):
    """Trains an encoder to tell in which geocell a tile lies. Batches: (pixels (B, 3, H, W) uint8, x (B, 3))."""

    def __init__(self, classifier: GeocellClassifier, optimization: Optimization, seed: int = 0):
        super().__init__(optimization, seed)
        self.classifier = classifier

    def loss(self, batch, generator):
        pixels, x = batch
        return nn.functional.cross_entropy(self.classifier(pixels), self.classifier.cell_of(x))


class FlowModule(_Module):
    """Trains a velocity network on embeddings. Batches: (cond (B, C), x (B, 3))."""

    def __init__(self, network: nn.Module, path, schedule: Schedule, optimization: Optimization, draws: int, dropout: float, seed: int = 0):
        super().__init__(optimization, seed)
        self.network = network
        self.path = path
        self.schedule = schedule
        self.draws = draws
        self.dropout = dropout

    def loss(self, batch, generator):
        cond, x = batch
        return losses.flow_matching_loss(
            self.network, self.path, x, cond, schedule=self.schedule, draws=self.draws, dropout=self.dropout, generator=generator
        )


class MixtureModule(_Module):
    """Trains a network of vMF mixtures on embeddings. Batches: (cond (B, C), x (B, 3))."""

    def __init__(self, network: nn.Module, optimization: Optimization, seed: int = 0):
        super().__init__(optimization, seed)
        self.network = network

    def loss(self, batch, generator):
        cond, x = batch
        return losses.likelihood_loss(self.network, x, cond)


# Batches


class StepSampler(torch.utils.data.Sampler):
    """Batches of indices that depend on (seed, step) alone: epoch permutations, resumed at any step.

    Every process draws the same global batch and keeps its own share.
    """

    def __init__(self, n: int, batch: int, steps: int, seed: int, rank: int = 0, world: int = 1):
        if batch > n:
            raise ValueError(f"a batch of {batch} from {n} examples; expected at most as many as there are")
        if batch % world:
            raise ValueError(f"a batch of {batch} over {world} processes; expected a multiple")
        self.n, self.batch, self.steps, self.seed, self.rank, self.world = n, batch, steps, seed, rank, world
        self.first_step = 0

    def __len__(self) -> int:
        return self.steps  # with those before first_step: Lightning restores their count and ends the epoch by it

    def __iter__(self):
        per_epoch = self.n // self.batch
        epoch = None
        for step in range(self.first_step, self.steps):
            if epoch != step // per_epoch:
                epoch = step // per_epoch
                order = torch.randperm(self.n, generator=torch.Generator().manual_seed(self.seed * 1_000_003 + epoch))
            start = step % per_epoch * self.batch
            yield order[start : start + self.batch][self.rank :: self.world]


class _Rows(torch.utils.data.Dataset):
    def __init__(self, *columns: Tensor):
        self.columns = columns

    def __len__(self) -> int:
        return len(self.columns[0])

    def __getitem__(self, index: Tensor):
        return tuple(column[index] for column in self.columns)


class TensorBatches(L.LightningDataModule):
    """Batches from tensors in memory.

    Args:
        train, validation: columns of equal length, such as (cond, x).
        optimization: batch size and number of steps.
        seed: of the permutations.
    """

    def __init__(self, train: tuple[Tensor, ...], validation: tuple[Tensor, ...], optimization: Optimization, seed: int = 0):
        super().__init__()
        self.train, self.validation = _Rows(*train), _Rows(*validation)
        self.optimization, self.seed = optimization, seed
        self.first_step = 0
        self.seconds_before, self.started = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Time spent, over all interruptions."""
        return self.seconds_before + time.perf_counter() - self.started

    def train_dataloader(self):
        o, trainer = self.optimization, self.trainer
        assert trainer is not None
        sampler = StepSampler(len(self.train), o.batch, o.steps, self.seed, trainer.global_rank, trainer.world_size)
        sampler.first_step = self.first_step
        return torch.utils.data.DataLoader(self.train, sampler=sampler, batch_size=None)

    def val_dataloader(self):
        rows = torch.arange(len(self.validation)).split(1024)
        return torch.utils.data.DataLoader(self.validation, sampler=list(rows), batch_size=None)

    def state_dict(self):
        assert self.trainer is not None
        return {"step": self.trainer.global_step, "seconds": self.seconds}

    def load_state_dict(self, state_dict):
        self.first_step, self.seconds_before = state_dict["step"], state_dict["seconds"]


# Runs


class WeightEMA(WeightAveraging):
    """Exponential moving average of the weights, which validation and checkpoints use.

    The decay grows as (1 + n) / (10 + n) towards its final value, so that a short run does not remember its first weights.
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


def fit(module: _Module, batches: TensorBatches, folder, run: dict, description: str = "training") -> float:
    """Train a module in place: from the start, from where an interrupted run stopped, or not at all if it is done.

    The module ends in evaluation mode on the CPU, with the weights of lowest validation loss (averaged ones where an average is
    kept).

    Args:
        module: what to train.
        batches: its data.
        folder: where checkpoints and the loss curve go.
        run: plain values that identify the run; a folder with others is refused.
        description: of the progress bar.

    Returns:
        Seconds of training, over all interruptions.

    Raises:
        ValueError: the folder holds a run with other settings.
        FloatingPointError: the loss is not finite.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, run)
    done = folder / "done.json"
    if not done.exists():
        _run_trainer(module, batches, folder, description)
        write_atomically(done, json.dumps({"seconds": batches.seconds}))
    module.load_state_dict(torch.load(folder / "best.ckpt", map_location="cpu", weights_only=False)["state_dict"])
    module.cpu().eval()
    return json.loads(done.read_text())["seconds"]


def _run_trainer(module: _Module, batches: TensorBatches, folder: Path, description: str) -> None:
    steps = module.optimization.steps
    callbacks: list[L.Callback] = [
        ModelCheckpoint(folder, "best", monitor="val_loss", enable_version_counter=False),
        ModelCheckpoint(folder, "last", train_time_interval=CHECKPOINT_EVERY, enable_version_counter=False),
        _StopOnNaN(),
    ]
    if module.optimization.ema:
        callbacks.append(WeightEMA(module.optimization.ema))
    if settings.show_progress():
        callbacks.append(_Progress(description))
    last = folder / "last.ckpt"
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        trainer = L.Trainer(
            max_steps=steps,
            devices=1,
            precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
            logger=CSVLogger(folder, name="", version=f"log-{time.time_ns()}"),
            callbacks=callbacks,
            gradient_clip_val=1.0,
            val_check_interval=max(steps // 20, 1),
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
            enable_progress_bar=settings.show_progress(),
            enable_model_summary=False,
        )
        trainer.fit(module, batches, ckpt_path=last if last.exists() else None, weights_only=False)


def seconds_per_step(module: _Module, batches: TensorBatches, trials: int = 4) -> float:
    """Time of one training step on this machine, measured on a copy of the module: what a run will cost, before it starts."""
    device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    module = copy.deepcopy(module).to(device)
    optimizer = torch.optim.AdamW(module.parameters())
    batch = tuple(column.to(device) for column in batches.train[torch.arange(module.optimization.batch)])
    for trial in range(trials + 1):
        if trial == 1:  # the first one warms up
            start = time.perf_counter()
        optimizer.zero_grad()
        module.loss(batch, module.generator(trial)).backward()
        optimizer.step()
    return (time.perf_counter() - start) / trials


class _StopOnNaN(L.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if not bool(torch.isfinite(outputs["loss"])):
            raise FloatingPointError(f"the loss is {float(outputs['loss'])} at step {trainer.global_step}; the last checkpoint is intact")


def _claim(folder: Path, run: dict) -> None:
    file = folder / "run.json"
    run = json.loads(json.dumps(run))
    if file.exists():
        before = json.loads(file.read_text())
        for key in sorted(before.keys() | run.keys()):
            if before.get(key) != run.get(key):
                raise ValueError(
                    f"{folder} holds a run with {key} = {before.get(key)!r}, not {run.get(key)!r}; choose another folder or delete this one"
                )
    else:
        write_atomically(file, json.dumps(run, indent=1))


def loss_curve(folder) -> dict[str, list[tuple[int, float]]]:
    """Losses that `fit` logged in a folder, over all its interruptions: {"loss" | "val_loss": [(step, value), …]}."""
    curves: dict[str, dict[int, float]] = {"loss": {}, "val_loss": {}}
    for file in sorted(Path(folder).glob("log-*/metrics.csv")):
        with file.open() as rows:
            for row in csv.DictReader(rows):
                for name, curve in curves.items():
                    if row.get(name):
                        curve[int(row["step"])] = float(row[name])
    return {name: sorted(curve.items()) for name, curve in curves.items()}


# The embedded data set


def train_tiles(
    recipe: dict, folder, seed: int = 0, method: str = "riemannian", encoder: TileEncoder | None = None, say=print
) -> tuple[nn.Module, TileEncoder, dict]:
    """Encoder, embeddings, network: the paper's pipeline in small. A folder that holds part of the run is continued.

    Args:
        recipe: see `geoflow/recipes/tiles.yaml`. Every method has its batches, steps and optimiser.
        folder: of the run: `encoder/` and `flow/`.
        seed: of weights, batches and noise; tiles are the same for every seed.
        method: see `geoflow.methods`.
        encoder: a trained one, in place of training one.
        say: takes lines of text about what happens.

    Returns:
        Network, encoder and provenance.

    Raises:
        ValueError: a method that is not trained.
    """
    folder = Path(folder)
    run = {"recipe": recipe, "seed": seed, "method": method}
    train, validation = tiles.load("train", recipe["tiles"]), tiles.load("validation", recipe["validation_tiles"])
    seconds = {}

    width = recipe["encoder"]["dim"]

    L.seed_everything(seed, verbose=False)
    teacher = None
    if encoder is None:
        encoder = TileEncoder(width)
        o = Optimization(**recipe["encoder"]["optimization"])
        teacher = EncoderModule(GeocellClassifier(encoder, recipe["encoder"]["geocells"]), o, seed)
    module = network_module(recipe, method, seed)
    optimization = module.optimization

    dummy = TensorBatches((torch.zeros(optimization.batch, width), train.x[: optimization.batch]), (), optimization)
    minutes = f"{seconds_per_step(module, dummy) * optimization.steps / 60:.1f} min ({method})"
    if teacher is not None:
        batches = TensorBatches((train.images, train.x), (validation.images, validation.x), teacher.optimization, seed)
        minutes = f"{seconds_per_step(teacher, batches) * teacher.optimization.steps / 60:.1f} min (encoder) + {minutes}"
    say(f"training from scratch takes about {minutes} on this machine")

    if teacher is not None:
        seconds["encoder"] = round(fit(teacher, batches, folder / "encoder", run, "encoder"))
        say(f"encoder: {teacher.optimization.steps} steps, {seconds['encoder'] / 60:.1f} min")
    batches = TensorBatches((encoder.embed(train.images), train.x), (encoder.embed(validation.images), validation.x), optimization, seed)
    seconds["flow"] = round(fit(module, batches, folder / "flow", run, method))
    say(f"{method}: {optimization.steps} steps, {seconds['flow'] / 60:.1f} min")
    return module.network, encoder, {**run, "seconds": seconds, "machine": machine(), "torch": torch.__version__}


def network_module(recipe: dict, method: str, seed: int = 0) -> "FlowModule | MixtureModule":
    """A method's network with fresh weights, ready to be trained by `fit`.

    Raises:
        ValueError: a method that is not trained.
    """
    flow, width = recipe["flow"], recipe["encoder"]["dim"]
    optimization = Optimization(**flow["optimization"])
    if method in paths.PATHS:
        path = paths.by_name(method)
        network = methods.network_for(method, {"cond_dim": width, **flow["network"], "tangent": path.tangent})
        return FlowModule(network, path, schedules.by_name(flow["schedule"]), optimization, flow["draws"], flow["dropout"], seed)
    components = 1 if method == "vmf" else recipe["components"]
    size = {key: flow["network"][key] for key in ("dim", "depth")}
    return MixtureModule(methods.network_for(method, {"cond_dim": width, "components": components, **size}), optimization, seed)


def machine() -> str:
    """The hardware in words: accelerator if there is one, else the number of CPU threads in use."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else f"{torch.get_num_threads()} CPU threads, {platform.machine()}"
