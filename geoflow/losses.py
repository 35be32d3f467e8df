"""Losses: a network and a batch → a number. Inputs are left untouched."""

import torch
from torch import Tensor

from geoflow.schedules import Schedule, linear

Share = tuple[int, int]
"""(rank, processes): rows rank, rank + processes, … of a batch."""
WHOLE: Share = (0, 1)


def drop_condition(cond: Tensor, rate: float, generator: torch.Generator | None = None) -> Tensor:
    """A copy of cond in which each row becomes the null condition, zero, with probability `rate`.

    Training on it gives one network both fields that guidance needs (PLONK, section 3.3).

    >>> drop_condition(torch.ones(2, 3), rate=1.0)
    tensor([[0., 0., 0.],
            [0., 0., 0.]])

    Args:
        cond: (B, C).
        rate: probability in [0, 1].
        generator: source of randomness.

    Raises:
        ValueError: rate outside [0, 1].
    """
    if not 0 <= rate <= 1:
        raise ValueError(f"condition dropout of {rate}; expected a probability in [0, 1]")
    keep = _rand(len(cond), generator, cond) >= rate
    return torch.where(keep.reshape(-1, *[1] * (cond.ndim - 1)), cond, 0.0)


def draw_times(
    shape,
    schedule: Schedule,
    generator: torch.Generator | None = None,
    like: Tensor | None = None,
) -> Tensor:
    """Training times schedule(s), with s uniform and stratified.

    The draws of a batch are evenly spaced up to one random offset, in random order. Each alone is
    uniform; together they cover [0, 1], which lowers the variance of the loss (Kingma et al.,
    2021).

    >>> draw_times((2, 2), linear, torch.Generator().manual_seed(0)).flatten().sort().values.diff()
    tensor([0.2500, 0.2500, 0.2500])
    """
    n = int(torch.Size(shape).numel())
    offset = _rand(1, generator, like)
    order = torch.randperm(n, generator=generator, device=offset.device)
    return schedule((offset + order / n) % 1.0).reshape(shape)


def of_share(share: Share, draw, rows: Tensor) -> Tensor:
    """The rows of one process from a draw for the whole batch.

    Every process draws for the whole batch with an equal generator and keeps its own rows. The mean
    of the losses of all processes is then the loss of a single one.
    """
    rank, world = share
    return draw(rows.repeat_interleave(world, 0) if world > 1 else rows)[rank::world]


def flow_matching_loss(
    network, path, x1: Tensor, cond: Tensor | None = None, *,
    schedule: Schedule = linear, draws: int = 1, dropout: float = 0.1,
    generator: torch.Generator | None = None, share: Share = WHOLE,
) -> Tensor:  # fmt: skip
    """Mean squared error of the network's answer: E |ψ(x_t, t, c) − target|² (PLONK, equation 8).

    On S² the target is tangent, so this is the error in the tangent metric. As in the official code
    the target is the derivative in t itself, without the factor dκ/ds of the schedule, which
    changes the weights of times but not the field.

    >>> from geoflow import paths, sphere
    >>> from geoflow.velocity import VelocityTransformer
    >>> network, x1 = VelocityTransformer(8, dim=32, depth=2), sphere.uniform(16)
    >>> flow_matching_loss(network, paths.RiemannianFlow(), x1, torch.randn(16, 8)).shape
    torch.Size([])

    Args:
        network: (x (B, N, 3), t (B, N), cond (B, C)) → (B, N, 3).
        path: gives noise, points and targets, see `geoflow.paths`.
        x1: (B, 3) unit vectors, the true places.
        cond: (B, C) embeddings, or None.
        schedule: where times are drawn.
        draws: noise draws N per image; they share the image's conditioning.
        dropout: probability that an image's condition is dropped.
        generator: source of randomness.
        share: which rows of a batch these are, if several processes share it; see `of_share`.
    """
    x1 = x1[:, None].expand(-1, draws, -1)  # (B, N, 3)
    x0 = of_share(share, lambda x: path.noise_like(x, generator), x1)
    t = of_share(share, lambda x: draw_times((len(x), draws), schedule, generator, x), x1)  # (B, N)
    at = path.sample(x0, x1, t)
    if cond is not None:
        cond = of_share(share, lambda c: drop_condition(c, dropout, generator), cond)
    return (network(at.x_t, at.t, cond) - at.target).square().sum(-1).mean()


def likelihood_loss(network, x1: Tensor, cond: Tensor) -> Tensor:
    """Mean negative log-density of the true places under a closed form: −E log p(x₁ | c), nats.

    Args:
        network: (B, C) → an object with `log_prob` (B, N, 3) → (B, N), see `geoflow.vmf`.
        x1: (B, 3).
        cond: (B, C).
    """
    return -network(cond).log_prob(x1[:, None]).mean()


def _rand(n: int, generator: torch.Generator | None, like: Tensor | None) -> Tensor:
    device = generator.device if generator is not None else "cpu"
    draws = torch.rand(n, generator=generator, device=device)
    return draws if like is None else draws.to(like.device)
