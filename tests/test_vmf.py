"""Von Mises–Fisher: closed forms, the official code's values, draws against densities."""

import math

import official
import pytest
import torch

from geoflow import sphere, vmf
from geoflow.vmf import Mixture


def uniforms(n, seed=0):
    return torch.rand(n, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def mean_at(lat, lon, dtype=torch.float64):
    return sphere.from_latlon(torch.tensor([lat, lon], dtype=dtype))


@pytest.mark.parametrize("kappa", [0.0, 1e-6, 0.009, 0.011, 1.0, 10.0, 1e3])
def test_density_integrates_to_one(kappa):
    x = sphere.fibonacci_grid(200_000).double()
    density = vmf.log_prob(x, mean_at(40.0, -100.0), torch.tensor(kappa, dtype=torch.float64)).exp()
    assert 4 * math.pi * float(density.mean()) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("kappa", [1e4, 4e7, 4e9])
def test_float32_density_of_a_needle(kappa):
    """A blob of 100 m: the peak is κ/2π, and one standard deviation away half a nat is lost, to the rounding of a place."""
    mean = mean_at(51.0, 17.0, torch.float32)
    away = sphere.exp(mean, sphere.tangent_basis(mean)[0] / math.sqrt(kappa))
    concentration = torch.tensor(kappa)
    peak = vmf.log_prob(mean, mean, concentration)
    assert float(peak) == pytest.approx(math.log(kappa / (2 * math.pi)), abs=1e-4)
    assert float(peak - vmf.log_prob(away, mean, concentration)) == pytest.approx(
        0.5, abs=2e-3 + 1e-7 * math.sqrt(kappa)
    )


def test_kappa_near_zero_is_smooth():
    kappa = torch.linspace(0, 0.05, 101, dtype=torch.float64)
    values = vmf.log_prob(mean_at(0.0, 60.0), mean_at(0.0, 0.0), kappa)
    assert float(values[0]) == pytest.approx(sphere.LOG_UNIFORM)
    assert values.diff().diff().abs().max() < 1e-6


def test_gradients_are_finite():
    for kappa in (0.0, 1e-3, 1.0, 1e9):
        concentration = torch.tensor(kappa, requires_grad=True)
        mean = mean_at(1.0, 2.0, torch.float32).requires_grad_()
        vmf.log_prob(mean_at(1.0, 2.0, torch.float32), mean, concentration).backward()
        assert concentration.grad.isfinite()
        assert mean.grad.isfinite().all()


@pytest.mark.parametrize("bad", [-1.0, math.nan, math.inf])
def test_bad_concentration(bad):
    with pytest.raises(ValueError, match="concentration"):
        vmf.log_prob(mean_at(0.0, 0.0), mean_at(0.0, 0.0), torch.tensor(bad))


@pytest.mark.parametrize("kappa", [1e-8, 0.5, 20.0, 1e4, 4e9])
def test_draws_have_the_exact_mean_and_spread(kappa):
    n = 100_000
    mean = mean_at(-30.0, 179.0)
    x = vmf.sample(
        uniforms(n)[:, 1:], mean.expand(n, 3), torch.full((n,), kappa, dtype=torch.float64)
    )
    assert (x.norm(dim=-1) - 1).abs().max() < 1e-12
    height = 1 - x @ mean
    expected = (
        1 - (1 / math.tanh(kappa) - 1 / kappa)
        if 1e-3 < kappa < 1e3
        else (1.0 if kappa < 1 else 1 / kappa)
    )
    assert float(height.mean()) == pytest.approx(expected, rel=5 / math.sqrt(n), abs=1e-15)
    around = x - (x @ mean)[:, None] * mean  # the azimuth has no preference
    assert around.mean(0).norm() < 5 * around.norm(dim=-1).square().mean().sqrt() / math.sqrt(n)


def test_entropy_by_draws_is_the_closed_form():
    kappa = 12.0
    x = vmf.sample(
        uniforms(200_000)[:, 1:],
        mean_at(10.0, 10.0).expand(200_000, 3),
        torch.full((200_000,), kappa, dtype=torch.float64),
    )
    log_p = vmf.log_prob(x, mean_at(10.0, 10.0), torch.tensor(kappa, dtype=torch.float64))
    exact = (
        math.log(kappa / (2 * math.pi))
        - math.log1p(-math.exp(-2 * kappa))
        + kappa * (1 / math.tanh(kappa) - 1 / kappa - 1)
    )
    assert float(log_p.mean()) == pytest.approx(
        exact, abs=5 * float(log_p.std()) / math.sqrt(len(x))
    )


def a_mixture():
    mean = torch.stack([mean_at(10.0, 20.0), mean_at(-60.0, 170.0), mean_at(80.0, 0.0)])[None]
    weight = torch.tensor([[0.6, 0.3, 0.1]], dtype=torch.float64)
    return Mixture(weight.log(), mean, torch.tensor([[50.0, 200.0, 0.0]], dtype=torch.float64))


def test_mixture_integrates_to_one_and_draws_its_components():
    mixture = a_mixture()
    x = sphere.fibonacci_grid(100_000).double()
    assert 4 * math.pi * float(mixture.log_prob(x[None]).exp().mean()) == pytest.approx(1, abs=1e-4)
    draws = mixture.sample(uniforms(50_000)[None])[0]
    near = [float((sphere.distance(draws, mean) < 0.5).double().mean()) for mean in mixture.mean[0]]
    cap = (1 - math.cos(0.5)) / 2  # of the uniform component
    inside = [0.6 * (1 - math.exp(-50 * (1 - math.cos(0.5)))), 0.3, 0.1 * cap]
    assert near[0] == pytest.approx(inside[0] + 0.1 * cap, abs=0.01)
    assert near[1] == pytest.approx(inside[1] + 0.1 * cap, abs=0.01)
    assert near[2] == pytest.approx(inside[2], abs=0.005)


def test_official_values():
    """The exact values of the fixtures, in float64 and, to its rounding, in float32."""
    edge = official.tensors("edge")
    x, mean = (sphere.unit(edge[name].double()) for name in ("x", "mu"))
    kappa, exact = edge["kappa"][:, 0].double(), edge["vmf_nll_exact_f64"][:, 0]
    assert (
        (vmf.log_prob(x, mean, kappa) + exact).abs() < 1e-6 + 3e-7 * kappa
    ).all()  # their vectors have length 1 to float32
    t = official.tensors("vmf")
    for dtype, tolerance in ((torch.float64, 1e-9), (torch.float32, 1e-3)):
        x, mean = (sphere.unit(t[name].double()).to(dtype) for name in ("x", "mu"))
        exact = t["vmf_nll_exact_f64"][:, 0]
        ours = -vmf.log_prob(x, mean, t["kappa"][:, 0].to(dtype)).double()
        assert ((ours - exact) / (1 + exact.abs())).abs().max() < max(tolerance, 1e-6)
        mixture = Mixture(
            t["mixture_weights"].to(dtype).log(),
            sphere.unit(t["mixture_mu"].double()).to(dtype),
            t["mixture_kappa"].to(dtype),
        )
        exact = t["mixture_nll_exact_f64"][:, 0]
        ours = -mixture.log_prob(x[:, None])[:, 0].double()
        assert ((ours - exact) / (1 + exact.abs())).abs().max() < max(tolerance, 1e-6)
