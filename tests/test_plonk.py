"""The published models: official names, layout, sampler and "likelihood", on small networks with official outputs."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar

import official
import pytest
import torch
from safetensors.torch import load_file, save_file

from geoflow import Geolocator, paths, plonk, samplers, schedules, sphere

FIXTURES = official.FOLDER


def network(method="riemannian", folder=FIXTURES):
    return plonk.network(folder, method)


@pytest.fixture(scope="module")
def forward():
    return official.tensors("forward")


@pytest.fixture(scope="module")
def official_samples():
    return official.tensors("samplers")


@pytest.fixture(scope="module")
def official_likelihood():
    return official.tensors("likelihood")


def test_network_gives_the_official_output(forward):
    out = plonk.plain(network("flow"))(forward["y"][:, None], forward["gamma"], forward["emb"])[
        :, 0
    ]
    assert torch.allclose(out, forward["out"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("guidance", [0, 2])
@pytest.mark.parametrize("steps", [16, 250])
@pytest.mark.parametrize("method", paths.PATHS)
def test_official_sampler_step_for_step(method, steps, guidance, official_samples):
    net, path = network(method), paths.by_name(method)
    noise, cond = official_samples["x_N"][:, None], official_samples["emb"]
    for x in plonk.trajectory(
        net,
        path,
        noise,
        schedules.time_grid(schedules.by_name(plonk.SCHEDULE), steps),
        cond,
        guidance,
    ):
        pass
    name = "ddim" if method == "diffusion" else method
    error = (x[:, 0] - official_samples[f"{name}_{steps}_cfg{guidance}"]).norm(dim=-1)
    assert float(error.max()) < 1e-4 * max(1.0, float(x.norm(dim=-1).max()))


def test_official_trajectory(official_samples):
    noise, cond = official_samples["x_N"][:, None], official_samples["emb"]
    times = schedules.time_grid(schedules.by_name(plonk.SCHEDULE), 16)
    states = torch.stack(
        list(plonk.trajectory(network(), paths.by_name("riemannian"), noise, times, cond))
    )[:, :, 0]
    assert torch.allclose(
        states, official_samples["riemannian_16_cfg0_trajectory"], rtol=0, atol=1e-4
    )


def test_the_geolocator_samples_officially_on_request(official_samples):
    geo = Geolocator.from_pretrained(FIXTURES, method="riemannian")
    places = geo.sample(
        cond=official_samples["emb"][:1],
        noise=official_samples["x_N"][None],
        solver="plonk",
        steps=16,
    )
    x, official = (
        sphere.from_latlon(places[0]),
        sphere.from_latlon(official_samples["pipeline_gps_deg_emb0_16_cfg0"]),
    )
    assert float(sphere.distance(x.float(), official).max()) < 1e-4
    assert geo.sample(cond=official_samples["emb"][:2], n=3, seed=0, solver="plonk").shape == (
        2,
        3,
        2,
    )
    assert samplers.evaluations("plonk", plonk.STEPS) == 250
    with pytest.raises(ValueError, match="'plonk' draws samples"):
        geo.log_prob(torch.zeros(1, 2), cond=official_samples["emb"][:1], solver="plonk")


@pytest.mark.parametrize("guidance", [0, 2])
def test_official_likelihood_and_that_it_is_not_the_density(guidance, official_likelihood):
    """The density itself is compared in test_likelihood.py."""
    truth = official_likelihood
    x, cond = sphere.from_latlon(truth["coordinates_deg"])[:, None], truth["emb"]
    theirs = plonk.ambient_trace_log_prob(network(), x.float(), cond, guidance)[:, 0]
    assert torch.allclose(theirs.double(), truth[f"logp_raw_cfg{guidance}_f64"], rtol=0, atol=0.02)
    assert (theirs - truth[f"RIEMANNIAN_logp_raw_cfg{guidance}_f64"]).abs().max() > 1


# Names and files


@pytest.fixture
def copied(tmp_path):
    for name in (plonk.CONFIG, plonk.WEIGHTS):
        shutil.copy(FIXTURES / name, tmp_path / name)
        (tmp_path / name).chmod(0o644)
    return tmp_path


def test_a_local_folder_in_the_official_layout(copied, forward):
    geo = Geolocator.from_pretrained(copied)
    assert geo.method == "riemannian"
    assert Geolocator.from_pretrained(copied, method="diffusion").method == "diffusion"
    assert geo.sample(cond=forward["emb"][:2], n=4, seed=0).isfinite().all()
    with pytest.raises(ValueError, match="no image encoder"):
        geo.embed("photo.jpg")


@pytest.mark.parametrize(
    "name", ["PLONK_OSV_5M_flow", "models--nicolas-dufour--PLONK_OSV_5M_flow/snapshots/c0ffee"]
)
def test_a_folder_called_after_a_published_model_has_its_method_and_encoder(
    name, copied, tmp_path_factory
):
    folder = tmp_path_factory.mktemp("copies") / name
    shutil.copytree(copied, folder)
    geo = Geolocator.from_pretrained(folder)
    assert (geo.method, geo.encoder.name) == ("flow", "streetclip")
    assert Geolocator.from_pretrained(folder, method="riemannian").method == "riemannian", (
        "what is asked for counts more than a name"
    )


def test_damaged_files_are_refused_whole(copied):
    whole = (copied / plonk.WEIGHTS).read_bytes()
    (copied / plonk.WEIGHTS).write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ValueError, match="damaged"):
        Geolocator.from_pretrained(copied)
    (copied / plonk.WEIGHTS).write_bytes(whole)
    config = json.loads((copied / plonk.CONFIG).read_text())
    (copied / plonk.CONFIG).write_text(json.dumps({**config, "depth": 2}))
    with pytest.raises(
        ValueError, match=r"blocks\.2\.ada_map\.1\.bias has \(192,\), the config expects nothing"
    ):
        Geolocator.from_pretrained(copied)
    (copied / plonk.CONFIG).write_text(json.dumps({**config, "cond_dim": 16}))
    with pytest.raises(
        ValueError, match=r"cond_mapper\.weight has \(64, 32\), the config expects \(64, 16\)"
    ):
        Geolocator.from_pretrained(copied)
    (copied / plonk.CONFIG).write_text(json.dumps({**config, "width": 16}))
    with pytest.raises(ValueError, match="width"):
        Geolocator.from_pretrained(copied)
    (copied / plonk.CONFIG).write_text(json.dumps(config))
    weights = load_file(copied / plonk.WEIGHTS)
    del weights["cond_mapper.bias"]
    save_file(weights, copied / plonk.WEIGHTS)
    with pytest.raises(ValueError, match=r"cond_mapper\.bias has nothing"):
        Geolocator.from_pretrained(copied)


@pytest.mark.parametrize(
    "change",
    [
        {"dim": 10**9}, {"dim": 64.0}, {"dim": "64"}, {"depth": 10**9}, {"depth": -1}, {"expansion": 10**9}, {"cond_dim": -1}, {"cond_dim": 10**12}, {"input_dim": 4},
        {"input_dim": None}, {"fourier": -1}, {"time_scale": float("nan")}, {"dim": 16_384, "depth": 400},
    ],
)  # fmt: skip
def test_absurd_settings_are_named(copied, change):
    config = json.loads((copied / plonk.CONFIG).read_text())
    (copied / plonk.CONFIG).write_text(json.dumps({**config, **change}))
    where = r"config\.json: " if len(change) == 1 else r"model\.safetensors: weight "
    with pytest.raises(ValueError, match=where) as error:
        Geolocator.from_pretrained(copied)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("change", [{"path": 1}, {"heads": 8}, {"components": 3}, {"self": 1}])
def test_options_that_no_published_network_has_are_named(copied, change):
    config = json.loads((copied / plonk.CONFIG).read_text())
    (copied / plonk.CONFIG).write_text(json.dumps({**config, **change}))
    (name,) = change
    text = rf"unknown option in .*config\.json: '{name}'.*; expected one of 'cond_dim', 'dim', "
    with pytest.raises(ValueError, match=text):
        Geolocator.from_pretrained(copied)


def test_a_published_config_without_a_width_is_named(copied):
    config = json.loads((copied / plonk.CONFIG).read_text())
    config.pop("cond_dim")
    (copied / plonk.CONFIG).write_text(json.dumps(config))
    with pytest.raises(ValueError, match=r"config\.json: cond_dim is missing; expected a whole"):
        Geolocator.from_pretrained(copied)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"[" * 100_000, b"\xff\xfe", b"\x80\x04}."])
@pytest.mark.parametrize("name", [plonk.CONFIG, plonk.WEIGHTS])
def test_files_that_are_none_are_named(copied, name, content):
    (copied / name).write_bytes(content)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")) as error:
        Geolocator.from_pretrained(copied)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("value", [torch.nan, -torch.inf])
def test_weights_that_are_not_finite_are_named(copied, value):
    weights = load_file(copied / plonk.WEIGHTS)
    weights["cond_mapper.bias"][3] = value
    save_file(weights, copied / plonk.WEIGHTS)
    with pytest.raises(
        ValueError, match=r"weight cond_mapper\.bias holds numbers that are not finite"
    ):
        Geolocator.from_pretrained(copied)


def test_the_hub(copied, monkeypatch):
    """What is asked of the hub, and what its failures become; no network."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError, OfflineModeIsEnabled

    asked = []

    def fetched(repository, name, revision=None, local_files_only=False):
        assert not local_files_only
        asked.append((repository, name, revision))
        return str(copied / name)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", fetched)
    geo = Geolocator.from_pretrained("nicolas-dufour/PLONK_OSV_5M_flow", revision="abc")
    assert asked == [
        ("nicolas-dufour/PLONK_OSV_5M_flow", name, "abc") for name in (plonk.CONFIG, plonk.WEIGHTS)
    ]
    assert geo.method == "flow"
    assert geo.encoder.name == "streetclip"
    assert Geolocator.from_pretrained("plonk-yfcc").encoder.name == "dinov2"
    with pytest.raises(ValueError, match="'plonk-yfcc' is a 'riemannian' model"):
        Geolocator.from_pretrained("plonk-yfcc", method="flow")
    for failure in (LocalEntryNotFoundError("no network"), OfflineModeIsEnabled("offline")):

        def failed(*_, failure=failure, **__):
            raise failure

        monkeypatch.setattr(huggingface_hub, "hf_hub_download", failed)
        with pytest.raises(ConnectionError, match="PLONK_YFCC is not in the cache"):
            Geolocator.from_pretrained("plonk-yfcc")


COMMIT = "c0ffee" * 6 + "beef"
LOAD = """
import sys
from huggingface_hub import constants
from geoflow import Geolocator
for argument in sys.argv[1:]:
    constants.HF_HUB_CACHE, _, revision = argument.partition("@")
    try:
        geo = Geolocator.from_pretrained("plonk-yfcc", revision=revision or None)
        print(geo.method, geo.encoder.name, sum(weight.numel() for weight in geo.network.parameters()))
    except Exception as error:
        print(type(error).__name__, str(error).splitlines()[0])
"""


class Hub(BaseHTTPRequestHandler):
    """What the hub answers about one repository with two files. The first answer with weights breaks off half-way."""

    broken_off: ClassVar[list] = []

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, body):
        repository, _, file = self.path.partition("/resolve/")
        revision, _, name = file.partition("/")
        if repository != "/nicolas-dufour/PLONK_YFCC" or revision not in ("main", "v1", COMMIT):
            self.send_response(404)
            self.send_header("X-Error-Code", "RevisionNotFound")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        content = (FIXTURES / name).read_bytes()
        self.send_response(200)
        self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
        self.send_header("X-Repo-Commit", COMMIT)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if body:
            if name == plonk.WEIGHTS:
                self.broken_off.append(not self.broken_off)
                content = content[: len(content) // 2] if self.broken_off[-1] else content
            self.wfile.write(content)


@pytest.fixture
def hub():
    """Loads a published model in a process that knows a hub on this machine: (cache, revision) pairs → what it says to each."""
    Hub.broken_off.clear()
    with ThreadingHTTPServer(("127.0.0.1", 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()

        def load(*pairs, offline=False):
            address = f"http://127.0.0.1:{server.server_address[1]}"
            env = {**os.environ, "HF_ENDPOINT": address, "HF_HUB_OFFLINE": str(int(offline))}
            arguments = [f"{cache}@{revision}" for cache, revision in pairs]
            done = subprocess.run(
                [sys.executable, "-c", LOAD, *arguments],
                capture_output=True,
                text=True,
                env=env,
                timeout=300,
                check=True,
            )
            return done.stdout.splitlines()

        yield load
        server.shutdown()


def test_a_model_from_a_hub_is_whole_pinned_and_found_again_without_a_network(hub, tmp_path):
    whole, damaged, empty = (tmp_path / name for name in ("whole", "damaged", "empty"))
    parameters = sum(weight.numel() for weight in network().parameters())
    loaded = f"riemannian dinov2 {parameters}"
    first, second = hub((whole, "v1"), (whole, "v2"))
    assert first == loaded
    assert Hub.broken_off == [True, False], (
        "half of the weights is not taken for all; of larger files only the rest is asked for again"
    )
    assert second.startswith("ValueError nicolas-dufour/PLONK_YFCC has no revision 'v2'")
    shutil.copytree(whole, damaged)  # links are followed
    (weights,) = damaged.rglob("snapshots/*/model.safetensors")
    weights.write_bytes(weights.read_bytes()[:5000])
    again, broken, missing = hub((whole, COMMIT), (damaged, COMMIT), (empty, ""), offline=True)
    assert again == loaded
    assert broken.startswith("ValueError")
    assert "damaged" in broken
    assert missing.startswith("ConnectionError nicolas-dufour/PLONK_YFCC is not in")


# Averages over time: few steps on a network that is rough in time


@pytest.mark.parametrize("method", paths.PATHS)
def test_intervals_around_the_middles_of_the_default_steps_cover_all_moments_once(method):
    net, path = network(method), paths.by_name(method)
    start, end = path.clock(torch.tensor([0.0, 1.0]))
    s = schedules.time_grid(schedules.by_name("few-steps"), 2 * plonk.OPTIONS.steps)
    times = path.time(start + (end - start) * s)  # of the steps, and of their middles
    low, high = net.interval(times[1::2])
    assert torch.allclose(low, times[:-1:2], rtol=0, atol=1e-5)
    assert torch.allclose(high, times[2::2], rtol=0, atol=1e-5)
    assert torch.allclose(low[1:], high[:-1], rtol=0, atol=1e-5)
    for t in times[[0, -1]]:  # half an interval remains at the ends
        low, high = net.interval(t)
        assert times[0] - 1e-6 < low < high < times[-1] + 1e-6


def test_the_conditioning_is_the_mean_over_its_interval():
    net, cond = network(), torch.randn(2, 32, generator=torch.Generator().manual_seed(0))
    t = torch.tensor([[0.2], [0.7]])
    (low, high), moments = net.interval(t), (torch.arange(4000) + 0.5) / 4000
    plain = plonk.plain(net)
    mean = torch.stack(
        [plain.condition(low + (high - low) * moment, cond) for moment in moments]
    ).mean(0)
    assert torch.allclose(net.condition(t, cond), mean, rtol=0, atol=1e-3)
    assert (plain.condition(t, cond) - mean).abs().max() > 0.02
    x = sphere.uniform((2, 5), torch.Generator().manual_seed(1))
    assert torch.equal(net(x, t, cond), net.velocity(x, t, net.condition(t, cond)))
    assert torch.equal(plain(x, t, cond), plain.velocity(x, t, plain.condition(t, cond)))


def errors_km(folder, cond, guidance, n=32):
    """Mean errors of samples from the same starting points, against a fine solution of the plain network: averaged, plain, official."""
    geo = Geolocator.from_pretrained(folder)
    plain = Geolocator(plonk.plain(geo.network), "riemannian", "few-steps")
    noise = sphere.uniform((1, n), torch.Generator().manual_seed(0)).expand(len(cond), -1, -1)
    solved = [
        (plain, 200, "rk4"),
        (geo, None, None),
        (plain, plonk.OPTIONS.steps, plonk.OPTIONS.solver),
        (geo, 250, "plonk"),
    ]
    ends = [
        sphere.from_latlon(
            model.sample(cond=cond, noise=noise, guidance=guidance, steps=steps, solver=solver)
        ).double()
        for model, steps, solver in solved
    ]
    return [float(sphere.distance_km(end, ends[0]).mean()) for end in ends[1:]]


@pytest.mark.parametrize("guidance", [0.0, 2.0])
@pytest.mark.parametrize("name", ["", "trained"], ids=["random", "trained"])
@pytest.mark.slow
def test_samples_of_few_steps_err_less_than_the_official_sampler_with_250(name, guidance):
    cond = torch.randn(2, 32, generator=torch.Generator().manual_seed(1))
    averaged, plain, theirs = errors_km(
        FIXTURES / name, cond if not name else torch.nn.functional.normalize(cond), guidance
    )
    assert averaged < theirs
    assert averaged < plain


@pytest.mark.parametrize("guidance", [0, 2])
def test_likelihoods_of_few_steps_beside_an_independent_solution(guidance, official_likelihood):
    truth = official_likelihood
    geo = Geolocator.from_pretrained(FIXTURES)
    plain = Geolocator(plonk.plain(geo.network), "riemannian", "few-steps")
    options = dict(cond=truth["emb"], guidance=float(guidance))
    places, exact = (
        truth["coordinates_deg"][:, None],
        truth[f"RIEMANNIAN_logp_raw_cfg{guidance}_f64"],
    )
    averaged = (geo.log_prob(places, **options)[:, 0] - exact).abs().mean()
    without = (
        (
            plain.log_prob(
                places, steps=plonk.OPTIONS.steps, solver=plonk.OPTIONS.solver, **options
            )[:, 0]
            - exact
        )
        .abs()
        .mean()
    )
    assert averaged < without / 3
    assert averaged < 0.02


@pytest.mark.parametrize("method", paths.PATHS)
def test_a_published_model_that_is_saved_again_still_averages(method, tmp_path):
    geo = Geolocator.from_pretrained(FIXTURES, method)
    again = Geolocator.from_pretrained(geo.save_pretrained(tmp_path / "model"))
    assert isinstance(again.network, plonk.TimeAveraged)
    assert again.model.defaults == geo.model.defaults == plonk.OPTIONS
    cond = torch.randn(
        1, geo.network.config["cond_dim"], generator=torch.Generator().manual_seed(0)
    )
    assert torch.equal(again.sample(cond=cond, n=8, seed=0), geo.sample(cond=cond, n=8, seed=0))
