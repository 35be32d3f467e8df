"""The public object: shapes, saving and loading, densities, honest errors."""

import math

import numpy as np
import official
import pytest
import torch
from small import model as make
from small import picture

from geoflow import Geolocator, inputs, samplers, schedules, sphere, velocity_jvp
from geoflow.data import tiles
from geoflow.density import DensityMap
from geoflow.velocity import VelocityTransformer


def uniform_model():
    geo = make()
    torch.nn.init.zeros_(geo.network.head.weight)
    torch.nn.init.zeros_(geo.network.head.bias)
    return geo


@pytest.fixture(scope="module")
def geo():
    return make()


def km(a, b):
    return float(
        sphere.distance_km(sphere.from_latlon(a.double()), sphere.from_latlon(b.double())).max()
    )


# Samples


def test_samples_have_their_shape_and_are_places(geo, cond):
    places = geo.sample(cond=cond, n=50, seed=0)
    assert places.shape == (3, 50, 2)
    assert places[..., 0].abs().max() <= 90
    assert places[..., 1].min() >= -180
    assert places[..., 1].max() < 180


def test_images_paths_and_embeddings_give_the_same_samples(geo, tmp_path):
    images = [picture(seed=0), picture(seed=1)]
    images[1].save(tmp_path / "one.png")
    expected = geo.sample(cond=geo.embed(images), n=20, seed=0)
    assert geo.embed(images).shape == (2, 8)
    assert torch.equal(geo.sample(images, n=20, seed=0), expected)
    assert torch.equal(geo.sample([images[0], tmp_path / "one.png"], n=20, seed=0), expected)
    assert km(geo.sample(images[0], n=20, seed=0), expected[:1]) < 0.1
    assert km(geo.sample(str(tmp_path / "one.png"), n=20, seed=0), expected[1:]) < 0.1


def test_the_seed_decides(geo, cond):
    first = geo.sample(cond=cond, n=20, seed=7)
    assert torch.equal(geo.sample(cond=cond, n=20, seed=7), first)
    assert not torch.equal(geo.sample(cond=cond, n=20, seed=8), first)
    assert not torch.equal(geo.sample(cond=cond, n=20), geo.sample(cond=cond, n=20))


def test_an_image_has_the_same_samples_in_any_batch(geo, cond):
    together = geo.sample(cond=cond, n=20, seed=0)
    for i in range(3):
        assert km(geo.sample(cond=cond[i : i + 1], n=20, seed=0), together[i : i + 1]) < 0.1


def test_noise_in_place_of_a_seed(geo, cond):
    noise = sphere.uniform((3, 20), torch.Generator().manual_seed(1))
    first = geo.sample(cond=cond, noise=noise)
    assert first.shape == (3, 20, 2)
    assert km(geo.sample(cond=cond, noise=2.5 * noise), first) < 0.1
    by_hand = samplers.sample(
        geo.velocity, geo.path, noise, schedules.time_grid(schedules.linear, 16), cond
    )
    assert torch.allclose(sphere.from_latlon(first), by_hand, atol=1e-5)


@pytest.mark.parametrize("name", ["tiles", "tiles-flow", "tiles-diffusion", "trained"])
@pytest.mark.parametrize("guidance", [0.0, 1.5])
def test_the_field_that_sample_integrates_is_velocity(name, guidance, shipped):
    """Of the published layout too: what is averaged over time is in `geo.velocity`, not behind it."""
    geo = shipped(official.FOLDER / name if name == "trained" else name)
    cond = torch.randn(
        2, geo.network.config["cond_dim"], generator=torch.Generator().manual_seed(3)
    )
    noise = geo.path.noise((2, 8), torch.Generator().manual_seed(1))
    start, end = geo.path.clock(torch.tensor([0.0, 1.0]))
    times = geo.path.time(start + (end - start) * schedules.time_grid(geo.schedule, 6))

    def field(x, t, cond):
        v = geo.velocity(x, t, cond)
        return v + guidance * (v - geo.velocity(x, t, None)) if guidance else v

    by_hand = samplers.sample(field, geo.path, noise, times, cond, "midpoint")
    places = geo.sample(cond=cond, noise=noise, steps=6, solver="midpoint", guidance=guidance)
    assert km(places, sphere.to_latlon(by_hand)) < 1  # guidance multiplies roundings


def test_no_other_field_than_velocity_is_asked():
    """With a velocity of zeros nothing moves, and every density is uniform: of the published layout too."""
    geo = Geolocator.from_pretrained(official.FOLDER)
    cond, noise = torch.randn(1, 32), sphere.uniform((1, 8), torch.Generator().manual_seed(1))
    torch.nn.init.zeros_(geo.velocity.head.weight)
    torch.nn.init.zeros_(geo.velocity.head.bias)
    assert km(geo.sample(cond=cond, noise=noise), sphere.to_latlon(noise)) < 0.01
    assert torch.allclose(
        geo.log_prob(torch.zeros(3, 2), cond=cond),
        torch.full((1, 3), sphere.LOG_UNIFORM),
        atol=1e-5,
    )


def test_trajectories_lead_from_noise_to_samples(geo, cond):
    noise = sphere.uniform((3, 20), torch.Generator().manual_seed(1))
    ways = geo.trajectories(cond=cond, noise=noise, steps=5, solver="midpoint")
    assert ways.shape == (6, 3, 20, 2)
    assert km(ways[0], sphere.to_latlon(noise)) < 0.01
    assert km(ways[-1], geo.sample(cond=cond, noise=noise, steps=5, solver="midpoint")) < 0.01


def test_solvers_agree(geo, cond):
    fine = geo.sample(cond=cond, n=50, seed=0, steps=64)
    for solver, steps, tolerance in (
        ("rk4", 16, 1),
        ("midpoint", 64, 20),
        ("heun", 64, 20),
        ("dopri5", 1, 1),
        ("euler", 256, 200),
    ):
        assert (
            km(geo.sample(cond=cond, n=50, seed=0, steps=steps, solver=solver), fine) < tolerance
        ), solver


@pytest.mark.parametrize("steps", [1, 16])
def test_adaptive_steps_stay_within_the_times(steps):
    """The shipped flow's clock, log(1 − t(1 − ε)), has no value beyond t = 1.001."""
    shipped, image = Geolocator.from_pretrained("tiles"), tiles.tile(*tiles.EXAMPLES["ocean"])
    fine = shipped.sample(image, n=20, seed=0, steps=64)
    assert km(shipped.sample(image, n=20, seed=0, steps=steps, solver="dopri5"), fine) < 5


def test_guidance_moves_samples_and_zero_guidance_does_not(geo, cond):
    plain = geo.sample(cond=cond, n=20, seed=0)
    assert torch.equal(geo.sample(cond=cond, n=20, seed=0, guidance=0), plain)
    assert km(geo.sample(cond=cond, n=20, seed=0, guidance=2.0), plain) > 10
    null = geo.sample(cond=torch.zeros(1, 8), n=20, seed=0)
    assert km(geo.sample(cond=cond[:1], n=20, seed=0, guidance=-1.0), null) < 1


def test_unconditional_model_takes_no_images():
    free = make(cond_dim=0)
    assert free.sample(n=10, seed=0).shape == (1, 10, 2)
    assert free.log_prob(torch.zeros(4, 2)).shape == (1, 4)
    assert free.predict(n=20).latlon.shape == (1, 1, 2)
    with pytest.raises(ValueError, match="unconditional"):
        free.sample(cond=torch.zeros(1, 8))


# Densities


def test_log_prob_shapes(geo, cond):
    latlon = torch.tensor([[0.0, 0.0], [61.0, 97.0], [-90.0, 0.0], [10.0, 180.0]])
    shared = geo.log_prob(latlon, cond=cond)
    assert shared.shape == (3, 4)
    assert torch.allclose(geo.log_prob(latlon.expand(3, -1, -1), cond=cond), shared, atol=1e-5)
    assert torch.allclose(
        geo.log_prob(latlon[None, 1:2].expand(3, -1, -1), cond=cond), shared[:, 1:2], atol=1e-5
    )
    assert torch.allclose(geo.log_prob(latlon.tolist(), cond=cond), shared, atol=1e-5)


def test_log_prob_is_the_density_of_the_samples(geo, cond):
    """E log p over samples from both sides: of the sampler's own account and of the backward solution."""
    places = geo.sample(cond=cond, n=200, seed=0)
    entropy = geo.localizability(cond=cond, n=200, seed=0) * math.log(2)
    assert torch.allclose(geo.log_prob(places, cond=cond).mean(-1), entropy, atol=1e-3)


@pytest.fixture(scope="module")
def mapped(geo, cond):
    return geo.density(cond=cond[:1], resolution=5.0)


def test_density_integrates_to_one(mapped):
    assert isinstance(mapped, DensityMap)
    assert mapped.log_density.shape == (36, 72)
    assert mapped.integral == pytest.approx(1, abs=0.01)


def test_a_density_may_be_as_coarse_as_one_likes():
    uniform = Geolocator.from_pretrained("uniform").density(resolution=10.0, coarser=10**6)
    assert math.isclose(uniform.integral, 1, abs_tol=1e-6)


def test_a_coarser_density_has_fewer_cells_and_still_integrates_to_one(geo, cond, mapped):
    quick = geo.density(cond=cond[:1], resolution=10.0, coarser=10)
    assert len(quick.x) < len(mapped.x) / 2
    assert quick.cell_mass.max() > 2 * mapped.cell_mass.max()
    assert quick.integral == pytest.approx(1, abs=0.1)


def test_guided_density_integrates_to_one(geo, cond):
    guided = geo.density(cond=cond[:1], resolution=10.0, guidance=1.0, coarser=3)
    assert guided.integral == pytest.approx(1, abs=0.01)


def test_density_map_shows_log_prob(geo, cond, mapped):
    latlon = torch.stack(torch.meshgrid(mapped.lat[::3], mapped.lon[::3], indexing="ij"), -1)
    exact = geo.log_prob(latlon.reshape(-1, 2), cond=cond[:1])[0].reshape(12, 24)
    assert (mapped.log_density[::3, ::3] - exact).abs().mean() < 0.05


def test_a_network_of_zeros_is_uniform(cond):
    geo = uniform_model()
    assert torch.allclose(geo.localizability(cond=cond, n=64), torch.full((3,), -3.6515), atol=1e-4)
    assert torch.allclose(
        geo.log_prob(torch.zeros(1, 2), cond=cond), torch.full((3, 1), -2.5310), atol=1e-4
    )
    places = sphere.from_latlon(geo.sample(cond=cond, n=2000, seed=0))
    assert places.mean((0, 1)).abs().max() < 4 / math.sqrt(3 * 2000)


def test_localizability_is_the_negative_entropy_in_bits(geo, cond, mapped):
    by_map = -mapped.entropy / math.log(2)
    assert float(geo.localizability(cond=cond[:1], n=2000)[0]) == pytest.approx(by_map, abs=0.1)


def test_it_says_what_it_is():
    text = repr(make())
    assert all(part in text for part in ("'riemannian'", "'tiles'", "parameters", "cpu"))
    assert repr(Geolocator.from_pretrained("uniform")) == "Geolocator('uniform', on cpu)"


def test_predict(geo, cond):
    places = geo.predict(cond=cond, k=3, n=200)
    assert places.latlon.shape == (3, 3, 2)
    assert places.mass.shape == places.radius_km.shape == (3, 3)
    assert torch.allclose(places.mass.sum(-1), torch.ones(3))
    assert (places.mass.diff(dim=-1) <= 0).all()
    assert places.latlon.isfinite().all()
    assert torch.equal(geo.predict(cond=cond, k=3, n=200).latlon, places.latlon)


@pytest.mark.parametrize("limit", [1, 4, 6, 13])
def test_small_calls_give_the_same_numbers(geo, cond, limit, monkeypatch):
    n = 6
    latlon = sphere.to_latlon(sphere.uniform((3, n), torch.Generator().manual_seed(1)))

    def numbers():
        return (
            sphere.from_latlon(geo.trajectories(cond=cond, n=n, seed=0, steps=2)),
            geo.log_prob(latlon, cond=cond, steps=2),
            geo.log_prob(latlon[0], cond=cond, guidance=1.0, steps=2),
            sphere.from_latlon(geo.sample_likeliest(cond=cond, n=n, seed=0, steps=2)),
        )

    whole = numbers()
    calls = []

    def counting(compute):
        def counted(network, x, *others):
            calls.append(x[..., 0].numel())
            return compute(network, x, *others)

        return counted

    monkeypatch.setattr(VelocityTransformer, "velocity", counting(VelocityTransformer.velocity))
    monkeypatch.setattr(velocity_jvp, "network_jvp", counting(velocity_jvp.network_jvp))
    monkeypatch.setattr(inputs, "STATES_PER_CALL", limit)
    for part, expected in zip(numbers(), whole, strict=True):
        assert part.shape == expected.shape
        assert torch.allclose(part, expected, atol=1e-5)
    assert limit < max(calls) <= 2 * limit  # guidance doubles the rows


# Bad input


def test_exactly_one_of_images_and_cond(geo, cond):
    for method in (geo.sample, geo.localizability, geo.predict, geo.density):
        with pytest.raises(ValueError, match="exactly one of images and cond; got neither"):
            method()
        with pytest.raises(ValueError, match="exactly one of images and cond; got both"):
            method(images=picture(), cond=cond)
    with pytest.raises(ValueError, match="got neither"):
        geo.log_prob(torch.zeros(1, 2))


@pytest.mark.parametrize("bad", [(8,), (3, 7), (0, 8), (1, 3, 8)])
def test_conditions_of_wrong_shape(geo, bad):
    with pytest.raises(ValueError, match=r"cond has shape .*; expected \(B, 8\)"):
        geo.sample(cond=torch.zeros(bad))


def test_conditions_that_are_not_finite(geo, cond):
    for value in (math.nan, math.inf):
        broken = cond.clone()
        broken[1, 2] = value
        with pytest.raises(ValueError, match="cond holds NaN or infinite"):
            geo.sample(cond=broken)


@pytest.mark.parametrize(
    ("latlon", "message"),
    [
        ([[95.0, 0.0]], r"latitude 95\.0"), ([[math.nan, 0.0]], "latitude nan"), ([[0.0, 500.0]], r"longitude 500\.0"),
        ([[1.0, 2.0, 3.0]], r"\(1, 3\)"), ([1.0, 2.0], r"\(2,\); expected \(3, N, 2\) or \(N, 2\)"), ([[[0.0, 0.0]]] * 2, r"\(2, 1, 2\); expected \(3, N, 2\)"),
    ],
)  # fmt: skip
def test_places_that_are_not_on_earth(geo, cond, latlon, message):
    with pytest.raises(ValueError, match=message):
        geo.log_prob(torch.tensor(latlon), cond=cond)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"solver": "rk5"}, "unknown solver 'rk5' .did you mean 'rk4'"), ({"steps": 0}, "0 steps"), ({"steps": 2.5}, r"2\.5 steps"),
        ({"n": 0}, "n=0 samples"), ({"n": -3}, "n=-3"), ({"n": 1.5}, r"n=1\.5"),
        ({"noise": torch.ones(2, 5, 3)}, r"noise has shape \(2, 5, 3\); expected \(3, n, 3\), n"), ({"noise": torch.zeros(3, 5, 3)}, "no direction"),
        ({"noise": torch.full((3, 5, 3), math.nan)}, "nan"), ({"noise": torch.ones(3, 0, 3)}, r"\(3, 0, 3\)"), ({"guidance": math.nan}, "guidance"),
    ],
)  # fmt: skip
def test_bad_sampling_options(geo, cond, options, message):
    with pytest.raises(ValueError, match=message):
        geo.sample(cond=cond, **options)


@pytest.mark.parametrize(
    ("method", "options", "message"),
    [
        ("sample", {"seed": "a"}, "seed='a'; expected a whole number"), ("sample", {"seed": 1.5}, r"seed=1\.5"), ("sample", {"seed": 2**64}, "expected a whole number from -9,223,372,036"), ("sample", {"n": 10**18}, "from 1 to 1,000,000,000"), ("sample", {"n": 1e300}, r"n=1e\+300"), ("sample", {"guidance": 10**400}, "a finite number"),
        ("sample", {"seed": [1]}, r"seed=\[1\]"), ("sample", {"guidance": "2"}, "guidance of '2'; expected a finite number"), ("sample", {"guidance": None}, "guidance of None"),
        ("sample", {"guidance": math.inf}, "guidance of inf"), ("sample", {"n": "3"}, "n='3' samples; expected a whole number from 1 to"), ("sample", {"n": None}, "n=None"),
        ("sample", {"n": math.nan}, "n=nan"), ("sample", {"n": True}, "n=True"), ("sample", {"steps": "x"}, "'x' steps; expected a whole number"), ("sample", {"steps": 2.5}, r"2\.5 steps"),
        ("sample", {"steps": -1}, "-1 steps"), ("sample", {"solver": 4}, "unknown solver 4"), ("sample", {"noise": "x"}, "noise holds no numbers"),
        ("sample", {"noise": [[1.0], [2.0, 3.0]]}, "noise holds no numbers"), ("sample", {"noise": torch.ones(3, 5, 3) + 1j}, "noise holds complex numbers"),
        ("trajectories", {"seed": "a"}, "seed='a'"), ("trajectories", {"steps": 2.5}, r"2\.5 steps"), ("sample_likeliest", {"n": "3"}, "n='3'"),
        ("predict", {"k": "2"}, "k='2' places from 1024 samples"), ("predict", {"k": 1.5}, r"k=1\.5"), ("predict", {"n": "9"}, "from '9' samples"), ("predict", {"seed": "a"}, "seed='a'"),
        ("predict", {"guidance": "2"}, "guidance of '2'"), ("localizability", {"n": "3"}, "n='3'"), ("localizability", {"seed": "a"}, "seed='a'"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(geo, cond, method, options, message):
    with pytest.raises(ValueError, match=message):
        getattr(geo, method)(cond=cond, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"resolution": "1"}, "resolution of '1' degrees; expected a finite number"), ({"resolution": None}, "resolution of None"), ({"resolution": math.nan}, "resolution of nan"),
        ({"guidance": "2"}, "guidance of '2'"), ({"resolution": -1}, "resolution of -1"),
        ({"coarser": 0}, "coarser=0; expected a whole number from 1 to"), ({"coarser": "2"}, "coarser='2'"), ({"coarser": 1.5}, r"coarser=1\.5"),
    ],
)  # fmt: skip
def test_bad_arguments_of_a_density_are_named(geo, cond, options, message):
    with pytest.raises(ValueError, match=message):
        geo.density(cond=cond[:1], **options)


@pytest.mark.parametrize(
    ("latlon", "message"),
    [
        ("Paris", "latlon holds no numbers"), ([["48.9", "2.4"]], "latlon holds no numbers"), (None, "latlon holds no numbers"), ([[1.0, 2.0], [3.0]], "rows of unequal length"),
        ([[math.nan, 2.0]], "latitude nan is not in"), ([[1.0, math.inf]], "longitude inf is not in"), ([[91, 0]], r"latitude 91\.0"), (48.9, r"shape \(\)"), (torch.tensor([1 + 2j, 3]), "complex numbers"), ([[1, 2, 3]], r"\(1, 3\)"),
    ],
)  # fmt: skip
def test_bad_places_are_named(geo, cond, latlon, message):
    for call in (sphere.from_latlon, lambda places: geo.log_prob(places, cond=cond)):
        with pytest.raises(ValueError, match=message):
            call(latlon)


@pytest.mark.parametrize("cond", ["x", [["a"]], [[1.0], [1.0, 2.0]], object(), torch.ones(1, 8).to_sparse(), torch.ones(1, 8, device="meta")])  # fmt: skip
@pytest.mark.parametrize("name", ["small", "uniform"])
def test_bad_conditions_are_named(geo, shipped, name, cond):
    with pytest.raises(ValueError, match="^cond holds no numbers[^\n]*$"):
        (geo if name == "small" else shipped(name)).sample(cond=cond, n=2)


def test_numbers_of_numpy_are_numbers(geo, cond):
    expected = geo.sample(cond=cond, n=5, steps=3, guidance=1.0, seed=7)
    given = {
        "n": np.int64(5),
        "steps": np.int32(3),
        "guidance": np.float32(1),
        "seed": np.uint64(7),
    }
    assert torch.equal(geo.sample(cond=cond.numpy(), **given), expected)
    assert torch.equal(
        geo.sample(cond=cond.tolist(), n=5.0, steps=3.0, guidance=1, seed=7.0), expected
    )
    given = {
        "n": torch.tensor(5),
        "steps": np.array(3),
        "guidance": torch.tensor(1.0),
        "seed": torch.tensor(7),
    }
    assert torch.equal(geo.sample(cond=cond, **given), expected)
    assert geo.predict(cond=cond, k=np.int64(2), n=np.int64(9)).latlon.shape == (3, 2, 2)


@pytest.mark.parametrize("kind", [np.float64, np.float16, np.int64])
def test_noise_of_any_precision(geo, cond, kind):
    noise = np.random.default_rng(0).integers(1, 5, (3, 4, 3)).astype(kind)
    expected = geo.sample(cond=cond, noise=torch.tensor(noise, dtype=torch.float32), steps=3)
    assert torch.equal(geo.sample(cond=cond, noise=noise, steps=3), expected)
    assert km(geo.trajectories(cond=cond, noise=noise, steps=3)[-1], expected) < 0.1


def test_arrays_and_tensors_are_images(geo):
    image = picture(40)
    expected = geo.sample(image, n=5, seed=0)
    array = np.asarray(image)
    for given in (
        array,
        torch.from_numpy(array.copy()),
        [array],
        array[None],
        geo.encoder.preprocess(image).permute(1, 2, 0),
    ):
        assert km(geo.sample(given, n=5, seed=0), expected) < 0.1
    assert geo.sample(np.stack([array] * 3), n=5, seed=0).shape == (3, 5, 2)
    with pytest.raises(ValueError, match=r"expected \(H, W, 3\) of uint8"):
        geo.sample(array / 255)


@pytest.mark.parametrize(
    "device", ["cuda", "cuda:7", "mps", "meta", "hpu", "gpu", 3, None, "cpu:x"]
)
def test_devices_that_are_not_here(device, geo):
    if str(device).startswith(("cuda", "3")) and torch.cuda.is_available():
        pytest.skip("there is a GPU")
    with pytest.raises(
        ValueError, match=f"device {device!r} cannot be used here; expected one of 'cpu'"
    ):
        geo.to(device)
    assert geo.device == torch.device("cpu")
    assert geo.to("cpu") is geo


@pytest.mark.parametrize("name", [None, 3, "", b"tiles", ["tiles"]])
def test_what_is_no_models_name(name):
    with pytest.raises(ValueError, match="expected a name such as 'tiles', or a folder"):
        Geolocator.from_pretrained(name)


@pytest.mark.parametrize("name", ["photos", "PLONK", "no/such/folder"])
def test_unknown_models_list_the_photo_models(name):
    with pytest.raises((ValueError, FileNotFoundError), match="plonk-yfcc.*plonk-osv5m"):
        Geolocator.from_pretrained(name)


@pytest.mark.parametrize("method", ["riemannian", "vmf", "retrieval"])
def test_a_method_without_its_network(method):
    with pytest.raises(ValueError, match=f"method '{method}' needs a network; got None"):
        Geolocator(None, method)


@pytest.mark.parametrize("x", [[1.0, 0.0, 0.0], "x", None])
def test_what_are_no_points(x):
    for call in (sphere.to_latlon, sphere.project):
        with pytest.raises(
            TypeError, match=f"points of type {type(x).__name__}; expected a tensor"
        ):
            call(x)


def test_no_places(geo, cond):
    with pytest.raises(ValueError, match=r"\(0, 2\)"):
        geo.log_prob(torch.zeros(0, 2), cond=cond)


@pytest.mark.parametrize("k", [0, 21])
def test_bad_number_of_places(geo, cond, k):
    with pytest.raises(ValueError, match=f"k={k} places from 20 samples"):
        geo.predict(cond=cond, k=k, n=20)


def test_density_is_of_one_image(geo, cond):
    with pytest.raises(ValueError, match="3 images"):
        geo.density(cond=cond)
    with pytest.raises(ValueError, match="resolution of 0"):
        geo.density(cond=cond[:1], resolution=0)


def test_images_that_are_none(geo, tmp_path):
    with pytest.raises(ValueError, match="empty list"):
        geo.sample([])
    with pytest.raises(ValueError, match="type int"):
        geo.sample(3)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        geo.sample(tmp_path / "nowhere.png")
    with pytest.raises(ValueError, match="no image encoder"):
        make(encoder=False).sample(picture())
