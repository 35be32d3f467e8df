"""Checkpoints: whole after any kill, the one before in place of a damaged one, and nothing in them is executed."""

import json
import math
import os
import pickle
import resource
import shutil
import signal
import time
from datetime import timedelta

import pytest
import synthetic
import torch
from trainings import RUN, Killed, batches, flow, same, train, train_and_hang, weights_of

from geoflow import runtime, training
from geoflow.training import checkpoints, fit
from geoflow.training.interruptions import Terminated, terminated_by_sigterm


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("CI", "1")
    monkeypatch.setattr(checkpoints, "EVERY", timedelta(0))
    monkeypatch.chdir(tmp_path)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background
    yield
    signal.signal(signal.SIGINT, before)


def test_a_signal_that_is_ignored_stays_so(tmp_path):
    """As in a job in the background, which a Ctrl-C elsewhere must not end."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    killer = lambda: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    assert train(tmp_path / "run", kill_at=4, killer=killer).seen == list(range(12))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "EVERY", timedelta(0))
        folder = tmp_path_factory.mktemp("whole")
        train(folder)
    return folder


def interrupted(folder, step=6, **options):
    module = flow(kill_at=step, **options)
    with pytest.raises(Killed):
        fit(module, batches(module), folder, RUN)


def same_run(folder, whole):
    """Weights, best weights and loss curve are those of the run without an interruption."""
    return (
        same(weights_of(folder / "last.ckpt"), weights_of(whole / "last.ckpt"))
        and same(weights_of(folder / "best.ckpt"), weights_of(whole / "best.ckpt"))
        and training.loss_curve(folder)["val_loss"] == training.loss_curve(whole)["val_loss"]
    )


# Kills


@pytest.mark.parametrize("moment", ["written", "renamed"])
@pytest.mark.parametrize(("name", "number"), [("last", 1), ("last", 7), ("best", 1), ("best", 2)])
def test_a_kill_in_the_middle_of_a_write_loses_nothing(tmp_path, whole, name, moment, number):
    folder = tmp_path / "run"
    arguments = (folder, name, moment, number)
    process = synthetic.FORKS.Process(target=train_and_hang, args=arguments)
    process.start()
    while process.is_alive() and not (tmp_path / "hanging").exists():
        time.sleep(0.01)
    assert process.is_alive(), "it ended before it could be killed"
    process.kill()
    process.join()
    there = any(folder.glob("last*.ckpt"))
    said = []
    train(folder, said.append)
    assert same_run(folder, whole)
    assert any("goes on at step" in line for line in said) == there
    assert not any("damaged" in line for line in said)
    assert not list(folder.glob("*.partial"))


@pytest.mark.parametrize("error", ["No space left on device", "File too large"])
def test_a_full_disk_keeps_the_checkpoint_before(tmp_path, whole, monkeypatch, error):
    """At the ninth write: the disk says so when the file is flushed, or a limit when it is written."""
    write, fsync, written = checkpoints.write, os.fsync, []

    def full(state, file):
        written.append(file)
        if len(written) == 9 and error == "File too large":
            limit = resource.getrlimit(resource.RLIMIT_FSIZE)
            handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit[1]))
            try:
                write(state, file)
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, limit)
                signal.signal(signal.SIGXFSZ, handler)
        write(state, file)

    def flush(descriptor):
        if len(written) == 9 and error == "No space left on device":
            raise OSError(28, error)
        fsync(descriptor)

    monkeypatch.setattr(checkpoints, "write", full)
    monkeypatch.setattr(os, "fsync", flush)
    folder = tmp_path / "run"
    expected = rf"(last|best).ckpt could not be written: {error}; the checkpoint before it is kept"
    with pytest.raises(OSError, match=expected):
        train(folder)
    assert not list(folder.glob("*.partial"))
    train(folder)
    assert same_run(folder, whole)


@pytest.mark.parametrize(
    "writer",
    [
        "lightning.fabric.loggers.csv_logs._ExperimentWriter.save",
        "tensorboard.summary.writer.record_writer.RecordWriter.write",
    ],
)
def test_a_full_disk_that_a_log_meets_is_told(tmp_path, whole, monkeypatch, capfd, writer):
    def full(*_):
        raise OSError(28, "No space left on device")

    folder = tmp_path / "run"
    interrupted(folder, 6)
    monkeypatch.setattr(writer, full)
    expected = (
        r"the training in .*run cannot write: No space left on device; its checkpoints are kept"
    )
    with pytest.raises(OSError, match=expected):
        train(folder)
    assert "Traceback" not in capfd.readouterr().err
    monkeypatch.undo()
    train(folder)
    assert same(weights_of(folder / "best.ckpt"), weights_of(whole / "best.ckpt"))


def test_a_disk_without_room_for_the_checkpoints_is_told_before(tmp_path, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda _: type("Usage", (), {"free": 1000}))
    with pytest.raises(OSError, match=r"MB are needed in .*run, 0.0 MB are free; choose another"):
        train(tmp_path / "run")


# Interruptions


@pytest.mark.parametrize("step", [0, 5, 11])
def test_ctrl_c_keeps_the_step_under_way(tmp_path, whole, step):
    """At any step, validated or not; the last one is then the end of the training."""
    folder, handler = tmp_path / "run", signal.getsignal(signal.SIGINT)
    killer = lambda: os.kill(os.getpid(), signal.SIGINT)  # noqa: E731
    with pytest.raises(KeyboardInterrupt, match=rf"step {step + 1} of 12 is kept in .*last.ckpt"):
        train(folder, kill_at=step, killer=killer)
    assert signal.getsignal(signal.SIGINT) is handler
    assert not (folder / "done.json").exists()
    said = []
    again = train(folder, said.append)
    assert said == [f"{folder}: goes on at step {step + 1} of 12"]
    assert again.seen == list(range(step + 1, 12))
    assert same_run(folder, whole)


def test_a_run_validated_at_some_steps_is_kept_at_any(tmp_path, monkeypatch):
    """It validates at the same steps, and knows the lowest loss: 45 steps, validated at every second, saved when interrupted."""
    monkeypatch.setattr(checkpoints, "EVERY", timedelta(days=1))
    train(tmp_path / "whole", steps=45)
    for step in (0, 7, 44):
        folder, killer = tmp_path / str(step), lambda: os.kill(os.getpid(), signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            train(folder, steps=45, kill_at=step, killer=killer)
        train(folder, steps=45)
        curves = [training.loss_curve(run)["val_loss"] for run in (folder, tmp_path / "whole")]
        assert curves[0] == curves[1]
        bests = [weights_of(run / "best.ckpt") for run in (folder, tmp_path / "whole")]
        assert same(*bests)


def test_sigterm_ends_a_training_as_ctrl_c_does(tmp_path, whole):
    with pytest.raises(Terminated, match="step 5 of 12 is kept"):
        train(tmp_path / "run", kill_at=4, killer=lambda: os.kill(os.getpid(), signal.SIGTERM))
    train(tmp_path / "run")
    assert same_run(tmp_path / "run", whole)


def test_a_repeated_sigterm_does_not_disturb_the_first(tmp_path):
    def twice():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(Terminated, match="step 5 of 12 is kept"):
        train(tmp_path / "run", kill_at=4, killer=twice)


def test_a_signal_before_the_first_step_leaves_no_handler(tmp_path):
    """Lightning, which ignores further Ctrl-C after one, has not begun to train."""

    class Module(type(flow())):
        def on_fit_start(self):
            raise Terminated

    template, handler = flow(), signal.getsignal(signal.SIGINT)
    module = Module(template.network, template.path, template.optimization, **template.options)
    with pytest.raises(Terminated):
        fit(module, batches(module), tmp_path / "run", RUN)
    assert signal.getsignal(signal.SIGINT) is handler


def test_a_second_ctrl_c_stops_at_once(tmp_path, whole):
    def twice():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(10)  # the signals are seen before

    handler = signal.getsignal(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", kill_at=6, killer=twice)
    assert signal.getsignal(signal.SIGINT) is handler
    said = []
    train(tmp_path / "run", said.append)
    assert "goes on at step 6 of 12" in said[0]
    assert same_run(tmp_path / "run", whole)


# Early stopping


def test_a_training_that_no_longer_improves_ends(tmp_path):
    """The loss grows from step 4 on: with a patience of 3 it ends at step 7, with the weights of step 4, however often it is interrupted."""
    said, options = (
        [],
        {"steps": 20, "patience": 3, "loss": lambda step: 1.0 if step <= 4 else 10.0},
    )
    train(tmp_path / "whole", said.append, **options)
    assert said == [
        "stopped early, at step 7 of 20: the validation loss has not fallen since step 4, whose weights are kept"
    ]
    ended = json.loads((tmp_path / "whole" / "done.json").read_text(encoding="utf-8"))
    assert (ended["step"], ended["best_step"]) == (7, 4)
    assert torch.load(tmp_path / "whole" / "best.ckpt", weights_only=True)["global_step"] == 4
    for step in (4, 6):
        interrupted(tmp_path / str(step), step, **options)
        train(tmp_path / str(step), said.append, **options)
        assert same_run(tmp_path / str(step), tmp_path / "whole")
    (tmp_path / "whole" / "done.json").unlink()  # killed just before it
    train(tmp_path / "whole", said.append, **options)
    again = json.loads((tmp_path / "whole" / "done.json").read_text(encoding="utf-8"))
    assert (again["step"], again["best_step"]) == (7, 4)


# Damage


def flip(share):
    """Change a bit of a weight."""

    def damage(file):
        weights = list(torch.load(file, weights_only=True)["state_dict"].values())
        bits = weights[int(share * len(weights))].numpy().tobytes()
        file.write_bytes(file.read_bytes().replace(bits, bytes([bits[0] ^ 1]) + bits[1:]))

    return damage


def spoil(change):
    """Write a checkpoint anew after a change of its state."""

    def damage(file):
        state = torch.load(file, weights_only=True)
        change(state)
        torch.save(state, file)

    return damage


NAN = spoil(lambda state: next(iter(state["state_dict"].values())).fill_(float("nan")))
INTEGERS = spoil(
    lambda s: s["state_dict"].update({k: v.long() for k, v in s["state_dict"].items()})
)
DAMAGES = {
    "empty": lambda file: file.write_bytes(b""),
    "cut": lambda file: file.write_bytes(file.read_bytes()[:-500]),
    "zeros": lambda file: file.write_bytes(bytes(file.stat().st_size)),
    "text": lambda file: file.write_text("no checkpoint", encoding="utf-8"),
    "another kind": lambda file: torch.save([1, 2], file),
    "nothing in it": lambda file: torch.save({}, file),
    "nan": NAN,
    "integers": INTEGERS,
    "other weights": spoil(lambda state: state["state_dict"].popitem()),
    "other shapes": spoil(
        lambda s: s["state_dict"].update({k: v[None] for k, v in s["state_dict"].items()})
    ),
    "negative step": spoil(lambda s: s.update(global_step=-1)),
    "absurd step": spoil(lambda s: s.update(global_step=10**18)),
    "step beyond the end": spoil(lambda s: s.update(global_step=13)),
    "step as a text": spoil(lambda s: s.update(global_step="6")),
    "step as a tensor": spoil(lambda s: s.update(global_step=torch.tensor(6))),
    "no optimiser": spoil(lambda s: s.update(optimizer_states=[])),
    "no step": spoil(lambda s: s.pop("global_step")),
    "optimiser": spoil(lambda s: s["optimizer_states"][0]["state"][0]["exp_avg"].fill_(torch.inf)),
    "a bit of the first weight": flip(0),
    "a bit of a weight": flip(0.5),
}


@pytest.fixture(scope="module")
def stopped(tmp_path_factory):
    """The folder of a run that was stopped before step 6."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "EVERY", timedelta(0))
        folder = tmp_path_factory.mktemp("stopped") / "run"
        interrupted(folder, 6)
    return folder


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_checkpoint_gives_way_to_the_one_before(tmp_path, stopped, damage):
    shutil.copytree(stopped, tmp_path / "run")
    file, said, module = tmp_path / "run" / "last.ckpt", [], flow()
    needed = {"state_dict": module.state_dict(), "global_step": range(13), "loops": dict}
    needed["optimizer_states"] = list
    assert checkpoints.newest(file, needed, said.append)[1]["global_step"] == 6
    assert said == []
    damage(file)
    place, state = checkpoints.newest(file, needed, said.append)
    assert (place.name, state["global_step"]) == ("last.previous.ckpt", 5)
    assert said[0].startswith(str(file)) and "\n" not in said[0]
    assert said[0].endswith("The one before it, last.previous.ckpt of step 5, is used")
    damage(place)
    expected = r"last.ckpt .* and .*last.previous.ckpt .*; delete .*run to train anew"
    with pytest.raises(ValueError, match=expected) as error:
        checkpoints.newest(file, needed)
    assert "\n" not in str(error.value)
    assert file.exists() and place.exists()
    place.unlink()
    with pytest.raises(ValueError, match=r"last.ckpt .*; delete .*run to train anew"):
        checkpoints.newest(file, needed)


def test_a_run_goes_on_from_the_checkpoint_before(tmp_path, stopped, whole):
    folder, said = tmp_path / "run", []
    shutil.copytree(stopped, folder)
    DAMAGES["cut"](folder / "last.ckpt")
    assert train(folder, said.append).seen == list(range(5, 12))
    assert "last.ckpt is damaged" in said[0]
    assert said[1].endswith("goes on at step 5 of 12")
    assert same_run(folder, whole)


STEP = (
    "loops",
    "fit_loop",
    "epoch_loop.automatic_optimization.optim_progress",
    "optimizer",
    "step",
    "total",
)


@pytest.mark.parametrize(
    ("where", "value"),
    [
        ((*STEP, "completed"), 5), ((*STEP, "completed"), -1), ((*STEP, "completed"), "x"), ((*STEP, "ready"), None), (("loops", "fit_loop", "epoch_loop.batch_progress"), []),
        (("loops", "fit_loop"), {}), (("callbacks", "Checkpoints", "best"), "low"), (("callbacks", "Checkpoints", "best"), math.nan), (("callbacks", "Checkpoints", "waited"), None),
        (("TensorBatches", "step"), 5), (("TensorBatches", "step"), "6"), (("TensorBatches", "seconds"), -1.0), (("TensorBatches", "seconds"), math.inf),
        (("optimizer_states", 0, "state", 0), "x"), (("optimizer_states", 0, "param_groups", 0), {}), (("lr_schedulers",), [7]),
    ],
)  # fmt: skip
def test_absurd_parts_of_a_checkpoint_are_named(tmp_path, stopped, where, value):
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    state = torch.load(folder / "last.ckpt", weights_only=True)
    part = state
    for key in where[:-1]:
        part = part[key]
    part[where[-1]] = value
    torch.save(state, folder / "last.ckpt")
    expected = (
        r"last.ckpt is damaged: no step follows it \(.*\); delete it to go on from the one before"
    )
    with pytest.raises(ValueError, match=expected) as error:
        train(folder)
    assert "\n" not in str(error.value)
    (folder / "last.ckpt").unlink()
    assert train(folder).seen == list(range(5, 12))


def test_the_one_before_outlives_a_damaged_checkpoint(tmp_path, stopped, whole):
    """It is not replaced by the damaged one: interrupted again after one more step, both are whole."""
    folder = tmp_path / "run"
    shutil.copytree(stopped, folder)
    DAMAGES["zeros"](folder / "last.ckpt")
    interrupted(folder, 6)
    assert {checkpoints.read(file)["global_step"] for file in folder.glob("last*.ckpt")} == {5, 6}
    train(folder)
    assert same_run(folder, whole)


def test_a_damaged_best_of_a_finished_run_is_told(tmp_path, whole):
    folder, said = tmp_path / "run", []
    shutil.copytree(whole, folder)
    lost = r"best.ckpt, the best weights of this finished training, is gone or damaged; .*delete "
    DAMAGES["a bit of a weight"](folder / "best.ckpt")
    with pytest.raises(OSError, match=lost):  # the ones before are worse: no model is made of them
        train(folder, said.append)
    (folder / "best.ckpt").unlink()
    with pytest.raises(OSError, match=lost):
        train(folder)
    (folder / "best.previous.ckpt").unlink()
    with pytest.raises(OSError, match=lost):
        train(folder)


@pytest.mark.parametrize("name", ["run.json", "done.json"])
@pytest.mark.parametrize(
    "content", ["", "{", "[]", "null", "7", '{"seconds": "x"}', '{"seconds": 1']
)
def test_damaged_descriptions_are_named(tmp_path, whole, name, content):
    shutil.copytree(whole, tmp_path / "run")
    (tmp_path / "run" / name).write_text(content, encoding="utf-8")
    with pytest.raises(ValueError, match=rf"{name} is damaged|holds a run with") as error:
        train(tmp_path / "run")
    assert "\n" not in str(error.value)


# Nothing is executed


class Payload:
    """Unpickling it writes a file."""

    def __init__(self, file):
        self.file = file

    def __reduce__(self):
        return os.system, (f"touch {self.file}",)


def hide(state, payload):
    """A payload in each place of a checkpoint where one could be."""
    yield payload
    yield {"state_dict": payload}
    yield {**state, "hyper_parameters": payload}
    yield {**state, "callbacks": {"Checkpoints": payload}}
    yield {**state, "state_dict": {**state["state_dict"], "weight": payload}}


@pytest.mark.parametrize("where", range(5))
@pytest.mark.parametrize("form", ["zip", "legacy", "pickle"])
def test_a_payload_does_not_run(tmp_path, stopped, where, form):
    file, proof = tmp_path / "last.ckpt", tmp_path / "proof"
    state = torch.load(stopped / "last.ckpt", weights_only=True)
    spoilt = list(hide(state, Payload(proof)))[where]
    if form == "pickle":
        file.write_bytes(pickle.dumps(spoilt))
    else:
        torch.save(spoilt, file, _use_new_zipfile_serialization=form == "zip")
    expected = {"zip": "not a checkpoint of geoflow: it holds more than tensors"}.get(
        form, "damaged"
    )
    with pytest.raises(ValueError, match=rf"last.ckpt is {expected}") as error:
        checkpoints.read(file)
    assert "\n" not in str(error.value)
    assert not proof.exists()
    if form == "pickle":
        pickle.loads(file.read_bytes())  # it would have
    else:
        torch.load(file, weights_only=False)
    assert proof.exists()


@pytest.mark.parametrize("name", ["last", "best"])
def test_a_payload_in_a_run_does_not_run(tmp_path, stopped, whole, name):
    folder, proof = tmp_path / "run", tmp_path / "proof"
    shutil.copytree({"last": stopped, "best": whole}[name], folder)
    for file in folder.glob(f"{name}*.ckpt"):
        state = torch.load(file, weights_only=True)
        torch.save({**state, "hyper_parameters": Payload(proof)}, file)
    with pytest.raises(
        ValueError, match=f"{name}.ckpt is not a checkpoint of geoflow: it holds more"
    ):
        train(folder)
    assert not proof.exists()


def test_checkpoints_of_earlier_versions_are_resumed(tmp_path, whole):
    """They held the state of Lightning's own callback, with the lowest loss."""
    folder = tmp_path / "run"
    interrupted(folder, 6)
    state = torch.load(folder / "last.ckpt", weights_only=True)
    (ours,) = (value for key, value in state["callbacks"].items() if key.startswith("Checkpoints"))
    keys = "{'monitor': 'val_loss', 'mode': 'min', 'every_n_train_steps': 0, 'every_n_epochs': 1, 'train_time_interval': None}"
    state["callbacks"] = {
        f"ModelCheckpoint{keys}": {
            "monitor": "val_loss",
            "best_model_score": torch.tensor(ours["best"]),
            "dirpath": "x",
        },
        "ModelCheckpoint{'monitor': None}": {"best_model_score": None},
        **{
            key: value
            for key, value in state["callbacks"].items()
            if not key.startswith("Checkpoints")
        },
    }
    torch.save(state, folder / "last.ckpt")
    train(folder)
    assert same_run(folder, whole)


def test_a_folder_that_was_moved_goes_on(tmp_path, whole):
    interrupted(tmp_path / "run", 6)
    (tmp_path / "run").rename(tmp_path / "moved")
    train(tmp_path / "moved")
    assert same_run(tmp_path / "moved", whole)


def test_two_trainings_into_one_folder(tmp_path):
    train(tmp_path / "run")
    with (
        runtime.alone(tmp_path / "run"),
        pytest.raises(OSError, match="another geoflow command writes to"),
    ):
        train(tmp_path / "run")


def test_a_hang_up_ends_a_command_as_sigterm_does_unless_it_is_ignored():
    with pytest.raises(Terminated), terminated_by_sigterm():
        os.kill(os.getpid(), signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as under nohup
    with terminated_by_sigterm():
        os.kill(os.getpid(), signal.SIGHUP)
    assert signal.signal(signal.SIGHUP, before) is signal.SIG_IGN


def test_a_hang_up_takes_the_terminal_with_it(tmp_path, whole, monkeypatch):
    """What is printed goes nowhere then, and the step is kept all the same."""

    class Gone:
        def write(self, _):
            raise OSError(5, "Input/output error")

    def hang_up():
        monkeypatch.setattr("sys.stderr", Gone())
        os.kill(os.getpid(), signal.SIGHUP)

    with pytest.raises(Terminated, match="step 5 of 12 is kept"):
        train(tmp_path / "run", kill_at=4, killer=hang_up)
    monkeypatch.undo()
    monkeypatch.setenv("CI", "1")
    monkeypatch.setattr(checkpoints, "EVERY", timedelta(0))
    train(tmp_path / "run")
    assert same_run(tmp_path / "run", whole)
