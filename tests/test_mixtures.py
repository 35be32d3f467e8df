"""Fitted mixtures find the mixture of their points, step by step, and stay finite."""

import pytest
import torch

from geoflow import sphere, vmf
from geoflow.paper.mixtures import fit_mixture


def test_a_fitted_mixture_finds_the_mixture_its_points_are_from(generator):
    truth = vmf.Mixture(
        torch.tensor([[0.5, 0.3, 0.2]]).double().log(),
        sphere.fibonacci_grid(3)[None].double(),
        torch.tensor([[20.0, 200.0, 5.0]]).double(),
    )
    x = truth.sample(torch.rand(1, 20_000, 3, dtype=torch.float64, generator=generator))[0]
    fitted = fit_mixture(x, 3, generator=generator)
    order = (fitted.mean[0] @ truth.mean[0].T).argmax(0)
    assert torch.allclose(fitted.log_weight[0, order].exp(), truth.log_weight[0].exp(), atol=0.02)
    assert torch.allclose(fitted.mean[0, order], truth.mean[0], atol=0.03)
    assert torch.allclose(
        fitted.concentration[0, order] / truth.concentration[0], torch.ones(3).double(), atol=0.08
    )
    assert float(fitted.log_prob(x[None]).mean()) > float(
        truth.log_prob(x[None]).mean()
    )  # it is the likeliest


def test_each_step_of_the_fit_is_likelier(generator):
    x = sphere.uniform(500, generator).double()
    values = []
    for steps in range(8):
        fitted = fit_mixture(x, 5, steps, generator=torch.Generator().manual_seed(3))
        values.append(float(fitted.log_prob(x[None]).mean()))
    assert all(later >= earlier - 1e-12 for earlier, later in zip(values, values[1:], strict=False))


def test_repeated_points_do_not_take_the_fit_to_infinity(generator):
    x = sphere.uniform(20, generator).double().repeat(5, 1)
    fitted = fit_mixture(x, 20, most=1e4, generator=generator)
    assert float(fitted.concentration.max()) <= 1e4
    assert bool(fitted.log_prob(x[None]).isfinite().all())
    with pytest.raises(ValueError, match="3 components for 2 points"):
        fit_mixture(x[:2], 3)
