"""Kernels of many widths: a density, and what their weights say."""

import math

import pytest
import torch

from geoflow import sphere, vmf
from geoflow.paper import kernels


def points(n: int, seed: int) -> torch.Tensor:
    return sphere.uniform(n, torch.Generator().manual_seed(seed)).double()


def test_the_parts_are_mixtures_of_von_mises_fisher_densities():
    centers, x = points(7, 0), points(50, 1)
    parts = kernels.log_parts(centers, x)
    weight = torch.full((1, 7), -math.log(7.0), dtype=torch.float64)
    for width, part in zip(kernels.WIDTHS_KM, parts[1:], strict=True):
        kappa = torch.full((1, 7), (sphere.EARTH_RADIUS_KM / width) ** 2, dtype=torch.float64)
        if width > 100:  # narrower ones are beyond the range of float64 here
            expected = vmf.Mixture(weight, centers[None], kappa).log_prob(x[None])[0]
            assert torch.allclose(part, expected, rtol=0, atol=1e-6)
    assert torch.equal(parts[0], torch.full((50,), sphere.LOG_UNIFORM, dtype=torch.float64))


def test_they_integrate_to_one():
    weights = torch.zeros(1 + len(kernels.WIDTHS_KM), dtype=torch.float64)
    weights[[0, -2, -1]] = torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64)
    model = kernels.KernelMixture(points(5, 2), weights)
    grid = sphere.fibonacci_grid(40_000).double()
    integral = 4 * math.pi * model.log_prob(grid).exp().mean()
    assert integral == pytest.approx(1, abs=1e-4)


def test_weights_are_the_shares_that_made_the_points():
    """A third repeats a known place, a third is some 8 km from one, a third is anywhere."""
    generator = torch.Generator().manual_seed(3)
    train = points(300, 4)
    near = train[:200] + 8.2 / sphere.EARTH_RADIUS_KM * sphere.to_tangent(
        train[:200], torch.randn(200, 3, generator=generator, dtype=torch.float64)
    )
    judge = torch.cat([train[100:300], sphere.unit(near), points(200, 5)])
    weights = kernels.fit_kernels(train, judge).weights
    assert weights.sum() == pytest.approx(1)
    exact, close = weights[1:3].sum(), weights[6:11].sum()
    assert [float(exact), float(close)] == pytest.approx([1 / 3, 1 / 3], abs=0.05)
    assert float(weights[0] + weights[11:].sum()) == pytest.approx(1 / 3, abs=0.05)


def test_it_is_the_likeliest_of_its_kind_on_the_points_that_chose_it():
    train, judge = points(60, 6), points(40, 7)
    best = kernels.fit_kernels(train, judge)
    generator = torch.Generator().manual_seed(8)
    for _ in range(5):
        noise = torch.rand(best.weights.shape, generator=generator, dtype=torch.float64)
        weights = 0.9 * best.weights + 0.1 * noise / noise.sum()
        other = kernels.KernelMixture(train, weights)
        assert best.log_prob(judge).mean() > other.log_prob(judge).mean()
