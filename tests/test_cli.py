"""The commands as a user types them: at smoke scale, tiles with the smallest networks."""

import contextlib
import io
import json
import math
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import geoflow
from geoflow import Geolocator, cli
from geoflow.cli import compare, train
from geoflow.cli.common import score_tiles
from geoflow.data import tiles
from geoflow.data.shards import ShardWriter
from geoflow.encoders import TileEncoder
from geoflow.flowmap import MAP
from geoflow.methods import GENERATIVE, METHODS
from geoflow.training import runs

OPTIMIZATION = {"steps": 3, "batch": 16, "lr": 1e-3, "warmup": 1}
RECIPE = {
    "views": "any", "tiles": 100, "validation_tiles": 40, "components": 3, "sampling_schedule": "skewed-sigmoid",
    "encoder": {"tiles": 100, "dim": 16, "geocells": 20, "optimization": OPTIMIZATION},
    "flow": {"schedule": "linear", "draws": 2, "dropout": 0.1, "network": {"dim": 16, "depth": 1}, "optimization": OPTIMIZATION},
}  # fmt: skip


@pytest.fixture(scope="module", autouse=True)
def _small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GEOFLOW_SCALE", "smoke")
        patch.setenv("CI", "1")
        read = train.read_recipe

        def read_small(name, scale):
            recipe = read(name, scale)  # a wrong name is refused
            return RECIPE if name == "tiles" else recipe

        patch.setattr(train, "read_recipe", read_small)
        patch.setattr(compare, "read_recipe", read_small)
        yield


def run(*arguments):
    """A command in this process: its exit status and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    with (
        pytest.MonkeyPatch.context() as patch,
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        patch.setattr(sys, "argv", ["geoflow", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return SimpleNamespace(
        returncode=ended.value.code or 0, stdout=out.getvalue(), stderr=err.getvalue()
    )


def in_a_process(code, *arguments):
    command = [sys.executable, "-c", code, *map(str, arguments)]
    env = {**os.environ, "GEOFLOW_SCALE": "smoke", "CI": "1"}
    return subprocess.run(
        command, capture_output=True, text=True, env=env, timeout=300, check=False
    )


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
    for name in (
        "trajectories.png",
        "loss.png",
        "metrics-test.txt",
        "metrics-test.json",
        "metrics-held-out.json",
        "model/config.json",
    ):
        assert (out / name).stat().st_size > 0, name
    seen, unseen = (
        json.loads((out / f"metrics-{name}.json").read_text())["metrics"]
        for name in ("test", "held-out")
    )
    assert seen["images"] == unseen["images"] == 100
    assert "nll" in seen and "nll" not in unseen
    assert f"Look at {out}" in text
    assert "geoscore" in text
    assert re.search(
        r"from scratch takes about [\d.]+ s \(encoder\) \+ about [\d.]+ s \(riemannian\)", text
    )


def test_demo_again_reuses_what_is_there(demo):
    out, _first = demo
    before = {
        file: file.stat().st_mtime_ns
        for file in out.rglob("*")
        if file.name.startswith(("density", "metrics", "model."))
    }
    result = run("demo", "--out", out)
    assert result.returncode == 0, result.stderr
    assert "found, trained before" in result.stdout
    assert before == {file: file.stat().st_mtime_ns for file in before}


def test_compare_scores_every_method_and_goes_on(demo, tmp_path):
    command = ("compare", "--encoder", demo[0] / "model", "--seeds", 1, "--tiles", 30)
    command += ("--out", tmp_path)
    result = run(*command)
    assert result.returncode == 0, result.stderr
    assert "The Riemannian flow is ahead by" in result.stdout
    found = json.loads((tmp_path / "differences.json").read_text())
    for method in (*METHODS, MAP):
        scores = {
            name: json.loads((tmp_path / f"{method}-{name}.json").read_text())
            for name in compare.REPORTS
        }
        assert scores["test"]["metrics"]["images"] == 30
        assert math.isfinite(scores["test"]["metrics"]["nll"])
        assert scores["test"]["settings"]["trained"] == 1
        assert scores["test"]["settings"]["views"] == "any"
        guided = compare.GUIDANCE if method in (*GENERATIVE, MAP) else 0.0
        assert scores["test-guided"]["settings"]["guidance"] == guided
        if method != "riemannian":
            ours, theirs = (
                json.loads((tmp_path / f"{name}-test.json").read_text())["metrics"]
                for name in ("riemannian", method)
            )
            ahead, error = found["test"][method]["nll"]
            assert ahead == pytest.approx(theirs["nll"] - ours["nll"], abs=1e-4)
            assert error > 0
    before = {file: file.stat().st_mtime_ns for file in tmp_path.glob("*-?/**/*") if file.is_file()}
    (tmp_path / "flow-0" / "test.json").unlink()
    again = run(*command)
    assert again.returncode == 0, again.stderr
    assert again.stdout.count("found, trained before") == 1
    assert all(
        file.stat().st_mtime_ns == time
        for file, time in before.items()
        if file.parent.name != "flow-0"
    )


@pytest.mark.parametrize(
    ("recipe", "asked", "used"),
    [
        ({"recipe": {"views": "any"}}, "", "any"),
        ({"recipe": {"tiles": 300}}, "", "north-up"),  # of before there were others
        ({}, "", "any"),
        ({"recipe": {"views": "any"}}, "north-up", "north-up"),
    ],
)
def test_a_model_is_scored_on_the_views_it_learnt_from(recipe, asked, used, monkeypatch):
    def evaluate(geo, dataset, name):
        return SimpleNamespace(settings={}, images=dataset.images)

    monkeypatch.setattr(geoflow, "evaluate", evaluate)
    report = score_tiles(
        Geolocator(None, "uniform", provenance=recipe), "test", "smoke", views=asked
    )
    assert report.settings["views"] == used
    assert torch.equal(report.images, tiles.load("test", 100, used).images)


def test_distil_makes_a_flow_map_of_a_model(demo, tmp_path):
    result = run("distil", demo[0] / "model", "--out", tmp_path, "--steps", 2)
    assert result.returncode == 0, result.stderr
    assert f"model: {tmp_path / 'model'}" in result.stdout
    geo = Geolocator.from_pretrained(tmp_path / "model", "flow-map")
    assert geo.provenance["recipe"]["flow"]["optimization"]["steps"] == 2
    assert geo.sample(tiles.tile(24, 6), n=5, guidance=2.0).shape == (1, 5, 2)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("land",), "cannot learn from method 'land', which has no velocity"),
        (("tiles", "--lr", 0), "--lr 0.0; expected a number above 0"),
        (("tiles", "--batch", 10**6), "--batch 1,000,000, and there are"),
        (("tile",), "unknown model 'tile' (did you mean 'tiles'?)"),
    ],
)
def test_what_cannot_be_distilled_is_named(arguments, said, tmp_path):
    result = run("distil", *arguments, "--out", tmp_path)
    assert result.returncode == 1
    assert said in result.stderr


def test_another_seed_is_not_taken_for_this_run(demo):
    result = run("train", "--out", demo[0], "--seed", "1")
    assert result.returncode == 1
    assert "was trained with seed = 0, not 1; choose another folder" in result.stderr


def test_a_model_of_another_encoder_is_not_taken_for_this_run(demo, tmp_path):
    network = Geolocator.from_pretrained(demo[0] / "model").network
    Geolocator(network, encoder=TileEncoder(16)).save_pretrained(tmp_path)
    result = run("train", "--out", demo[0], "--encoder", tmp_path)
    assert result.returncode == 1
    assert re.search(r"was trained with encoder = '\w{16}', not '\w{16}'", result.stderr)


def test_a_comparison_of_another_scale_is_refused(tmp_path):
    (tmp_path / "run.json").write_text('{"scale": "laptop", "encoder": null}', encoding="utf-8")
    result = run("compare", "--out", tmp_path)
    assert "holds a comparison with scale = 'laptop', not 'smoke'" in result.stderr


def test_flags_of_train_reach_the_training(tmp_path, monkeypatch):
    (tmp_path / "shards").mkdir()
    for number in range(2):
        with ShardWriter(tmp_path / "shards" / f"{number}.tar", "street_clip") as writer:
            for i in range(20):
                writer.add({"id": f"{number}-{i}", "latitude": i, "longitude": -i}, torch.randn(8))
    asked = {}

    def fit(module, batches, folder, run, **machines):
        asked.update(machines, run=run, folder=folder)
        raise OSError("caught")

    monkeypatch.setattr(runs, "fit", fit)
    flags = (
        "--nodes",
        2,
        "--devices",
        4,
        "--wandb",
        "maps",
        "--stream",
        "--seed",
        7,
        "--method",
        "vmf",
    )
    result = run("train", "osv5m", "--data", tmp_path / "shards", "--out", tmp_path / "run", *flags)
    assert (result.returncode, result.stderr) == (1, "geoflow: caught\n")
    assert "20 images to train on, 20 to validate; 40 steps of 16" in result.stdout
    assert (asked["nodes"], asked["devices"], asked["wandb"]) == (2, 4, "maps")
    assert asked["folder"] == tmp_path / "run" / "flow"
    assert (asked["run"]["stream"], asked["run"]["seed"], asked["run"]["method"]) == (
        True,
        7,
        "vmf",
    )


def test_plan_says_what_a_training_takes():
    result = run("plan", "osv5m", "--scale", "smoke", "--gpus", 2)
    assert result.returncode == 0, result.stderr
    assert "osv5m, riemannian, 2 ×" in result.stdout
    assert "40 steps, 640 samples, 0.6 epochs" in result.stdout
    assert "s per step, measured here" in result.stdout


def test_locate_prints_places_and_draws_a_map(demo, tmp_path):
    tiles.tile(12, 50.5).save(tmp_path / "coast.png")
    result = run(
        "locate",
        tmp_path / "coast.png",
        "--model",
        demo[0] / "model",
        "--out",
        tmp_path / "out",
        "--k",
        2,
        "--exif",
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout.count("half within") == 2
    assert "the camera did not say" in result.stdout
    for ending in ("png", "geojson", "tif"):
        assert (tmp_path / "out" / f"coast.{ending}").stat().st_size > 1000
    rows = (tmp_path / "out" / "places.csv").read_text(encoding="utf-8").splitlines()[1:]
    assert len(rows) == 2
    assert all(row.startswith(f"{tmp_path / 'coast.png'},") for row in rows)
    assert all(",coast.png,coast.geojson,coast.tif," in row for row in rows)


def test_one_bad_file_does_not_stop_a_folder(demo, tmp_path):
    folder, how = (
        tmp_path / "photos",
        ("--model", demo[0] / "model", "--out", tmp_path / "out", "--k", 1, "--no-maps"),
    )
    folder.mkdir()
    for name in ("a.png", "c.png"):
        tiles.tile(12, 50.5).save(folder / name)
    (folder / "b.png").write_text("no image")
    result = run("locate", folder, *how)
    assert result.returncode == 1
    assert "1 of 3 images could not be read" in result.stderr
    assert "b.png" in result.stderr and "cannot be read as an image" in result.stderr
    assert result.stdout.count("half within") == 2
    table = tmp_path / "out" / "places.csv"
    rows = table.read_text().splitlines()
    assert [row.split(",")[0].split("/")[-1] for row in rows[1:]] == ["a.png", "c.png"]
    (folder / "b.png").unlink()
    tiles.tile(-77, 95).save(folder / "d.png")
    again = run("locate", folder, *how)
    assert again.returncode == 0, again.stderr
    assert "3 images, 2 answered before" in again.stdout
    assert again.stdout.count("half within") == 1
    assert table.read_text().splitlines()[:3] == rows
    assert len(table.read_text().splitlines()) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("train", "tilez"), "did you mean 'tiles'"),
        (("train", "--scale", "laptob"), "did you mean 'laptop'"),
        (("train", "osv5m"), "--data is missing"),
        (("plan", "tiles"), "unknown recipe 'tiles'"),
        (
            ("embed", "osv5m", "--out", "shards", "--encoder", "tiles"),
            "--root is missing: the folder where osv5m lies",
        ),
        (("data", "fetch", "osv5m"), "--root is missing: the folder for the files of osv5m"),
        (("evaluate", "--model", "tile"), "did you mean 'tiles'"),
        (("evaluate", "--out", __file__), "is a file, or below one; expected a folder"),
        (("evaluate", "--solver", "rk5"), "did you mean 'rk4'"),
        (("evaluate", "--model", "no/such/folder"), "no model folder"),
        (("evaluate", "--views", "nort-up"), "unknown views 'nort-up' (did you mean 'north-up'?)"),
        (("evaluate", "--views", "any", "--data", "shards"), "only Earth tiles have views"),
        (("locate", "no-such-photo.jpg"), "no image file at no-such-photo.jpg"),
        (("locate", __file__, "--k", "0"), "--k 0; expected at least 1"),
        (("locate", __file__, "--weights", "here"), "model tiles has no photo encoder"),
        (("tables", "no-such-folder"), "no-such-folder"),
        (("reproduce", "table7"), "did you mean 'table"),
    ],
)
def test_bad_input_is_told_in_one_line(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.returncode == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1 and result.stderr.startswith("geoflow: ")


ODD = "x\ny\x1b[31m"


@pytest.mark.parametrize(
    "arguments",
    [
        ("embed", f"{ODD}.csv", "--out", "o", "--encoder", "tiles"), ("data", "verify", ODD), ("locate", ODD), ("locate", __file__, "--model", ODD), ("train", "--data", ODD),
        ("tables", ODD), ("evaluate", "--data", ODD), ("evaluate", "--out", f"{__file__}/{ODD}"), ("explore", "--out", f"{ODD}/"), ("plan", ODD), ("reproduce", ODD),
    ],
)  # fmt: skip
def test_no_error_breaks_the_line_or_colours_the_terminal(arguments, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.returncode == 1
    assert result.stderr[:-1].isprintable() and result.stderr.endswith("\n")
    assert r"x\ny\x1b[31m" in result.stderr


@pytest.mark.parametrize("command", [("explore",), ("tables", "."), ("results", ".")])
@pytest.mark.parametrize("out", ["new/", "."])
def test_a_folder_is_no_file_to_write(command, out, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = run(*command, "--out", out)
    expected = f"geoflow: {out} is a folder; expected a file to write\n"
    assert (result.returncode, result.stderr) == (1, expected)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("option", "message"),
    [
        (("--seed", -1), "--seed -1; expected a whole number from 0 to 4,294,967,295"),
        (("--guidance", "nan"), "--guidance nan; expected a finite number"),
    ],
)
def test_evaluate_refuses_what_makes_no_sense_before_it_writes(option, message, tmp_path):
    result = run("evaluate", "--out", tmp_path / "out", *option)
    assert (result.returncode, result.stderr) == (1, f"geoflow: {message}\n")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("command", ["explore", "demo", "train"])
def test_a_bad_seed_is_refused_before_any_work(command, tmp_path):
    result = run(command, "--out", tmp_path / "out", "--seed", 2**32)
    assert result.returncode == 1
    assert result.stderr.startswith("geoflow: --seed 4294967296; expected a whole number from 0 to")
    assert not list(tmp_path.iterdir())


def test_reproduce_lists_what_there_is():
    result = run("reproduce", "list")
    assert result.returncode == 0
    assert {line.split()[0] for line in result.stdout.splitlines()} >= {
        "table1",
        "fig2",
        "figA",
        "earth-events",
    }


HELP = """
import contextlib, sys
from geoflow.cli import main
for command in ([], ["train"], ["locate"], ["plan"]):
    sys.argv[1:] = [*command, "--help"]
    with contextlib.suppress(SystemExit):
        main()
"""


def test_help_can_be_piped_where_characters_are_missing(monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "cp1252")  # as a pipe has it on Windows
    result = in_a_process(HELP)
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.count("Usage") == 4


EVALUATE = """
import sys
from geoflow.cli import app
app(["evaluate", "--samples", "1", "--steps", "1", "--out", sys.argv[1]], standalone_mode=False)
print(*sorted({"lightning", "transformers", "matplotlib", "cartopy", "IPython"} & sys.modules.keys()), file=sys.stderr)
"""


@pytest.mark.parametrize(
    ("name", "file"),
    [("../../x", "x.json"), ("/etc/x", "etc-x.json"), ("..", "data.json"), ("osv5m test", "osv5m-test.json"), ("a" * 500, f"{'a' * 100}.json")],
)  # fmt: skip
def test_a_report_stays_in_its_folder(tmp_path, monkeypatch, name, file):
    def report(geo, images, *_, **how):
        return geoflow.evaluation.Report(name, {"images": 1}, {}, {}, 1.0, "here")

    monkeypatch.setattr(geoflow, "evaluate", report)
    result = run("evaluate", "--out", tmp_path / "a" / "reports")
    assert result.returncode == 0, result.stderr
    assert [p.name for p in (tmp_path / "a" / "reports").iterdir() if p.name != ".lock"] == [file]
    assert [p.name for p in tmp_path.rglob("*.json")] == [file]


@pytest.mark.parametrize(
    "arguments",
    [
        ("evaluate", "--out", ""), ("evaluate", "--data", ""), ("tables", ""), ("results", ""), ("results", "x", "--out="), ("reproduce", "table1", "--out", ""),
        ("train", "--data", ""), ("train", "tiles", "--out", ""), ("distil", "tiles", "--data="), ("embed", "a.csv", "--out", ""), ("embed", "a.csv", "--out", "x", "--root", ""),
        ("data", "verify", ""), ("demo", "--out", ""), ("compare", "--out="), ("explore", "--out", ""),
    ],
)  # fmt: skip
def test_an_empty_path_is_refused(arguments, tmp_path, monkeypatch):
    """As a shell hands it over where a variable is not set; it is not the current folder."""
    monkeypatch.chdir(tmp_path)
    result = run(*arguments)
    assert result.returncode == 1, result.stdout
    assert result.stderr.startswith("geoflow: an empty path; expected a file or a folder")
    assert not list(tmp_path.iterdir())


def test_evaluate_loads_no_heavy_library(tmp_path):
    result = in_a_process(EVALUATE, tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stderr.strip() == ""
    for name in ("test", "held-out"):
        assert json.loads((tmp_path / f"tiles-{name}.json").read_text())["metrics"]["images"] == 100


def test_every_command_has_help():
    names = {command.name or command.callback.__name__ for command in cli.app.registered_commands}
    listed = run("--help").stdout
    for name in names:
        assert name in listed
        assert "Usage" in run(name, "--help").stdout


def stopped(*_, **__):
    raise KeyboardInterrupt


@pytest.mark.parametrize("files", [["notes.txt"], ["loss.png"], [".lock", "a.json"], ["encoder/model.py"], ["metrics-test.txt"], ["model/weights.bin"]])  # fmt: skip
def test_demo_leaves_a_folder_of_other_files_as_it_is(tmp_path, files):
    for name in files:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    result = run("demo", "--out", tmp_path)
    assert result.returncode == 1
    assert f"--out {tmp_path} holds other files than a demo's; choose another" in result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert all((tmp_path / name).read_text() == "mine" for name in files)


@pytest.mark.parametrize("kept", [["encoder/.lock", "encoder/run.json.77.partial"], ["encoder/run.json", "plot.png", "notes.txt", "photos.json"]])  # fmt: skip
def test_demo_goes_on_after_an_interruption_and_keeps_what_others_put_there(tmp_path, monkeypatch, kept):  # fmt: skip
    """What an earlier model was scored and drawn with is made anew, nothing else is removed."""
    (tmp_path / "encoder").mkdir()
    stale = ["metrics-test.txt", "metrics-held-out.json", "density-taiga.png"] * (len(kept) > 2)
    for name in [*kept, *stale]:
        (tmp_path / name).write_text("{}")
    monkeypatch.setattr(geoflow.training, "trained_on_tiles", stopped)
    assert run("demo", "--out", tmp_path).returncode == 130
    assert {str(file.relative_to(tmp_path)) for file in tmp_path.rglob("*")} == {
        ".lock",
        "encoder",
        *kept,
    }
