"""Clear errors for bad input: each names the value, what was expected and, for names, the nearest match."""

import difflib
from collections.abc import Iterable


def choose(what: str, name: str, options: Iterable[str]) -> str:
    """Return `name` if it is one of `options`.

    Raises:
        ValueError: it is not; the message lists the options and suggests the nearest.
    """
    options = list(options)
    if name in options:
        return name
    near = difflib.get_close_matches(str(name), options, n=1, cutoff=0.4)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    raise ValueError(f"unknown {what} {name!r}{hint}; expected one of {', '.join(map(repr, options))}")
