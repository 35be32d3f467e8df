"""Dataclasses from JSON: values of the fields' types, and nothing else."""

from dataclasses import dataclass, field
from typing import Any

import pytest

from geoflow.data import typed


@dataclass
class Run:
    name: str
    seconds: float
    scores: dict[str, float]
    about: dict[str, Any]
    number: int
    rows: dict[str, object] = field(default_factory=dict)


VALUES: dict[str, Any] = {"name": "a", "seconds": 1, "scores": {"nll": -2}, "number": 3}
VALUES["about"] = {"any": [None, {"thing": True}]}


def test_values_of_the_right_types_are_kept():
    assert typed.from_json(Run, VALUES) == Run(**VALUES)


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("name", 5, "a str"), ("name", None, "a str"), ("seconds", "1", "a float"), ("seconds", True, "a float"), ("seconds", float("inf"), "a finite number"), ("seconds", 10**400, "a finite number"), ("scores", {"nll": -(10**400)}, "a finite number"),
        ("scores", [], "a dict"), ("scores", {"nll": None}, "a float"), ("scores", {"nll": float("nan")}, "a finite number"), ("number", 1.5, "an? int"), ("about", "x", "a dict"),
    ],
)  # fmt: skip
def test_values_of_other_types_are_named(name, value, expected):
    with pytest.raises(ValueError, match=rf"{name}.* = .*; expected {expected}"):
        typed.from_json(Run, VALUES | {name: value})


@pytest.mark.parametrize(
    "change", [{"name": ["x" * 5000]}, {"seconds": 10**4000}, {"scores": {"x" * 5000: None}}, {"x" * 5000: 1}]
)  # fmt: skip
def test_long_values_are_cut(change):
    with pytest.raises(ValueError, match="…") as error:
        typed.from_json(Run, VALUES | change)
    assert len(str(error.value)) < 300


def test_numbers_of_json_are_themselves_or_a_text():
    found = typed.loads(
        '[1, -0, 1.5, -1e5, 1e308, 1e309, -1e309, 12345678901234567890, null, "1e999"]'
    )
    assert found == [1, 0, 1.5, -1e5, 1e308, "1e309", "-1e309", 12345678901234567890, None, "1e999"]
    assert [type(value) for value in found[:4]] == [int, int, float, float]
    assert typed.loads("1" + "0" * 308) == 10**308
    assert typed.loads("-1" + "0" * 5000) == "-1" + "0" * 5000


@pytest.mark.parametrize("name", VALUES)
def test_a_missing_field_is_named(name):
    with pytest.raises(ValueError, match=f"see {name}"):
        typed.from_json(Run, {key: value for key, value in VALUES.items() if key != name})


def test_an_unknown_field_is_named():
    with pytest.raises(ValueError, match="see colour"):
        typed.from_json(Run, VALUES | {"colour": 1})
