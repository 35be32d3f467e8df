"""Checkpoints of a training: whole or not there, the one before kept, plain tensors only.

A run's folder holds `last.ckpt`, to resume from, and `best.ckpt`, the weights of lowest validation
loss. Beside each lies the one before it (`last.previous.ckpt`), which is used if it is damaged.
Nothing from a file is executed: what is more than tensors and plain values is refused.
"""

import io
import math
import os
import pickle
import time
import zipfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Checkpoint
from lightning.pytorch.plugins.io import TorchCheckpointIO

from geoflow import runtime
from geoflow.training.interruptions import Interruptions
from geoflow.training.modules import Optimization

EVERY = timedelta(seconds=20)
UNCHECKED = 10  # losses are checked to be finite at least every so many steps
NAMES = ("last", "best")


def previous_of(file: Path) -> Path:
    """The checkpoint before: `last.ckpt` → `last.previous.ckpt`."""
    return file.with_name(f"{file.stem}.previous{file.suffix}")


def write(state: dict, file: Path) -> None:
    """Write a checkpoint, whole or not at all, and keep the one before.

    A process that is killed leaves `file` or the one before it, whole.

    Raises:
        OSError: it cannot be written; what was there is still there.
    """
    content = io.BytesIO()
    torch.save(state, content)
    try:
        with runtime.replacing(file) as partial:
            with partial.open("wb") as opened:
                opened.write(content.getbuffer())
                opened.flush()
                os.fsync(opened.fileno())
            if file.exists():
                file.replace(previous_of(file))
    except OSError as error:
        text = f"{file} could not be written: {error.strerror or error}"
        raise OSError(f"{text}; the checkpoint before it is kept") from error


def read(file: Path) -> dict[str, Any]:
    """The state in a checkpoint, on the CPU.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is damaged, or holds more than tensors and plain values, which are not opened
            because that would run code from the file.
    """
    if not file.is_file():
        raise FileNotFoundError(f"{file} is gone")
    try:
        with zipfile.ZipFile(file) as archive:
            if (part := archive.testzip()) is not None:
                raise zipfile.BadZipFile(f"{part} differs from its checksum")
        state = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        text = "it holds more than tensors and plain values, and opening that would run its code"
        raise ValueError(f"{file} is not a checkpoint of geoflow: {text}") from error
    except Exception as error:  # a crafted file makes the reader raise nearly anything
        why = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{file} is damaged: {why}") from error
    if not isinstance(state, dict):
        raise ValueError(f"{file} is damaged: it holds a {type(state).__name__}, not a state")
    return state


def newest(file: Path, needed: dict, log=print) -> tuple[Path, dict] | None:
    """The checkpoint `file`, or the one before if it is missing or damaged, which is said.

    Args:
        needed: what a state must hold: key → the value's kind, the range of a number, or the
            weights of `state_dict`.

    Returns:
        Where it lies and its state; None if there is neither.

    Raises:
        ValueError: both are damaged, or one is and the other is missing.
    """
    found = [place for place in (file, previous_of(file)) if place.is_file()]
    reasons = []
    for place in found:
        try:
            state = read(place)
            check(state, place, needed)
        except ValueError as error:
            reasons.append(str(error))
            continue
        if reasons:
            step = f"step {state['global_step']:,}"
            log(f"{reasons[0]}. The one before it, {place.name} of {step}, is used")
        return place, state
    if reasons:
        folder, both = file.parent, " and ".join(reasons)
        raise ValueError(f"{both}; delete {folder} to train anew")
    return None


def check(state: dict, file: Path, needed: dict) -> None:
    """A ValueError that names the file if a state lacks something or its weights do not fit."""
    for key, kind in needed.items():
        wanted = dict if isinstance(kind, dict) else int if isinstance(kind, range) else kind
        if not isinstance(state.get(key), wanted):
            holds = f"it holds {type(state.get(key)).__name__} as {key}"
            raise ValueError(f"{file} is damaged: {holds}, expected {wanted.__name__}")
        if isinstance(kind, dict):
            _check_weights(state[key], file, kind)
        if isinstance(kind, range) and state[key] not in kind:
            wrong = f"{key} = {state[key]!r}, expected 0 to {kind[-1]:,}"
            raise ValueError(f"{file} is damaged: {wrong}")
    optimizer = list(_tensors(state.get("optimizer_states")))
    missing = "optimizer_states" in needed and not optimizer
    if missing or not all(tensor.isfinite().all() for tensor in optimizer):
        raise ValueError(f"{file} is damaged: the optimiser's state is missing or not finite")


def _tensors(state) -> Iterator[torch.Tensor]:
    """All tensors in a nested state."""
    if torch.is_tensor(state):
        yield state
    parts = state.values() if isinstance(state, dict) else state if isinstance(state, list) else ()
    for part in parts:
        yield from _tensors(part)


def _check_weights(found: dict, file: Path, wanted: dict) -> None:
    for name in sorted(found.keys() | wanted.keys(), key=str):
        have, want = (_shape(weights.get(name)) for weights in (found, wanted))
        if have != want:
            raise ValueError(f"{file} does not fit: {name} is {have}, expected {want}")
        if not found[name].isfinite().all():
            raise ValueError(f"{file} is damaged: {name} is not finite")


def _shape(weight) -> str:
    if not torch.is_tensor(weight):
        return "nothing"
    return f"{str(weight.dtype).removeprefix('torch.')} {tuple(weight.shape)}"


class PlainCheckpoints(TorchCheckpointIO):
    """Lets Lightning write and read checkpoints by the functions of this module."""

    def save_checkpoint(self, checkpoint, path, storage_options=None) -> None:
        write(checkpoint, Path(path))

    def load_checkpoint(self, path, map_location=None, weights_only=True) -> dict:
        return read(Path(path))


class Checkpoints(Checkpoint):
    """Writes `best.ckpt` and `last.ckpt`, ends a training that no longer improves, and one that is
    interrupted.

    A step that is validated is saved after its validation, so a resumed run misses none.

    Args:
        folder: where to.
        optimization: whose patience ends a training.
        interruptions: asks to stop.
    """

    def __init__(self, folder: Path, optimization: Optimization, interruptions: Interruptions):
        self.folder, self.optimization, self.interruptions = folder, optimization, interruptions
        self.best, self.best_step, self.waited = math.inf, 0, 0
        self.begun = False  # whether a step has been taken
        self.unchecked: list[torch.Tensor] = []  # losses of the last steps, still on the device
        self.saved_at, self.at = time.monotonic(), 0

    def state_dict(self) -> dict:
        return {"best": self.best, "best_step": self.best_step, "waited": self.waited}

    def load_state_dict(self, state_dict: dict) -> None:
        best, *counts = (state_dict[name] for name in self.state_dict())
        if not isinstance(best, float) or best != best or any(type(n) is not int for n in counts):
            raise ValueError(f"{state_dict}; expected a loss and two numbers of steps")
        self.best, (self.best_step, self.waited) = best, counts

    def on_load_checkpoint(self, trainer, pl_module, checkpoint: dict) -> None:
        """Note its step; take the lowest loss from one that an earlier version wrote."""
        self.at = checkpoint["global_step"]
        for key, state in checkpoint["callbacks"].items():
            if key.startswith("ModelCheckpoint") and "'val_loss'" in key:
                self.best = float(state["best_model_score"] or math.inf)

    def on_train_start(self, trainer, pl_module) -> None:
        steps = {self.at, trainer.global_step, trainer.datamodule.order.first_step}
        if len(steps) > 1:
            raise ValueError(f"its parts are of steps {', '.join(map(str, steps))}")
        before = previous_of(self.folder / "last.ckpt")
        if trainer.is_global_zero and trainer.ckpt_path == str(before):
            before.replace(self.folder / "last.ckpt")  # which is damaged
        self.interruptions.watch()
        self._end_early(trainer)

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.begun = True
        self.unchecked.append(outputs["loss"].detach())
        if len(self.unchecked) == UNCHECKED or trainer.global_step == trainer.max_steps:
            self._check_losses(trainer.global_step)
        if trainer.global_step % trainer.val_check_batch:
            self._save_or_stop(trainer)

    def on_validation_end(self, trainer, pl_module) -> None:
        self._check_losses(trainer.global_step)
        loss = float(trainer.callback_metrics["val_loss"])
        self._check_loss("validation loss", loss, trainer.global_step)
        if loss < self.best:
            self.best, self.best_step, self.waited = loss, trainer.global_step, 0
            trainer.save_checkpoint(self.folder / "best.ckpt")
        else:
            self.waited += 1
        self._end_early(trainer)
        self._save_or_stop(trainer)

    def _end_early(self, trainer) -> None:
        if 0 < self.optimization.patience <= self.waited:
            trainer.should_stop = True

    def _check_losses(self, step: int) -> None:
        """Check the losses up to this step, several at a time, so that a GPU need not wait."""
        losses = torch.stack(self.unchecked).tolist() if self.unchecked else []
        self.unchecked = []
        for before, loss in zip(range(len(losses) - 1, -1, -1), losses, strict=True):
            self._check_loss("loss", loss, step - before)

    def _check_loss(self, name: str, loss: float, step: int) -> None:
        """Raise a FloatingPointError if a loss is not finite, before the step is saved."""
        if math.isfinite(loss):
            return
        last = self.folder / "last.ckpt"
        kept = f"{last}, of an earlier step, is kept" if last.exists() else "nothing was saved yet"
        lower = f"--lr {self.optimization.lr / 3:.2g}"
        advice = f"train into another folder at a lower learning rate, such as {lower}"
        raise FloatingPointError(f"the {name} is {loss} at step {step:,}; {kept}; {advice}")

    def _save_or_stop(self, trainer) -> None:
        """Write `last.ckpt` now and then, by the clock of the first process, or when asked to stop.

        All processes decide the same.
        """
        some = trainer.strategy.reduce_boolean_decision
        due = time.monotonic() - self.saved_at >= EVERY.total_seconds()
        stop = some(self.interruptions.received is not None, all=False)
        if stop or some(due and trainer.is_global_zero, all=False):
            self._check_losses(trainer.global_step)
            trainer.save_checkpoint(self.folder / "last.ckpt")
            self.saved_at = time.monotonic()
        if stop:
            self.interruptions.stop(trainer.global_step, trainer.max_steps, self.folder)
