"""Checkpoints: saved models come back the same, damaged files are named, shipped models answer as they did in earlier versions."""

import json
import pickle
import resource
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from small import model as make
from small import picture, samples_in_double

from geoflow import Geolocator, checkpoint, methods, runtime, sphere


@pytest.fixture(scope="module")
def geo():
    return make()


# Saving and loading


@pytest.fixture
def folder(geo, tmp_path):
    return geo.save_pretrained(tmp_path / "model")


def test_saved_model_gives_identical_samples(geo, folder):
    again = Geolocator.from_pretrained(folder)
    assert sorted(path.name for path in folder.iterdir()) == ["config.json", "model.safetensors"]
    assert [path.name for path in folder.parent.iterdir()] == ["model"]
    image = picture()
    assert torch.equal(again.sample(image, n=50, seed=0), geo.sample(image, n=50, seed=0))
    assert torch.equal(
        again.log_prob(torch.zeros(1, 2), image), geo.log_prob(torch.zeros(1, 2), image)
    )
    assert (again.method, again.model.schedule_name, again.provenance) == (
        geo.method,
        geo.model.schedule_name,
        geo.provenance,
    )
    assert Geolocator.from_pretrained(str(folder), method="riemannian").method == "riemannian"


def test_model_without_encoder_is_saved(tmp_path, cond):
    bare = make(encoder=False, schedule="skewed-sigmoid")
    again = Geolocator.from_pretrained(bare.save_pretrained(tmp_path / "deep" / "model"))
    assert again.encoder is None
    assert torch.equal(again.sample(cond=cond, n=5, seed=0), bare.sample(cond=cond, n=5, seed=0))


def test_saving_replaces_a_model_and_nothing_else(geo, folder, tmp_path, cond):
    other = make(seed=1)
    other.save_pretrained(folder)
    assert torch.equal(
        Geolocator.from_pretrained(folder).sample(cond=cond, n=5, seed=0),
        other.sample(cond=cond, n=5, seed=0),
    )
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="thesis holds other files"):
        geo.save_pretrained(tmp_path / "thesis")
    assert (tmp_path / "thesis" / "chapter.tex").read_text() == "years of work"


def test_an_encoder_that_a_shipped_model_has_is_named_and_not_written_again(geo, shipped, tmp_path):
    model = shipped("tiles-vmf")
    folder = model.save_pretrained(tmp_path / "vmf", encoder_of="tiles")
    assert json.loads((folder / "config.json").read_text())["encoder"] == "tiles"
    assert not any(name.startswith("encoder.") for name in load_file(folder / "model.safetensors"))
    again = Geolocator.from_pretrained(folder)
    assert torch.equal(again.embed(picture(32)), model.embed(picture(32)))
    with pytest.raises(ValueError, match="the encoder is not that of 'tiles'"):
        geo.save_pretrained(tmp_path / "other", encoder_of="tiles")
    assert not (tmp_path / "other").exists()


def test_missing_models(tmp_path):
    with pytest.raises(FileNotFoundError, match="no model folder at .*nowhere"):
        Geolocator.from_pretrained(tmp_path / "nowhere")
    with pytest.raises(ValueError, match="unknown model 'tyles'"):
        Geolocator.from_pretrained("tyles")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"config\.json is missing"):
        Geolocator.from_pretrained(tmp_path / "empty")


@pytest.mark.parametrize("name", ["best.ckpt", "model.safetensors", "pytorch_model.bin"])
def test_a_file_is_no_model_folder(tmp_path, name):
    (tmp_path / name).write_bytes(b"x")
    with pytest.raises(ValueError, match=rf"{name} is a file; expected a folder of config\.json"):
        Geolocator.from_pretrained(tmp_path / name)


def test_unknown_model_suggests_the_nearest(monkeypatch, tmp_path, geo):
    monkeypatch.setattr(runtime, "DATA", tmp_path)
    geo.save_pretrained(tmp_path / "models" / "tiles")
    assert checkpoint.shipped_models() == ["tiles"]
    assert Geolocator.from_pretrained("tiles").method == "riemannian"
    with pytest.raises(ValueError, match="unknown model 'tyles' .did you mean 'tiles'"):
        Geolocator.from_pretrained("tyles")


def test_a_folder_without_weights(folder):
    (folder / "model.safetensors").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors is missing"):
        Geolocator.from_pretrained(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("config.json", b"{"), ("config.json", b"[]"), ("config.json", b'{"format": 1}'), ("config.json", b"\xff\xfe\x00"), ("config.json", b""),
        ("model.safetensors", b"garbage"), ("model.safetensors", b""), ("model.safetensors", None),
    ],
)  # fmt: skip
def test_damaged_files_are_named(folder, name, content):
    file = folder / name
    file.write_bytes(file.read_bytes()[:-100] if content is None else content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        Geolocator.from_pretrained(folder)


def edit(folder, **changes):
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **changes}))


def test_models_of_another_method_or_version(folder):
    with pytest.raises(ValueError, match="unknown method 'riemann' .did you mean 'riemannian'"):
        Geolocator.from_pretrained(folder, method="riemann")
    edit(folder, method="flows")
    with pytest.raises(ValueError, match="'flows'"):
        Geolocator.from_pretrained(folder)
    with pytest.raises(ValueError, match="is a 'flows' model; method='riemannian' was asked for"):
        Geolocator.from_pretrained(folder, method="riemannian")
    edit(folder, format=2)
    with pytest.raises(ValueError, match="has format 2; this version reads 1"):
        Geolocator.from_pretrained(folder)


def test_weights_that_do_not_fit_the_config(folder, tmp_path):
    shutil.copytree(folder, tmp_path / "copy")
    weights = load_file(folder / "model.safetensors")
    save_file({**weights, "network.head.bias": torch.zeros(4)}, folder / "model.safetensors")
    with pytest.raises(
        ValueError, match=r"network\.head\.bias has \(4,\), the config expects \(3,\)"
    ):
        Geolocator.from_pretrained(folder)
    del weights["encoder.body.5.bias"]
    save_file(weights, tmp_path / "copy" / "model.safetensors")
    with pytest.raises(ValueError, match=r"encoder\.body\.5\.bias has nothing"):
        Geolocator.from_pretrained(tmp_path / "copy")


def test_configs_that_do_not_fit_the_network(folder):
    edit(folder, network={"cond_dim": 8, "width": 32})
    with pytest.raises(ValueError, match=r"config\.json"):
        Geolocator.from_pretrained(folder)


ABSURD = [
    ("network", {"dim": 10**9}), ("network", {"dim": 1e9}), ("network", {"dim": -32}), ("network", {"dim": 0}), ("network", {"dim": "32"}), ("network", {"dim": None}),
    ("network", {"dim": 33}), ("network", {"dim": True}), ("network", {"dim": [32]}), ("network", {"depth": 10**9}), ("network", {"depth": -1}), ("network", {"depth": 2.0}),
    ("network", {"fourier": -1}), ("network", {"fourier": 10**12}), ("network", {"fourier_scale": float("nan")}), ("network", {"fourier_scale": "4"}), ("network", {"octaves": 1e6}), ("network", {"octaves": "9"}), ("network", {"octaves": -1}),
    ("network", {"time_scale": float("inf")}), ("network", {"time_scale": 0}), ("network", {"time_scale": -1e300}), ("network", {"cond_dim": 10**9}), ("network", {"cond_dim": -8}),
    ("network", {"expansion": 10**6}), ("network", {"expansion": 0}), ("network", {"tangent": False}), ("network", {"tangent": "yes"}),
    ("encoder", {"dim": 10**9}), ("encoder", {"dim": 1e9}), ("encoder", {"width": 10**9}), ("encoder", {"width": 0}), ("encoder", {"width": -4}), ("encoder", {"name": "tyles"}),
    ("encoder", {"name": 3}), ("encoder", {"name": None}), ("encoder", {"name": ["tiles"]}),
]  # fmt: skip


@pytest.mark.parametrize(("part", "change"), ABSURD, ids=str)
def test_absurd_settings_are_named_and_take_no_memory(folder, part, change):
    (name,) = change
    config = json.loads((folder / "config.json").read_text())
    edit(folder, **{part: config[part] | change})
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        ValueError, match=rf"config\.json.*{'encoder' if name == 'name' else name}"
    ) as error:
        Geolocator.from_pretrained(folder)
    assert "\n" not in str(error.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def test_a_network_that_is_large_within_bounds_takes_no_memory_before_its_weights_are_seen(folder):
    """6 terabytes, if it were built."""
    config = json.loads((folder / "config.json").read_text())
    edit(folder, network=config["network"] | {"dim": 16_384, "depth": 400, "expansion": 32})
    with pytest.raises(ValueError, match=r"model\.safetensors: weight network\.blocks"):
        Geolocator.from_pretrained(folder)


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"encoder": {"dim": 8, "width": 4}}, "unknown encoder ''"), ({"encoder": []}, r"encoder = \[\]; expected an object, a text or null$"), ({"encoder": "nowhere"}, "unknown model whose encoder is used 'nowhere'"),
        ({"encoder": "../model"}, "unknown model whose encoder is used"), ({"encoder": {"name": "tiles", "dim": 8, "width": 4, "colour": 1}}, r"unknown option in .*config\.json: 'colour'; expected one of 'dim', 'width', 'name'$"), ({"encoder": None}, r"weights that the config lacks: encoder\."),
        ({"method": 3}, "method = 3; expected a text$"), ({"method": None}, "method = None"), ({"schedule": "lineal"}, "unknown schedule 'lineal'.*did you mean 'linear'"), ({"schedule": 1}, "schedule = 1"),
        ({"network": [8]}, r"network = \[8\]; expected an object$"), ({"network": {}}, r"config\.json: cond_dim is missing; expected a whole number from 0 to 65536$"), ({"network": {}, "method": "vmf", "encoder": None}, r"cond_dim is missing; expected a whole number from 0"), ({"provenance": "me"}, "provenance = 'me'"), ({"tempo": 3, "mood": 1}, "does not know: mood, tempo"),
        ({"format": "1"}, "has format '1'"), ({"format": [1]}, "has format"), ({"averaged": True, "method": "vmf"}, "config.json"),
        ({"averaged": "false"}, "averaged = 'false'; expected true or false"), ({"averaged": 3}, "averaged = 3"), ({"format": True}, "has format True"),
        ({"provenance": {"recipe": 5}}, r"provenance\.recipe = 5; expected an object$"), ({"provenance": {"recipe": None}}, r"provenance\.recipe = None; expected an object$"),
        ({"averaged": True, "network": {"cond_dim": 8, "dim": 16, "path": 1}}, r"unknown option in .*config\.json: 'path'.*; expected one of 'cond_dim', 'dim'"),
        ({"encoder": {"name": "dinov2", "source": [1]}}, r"encoder 'dinov2' with source = \[1\]; expected the path of a folder, a text$"), ({"encoder": {"name": "dinov2", "source": ""}}, "source = ''; expected the path"), ({"encoder": {"name": "streetclip", "width": 8}}, "'width'; expected one of 'source', 'name'$"),
    ],
)  # fmt: skip
def test_settings_of_the_wrong_kind_are_named(folder, changes, match):
    edit(folder, **changes)
    with pytest.raises(ValueError, match=match) as error:
        Geolocator.from_pretrained(folder)
    assert str(folder) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda w: w.to(torch.int64), r"holds torch.int64; expected torch.float32"), (lambda w: w.to(torch.bool), "holds torch.bool"), (lambda w: w.to(torch.complex64), "complex64"),
        (lambda w: torch.full_like(w, torch.nan), "holds numbers that are not finite"), (lambda w: w + torch.inf, "not finite"), (lambda w: torch.full_like(w, 1e300, dtype=torch.float64), "not finite"),
        (lambda w: torch.full_like(w, -3e38), r"holds -3e\+38; expected numbers of at most 1e\+08$"), (lambda w: w.to(torch.float64) * 1e30, r"expected numbers of at most"),
        (lambda w: w[:, :1], r"has \(32, 1\), the config expects \(32, 3\)"), (lambda w: w[None], r"has \(1, 32, 3\)"), (lambda w: w[:0], r"has \(0, 3\)"), (lambda w: w.T, r"has \(3, 32\)"),
    ],
)  # fmt: skip
def test_weights_of_the_wrong_kind_are_named(folder, change, match):
    weights = load_file(folder / "model.safetensors")
    name = "network.embed_location.weight"
    save_file({**weights, name: change(weights[name]).contiguous()}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=rf"model\.safetensors: weight {name} .*{match}"):
        Geolocator.from_pretrained(folder)


@pytest.mark.parametrize(("method", "guess"), [("diffusion", "flow"), ("flow", "diffusion")])
def test_the_guess_of_a_network_is_that_of_its_method(tmp_path, method, guess):
    """Another guess moves the answers, without any other sign."""
    shutil.copytree(runtime.DATA / "models" / f"tiles-{guess}", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    assert config["network"]["guess"] == guess
    edit(tmp_path / "model", method=method)
    with pytest.raises(ValueError, match=f"guess = '{guess}'; expected '{method}'"):
        Geolocator.from_pretrained(tmp_path / "model")


def test_a_mixture_needs_an_embedding(tmp_path, recwarn):
    """It is refused before torch warns of weights without numbers."""
    shutil.copytree(runtime.DATA / "models" / "tiles-vmf-mixture", tmp_path / "model")
    config = json.loads((tmp_path / "model" / "config.json").read_text())
    for width in (512, 0):
        edit(tmp_path / "model", network=config["network"] | {"cond_dim": 0, "cond_hidden": width})
        text = r"config\.json .*: a vmf-mixture network with cond_dim = 0; expected at least 1$"
        with pytest.raises(ValueError, match=text):
            Geolocator.from_pretrained(tmp_path / "model")
    assert not recwarn.list


def test_options_that_say_none_may_be_written_out(geo, folder):
    config = json.loads((folder / "config.json").read_text())
    none = {"clock": 0, "octaves": 0, "cond_hidden": 0, "guess": ""}
    assert not none.keys() & config["network"].keys()
    edit(folder, network=config["network"] | none)
    again = Geolocator.from_pretrained(folder)
    assert torch.equal(again.sample(picture(), n=5, seed=0), geo.sample(picture(), n=5, seed=0))


def test_a_setting_that_occurs_twice_is_named(folder):
    file = folder / "config.json"
    file.write_text(file.read_text().replace("{", '{"schedule": "linear",', 1))
    with pytest.raises(ValueError, match=r"config\.json is damaged.*'schedule' occurs twice"):
        Geolocator.from_pretrained(folder)


def test_a_negative_variance_is_named(folder):
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if name.endswith("running_var"))
    save_file({**weights, name: weights[name] - 10}, folder / "model.safetensors")
    with pytest.raises(ValueError, match=rf"weight {name}, a variance, holds a negative number"):
        Geolocator.from_pretrained(folder)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_another_precision_are_read(folder, kind, geo):
    weights = load_file(folder / "model.safetensors")
    other = {n: w.to(kind) if w.is_floating_point() else w for n, w in weights.items()}
    save_file(other, folder / "model.safetensors")
    again = Geolocator.from_pretrained(folder)
    for name, weight in again.network.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.allclose(weight, geo.network.state_dict()[name], atol=1e-2)


def lying(header, data=b"\0" * 64):
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


@pytest.mark.parametrize(
    "content",
    [
        b"", b"\0", b"\0" * 8, b"\xff" * 8, struct.pack("<Q", 2**60) + b"{}", struct.pack("<Q", 100) + b"{}", lying([]), lying({"a": 1}), lying({"a": {"dtype": "F32", "shape": [10**12], "data_offsets": [0, 4 * 10**12]}}),
        lying({"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 64]}}), lying({"a": {"dtype": "F32", "shape": [-4], "data_offsets": [0, 16]}}), lying({"a": {"dtype": "X9", "shape": [4], "data_offsets": [0, 16]}}),
        lying({"a": {"dtype": "F32", "shape": [16], "data_offsets": [64, 0]}}), lying({"a": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}, "b": {"dtype": "F32", "shape": [16], "data_offsets": [0, 64]}}),
    ],
)  # fmt: skip
def test_headers_that_lie_are_refused(folder, content):
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"model\.safetensors") as error:
        Geolocator.from_pretrained(folder)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("names", "match"),
    [
        (("aa", "aa"), "'aa' occurs twice"),
        (("a" * 9, "a" * 9), "'aaaaaaaaa' occurs twice"),
        (("a\nb", "c"), r"the name of weight 'a\\nb' holds a control"),
    ],
)
def test_odd_names_of_tensors_are_refused(folder, names, match):
    """`safetensors` reads all of these files. The size of the first one's header begins as a pickle does."""
    size = 64 * len(set(names))
    places = [0, 64], [size - 64, size]
    entries = ({"dtype": "F32", "shape": [16], "data_offsets": place} for place in places)
    pairs = zip(names, entries, strict=True)
    text = ", ".join(f"{json.dumps(name)}: {json.dumps(entry)}" for name, entry in pairs)
    text = f"{{{text}}}".encode()
    content = struct.pack("<Q", len(text)) + text + b"\0" * size
    assert (content[0] == 0x80) == (names[0] == "aa")
    (folder / "model.safetensors").write_bytes(content)
    assert set(load_file(folder / "model.safetensors")) == set(names)
    with pytest.raises(ValueError, match=rf"model\.safetensors .*: {match}"):
        Geolocator.from_pretrained(folder)


class Payload:
    def __reduce__(self):
        return (Path.touch, (Path("payload"),))


@pytest.mark.parametrize("save", [torch.save, lambda o, f: Path(f).write_bytes(pickle.dumps(o))], ids=["torch", "pickle"])  # fmt: skip
@pytest.mark.parametrize("name", ["model.safetensors", "pytorch_model.bin", "model.pt"])
def test_a_pickle_is_refused_and_not_run(folder, save, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (folder / "model.safetensors").unlink()
    save(Payload(), folder / name)
    with pytest.raises(
        (ValueError, FileNotFoundError), match="is a pickle, which could run code and is not read"
    ):
        Geolocator.from_pretrained(folder)
    assert not (tmp_path / "payload").exists()


@pytest.mark.parametrize("seed", range(60))
def test_a_flipped_bit_or_a_cut_in_the_files_of_a_model_is_refused_or_harmless(folder, seed, geo):
    """Weights have no checksum: a flipped bit there may make another weight, finite and of the same shape, and nothing else."""
    rng = np.random.default_rng(seed)
    for name in ("config.json", "model.safetensors"):
        whole = (folder / name).read_bytes()
        spoilt = bytearray(whole)
        if seed % 2:
            bit = int(rng.integers(8 * min(len(whole), 9000)))  # of safetensors mostly the header
            spoilt[bit // 8] ^= 1 << bit % 8
        else:
            del spoilt[int(rng.integers(len(whole))) :]
        (folder / name).write_bytes(spoilt)
        said = ""
        try:
            again = Geolocator.from_pretrained(folder)
            assert {n: w.shape for n, w in again.network.state_dict().items()} == {
                n: w.shape for n, w in geo.network.state_dict().items()
            }
        except ValueError as error:
            said = str(error)
        assert not said or (str(folder) in said and "\n" not in said)
        (folder / name).write_bytes(whole)


def test_an_encoder_of_another_width_is_told(tmp_path):
    parts = make(), make(cond_dim=16)
    mixed = Geolocator(parts[0].network, "riemannian", "linear", parts[1].encoder)
    mixed.save_pretrained(tmp_path / "model")
    with pytest.raises(
        ValueError, match=r"config\.json .*the encoder gives 16 numbers, the network takes 8"
    ):
        Geolocator.from_pretrained(tmp_path / "model")


@pytest.mark.parametrize("name", ["dinov2", "streetclip"])
def test_the_width_of_a_published_encoder_is_known_without_its_weights(tmp_path, name):
    folder = make(encoder=False).save_pretrained(tmp_path / "model")
    edit(folder, encoder={"name": name})
    with pytest.raises(
        ValueError, match=r"config\.json .*gives 1024 numbers, the network takes 8$"
    ):
        Geolocator.from_pretrained(folder)
    edit(folder, encoder={"name": name, "source": "a/folder"})  # it may hold a smaller network
    assert Geolocator.from_pretrained(folder).encoder.source == "a/folder"


def test_only_hub_models_have_revisions(folder):
    with pytest.raises(ValueError, match="revision 'v2'"):
        Geolocator.from_pretrained(folder, revision="v2")


# Shipped models, beside numbers of an earlier version

BEFORE = load_file(Path(__file__).parent / "fixtures" / "checkpoints" / "before.safetensors")


@pytest.mark.parametrize("key", [key for key in sorted(BEFORE) if "/samples/" in key])
def test_shipped_models_give_the_samples_they_gave(key, shipped):
    """To rounding: places are written in float32 degrees (1.7 m apart near the antimeridian), and a relative change of 1e-7 of the
    embeddings moves samples by 0.6 m in the median, the worst of 96 by 10 m, with guidance by 42 m."""
    model, _, solver, steps, guidance = key.split("/")
    options = dict(
        n=BEFORE[key].shape[1], steps=int(steps), solver=solver, guidance=float(guidance), seed=0
    )
    now = shipped(model).sample(cond=BEFORE["cond"], **options)
    metres = 1000 * sphere.distance_km(
        sphere.from_latlon(now.double()), sphere.from_latlon(BEFORE[key].double())
    )
    assert metres.median() < 1
    assert metres.max() < (25 if options["guidance"] == 0 else 100)


@pytest.mark.parametrize("key", [key for key in sorted(BEFORE) if "/exact/" in key])
def test_shipped_flows_give_every_sample_they_gave_to_a_metre(key, shipped):
    """In double precision, where rounding does not hide a change."""
    model, _, solver, steps, guidance = key.split("/")
    now = samples_in_double(
        shipped(model), BEFORE["cond"], BEFORE[key].shape[1], int(steps), solver, float(guidance)
    )
    assert 1000 * float(sphere.distance_km(now, BEFORE[key]).max()) < 1


def test_every_shipped_model_has_numbers():
    kinds = {tuple(key.split("/")[:2]) for key in BEFORE if "/" in key}
    expected = {
        (model, kind) for model in checkpoint.shipped_models() for kind in ("samples", "log_prob")
    }
    assert kinds >= expected
    flows = {model for model in checkpoint.shipped_models() if "vmf" not in model}
    assert {model for model, kind in kinds if kind == "exact"} == flows


R3 = ("tiles-flow/", "tiles-diffusion/")


@pytest.mark.parametrize(
    "key", [key for key in sorted(BEFORE) if "/log_prob/" in key and not key.startswith(R3)]
)
def test_shipped_models_give_the_log_densities_they_gave(key, shipped):
    model, _, guidance = key.split("/")
    now = shipped(model).log_prob(
        BEFORE["places"], cond=BEFORE["cond"], steps=16, guidance=float(guidance)
    )
    assert torch.allclose(
        now, BEFORE[key], rtol=3e-6, atol=1e-3
    )  # a vMF has −708 nats at the antipode


@pytest.mark.parametrize("model", [name.removesuffix("/") for name in R3])
def test_shipped_models_in_r3_give_the_log_densities_they_gave(model, shipped):
    """In R³ and, by the quadrature along rays, on S²."""
    places, cond = BEFORE["places"], BEFORE["cond"]
    now = shipped(model).ambient_log_prob(places, cond=cond, steps=16)
    assert torch.allclose(now, BEFORE[f"{model}/ambient/0"], rtol=0, atol=1e-3)
    now = shipped(model).log_prob(places[:, :3], cond=cond, steps=16)
    assert torch.allclose(now, BEFORE[f"{model}/log_prob/0"], rtol=0, atol=0.01)


@pytest.mark.parametrize("method", ["riemannian", "flow", "diffusion", "vmf", "vmf-mixture"])
def test_every_option_of_a_foreign_config_is_checked(tmp_path, method):
    """Each of a network's options missing, of another kind or absurd, and options of another kind of network: a line that names the file.

    `tangent` came later than the first models, so it may be missing.
    """
    tangent = {} if method.startswith("vmf") else {"tangent": method == "riemannian"}
    size = {"cond_dim": 8, "dim": 16, "depth": 1, **tangent}
    network = methods.network_for(method, size)
    folder = Geolocator(network, method).save_pretrained(tmp_path / "model")
    file = folder / "config.json"
    whole = json.loads(file.read_text())
    Geolocator.from_pretrained(folder)
    bads = ["x", None, [], {}, -1, 10**18, float("nan")]
    changes = [{name: bad} for name in whole["network"] for bad in bads]
    changes += [{"heads": 8}, {"fourier": 32} if method.startswith("vmf") else {"components": 3}]
    parts = [whole["network"] | change for change in changes]
    parts += [{k: v for k, v in whole["network"].items() if k != name} for name in whole["network"] if name != "tangent"]  # fmt: skip
    for part in parts:
        file.write_text(json.dumps({**whole, "network": part}))
        with pytest.raises(ValueError, match=r"model/(config\.json|model\.safetensors)") as error:
            Geolocator.from_pretrained(folder)
        assert "\n" not in str(error.value), part
