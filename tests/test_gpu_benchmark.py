"""The benchmark of a GPU, rehearsed: none of its minutes should go to an error that a CPU shows."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import gpu
import pytest
import torch

from geoflow import sphere

SIZE = gpu.SIZES["smoke"]
MISSING = "anywidget cartopy jupytext nbformat rasterio reverse_geocoder"  # on such machines


def measured(part: str, folder: Path, size=SIZE) -> dict:
    gpu.run(part, size, folder)
    found = json.loads((folder / f"{part}.json").read_text())
    assert {"machine", "torch", "date", "seconds"} <= found.keys()
    return found


def test_answers_on_the_same_device_are_the_same(tmp_path):
    found = measured("answers", tmp_path, dataclasses.replace(SIZE, models=1))["tiles"]
    assert found["embedding"] == 0
    assert found["float32"]["samples_km"]["max"] == found["float32"]["log_p_nats"]["max"] == 0
    assert 0 < found["bf16"]["samples_km"]["mean"] < 1000


def test_samples_and_training_steps_are_timed(tmp_path):
    samples, steps = (measured(part, tmp_path) for part in ("sampling", "training"))
    assert samples["tiles, float32"]["from_float32"] == {"samples_km": 0, "log_p_nats": 0}
    for mode in gpu.MODES:
        assert {"samples", "guided", "log_p", "euler_250"} <= samples[f"tiles, {mode}"]["ms"].keys()
        step = steps[f"published size, batch 16, {mode}"]
        assert step["step_ms"] > step["loader_here_ms"] > 0
    assert measured("graphs", tmp_path).keys() >= {"matrix_tflops"}


def test_the_recipe_of_tiles_goes_from_nothing_to_scores(tmp_path):
    found = measured("tiles", tmp_path)
    assert {"encoder", "flow"} == found["seconds_of_training"].keys()
    for name in ("gpu", "shipped"):
        assert found[f"{name}, test, guidance 0"]["metrics"]["images"] == SIZE.images


def test_events_are_fitted(tmp_path, monkeypatch):
    places = sphere.to_latlon(sphere.uniform(60, torch.Generator().manual_seed(0)).double())
    monkeypatch.setattr(gpu.earth_events, "load", lambda name: places)
    assert {"flow", "mixture", "kernel", "kernels"} == measured("events", tmp_path)["volcano"][
        "nll"
    ].keys()


def test_what_was_measured_before_a_failure_is_kept(tmp_path, monkeypatch):
    def failing(size, folder):
        yield "first", {"ms": 1}
        raise RuntimeError("out of memory")

    monkeypatch.setitem(gpu.PARTS, "sampling", failing)
    with pytest.raises(RuntimeError, match="out of memory"):
        gpu.run("sampling", SIZE, tmp_path)
    assert json.loads((tmp_path / "sampling.json").read_text())["first"] == {"ms": 1}


def test_it_imports_nothing_that_such_machines_lack():
    blocked = f"import sys; sys.modules |= dict.fromkeys({MISSING.split()})"
    imports = (
        "import gpu, geoflow.training.runs, geoflow.training.trainer, geoflow.scores.evaluation"
    )
    paths = f"sys.path[:0] = ['tests/benchmarks', '{Path.cwd()}']"
    subprocess.run([sys.executable, "-c", f"{blocked}; {paths}; {imports}"], check=True)
