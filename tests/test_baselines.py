"""Baselines: mixtures predicted by a network, land, retrieval; what all closed forms answer."""

import math

import pytest
import torch

from geoflow import Geolocator, methods, sphere
from geoflow.baselines import MixtureNetwork
from geoflow.data import references, tiles
from geoflow.encoders import TileEncoder

# Networks that predict a mixture


@pytest.mark.parametrize("components", [1, 3, 16])
def test_network_gives_a_distribution(components):
    torch.manual_seed(0)
    network = MixtureNetwork(8, components, dim=32, depth=2)
    mixture = network(torch.randn(4, 8))
    assert mixture.mean.shape == (4, components, 3)
    assert torch.allclose(mixture.mean.norm(dim=-1), torch.ones(4, components), atol=1e-6)
    assert torch.allclose(mixture.log_weight.exp().sum(-1), torch.ones(4), atol=1e-6)
    grid = sphere.fibonacci_grid(5000).float().expand(4, -1, -1)
    assert torch.allclose(
        4 * math.pi * mixture.log_prob(grid).exp().mean(-1), torch.ones(4), atol=1e-3
    )


def test_network_learns_a_needle():
    """A 100 m blob: κ grows to the limit without an overflow, and the loss stays finite."""
    torch.manual_seed(0)
    network = MixtureNetwork(8, 1, dim=32, depth=1)
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, 800)
    place, cond = sphere.from_latlon(torch.tensor([48.0, 2.0])).expand(16, 1, 3), torch.zeros(16, 8)
    for _ in range(800):
        loss = -network(cond).log_prob(place).mean()
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay.step()
        assert loss.isfinite()
    assert float(loss.detach()) < -math.log(1e5 / (2 * math.pi))


@pytest.mark.parametrize("components", [0, -1, 1.5])
def test_bad_number_of_components(components):
    with pytest.raises(ValueError, match="components"):
        MixtureNetwork(8, components)


def test_bad_condition():
    with pytest.raises(ValueError, match=r"cond has shape \(2, 7\); expected \(B, 8\)"):
        MixtureNetwork(8, 1, dim=32, depth=1)(torch.zeros(2, 7))


# Closed forms behind the one interface


def mixture_model(components=3):
    torch.manual_seed(0)
    method = "vmf" if components == 1 else "vmf-mixture"
    network = methods.network_for(
        method, {"cond_dim": 8, "components": components, "dim": 32, "depth": 2}
    )
    torch.nn.init.normal_(network.head.weight, std=0.5)
    return Geolocator(network, method, encoder=TileEncoder(8, width=4))


def gallery():
    generator = torch.Generator().manual_seed(0)
    return torch.randn(200, 8, generator=generator), sphere.uniform(200, generator)


CLOSED = {
    "vmf": lambda: mixture_model(1),
    "vmf-mixture": mixture_model,
    "uniform": lambda: Geolocator(None, "uniform"),
    "land": lambda: Geolocator(None, "land"),
    "retrieval": lambda: Geolocator(
        references.Retrieval(*gallery(), neighbors=4, concentration=100.0), "retrieval"
    ),
}


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_answer_everything(name):
    geo, cond = CLOSED[name](), torch.randn(3, 8, generator=torch.Generator().manual_seed(1))
    n = 4000
    places = geo.sample(cond=cond, n=n, seed=0)
    assert places.shape == (3, n, 2)
    assert torch.equal(geo.sample(cond=cond, n=n, seed=0), places)
    assert torch.allclose(geo.sample(cond=cond[1:2], n=n, seed=0), places[1:2], atol=1e-3)
    assert geo.predict(cond=cond, k=2, n=100).latlon.shape == (3, 2, 2)
    assert geo.sample_likeliest(cond=cond, n=8, seed=0).shape == (3, 2)
    bits = geo.localizability(cond=cond, n=n)
    by_backward = geo.log_prob(places, cond=cond).mean(-1) / math.log(2)
    assert torch.allclose(bits, by_backward, atol=0.5)
    density = geo.density(cond=cond[:1], resolution=10.0)
    assert density.integral == pytest.approx(
        1, abs=0.01 if name != "land" else 0.03
    )  # the land's border is no smooth function


@pytest.mark.parametrize("name", CLOSED)
def test_closed_forms_have_no_flow(name):
    geo, cond = CLOSED[name](), torch.zeros(1, 8)
    with pytest.raises(ValueError, match=f"method '{name}' has no trajectories"):
        geo.trajectories(cond=cond)
    with pytest.raises(ValueError, match=f"guidance of 2.0 with method '{name}', which has none"):
        geo.sample(cond=cond, guidance=2.0)
    with pytest.raises(ValueError, match=r"expected numbers in \[0, 1\]"):
        geo.sample(cond=cond, noise=torch.full((1, 5, 3), 1.5))


def test_land_draws_land():
    geo = Geolocator.from_pretrained("land")
    x = sphere.from_latlon(geo.sample(n=20_000, seed=0))[0]
    assert float(tiles.is_land(x).double().mean()) == pytest.approx(
        tiles.LAND_SHARE, abs=5 * math.sqrt(0.75 * 0.25 / 20_000)
    )
    exact = -(
        0.75 * geo.log_prob(torch.tensor([[24.0, 6.0]]))[0, 0]
        + 0.25 * geo.log_prob(torch.tensor([[-38.0, -110.0]]))[0, 0]
    )
    assert float(geo.log_prob(sphere.to_latlon(x)).mean()) == pytest.approx(-float(exact), abs=0.05)


def test_retrieval_finds_itself_and_is_tuned():
    cond, x = gallery()
    found = references.Retrieval(cond, x, neighbors=1, concentration=1e6, background=0.02)
    assert torch.equal(found.nearest(cond)[:, 0], torch.arange(200))
    # queries beside gallery images, places 0.1 rad away: the best κ is near 1/0.1²
    generator = torch.Generator().manual_seed(2)
    east, north = sphere.tangent_basis(x)
    away = sphere.exp(
        x,
        0.1
        * (
            torch.randn(200, 1, generator=generator) * east
            + torch.randn(200, 1, generator=generator) * north
        ),
    )
    tuned = found.tuned(cond + 0.01, away)
    assert tuned.neighbors == 1
    assert tuned.concentration == pytest.approx(100)
    with pytest.raises(ValueError, match="300 neighbours"):
        references.Retrieval(cond, x, neighbors=300)


@pytest.mark.parametrize("components", [1, 3])
def test_mixtures_are_saved(components, tmp_path):
    geo = mixture_model(components)
    again = Geolocator.from_pretrained(geo.save_pretrained(tmp_path / "model"))
    assert again.method == geo.method
    cond = torch.ones(1, 8)
    assert torch.equal(again.sample(cond=cond, n=9, seed=0), geo.sample(cond=cond, n=9, seed=0))
    with pytest.raises(ValueError, match="is a 'vmf"):
        Geolocator.from_pretrained(tmp_path / "model", method="riemannian")


def test_references_hold_no_weights(tmp_path):
    with pytest.raises(ValueError, match="'uniform' has no weights to save"):
        Geolocator.from_pretrained("uniform").save_pretrained(tmp_path / "model")
