"""Runs a training with Lightning: checkpoints, interruptions, averaged weights, the loss curve.

A run is a folder. It holds `run.json`, the plain values that identify it; `last.ckpt` and
`best.ckpt`, see `checkpoints`; `log-…/`, the loss curve as `metrics.csv` and for TensorBoard; and
`done.json` when it has ended. Batches depend on the seed and the step alone, so a run that was
interrupted and resumed ends with the same weights as one that was not.
"""

import contextlib
import copy
import csv
import errno
import logging
import math
import re
import threading
import time
import warnings
from collections.abc import Generator
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import TQDMProgressBar, WeightAveraging
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger
from torch import Tensor

from geoflow import runtime
from geoflow.runtime import count
from geoflow.training import checkpoints
from geoflow.training.batches import Batches
from geoflow.training.interruptions import Interruptions
from geoflow.training.modules import Module, Optimization
from geoflow.velocity import in_float32

LONG = 10.0  # seconds after which no further step is measured
PARTIAL = re.compile(r"(.+\.ckpt|run\.json|done\.json)" + runtime.PARTIAL)
COPIES = 5  # checkpoints on the disk at a time: last, best, those before, and one being written


def fit(
    module: Module, batches: Batches, folder, run: dict, devices=1, nodes=1, wandb=None, log=print
) -> float:
    """Train a module in place: from the start, from an interruption, or not at all if it is done.

    The module ends in evaluation mode on the CPU, with the weights of lowest validation loss (the
    averaged ones where an average is kept). Ctrl-C and SIGTERM end the training after the step
    under way, which is kept.

    Args:
        folder: folder of checkpoints and the loss curve.
        run: plain values that identify the run; a folder with other values is refused.
        devices: GPUs, or CPU processes, of each machine; under `torchrun` or SLURM as many as
            were started there.
        nodes: number of machines.
        wandb: Weights & Biases project that gets the loss curve too.
        log: is told where the training goes on, and how it ended.

    Returns:
        Seconds of training, over all interruptions.

    Raises:
        ValueError: the folder holds another run or damaged files, or wandb is not installed.
        OSError: another process trains there, or the disk is full.
        FloatingPointError: the loss is not finite; the last checkpoint is from before.
        KeyboardInterrupt: it was interrupted; the message says what is kept.
    """
    folder = Path(folder)
    first = runtime.is_first_process()  # it speaks and writes for all
    with runtime.alone(folder) if first else contextlib.nullcontext():
        if first:
            runtime.claim(folder, run)
        if not (folder / "done.json").exists():
            try:
                _train(module, batches, folder, (devices, nodes, wandb), log)
            finally:
                module.recorded = None  # weights will leave the memory that it reads
        end = ended(folder)
        steps = range(module.optimization.steps + 1)
        weights = {"state_dict": module.state_dict(), "global_step": steps}
        best = checkpoints.newest(folder / "best.ckpt", weights, log)
        if best is None or best[1]["global_step"] != end.get("best_step", best[1]["global_step"]):
            file = folder / "best.ckpt"
            text = f"{file}, the best weights of this finished training, is gone or damaged"
            raise OSError(f"{text}; its model stays as it is: delete {folder} to train anew")
        module.load_state_dict(best[1]["state_dict"])
    module.cpu().eval()
    return end["seconds"]


def ended(folder) -> dict:
    """How a run ended, by its `done.json`: `seconds`, and the `step` it ended at if that is known;
    empty while it has not.
    """
    file = Path(folder) / "done.json"
    if not file.exists():
        return {}
    found = runtime.read_json(file, dict)
    if not isinstance(found.get("seconds"), int | float):
        raise ValueError(f"{file} is damaged: it lacks the seconds of the training")
    for name in ("step", "best_step"):
        if type(step := found.get(name, 0)) is not int or step < 0:
            raise ValueError(f"{file} is damaged: {name} = {step!r}, expected a number of steps")
    return found


def _train(module: Module, batches: Batches, folder: Path, machines: tuple, log) -> None:
    """Run Lightning's loop to the end of the training, from the newest checkpoint."""
    o = module.optimization
    if runtime.is_first_process():
        for left in filter(lambda file: PARTIAL.fullmatch(file.name), folder.iterdir()):
            left.unlink()  # left by a process that was killed
        size = 4 * sum(weight.numel() for weight in module.state_dict().values())
        runtime.require_space(folder, COPIES * (4 if o.ema else 3) * size, "choose another folder")
    found = checkpoints.newest(folder / "last.ckpt", _needed(module, batches), log)
    if found is not None:
        log(f"{folder}: goes on at step {found[1]['global_step']:,} of {o.steps:,}")
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings(), _full_disk_named(folder), Interruptions() as interruptions:
        warnings.filterwarnings("ignore", module="lightning")
        warnings.filterwarnings("ignore", message=".*LeafSpec.*")
        keep = checkpoints.Checkpoints(folder, o, interruptions)
        trainer = _trainer(o, folder, keep, batches.order.interval, *machines)
        with _resuming_from(found and found[0], keep), _training_precision():
            trainer.fit(module, batches, ckpt_path=found and str(found[0]), weights_only=True)
    step = trainer.global_step
    if step < o.steps:
        text = f"the validation loss has not fallen since step {keep.best_step:,}"
        log(f"stopped early, at step {step:,} of {o.steps:,}: {text}, whose weights are kept")
    end = {"seconds": batches.seconds, "step": step, "best_step": keep.best_step}
    runtime.write_json(folder / "done.json", end)


@contextlib.contextmanager
def _resuming_from(file: Path | None, keep: checkpoints.Checkpoints) -> Generator[None]:
    """A `ValueError` that names the checkpoint if no step can be taken from it."""
    try:
        yield
    except Exception as error:  # Lightning's and torch's, whatever is wrong with a state
        if file is None or keep.begun or isinstance(error, OSError | FloatingPointError):
            raise
        said = " ".join(f"{type(error).__name__}: {error}".split())
        advice = f"delete it to go on from the one before, or {file.parent} to train anew"
        raise ValueError(f"{file} is damaged: no step follows it ({said}); {advice}") from error


def _training_precision():
    """TF32 on a GPU, which is faster than bfloat16 for networks of this size."""
    return in_float32(runtime.device(), "high")


@contextlib.contextmanager
def _full_disk_named(folder: Path) -> Generator[None]:
    """Say which training a full disk ends, whichever log or checkpoint met it first.

    TensorBoard writes in a thread, which hands its error on to this one and prints it besides.
    """
    printed = threading.excepthook
    threading.excepthook = lambda e: None if isinstance(e.exc_value, OSError) else printed(e)
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise
        text = f"the training in {folder} cannot write: {error.strerror}"
        raise OSError(
            f"{text}; its checkpoints are kept, and it goes on when there is room"
        ) from error
    finally:
        threading.excepthook = printed


def _needed(module: Module, batches: Batches) -> dict[str, Any]:
    """What `last.ckpt` must hold to go on from it."""
    weights = module.state_dict()
    plain = {"lr_schedulers": list, "loops": dict, "callbacks": dict, type(batches).__name__: dict}
    steps = range(module.optimization.steps + 1)
    needed = {"state_dict": weights, "global_step": steps, "optimizer_states": list, **plain}
    return needed | ({"current_model_state": weights} if module.optimization.ema else {})


def _trainer(
    o: Optimization,
    folder: Path,
    keep: checkpoints.Checkpoints,
    interval: int,
    devices: int,
    nodes: int,
    wandb: str | None,
):
    if devices > (gpus := torch.cuda.device_count()) > 0:
        raise ValueError(f"--devices {devices}; this machine has {count(gpus, 'GPU')}")
    callbacks: list[L.Callback] = [keep]
    if o.ema:
        callbacks.append(WeightEMA(o.ema))
    if runtime.show_progress():
        callbacks.append(_Progress(folder.name))
    return L.Trainer(
        max_steps=o.steps,
        devices=devices,
        num_nodes=nodes,
        strategy="ddp" if devices * nodes > 1 else "auto",
        use_distributed_sampler=False,  # `batches` knows the ranks
        precision="32-true",  # and TF32 on a GPU, see `_training_precision`
        logger=_loggers(folder, wandb),
        callbacks=callbacks,
        plugins=[checkpoints.PlainCheckpoints()],
        gradient_clip_val=1.0,
        val_check_interval=interval,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=10,
        enable_progress_bar=runtime.show_progress(),
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
        super().__init__(use_buffers=False)
        self.decay = decay

    @torch.no_grad()
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        """Average after a step, without `AveragedModel`, which makes a GPU wait for its count."""
        averaged, n = self._average_model, trainer.global_step - 1
        assert averaged is not None
        if trainer.global_step > self._latest_update_step:
            mine: list[Tensor] = list(averaged.module.parameters())
            current: list[Tensor] = list(pl_module.parameters())
            decay = min(self.decay, (1 + n) / (10 + n)) if n else 0.0
            torch._foreach_lerp_(mine, current, 1 - decay)
            for kept, new in zip(averaged.module.buffers(), pl_module.buffers(), strict=True):
                kept.copy_(new)
            averaged.n_averaged += 1
            self._latest_update_step = trainer.global_step


class _Progress(TQDMProgressBar):
    """One bar over all steps, with the loss: of each step, or of every tenth if they are short."""

    def __init__(self, description: str):
        super().__init__()
        self.description, self.begun = description, math.inf

    @property
    def refresh_rate(self) -> int:
        return 10 if time.perf_counter() - self.begun < 1 else 1

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.begun = time.perf_counter()

    def on_train_epoch_start(self, trainer, *_):
        super().on_train_epoch_start(trainer)
        self.train_progress_bar.initial = trainer.global_step
        self.train_progress_bar.reset(total=trainer.max_steps)
        self.train_progress_bar.set_description(self.description)


def seconds_per_step(module: Module, batches: Batches, trials: int = 4) -> float:
    """Measure one training step on this machine, on a copy of the module.

    The first step only warms up, unless it takes so long that no other is needed.
    """
    mps = "mps" if torch.backends.mps.is_available() else "cpu"
    device = "cuda" if torch.cuda.is_available() else mps
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    module = copy.deepcopy(module).to(device)
    optimizer = module.optimization.optimizer_of(module.parameters())
    batch = tuple(column.to(device) for column in batches.example())
    took: list[float] = []
    while len(took) <= trials and sum(took) < LONG:
        start = time.perf_counter()
        optimizer.zero_grad()
        with _training_precision():
            module.loss_of_step(batch, len(took)).backward()
        optimizer.step()
        wait()
        took.append(time.perf_counter() - start)
    steps = took[1:] or took
    return sum(steps) / len(steps)


def loss_curve(folder) -> dict[str, list[tuple[int, float]]]:
    """{"loss": [(step, value), …], "val_loss": …} of a run, over all its interruptions.

    >>> loss_curve("a folder without a run")
    {'loss': [], 'val_loss': []}

    Raises:
        ValueError: a file is damaged.
    """
    curves: dict[str, dict[int, float]] = {"loss": {}, "val_loss": {}}
    for file in sorted(Path(folder).glob("log-*/metrics.csv")):
        try:
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            whole = [line for line in lines if line.endswith("\n")]  # the last may be cut off
            for row in csv.DictReader(whole):
                for name, curve in curves.items():
                    if row.get(name):
                        curve[int(row["step"])] = float(row[name])
        except (KeyError, TypeError, ValueError, csv.Error) as error:
            raise ValueError(f"{file} is damaged: {error!r}") from error
    return {name: sorted(curve.items()) for name, curve in curves.items()}
