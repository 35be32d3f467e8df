"""Settings of trainings: a YAML file for each data set, with one section for each scale."""

import importlib.resources
from pathlib import Path

import yaml

from geoflow.runtime import choose

FLOW = ("schedule", "sampling_schedule", "draws", "dropout", "network", "optimization")


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


def overridden(flow: dict, others: dict) -> dict:
    """Settings of a flow with others in place of some, also within `network` and `optimization`.

    >>> overridden({"draws": 2, "network": {"dim": 64, "depth": 4}}, {"network": {"dim": 32}})
    {'draws': 2, 'network': {'dim': 32, 'depth': 4}}

    Raises:
        ValueError: an unknown setting.
    """
    settings = dict(flow)
    for name, value in others.items():
        settings[name] = {**settings.get(name, {}), **value} if isinstance(value, dict) else value
    for name in settings:
        choose("setting of a recipe's flow", name, FLOW)
    return settings
