"""What users call: every public name works as its description says, and what notebooks call has an example that runs."""

import ast
import functools
import importlib
import inspect
import json
import math
from pathlib import Path

import pytest
import torch

import geoflow
from geoflow import Geolocator, sphere
from geoflow.data import tiles

NOTEBOOKS = sorted((Path(__file__).resolve().parent.parent / "notebooks").rglob("[0-9]*.py"))


# The public interface


def test_geometry():
    latlon = torch.tensor([[48.9, 2.4], [35.7, 139.7]], dtype=torch.float64)
    paris, tokyo = sphere.from_latlon(latlon)
    v = sphere.log(paris, tokyo)
    assert torch.allclose(sphere.exp(paris, v), tokyo, atol=1e-12)
    assert torch.allclose(sphere.geodesic(paris, tokyo, 1.0), tokyo, atol=1e-12)
    assert torch.allclose(sphere.geodesic_velocity(paris, tokyo, 0.0), v, atol=1e-12)
    assert torch.allclose(sphere.project(3 * paris), paris, atol=1e-12)
    assert abs((sphere.to_tangent(paris, tokyo) * paris).sum()) < 1e-12
    assert torch.allclose(sphere.distance(paris, tokyo), v.norm(), atol=1e-12)
    assert sphere.EARTH_RADIUS_KM == 6371.0
    assert torch.allclose(sphere.distance_km(paris, tokyo), 6371.0 * v.norm())
    assert torch.allclose(sphere.to_latlon(paris), latlon[0], atol=1e-12)
    assert sphere.uniform(5, generator=torch.Generator()).shape == (5, 3)
    assert sphere.fibonacci_grid(7).shape == (7, 3)
    assert math.isclose(sphere.LOG_UNIFORM, -math.log(4 * math.pi))


@pytest.fixture(scope="module")
def geo(shipped):
    return shipped("tiles")


def test_a_geolocator(geo, tmp_path):
    assert geo.to("cpu") is geo
    assert (geo.method, geo.encoder.name) == ("riemannian", "tiles")
    assert repr(geo) == "Geolocator('riemannian', encoder 'tiles', 1.0 million parameters, on cpu)"
    x = sphere.uniform((2, 5))
    assert geo.velocity(x, 0.5, torch.zeros(2, 256)).shape == (2, 5, 3)
    assert torch.equal(geo.schedule(torch.tensor([0.0, 1.0])).round(), torch.tensor([0.0, 1.0]))
    again = Geolocator.from_pretrained(geo.save_pretrained(tmp_path / "mine"), "riemannian", None)
    assert repr(again) == repr(geo)


def test_answers_to_images(geo):
    images = [tiles.tile(24, 6), tiles.tile(-5, -67)]
    cond = geo.embed(images)
    assert cond.shape == (2, 256)
    options = {"steps": 4, "solver": "midpoint", "guidance": 1.0}
    noise = sphere.uniform((2, 6))
    samples = geo.sample(images, n=6, noise=noise, seed=None, **options)
    assert torch.equal(samples, geo.sample(cond=cond, noise=noise, **options))
    ways = geo.trajectories(cond=cond, noise=noise, **options)
    assert ways.shape == (5, 2, 6, 2)
    assert torch.allclose(ways[-1], samples, atol=1e-3)
    latlon = [[24.0, 6.0], [0.0, 0.0]]
    assert geo.log_prob(latlon, cond=cond, guidance=0.0).shape == (2, 2)
    assert geo.log_prob(torch.tensor([latlon, latlon]), images).shape == (2, 2)
    assert geo.localizability(cond=cond, n=8).shape == (2,)
    best = geo.predict(cond=cond, k=2, n=20)
    assert best.latlon.shape == (2, 2, 2)
    assert best.mass.shape == best.radius_km.shape == (2, 2)
    assert torch.allclose(best.mass.sum(1), torch.ones(2))
    assert bool((best.mass[:, 0] >= best.mass[:, 1]).all())


def test_a_density(tmp_path, shipped):
    density = shipped("uniform").density(resolution=10.0)
    assert density.log_density.shape == (len(density.lat), len(density.lon)) == (18, 36)
    assert density.entropy == pytest.approx(math.log(4 * math.pi), abs=1e-4)
    assert density.mass(lambda latlon: latlon[:, 0] > 0) == pytest.approx(0.5, abs=0.03)
    assert json.loads(json.dumps(density.to_geojson()))["type"] == "FeatureCollection"
    assert density.to_geotiff(tmp_path / "density.tif").stat().st_size > 0


def test_an_evaluation(shipped, tmp_path):
    report = geoflow.evaluate(shipped("uniform"), tiles.load("test", 50), samples=4)
    assert report.metrics["images"] == 50
    assert json.loads(report.to_json(tmp_path / "report.json"))["metrics"] == report.metrics
    assert "nll" in report.table()


# Examples


def called(notebook: Path) -> set:
    """Functions and classes of ours that a notebook's code uses, by the modules that it imports."""
    names: dict = {}
    code = ast.parse(notebook.read_text(encoding="utf-8"))
    for node in ast.walk(code):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("geoflow"):
            for alias in node.names:
                home = importlib.import_module(node.module)
                full = f"{node.module}.{alias.name}"
                found = getattr(home, alias.name, None) or importlib.import_module(full)
                names[alias.asname or alias.name] = found
        elif isinstance(node, ast.Import):
            ours = [alias for alias in node.names if alias.name.split(".")[0] == "geoflow"]
            for alias in ours:
                module = importlib.import_module(alias.name)
                names[alias.asname or "geoflow"] = module if alias.asname else geoflow

    def resolved(node):
        if isinstance(node, ast.Name):
            return names.get(node.id)
        if isinstance(node, ast.Attribute) and inspect.ismodule(owner := resolved(node.value)):
            return getattr(owner, node.attr, None)
        return None

    found = (resolved(node) for node in ast.walk(code))
    return {each for each in found if inspect.isfunction(each) or inspect.isclass(each)}


@functools.cache
def every_call() -> list:
    found = set().union(*map(called, NOTEBOOKS))
    ours = {each for each in found if each.__module__.split(".")[0] == "geoflow"}
    return sorted(ours, key=lambda each: f"{each.__module__}.{each.__qualname__}")


def test_calls_are_found():
    assert {Geolocator, geoflow.evaluate, sphere.exp, tiles.load} <= set(every_call())
    assert len(every_call()) > 150


def test_what_a_notebook_calls_has_an_example():
    lacking = [
        f"{each.__module__}.{each.__qualname__}"
        for each in every_call()
        if ">>> " not in (each.__doc__ or "")
    ]
    assert lacking == []
