"""Commands, one file per group."""

from geoflow.cli.main import app, main
from geoflow.training.recipes import read_recipe

__all__ = ["app", "main", "read_recipe"]
