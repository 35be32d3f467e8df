"""Model folders as files: `config.json` and `model.safetensors`, checked before they are used.

Settings are plain JSON and weights plain tensors: nothing from a file is executed. Every number of
a config has bounds, and every weight is compared with a network that takes no memory, before one
is built that does. Whatever does not fit is a `ValueError` of one line that names the file.
"""

import inspect
import json
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from geoflow import runtime
from geoflow.data.published import CONFIG, WEIGHTS
from geoflow.velocity import VelocityTransformer

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
MOST = 1e8  # of a weight: trained ones stay far below, frequencies of many octaves reach 2²⁴
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
        return config, _load(file)
    except Exception as error:  # of safetensors' own kind, and others for a header that lies
        with file.open("rb") as opened:
            start = opened.read(9)
        pickle = start.startswith(PICKLES) and start[8:] != b"{"  # where a header begins
        why = "it is a pickle, which could run code and is not read" if pickle else error
        raise ValueError(f"{file} is damaged or not a safetensors file: {why}") from error


def _load(file: Path) -> dict[str, Tensor]:
    """The tensors of a file. Safetensors permits odd names, and a header that lists one twice."""
    tensors = load_file(file)
    if odd := [name for name in tensors if not name.isprintable()]:
        raise ValueError(f"the name of weight {odd[0]!r} holds a control character")
    with file.open("rb") as opened:
        size = int.from_bytes(opened.read(8), "little")
        json.loads(opened.read(size), object_pairs_hook=runtime.unrepeated)
    return tensors


def check_keys(
    file: Path, found: Collection[str], needed: set[str], known: set[str] | None = None
) -> None:
    """A `ValueError` that names entries of a config that are missing, or, where those that may be
    there are `known`, that nobody knows.
    """
    if missing := needed - set(found):
        raise ValueError(f"{file} is damaged: it lacks {', '.join(sorted(missing))}")
    if known is not None and (unknown := set(found) - needed - known):
        names = ", ".join(sorted(unknown))
        raise ValueError(f"{file} has entries that this version does not know: {names}")


def check_kinds(config: dict[str, Any], expected: dict[str, str], above: str = "") -> None:
    """A `ValueError` that names the first entry of another kind than is expected of it in words.

    >>> check_kinds({"schedule": "linear"}, {"schedule": "a text", "encoder": "a text or null"})
    """
    for name, words in expected.items():
        if name in config and runtime.KINDS[type(config[name])] not in words:
            raise ValueError(f"{above}{name} = {config[name]!r}; expected {words}")


def check_numbers(
    file: Path,
    config: dict[str, Any],
    make: Callable = VelocityTransformer,
    more: Collection[str] = ("input_dim",),
) -> None:
    """A `ValueError` that names the first option of a config that is neither an argument of `make`
    nor one of `more`, or a number out of bounds, or `cond_dim` if it is missing.
    """
    arguments = inspect.signature(make).parameters
    for name in config:
        runtime.choose(f"option in {file}:", name, (*arguments, *more))
    if "cond_dim" in arguments and "cond_dim" not in config:
        raise ValueError(f"{file}: cond_dim is missing; {_expected('cond_dim')}")
    for name, value in config.items():
        if name not in BOUNDS:
            continue
        least, most = BOUNDS[name]
        kinds = (int,) if isinstance(least, int) else (int, float)
        if type(value) not in kinds or not least <= value <= most:
            raise ValueError(f"{file}: {name} = {value!r}; {_expected(name)}")


def _expected(option: str) -> str:
    least, most = BOUNDS[option]
    kind = "a whole number" if isinstance(least, int) else "a number"
    return f"expected {kind} from {least:g} to {most:g}"


def build(
    folder: Path,
    make: Callable[[], Built],
    weights: dict[str, Tensor],
    name_of: Callable[[str], str],
) -> Built:
    """The module that `make` gives, with weights that `name_of` names in the file.

    Raises:
        ValueError: arguments that `make` refuses, or weights that are not the module's.
    """
    try:
        with torch.device("meta"):  # shapes without memory
            described = make().state_dict()
    except ValueError as error:
        raise ValueError(f"{folder / CONFIG} does not fit this version: {error}") from error
    _check_weights(folder / WEIGHTS, weights, {name_of(name): w for name, w in described.items()})
    module = make()
    module.load_state_dict({name: weights[name_of(name)] for name in described})
    return module


def _check_weights(file: Path, mine: dict[str, Tensor], wanted: dict[str, Tensor]) -> None:
    """A `ValueError` that names the first weight of another shape or type, or absurdly large."""
    for name in sorted(mine.keys() | wanted.keys()):
        have, want = (tuple(d[name].shape) if name in d else "nothing" for d in (mine, wanted))
        if have != want:
            raise ValueError(f"{file}: weight {name} has {have}, the config expects {want}")
        weight, kind = mine[name], wanted[name].dtype
        if weight.is_floating_point() != kind.is_floating_point:
            raise ValueError(f"{file}: weight {name} holds {weight.dtype}; expected {kind}")
        size = weight.float().abs()
        if not size.isfinite().all():
            raise ValueError(f"{file}: weight {name} holds numbers that are not finite")
        if (size > MOST).any():
            text = f"weight {name} holds {weight[size > MOST][0]:g}"
            raise ValueError(f"{file}: {text}; expected numbers of at most {MOST:g}")
        if name.endswith("running_var") and (weight < 0).any():
            raise ValueError(f"{file}: weight {name}, a variance, holds a negative number")
