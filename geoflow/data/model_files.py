"""Model folders as files: `config.json` and `model.safetensors`, checked before they are used.

Settings are plain JSON and weights plain tensors: nothing from a file is executed. Every number of
a config has bounds, and every weight is compared with a network that takes no memory, before one
is built that does. Whatever does not fit is a `ValueError` of one line that names the file.
"""

from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from geoflow import runtime
from geoflow.data.published import CONFIG, WEIGHTS

Built = TypeVar("Built", bound=nn.Module)

BOUNDS: dict[str, tuple[float, float]] = {  # argument → least and greatest value
    "cond_dim": (0, 65_536),
    "dim": (1, 65_536),
    "depth": (0, 1000),
    "expansion": (1, 64),
    "components": (1, 1000),
    "fourier": (0, 65_536),
    "width": (1, 4096),
    "input_dim": (3, 3),
    "fourier_scale": (0.0, 1e6),
    "octaves": (0.0, 24.0),
    "time_scale": (1e-6, 1e9),
    "clock": (0.0, 0.5),
    "cond_hidden": (0, 65_536),
}
PICKLES = (b"\x80", b"PK\3\4")  # what files of `torch.save` begin with


def read(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The config and the weights of a model folder.

    Raises:
        FileNotFoundError: one of them is missing.
        ValueError: one of them is damaged.
    """
    for name in (CONFIG, WEIGHTS):
        if not (folder / name).is_file():
            pickles = [
                file.name
                for end in ("bin", "pt", "pth", "ckpt")
                for file in folder.glob(f"*.{end}")
            ]
            why = (
                f" ({pickles[0]} is a pickle, which could run code and is not read)"
                if pickles
                else ""
            )
            raise FileNotFoundError(f"{folder} is not a model folder: {name} is missing{why}")
    config, file = runtime.read_json(folder / CONFIG, dict), folder / WEIGHTS
    try:
        return config, load_file(file)
    except Exception as error:  # of safetensors' own kind, and others for a header that lies
        with file.open("rb") as opened:
            pickle = opened.read(4).startswith(PICKLES)
        why = "it is a pickle, which could run code and is not read" if pickle else error
        raise ValueError(f"{file} is damaged or not a safetensors file: {why}") from error


def check_keys(file: Path, found: Collection[str], needed: set[str], known: set[str]) -> None:
    """A `ValueError` that names entries of a config that are missing, or that nobody knows."""
    if missing := needed - set(found):
        raise ValueError(f"{file} is damaged: it lacks {', '.join(sorted(missing))}")
    if unknown := set(found) - needed - known:
        names = ", ".join(sorted(unknown))
        raise ValueError(f"{file} has entries that this version does not know: {names}")


def check_numbers(file: Path, config: dict[str, Any]) -> None:
    """A `ValueError` that names the first number of a config that is out of bounds."""
    for name, value in config.items():
        if name not in BOUNDS:
            continue
        least, most = BOUNDS[name]
        whole = isinstance(least, int)
        if type(value) not in ((int,) if whole else (int, float)) or not least <= value <= most:
            kind = "a whole number" if whole else "a number"
            expected = f"expected {kind} from {least:g} to {most:g}"
            raise ValueError(f"{file}: {name} = {value!r}; {expected}")


def build(
    folder: Path,
    make: Callable[[], Built],
    weights: dict[str, Tensor],
    name_of: Callable[[str], str],
) -> Built:
    """The module that `make` gives, with weights that `name_of` names in the file.

    Raises:
        ValueError: arguments that `make` does not know, or weights that are not the module's.
    """
    try:
        with torch.device("meta"):  # shapes without memory
            described = make().state_dict()
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / CONFIG} does not fit this version: {error}") from error
    _check_weights(folder / WEIGHTS, weights, {name_of(name): w for name, w in described.items()})
    module = make()
    module.load_state_dict({name: weights[name_of(name)] for name in described})
    return module


def _check_weights(file: Path, mine: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """A `ValueError` that names the first weight of another shape or type, or not finite."""
    for name in sorted(mine.keys() | wanted.keys()):
        have, want = (tuple(d[name].shape) if name in d else "nothing" for d in (mine, wanted))
        if have != want:
            raise ValueError(f"{file}: weight {name} has {have}, the config expects {want}")
        weight, kind = mine[name], wanted[name].dtype
        if weight.is_floating_point() != kind.is_floating_point:
            raise ValueError(f"{file}: weight {name} holds {weight.dtype}; expected {kind}")
        if not weight.float().isfinite().all():
            raise ValueError(f"{file}: weight {name} holds numbers that are not finite")
        if name.endswith("running_var") and (weight < 0).any():
            raise ValueError(f"{file}: weight {name}, a variance, holds a negative number")
