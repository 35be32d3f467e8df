"""One's own data: settings that fit any number of images, who judges, which encoder comes along; and from images to a model."""

import csv
import math
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import official
import pytest
import small
import torch
from PIL import Image
from synthetic import run_here

from geoflow import Geolocator, evaluate, runtime, sphere, training
from geoflow.data import references, tiles
from geoflow.data.shards import ShardWriter, open_shards
from geoflow.encoders import PhotoEncoder, TileEncoder
from geoflow.training import checkpoints, own, runs
from geoflow.training.batches import Rows
from geoflow.training.recipes import read_recipe

GEOFLOW = str(Path(sys.executable).parent / "geoflow")


@pytest.fixture(autouse=True)
def _small(monkeypatch, tmp_path):
    monkeypatch.setenv("CI", "1")
    monkeypatch.setenv("GEOFLOW_SCALE", "smoke")
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "cache"))


def write(folder, counts=(40,), field="tiles", dim=8, encoder=None, seed=0):
    """A folder of shards as `geoflow embed` leaves it: an embedding tells its place."""
    folder.mkdir(parents=True, exist_ok=True)
    generator, number = torch.Generator().manual_seed(seed), 0
    for shard, count in enumerate(counts):
        with ShardWriter(folder / f"{shard:05d}.tar", field) as writer:
            for x in sphere.uniform(count, generator):
                lat, lon = sphere.to_latlon(x).tolist()
                cond = torch.cat([x, torch.randn(dim - 3, generator=generator)])
                writer.add({"id": str(number), "latitude": lat, "longitude": lon}, cond)
                number += 1
    described = {"dataset": "mine", "field": field, "dim": dim, "encoder": encoder or {}}
    described["shards"] = {f"{shard:05d}.tar": count for shard, count in enumerate(counts)}
    runtime.write_json(folder / "manifest.json", described)
    return folder


def fails(line: str) -> str:
    """The one line in which a command of geoflow says what is wrong."""
    with pytest.raises((ValueError, OSError)) as error:
        run_here(line)
    assert "\n" not in str(error.value)
    return str(error.value)


# Settings


@pytest.mark.parametrize(
    ("images", "batch", "steps", "width", "depth"),
    [
        (14, 8, 100, 32, 2),
        (270, 32, 169, 64, 3),
        (1026, 128, 161, 128, 4),
        (20_000, 1024, 391, 128, 4),
        (1_000_000, 1024, 10_000, 128, 4),
    ],
)
def test_settings_fit_the_number_of_images(images, batch, steps, width, depth):
    recipe = read_recipe("photos", "laptop")
    fitted, why = own.fitted(recipe, images)
    o, network = fitted["flow"]["optimization"], fitted["flow"]["network"]
    found = (o["batch"], o["steps"], network["dim"], network["depth"])
    assert found == (batch, steps, width, depth)
    assert o["lr"] == pytest.approx(0.25 / width, rel=0.03)
    assert 0 < o["warmup"] <= steps / 20
    assert any(f"{steps:,} steps" in line for line in why)
    assert recipe == read_recipe("photos", "laptop"), "the recipe itself is as it was"
    assert training.network_module(fitted, "riemannian", 8).optimization.batch == batch


def test_a_large_data_set_gets_the_recipe_itself():
    """At `gpu`, 50 million images: the paper's network and its million steps."""
    recipe = read_recipe("photos", "gpu")
    fitted, _ = own.fitted(recipe, 60_000_000)
    for part in ("network", "optimization"):
        assert fitted["flow"][part] == recipe["flow"][part] | {
            key: fitted["flow"][part][key]
            for key in ("warmup", "ema")
            if key in recipe["flow"][part]
        }


@pytest.mark.parametrize(
    "given",
    [
        {"steps": 7},
        {"batch": 5},
        {"lr": 0.5},
        {"steps": 9, "lr": 1e-5},
        {"patience": 0},
        {"patience": 9},
    ],
)
def test_what_is_given_is_taken(given):
    for fitted in (
        own.fitted(read_recipe("photos", "laptop"), 300, {"batch": None, **given})[0],
        own.overridden(read_recipe("osv5m", "paper"), 5000, {"batch": None, **given}),
    ):
        o = fitted["flow"]["optimization"]
        assert {name: o[name] for name in given} == given


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"steps": 0}, "--steps 0; expected a number above 0"),
        ({"batch": -4}, "--batch -4; expected a number above 0"),
        ({"lr": 0.0}, "--lr 0.0; expected"),
        ({"lr": float("nan")}, "--lr nan; expected"),
        ({"lr": float("inf")}, "--lr inf; expected"),
        ({"batch": 301}, "--batch 301, and there are 300 images to train on; expected at most"),
        ({"patience": -1}, "--patience -1; expected a number of at least 0"),
    ],
)
def test_what_is_given_makes_sense(given, message):
    for choose in (own.fitted, own.overridden):
        with pytest.raises(ValueError, match=re.escape(message)):
            choose(read_recipe("photos", "laptop"), 300, given)


def test_a_published_recipe_on_few_images_is_told():
    message = "takes batches of 1,024 of 285 images to train on; for data of your own there is recipe 'photos'"
    with pytest.raises(ValueError, match=message):
        own.overridden(read_recipe("osv5m", "paper"), 285, {})


def test_few_images_are_told():
    for few in ("0 images", "1 image", "19 images"):
        with pytest.raises(ValueError, match=f"{few} to train on: too few; expected at least 20"):
            own.warning(int(few.split()[0]))
    assert "worse than none" in own.warning(20)
    assert "expect it to tell regions" in own.warning(999)
    assert own.warning(1000) == ""


# Who judges


@pytest.mark.parametrize(
    ("n", "expected"), [(20, 6), (60, 20), (300, 30), (1140, 114), (200_000, 10_000)]
)
def test_a_tenth_judges(n, expected):
    table = torch.randn(n, 32, generator=torch.Generator().manual_seed(0)).half()
    (judge,) = own.split([table], 0.1)
    assert int(judge.sum()) == expected == own.count_judged(n, 0.1)


def test_the_same_images_judge_in_any_order_and_copies_stay_together():
    table = torch.randn(400, 40, generator=torch.Generator().manual_seed(0)).half()
    (judge,) = own.split([table], 0.1)
    order = torch.randperm(400, generator=torch.Generator().manual_seed(1))
    parts = own.split([table[order[:150]], table[order[150:]]], 0.1)
    assert torch.equal(torch.cat(parts), judge[order])
    assert 0 < int(parts[0].sum()) < 40
    doubled = torch.cat([table, table])
    a, b = own.split([doubled], 0.1)[0].chunk(2)
    assert torch.equal(a, b)
    with pytest.raises(ValueError, match="the images have the same embedding"):
        own.split([table[:1].expand(30, -1)], 0.1)


def test_no_image_both_trains_and_judges(tmp_path, monkeypatch):
    """One shard, two folders of which one counts twice: rows of training and validation are disjoint, and each image is in one."""
    shards = [open_shards(write(tmp_path / str(i), (30 + i,), seed=i)) for i in range(2)]
    seen = {}

    def fit(module, batches, folder, run, **options):
        seen.update(train=batches.train, judged=batches.validation)
        raise KeyboardInterrupt

    monkeypatch.setattr(runs, "fit", fit)
    recipe, _ = own.fitted(read_recipe("photos", "smoke"), 50)
    with pytest.raises(KeyboardInterrupt):
        training.train_shards(recipe, [*shards, shards[1]], tmp_path / "run", log=lambda line: None)
    rows = {
        name: [tuple(x) for x in part[torch.arange(len(part))][1].tolist()]
        for name, part in seen.items()
    }
    assert not set(rows["train"]) & set(rows["judged"])
    assert len(rows["judged"]) == len(set(rows["judged"])) == 20
    assert len(set(rows["train"])) == 61 - 20
    twice = {row for row in rows["train"] if rows["train"].count(row) == 2}
    second = {tuple(x) for x in shards[1].part(0)[1].tolist()}
    assert twice == second & set(rows["train"])


# The encoder


def described(encoder, **more):
    return {"name": "tiles", "weights": runtime.sha256_of_weights(encoder)[:16], **more}


def test_the_encoder_of_the_shards_comes_along(tmp_path, shipped):
    encoder = shipped("tiles").encoder
    said = []
    shards = open_shards(write(tmp_path / "a", dim=256, encoder=described(encoder, model="tiles")))
    found = own.encoder_of(shards, log=said.append)
    assert runtime.sha256_of_weights(found) == runtime.sha256_of_weights(encoder)
    gone = described(encoder, model=str(tmp_path / "gone"))
    found = own.encoder_of(
        open_shards(write(tmp_path / "b", dim=256, encoder=gone)), log=said.append
    )
    assert runtime.sha256_of_weights(found) == runtime.sha256_of_weights(encoder)
    assert (
        len(said) == 1
        and "the model that the shards name cannot be read: no model folder" in said[0]
    )


def test_the_encoder_of_a_folder_comes_along(tmp_path):
    torch.manual_seed(0)
    encoder = TileEncoder(8, width=4)
    network = training.network_module(read_recipe("photos", "smoke"), "riemannian", 8).network
    Geolocator(network, encoder=encoder).save_pretrained(tmp_path / "model")
    about = described(encoder, model=str(tmp_path / "model"))
    shards = open_shards(write(tmp_path / "shards", encoder=about))
    for given in ("", str(tmp_path / "model")):
        found = own.encoder_of(shards, given)
        assert runtime.sha256_of_weights(found) == runtime.sha256_of_weights(encoder)
    with pytest.raises(
        ValueError, match=r"--encoder tiles is not the encoder of the shards: .* width 8"
    ):
        own.encoder_of(shards, "tiles")


def test_an_encoder_that_is_gone_is_told_loudly(tmp_path):
    said = []
    shards = open_shards(write(tmp_path, encoder={"name": "tiles", "weights": "0123456789abcdef"}))
    assert own.encoder_of(shards, log=said.append) is None
    assert said[0].startswith("WARNING: no model here has the encoder of the shards")
    assert "weights 0123456789abcdef" in said[0] and "--encoder MODEL" in said[0]


def test_photo_encoders_come_along_by_name_and_weights_folder(tmp_path):
    config = {"source": "weights/dinov2"}
    about = {"name": "dinov2", "config": config, "weights": "0123456789abcdef"}
    shards = open_shards(write(tmp_path, field="dinov2_vitl14_registers", encoder=about))
    found = own.encoder_of(shards)
    assert (found.name, found.config, found.body) == ("dinov2", config, None)


# Commands


def test_from_images_to_a_model_that_knows_more_than_nothing(tmp_path):
    """300 tile images, embedded in one shard, trained with no word but --data: better than uniform on tiles it never saw."""
    sample = tiles.load("train", 300)
    with (tmp_path / "photos.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["id", "latitude", "longitude", "path"])
        for i, (pixels, place) in enumerate(
            zip(sample.images, sphere.to_latlon(sample.x), strict=True)
        ):
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(tmp_path / f"{i}.png")
            table.writerow([i, *place.tolist(), f"{i}.png"])
    run_here(
        f"embed {tmp_path}/photos.csv --out {tmp_path}/shards --encoder tiles --workers 0 --shard 400"
    )
    said = run_here(f"train --data {tmp_path}/shards --out {tmp_path}/run")
    assert "WARNING: 300 images are few" in said
    assert "settings for 270 images (--steps, --batch and --lr change them):" in said
    assert "270 images to train on, 30 to validate; 169 steps of 32" in said
    assert re.search(r": about [\d.,]+ (s|min) on one device", said)
    geo = Geolocator.from_pretrained(tmp_path / "run" / "model")
    assert geo.encoder is not None
    test = tiles.load("test", 100)
    report = evaluate(geo, test, "tiles", samples=8, steps=8)
    assert report.metrics["nll_over_uniform"] < -0.15
    again = run_here(f"train --data {tmp_path}/shards --out {tmp_path}/run")
    assert "trained before" in again and "on one device" not in again


@pytest.fixture
def shards(tmp_path):
    return write(tmp_path / "shards", (20, 20))


def test_other_data_at_the_same_path_is_refused(tmp_path, shards):
    """And the same data at another path goes on."""
    train = f"--steps 3 --out {tmp_path}/run"
    run_here(f"train --data {shards} {train}")
    model = (tmp_path / "run" / "model" / "model.safetensors").read_bytes()
    moved = shards.rename(tmp_path / "moved")
    assert "trained before" in run_here(f"train --data {moved} {train}")
    write(shards, (20, 20), seed=1)
    message = fails(f"train --data {shards} {train}")
    assert re.search(
        r"flow holds a run with data = \['40 images, \w{16}'\], not \['40 images, \w{16}'\]",
        message,
    )
    assert (tmp_path / "run" / "model" / "model.safetensors").read_bytes() == model


def test_a_model_of_another_training_is_kept(tmp_path, shards):
    model = tmp_path / "run" / "model"
    Geolocator.from_pretrained("tiles").save_pretrained(model)
    before = (model / "model.safetensors").read_bytes()
    assert "model is of another training" in fails(f"train --data {shards} --out {tmp_path}/run")
    assert (model / "model.safetensors").read_bytes() == before


def test_what_changed_against_the_folder_is_told(tmp_path, shards):
    run_here(f"train --data {shards} --steps 3 --out {tmp_path}/run")
    message = fails(f"train --data {shards} --steps 4 --batch 10 --seed 5 --out {tmp_path}/run")
    for part in (
        "recipe.flow.optimization.steps = 3, not 4",
        "optimization.batch = 8, not 10",
        "seed = 0, not 5",
    ):
        assert part in message
    assert message.endswith("choose another folder or delete it")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("train --data nowhere", "--data nowhere does not exist; expected a folder of shards"),
        ("train tilez --data nowhere", "--data nowhere does not exist"),
        ("train tiles --data {shards}", "--data cannot be used with recipe 'tiles'"),
        ("train --stream", "--stream cannot be used with recipe 'tiles'"),
        ("train --devices 2 --nodes 3", "--devices and --nodes cannot be used with recipe 'tiles'"),
        ("train --wandb maps", "--wandb cannot be used"),
        ("train tiles --steps 5 --lr 1", "--steps and --lr cannot be used with recipe 'tiles'"),
        ("train --lr 0", "--lr cannot be used with recipe 'tiles'"),
        ("train tiles --encoder uniform", "--encoder uniform: it has no encoder of tiles of width 256"),
        ("compare --encoder land", "--encoder land: it has no encoder of tiles of width 256"),
        ("train photos", "--data is missing"),
        ("train osv5m", "--data is missing"),
        ("train {shards}", "is not a recipe; did you mean --data"),
        ("train earth-events --data {shards}", "unknown recipe 'earth-events'"),
        ("train --data {shards}/00000.tar", "is a file; expected a folder of shards"),
        ("train --data {shards} --lr 0", "--lr 0.0; expected a number above 0"),
        ("train --data {shards} --steps 0", "--steps 0; expected a number above 0"),
        ("train --data {shards} --batch 5000", "--batch 5,000, and there are 27 images"),
        ("train --data {shards} --seed -1", "--seed -1; expected a whole number from 0"),
        ("train --data {shards} --devices 0", "--devices 0; expected at least 1"),
        ("train --data {shards} --method uniform", "unknown method 'uniform'"),
        ("train --data {shards} --scale paper", "unknown scale 'paper'; expected one of 'smoke', 'laptop', 'gpu'"),
        ("train --data {shards} --out {shards}/00000.tar", "00000.tar is a file, or below one"),
        ("train --data {shards} --out {shards}/00000.tar/x", "x is a file, or below one"),
        ("train --data {shards} --out /proc/geoflow", "--out /proc/geoflow cannot be written"),
        ("train --data {one} --stream --out {out}", "has a single shard, and with --stream the last one judges"),
        ("train --data {few}", "7 images to train on: too few; expected at least 20"),
        ("plan photos", "--data is missing"),
        ("plan tiles", "unknown recipe 'tiles'"),
        ("plan --data nowhere", "--data nowhere does not exist"),
        ("compare --seeds 0", "--seeds 0; expected at least 1"),
        ("demo --out {shards}/00000.tar", "is a file, or below one"),
    ],
)  # fmt: skip
def test_bad_options_are_told_in_one_line(tmp_path, monkeypatch, line, message, shards):
    monkeypatch.chdir(tmp_path)
    folders = {"one": write(tmp_path / "one", (40,)), "few": write(tmp_path / "few", (7,))}
    said = fails(line.format(shards=shards, out=tmp_path / "out", **folders))
    assert message in said


def test_a_plan_of_ones_own_data(shards):
    said = run_here(f"plan --data {shards}")
    assert (
        "settings for 27 images (--steps, --batch and --lr change them):" in said
    )  # of 40, 13 judge
    assert re.search(r"photos, riemannian, 1 × .*", said)
    assert "100 steps" in said
    assert re.search(r"measured here: [\d.]+ (s|min)", said)
    assert re.search(r"embeddings: 0.08\d* MB in shards", said)
    said = run_here(f"plan photos --data {shards} --steps 7 --batch 9")
    assert "7 steps: 2 passes over the images" not in said  # given, not chosen
    assert "7 steps, 63 samples, 2.3 epochs" in said  # of the 27 that train
    assert "osv5m, riemannian" in run_here(f"plan osv5m --data {shards} --scale smoke")


def test_two_trainings_into_one_folder_are_told(tmp_path, shards):
    with runtime.alone(tmp_path / "run"):
        message = fails(f"train --data {shards} --out {tmp_path}/run")
    assert "another geoflow command writes to" in message


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_command_says_how_to_go_on(tmp_path, shards, number, status):
    line = ["train", "--data", str(shards), "--steps", "100000", "--out", str(tmp_path / "run")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    options = dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    options["preexec_fn"] = lambda: signal.signal(signal.SIGINT, signal.SIG_DFL)
    with subprocess.Popen([GEOFLOW, *line], **options) as process:
        while process.poll() is None and not list(tmp_path.glob("run/flow/best.ckpt")):
            if list(tmp_path.glob("run/flow/log-*")):
                time.sleep(2)
                break
            time.sleep(0.05)
        process.send_signal(number)
        _, said = process.communicate(timeout=120)
    assert process.returncode == status, said
    last = said.strip().splitlines()[-1]
    kept = re.fullmatch(
        r"geoflow: interrupted; step ([\d,]+) of 100,000 is kept in .*last.ckpt. To go on: geoflow (.*)",
        last,
    )
    assert kept and kept[2] == " ".join(line), said
    assert not (tmp_path / "run" / "model").exists()
    state = checkpoints.read(tmp_path / "run" / "flow" / "last.ckpt")
    assert f"{state['global_step']:,}" == kept[1]


@pytest.mark.parametrize("known", [True, False])
def test_the_verdict_says_how_far_a_model_is_from_a_guess(known):
    """A peak of 100 km around each image's place, or around another place."""
    x = sphere.uniform(30, torch.Generator().manual_seed(0))
    cond = torch.eye(30)
    places = x if known else x.flip(0)
    nearest = references.Retrieval(cond, places, neighbors=1, concentration=4e3)
    nats, text = own.verdict(Geolocator(nearest, "retrieval"), Rows((cond, x)))
    # a vMF holds κ/2π at its middle, 95 % of the weight; elsewhere only the uniform 5 % are left
    best = -math.log(0.95 * 4e3 / (2 * math.pi) + 0.05 / (4 * math.pi)) - math.log(4 * math.pi)
    assert nats == pytest.approx(best if known else -math.log(0.05), abs=0.01)
    assert f"{nats:+.2f} nats over the uniform guess" in text
    assert ("WARNING" in text) is not known


def test_a_model_is_distilled_on_shards_of_its_embeddings(tmp_path):
    model = small.model(encoder=False).save_pretrained(tmp_path / "flow")
    shards, out = write(tmp_path / "shards", (60,)), tmp_path / "map"
    options = f"--steps 2 --batch 8 --out {out}"
    run_here(f"distil {model} --data {shards} {options}")
    geo = Geolocator.from_pretrained(out / "model", "flow-map")
    assert geo.provenance["data"][0].startswith("60 images, ")
    assert geo.sample(cond=torch.zeros(1, 8), n=3).shape == (1, 3, 2)
    wide = write(tmp_path / "wide", (60,), dim=16)
    said = fails(f"distil {model} --data {wide} {options}")
    assert "takes embeddings of 8 numbers, the shards have 16" in said
    network = small.network(time_scale=3.0)
    other = Geolocator(network, "riemannian", "linear", PhotoEncoder("dinov2", "a/folder"))
    other = other.save_pretrained(tmp_path / "photos")
    assert "'dinov2', the shards hold 'tiles' of another encoder" in fails(
        f"distil {other} --data {shards} {options}2"
    )
    said = fails(f"distil {model} --data {shards} --scale laptop --steps 2 --out {out}")
    assert said.endswith("of 40 images to train on; choose --batch")
    assert "--batch 60, and there are 40 images" in fails(
        f"distil {model} --data {shards} --batch 60 --out {out}"
    )


def test_a_published_network_becomes_a_flow_map(tmp_path):
    """A folder in the official layout, which says neither its method nor its encoder."""
    shards = write(tmp_path / "shards", field="dinov2_vitl14_registers", dim=32)
    run_here(f"distil {official.FOLDER} --data {shards} --steps 3 --out {tmp_path}/map")
    geo = Geolocator.from_pretrained(tmp_path / "map" / "model", "flow-map")
    teacher = Geolocator.from_pretrained(official.FOLDER)
    assert geo.provenance["teacher"] == runtime.sha256_of_weights(teacher.network)[:16]
    assert (geo.model.schedule_name, geo.encoder) == ("few-steps", None)
    assert geo.sample(cond=torch.zeros(1, 32), n=3, guidance=2.0).shape == (1, 3, 2)


def test_an_encoder_with_settings_that_it_does_not_take_is_named(tmp_path):
    about = {"name": "dinov2", "config": {"size": 3}}
    shards = open_shards(write(tmp_path, field="dinov2_vitl14_registers", encoder=about))
    with pytest.raises(ValueError, match=r"encoder 'dinov2' with config = {'size': 3}, which fits"):
        own.encoder_of(shards)


@pytest.mark.parametrize("model", [[1], {"a": 1}, 5])
@pytest.mark.parametrize("command", ["train", "plan", "data verify", "evaluate"])
def test_a_model_of_shards_that_is_no_name_is_told(tmp_path, command, model):
    shards = write(tmp_path / "shards", encoder={"model": model})
    data = str(shards) if command == "data verify" else f"--data {shards}"
    assert f"encoder.model = {model!r}, expected a text" in fails(f"{command} {data}")
