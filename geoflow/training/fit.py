"""Training through Lightning: modules, batches, averaging, checkpoints. No mathematics lives here.

A run is a folder: `last.ckpt` and `best.ckpt` to resume from, `log-…/` with the loss curve (`metrics.csv`, and for
TensorBoard). Batches depend on the seed
and the step alone, so a run that was interrupted and resumed sees the same data, noise and dropout as one that was not.
"""

import copy
import csv
import hashlib
import json
import logging
import math
import time
import warnings
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint, TQDMProgressBar, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor, nn

from geoflow import losses, methods, paths, runtime, schedules, sphere
from geoflow.data import tiles
from geoflow.data.shards import SAMPLE_OVERHEAD, Shards
from geoflow.encoders import GeocellClassifier, TileEncoder
from geoflow.losses import WHOLE, Share
from geoflow.runtime import choose, machine, write_atomically
from geoflow.schedules import Schedule
from geoflow.training.batches import Batches, Rows, StreamBatches, TensorBatches

OPTIMIZERS = ("adamw", "lamb")
CHECKPOINT_EVERY = timedelta(seconds=20)


@dataclass(frozen=True)
class Optimization:
    """How a module is optimised: linear warm-up, cosine decay to zero, clipped gradients.

    Attributes:
        steps: optimiser steps.
        batch: images per step, over all devices.
        lr: peak learning rate.
        weight_decay: of all weights.
        warmup: steps to the peak.
        ema: decay of the weight average; 0 keeps none.
        optimizer: `adamw`, or `lamb` as in the paper.
    """

    steps: int
    batch: int
    lr: float
    weight_decay: float = 0.0
    warmup: int = 100
    ema: float = 0.0
    optimizer: str = "adamw"

    def optimizer_of(self, parameters) -> torch.optim.Optimizer:
        """The optimiser of a module's parameters, at the peak learning rate.

        Raises:
            ValueError: an unknown optimiser.
        """
        if choose("optimizer", self.optimizer, OPTIMIZERS) == "lamb":
            from pytorch_optimizer import Lamb

            parameters = list(parameters)
            foreach = (
                None if parameters[0].is_cuda else False
            )  # one tensor after the other stays in a CPU's cache
            # decay is added before the trust ratio, as in LAMB's paper
            return Lamb(
                parameters,
                lr=self.lr,
                weight_decay=self.weight_decay,
                weight_decouple=False,
                foreach=foreach,
            )
        return torch.optim.AdamW(parameters, lr=self.lr, weight_decay=self.weight_decay)

    def lr_factor(self, step: int) -> float:
        """Learning rate at a step, relative to the peak."""
        return (
            min(1.0, (step + 1) / self.warmup)
            * 0.5
            * (1 + math.cos(math.pi * min(step / self.steps, 1.0)))
        )


class _Module(L.LightningModule):
    """What all trainings share: the optimiser, and randomness keyed by (seed, step)."""

    def __init__(self, optimization: Optimization, seed: int):
        super().__init__()
        self.optimization = optimization
        self.seed = seed

    def loss(self, batch, generator: torch.Generator, share: Share = WHOLE) -> Tensor:
        """The loss of a process's share of a batch, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} defines no loss")

    def configure_optimizers(self):
        o = self.optimization
        optimizer = o.optimizer_of(self.parameters())
        scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, o.lr_factor)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
        }

    def generator(self, step: int) -> torch.Generator:
        """Source of randomness of one step, the same on every process."""
        return torch.Generator(self.device).manual_seed((self.seed * 1_000_003 + step) * 4099)

    def training_step(self, batch, _):
        loss = self.loss(
            batch,
            self.generator(self.global_step),
            (self.trainer.global_rank, self.trainer.world_size),
        )
        self.log("loss", loss, prog_bar=True, sync_dist=True)
        return loss

    def validation_step(self, batch, index):
        loss = self.loss(batch, self.generator(-1 - index))
        self.log("val_loss", loss, prog_bar=True, batch_size=len(batch[1]), sync_dist=True)


class EncoderModule(_Module):
    """Trains an encoder to tell in which geocell a tile lies. Batches: (pixels (B, 3, H, W) uint8, x (B, 3))."""

    def __init__(self, classifier: GeocellClassifier, optimization: Optimization, seed: int = 0):
        super().__init__(optimization, seed)
        self.classifier = classifier

    def loss(self, batch, generator, share=WHOLE):
        pixels, x = batch
        return nn.functional.cross_entropy(self.classifier(pixels), self.classifier.cell_of(x))


class FlowModule(_Module):
    """Trains a velocity network on embeddings. Batches: (cond (B, C), x (B, 3))."""

    def __init__(
        self,
        network: nn.Module,
        path,
        schedule: Schedule,
        optimization: Optimization,
        draws: int,
        dropout: float,
        seed: int = 0,
    ):
        super().__init__(optimization, seed)
        self.network = network
        self.path = path
        self.schedule = schedule
        self.draws = draws
        self.dropout = dropout

    def loss(self, batch, generator, share=WHOLE):
        cond, x = batch
        return losses.flow_matching_loss(
            self.network,
            self.path,
            x,
            cond,
            schedule=self.schedule,
            draws=self.draws,
            dropout=self.dropout,
            generator=generator,
            share=share,
        )


class MixtureModule(_Module):
    """Trains a network of vMF mixtures on embeddings. Batches: (cond (B, C), x (B, 3))."""

    def __init__(self, network: nn.Module, optimization: Optimization, seed: int = 0):
        super().__init__(optimization, seed)
        self.network = network

    def loss(self, batch, generator, share=WHOLE):
        cond, x = batch
        return losses.likelihood_loss(self.network, x, cond)


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


def fit(
    module: _Module,
    batches: Batches,
    folder,
    run: dict,
    description: str = "training",
    devices: int = 1,
    nodes: int = 1,
    wandb: str | None = None,
) -> float:
    """Train a module in place: from the start, from where an interrupted run stopped, or not at all if it is done.

    The module ends in evaluation mode on the CPU, with the weights of lowest validation loss (averaged ones where an average is
    kept).

    Args:
        module: what to train.
        batches: its data.
        folder: where checkpoints and the loss curve go.
        run: plain values that identify the run; a folder with others is refused.
        description: of the progress bar.
        devices: GPUs, or CPU processes, of each machine. Under `torchrun` or SLURM as many as were started there.
        nodes: machines.
        wandb: Weights & Biases project that gets the loss curve too; by default it goes to a csv and to TensorBoard, in the folder.

    Returns:
        Seconds of training, over all interruptions.

    Raises:
        ValueError: the folder holds a run with other settings, or wandb is not installed.
        FloatingPointError: the loss is not finite.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, run)
    done = folder / "done.json"
    if not done.exists():
        _run_trainer(module, batches, folder, description, devices, nodes, _loggers(folder, wandb))
        write_atomically(done, json.dumps({"seconds": batches.seconds}))
    module.load_state_dict(
        torch.load(folder / "best.ckpt", map_location="cpu", weights_only=False)["state_dict"]
    )
    module.cpu().eval()
    return json.loads(done.read_text())["seconds"]


def _run_trainer(
    module: _Module,
    batches: Batches,
    folder: Path,
    description: str,
    devices: int,
    nodes: int,
    loggers: list[Logger],
) -> None:
    steps = module.optimization.steps
    callbacks: list[L.Callback] = [
        ModelCheckpoint(folder, "best", monitor="val_loss", enable_version_counter=False),
        ModelCheckpoint(
            folder, "last", train_time_interval=CHECKPOINT_EVERY, enable_version_counter=False
        ),
        _StopOnNaN(),
    ]
    if module.optimization.ema:
        callbacks.append(WeightEMA(module.optimization.ema))
    if runtime.show_progress():
        callbacks.append(_Progress(description))
    last = folder / "last.ckpt"
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        trainer = L.Trainer(
            max_steps=steps,
            devices=devices,
            num_nodes=nodes,
            strategy="ddp" if devices * nodes > 1 else "auto",
            use_distributed_sampler=False,  # ours knows the ranks
            precision="bf16-mixed" if torch.cuda.is_available() else "32-true",
            logger=loggers,
            callbacks=callbacks,
            gradient_clip_val=1.0,
            val_check_interval=max(steps // 20, 1),
            check_val_every_n_epoch=None,
            num_sanity_val_steps=0,
            log_every_n_steps=10,
            enable_progress_bar=runtime.show_progress(),
            enable_model_summary=False,
        )
        trainer.fit(module, batches, ckpt_path=last if last.exists() else None, weights_only=False)


def seconds_per_step(module: _Module, batches: Batches, trials: int = 4) -> float:
    """Time of one training step on this machine, measured on a copy of the module: what a run will cost, before it starts."""
    device = (
        "cuda"
        if torch.cuda.is_available()
        else "mps"
        if torch.backends.mps.is_available()
        else "cpu"
    )
    module = copy.deepcopy(module).to(device)
    optimizer = module.optimization.optimizer_of(module.parameters())
    batch = tuple(column.to(device) for column in batches.example())
    for trial in range(trials + 1):
        if trial == 1:  # the first one warms up
            start = time.perf_counter()
        optimizer.zero_grad()
        module.loss(batch, module.generator(trial)).backward()
        optimizer.step()
    return (time.perf_counter() - start) / trials


def _loggers(folder: Path, wandb: str | None) -> list[Logger]:
    version = f"log-{time.time_ns()}"
    loggers: list[Logger] = [
        CSVLogger(folder, name="", version=version),
        TensorBoardLogger(folder, name="", version=version),
    ]
    if wandb:
        try:
            loggers.append(WandbLogger(project=wandb, name=folder.parent.name, save_dir=folder))
        except ModuleNotFoundError as error:
            raise ValueError(
                f"to log to the Weights & Biases project {wandb!r}, install it: pip install wandb"
            ) from error
    return loggers


class _StopOnNaN(L.Callback):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        if not bool(torch.isfinite(outputs["loss"])):
            raise FloatingPointError(
                f"the loss is {float(outputs['loss'])} at step {trainer.global_step}; the last checkpoint is intact"
            )


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
    recipe: dict,
    folder,
    seed: int = 0,
    method: str = "riemannian",
    encoder: TileEncoder | None = None,
    say=print,
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
    train, validation = (
        tiles.load("train", recipe["tiles"]),
        tiles.load("validation", recipe["validation_tiles"]),
    )
    seconds = {}

    width = recipe["encoder"]["dim"]

    L.seed_everything(seed, verbose=False)
    teacher = None
    if encoder is None:
        encoder = TileEncoder(width)
        o = Optimization(**recipe["encoder"]["optimization"])
        teacher = EncoderModule(GeocellClassifier(encoder, recipe["encoder"]["geocells"]), o, seed)
    module = network_module(recipe, method, width, seed)
    optimization = module.optimization

    nothing = Rows((torch.zeros(len(train), 1).expand(-1, width), train.x))
    dummy = TensorBatches(nothing, nothing, optimization.batch, optimization.steps)
    minutes = f"{seconds_per_step(module, dummy) * optimization.steps / 60:.1f} min ({method})"
    if teacher is not None:
        rows, judged = Rows((train.images, train.x)), Rows((validation.images, validation.x))
        batches = TensorBatches(
            rows, judged, teacher.optimization.batch, teacher.optimization.steps, seed
        )
        minutes = f"{seconds_per_step(teacher, batches) * teacher.optimization.steps / 60:.1f} min (encoder) + {minutes}"
    say(f"training from scratch takes about {minutes} on this machine")

    if teacher is not None:
        seconds["encoder"] = round(fit(teacher, batches, folder / "encoder", run, "encoder"))
        say(f"encoder: {teacher.optimization.steps} steps, {seconds['encoder'] / 60:.1f} min")
    rows, judged = (
        Rows((encoder.embed(train.images), train.x)),
        Rows((encoder.embed(validation.images), validation.x)),
    )
    batches = TensorBatches(rows, judged, optimization.batch, optimization.steps, seed)
    seconds["flow"] = round(fit(module, batches, folder / "flow", run, method))
    say(f"{method}: {optimization.steps} steps, {seconds['flow'] / 60:.1f} min")
    return (
        module.network,
        encoder,
        {**run, "seconds": seconds, "machine": machine(), "torch": torch.__version__},
    )


def train_shards(
    recipe: dict,
    data: list[Shards],
    folder,
    seed: int = 0,
    method: str = "riemannian",
    devices: int = 1,
    nodes: int = 1,
    stream: bool = False,
    wandb: str | None = None,
    say=print,
) -> tuple[nn.Module, dict]:
    """Train a network on shards of embeddings. A folder that holds part of the run is continued.

    Args:
        recipe: see `geoflow/recipes`.
        data: folders of shards; one given twice counts twice in an epoch. The last shard of each folder validates.
        folder: of the run.
        seed: of weights, batches and noise.
        method: see `geoflow.methods`.
        devices, nodes: see `fit`.
        stream: read shards as they are needed, in place of unpacking them once to a memory-mapped file. Memory and disk then do not
            grow with the data, but samples are mixed within groups of shards only.
        wandb: see `fit`.
        say: takes lines of text about what happens.

    Returns:
        Network and provenance.

    Raises:
        ValueError: a method that is not trained, embeddings of different encoders, or a folder with a single shard.
    """
    dims = {
        (shards.field, shards.dim, json.dumps(shards.encoder.get("weights"))) for shards in data
    }
    if len(dims) != 1:
        raise ValueError(
            f"embeddings of different encoders: {', '.join(f'{field} ({dim}, weights {w})' for field, dim, w in sorted(dims))}"
        )
    for shards in data:
        if len(shards.files) < 2:
            raise ValueError(
                f"{shards.files[0].parent} has a single shard; expected at least 2, as the last one validates"
            )
    width = data[0].dim
    folder = Path(folder)
    L.seed_everything(seed, verbose=False)
    module = network_module(recipe, method, width, seed)
    o = module.optimization
    judged = Rows(
        *(shards.last() for shards in {shards.files[0]: shards for shards in data}.values())
    )
    if stream:
        batches: Batches = StreamBatches(
            [shards.but_last() for shards in data], judged, o.batch, o.steps, seed
        )
    else:
        batches = TensorBatches(
            Rows(*(shards.but_last().mapped() for shards in data)), judged, o.batch, o.steps, seed
        )
    images = sum(len(shards.but_last()) for shards in data)
    hours = seconds_per_step(module, batches) * o.steps / 3600
    say(
        f"{images:,} images, {o.steps:,} steps of {o.batch:,} ({o.steps * o.batch / images:.1f} epochs): {hours:.2f} h on one device"
    )
    run = {
        "recipe": recipe,
        "seed": seed,
        "method": method,
        "data": [str(shards.files[0].parent) for shards in data],
        "stream": stream,
    }
    seconds = {
        "flow": round(fit(module, batches, folder / "flow", run, method, devices, nodes, wandb))
    }
    say(f"{method}: {o.steps:,} steps, {seconds['flow'] / 60:.1f} min")
    return module.network, {
        **run,
        "seconds": seconds,
        "machine": machine(),
        "torch": torch.__version__,
    }


def train_points(
    recipe: dict, train: Tensor, validation: Tensor, folder, seed: int = 0, say=print
) -> tuple[nn.Module, float]:
    """Train an unconditional Riemannian flow on points. A folder that holds part of the run is continued.

    Args:
        recipe: see `geoflow/recipes/earth-events.yaml`.
        train, validation: (n, 3) unit vectors; the weights of lowest validation loss are kept.
        folder: of the run.
        seed: of weights, batches and noise.
        say: takes lines of text about what happens.

    Returns:
        The network, and the seconds of its training over all interruptions.
    """
    L.seed_everything(seed, verbose=False)
    module = network_module(recipe, "riemannian", 0, seed)
    o = module.optimization
    points, judged = (Rows((torch.zeros(len(x), 0), x.float())) for x in (train, validation))
    batches = TensorBatches(points, judged, min(o.batch, len(train)), o.steps, seed)
    say(
        f"{len(train):,} points, {o.steps:,} steps: {seconds_per_step(module, batches) * o.steps / 60:.1f} min on this machine"
    )
    identity = hashlib.sha256(
        torch.cat([train, validation]).double().numpy().tobytes()
    ).hexdigest()[:16]
    seconds = fit(
        module, batches, Path(folder), {"recipe": recipe, "seed": seed, "points": identity}, "flow"
    )
    say(f"{o.steps:,} steps, {seconds / 60:.1f} min")
    return module.network, seconds


def network_module(
    recipe: dict, method: str, width: int, seed: int = 0
) -> "FlowModule | MixtureModule":
    """A method's network for embeddings of a width, with fresh weights, ready to be trained by `fit`.

    Raises:
        ValueError: a method that is not trained.
    """
    flow = recipe["flow"]
    optimization = Optimization(**flow["optimization"])
    if method in paths.PATHS:
        path = paths.by_name(method)
        network = methods.network_for(
            method, {"cond_dim": width, **flow["network"], "tangent": path.tangent}
        )
        return FlowModule(
            network,
            path,
            schedules.by_name(flow["schedule"]),
            optimization,
            flow["draws"],
            flow["dropout"],
            seed,
        )
    components = 1 if method == "vmf" else recipe["components"]
    size = {key: flow["network"][key] for key in ("dim", "depth")}
    return MixtureModule(
        methods.network_for(method, {"cond_dim": width, "components": components, **size}),
        optimization,
        seed,
    )


def plan(
    recipe: dict, method: str = "riemannian", devices: int = 1, width: int = 1024
) -> dict[str, float]:
    """What a training on shards of embeddings will take, from some steps measured on this machine.

    Args:
        recipe: see `geoflow/recipes`; with `images`, their number.
        method: see `geoflow.methods`.
        devices: that share each batch; they are taken to be as fast as this machine, and their communication to cost nothing.
        width: C, of the embeddings.

    Returns:
        `parameters`; `steps`; `samples` seen; `epochs`; `shards_gb` and `unpacked_gb` on disk (unpacked is not needed for streaming);
        `state_gb`, weights, gradients, optimiser and average on each device (activations come on top); `seconds_per_step`; `hours`.

    Raises:
        ValueError: a method that is not trained, or a batch that is no multiple of the devices.
    """
    module = network_module(recipe, method, width)
    o, images = module.optimization, recipe["images"]
    if devices < 1 or o.batch % devices:
        raise ValueError(
            f"a batch of {o.batch} over {devices} devices; expected a multiple of at least one"
        )
    share = o.batch // devices
    rows = Rows(
        (torch.zeros(share, width), sphere.uniform(share, torch.Generator().manual_seed(0)))
    )
    seconds = seconds_per_step(module, TensorBatches(rows, rows, share, o.steps))
    parameters = sum(weight.numel() for weight in module.network.parameters())
    return {
        "parameters": parameters,
        "steps": o.steps,
        "samples": o.steps * o.batch,
        "epochs": o.steps * o.batch / images,
        "shards_gb": images * (2 * width + SAMPLE_OVERHEAD) / 1e9,
        "unpacked_gb": images * (2 * width + 12) / 1e9,
        "state_gb": parameters * 4 * (5 if o.ema else 4) / 1e9,
        "seconds_per_step": seconds,
        "hours": seconds * o.steps / 3600,
    }


def is_first_process() -> bool:
    """Whether this process speaks and writes for all: rank 0, or the only one."""
    return getattr(rank_zero_only, "rank", 0) == 0
