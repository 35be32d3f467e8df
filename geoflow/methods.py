"""The methods behind one interface: each gives places and their log-densities for a condition.

================================================  ===============================================
``name``, ``guidable``                            its name; whether it has guidance
``noise(shape, generator)``                       the randomness of draws, (*shape, 3)
``prepare(noise)``                                the caller's own noise, checked
``sample(noise, cond, options)``                  one place per noise: (B, N, 3) → (B, N, 3)
``log_prob(x, cond, options)``                    log-densities on S²: (B, N, 3) → (B, N) nats
``sample_with_log_prob(noise, cond, options)``    both at once
``points_per_place``                              states of the network per place of `log_prob`
``defaults``                                      solver options if the caller names none
================================================  ===============================================

`Flow` integrates a velocity field, on S² or in R³. The closed forms are in `geoflow.baselines`
and `geoflow.data.references`.
"""

import inspect
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from geoflow import baselines, likelihood, paths, plonk, samplers, schedules, sphere
from geoflow.data import references
from geoflow.runtime import choose
from geoflow.samplers import SolverOptions
from geoflow.velocity import VelocityTransformer


class Flow:
    """A velocity field on a path: `riemannian`, `flow`, `diffusion`.

    A method in R³ answers on S² as well: a sample is the direction of its last state, and its
    density there is the radial marginal p(u) = ∫ p(r u) r² dr.

    Args:
        network: (x, t, cond) → the path's target.
        path: see `geoflow.paths`.
        schedule: name of the schedule that places a solver's steps.
    """

    guidable = True

    def __init__(self, network, path, schedule: str):
        self.path = path
        self.velocity = path.velocity(network)
        self.schedule_name = schedule
        self.schedule = schedules.by_name(schedule)
        self.name = path.name
        self.points_per_place = 1 if path.tangent else likelihood.RAY_POINTS
        published = isinstance(network, plonk.TimeAveraged)
        self.defaults = plonk.OPTIONS if published else SolverOptions()

    def noise(self, shape, generator: torch.Generator | None = None) -> Tensor:
        return self.path.noise(shape, generator)

    def prepare(self, noise: Tensor) -> Tensor:
        return self.path.project(noise)

    def times(self, options: SolverOptions) -> Tensor:
        """(steps + 1,) times of the states, from 0 (noise; diffusion: 10⁻³) to 1 (data).

        The schedule places them in the path's clock: near the data a diffusion's states differ by
        √(1 − t), and even steps in t would be too long for it.
        """
        start, end = self.path.clock(torch.tensor([0.0, 1.0]))
        chosen = schedules.by_name(options.schedule) if options.schedule else self.schedule
        grid = schedules.time_grid(chosen, options.steps)
        return self.path.time(start + (end - start) * grid)

    def _problem(self, options: SolverOptions):
        """The field to be integrated, the path and the times."""
        field = samplers.guided(self.velocity, options.guidance)
        return field, self.path, self.times(options)

    def states(self, noise: Tensor, cond, options: SolverOptions) -> Iterator[Tensor]:
        """States from noise to data, (B, N, 3) each, on S² or in R³."""
        if options.solver == samplers.PLONK:
            network = getattr(self.velocity, "network", self.velocity)
            times = schedules.time_grid(schedules.by_name(plonk.SCHEDULE), options.steps)
            return plonk.trajectory(network, self.path, noise, times, cond, options.guidance)
        field, path, times = self._problem(options)
        return samplers.trajectory(field, path, noise, times, cond, options.solver)

    def sample(self, noise: Tensor, cond: Tensor | None, options: SolverOptions) -> Tensor:
        for state in self.states(noise, cond, options):
            pass
        return sphere.unit(state)

    def log_prob(self, x: Tensor, cond: Tensor | None, options: SolverOptions) -> Tensor:
        def ambient(x: Tensor) -> Tensor:
            return self.ambient_log_prob(x, cond, options)

        return ambient(x) if self.path.tangent else likelihood.radial_marginal(ambient, x)

    def ambient_log_prob(self, x: Tensor, cond: Tensor | None, options: SolverOptions) -> Tensor:
        """Log-density where the states live: on S², or in R³ with respect to volume.

        In R³ this is the number that the paper reports.
        """
        field, path, times = self._problem(options)
        return likelihood.log_prob(field, path, x, times, cond, options.solver)

    def sample_with_log_prob(self, noise: Tensor, cond: Tensor | None, options: SolverOptions):
        if not self.path.tangent:
            x = self.sample(noise, cond, options)
            return x, self.log_prob(x, cond, options)
        field, path, times = self._problem(options)
        return likelihood.sample_with_log_prob(field, path, noise, times, cond, options.solver)


GENERATIVE = tuple(paths.PATHS)
TRAINED = (*GENERATIVE, "vmf", "vmf-mixture")
REFERENCES = ("uniform", "land")
METHODS = (*TRAINED, *REFERENCES, "retrieval")


def network_for(method: str, config: dict) -> nn.Module:
    """A fresh network of a trained method: VelocityTransformer or MixtureNetwork(**config).

    >>> network_for("vmf", {"cond_dim": 8, "dim": 16, "depth": 1})(torch.randn(2, 8)).mean.shape
    torch.Size([2, 1, 3])

    Raises:
        ValueError: another method, or an option that its network does not have.
    """
    generative = choose("method", method, TRAINED) in GENERATIVE
    kind = VelocityTransformer if generative else baselines.MixtureNetwork
    for option in config:
        choose(f"option of a {method} network", option, inspect.signature(kind).parameters)
    if not generative and config.get("cond_dim") == 0:
        raise ValueError(f"a {method} network with cond_dim = 0; expected at least 1")
    return kind(**config)


def by_name(method: str, network, schedule: str):
    """The method of a name around its network.

    `uniform` and `land` need no network; a `Retrieval` is its own.

    Raises:
        ValueError: unknown method or schedule.
    """
    if choose("method", method, METHODS) not in REFERENCES and network is None:
        raise ValueError(f"method {method!r} needs a network; got None")
    if method in GENERATIVE:
        return Flow(network, paths.by_name(method), schedule)
    if method == "retrieval":
        return network
    if method in REFERENCES:
        return {"uniform": baselines.Uniform, "land": references.Land}[method]()
    return baselines.VonMisesFisher(network)
