"""The method `flow-map`: samples in jumps, densities by the velocity that the same network has."""

import inspect
from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from geoflow import methods, paths, samplers
from geoflow.flowmap.network import MOST_GUIDANCE, FlowMapTransformer
from geoflow.runtime import choose
from geoflow.samplers import JUMP, SolverOptions
from geoflow.velocity import VelocityTransformer
from geoflow.velocity_jvp import jvp, network_jvp

MAP = "flow-map"
FLOWS = (*methods.GENERATIVE, MAP)
NETWORKS = (*methods.TRAINED, MAP)  # methods whose networks are trained and saved


@dataclass(frozen=True)
class Diagonal:
    """The velocity of a flow map under guidance, in one call: (x, t, cond) → u_{t,t}(x, c, ω)."""

    network: FlowMapTransformer
    guidance: float

    def __call__(self, x: Tensor, t, cond: Tensor | None = None) -> Tensor:
        return self.network.mean_velocity(x, t, t, cond, self.guidance)


@jvp.register
def _(velocity: Diagonal, x, t, cond, directions):
    network = velocity.network
    network.check(x, cond)
    x = x.contiguous()
    t, guidance = (network.times_for(x, value) for value in (t, velocity.guidance))
    return network_jvp(network, x, t, network.request(t, t, cond, guidance), directions)


class FlowMap(methods.Flow):
    """A flow on S² with its solution: one network for its velocity and for jumps along it.

    Samples are made by `steps` jumps (solver `jump`, one jump by default), or by solving the
    velocity with another solver. Log-densities are those of the velocity, which is integrated: with
    the solver that is asked for, or, as a jump has no density, by RK4 in as many steps, but at
    least the 16 of a flow.

    >>> network = FlowMapTransformer(cond_dim=0, dim=16, depth=1)
    >>> flow_map = FlowMap(network, "linear")
    >>> flow_map.sample(flow_map.noise((1, 5)), None, flow_map.defaults).shape
    torch.Size([1, 5, 3])

    Args:
        network: see `geoflow.flowmap.network`.
        schedule: name of the schedule that places jumps and steps.

    Raises:
        ValueError: a network of another kind; when it is used, guidance outside the range in which
            the network was trained, and the solvers `ddim` and `plonk`.
    """

    def __init__(self, network: FlowMapTransformer, schedule: str):
        if not isinstance(network, FlowMapTransformer):
            kind = type(network).__name__
            raise ValueError(f"method {MAP!r} with a {kind}; expected a FlowMapTransformer")
        super().__init__(network, paths.by_name("riemannian"), schedule)
        self.name, self.defaults = MAP, SolverOptions(1, JUMP)

    def _problem(self, options: SolverOptions):
        return self._field(options.guidance), self.path, self.times(options)

    def _field(self, guidance: float):
        if not 0 <= guidance <= MOST_GUIDANCE:
            expected = f"expected 0 to {MOST_GUIDANCE:g}, in which it was trained"
            raise ValueError(f"guidance of {guidance:g} with method {MAP!r}; {expected}")
        return Diagonal(self.velocity, guidance) if guidance else self.velocity

    def states(self, noise: Tensor, cond, options: SolverOptions) -> Iterator[Tensor]:
        if options.solver in (samplers.DDIM, samplers.PLONK):
            text = f"solver {options.solver!r} with method {MAP!r}"
            raise ValueError(f"{text}; expected {JUMP!r}, or another that solves its velocity")
        if options.solver != JUMP:
            return super().states(noise, cond, options)
        self._field(options.guidance)  # a bad guidance is refused before any work
        return jumps(self.velocity, noise, self.times(options), cond, options.guidance)

    def ambient_log_prob(self, x: Tensor, cond, options: SolverOptions) -> Tensor:
        return super().ambient_log_prob(x, cond, solved(options))

    def sample_with_log_prob(self, noise: Tensor, cond, options: SolverOptions):
        """Samples of the velocity, not of jumps, whose density is unknown, and log-densities."""
        return super().sample_with_log_prob(noise, cond, solved(options))


def solved(options: SolverOptions) -> SolverOptions:
    """How densities are solved: as asked for, but not by jumps, which have none."""
    usual = SolverOptions()
    if options.solver != JUMP:
        return options
    return replace(options, solver=usual.solver, steps=max(options.steps, usual.steps))


@torch.no_grad()
def jumps(
    network: FlowMapTransformer, x: Tensor, times: Tensor, cond=None, guidance: float = 0.0
) -> Iterator[Tensor]:
    """States at each of `times`, one jump between neighbours.

    >>> from geoflow import sphere
    >>> network, noise = FlowMapTransformer(cond_dim=0, dim=16, depth=1), sphere.uniform((1, 5))
    >>> len(list(jumps(network, noise, torch.tensor([0.0, 0.9, 1.0]))))
    3

    Args:
        x: (B, N, 3) states at times[0].
        times: (jumps + 1,), see `geoflow.schedules.time_grid`.
        cond: (B, C) or None.
        guidance: ω.

    Yields:
        (B, N, 3), jumps + 1 times; the first is x.

    Raises:
        FloatingPointError: the network's answer is not finite.
    """
    yield x
    moments = times.tolist()
    for t, s in zip(moments[:-1], moments[1:], strict=True):
        x = network.jump(x, t, s, cond, guidance)
        samplers.check_finite(x, s)
        yield x


def network_for(method: str, config: dict) -> nn.Module:
    """`methods.network_for`, which knows flow maps as well.

    >>> type(network_for("flow-map", {"cond_dim": 8, "dim": 16, "depth": 1})).__name__
    'FlowMapTransformer'

    Raises:
        ValueError: another method, or an option that its network does not have.
    """
    if choose("method", method, NETWORKS) != MAP:
        return methods.network_for(method, config)
    for option in config:
        choose(
            f"option of a {MAP} network", option, inspect.signature(VelocityTransformer).parameters
        )
    return FlowMapTransformer(**config)


def by_name(method: str, network, schedule: str):
    """`methods.by_name`, which knows flow maps as well."""
    if choose("method", method, (*methods.METHODS, MAP)) == MAP:
        return FlowMap(network, schedule)
    if isinstance(network, FlowMapTransformer):
        raise ValueError(f"method {method!r} with a FlowMapTransformer; expected {MAP!r}")
    return methods.by_name(method, network, schedule)


def path_of(method: str):
    """The path on which a flow or a flow map learns."""
    return paths.by_name("riemannian" if method == MAP else method)
