"""The methods, side by side: each answers, for the condition of an image, with places and with log-densities of places.

==========================================  ===================================================================
``name``, ``guidable``                      its name; whether guidance means something
``noise(shape, generator)``                 the randomness that draws are made of, (*shape, 3)
``prepare(noise)``                          somebody else's noise, checked
``sample(noise, cond, how)``                one place for each noise: (B, N, 3) → unit vectors (B, N, 3)
``log_prob(x, cond, how)``                  log-densities on S² of places: (B, N, 3) → (B, N) nats
``sample_with_log_prob(noise, cond, how)``  both at once
``points_per_place``                        states that the network follows at a time for one place of `log_prob`
==========================================  ===================================================================

`Flow` integrates a velocity field (on S² or in R³), `VonMisesFisher`, `Uniform`, `Land` and `Retrieval` are closed forms.
"""

import functools
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from geoflow import likelihood, paths, plonk, samplers, schedules, sphere
from geoflow.data import tiles
from geoflow.runtime import choose
from geoflow.velocity import VelocityTransformer, time_averaged
from geoflow.vmf import Mixture, MixtureNetwork


@dataclass(frozen=True)
class How:
    """How a flow is solved; closed forms ignore steps and solver.

    Attributes:
        steps: of the solver, placed by the schedule.
        solver: see `geoflow.samplers.integrate`.
        guidance: ω, 0 is none.
    """

    steps: int = 16
    solver: str = "rk4"
    guidance: float = 0.0


class Flow:
    """A velocity field on a path: `riemannian`, `flow`, `diffusion`.

    A method in R³ answers on S² as well: a sample is the direction of its last state, and its density there is the radial
    marginal p(u) = ∫ p(r u) r² dr.
    """

    guidable = True

    def __init__(self, network, path, schedule: str):
        self.network = network
        self.path = path
        self.velocity = path.velocity(network)
        self.schedule_name = schedule
        self.schedule = schedules.by_name(schedule)
        self.name = path.name
        self.points_per_place = 1 if path.tangent else likelihood.RAY_POINTS

    def noise(self, shape, generator: torch.Generator | None = None) -> Tensor:
        return self.path.noise(shape, generator)

    def prepare(self, noise: Tensor) -> Tensor:
        return self.path.project(noise)

    def times(self, how: How) -> Tensor:
        """(steps + 1,) times of the states, from 0 (noise) to 1 (data). The schedule places them in the path's clock: near the data a
        diffusion's states differ by √(1 − t), and even steps in t would be too long for it."""
        start, end = self.path.clock(torch.tensor([0.0, 1.0]))
        return self.path.time(start + (end - start) * schedules.time_grid(self.schedule, how.steps))

    def _field(self, how: How, for_log_prob: bool = False):
        """The velocity, and the times of its steps. Only likelihoods take both sides of `TimeAveraged`: samples of few steps lose by it."""
        times = self.times(how)
        network = self.network
        if how.solver in samplers.FIXED:
            network = time_averaged(
                network,
                times,
                how.solver == samplers.AB3,
                sides=for_log_prob and how.solver == "rk4",
            )
        return samplers.guided(self.path.velocity(network), how.guidance), times

    def states(self, noise: Tensor, cond: Tensor | None, how: How) -> Iterator[Tensor]:
        """States from noise to data, (B, N, 3) each: on S² or in R³."""
        if how.solver == samplers.PLONK:
            times = schedules.time_grid(schedules.by_name(plonk.SCHEDULE), how.steps)
            return plonk.trajectory(self.network, self.path, noise, times, cond, how.guidance)
        field, times = self._field(how)
        return samplers.trajectory(field, self.path, noise, times, cond, how.solver)

    def sample(self, noise: Tensor, cond: Tensor | None, how: How) -> Tensor:
        for state in self.states(noise, cond, how):
            pass
        return sphere.unit(state)

    def log_prob(self, x: Tensor, cond: Tensor | None, how: How) -> Tensor:
        def ambient(x: Tensor) -> Tensor:
            return self.ambient_log_prob(x, cond, how)

        return ambient(x) if self.path.tangent else likelihood.radial_marginal(ambient, x)

    def ambient_log_prob(self, x: Tensor, cond: Tensor | None, how: How) -> Tensor:
        """Log-density where the states live: on S², or in R³ with respect to volume, the number that the paper reports."""
        field, times = self._field(how, for_log_prob=True)
        return likelihood.log_prob(field, self.path, x, times, cond, how.solver)

    def sample_with_log_prob(
        self, noise: Tensor, cond: Tensor | None, how: How
    ) -> tuple[Tensor, Tensor]:
        if not self.path.tangent:
            x = self.sample(noise, cond, how)
            return x, self.log_prob(x, cond, how)
        field, times = self._field(how)
        return likelihood.sample_with_log_prob(field, self.path, noise, times, cond, how.solver)


class ClosedForm(ABC):
    """What distributions with a formula share: their noise is three uniform numbers per place."""

    guidable = False
    points_per_place = 1
    name = ""

    def noise(self, shape, generator: torch.Generator | None = None) -> Tensor:
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        return torch.rand(
            *shape, 3, generator=generator, device=generator.device if generator else None
        )

    def prepare(self, noise: Tensor) -> Tensor:
        if not bool(((noise >= 0) & (noise <= 1)).all()):
            raise ValueError(
                f"noise of method {self.name!r} from {noise.min().item()} to {noise.max().item()}; expected numbers in [0, 1]"
            )
        return noise

    @abstractmethod
    def sample(self, noise: Tensor, cond: Tensor | None, how: How) -> Tensor:
        """See the module."""

    @abstractmethod
    def log_prob(self, x: Tensor, cond: Tensor | None, how: How) -> Tensor:
        """See the module."""

    def sample_with_log_prob(
        self, noise: Tensor, cond: Tensor | None, how: How
    ) -> tuple[Tensor, Tensor]:
        x = self.sample(noise, cond, how)
        return x, self.log_prob(x, cond, how)


class VonMisesFisher(ClosedForm):
    """A network that predicts a mixture of von Mises–Fisher distributions: `vmf` with one component, `vmf-mixture` with more."""

    def __init__(self, network: MixtureNetwork):
        self.network = network
        self.name = "vmf" if network.config["components"] == 1 else "vmf-mixture"

    @torch.no_grad()
    def sample(self, noise: Tensor, cond: Tensor | None, how: How) -> Tensor:
        return self.network(cond).sample(noise)

    @torch.no_grad()
    def log_prob(self, x: Tensor, cond: Tensor | None, how: How) -> Tensor:
        return self.network(cond).log_prob(x)


class Uniform(ClosedForm):
    """Every place alike: −log 4π."""

    name = "uniform"

    def sample(self, noise: Tensor, cond: Tensor | None, how: How) -> Tensor:
        z, angle = 2 * noise[..., 0] - 1, 2 * math.pi * noise[..., 1]
        side = (1 - z.square()).sqrt()
        return torch.stack([side * angle.cos(), side * angle.sin(), z], -1)

    def log_prob(self, x: Tensor, cond: Tensor | None, how: How) -> Tensor:
        return torch.full_like(x[..., 0], sphere.LOG_UNIFORM)


class Land(ClosedForm):
    """Where the Earth tiles lie when one does not look at them: `tiles.log_prior`, constant on land and on sea."""

    name = "land"

    def sample(self, noise: Tensor, cond: Tensor | None, how: How) -> Tensor:
        cumulative, (rows, columns) = _land_cells()
        cell = torch.searchsorted(cumulative, noise[..., 0].double().cpu()).clamp(
            max=rows * columns - 1
        )
        row, column = cell // columns, cell % columns
        lat = 90 - (row + noise[..., 1].double().cpu()) * 180 / rows
        lon = (column + noise[..., 2].double().cpu()) * 360 / columns - 180
        return sphere.from_latlon(torch.stack([lat, lon], -1)).to(noise)

    def log_prob(self, x: Tensor, cond: Tensor | None, how: How) -> Tensor:
        return tiles.log_prior(x.cpu()).to(x)


@functools.lru_cache(maxsize=1)
def _land_cells() -> tuple[Tensor, tuple[int, int]]:
    mask = tiles.land_mask()
    rows, columns = mask.shape
    edges = torch.linspace(math.pi / 2, -math.pi / 2, rows + 1, dtype=torch.float64).sin()
    area = (edges[:-1] - edges[1:])[:, None].expand(rows, columns)
    share = torch.where(
        mask,
        tiles.LAND_SHARE * area / (area * mask).sum(),
        (1 - tiles.LAND_SHARE) * area / (area * ~mask).sum(),
    )
    return share.flatten().cumsum(0), (rows, columns)


@dataclass(frozen=True)
class Retrieval(ClosedForm):
    """Where the most similar images of a gallery lie: a vMF around each of the k nearest embeddings, and a little of the uniform density.

    Attributes:
        gallery: (M, C) embeddings.
        places: (M, 3) unit vectors.
        neighbors: k.
        concentration: κ of each kernel.
        background: weight of the uniform density.
    """

    gallery: Tensor
    places: Tensor
    neighbors: int = 8
    concentration: float = 1e3
    background: float = 0.05

    name = "retrieval"

    def __post_init__(self):
        if not 1 <= self.neighbors <= len(self.gallery) or len(self.gallery) != len(self.places):
            raise ValueError(
                f"{self.neighbors} neighbours in {len(self.gallery)} embeddings and {len(self.places)} places; expected 1 ≤ k ≤ M of each"
            )

    @functools.cached_property
    def _directions(self) -> Tensor:
        return nn.functional.normalize(self.gallery, dim=-1)

    def nearest(self, cond: Tensor) -> Tensor:
        """Indices of the neighbours by cosine similarity, nearest first: (B, C) → (B, k)."""
        return torch.cat(
            [(part @ self._directions.T).topk(self.neighbors).indices for part in cond.split(256)]
        )

    def _mixture(self, nearest: Tensor) -> Mixture:
        mean = self.places[torch.cat([nearest, nearest[:, :1]], 1)]
        weight = torch.tensor(
            [(1 - self.background) / self.neighbors] * self.neighbors + [self.background]
        )
        kappa = torch.tensor(
            [self.concentration] * self.neighbors + [0.0]
        )  # the last is the uniform part
        return Mixture(weight.log().expand(len(mean), -1), mean, kappa.expand(len(mean), -1))

    def sample(self, noise: Tensor, cond: Tensor | None, how: How) -> Tensor:
        assert cond is not None, "the Geolocator sees to it"
        return self._mixture(self.nearest(cond)).sample(noise)

    def log_prob(self, x: Tensor, cond: Tensor | None, how: How) -> Tensor:
        assert cond is not None, "the Geolocator sees to it"
        return self._mixture(self.nearest(cond)).log_prob(x)

    def tuned(self, cond: Tensor, x: Tensor) -> "Retrieval":
        """With the k, κ and background of highest mean log-density on other images: (B, C), (B, 3)."""
        widest = replace(self, neighbors=min(64, len(self.gallery))).nearest(cond)
        options = [
            replace(self, neighbors=k, concentration=kappa, background=background)
            for k in (1, 2, 4, 8, 16, 32, 64)
            if k <= widest.shape[1]
            for kappa in (10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4)
            for background in (0.02, 0.05, 0.1, 0.2, 0.4)
        ]
        return max(
            options,
            key=lambda option: float(
                option._mixture(widest[:, : option.neighbors]).log_prob(x[:, None]).mean()
            ),
        )


GENERATIVE = tuple(paths.PATHS)
TRAINED = (*GENERATIVE, "vmf", "vmf-mixture")
REFERENCES = ("uniform", "land")
METHODS = (*TRAINED, *REFERENCES, "retrieval")


def network_for(method: str, config: dict) -> nn.Module:
    """A fresh network for a method that is trained: VelocityTransformer(**config) or MixtureNetwork(**config).

    Raises:
        ValueError: another method.
    """
    return (
        VelocityTransformer if choose("method", method, TRAINED) in paths.PATHS else MixtureNetwork
    )(**config)


def by_name(method: str, network, schedule: str):
    """The method of that name around its network; `uniform` and `land` need none, a `Retrieval` is its own.

    Raises:
        ValueError: unknown method or schedule.
    """
    if choose("method", method, METHODS) in paths.PATHS:
        return Flow(network, paths.by_name(method), schedule)
    if method == "retrieval":
        return network
    return (
        {"uniform": Uniform, "land": Land}[method]()
        if method in REFERENCES
        else VonMisesFisher(network)
    )
