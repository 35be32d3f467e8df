"""The velocity network: tangent, pointwise, one conditioning per image, PLONK's layers exactly."""

import json
import math

import official
import pytest
import torch
from small import network

from geoflow import paths, plonk, schedules, sphere
from geoflow.velocity import VelocityTransformer


def points(*shape, seed=0):
    return sphere.uniform(shape, torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(
    "options",
    [{}, {"fourier": 16}, {"fourier": 16, "octaves": 9}, {"cond_dim": 0}, {"guess": "riemannian"}],
)
def test_velocity_is_tangent(options):
    net, x = network(**options), points(3, 50)
    cond = torch.randn(3, 8) if net.config["cond_dim"] else None
    v = net(x, 0.3, cond)
    assert v.shape == x.shape
    assert torch.linalg.vector_norm(v, dim=-1).mean() > 0.1
    assert (x * v).sum(-1).abs().max() < 1e-6


def test_velocity_is_constant_along_rays(float64):
    net, x = network(), points(2, 20).double()
    assert torch.allclose(net(3 * x, 0.5), net(x, 0.5), atol=1e-14)


@pytest.mark.parametrize("cond_hidden", [0, 16])
def test_no_condition_is_a_zero_condition(cond_hidden):
    net, x = network(cond_hidden=cond_hidden), points(4, 6)
    assert torch.allclose(net(x, 0.3, None), net(x, 0.3, torch.zeros(4, 8)), atol=1e-6)


def test_batch_of_one():
    net, x, cond = network(), points(5, 7), torch.randn(5, 8)
    together = net(x, 0.3, cond)
    for i in range(5):
        assert torch.allclose(
            net(x[i : i + 1], 0.3, cond[i : i + 1]), together[i : i + 1], atol=1e-6
        )
    assert torch.allclose(net(x[:1, :1], 0.3, cond[:1]), together[:1, :1], atol=1e-6)


def test_points_do_not_see_each_other():
    net, x, cond = network(fourier=8), points(2, 40), torch.randn(2, 8)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(1))
    t = torch.rand(2, 40)
    assert torch.allclose(net(x[:, order], t[:, order], cond), net(x, t, cond)[:, order], atol=1e-6)


def test_time_per_batch_per_image_and_per_point_agree():
    net, x, cond = network(), points(3, 5), torch.randn(3, 8)
    expected = net(x, 0.4, cond)
    for t in (
        torch.tensor(0.4),
        torch.full((3,), 0.4),
        torch.full((3, 5), 0.4),
        torch.full((3, 1), 0.4),
    ):
        assert torch.allclose(net(x, t, cond), expected, atol=1e-6)
    t = torch.tensor([0.1, 0.5, 0.9])
    assert torch.allclose(
        net(x, t, cond),
        torch.cat([net(x[i : i + 1], t[i], cond[i : i + 1]) for i in range(3)]),
        atol=1e-6,
    )


def test_conditioning_is_computed_once_per_image_and_equals_per_point():
    net, x, cond = network(), points(2, 30), torch.randn(2, 8)
    rows = []
    net.embed_time.mlp.register_forward_hook(
        lambda module, inputs, output: rows.append(output[..., 0].numel())
    )
    net.embed_cond.register_forward_hook(
        lambda module, inputs, output: rows.append(output[..., 0].numel())
    )
    net.blocks[0].modulation.register_forward_hook(
        lambda module, inputs, output: rows.append(output[..., 0].numel())
    )
    per_image = net(x, torch.tensor([0.2, 0.7]), cond)
    assert rows == [2, 2, 2]
    per_point = net(
        x.reshape(60, 1, 3),
        torch.tensor([0.2, 0.7]).repeat_interleave(30),
        cond.repeat_interleave(30, 0),
    )
    assert torch.allclose(per_image, per_point.reshape(2, 30, 3), atol=1e-6)


def test_velocity_depends_on_point_time_and_condition():
    net, x, cond = network(), points(1, 3), torch.randn(1, 8)
    v = net(x, 0.3, cond)
    for other in (
        net(points(1, 3, seed=1), 0.3, cond),
        net(x, 0.31, cond),
        net(x, 0.3, cond + 0.1),
    ):
        assert (other - v).abs().max() > 1e-4


def test_bfloat16_network_keeps_coordinates_in_float32():
    net, x, cond = network(fourier=8), points(2, 50), torch.randn(2, 8)
    exact = net(x, 0.3, cond)
    with torch.autocast("cpu", torch.bfloat16):
        v = net(x, 0.3, cond)
    assert v.dtype == torch.float32
    assert (x * v).sum(-1).abs().max() < 1e-6
    assert (v - exact).abs().max() < 0.05 * exact.abs().max()


def test_octaves_spread_frequencies_evenly_in_the_logarithm():
    norms = network(fourier=33, octaves=8).frequencies.norm(dim=0)
    torch.testing.assert_close(norms.log2(), torch.linspace(0, 8, 33))


def test_a_wave_of_octaves_is_its_mean_over_the_noise():
    """The damped wave of x beside the mean of 400,000 waves of x + (1 − t) ξ."""
    net, x = network(fourier=6, octaves=3), points(1, 1)
    noise = torch.randn(400_000, 3, generator=torch.Generator().manual_seed(2))
    for t in (0.2, 0.7, 0.95, 1.0):
        drawn = (x[0] + (1 - t) * noise) @ net.frequencies
        damped = net.damping(torch.tensor([[t]]))[0, 0]
        for wave in (torch.sin, torch.cos):
            expected = damped * wave(x[0, 0] @ net.frequencies)
            assert (wave(drawn).mean(0) - expected).abs().max() < 0.006  # four standard errors


@pytest.mark.parametrize(("octaves", "fourier"), [(-1, 8), (2, 0), (math.nan, 8), ("3", 8)])
def test_octaves_that_do_not_apply(octaves, fourier):
    with pytest.raises(ValueError, match=f"octaves={octaves!r}.*; expected"):
        network(octaves=octaves, fourier=fourier)


def test_octaves_say_nothing_of_what_is_finer_than_the_noise():
    """Without damping two places a hundredth of a radian apart have different features at any time."""
    net = network(fourier=16, octaves=12)
    near = sphere.exp(points(1, 1), 0.01 * sphere.to_tangent(points(1, 1), points(1, 1, seed=1)))
    early, late = (
        torch.linalg.vector_norm(net(points(1, 1), t) - net(near, t)) for t in (0.1, 1.0)
    )
    assert early < 0.05 * late


def test_fresh_network_starts_with_blocks_that_do_nothing():
    torch.manual_seed(0)
    net = VelocityTransformer(cond_dim=8, dim=32, depth=3)
    h, c = torch.randn(2, 5, 32), torch.randn(2, 1, 32)
    assert all(torch.equal(block(h, c), h) for block in net.blocks)


@pytest.mark.parametrize(
    "extras", [{}, {"clock": 1e-3, "guess": "riemannian"}, {"cond_hidden": 16}, {"octaves": 9.0}]
)
def test_config_rebuilds_the_network(extras):
    net = network(fourier=8, expansion=2, time_scale=10.0, **extras)
    twin = VelocityTransformer(**json.loads(json.dumps(net.config)))
    twin.load_state_dict(net.state_dict())
    x = points(2, 5)
    assert torch.equal(net(x, 0.3), twin.eval()(x, 0.3))


@pytest.mark.parametrize(
    ("x", "cond", "message"),
    [
        ((5, 3), None, r"\(5, 3\); expected \(B, N, 3\)"),
        ((2, 5, 2), None, r"\(2, 5, 2\)"),
        ((2, 5, 3), (2, 7), r"\(2, 7\); expected \(2, 8\)"),
        ((2, 5, 3), (3, 8), r"\(3, 8\); expected \(2, 8\)"),
        ((2, 5, 3), (8,), r"\(8,\)"),
    ],
)
def test_wrong_shapes(x, cond, message):
    with pytest.raises(ValueError, match=message):
        network()(torch.ones(x), 0.5, None if cond is None else torch.ones(cond))


@pytest.mark.parametrize("guess", ["flow", "diffusion"])
def test_a_guess_of_another_space(guess):
    with pytest.raises(ValueError, match=f"tangent=True with guess='{guess}'; expected False"):
        network(guess=guess)
    with pytest.raises(ValueError, match="tangent=False with guess='riemannian'; expected True"):
        network(guess="riemannian", tangent=False)
    with pytest.raises(ValueError, match="unknown method 'remannian'"):
        network(guess="remannian")


@pytest.mark.parametrize("name", paths.PATHS)
def test_a_guess_is_the_paths_target_and_a_correction(name):
    """Of a head that answers (a, m, log s) whatever its input is."""
    path = paths.by_name(name)
    net = network(guess=name, tangent=path.tangent)
    torch.nn.init.zeros_(net.head.weight)
    a, mean, width = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.6, 0.0, 0.8]), 0.05
    net.head.bias.data = torch.cat([a, mean, torch.tensor([width]).log()])
    x, t = points(2, 5), torch.tensor([0.3, 0.99])
    expected = a + path.expected_target(x, t[:, None, None], mean, torch.tensor(width))
    expected = sphere.to_tangent(x, expected) if path.tangent else expected
    assert torch.allclose(net(x, t), expected, rtol=1e-5, atol=1e-5)


def test_a_clock_is_a_time_of_its_own():
    net, twin = network(clock=1e-3), network()
    x, t = points(2, 5), torch.tensor([0.3, 0.99])
    assert torch.equal(net(x, t), twin(x, schedules.log_clock(t, 1e-3)))
    assert not torch.allclose(net(x, t), twin(x, t), atol=1e-3)


@pytest.mark.parametrize("dim", [8, 20, 0])
def test_wrong_width(dim):
    with pytest.raises(ValueError, match=f"dim={dim}"):
        VelocityTransformer(cond_dim=4, dim=dim)


# Parity with the official code: its weights, its answers


@pytest.mark.parametrize("name", ["", "odd/"], ids=["even", "odd"])
def test_official_weights_give_official_answers(name):
    net = plonk.plain(
        plonk.network(official.FOLDER / name, "flow")
    )  # the plain function, not projected
    io = official.tensors(f"{name}forward")
    assert torch.allclose(net.embed_time(io["gamma"]), io["time_embedding"], rtol=0, atol=1e-5)
    for y, t, cond in ((io["y"][:, None], io["gamma"], io["emb"]),):
        assert torch.allclose(net(y, t, cond)[:, 0], io["out"], rtol=0, atol=1e-5)
    exact = net.double()(io["y"][:, None].double(), io["gamma"].double(), io["emb"].double())[:, 0]
    assert torch.allclose(
        exact, io["out_f64"], rtol=0, atol=2e-6
    )  # γ enters the official cosines in float32 frequencies
    null = net(io["y"][3:4, None].double(), io["gamma"][3].double(), None)[:, 0]
    assert torch.allclose(null, io["out_f64"][3:4], rtol=0, atol=2e-6)


def test_network_has_the_size_of_the_paper():
    def count(dim):
        return sum(
            weight.numel() for weight in VelocityTransformer(cond_dim=1024, dim=dim).parameters()
        )

    assert count(512) == 36_034_563
    assert count(256) == 9_153_539
