"""Settings of trainings, a YAML file for each data set, and the run on Earth tiles that follows one."""

import importlib.resources
from pathlib import Path

import yaml

from geoflow.runtime import choose


def read_recipe(name: str, scale: str) -> dict:
    """The settings of a recipe in this folder at a scale.

    Raises:
        ValueError: unknown recipe or scale.
    """
    folder = importlib.resources.files("geoflow") / "training" / "recipes"
    names = sorted(
        file.name.removesuffix(".yaml") for file in folder.iterdir() if file.name.endswith(".yaml")
    )
    recipe = yaml.safe_load((folder / f"{choose('recipe', name, names)}.yaml").read_text())
    return recipe[choose("scale", scale, recipe)]


def trained_on_tiles(
    recipe: dict, out: Path, seed: int = 0, method: str = "riemannian", encoder=None, say=print
):
    """The Geolocator in out/model, trained if it is not there; `out` holds the run, which goes on after an interruption.

    Args:
        recipe: of `tiles`, see `read_recipe`.
        seed, method, encoder, say: see `geoflow.training.train_tiles`.

    Raises:
        ValueError: out/model was trained with another recipe, seed or method.
    """
    from geoflow.geolocator import Geolocator
    from geoflow.training.fit import train_tiles

    model = out / "model"
    if model.exists():
        geo = Geolocator.from_pretrained(model, method)
        if (geo.provenance.get("recipe"), geo.provenance.get("seed")) != (recipe, seed):
            raise ValueError(
                f"{model} was trained with another recipe or seed; choose another folder or delete it"
            )
        say(f"{model}: found, trained before")
        return geo
    network, encoder, provenance = train_tiles(recipe, out, seed, method, encoder, say)
    geo = Geolocator(network, method, recipe["sampling_schedule"], encoder, provenance)
    geo.save_pretrained(model)
    return geo
