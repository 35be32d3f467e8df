"""Settings of trainings: a YAML file for each data set, with one section for each scale."""

import importlib.resources
from pathlib import Path

import yaml

from geoflow.runtime import choose


def read_recipe(name: str, scale: str) -> dict:
    """Read the settings of a recipe in this folder at a scale.

    >>> read_recipe("osv5m", "paper")["flow"]["network"]
    {'dim': 512, 'depth': 12}
    """
    files = {Path(file.name): file for file in importlib.resources.files(__name__).iterdir()}
    known = {path.stem: file for path, file in files.items() if path.suffix == ".yaml"}
    recipe = yaml.safe_load(
        known[choose("recipe", name, sorted(known))].read_text(encoding="utf-8")
    )
    return recipe[choose("scale", scale, recipe)]
