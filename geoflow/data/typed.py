"""Values that others wrote: read from JSON, checked by the types of a dataclass, and cut and put on
one line where a message shows them.
"""

import json
import math
import sys
import typing
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any, TypeVar

from geoflow import runtime

Kind = TypeVar("Kind")


def brief(value, most: int = 80) -> str:
    """The text of a value as a message shows it: without its end if it is long.

    >>> brief("x" * 1000, 5)
    'xxxx…'
    """
    text = str(value)
    return text if len(text) <= most else f"{text[: most - 1]}…"


def on_one_line(text: str) -> str:
    """A text whose line breaks and other control characters are escaped.

    >>> on_one_line("two\\nlines")
    'two\\\\nlines'
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def loads(text: str | bytes) -> Any:
    """The values of a JSON. A number that is too large for a double stays the text that it is.

    >>> loads('{"latitude": 1e999, "longitude": 2}')
    {'latitude': '1e999', 'longitude': 2}

    Raises:
        ValueError: it is no JSON, or a name occurs twice in one object.
    """
    once = runtime.unrepeated
    try:
        return json.loads(text, object_pairs_hook=once, parse_int=_number, parse_float=_number)
    except (ValueError, RecursionError) as error:
        raise ValueError(brief(error, 200)) from error


def _number(text: str) -> float | int | str:
    value = float(text)
    if math.isinf(value):
        return text
    return int(text) if text.removeprefix("-").isdigit() else value


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
        raise ValueError(f"see {brief(', '.join(sorted(wrong)))}")
    for name, value in found.items():
        _check(name, value, hints[name])
    return kind(**found)


def _check(name: str, value: Any, hint: Any) -> None:
    plain = typing.get_origin(hint) or hint
    if plain in (Any, object):
        return
    accepted = (int, float) if plain is float else plain
    if not isinstance(value, accepted) or (isinstance(value, bool) and plain is not bool):
        raise ValueError(f"{brief(name)} = {brief(value)!r}; expected a {plain.__name__}")
    if plain is float and not abs(value) <= sys.float_info.max:
        raise ValueError(f"{brief(name)} = {brief(value)}; expected a finite number")
    if plain is dict:
        for key, part in value.items():
            _check(f"{name}.{key}", part, typing.get_args(hint)[1])
