"""The commands: `geoflow demo | train | plan | compare | data fetch | embed | evaluate | tables | reproduce | results | locate | explore |
doctor`."""  # noqa: E501

import sys

import typer

from geoflow.cli import data, doctor, paper, photos, train
from geoflow.training.recipes import read_recipe

__all__ = ["app", "main", "read_recipe"]

app = typer.Typer(
    help=__doc__, no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
for command in (
    *(train.train, train.plan, train.compare, data.embed),
    *(paper.evaluate, paper.tables, paper.reproduce, paper.results),
    *(photos.locate, photos.explore, train.demo, doctor.doctor),
):
    app.command()(command)
app.add_typer(data.app, name="data")


def main() -> None:
    """Run a command; bad input is told in one line, and the exit status is 1."""
    try:
        app()
    except (ValueError, OSError, FloatingPointError) as error:
        print(f"geoflow: {error}", file=sys.stderr)
        sys.exit(1)
