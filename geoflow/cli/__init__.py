"""Where on Earth could an image have been taken? Train models, ask them and score them, and run the
paper's tables and figures again. `geoflow COMMAND --help` says what a command does."""

import errno
import io
import sys
from typing import Annotated

import typer

from geoflow import __version__
from geoflow.cli import compare, data, doctor, paper, photos, train
from geoflow.data.typed import on_one_line
from geoflow.training.recipes import read_recipe

__all__ = ["app", "main", "read_recipe"]

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
data_app = typer.Typer(
    help="Data sets that others publish, and shards of embeddings.", no_args_is_help=True
)
app.add_typer(data_app, name="data")
commands = (
    *(
        train.train,
        train.distil,
        train.plan,
        compare.compare,
        data.fetch,
        data.verify,
        data.embed,
        paper.evaluate,
    ),
    *(paper.tables, paper.reproduce, paper.results, photos.locate, photos.explore, train.demo),
    doctor.doctor,
)
for command in commands:
    paragraphs = (command.__doc__ or "").split("\n\n")  # the terminal's width wraps the lines
    group = data_app if command in (data.fetch, data.verify) else app
    group.command(help="\n\n".join(" ".join(text.split()) for text in paragraphs))(command)


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"geoflow {__version__}")
        raise typer.Exit


Version = Annotated[
    bool,
    typer.Option(
        "--version", callback=_show_version, is_eager=True, help="print the version and exit"
    ),
]


@app.callback(help=" ".join((__doc__ or "").split()))
def _options(version: Version = False) -> None:
    """Options before a command."""


def main() -> None:
    """Run a command. Bad input ends it with a message of one line and exit status 1."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without a character shows "?"
    try:
        app()
    except (ValueError, OSError, FloatingPointError, ModuleNotFoundError) as error:
        print(on_one_line(f"geoflow: {_in_words(error)}"), file=sys.stderr)
        sys.exit(1)


def _in_words(error: Exception) -> str:
    """The message of an error; for one of the operating system, the file and the reason."""
    text = str(error)
    if isinstance(error, OSError) and error.strerror and text.startswith("[Errno"):
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, OSError) and error.errno == errno.ENOSPC:
        text += "; what was written before is kept. Make room, and run the same command again"
    return text
