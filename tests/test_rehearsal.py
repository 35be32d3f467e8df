"""The whole path on small copies of the real layouts, as a user walks it: images → shards → training on two processes, killed and
resumed → evaluation on two processes → a report.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import synthetic
import torch

from geoflow import Geolocator, training
from geoflow.data.shards import open_shards
from geoflow.paper import reproduce
from geoflow.training.recipes import read_recipe

GEOFLOW = str(Path(sys.executable).parent / "geoflow")
ENVIRONMENT = {**os.environ, "GEOFLOW_SCALE": "smoke", "CI": "1", "OMP_NUM_THREADS": "1"}


def command(line: str, processes=1, port=29520) -> list[str]:
    """A command of geoflow in words; on several processes by torchrun."""
    torchrun = f"-m torch.distributed.run --nproc-per-node {processes} --master-port {port}"
    launcher = [sys.executable, *torchrun.split()] if processes > 1 else []
    return [*launcher, GEOFLOW, *line.split()]


def run(line: str, **options) -> str:
    started = command(line, **options)
    result = subprocess.run(
        started, capture_output=True, text=True, timeout=300, env=ENVIRONMENT, check=False
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def children(pid: int) -> list[int]:
    """Processes that torchrun started, each in a session of its own: a kill of its group spares them."""
    found = subprocess.run(["pgrep", "-P", str(pid)], capture_output=True, text=True, check=True)
    return list(map(int, found.stdout.split()))


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    """Embeddings of both splits of a small OpenStreetView-5M, by the command."""
    root = synthetic.osv5m(tmp_path_factory.mktemp("osv5m"), train=120, test=30)
    for split in ("train", "test"):
        where = f"--root {root} --split {split} --out {root}/shards/{split}"
        text = synthetic.run_here(f"embed osv5m {where} --encoder tiles --workers 0")
        assert "images could not be read" in text
    return root / "shards"


@pytest.mark.slow
def test_from_images_to_a_report_on_two_processes(shards, tmp_path, monkeypatch):
    for name in ("GEOFLOW_SCALE", "CI", "OMP_NUM_THREADS"):
        monkeypatch.setenv(name, ENVIRONMENT[name])
    how = "--encoder tiles --devices 2 --steps 80"
    train = f"train osv5m --data {shards}/train {how} --out {tmp_path}"
    options = dict(env=ENVIRONMENT, start_new_session=True, stderr=subprocess.DEVNULL)
    with subprocess.Popen(command(f"{train}/run", processes=2), **options) as process:
        while process.poll() is None and not (tmp_path / "run/flow/best.ckpt").exists():
            time.sleep(0.05)
        assert process.poll() is None, "it ended before it could be killed"
        for killed in [*children(process.pid), process.pid]:
            os.kill(killed, signal.SIGKILL)
    assert not (tmp_path / "run/flow/done.json").exists(), "it ended before it was killed"
    assert "80 steps of 16" in run(f"{train}/run", processes=2)
    synthetic.on_two_processes(29522, synthetic.run_here, f"{train}/whole")
    models = (Geolocator.from_pretrained(tmp_path / name / "model") for name in ("run", "whole"))
    a, b = (model.network.state_dict() for model in models)
    assert all(torch.equal(a[name], b[name]) for name in a)

    score = f"evaluate --model {tmp_path}/run/model --data {shards}/test --samples 4"
    said = run(f"{score} --out {tmp_path}/two", processes=2)  # by one of them
    assert said.count("geoscore") == synthetic.run_here(f"{score} --out {tmp_path}/one").count(
        "geoscore"
    )
    one, two = (
        json.loads((tmp_path / name / "osv5m-test.json").read_text())["metrics"]
        for name in ("one", "two")
    )
    assert one["images"] == 30
    assert two == pytest.approx(one, rel=1e-4)


@pytest.mark.parametrize(("dataset", "row"), [("inat21", "RFM S²"), ("yfcc", "vMF mixture")])
def test_from_a_real_layout_to_a_row_of_the_paper(dataset, row, tmp_path, monkeypatch):
    """In one process: what the commands above do on two."""
    root = getattr(synthetic, dataset)(tmp_path / "raw", 100, 20)
    method = {"RFM S²": "riemannian", "vMF mixture": "vmf-mixture"}[row]
    guided = "--guidance 2" if method == "riemannian" else ""
    model, train, test = (tmp_path / name for name in ("run/model", "shards/train", "shards/test"))
    results = tmp_path / "results"
    for name, value in {"SCALE": "smoke", "CACHE": str(tmp_path / "cache")}.items():
        monkeypatch.setenv(f"GEOFLOW_{name}", value)
    monkeypatch.setenv("CI", "1")

    for split in ("train", "test"):
        where = f"--root {root} --split {split} --out {tmp_path}/shards/{split}"
        synthetic.run_here(f"embed {dataset} {where} --encoder tiles --workers 0")
    twice = f"--data {train} --data {train} --stream"
    synthetic.run_here(
        f"train {dataset} --method {method} {twice} --encoder tiles --out {tmp_path}/run"
    )
    how = f"--samples 1 --steps 2 --labels {guided}"
    synthetic.run_here(f"evaluate --model {model} --data {test} {how} --out {results}/{method}")
    text = synthetic.run_here(f"tables {results} --out {tmp_path}/tables.md")
    assert text == (tmp_path / "tables.md").read_text()
    found = json.loads((results / method / f"{dataset}-test.json").read_text())["metrics"]
    assert f"| {found['mean_km']:,.0f} (" in text
    scored = f"{method}/{dataset}-test.json, {dataset} test: {found['images']} images"
    assert f"- {row}: {scored}" in text

    (tmp_path / "models").mkdir()
    (tmp_path / "models" / f"{method}-0").symlink_to(tmp_path / "run")
    setup = reproduce.Setup(
        "paper", tmp_path / "again", tmp_path / "models", test, log=lambda line: None
    )
    with pytest.raises(ValueError, match="4 steps failed: .*no model in"):  # of other methods
        reproduce.run(["table1"], setup)
    table = (tmp_path / "again" / f"{dataset}-paper" / "table1.md").read_text()
    assert re.search(rf"^\| {row} \|.* [\d,]+ \([+-][\d,]+\) \|", table, re.MULTILINE)
    assert f"| score-{method} | {method} | {found['images']} |" in table
    assert "| score-uniform | uniform |" in table


@pytest.fixture
def opened(shards, monkeypatch, tmp_path):
    monkeypatch.setenv("CI", "1")
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    return open_shards(shards / "train")


def test_two_processes_train_as_one_does(opened, tmp_path):
    """Losses of the batches and of validation, over the first 100 steps."""
    recipe = read_recipe("osv5m", "smoke")
    recipe["flow"]["optimization"]["steps"] = 100
    training.train_shards(recipe, [opened], tmp_path / "1")
    synthetic.on_two_processes(
        29521, training.train_shards, recipe, [opened], tmp_path / "2", devices=2
    )
    one, two = (training.loss_curve(tmp_path / name / "flow") for name in ("1", "2"))
    for name, count in (("loss", 10), ("val_loss", 20)):
        assert len(one[name]) == count
        assert [step for step, _ in two[name]] == [step for step, _ in one[name]]
        expected = pytest.approx([value for _, value in one[name]], rel=1e-4)
        assert [value for _, value in two[name]] == expected


@pytest.mark.parametrize("method", ["diffusion", "vmf-mixture"])
def test_streamed_training_lowers_the_loss(opened, tmp_path, method):
    recipe = read_recipe("osv5m", "smoke")
    recipe["flow"]["optimization"]["steps"] = 200  # enough to see the loss fall through its noise
    network, provenance = training.train_shards(
        recipe,
        [opened, opened],
        tmp_path / "run",
        method=method,
        stream=True,
    )
    losses = torch.tensor(
        [loss for _, loss in training.loss_curve(tmp_path / "run" / "flow")["loss"]]
    )
    assert losses[-5:].mean() < losses[:5].mean()
    assert provenance["stream"]
    assert network.config["cond_dim"] == 256


def test_bad_data_is_refused(opened, tmp_path, shards):
    recipe = read_recipe("osv5m", "smoke")
    with pytest.raises(
        ValueError, match="has a single shard, and with --stream the last one judges"
    ):
        training.train_shards(
            recipe,
            [opened.__class__(opened.files[:1], opened.counts[:1], "tiles", 256, {}, "")],
            tmp_path / "run",
            stream=True,
        )
    other = opened.__class__(opened.files, opened.counts, "street_clip", 1024, {}, "")
    with pytest.raises(ValueError, match=r"embeddings of different encoders: .*street_clip \(1024"):
        training.train_shards(recipe, [opened, other], tmp_path / "run")
    result = subprocess.run(
        command("train osv5m"), capture_output=True, text=True, env=ENVIRONMENT, check=False
    )
    assert result.returncode == 1
    assert "--data is missing" in result.stderr
