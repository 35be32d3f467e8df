"""What every part of the package needs beside mathematics: settings, names, files, claims.

=====================  ===================================================  ==================
variable               meaning                                              default
=====================  ===================================================  ==================
``GEOFLOW_SCALE``      ``smoke`` (CI) · ``laptop`` · ``gpu``                ``laptop``
``GEOFLOW_CACHE``      folder of derived data, safe to delete               the user's cache
``CI``                 set: no progress bars                                unset
=====================  ===================================================  ==================
"""

import collections
import contextlib
import difflib
import hashlib
import json
import numbers
import os
import platform
import shutil
import sys
from collections.abc import Generator, Iterable
from pathlib import Path
from typing import Any

import platformdirs
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

PACKAGE = Path(__file__).resolve().parent
# Shipped models, coastlines and tables: in a wheel they are in the package, in a clone beside it.
DATA = next(filter(Path.is_dir, [PACKAGE / "_data", PACKAGE.parent / "data"]), PACKAGE / "_data")
SCALES = ("smoke", "laptop", "gpu")
PARTIAL = r"\.\d+\.partial"  # how the name of a file ends that a process is writing, or was
KINDS: dict[type, str] = {dict: "an object", list: "a list", str: "a text", bool: "true or false"}
KINDS |= {int: "a number", float: "a number", type(None): "null"}


# Names and settings


def choose(what: str, name: str, options: Iterable[str]) -> str:
    """Return `name` if it is one of `options`.

    >>> choose("solver", "rk4", ["euler", "rk4"])
    'rk4'

    Raises:
        ValueError: it is not; the message lists the options and suggests the nearest.
    """
    options = list(options)
    if name in options:
        return name
    near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.4)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    expected = ", ".join(map(repr, options))
    raise ValueError(f"unknown {what} {name!r}{hint}; expected one of {expected}")


def whole(what: str, value, least: int = 1, most: int = 10**9) -> int:
    """A whole number from `least` to `most`; 16.0 is one, True and "16" are none.

    Raises:
        ValueError: it is not; the message begins with `what`.
    """
    value = _plain(value)
    if value is None or value != value // 1 or not least <= value <= most:
        raise ValueError(f"{what}; expected a whole number from {least:,} to {most:,}")
    return int(value)


def number(what: str, value) -> float:
    """A finite number; True and "2" are none. Arguments and errors as of `whole`."""
    value = _plain(value)
    if value is None or not abs(value) <= sys.float_info.max:
        raise ValueError(f"{what}; expected a finite number")
    return float(value)


def _plain(value):
    """A number, also one in a tensor or an array without axes; None if it is none."""
    value = value.item() if getattr(value, "ndim", None) == 0 else value
    return value if isinstance(value, numbers.Real) and not isinstance(value, bool) else None


def scale() -> str:
    """The scale of this run, by GEOFLOW_SCALE: `smoke`, `laptop` or `gpu`.

    >>> scale() in SCALES
    True
    """
    return choose("GEOFLOW_SCALE", os.environ.get("GEOFLOW_SCALE", "laptop"), SCALES)


def by_scale(smoke, laptop, gpu):
    """The value for the scale of this run.

    >>> by_scale(smoke=10, laptop=1000, gpu=100_000)  # where GEOFLOW_SCALE is not set
    1000
    """
    return {"smoke": smoke, "laptop": laptop, "gpu": gpu}[scale()]


def cache_dir() -> Path:
    """Folder for derived data (tiles, embeddings), created on first use and safe to delete.

    Raises:
        OSError: it cannot be made or written to.
    """
    chosen = os.environ.get("GEOFLOW_CACHE") or platformdirs.user_cache_dir("geoflow", False)
    try:
        path = Path(chosen).expanduser()
    except RuntimeError as error:  # ~user, and there is no such user
        raise OSError(f"GEOFLOW_CACHE = {chosen!r}: {error}") from error
    with contextlib.suppress(OSError):
        path.mkdir(parents=True, exist_ok=True)
    if not (path.is_dir() and os.access(path, os.W_OK | os.X_OK)):
        text = f"the cache folder {path} cannot be written"
        raise OSError(f"{text}; set GEOFLOW_CACHE to a folder that can")
    return path


def recording(x) -> bool:
    """Whether a CUDA graph is being recorded: values of tensors are not known meanwhile."""
    import torch

    return x.is_cuda and torch.cuda.is_current_stream_capturing()


def machine() -> str:
    """The hardware in words: the accelerator if there is one, else the number of CPU threads."""
    import torch

    processor = f"{count(torch.get_num_threads(), 'CPU thread')}, {platform.machine()}"
    return torch.cuda.get_device_name() if torch.cuda.is_available() else processor


def device() -> str:
    """Where to compute by default: `cuda` if there is such a GPU, else `cpu`.

    >>> device() in ("cuda", "cpu")
    True
    """
    import torch

    return "cuda" if torch.cuda.is_available() else "cpu"


def is_first_process() -> bool:
    """Whether this process speaks and writes for all: the only one, or rank 0 of several."""
    ranks = ("RANK", "LOCAL_RANK", "NODE_RANK", "SLURM_PROCID")  # torchrun, Lightning, SLURM
    return all(int(os.environ.get(rank, 0)) == 0 for rank in ranks)


def duration(seconds: float) -> str:
    """A time in words, in the unit that suits it.

    >>> [duration(seconds) for seconds in (0.04, 45, 100, 7200, 5e6)]
    ['0.04 s', '45 s', '1.7 min', '2 h', '58 days']
    """
    units = {"days": 86_400, "h": 3600, "min": 60, "s": 1}
    unit = next((name for name, size in units.items() if seconds >= 1.5 * size), "s")
    value = seconds / units[unit]
    return f"{value:.2g} {unit}" if value < 10 else f"{value:,.0f} {unit}"


def count(n: int, one: str, many: str = "") -> str:
    """A number with its noun: `count(1, "image")` is "1 image", `count(2, …)` is "2 images"."""
    return f"{n:,} {one if n == 1 else many or one + 's'}"


def show_progress() -> bool:
    """Whether a person watches: a terminal or a live notebook, and not CI."""
    return not os.getenv("CI") and (sys.stderr.isatty() or "ipykernel" in str(type(sys.stderr)))


def progress(iterable=None, disable: bool = False, **options):
    """A progress bar that is silent where nobody watches. Arguments as for `tqdm`.

    >>> [step for step in progress(range(3), desc="counting")]
    [0, 1, 2]
    """
    return tqdm(iterable, disable=disable or not show_progress(), dynamic_ncols=True, **options)


# Files that are whole or not there


@contextlib.contextmanager
def replacing(target) -> Generator[Path]:
    """A path to write a file or folder to, which becomes `target` if the block ends without error.

    After an error nothing is left behind, and `target` is as it was. Folders above it are made.
    """
    text, target = str(target), Path(target)
    if "\0" in text or text.endswith(("/", os.sep)) or not target.name:
        raise ValueError(f"{text!r} cannot be written; expected a path that ends in a name, no NUL")
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(f"{target.name[:50]}.{os.getpid()}.partial")  # has to fit as well
    try:
        yield partial
        for written in filter(Path.is_file, (partial, *partial.rglob("*"))):
            with written.open("rb+") as opened:  # on the disk before it has its name
                os.fsync(opened.fileno())
        if partial.is_dir() and target.is_dir():  # which goes as a whole, so that no half is left
            shutil.rmtree(target.replace(partial.with_suffix(".old")))
        partial.replace(target)
    except OSError as error:
        if partial.name in str(error.filename):  # a name that nobody asked for
            asked = str(error.filename).replace(partial.name, target.name)
            raise OSError(error.errno, error.strerror, asked) from error
        raise
    finally:
        if partial.is_dir():
            shutil.rmtree(partial, ignore_errors=True)
        partial.unlink(missing_ok=True)


def write_atomically(file: Path, text: str) -> None:
    """Write a text file as UTF-8, whole or not at all."""
    with replacing(file) as partial:
        partial.write_text(text, encoding="utf-8")


def to_json(content: Any) -> str:
    """Plain values as JSON."""
    return json.dumps(content, indent=1, ensure_ascii=False)


def write_json(file: Path, content: Any) -> None:
    """Write plain values as JSON, whole or not at all."""
    write_atomically(file, to_json(content) + "\n")


def read_json(file: Path, kind: type = object) -> Any:
    """Plain values from a JSON file.

    >>> read_json(DATA / "models" / "tiles" / "config.json", dict)["method"]
    'riemannian'

    Raises:
        ValueError: the file is damaged, or holds something else than a `kind`, such as `dict`.
    """
    try:
        text = Path(file).read_text(encoding="utf-8")
        held = json.loads(text, object_pairs_hook=unrepeated)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{file} is damaged: it is no JSON ({error})") from error
    if not isinstance(held, kind):
        raise ValueError(f"{file} is damaged: it holds {KINDS[type(held)]}, expected {KINDS[kind]}")
    return held


def unrepeated(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object; a `ValueError` if a name occurs twice, since only one value would count."""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((name, _),) = collections.Counter(name for name, _ in pairs).most_common(1)
        raise ValueError(f"{name!r} occurs twice in one object")
    return found


def require_space(folder: Path, needed: int, advice: str = "") -> None:
    """An `OSError` that ends in `advice` if a disk lacks room for `needed` bytes and 5 % more."""
    free = shutil.disk_usage(folder).free
    if free < 1.05 * needed:
        text = f"{needed / 1e6:,.1f} MB are needed in {folder}, {free / 1e6:,.1f} MB are free"
        raise OSError(f"{text}; {advice}" if advice else text)


# Checksums, and folders that belong to one run


def sha256(file: Path) -> str:
    """Checksum of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with Path(file).open("rb") as opened:
        while block := opened.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def sha256_of(*parts: bytes | str) -> str:
    """Checksum of bytes or texts, one after the other, in hexadecimal digits."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.encode() if isinstance(part, str) else part)
    return digest.hexdigest()


def sha256_of_weights(module) -> str:
    """Checksum of a network's weights and buffers, by name, in hexadecimal digits."""
    parts: list[bytes | str] = []
    for name, tensor in sorted(module.state_dict().items()):
        parts += [name, tensor.cpu().contiguous().numpy().tobytes()]
    return sha256_of(*parts)


def difference(before: dict, now: dict) -> str:
    """The keys by which two runs differ, with the values before and now; empty if there is none.

    >>> difference({"seed": 0, "flow": {"steps": 5}}, {"seed": 1, "flow": {"steps": 9}})
    'flow.steps = 5, not 9; seed = 0, not 1'
    """
    pair = [_leaves(run) for run in json.loads(json.dumps([before, now]))]
    keys = sorted({key for run in pair for key in run if pair[0].get(key) != pair[1].get(key)})
    more = f"; and {len(keys) - 6} more" if len(keys) > 6 else ""
    return "; ".join(f"{k} = {pair[0].get(k)!r}, not {pair[1].get(k)!r}" for k in keys[:6]) + more


def _leaves(value: Any, name: str = "") -> dict:
    """Nested plain values → {"key.key": value}."""
    if not isinstance(value, dict):
        return {name.removesuffix("."): value}
    return {k: v for key in value for k, v in _leaves(value[key], f"{name}{key}.").items()}


def claim(folder: Path, run: dict, what: str = "a run") -> None:
    """Mark a folder as that of a run, in `run.json`; a `ValueError` if it is another run's."""
    file = Path(folder) / "run.json"
    if not file.exists():
        write_json(file, run)
    elif other := difference(read_json(file, dict), run):
        raise ValueError(f"{folder} holds {what} with {other}; choose another folder or delete it")


@contextlib.contextmanager
def alone(folder: Path, patience: float = 0.0) -> Generator[None]:
    """Keep other processes out of a folder that is written to.

    The operating system releases the lock when the process ends, however it ends.

    Raises:
        OSError: another process has the folder for longer than `patience` seconds.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as held:
        try:
            held.enter_context(FileLock(folder / ".lock", timeout=patience))
        except Timeout as error:
            text = f"another geoflow command writes to {folder}"
            raise OSError(f"{text}; wait for it, or choose another folder") from error
        yield
