"""Dataclasses from JSON objects whose values have the types of the fields, and nothing else."""

import math
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

Kind = TypeVar("Kind")


def from_json(kind: type[Kind], found: Mapping[str, Any]) -> Kind:
    """A dataclass from a JSON object.

    >>> from dataclasses import dataclass
    >>> @dataclass
    ... class Run:
    ...     name: str
    ...     scores: dict[str, float]
    >>> from_json(Run, {"name": "a", "scores": {"nll": 1}})
    Run(name='a', scores={'nll': 1})

    Raises:
        ValueError: a field is missing, unknown, or has a value of another type; a number is not
            finite.
    """
    hints = typing.get_type_hints(kind)
    known = {each.name: each for each in fields(kind)}  # ty: ignore[invalid-argument-type]
    needed = {name for name, each in known.items() if each.default_factory is MISSING}
    if wrong := (needed - found.keys()) | (found.keys() - known.keys()):
        raise ValueError(f"see {', '.join(sorted(wrong))}")
    for name, value in found.items():
        _check(name, value, hints[name])
    return kind(**found)


def _check(name: str, value: Any, hint: Any) -> None:
    plain = typing.get_origin(hint) or hint
    if plain in (Any, object):
        return
    accepted = (int, float) if plain is float else plain
    if not isinstance(value, accepted) or (isinstance(value, bool) and plain is not bool):
        raise ValueError(f"{name} = {str(value)[:80]!r}; expected a {plain.__name__}")
    if plain is float and not math.isfinite(value):
        raise ValueError(f"{name} = {value}; expected a finite number")
    if plain is dict:
        for key, part in value.items():
            _check(f"{name}.{key}", part, typing.get_args(hint)[1])
