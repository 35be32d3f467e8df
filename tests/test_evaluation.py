"""Reports: what they count, and what the scores of known distributions are."""

import json
import math
import subprocess
import sys

import pytest
import torch

import geoflow
from geoflow import Geolocator, samplers, sphere
from geoflow.data.references import Retrieval
from geoflow.velocity import VelocityTransformer


@pytest.fixture
def geo():
    torch.manual_seed(0)
    network = VelocityTransformer(cond_dim=4, dim=16, depth=1)
    torch.nn.init.normal_(network.modulation.weight, std=0.3)
    return Geolocator(network)


def data(n, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(n, 4, generator=generator), sphere.to_latlon(sphere.uniform(n, generator))


def test_counts_every_image_once_and_says_how(geo, tmp_path):
    report = geoflow.evaluate(geo, data(7), samples=3, steps=2, solver="midpoint")
    assert report.metrics["images"] == 7
    assert report.metrics["nan"] == 0
    assert report.settings["evaluations"] == 4
    assert report.settings["samples"] == 3
    file = tmp_path / "report.json"
    assert json.loads(report.to_json(file)) == json.loads(file.read_text())
    assert "7 images" in report.table()
    assert "geoscore" in report.table()


def test_each_image_has_starting_points_of_its_own(geo):
    cond, latlon = data(3)
    noise = samplers.noise_for(geo.path, range(3), 4, seed=5)
    assert not torch.equal(noise[0], noise[1])
    alone = [
        geo.sample(cond=cond[i : i + 1], noise=noise[i : i + 1], steps=2)[0, 0] for i in range(3)
    ]
    km = sphere.distance_km(
        sphere.from_latlon(torch.stack(alone)).double(), sphere.from_latlon(latlon).float().double()
    )
    report = geoflow.evaluate(geo, (cond, latlon), samples=4, steps=2, seed=5)
    assert report.metrics["single_median_km"] == pytest.approx(float(km.median()), rel=1e-5)


def test_the_likeliest_of_the_samples_answers(geo):
    """Same samples, another answer: the one of highest density, and that for precision and recall too."""
    cond, latlon = data(6)
    report = geoflow.evaluate(geo, (cond, latlon), samples=5, steps=2, answer="likeliest")
    other = geoflow.evaluate(geo, (cond, latlon), samples=5, steps=2)
    assert report.metrics["single_geoscore"] == other.metrics["single_geoscore"]
    noise = samplers.noise_for(geo.path, range(6), 5, seed=0)
    drawn = geo.sample(cond=cond, noise=noise, steps=2)
    best = drawn[torch.arange(6), geo.log_prob(drawn, cond=cond).argmax(-1)]
    km = sphere.distance_km(sphere.from_latlon(best).double(), sphere.from_latlon(latlon).double())
    assert report.metrics["mean_km"] == pytest.approx(float(km.mean()), rel=1e-4)
    assert report.settings["answer"] == "likeliest"
    assert report.settings["schedule"] == "skewed-sigmoid"
    with pytest.raises(ValueError, match="unknown answer 'best'"):
        geoflow.evaluate(geo, (cond, latlon), answer="best")


def test_a_field_of_zero_scores_as_uniform(geo):
    torch.nn.init.zeros_(geo.network.head.weight)
    torch.nn.init.zeros_(geo.network.head.bias)
    report = geoflow.evaluate(geo, data(3000), samples=1, steps=1, solver="euler")
    assert report.metrics["nll"] == pytest.approx(2.5310, abs=1e-4)
    assert report.metrics["nll_over_uniform"] == pytest.approx(0, abs=1e-4)
    # closed forms: mean distance a quarter of the circumference; its standard error here is 80 km
    assert report.metrics["mean_km"] == pytest.approx(10007.5, abs=320)
    assert report.metrics["geoscore"] == pytest.approx(130.1, abs=40)


def test_rows_are_the_scores_of_each_image(geo):
    report = geoflow.evaluate(geo, data(7), samples=5, steps=2, seeds=2)
    for name in ("geoscore", "single_geoscore", "energy_km", "nll"):
        assert report.rows[name].shape == (7,)
        assert float(report.rows[name].mean()) == pytest.approx(report.metrics[name], rel=1e-5)
    assert "rows" not in json.loads(report.to_json())
    alone = geoflow.evaluate(geo, data(7), samples=1, steps=2, likelihood=False)
    assert sorted(alone.rows) == ["geoscore", "single_geoscore"]


def test_likelihood_can_be_left_out(geo):
    assert "nll" not in geoflow.evaluate(geo, data(3), samples=2, steps=1, likelihood=False).metrics


@pytest.mark.parametrize(
    ("sizes", "samples", "message"),
    [((0, 0), 2, "at least 1"), ((3, 2), 2, "3 embeddings and 2 places"), ((2, 2), 0, "0 samples")],
)
def test_bad_input_is_named(geo, sizes, samples, message):
    cond, latlon = torch.zeros(sizes[0], 4), torch.zeros(sizes[1], 2)
    with pytest.raises(ValueError, match=message):
        geoflow.evaluate(geo, (cond, latlon), samples=samples, steps=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"samples": "3"}, "'3' samples per image"), ({"samples": 2.5}, r"2\.5 samples"), ({"seeds": 0}, "0 seeds; expected a whole number from 1 to"), ({"seeds": "2"}, "'2' seeds"),
        ({"seed": "a"}, "seed='a'"), ({"seed": None}, "seed=None"), ({"calibrated": -1}, "-1 images to calibrate"), ({"calibrated": "all"}, "'all' images"), ({"steps": "x"}, "'x' steps"),
        ({"guidance": "2"}, "guidance of '2'"), ({"answer": None}, "unknown answer None"), ({"dataset": "osv5m"}, "a data set of type str; expected Tiles, or a pair"),
        ({"dataset": (torch.zeros(2, 4),)}, "a data set of type tuple"), ({"dataset": (torch.zeros(2, 4), "Paris")}, "latlon holds no numbers"), ({"dataset": ("x", torch.zeros(2, 2))}, "embeddings holds no numbers"),
        ({"dataset": (torch.zeros(2, 4), torch.full((2, 2), 95.0))}, r"latitude 95\.0"), ({"dataset": (torch.zeros(2, 5), torch.zeros(2, 2))}, r"cond has shape \(2, 5\); expected \(B, 4\)"),
        ({"dataset": (torch.full((2, 4), torch.nan), torch.zeros(2, 2))}, "embeddings holds NaN"), ({"dataset": (torch.zeros(4), torch.zeros(4, 2))}, r"embeddings of shape \(4,\)"),
        ({"dataset": (torch.zeros(1, 4), torch.zeros(2))}, r"expected \(B, C\) and \(B, 2\)"), ({"geo": "tiles"}, "a model of type str; expected a Geolocator"),
    ],
)  # fmt: skip
def test_bad_arguments_are_named(geo, options, message):
    given = {
        "geo": geo,
        "dataset": (torch.zeros(2, 4), torch.zeros(2, 2)),
        "samples": 2,
        "steps": 1,
    }
    with pytest.raises(ValueError, match=message):
        geoflow.evaluate(**{**given, **options})


def test_several_seeds_give_mean_and_deviation(geo):
    single = [
        geoflow.evaluate(geo, data(5), samples=3, steps=2, seed=seed, likelihood=False).metrics
        for seed in (4, 5)
    ]
    report = geoflow.evaluate(geo, data(5), samples=3, steps=2, seed=4, seeds=2, likelihood=False)
    assert report.settings["seeds"] == [4, 5]
    assert report.metrics["images"] == 5
    for name in ("geoscore", "energy_km", "precision"):
        values = torch.tensor([metrics[name] for metrics in single], dtype=torch.float64)
        assert report.metrics[name] == pytest.approx(float(values.mean()))
        assert report.deviations[name] == pytest.approx(float(values.std()))
    assert "±" in report.table()


def test_a_uniform_model_has_the_papers_numbers():
    uniform = Geolocator.from_pretrained("uniform")
    report = geoflow.evaluate(uniform, data(400), samples=2, calibrated=400)
    assert report.metrics["calibration_nan"] == 0
    assert report.metrics["bits_per_dimension"] == pytest.approx(
        1.2172, abs=1e-4
    )  # the paper's row
    assert report.metrics["area_50_km2"] == pytest.approx(sphere.EARTH_AREA_KM2 / 2, rel=1e-3)


def test_labels_of_places():
    """A model that always says Paris has the labels of Paris, at the levels that a place shares."""
    paris, versailles, brest, sydney = [48.85, 2.35], [48.8, 2.13], [48.39, -4.49], [-33.9, 151.2]
    gallery = sphere.from_latlon(torch.tensor([paris]))
    always = Geolocator(
        Retrieval(torch.ones(1, 4), gallery, 1, concentration=1e8, background=0.0), "retrieval"
    )
    truth = torch.tensor([paris, versailles, brest, sydney])
    scores = geoflow.evaluate(
        always, (torch.ones(4, 4), truth), samples=2, likelihood=False, labels=True
    ).metrics
    assert [scores[level] for level in ("country", "region", "city")] == [0.75, 0.5, 0.25]
    assert scores["country_missing"] == 0


def test_r3_methods_report_the_papers_number_beside_the_density_on_the_sphere():
    torch.manual_seed(0)
    flow = Geolocator(
        VelocityTransformer(cond_dim=4, dim=16, depth=1, tangent=False), "flow", "linear"
    )
    scores = geoflow.evaluate(flow, data(4), samples=2, steps=2).metrics
    assert scores["bits_per_dimension"] == pytest.approx(scores["nll"] / math.log(2) / 3)
    assert scores["ambient_bits_per_dimension"] != pytest.approx(
        scores["bits_per_dimension"], abs=0.01
    )


SHARE = """
import sys, torch, geoflow
folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
data = torch.load(f"{folder}/data.pt")
geoflow.evaluate(geoflow.Geolocator.from_pretrained("uniform"), data, samples=3).to_json(f"{folder}/{rank}.json")
torch.distributed.destroy_process_group()
"""


def test_two_processes_count_every_image_once(tmp_path):
    torch.save(data(301), tmp_path / "data.pt")
    processes = [
        subprocess.Popen([sys.executable, "-c", SHARE, str(tmp_path), str(rank)]) for rank in (0, 1)
    ]
    assert [process.wait(timeout=120) for process in processes] == [0, 0]
    alone = geoflow.evaluate(Geolocator.from_pretrained("uniform"), data(301), samples=3).metrics
    for rank in (0, 1):
        together = json.loads((tmp_path / f"{rank}.json").read_text())["metrics"]
        assert together == pytest.approx(alone)
        assert together["images"] == 301


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"dataset": 5}, "dataset = '5'; expected a str"), ({"dataset": ""}, "the name of a data set"), ({"metrics": None}, "metrics = 'None'; expected a dict"),
        ({"metrics": {"images": 5, "a": None}}, r"metrics\.a = 'None'; expected a float"), ({"metrics": {"images": 0}}, "at least one image"), ({"metrics": {}}, "at least one image"),
        ({"deviations": "x"}, "deviations = 'x'"), ({"seconds": True}, "seconds = 'True'"), ({"machine": []}, r"machine = '\[\]'"), ({"rows": {"nll": [1.0]}}, "rows.nll"),
        ({"mood": 1}, "see mood"), ({"metrics": {"images": 5, "a": float("nan")}}, "metrics.a = nan; expected a finite number"),
    ],
)  # fmt: skip
def test_a_report_of_other_types_is_named(tmp_path, changes, match):
    values = {"dataset": "d", "metrics": {"images": 5}, "deviations": {}, "settings": {}}
    values |= {"seconds": 1.0, "machine": "here"}
    (tmp_path / "a.json").write_text(json.dumps(values | changes))
    with pytest.raises(ValueError, match=rf"a\.json is no report of this version: .*{match}"):
        geoflow.evaluation.read_report(tmp_path / "a.json")


def test_mean_over_training_seeds(tmp_path):
    reports = [
        geoflow.evaluation.Report(
            "data", {"images": 5, "geoscore": g}, {}, {"steps": 2}, 1.0, "here"
        )
        for g in (1000.0, 1100.0, 1300.0)
    ]
    mean = geoflow.evaluation.mean_report(reports)
    assert mean.metrics == {"images": 5, "geoscore": pytest.approx(3400 / 3)}
    assert mean.deviations["geoscore"] == pytest.approx(152.75, abs=0.01)
    mean.to_json(tmp_path / "mean.json")
    assert geoflow.evaluation.read_report(tmp_path / "mean.json") == mean
    other = geoflow.evaluation.Report("other", {}, {}, {"steps": 2}, 1.0, "here")
    with pytest.raises(ValueError, match="2 reports to average"):
        geoflow.evaluation.mean_report([reports[0], other])
    (tmp_path / "mean.json").write_text('{"dataset": 1}')
    with pytest.raises(ValueError, match="no report of this version"):
        geoflow.evaluation.read_report(tmp_path / "mean.json")
