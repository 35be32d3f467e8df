"""The whole path on small copies of the real layouts, as a user walks it: images → shards → training on two processes, killed and
resumed → evaluation on two processes → a report.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import synthetic
import torch
from typer.testing import CliRunner

from geoflow import Geolocator, cli, reproduce, training
from geoflow.cli import read_recipe
from geoflow.data.shards import open_shards

GEOFLOW = str(Path(sys.executable).parent / "geoflow")
ENVIRONMENT = {**os.environ, "GEOFLOW_SCALE": "smoke", "CI": "1", "OMP_NUM_THREADS": "1"}


def command(*arguments, processes=1, port=29520):
    launcher = (
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", processes, "--master-port", port] if processes > 1 else []
    )
    return [str(part) for part in (*launcher, GEOFLOW, *arguments)]


def run(*arguments, **options):
    result = subprocess.run(command(*arguments, **options), capture_output=True, text=True, timeout=300, env=ENVIRONMENT, check=False)
    assert result.returncode == 0, result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Embeddings of both splits of a small OpenStreetView-5M, by the command."""
    root = synthetic.osv5m(tmp_path_factory.mktemp("osv5m"), train=120, test=30)
    for split in ("train", "test"):
        text = run("embed", "osv5m", "--root", root, "--split", split, "--encoder", "tiles", "--out", root / "shards" / split)
        assert "images could not be read" in text
    return root / "shards"


def test_from_images_to_a_report_on_two_processes(shards, tmp_path):
    train = ("train", "osv5m", "--data", shards / "train", "--encoder", "tiles", "--out", tmp_path / "run", "--devices", 2)
    with subprocess.Popen(command(*train, processes=2), env=ENVIRONMENT, start_new_session=True, stderr=subprocess.DEVNULL) as process:
        for _ in range(600):
            if list(tmp_path.glob("run/flow/log-*/metrics.csv")) or process.poll() is not None:
                break
            time.sleep(0.05)
        os.killpg(process.pid, signal.SIGKILL)
    run(*train, processes=2)
    whole = run(*(tmp_path / "whole" if part == tmp_path / "run" else part for part in train), processes=2)
    assert "steps of 16" in whole
    a, b = (Geolocator.from_pretrained(tmp_path / name / "model").network.state_dict() for name in ("run", "whole"))
    assert all(torch.equal(a[name], b[name]) for name in a)

    score = ("evaluate", "--model", tmp_path / "run" / "model", "--data", shards / "test", "--samples", 4)
    assert run(*score, "--out", tmp_path / "two", processes=2).count("geoscore") == run(*score, "--out", tmp_path / "one").count("geoscore")
    one, two = (json.loads((tmp_path / name / "osv5m-test.json").read_text())["metrics"] for name in ("one", "two"))
    assert one["images"] == 30
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize(("dataset", "row"), [("inat21", "RFM S²"), ("yfcc", "vMF mixture")])
def test_from_a_real_layout_to_a_row_of_the_paper(dataset, row, tmp_path, monkeypatch):
    """In one process: what the commands above do on two."""
    root = getattr(synthetic, dataset)(tmp_path / "raw", 100, 20)
    method = {"RFM S²": "riemannian", "vMF mixture": "vmf-mixture"}[row]
    for name, value in {"GEOFLOW_SCALE": "smoke", "CI": "1", "GEOFLOW_CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(name, value)

    def command(*arguments):
        result = CliRunner().invoke(cli.app, [str(part) for part in arguments], catch_exceptions=False)
        return result.stdout

    for split in ("train", "test"):
        out = tmp_path / "shards" / split
        command("embed", dataset, "--root", root, "--split", split, "--encoder", "tiles", "--out", out, "--workers", 0)
    train, test = tmp_path / "shards" / "train", tmp_path / "shards" / "test"
    twice = ("--data", train, "--data", train, "--stream")
    command("train", dataset, "--method", method, *twice, "--encoder", "tiles", "--out", tmp_path / "run")
    how = ("--samples", 1, "--steps", 2, "--labels", *(("--guidance", 2) if method == "riemannian" else ()))
    command("evaluate", "--model", tmp_path / "run" / "model", "--data", test, *how, "--out", tmp_path / "results" / method)
    text = command("tables", tmp_path / "results", "--out", tmp_path / "tables.md")
    assert text == (tmp_path / "tables.md").read_text()
    report = json.loads((tmp_path / "results" / method / f"{dataset}-test.json").read_text())
    assert f"→ {report['metrics']['mean_km']:,.0f} (" in text
    assert f"- {row}: {method}/{dataset}-test.json, {dataset} test: {report['metrics']['images']} images" in text

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{method}-0").symlink_to(tmp_path / "run")
    with pytest.raises(ValueError, match="4 steps failed: .*no model in"):  # the four methods that were not trained
        reproduce.run(["table1"], reproduce.Setup("paper", tmp_path / "again", tmp_path / "models", test, say=lambda line: None))
    table = (tmp_path / "again" / f"{dataset}-paper" / "table1.md").read_text()
    assert "difference)" in table and f"- {row}: score-{method}, {dataset} test" in table and "- Uniform: score-uniform" in table


@pytest.fixture
def opened(shards, monkeypatch, tmp_path):
    monkeypatch.setenv("CI", "1")
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return open_shards(shards / "train")


TRAIN = """
import sys
from pathlib import Path
from geoflow import training
from geoflow.cli import read_recipe
from geoflow.data.shards import open_shards
recipe = read_recipe("osv5m", "smoke")
recipe["flow"]["optimization"]["steps"] = 100
training.train_shards(recipe, [open_shards(sys.argv[1])], sys.argv[2], devices=int(sys.argv[3]))
"""


def test_two_processes_train_as_one_does(opened, shards, tmp_path):
    """Losses of the batches and of validation, over the first 100 steps."""
    (tmp_path / "train.py").write_text(TRAIN)
    curves = []
    for world in (1, 2):
        launcher = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(world), "--master-port", "29521"]
        arguments = [tmp_path / "train.py", shards / "train", tmp_path / str(world), str(world)]
        subprocess.run([*launcher, *arguments], env=ENVIRONMENT, check=True, timeout=300)
        curves.append(training.loss_curve(tmp_path / str(world) / "flow"))
    one, two = curves
    for name, count in (("loss", 10), ("val_loss", 20)):
        assert len(one[name]) == count
        assert [step for step, _ in two[name]] == [step for step, _ in one[name]]
        assert [value for _, value in two[name]] == pytest.approx([value for _, value in one[name]], rel=1e-4)


@pytest.mark.parametrize("method", ["diffusion", "vmf-mixture"])
def test_streamed_training_lowers_the_loss(opened, tmp_path, method):
    network, provenance = training.train_shards(
        read_recipe("osv5m", "smoke"), [opened, opened], tmp_path / "run", method=method, stream=True
    )
    curve = training.loss_curve(tmp_path / "run" / "flow")["val_loss"]
    assert curve[-1][1] < curve[0][1]
    assert provenance["stream"]
    assert network.config["cond_dim"] == 256


def test_bad_data_is_refused(opened, tmp_path, shards):
    recipe = read_recipe("osv5m", "smoke")
    with pytest.raises(ValueError, match="has a single shard; expected at least 2"):
        training.train_shards(
            recipe, [opened.but_last().__class__(opened.files[:1], opened.counts[:1], "tiles", 256, {}, "")], tmp_path / "run"
        )
    other = opened.__class__(opened.files, opened.counts, "street_clip", 1024, {}, "")
    with pytest.raises(ValueError, match=r"embeddings of different encoders: .*street_clip \(1024"):
        training.train_shards(recipe, [opened, other], tmp_path / "run")
    result = subprocess.run(command("train", "osv5m"), capture_output=True, text=True, env=ENVIRONMENT, check=False)
    assert result.returncode == 1
    assert "--data is missing" in result.stderr
