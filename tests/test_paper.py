"""The printed tables, and which of our numbers stand beside them."""

import pytest

from geoflow.evaluation import Report
from geoflow.paper import tables

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
    assert (
        "| RFM S² | 3,767 → 3,800 (+33) | 1,069 → 1,000 (-69) | 76.2 → 50.0 (-26.2) | 44.2 | 5.4 |"
        in table.markdown()
    )
    assert "- RFM S²: a.json, osv5m test: 10 images" in table.markdown()
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
    assert "| FM R³ | -5.01 → -5.50 (-0.49) | → -7.00 |" in table.markdown()


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
    assert table.orders() == (
        ["RFM S²", "vMF mixture", "Uniform"],
        ["vMF mixture", "RFM S²", "Uniform"],
    )
    text = table.markdown()
    assert "| RFM S² | 3,767 → 3,000 |" in text
    assert "printed, on osv5m → ours, on tiles: other data" in text
    assert "- ours: vMF mixture > RFM S² > Uniform" in text
    distances = tables.table(
        "table1-inat21",
        {
            "a": report("inat21 test", **GUIDED),
            "b": report("inat21 test", {"mean_km": 9.0}, method="vmf", samples=1),
        },
    )
    assert distances.orders() == (["RFM S²", "vMF"], ["vMF", "RFM S²"]), "a short distance is good"


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
