"""What flows are compared with, from data alone: the prior of land, and retrieval."""

import functools
import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn.functional import normalize

from geoflow import sphere
from geoflow.baselines import ClosedForm
from geoflow.data import tiles
from geoflow.vmf import Mixture


class Land(ClosedForm):
    """The prior of the Earth tiles, constant on land and on sea: `tiles.log_prior`."""

    name = "land"

    def sample(self, noise: Tensor, cond, options) -> Tensor:
        cumulative, (rows, columns) = _land_cells()
        which, north, east = noise.double().cpu().unbind(-1)
        cell = torch.searchsorted(cumulative, which.contiguous()).clamp(max=rows * columns - 1)
        lat = 90 - (cell // columns + north) * 180 / rows
        lon = (cell % columns + east) * 360 / columns - 180
        return sphere.from_latlon(torch.stack([lat, lon], -1)).to(noise)

    def log_prob(self, x: Tensor, cond, options) -> Tensor:
        return tiles.log_prior(x.cpu()).to(x)


@functools.lru_cache(maxsize=1)
def _land_cells() -> tuple[Tensor, tuple[int, int]]:
    """Cumulative probability of the cells of the land mask, and the mask's shape."""
    mask = tiles.land_mask()
    rows, columns = mask.shape
    edges = torch.linspace(math.pi / 2, -math.pi / 2, rows + 1, dtype=torch.float64).sin()
    area = (edges[:-1] - edges[1:])[:, None].expand(rows, columns)
    land, sea = area * mask, area * ~mask
    share = tiles.LAND_SHARE * land / land.sum() + (1 - tiles.LAND_SHARE) * sea / sea.sum()
    return share.flatten().cumsum(0), (rows, columns)


@dataclass(frozen=True)
class Retrieval(ClosedForm):
    """The places of the most similar images of a gallery.

    Its density has a vMF around the place of each of the k nearest embeddings, and a share of the
    uniform density.
    """

    gallery: Tensor  # (M, C) embeddings
    places: Tensor  # (M, 3) unit vectors
    neighbors: int = 8  # k
    concentration: float = 1e3  # κ of each kernel
    background: float = 0.05  # weight of the uniform density

    name = "retrieval"

    def __post_init__(self):
        images, places = len(self.gallery), len(self.places)
        if not 1 <= self.neighbors <= images or images != places:
            text = f"{self.neighbors} neighbours in {images} embeddings and {places} places"
            raise ValueError(f"{text}; expected 1 ≤ k ≤ M of each")

    @functools.cached_property
    def _directions(self) -> Tensor:
        return normalize(self.gallery, dim=-1)

    def nearest(self, cond: Tensor) -> Tensor:
        """Indices of the neighbours by cosine similarity, nearest first: (B, C) → (B, k)."""
        parts = [(part @ self._directions.T).topk(self.neighbors) for part in cond.split(256)]
        return torch.cat([part.indices for part in parts])

    def _mixture(self, nearest: Tensor) -> Mixture:
        mean = self.places[torch.cat([nearest, nearest[:, :1]], 1)]
        k = self.neighbors
        weight = torch.tensor([(1 - self.background) / k] * k + [self.background])
        kappa = torch.tensor([self.concentration] * k + [0.0])  # the last is the uniform part
        rows = (len(mean), -1)
        return Mixture(weight.log().expand(rows), mean, kappa.expand(rows))

    def sample(self, noise: Tensor, cond: Tensor, options) -> Tensor:
        return self._mixture(self.nearest(cond)).sample(noise)

    def log_prob(self, x: Tensor, cond: Tensor, options) -> Tensor:
        return self._mixture(self.nearest(cond)).log_prob(x)

    def tuned(self, cond: Tensor, x: Tensor) -> "Retrieval":
        """The k, κ and background of highest mean log-density on other images: (B, C), (B, 3)."""
        widest = replace(self, neighbors=min(64, len(self.gallery))).nearest(cond)
        counts = [k for k in (1, 2, 4, 8, 16, 32, 64) if k <= widest.shape[1]]
        kappas = (10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4)
        options = itertools.product(counts, kappas, (0.02, 0.05, 0.1, 0.2, 0.4))

        def score(option: Retrieval) -> float:
            mixture = option._mixture(widest[:, : option.neighbors])
            return float(mixture.log_prob(x[:, None]).mean())

        return max((Retrieval(self.gallery, self.places, *chosen) for chosen in options), key=score)
