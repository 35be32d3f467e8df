"""Derivatives layer by layer are the automatic ones: of networks, guided networks, noise predictions, and of any other function."""

import pytest
import torch
from small import network

from geoflow import paths, samplers, sphere
from geoflow.velocity import VelocityTransformer
from geoflow.velocity_jvp import jvp


def draws(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def agrees_with_torch(velocity, x, t, cond, tolerance=1e-12):
    """Along three directions, tangent to nothing."""
    directions = draws(3, *x.shape, seed=1)
    v, rates = jvp(velocity, x, t, cond, directions)
    for direction, rate in zip(directions, rates, strict=True):
        value, derivative = torch.func.jvp(lambda y: velocity(y, t, cond), (x,), (direction,))
        assert torch.allclose(v, value, rtol=0, atol=tolerance)
        assert torch.allclose(rate, derivative, rtol=0, atol=tolerance)


OPTIONS = [
    *({}, {"fourier": 8}, {"tangent": False}, {"cond_dim": 0}, {"clock": 1e-3}),
    {"guess": "riemannian", "clock": 1e-3},
    {"fourier": 8, "octaves": 5.0},
    {"guess": "flow", "tangent": False},
    {"guess": "diffusion", "tangent": False},
]
TIMES = [
    0.4,
    torch.tensor([0.2, 0.8]),
    torch.tensor([[0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.7, 0.8, 0.9, 0.95, 0.99, 1.0]]),
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("length", [1.0, 1.7])
def test_network(options, length, float64):
    net, x = network(**options), length * sphere.unit(draws(2, 6, 3))
    agrees_with_torch(net, x, TIMES[1], draws(2, 8) if net.config["cond_dim"] else None)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_points_that_several_images_share(options, float64):
    """A tensor that is expanded, not copied, as the cells of a map are."""
    net, x = network(**options), sphere.unit(draws(6, 3)).expand(2, -1, -1)
    path = paths.RiemannianFlow() if net.tangent else paths.EuclideanFlow()
    cond = draws(2, 8) if net.config["cond_dim"] else None
    v, rates = jvp(net, x, 0.4, cond, path.frame(x))
    again, same = jvp(net, x.clone(), 0.4, cond, path.frame(x).clone())
    assert torch.equal(v, again)
    assert torch.equal(rates, same)


@pytest.mark.parametrize("t", TIMES, ids=["scalar", "per image", "per point"])
@pytest.mark.parametrize("tangent", [True, False])
def test_guided_network(t, tangent, float64):
    guided = samplers.guided(network(tangent=tangent), 1.5)
    agrees_with_torch(guided, sphere.unit(draws(2, 6, 3)), t, draws(2, 8))
    agrees_with_torch(guided, sphere.unit(draws(2, 6, 3)), t, None)


@pytest.mark.parametrize("t", TIMES, ids=["scalar", "per image", "per point"])
@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_noise_prediction(t, guidance, float64):
    velocity = paths.by_name("diffusion").velocity(network(tangent=False))
    agrees_with_torch(samplers.guided(velocity, guidance), draws(2, 6, 3), t, draws(2, 8))


def test_any_other_function():
    """Along points that several images share, too: a tensor that is expanded, not copied."""
    x, directions = draws(6, 3).expand(2, -1, -1), draws(3, 2, 6, 3, seed=1)
    v, rates = jvp(lambda x, t, cond: t * x.sin(), x, 0.5, None, directions)
    assert torch.allclose(v, 0.5 * x.sin())
    assert torch.allclose(rates, 0.5 * x.cos() * directions)


def test_wrong_shapes_are_refused_as_by_the_network():
    with pytest.raises(ValueError, match=r"\(2, 7\); expected \(2, 8\)"):
        jvp(network(), torch.ones(2, 5, 3), 0.5, torch.ones(2, 7), torch.ones(2, 2, 5, 3))


def test_a_subclass_with_layers_of_its_own_is_differentiated_as_it_is():
    class Half(VelocityTransformer):
        def forward(self, x, t, cond=None):
            return super().forward(x, t, cond) / 2

    torch.manual_seed(0)
    net = Half(cond_dim=4, dim=16, depth=1)
    torch.nn.init.normal_(net.modulation.weight)
    x, cond = sphere.uniform((2, 3), torch.Generator().manual_seed(0)), torch.randn(2, 4)
    v, _ = jvp(net, x, 0.3, cond, sphere.tangent_basis(x))
    torch.testing.assert_close(v, net(x, 0.3, cond))
