"""The printed tables, and which of our numbers stand beside them."""

import pytest

from geoflow.paper import figures, items, tables
from geoflow.paper.results import Result
from geoflow.scores.evaluation import Report

GUIDED = {
    "method": "riemannian",
    "samples": 1,
    "guidance": 2.0,
    "schedule": "skewed-sigmoid",
    "answer": "geoscore",
}


def report(dataset="osv5m test", metrics=None, **how):
    return Report(
        dataset,
        {"images": 10, "geoscore": 3800.0, "mean_km": 1000.0, "country": 0.5, **(metrics or {})},
        {},
        how,
        1.0,
        "a machine",
    )


def lines(table, row):
    return [line for line in table.lines if line.row == row]


def test_every_table_is_complete():
    assert tables.names() == [
        "table1-osv5m", "table1-inat21", "table1-yfcc", "table2-osv5m", "table2-yfcc", "table2-inat21", "tableA", "tableB-osv5m", "tableB-yfcc",
    ]  # fmt: skip
    for name in tables.names():
        table = tables.table(name, {})
        widths = {len(numbers) for line in table.lines for numbers in (line.paper, line.ours)}
        assert widths == {len(table.printed["columns"])}
        assert not table.notes


def test_a_report_stands_beside_its_row_with_the_difference():
    table = tables.table("table1-osv5m", {"a.json": report(**GUIDED)})
    (line,) = lines(table, "RFM S²")
    assert line.paper == (3767, 1069, 76.2, 44.2, 5.4)
    assert line.ours == (3800.0, 1000.0, 50.0, None, None)
    text = table.markdown()
    head = "| method | GeoScore (paper, OSV-5M) | GeoScore (ours, OSV-5M) | km (paper, OSV-5M) |"
    assert head in text
    numbers = (
        "3,767 | 3,800 (+33) | 1,069 | 1,000 (-69) | 76.2 | 50.0 ± 15.8 (-26.2) | 44.2 | 5.4 |"
    )
    assert f"| RFM S² | {numbers}" in text
    assert "- RFM S²: a.json, osv5m test: 10 images" in text
    assert "a.json" not in table.markdown(notes=False)
    assert [line.source for line in table.lines if line.source] == ["a.json"]


def test_another_protocol_or_data_set_does_not_belong():
    others = [
        report(**{**GUIDED, "guidance": 0.0}),
        report(**{**GUIDED, "samples": 24}),
        report(**{**GUIDED, "method": "flow"}),
        report("osv5m2 test", **GUIDED),
        report("tiles, test", **GUIDED),
    ]
    table = tables.table("table1-osv5m", {str(i): r for i, r in enumerate(others)})
    assert [line.row for line in table.lines if line.source] == ["FM R³"]
    assert (
        len(
            lines(tables.table("table1-osv5m", {"a": others[-1]}, dataset="tiles"), "RFM S²")[
                0
            ].ours
        )
        == 5
    )


def test_two_reports_of_one_row_are_both_shown():
    table = tables.table(
        "tableA",
        {
            "a": report(**GUIDED),
            "b": report(**GUIDED),
            "c": report(**{**GUIDED, "schedule": "linear"}),
        },
    )
    assert [line.source for line in lines(table, "guided, ω = 2")] == ["a", "b"]
    assert [line.source for line in lines(table, "linear schedule")] == ["c"]


def test_likelihoods_in_r3_stand_beside_the_papers_kind_and_the_fair_one_alone():
    metrics = {
        "bits_per_dimension": -1.0,
        "ambient_bits_per_dimension": -5.5,
        "nll_over_uniform": -7.0,
    }
    table = tables.table(
        "table2-osv5m", {"a": report(metrics=metrics, **{**GUIDED, "method": "flow"})}
    )
    (line,) = lines(table, "FM R³")
    assert line.ours == (-5.5, -7.0)
    assert "| FM R³ | -5.01 | -5.50 (-0.49) | -7.00 |" in table.markdown()


def test_errors_are_those_of_the_report():
    """Deviations over seeds; else errors over images, which follow from the counts for shares."""
    metrics = {"geoscore_error": 50.0, "region": 0.25, "region_missing": 7}
    known = report(metrics=metrics, **GUIDED)
    (line,) = lines(tables.table("table1-osv5m", {"a": known}), "RFM S²")
    share = 100 * (0.25 * 0.75 / 3) ** 0.5
    assert line.errors == pytest.approx((50.0, None, 100 * 0.05**0.5 / 2**0.5, share, None))
    known.deviations["geoscore"] = 7.0
    (line,) = lines(tables.table("table1-osv5m", {"a": known}), "RFM S²")
    assert line.errors[0] == 7.0


def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"unknown table 'table3'.*expected one of 'table1-osv5m'"):
        tables.table("table3", {})
    with pytest.raises(FileNotFoundError, match="no reports"):
        tables.read_reports(tmp_path)
    (tmp_path / "a.json").write_text('{"dataset": "x"}')
    with pytest.raises(ValueError, match=r"a\.json is no report of this version"):
        tables.read_reports(tmp_path)


def test_of_other_data_only_the_order_is_compared():
    """No difference is shown between numbers of different data sets; rows that have both numbers are ranked in either order."""
    ours = {
        "a": report(
            "tiles, test", {"geoscore": 4000.0}, method="vmf-mixture", samples=1, guidance=0.0
        ),
        "b": report("tiles, test", {"geoscore": 3000.0}, **GUIDED),
        "c": report("tiles, test", {"geoscore": 100.0}, method="uniform", samples=1, guidance=0.0),
    }
    table = tables.table("table1-osv5m", ours, dataset="tiles")
    assert not table.comparable
    orders = [[line.row for line in order] for order in table.orders()]
    assert orders == [["RFM S²", "vMF mixture", "Uniform"], ["vMF mixture", "RFM S²", "Uniform"]]
    text = table.markdown()
    assert "| RFM S² | 3,767 | 3,000 |" in text
    assert "ours are on tiles, the paper's on OSV-5M: other images" in text
    assert "ours: vMF mixture; RFM S²; Uniform (no ± is known here" in text
    distances = tables.table(
        "table1-inat21",
        {
            "a": report("inat21 test", **GUIDED),
            "b": report("inat21 test", {"mean_km": 9.0}, method="vmf", samples=1),
        },
    )
    orders = [[line.row for line in order] for order in distances.orders()]
    assert orders == [["RFM S²", "vMF"], ["vMF", "RFM S²"]], "a short distance is good"


def test_an_order_says_which_differences_are_large():
    """No winner is named but where the numbers are more than two standard errors apart."""
    scores = {"riemannian": (4000.0, 30.0), "flow": (3950.0, 30.0), "diffusion": (3500.0, 40.0)}
    ours = {
        method: report(
            "tiles, test",
            {"geoscore": score, "geoscore_error": error},
            **{**GUIDED, "method": method},
        )
        for method, (score, error) in scores.items()
    }
    text = tables.table("table1-osv5m", ours, dataset="tiles").markdown()
    assert "ours: RFM S² ≈ FM R³ > Diffusion R³ (>: by more than two standard errors" in text
    assert "as printed: RFM S²; Diffusion R³; FM R³\n" in text


def result(step, values, data="tiles, test"):
    return Result(step, "laptop", data, {"tiles": "a"}, {}, 60.0, "a machine", "2026-01-01", values)


def test_an_item_tells_the_data_sets_it_lacks():
    item = items.ITEMS["table1"]
    scored = result("score-uniform", {})
    state = item.state({"score-uniform": scored})
    assert state.startswith("without score-riemannian")
    assert state.endswith(", on tiles; not on OSV-5M, iNat21, YFCC4k")
    complete = {step: result(step, {}, "osv5m test") for step in item.steps}
    assert item.state(complete) == "all steps, on OSV-5M; not on iNat21, YFCC4k"
    assert items.ITEMS["fig4"].state({"fig4": result("fig4", {})}) == "all steps"


def test_how_scores_were_obtained_is_one_row_for_each_step():
    how = dict(solver="rk4", steps=16, evaluations=64, seeds=[0], **GUIDED)
    values = report("tiles, test", **how).values()
    text = items.origins({"score-riemannian": result("score-riemannian", values)})
    assert (
        "| score-riemannian | riemannian | 10 | 1, geoscore | 2.0 | skewed-sigmoid | rk4, " in text
    )
    assert items.origins({"fig4": result("fig4", {})}) == ""


def guided(scores):
    """Values of figure 7, the same for both solvers: ω → (GeoScore, F1)."""
    curve = {omega: {"geoscore": score, "f1": f1} for omega, (score, f1) in scores.items()}
    return {"euler": curve, "rk4": curve}


def test_what_figure_7_says_follows_from_its_numbers():
    """Table A's F1 falls by 0.015 from ω = 0 to 2."""
    flat = figures.seen_7(guided({"0": (3000.0, 0.99), "2": (4000.0, 0.985), "10": (2000.0, 0.99)}))
    assert "Euler's highest GeoScore, 4,000, is at ω = 2. At ω = 10 it is 2,000, 50 % less." in flat
    assert "F1 falls by 0.005 from ω = 0 to 2" in flat
    assert "fall of F1 is not reproduced here, where all F1 lie between 0.985 and 0.990" in flat
    falling = guided({"0": (3000.0, 0.99), "2": (4000.0, 0.95), "10": (4500.0, 0.9)})
    assert "fall of F1 is seen here" in figures.seen_7(falling)
    assert "is at ω = 10" in figures.seen_7(falling)


def test_what_figure_5_says_follows_from_its_numbers():
    scores = {"1": 500.0, "16": 3980.0, "64": 3900.0, "256": 4000.0}
    curve = {n: {"geoscore": score} for n, score in scores.items()}
    text = figures.seen_5({"euler": curve, "rk4": {"4": curve["16"], "256": curve["256"]}})
    assert "From 256 evaluations on, Euler's GeoScore is within 1 % of that at 256" in text
    assert "RK4's from 4 on" in text


def test_a_guided_row_of_table_a_shows_the_guided_likelihood():
    metrics = {"bits_per_dimension": -2.0, "guided_bits_per_dimension": 9.0}
    (line,) = lines(
        tables.table("tableA", {"a": report(metrics=metrics, **GUIDED)}), "guided, ω = 2"
    )
    assert line.ours[1] == 9.0
    (line,) = lines(
        tables.table("table2-osv5m", {"a": report(metrics=metrics, **GUIDED)}), "RFM S²"
    )
    assert line.ours[0] == -2.0
