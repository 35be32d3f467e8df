"""The commands as a user types them, at smoke scale."""

import json
import math
import subprocess
import sys

import pytest
from PIL import Image

from geoflow import cli
from geoflow.data import tiles
from geoflow.methods import METHODS


def run(*arguments, **environment):
    import os

    command = [sys.executable, "-c", "from geoflow.cli import main; main()", *map(str, arguments)]
    env = {**os.environ, "GEOFLOW_SCALE": "smoke", "CI": "1", **environment}
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=600, check=False)


@pytest.fixture(scope="module")
def demo(tmp_path_factory):
    out = tmp_path_factory.mktemp("demo")
    result = run("demo", "--out", out)
    assert result.returncode == 0, result.stderr
    return out, result.stdout


def test_demo_leaves_everything_it_promises(demo):
    out, text = demo
    for name in list(tiles.EXAMPLES)[:2]:
        with Image.open(out / f"density-{name}.png") as image:
            assert min(image.size) > 300
    for name in ("trajectories.png", "loss.png", "metrics-test.txt", "metrics-test.json", "metrics-held-out.json", "model/config.json"):
        assert (out / name).stat().st_size > 0, name
    assert json.loads((out / "metrics-test.json").read_text())["metrics"]["images"] == 100
    assert f"Look at {out}" in text
    assert "geoscore" in text
    assert "min (encoder)" in text


def test_demo_again_reuses_what_is_there(demo):
    out, _first = demo
    before = {file: file.stat().st_mtime_ns for file in out.rglob("*") if file.name.startswith(("density", "metrics", "model."))}
    result = run("demo", "--out", out)
    assert result.returncode == 0, result.stderr
    assert "found, trained before" in result.stdout
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_compare_scores_every_method_and_goes_on(demo, tmp_path):
    command = ("compare", "--encoder", demo[0] / "model", "--seeds", 1, "--out", tmp_path)
    result = run(*command)
    assert result.returncode == 0, result.stderr
    for method in METHODS:
        scores = {name: json.loads((tmp_path / f"{method}-{name}.json").read_text()) for name in ("test", "held-out")}
        assert scores["test"]["metrics"]["images"] == 100
        assert math.isfinite(scores["test"]["metrics"]["nll"])
        assert scores["test"]["settings"]["trained"] == 1
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*-?/**/*") if file.is_file()}
    (tmp_path / "flow-0" / "test.json").unlink()
    again = run(*command)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("found, trained before") == 1
    assert all(file.stat().st_mtime_ns == time for file, time in before.items() if file.parent.name != "flow-0")


def test_another_seed_is_not_taken_for_this_run(demo):
    result = run("train", "--out", demo[0], "--seed", "1")
    assert result.returncode == 1
    assert "another recipe or seed" in result.stderr
    assert "Traceback" not in result.stderr


def test_locate_prints_places_and_draws_a_map(demo, tmp_path):
    tiles.tile(12, 50.5).save(tmp_path / "coast.png")
    result = run("locate", tmp_path / "coast.png", "--model", demo[0] / "model", "--out", tmp_path / "out", "--k", 2, "--exif")
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("half within") == 2
    assert "the camera did not say" in result.stdout
    for ending in ("png", "geojson", "tif"):
        assert (tmp_path / "out" / f"coast.{ending}").stat().st_size > 1000
    assert (tmp_path / "out" / "places.csv").read_text().count("coast.png") == 2


def test_one_bad_file_does_not_stop_a_folder(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for name in ("a.png", "c.png"):
        tiles.tile(12, 50.5).save(folder / name)
    (folder / "b.png").write_text("no image")
    result = run("locate", folder, "--out", tmp_path / "out", "--k", 1, "--no-maps")
    assert result.returncode == 1
    assert "1 of 3 images could not be read" in result.stderr
    assert result.stdout.count("half within") == 2
    table = tmp_path / "out" / "places.csv"
    rows = table.read_text().splitlines()
    assert [row.split(",")[0].split("/")[-1] for row in rows[1:]] == ["a.png", "c.png"]
    (folder / "b.png").unlink()
    tiles.tile(-77, 95).save(folder / "d.png")
    again = run("locate", folder, "--out", tmp_path / "out", "--k", 1, "--no-maps")
    assert again.returncode == 0, again.stderr
    assert "3 images, 2 answered before" in again.stdout
    assert again.stdout.count("half within") == 1
    assert table.read_text().splitlines()[:3] == rows
    assert len(table.read_text().splitlines()) == 4


def test_what_is_no_image_is_told_in_one_line(tmp_path):
    (tmp_path / "notes.png").write_text("no image")
    result = run("locate", tmp_path / "notes.png", "--model", "tiles", "--out", tmp_path)
    assert result.returncode == 1
    assert "cannot be read as an image" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "tilez"), "did you mean 'tiles'"),
        (("train", "--scale", "laptob"), "did you mean 'laptop'"),
        (("evaluate", "--model", "tile"), "did you mean 'tiles'"),
        (("evaluate", "--solver", "rk5"), "did you mean 'rk4'"),
        (("evaluate", "--model", "no/such/folder"), "no model folder"),
        (("locate", "no-such-photo.jpg"), "no image file at no-such-photo.jpg"),
        (("reproduce", "table7"), "did you mean 'table"),
    ],
)
def test_wrong_names_suggest_the_nearest(arguments, message):
    result = run(*arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert "Traceback" not in result.stderr


def test_doctor_says_where_things_are():
    result = run("doctor")
    assert result.returncode == 0, result.stdout + result.stderr
    for word in ("torch", "devices", "cache", "models: tiles", "nothing is missing"):
        assert word in result.stdout


def test_every_scale_of_every_recipe_has_the_same_keys():
    recipes = {scale: cli.read_recipe("tiles", scale) for scale in ("smoke", "demo", "laptop", "gpu")}
    assert len({json.dumps(sorted(recipe)) for recipe in recipes.values()}) == 1
