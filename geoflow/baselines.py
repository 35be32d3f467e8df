"""What flows are compared with: networks of vMF mixtures, and the uniform density.

Those that need a data set are in `geoflow.data.references`.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from geoflow import sphere
from geoflow.samplers import SolverOptions
from geoflow.velocity import Block, conditioner, in_float32, modulate, placed, zero_linear
from geoflow.vmf import MAX_LOG_CONCENTRATION, Mixture


class MixtureNetwork(nn.Module):
    """An embedding → a mixture of K von Mises–Fisher distributions (PLONK, baselines).

    It has the blocks of the velocity network, with a learnt vector in place of the location.

    Args:
        cond_dim, dim, depth, expansion, cond_hidden: as in `VelocityTransformer`.
        components: K; 1 is a single vMF, the paper's mixture has 3.
    """

    def __init__(
        self,
        cond_dim: int,
        components: int = 1,
        dim: int = 512,
        depth: int = 12,
        expansion: int = 4,
        cond_hidden: int = 0,
    ):
        super().__init__()
        if int(components) != components or components < 1:
            raise ValueError(f"a mixture of {components} components; expected at least 1")
        self.config = dict(cond_dim=cond_dim, components=components)
        self.config |= dict(dim=dim, depth=depth, expansion=expansion)
        self.config |= {"cond_hidden": cond_hidden} if cond_hidden else {}
        self.register = nn.Parameter(torch.randn(dim))
        self.embed_cond = conditioner(cond_dim, cond_hidden, dim)
        self.blocks = nn.ModuleList(Block(dim, expansion) for _ in range(depth))
        self.modulation = zero_linear(dim, 2 * dim)
        self.head = nn.Linear(dim, 5 * components)
        means = sphere.fibonacci_grid(components).flatten()
        bias = torch.cat([means, torch.zeros(2 * components, device="cpu")])
        with torch.no_grad():  # means spread over the sphere, broad and equally likely
            self.head.weight.mul_(0.1)
            self.head.bias.copy_(placed(bias))

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
        with in_float32(cond.device.type):
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
        return sphere.random_vectors(shape, generator, torch.rand)

    def prepare(self, noise: Tensor) -> Tensor:
        """The caller's own noise; a `ValueError` if numbers lie outside [0, 1]."""
        low, high = noise.min().item(), noise.max().item()
        if not (low >= 0 and high <= 1):
            text = f"noise of method {self.name!r} from {low} to {high}"
            raise ValueError(f"{text}; expected numbers in [0, 1]")
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
