"""Settings of trainings: a YAML file for each data set, with one section for each scale."""

import importlib.resources

import yaml

from geoflow.runtime import choose


def read_recipe(name: str, scale: str) -> dict:
    """Read the settings of a recipe in this folder at a scale.

    >>> read_recipe("osv5m", "paper")["flow"]["network"]
    {'dim': 512, 'depth': 12}

    Raises:
        ValueError: unknown recipe or scale.
    """
    folder = importlib.resources.files(__name__)
    files = {
        file.name.removesuffix(".yaml"): file
        for file in folder.iterdir()
        if file.name.endswith(".yaml")
    }
    recipe = yaml.safe_load(files[choose("recipe", name, sorted(files))].read_text("utf-8"))
    return recipe[choose("scale", scale, recipe)]
