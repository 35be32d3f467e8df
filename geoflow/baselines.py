"""What flows are compared with: networks of vMF mixtures, the prior of land, retrieval."""

import functools
import itertools
import math
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, silu

from geoflow import sphere
from geoflow.data import tiles
from geoflow.samplers import SolverOptions
from geoflow.velocity import Block, modulate, zero_linear
from geoflow.vmf import MAX_LOG_CONCENTRATION, Mixture


class MixtureNetwork(nn.Module):
    """An embedding → a mixture of K von Mises–Fisher distributions (PLONK, baselines).

    It has the blocks of the velocity network, with a learnt vector in place of the location.

    Args:
        cond_dim, dim, depth, expansion: as in `VelocityTransformer`.
        components: K; 1 is a single vMF, the paper's mixture has 3.
    """

    def __init__(
        self,
        cond_dim: int,
        components: int = 1,
        dim: int = 512,
        depth: int = 12,
        expansion: int = 4,
    ):
        super().__init__()
        if int(components) != components or components < 1:
            raise ValueError(f"a mixture of {components} components; expected at least 1")
        self.config = dict(cond_dim=cond_dim, components=components)
        self.config |= dict(dim=dim, depth=depth, expansion=expansion)
        self.register = nn.Parameter(torch.randn(dim))
        self.embed_cond = nn.Linear(cond_dim, dim)
        self.blocks = nn.ModuleList(Block(dim, expansion) for _ in range(depth))
        self.modulation = zero_linear(dim, 2 * dim)
        self.head = nn.Linear(dim, 5 * components)
        with torch.no_grad():  # means spread over the sphere, broad and equally likely
            self.head.weight *= 0.1
            self.head.bias[: 3 * components] = sphere.fibonacci_grid(components).flatten()
            self.head.bias[3 * components :] = 0.0

    def forward(self, cond: Tensor) -> Mixture:
        """(B, C) → a mixture for each image.

        Raises:
            ValueError: cond has another shape.
        """
        width, k = self.config["cond_dim"], self.config["components"]
        if cond.ndim != 2 or cond.shape[1] != width:
            raise ValueError(f"cond has shape {tuple(cond.shape)}; expected (B, {width})")
        c = silu(self.embed_cond(cond))[:, None]
        h = self.register.expand(len(cond), 1, -1)  # (B, 1, d)
        for block in self.blocks:
            h = block(h, c)
        h = modulate(h, *self.modulation(c).chunk(2, dim=-1))
        with torch.autocast(cond.device.type, enabled=False):
            answer = self.head(h[:, 0].float())
            mean, log_concentration, logits = answer.split([3 * k, k, k], dim=-1)
            concentration = log_concentration.clamp(-10, MAX_LOG_CONCENTRATION).exp()
            mean = sphere.unit(mean.reshape(-1, k, 3))
            return Mixture(logits.log_softmax(-1), mean, concentration)


class ClosedForm:
    """A distribution with a formula. The noise of a draw is three uniform numbers.

    A subclass defines `sample` and `log_prob`, see `geoflow.methods`.
    """

    guidable = False
    points_per_place = 1
    defaults = SolverOptions()
    name = ""

    def noise(self, shape, generator: torch.Generator | None = None) -> Tensor:
        """Numbers in [0, 1), (*shape, 3)."""
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        device = generator.device if generator else None
        return torch.rand(*shape, 3, generator=generator, device=device)

    def prepare(self, noise: Tensor) -> Tensor:
        """Noise that somebody else drew; a `ValueError` if numbers lie outside [0, 1]."""
        if not bool(((noise >= 0) & (noise <= 1)).all()):
            have = (
                f"noise of method {self.name!r} from {noise.min().item()} to {noise.max().item()}"
            )
            raise ValueError(f"{have}; expected numbers in [0, 1]")
        return noise

    def sample_with_log_prob(self, noise: Tensor, cond, options) -> tuple[Tensor, Tensor]:
        x = self.sample(noise, cond, options)  # ty: ignore[missing-attribute]
        return x, self.log_prob(x, cond, options)  # ty: ignore[missing-attribute]


class VonMisesFisher(ClosedForm):
    """The mixture that a network predicts: `vmf` with one component, `vmf-mixture` with more."""

    def __init__(self, network: MixtureNetwork):
        self.network = network
        self.name = "vmf" if network.config["components"] == 1 else "vmf-mixture"

    @torch.no_grad()
    def sample(self, noise: Tensor, cond: Tensor, options) -> Tensor:
        return self.network(cond).sample(noise)

    @torch.no_grad()
    def log_prob(self, x: Tensor, cond: Tensor, options) -> Tensor:
        return self.network(cond).log_prob(x)


class Uniform(ClosedForm):
    """Every place alike: −log 4π."""

    name = "uniform"

    def sample(self, noise: Tensor, cond, options) -> Tensor:
        z, angle = 2 * noise[..., 0] - 1, 2 * math.pi * noise[..., 1]
        side = (1 - z.square()).sqrt()
        return torch.stack([side * angle.cos(), side * angle.sin(), z], -1)

    def log_prob(self, x: Tensor, cond, options) -> Tensor:
        return torch.full_like(x[..., 0], sphere.LOG_UNIFORM)


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
