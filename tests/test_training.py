"""Training: interrupted runs end as if they had not been, averages are right, what is broken stops."""

import copy
import csv
import json
import math
from datetime import timedelta
from pathlib import Path

import pytest
import torch
import yaml
from trainings import RUN, Killed, batches, flow, in_memory, same, train, weights_of

from geoflow import Geolocator, flowmap, runtime, schedules, sphere, training
from geoflow.encoders import TileEncoder
from geoflow.training import (
    EncoderModule,
    FlowModule,
    Optimization,
    checkpoints,
    fit,
    runs,
    trainer,
)
from geoflow.training.modules import GeocellClassifier
from geoflow.training.recipes import read_recipe


@pytest.fixture(autouse=True)
def quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("CI", "1")
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def saves_every_step(monkeypatch):
    monkeypatch.setattr(checkpoints, "EVERY", timedelta(microseconds=1))


@pytest.mark.parametrize("ema", [0.0, 0.9])
@pytest.mark.parametrize("kills", [(5,), (1, 4, 11)])
def test_interrupted_and_resumed_is_uninterrupted_to_the_bit(
    tmp_path, saves_every_step, ema, kills
):
    whole = train(tmp_path / "whole", ema=ema)
    assert whole.seen == list(range(12))
    seen = []
    for step in kills:
        module = flow(ema=ema, kill_at=step)
        with pytest.raises(Killed):
            fit(module, batches(module), tmp_path / "parts", RUN)
        seen += module.seen
        assert not (tmp_path / "parts" / "done.json").exists()
    last = train(tmp_path / "parts", ema=ema)
    assert seen + last.seen == list(range(12))
    assert same(last.state_dict(), whole.state_dict())
    assert same(
        weights_of(tmp_path / "parts" / "last.ckpt"), weights_of(tmp_path / "whole" / "last.ckpt")
    )
    assert (
        training.loss_curve(tmp_path / "parts")["val_loss"]
        == training.loss_curve(tmp_path / "whole")["val_loss"]
    )


def test_steps_since_the_last_checkpoint_are_repeated_exactly(tmp_path, monkeypatch):
    """Checkpoints are rarer than steps: kill later than the last one."""
    whole = train(tmp_path / "whole")
    monkeypatch.setattr(checkpoints, "EVERY", timedelta(microseconds=1))
    module = flow(kill_at=4)
    with pytest.raises(Killed):
        fit(module, batches(module), tmp_path / "parts", RUN)
    monkeypatch.setattr(checkpoints, "EVERY", timedelta(days=1))
    module = flow(kill_at=9)
    with pytest.raises(Killed):
        fit(module, batches(module), tmp_path / "parts", RUN)
    assert module.seen == [4, 5, 6, 7, 8]
    last = train(tmp_path / "parts")
    assert last.seen == list(range(4, 12))
    assert same(last.state_dict(), whole.state_dict())


def test_a_run_killed_before_its_first_checkpoint_starts_again(tmp_path):
    whole = train(tmp_path / "whole")
    module = flow(kill_at=0)
    with pytest.raises(Killed):
        fit(module, batches(module), tmp_path / "parts", RUN)
    assert same(train(tmp_path / "parts").state_dict(), whole.state_dict())


def test_a_finished_run_is_not_trained_again(tmp_path):
    first = train(tmp_path / "run")
    again = train(tmp_path / "run")
    assert again.seen == []
    assert same(again.state_dict(), first.state_dict())
    assert not again.training


def test_fit_ends_with_the_best_weights(tmp_path, saves_every_step):
    module = train(tmp_path / "run")
    assert same(module.state_dict(), weights_of(tmp_path / "run" / "best.ckpt"))
    curve = training.loss_curve(tmp_path / "run")["val_loss"]
    with torch.no_grad():
        (judged,) = batches(module).val_dataloader()
        loss = module.loss(judged, module.generator(-1))
    assert float(loss) == pytest.approx(min(value for _, value in curve), rel=1e-5)


def test_files_of_others_stay(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "big.iso.partial").touch()
    (tmp_path / "run" / "last.ckpt.7.partial").touch()
    train(tmp_path / "run")
    assert [file.name for file in (tmp_path / "run").glob("*.partial")] == ["big.iso.partial"]


def test_nothing_is_written_elsewhere(tmp_path):
    train(tmp_path / "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not list((tmp_path / "run").glob("*.partial"))


def test_a_folder_of_another_run_is_refused(tmp_path):
    module = flow()
    fit(module, batches(module), tmp_path / "run", RUN)
    with pytest.raises(
        ValueError, match=r"holds a run with seed = 0, not 1; choose another folder"
    ):
        fit(module, batches(module), tmp_path / "run", {**RUN, "seed": 1})
    with pytest.raises(ValueError, match=r"recipe.steps = 12, not 13"):
        fit(module, batches(module), tmp_path / "run", {**RUN, "recipe": {"steps": 13}})
    with pytest.raises(ValueError, match="extra"):
        fit(module, batches(module), tmp_path / "run", {**RUN, "extra": 1})


def test_a_loss_that_is_not_a_number_stops_and_spoils_no_checkpoint(tmp_path, saves_every_step):
    module = flow(loss=lambda step: math.nan if step == 7 else 1.0)
    with pytest.raises(
        FloatingPointError,
        match=r"loss is nan at step 7; .*last.ckpt, of an earlier step, is kept; train into another folder at a lower learning rate, such as --lr 0.0033",
    ):
        fit(module, batches(module), tmp_path / "run", RUN)
    for name in ("last.ckpt", "best.ckpt"):
        assert all(value.isfinite().all() for value in weights_of(tmp_path / "run" / name).values())
    assert not (tmp_path / "run" / "done.json").exists()


def test_weight_average_is_the_one_computed_by_hand(tmp_path, saves_every_step):
    """θ̄ₙ₊₁ = d θ̄ₙ + (1 − d) θ, d = min(0.5, (1 + n)/(10 + n)), beginning with the first weights."""
    trail = []

    class Module(FlowModule):
        def on_train_batch_end(self, *_):
            trail.append(
                {name: value.detach().clone() for name, value in self.state_dict().items()}
            )

    template = flow(ema=0.5)
    module = Module(template.network, template.path, template.optimization, **template.options)
    fit(module, batches(module), tmp_path / "run", RUN)
    assert len(trail) == 12
    average = trail[0]
    for n, weights in enumerate(trail[1:], start=1):
        decay = min(0.5, (1 + n) / (10 + n))
        average = {name: decay * average[name] + (1 - decay) * weights[name] for name in weights}
    saved = weights_of(tmp_path / "run" / "last.ckpt")
    assert all(torch.allclose(saved[name], average[name], rtol=0, atol=1e-6) for name in average)
    assert any(
        not torch.allclose(saved[name], trail[-1][name], rtol=0, atol=1e-4) for name in average
    )


def test_training_lowers_the_loss(tmp_path):
    """Five places, told by the condition."""
    x = sphere.fibonacci_grid(5)[torch.arange(100) % 5]
    cond = torch.eye(5)[torch.arange(100) % 5, :4]
    module = flow(steps=150, ema=0.9)
    fit(module, in_memory(module, (cond, x), (cond, x)), tmp_path / "run", RUN)
    curve = training.loss_curve(tmp_path / "run")
    assert curve["val_loss"][-1][1] < 0.5 * curve["val_loss"][0][1]
    assert [step for step, _ in curve["loss"]] == sorted({step for step, _ in curve["loss"]})
    (log,) = (tmp_path / "run").glob("log-*/metrics.csv")
    assert list(csv.DictReader(log.open()))
    assert json.loads((tmp_path / "run" / "done.json").read_text())["seconds"] > 0


def test_a_loss_curve_of_a_killed_or_damaged_run(tmp_path):
    """A last line that was cut off is not read, for a number in it may be cut too; anything else is named."""
    file = tmp_path / "log-1" / "metrics.csv"
    file.parent.mkdir()
    file.write_text("epoch,loss,step,val_loss\n0,1.25,9,\n0,,9,2.5\n0,1.125,19", encoding="utf-8")
    assert training.loss_curve(tmp_path) == {"loss": [(9, 1.25)], "val_loss": [(9, 2.5)]}
    for content in (
        b"epoch,loss,stop\n0,1,2\n",
        b"loss,step\nx,3\n",
        b"loss,step\n1,\n",
        b"\xff\xfe\n\n",
    ):
        file.write_bytes(content)
        with pytest.raises(ValueError, match=r"metrics.csv is damaged"):
            training.loss_curve(tmp_path)


def test_encoder_learns_where_tiles_are(tmp_path):
    """Colours that tell the place."""
    x = sphere.fibonacci_grid(8)[torch.arange(64) % 8]
    pixels = (127 + 120 * x).to(torch.uint8)[:, :, None, None].expand(-1, -1, 32, 32).contiguous()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        classifier = GeocellClassifier(TileEncoder(dim=16, width=4), 8)
    module = EncoderModule(classifier, Optimization(steps=40, batch=32, lr=1e-2, warmup=5))
    fit(module, in_memory(module, (pixels, x), (pixels, x)), tmp_path / "run", RUN)
    assert (
        module.classifier(pixels).argmax(-1) == module.classifier.cell_of(x)
    ).float().mean() > 0.8


# Optimisation


def test_learning_rate_warms_up_and_decays_to_zero():
    o = Optimization(steps=1000, batch=1, lr=1.0, warmup=100)
    factors = [o.lr_factor(step) for step in range(1001)]
    assert factors[0] == pytest.approx(0.01)
    assert max(factors) == pytest.approx(factors[99], abs=0.01)
    assert factors[500] == pytest.approx(0.5)
    assert factors[1000] == pytest.approx(0, abs=1e-12)
    assert all(a >= b for a, b in zip(factors[100:], factors[101:], strict=False))


def test_timing_leaves_the_module_alone():
    module = flow()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    assert training.seconds_per_step(module, batches(module), trials=2) > 0
    assert same(module.state_dict(), before)


@pytest.mark.parametrize(("most", "steps"), [(math.inf, 3), (1e-9, 1)], ids=["short", "long"])
def test_a_long_step_is_timed_once(monkeypatch, most, steps):
    module, calls = flow(), []
    monkeypatch.setattr(trainer, "LONG", most)
    monkeypatch.setattr(type(module), "loss", counted(type(module).loss, calls))
    training.seconds_per_step(module, batches(module), trials=2)
    assert len(calls) == steps


def counted(function, calls: list):
    def call(*arguments):
        calls.append(arguments)
        return function(*arguments)

    return call


@pytest.fixture
def measured(monkeypatch):
    """Batches whose step was timed; each is said to take 0.5 s."""
    seen = []

    def half_a_second(module, batches):
        seen.append(len(batches.example()[0]))
        return 0.5

    monkeypatch.setattr(runs, "seconds_per_step", half_a_second)
    return seen


def test_a_plan_grows_with_steps_images_and_the_batch_of_a_device(measured):
    recipe = read_recipe("osv5m", "smoke")
    longer, larger, plain = (copy.deepcopy(recipe) for _ in range(3))
    longer["flow"]["optimization"]["steps"] *= 3
    larger["images"] *= 10
    plain["flow"]["optimization"]["ema"] = 0.0
    one, three, ten = training.plan(recipe), training.plan(longer), training.plan(larger)
    assert one["seconds_per_step"] == pytest.approx(0.5)
    for name in ("hours", "steps", "samples", "epochs"):
        assert three[name] == pytest.approx(3 * one[name])
    for name, factor in {"shards_gb": 10, "unpacked_gb": 10, "epochs": 0.1, "hours": 1}.items():
        assert ten[name] == pytest.approx(factor * one[name])
    assert training.plan(plain)["state_gb"] == pytest.approx(0.8 * one["state_gb"])  # no average
    training.plan(recipe, devices=2)
    assert measured[-1] * 2 == measured[0]
    with pytest.raises(ValueError, match="a batch of 16 over 3 devices"):
        training.plan(recipe, devices=3)


@pytest.mark.parametrize(
    ("name", "parameters"), [("osv5m", 36_034_563), ("yfcc", 36_034_563), ("inat21", 9_153_539)]
)
def test_a_plan_counts_the_published_parameters(measured, name, parameters):
    assert training.plan(read_recipe(name, "paper"))["parameters"] == parameters


def scales_of_recipes():
    files = sorted(Path(training.recipes.__file__).parent.glob("*.yaml"))
    return [(file.stem, scale) for file in files for scale in yaml.safe_load(file.read_text())]


@pytest.mark.parametrize(("name", "scale"), scales_of_recipes())
def test_every_scale_of_every_recipe_is_complete(name, scale):
    """It has the keys of the smallest scale, and makes networks and optimisers."""
    recipe, smallest = read_recipe(name, scale), read_recipe(name, "smoke")
    only_some = {"events", "views", "methods"}  # of single event sets; of tiles; of single methods
    assert recipe.keys() - only_some == smallest.keys() - only_some
    assert recipe["flow"].keys() == smallest["flow"].keys()
    if name == "distil":  # the network and its schedule of steps are the teacher's
        module = training.modules.distilling_module(recipe, small_flow())
        assert module.optimization.optimizer_of(module.parameters()).defaults["lr"] > 0
        return
    schedules.by_name(recipe["sampling_schedule"])
    for method in flowmap.NETWORKS if "components" in recipe else ("riemannian",):
        with torch.device("meta"):  # the paper's networks take seconds and gigabytes
            module = training.network_module(recipe, method, 8)
        assert module.optimization.optimizer_of(module.parameters()).defaults["lr"] > 0
    if "encoder" in recipe:
        assert Optimization(**recipe["encoder"]["optimization"]).steps > 0


def test_a_recipe_may_state_other_settings_for_a_method():
    recipe = training.read_recipe("tiles", "laptop")
    recipe["methods"] = {"flow": {"schedule": "log", "optimization": {"lr": 0.5}}}
    plain, own = (training.network_module(recipe, method, 8) for method in ("riemannian", "flow"))
    assert (plain.optimization.lr, own.optimization.lr) == (2e-3, 0.5)
    assert own.optimization.steps == plain.optimization.steps
    assert own.options["schedule"] is schedules.by_name("log")
    assert plain.options["schedule"] is schedules.by_name("mixed")
    assert own.network.config["guess"] == "flow"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"flow": {"network": {"dept": 3}}}, "unknown option of a .* network 'dept' .*'depth'"),
        ({"flow": {"optimization": {"rate": 3}}}, "unknown setting of an optimization 'rate'"),
        ({"flow": {"shedule": "log"}}, "unknown setting of a recipe's flow 'shedule' .*'schedule'"),
        ({"flow": {"schedule": "logs"}}, "unknown schedule 'logs'"),
        ({"flow": {"network": {"clock": "log"}}}, "clock='log'; expected a finite number"),
        ({"methods": {"rieman": {}}}, "unknown method of a recipe 'rieman'"),
    ],
    ids=str,
)
def test_an_unknown_setting_of_a_recipe_is_named(change, message):
    recipe = training.read_recipe("tiles", "smoke")
    for name, value in change.pop("flow", {}).items():
        old = recipe["flow"].get(name)
        recipe["flow"][name] = old | value if isinstance(value, dict) else value
    with pytest.raises(ValueError, match=message):
        training.network_module(recipe | change, "riemannian", 8)


def test_bad_recipes():
    with pytest.raises(ValueError, match="unknown recipe 'osv5n'.*did you mean 'osv5m'"):
        read_recipe("osv5n", "paper")
    with pytest.raises(ValueError, match="unknown scale 'papers'.*did you mean 'paper'"):
        read_recipe("osv5m", "papers")
    with pytest.raises(ValueError, match="unknown optimizer 'lamp'.*did you mean 'lamb'"):
        Optimization(1, 1, 1.0, optimizer="lamp").optimizer_of([])


def test_devices_nodes_and_wandb_reach_lightning(tmp_path, monkeypatch):
    asked = {}

    class Wandb:
        def __init__(self, **options):
            asked["wandb"] = options

    def begin(**options):
        asked.update(options)
        raise Killed

    monkeypatch.setattr(trainer, "WandbLogger", Wandb)
    monkeypatch.setattr(trainer.L, "Trainer", begin)
    module, folder = flow(), tmp_path / "run" / "flow"
    with pytest.raises(Killed):
        fit(module, batches(module), folder, RUN, devices=3, nodes=2, wandb="maps")
    assert (asked["devices"], asked["num_nodes"], asked["strategy"]) == (3, 2, "ddp")
    assert asked["wandb"] == {"project": "maps", "name": "run", "save_dir": folder}
    assert any(isinstance(logger, Wandb) for logger in asked["logger"])


def test_wandb_that_is_not_installed_is_told(tmp_path, monkeypatch):
    def missing(**_options):
        raise ModuleNotFoundError("wandb")

    monkeypatch.setattr(trainer, "WandbLogger", missing)
    module = flow()
    with pytest.raises(ValueError, match="project 'maps', install it: pip install wandb"):
        fit(module, batches(module), tmp_path / "run", RUN, wandb="maps")


def test_public_names_are_found_where_scripts_look_for_them():
    for name in dir(training):
        assert getattr(training, name) is not None
    assert training.machine() == runtime.machine()
    from geoflow import cli, recipes

    assert cli.read_recipe is recipes.read_recipe is read_recipe
    assert callable(training.fit), "not the module in which it lies"


# The embedded data set, whole, in small


RECIPE = {
    "views": "north-up", "tiles": 40, "validation_tiles": 20, "components": 3,
    "encoder": {"tiles": 40, "dim": 16, "geocells": 20, "optimization": {"steps": 3, "batch": 16, "lr": 1e-3, "warmup": 1}},
    "flow": {"schedule": "linear", "draws": 2, "dropout": 0.1, "network": {"dim": 16, "depth": 1},
             "optimization": {"steps": 3, "batch": 16, "lr": 1e-3, "warmup": 1, "ema": 0.9}},
}  # fmt: skip


def test_tiles_pipeline(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "cache"))
    said = []
    network, encoder, provenance = training.train_tiles(RECIPE, tmp_path / "run", log=said.append)
    assert "training from scratch takes about" in said[0]
    assert network.config["cond_dim"] == encoder.dim == 16
    assert json.loads(json.dumps(provenance))["recipe"] == RECIPE
    monkeypatch.setattr(TileEncoder, "embed", None)  # a run that has ended embeds nothing
    again, _, _ = training.train_tiles(RECIPE, tmp_path / "run", log=said.append)
    assert same(again.state_dict(), network.state_dict())
    with pytest.raises(ValueError, match="holds a run with seed = 0, not 1"):
        training.train_tiles(RECIPE, tmp_path / "run", seed=1, log=said.append)


def test_every_method_is_trained_on_one_encoder(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "cache"))
    encoder = None
    for method in flowmap.NETWORKS:
        network, used, provenance = training.train_tiles(
            RECIPE, tmp_path / method, 0, method, encoder, log=lambda text: None
        )
        assert encoder is None or used is encoder
        encoder = used
        geo = Geolocator(network, method, "linear", encoder, provenance)
        assert geo.sample(cond=torch.zeros(1, 16), n=2, steps=2).isfinite().all()
        assert (tmp_path / method / "encoder").exists() == (method == "riemannian")
    with pytest.raises(ValueError, match="unknown method 'uniform'"):
        training.train_tiles(RECIPE, tmp_path / "run", 0, "uniform", encoder)


def small_flow(method="riemannian", width=16):
    network = training.network_module(RECIPE, method, width).network
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Geolocator(network, method, "sigmoid", TileEncoder(16, width=4))


def test_a_flow_map_is_distilled_from_a_flow_and_leaves_it_as_it_was(tmp_path, monkeypatch):
    monkeypatch.setenv("GEOFLOW_CACHE", str(tmp_path / "cache"))
    teacher, said = small_flow(), []
    before = copy.deepcopy(teacher.network.state_dict())
    geo = training.distil(teacher, RECIPE, tmp_path / "run", log=said.append)
    assert "3 steps" in said[0]
    assert same(teacher.network.state_dict(), before)
    assert (geo.method, geo.model.schedule_name) == ("flow-map", "sigmoid")
    assert geo.encoder is teacher.encoder
    kept = weights_of(tmp_path / "run" / "flow" / "best.ckpt")
    assert {name.split(".")[0] for name in kept} == {"network"}, "the teacher is not kept"
    monkeypatch.setattr(TileEncoder, "embed", None)  # a run that has ended embeds nothing
    again = training.distil(teacher, RECIPE, tmp_path / "run", log=said.append)
    assert same(again.network.state_dict(), geo.network.state_dict())
    assert "trained before" in said[-1]
    other = training.network_module(RECIPE, "riemannian", 16, 1).network
    with pytest.raises(ValueError, match="holds a run with teacher = "):
        training.distil(Geolocator(other, encoder=teacher.encoder), RECIPE, tmp_path / "run")


@pytest.mark.parametrize(
    ("method", "said"),
    [
        ("vmf", "'vmf', which has no velocity; expected a flow on S²"),
        ("flow", "'flow', whose states"),
    ],
)
def test_a_teacher_needs_a_velocity_on_the_sphere(tmp_path, method, said):
    with pytest.raises(ValueError, match=said):
        training.distil(small_flow(method), RECIPE, tmp_path)


def test_settings_of_other_methods_do_not_identify_a_run():
    recipe = training.read_recipe("tiles", "laptop")
    plain = {name: value for name, value in recipe.items() if name != "methods"}
    assert training.modules.recipe_of(recipe, "riemannian") == plain
    own = training.modules.recipe_of(recipe, "flow-map")
    assert own["flow"]["optimization"] == {
        **plain["flow"]["optimization"],
        "steps": 2800,
        "lr": 1e-3,
        "batch": 384,
        "ema": 0.995,
    }
    assert own["flow"]["draws"] == 8


def test_an_unconditional_flow_learns_where_points_are(tmp_path, generator):
    """Points around one place: the density there rises above the uniform one, and the same run again trains nothing."""
    pole = torch.tensor([0.0, 0.0, 1.0])
    x = sphere.unit(pole + 0.3 * torch.randn(400, 3, generator=generator))
    recipe, said = read_recipe("earth-events", "smoke"), []
    network, seconds = training.train_points(recipe, x[:300], x[300:], tmp_path, log=said.append)
    geo = Geolocator(network, schedule="linear")
    assert -float(geo.log_prob(sphere.to_latlon(x[300:])).mean()) < 2.0
    assert "300 points, 40 steps" in said[0]
    again, same = training.train_points(recipe, x[:300], x[300:], tmp_path, log=said.append)
    assert all(
        torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True)
    )
    assert same == seconds > 0
    with pytest.raises(ValueError, match="holds a run with points"):
        training.train_points(recipe, x[:299], x[300:], tmp_path, log=said.append)
