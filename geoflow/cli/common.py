"""What several commands share: options, and a score on Earth tiles.

Names of `geoflow` are imported on first use, so a command loads only what it needs.
"""

import contextlib
import os
import shlex
import sys
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Annotated

import typer

import geoflow
from geoflow import runtime
from geoflow.data.typed import on_one_line

JUDGED = ("test", "held-out")  # tiles of seen regions, and of blocks that training never sees


def path(text: str | Path) -> Path:
    """A path as it was given. An empty one, which a shell makes of an unset variable, would be the
    current folder: it is refused.
    """
    if not str(text):
        raise FileNotFoundError("an empty path; expected a file or a folder (is a variable unset?)")
    return Path(text)


def file_to_write(text: str | Path) -> Path:
    """The path of a file to be written, see `path`; that of a folder is refused before any work."""
    if str(text).endswith(("/", os.sep)) or path(text).is_dir():
        raise IsADirectoryError(f"{text} is a folder; expected a file to write")
    return path(text)


def check_seed(seed: int) -> None:
    runtime.whole(f"--seed {seed}", seed, 0, 2**32 - 1)


def option(text: str, parser: Callable | None = None):
    """An option with its help; `path` parses those that are paths."""
    return typer.Option(help=text, parser=parser)


def argument(text: str, parser: Callable | None = None):
    return typer.Argument(help=text, parser=parser)


Out = Annotated[Path, option("folder for results", path)]
Seed = Annotated[int, option("seed of all random numbers")]
Model = Annotated[str, option("a shipped model, a photo model such as plonk-yfcc, or a folder")]
Method = Annotated[str, option("riemannian, flow, diffusion, vmf, vmf-mixture or flow-map")]
ShardsFolder = Annotated[
    Path | None, option("shards from `geoflow embed`; default: Earth tiles", path)
]
Weights = Annotated[str, option("folder of the photo encoder's weights; default: published ones")]


def check_out(out: Path) -> None:
    """Make the folder of --out; a ValueError if it cannot be made or written to."""
    try:
        out.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out):
            pass
    except (FileExistsError, NotADirectoryError) as error:
        raise ValueError(f"--out {out} is a file, or below one; expected a folder") from error
    except OSError as error:
        raise ValueError(f"--out {out} cannot be written: {error.strerror}") from error


@contextlib.contextmanager
def interruptible(out: Path) -> Generator[None]:
    """If a command is interrupted, say what is kept in --out and how to go on, and end with the
    usual exit status: 130 after Ctrl-C, 143 after SIGTERM or a hang-up.
    """
    from geoflow.training.interruptions import Terminated, tell, terminated_by_sigterm

    try:
        with terminated_by_sigterm():
            yield
    except KeyboardInterrupt as error:
        kept = str(error) or f"what was written before is kept in {out}"
        if runtime.is_first_process():
            again = shlex.join(["geoflow", *sys.argv[1:]])
            tell(f"geoflow: interrupted; {on_one_line(kept)}. To go on: {again}")
        raise SystemExit(143 if isinstance(error, Terminated) else 130) from None


@contextlib.contextmanager
def working_in(out: Path) -> Generator[None]:
    """Do the work of a command in --out, while no other process may write there.

    The work is `interruptible`.
    """
    check_out(out)
    alone = runtime.alone(out) if runtime.is_first_process() else contextlib.nullcontext()
    with interruptible(out), alone:
        yield


def score_tiles(geo, name: str, scale: str, most: int | None = None, views: str = "", **options):
    """Score a model on `test` or `held-out` tiles, fewer at small scales: a Report.

    Without `views`, tiles have the views that the model learnt from. On held-out blocks no
    likelihood is computed, because it would only say that training never saw them.
    """
    from geoflow.data import tiles

    views = views or tiles.views_of(geo.provenance.get("recipe", {"views": "any"}))
    images = tiles.load(name, tiles.judged(scale), views)[:most]
    if name == "held-out":
        options |= {"likelihood": False, "calibrated": 0}
    report = geoflow.evaluate(geo, images, f"tiles, {name}", **options)
    report.settings["views"] = views
    return report


def tile_encoder(model: str, recipe: dict):
    """The tile encoder of a model; a ValueError if it has none of the recipe's width."""
    from geoflow.encoders import TileEncoder

    found, width = geoflow.Geolocator.from_pretrained(model).encoder, recipe["encoder"]["dim"]
    if not isinstance(found, TileEncoder) or found.dim != width:
        raise ValueError(f"--encoder {model}: it has no encoder of tiles of width {width}")
    return found
