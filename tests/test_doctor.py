"""`geoflow doctor` names what is missing and how to get it, and counts nothing else as a fault."""

import importlib.metadata
import shutil

import pytest
from typer.testing import CliRunner

from geoflow import runtime
from geoflow.cli import app, doctor
from geoflow.paper import tables
from geoflow.viz import basemap


@pytest.fixture
def ask(monkeypatch, tmp_path):
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "cache"))
    return lambda: CliRunner().invoke(app, ["doctor"])


def problems(result) -> list[str]:
    lines = result.stdout.splitlines()
    return [line.removeprefix("problem: ") for line in lines if line.startswith("problem: ")]


def test_a_whole_installation(ask, tmp_path):
    result = ask()
    assert result.exit_code == 0, result.stdout
    assert result.stdout.endswith("nothing is missing\n")
    assert f"cache: {tmp_path / 'cache'} (0 MB" in result.stdout
    assert "Chromium, for tests only" in result.stdout


def test_data_that_is_missing(ask, monkeypatch, tmp_path):
    for module in (runtime, tables):
        monkeypatch.setattr(module, "DATA", tmp_path / "data")
    basemap.land.cache_clear()
    result = ask()
    basemap.land.cache_clear()
    assert result.exit_code == 1
    missing = " ".join(problems(result))
    for text in ("lacks the model tiles", "coastlines", "tables of the paper"):
        assert text in missing
    assert missing.count("git checkout -- data") == 3


def test_a_damaged_model_is_named(ask, monkeypatch, tmp_path):
    shutil.copytree(runtime.DATA, tmp_path / "data", ignore=shutil.ignore_patterns("results"))
    weights = tmp_path / "data" / "models" / "tiles-vmf" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    monkeypatch.setattr(runtime, "DATA", tmp_path / "data")
    (problem,) = problems(ask())
    assert problem.startswith("model tiles-vmf: ")
    assert str(weights) in problem


def test_a_package_that_is_missing_or_too_old(ask, monkeypatch):
    version = importlib.metadata.version

    def others(name):
        if name == "shapely":
            raise importlib.metadata.PackageNotFoundError(name)
        return "2.4.0" if name == "lightning" else version(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", others)
    old, missing = problems(ask())
    assert old.startswith("lightning 2.4.0 is installed, >=2.5 is needed: ")
    assert missing == "shapely is not installed: python -m pip install 'shapely>=2.0'"


def test_an_extra_that_is_missing_is_told_and_no_fault(ask, monkeypatch):
    version = importlib.metadata.version

    def without_transformers(name):
        if name == "transformers":
            raise importlib.metadata.PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(doctor.importlib.metadata, "version", without_transformers)
    result = ask()
    assert result.exit_code == 0
    expected = "for models of photos: transformers missing: python -m pip install 'transformers>="
    assert expected in result.stdout


def test_a_cache_that_cannot_be_written(ask, monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "file"))
    (problem,) = problems(ask())
    assert problem.endswith("cannot be written; set GEOFLOW_CACHE to a folder that can")


def test_what_an_interrupted_run_left(ask, tmp_path):
    left = tmp_path / "cache" / "tiles" / "train-10.123.partial"
    left.mkdir(parents=True)
    assert problems(ask()) == [f"{left} is left from an interrupted run: delete it"]
