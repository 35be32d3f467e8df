"""What the tests of the lessons' figures share."""

import inspect
from types import ModuleType


def check_every_figure(lessons: ModuleType, figures: dict) -> None:
    """`figures` has one of each public function of a module whose name ends in `_figure`, and each can be drawn."""
    functions = dict(inspect.getmembers(lessons, inspect.isfunction))
    own = {name for name, function in functions.items() if function.__module__ == lessons.__name__}
    public = {name for name in own if name.endswith("_figure") and name[0] != "_"}
    assert figures.keys() == public
    for name, figure in figures.items():
        assert figure._repr_png_().startswith(b"\x89PNG"), name
