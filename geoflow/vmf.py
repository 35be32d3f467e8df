"""Von Mises–Fisher distributions on S² and their mixtures: density, draws, and the network that predicts one for an image.

    p(x) = κ / (2π (1 − e^{−2κ})) · exp(κ (⟨μ, x⟩ − 1))

κ = 0 is the uniform distribution; for large κ it is a normal distribution on the tangent plane with standard deviation 1/√κ
(a blob of 100 m: κ = 4·10⁹). All formulas hold in float32 over this range.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from geoflow import sphere
from geoflow.velocity import Block, modulate, normalize

MAX_LOG_CONCENTRATION = 24.0  # a standard deviation of 40 m


def log_prob(x: Tensor, mean: Tensor, concentration: Tensor) -> Tensor:
    """Log-density of vMF(μ, κ), nats.

    κ (⟨μ, x⟩ − 1) is computed as −κ |x − μ|²/2: the difference of an inner product from 1 is rounding noise below 2 km.

    Args:
        x, mean: (..., 3) unit vectors, broadcast.
        concentration: (...) κ ≥ 0.

    Raises:
        ValueError: κ is negative, NaN or infinite.
    """
    if not bool(((concentration >= 0) & concentration.isfinite()).all()):
        raise ValueError(
            f"concentration {concentration.min().item()} … {concentration.max().item()}; expected finite numbers of at least 0"
        )
    small = concentration < 1e-2
    safe = torch.where(small, 1.0, concentration)
    # log κ/(1 − e^{−2κ}), near 0 by its series
    log_ratio = torch.where(
        small,
        concentration - concentration.square() / 6 - math.log(2),
        safe.log() - (-torch.expm1(-2 * safe)).log(),
    )
    return log_ratio - math.log(2 * math.pi) - concentration * (x - mean).square().sum(-1) / 2


def sample(uniforms: Tensor, mean: Tensor, concentration: Tensor) -> Tensor:
    """Draws of vMF(μ, κ) by inverting its cumulative distribution: exact on S².

    1 − ⟨μ, x⟩ = −log(u + (1 − u) e^{−2κ}) / κ, and the azimuth is uniform.

    Args:
        uniforms: (..., 2) numbers in [0, 1).
        mean: (..., 3).
        concentration: (...) κ ≥ 0.

    Returns:
        (..., 3) unit vectors.
    """
    u, azimuth = uniforms[..., 0], 2 * math.pi * uniforms[..., 1]
    safe = concentration.clamp(min=1e-6)  # uniform to 10⁻⁶
    height = (-torch.log1p((1 - u) * torch.expm1(-2 * safe)) / safe).clamp(0, 2)  # 1 − ⟨μ, x⟩
    east, north = sphere.tangent_basis(mean)
    side = (height * (2 - height)).sqrt()[..., None]
    return sphere.unit(
        (1 - height)[..., None] * mean
        + side * (azimuth.cos()[..., None] * east + azimuth.sin()[..., None] * north)
    )


@dataclass(frozen=True)
class Mixture:
    """Σ w_k vMF(μ_k, κ_k) for each of B images.

    Attributes:
        log_weight: (B, K) logarithms of the weights, which add up to one.
        mean: (B, K, 3).
        concentration: (B, K).
    """

    log_weight: Tensor
    mean: Tensor
    concentration: Tensor

    def log_prob(self, x: Tensor) -> Tensor:
        """(B, N, 3) → (B, N) nats."""
        parts = log_prob(x[:, :, None], self.mean[:, None], self.concentration[:, None])
        return (self.log_weight[:, None] + parts).logsumexp(-1)

    def sample(self, uniforms: Tensor) -> Tensor:
        """One draw for each triple of numbers in [0, 1): (B, N, 3) → (B, N, 3). The first chooses the component."""
        below = uniforms[..., :1] >= self.log_weight.exp().cumsum(-1)[:, None]  # (B, N, K)
        chosen = below.sum(-1).clamp(max=self.log_weight.shape[-1] - 1)  # (B, N)
        mean = self.mean.gather(1, chosen[..., None].expand(-1, -1, 3))
        return sample(uniforms[..., 1:], mean, self.concentration.gather(1, chosen))


def fit_mixture(
    x: Tensor,
    components: int,
    steps: int = 200,
    most: float = 1e5,
    generator: torch.Generator | None = None,
) -> Mixture:
    """Maximum-likelihood mixture of points by expectation–maximisation (Banerjee et al., 2005), in float64.

    Args:
        x: (n, 3) unit vectors.
        components: K.
        steps: of expectation and maximisation.
        most: largest κ allowed; a component of one repeated point would take κ, and the likelihood, to infinity.
        generator: chooses the first means among the points, each far from those before (k-means++).

    Returns:
        A mixture for B = 1.

    Raises:
        ValueError: fewer points than components, or none.
    """
    if not 1 <= components <= len(x):
        raise ValueError(
            f"{components} components for {len(x)} points; expected at least one component and no more than points"
        )
    x = x.double()
    chosen = [int(torch.randint(len(x), (1,), generator=generator))]
    for _ in range(components - 1):
        nearest = (x[:, None] - x[chosen]).square().sum(-1).amin(1)
        weights = nearest if bool(nearest.sum() > 0) else torch.ones_like(nearest)
        chosen.append(int(torch.multinomial(weights, 1, generator=generator)))
    mixture = Mixture(
        x.new_full((1, components), -math.log(components)),
        x[chosen][None],
        x.new_full((1, components), min(components, most)),
    )
    for _ in range(steps):
        parts = mixture.log_weight + log_prob(
            x[:, None], mixture.mean, mixture.concentration
        )  # (n, K)
        share = parts.softmax(-1)
        total = share.sum(0).clamp(min=1e-12)
        resultant = (share.T @ x) / total[:, None]
        length = resultant.norm(dim=-1)
        mean = torch.where(length[:, None] > 1e-9, sphere.unit(resultant), mixture.mean[0])
        mixture = Mixture(
            (total / len(x)).log()[None], mean[None], _concentration(length).clamp(max=most)[None]
        )
    return mixture


def _concentration(length: Tensor) -> Tensor:
    """κ of mean resultant length R: coth κ − 1/κ = R, by Newton's method from Banerjee's R (3 − R²) / (1 − R²)."""
    length = length.clamp(1e-6, 1 - 1e-12)
    kappa = length * (3 - length**2) / (1 - length**2)
    for _ in range(5):
        error = torch.where(kappa < 1e-2, kappa / 3, 1 / kappa.tanh() - 1 / kappa) - length
        slope = torch.where(kappa < 1e-2, 1 / 3, kappa**-2 - kappa.clamp(max=300).sinh() ** -2)
        kappa = (kappa - error / slope).clamp(min=1e-6)
    return kappa


class MixtureNetwork(nn.Module):
    """The velocity network's blocks with a learned register in place of the location, and heads for a mixture of K vMF (PLONK, baselines).

    Args:
        cond_dim: C, width of the embedding.
        components: K; 1 is a single vMF, the paper's mixture has 3.
        dim, depth, expansion: as in `VelocityTransformer`.

    Raises:
        ValueError: components < 1.
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
            raise ValueError(
                f"a mixture of {components} components; expected a whole number of at least 1"
            )
        self.config = dict(
            cond_dim=cond_dim, components=components, dim=dim, depth=depth, expansion=expansion
        )
        self.register = nn.Parameter(torch.randn(dim))
        self.embed_cond = nn.Linear(cond_dim, dim)
        self.blocks = nn.ModuleList(Block(dim, expansion) for _ in range(depth))
        self.modulation = nn.Linear(dim, 2 * dim)
        self.head = nn.Linear(dim, 5 * components)
        nn.init.zeros_(self.modulation.weight)
        nn.init.zeros_(self.modulation.bias)
        with torch.no_grad():  # means spread over the sphere, broad and equally likely
            self.head.weight *= 0.1
            self.head.bias[: 3 * components] = sphere.fibonacci_grid(components).float().flatten()
            self.head.bias[3 * components :] = 0.0

    def forward(self, cond: Tensor) -> Mixture:
        """(B, C) → a mixture for each image.

        Raises:
            ValueError: cond has another shape.
        """
        width, k = self.config["cond_dim"], self.config["components"]
        if cond.ndim != 2 or cond.shape[1] != width:
            raise ValueError(f"cond has shape {tuple(cond.shape)}; expected (B, {width})")
        c = nn.functional.silu(self.embed_cond(cond))[:, None]
        stack = self.register.expand(1, len(cond), 1, -1)
        for block in self.blocks:
            stack = block.push(stack, c)  # ty: ignore[not-callable]
        scale, shift = self.modulation(c).chunk(2, dim=-1)
        with torch.autocast(cond.device.type, enabled=False):
            answer = self.head(modulate(normalize(stack), scale, shift)[0, :, 0].float())
            mean, log_concentration, logits = answer.split([3 * k, k, k], dim=-1)
            concentration = log_concentration.clamp(-10, MAX_LOG_CONCENTRATION).exp()
            return Mixture(
                logits.log_softmax(-1), sphere.unit(mean.reshape(-1, k, 3)), concentration
            )
