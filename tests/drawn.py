"""What the tests of the lessons' figures share."""

import inspect
import io
from types import ModuleType


def check_every_figure(lessons: ModuleType, figures: dict) -> None:
    """`figures` has one of each public function of a module whose name ends in `_figure`, and each can be drawn."""
    functions = dict(inspect.getmembers(lessons, inspect.isfunction))
    own = {name for name, function in functions.items() if function.__module__ == lessons.__name__}
    public = {name for name in own if name.endswith("_figure") and name[0] != "_"}
    assert figures.keys() == public
    for name, figure in figures.items():
        check_texts_are_inside(figure, name)
        assert figure._repr_png_().startswith(b"\x89PNG"), name


def checked_figures(lessons: ModuleType, figures: dict) -> list[tuple]:
    """Each figure's name, the figure, and its axes that are no maps, after `check_every_figure`."""
    check_every_figure(lessons, figures)
    flat = {
        name: [ax for ax in figure.axes if ax.axison and not hasattr(ax, "projection")]
        for name, figure in figures.items()
    }
    return [(name, figure, flat[name]) for name, figure in figures.items()]


def check_texts_are_inside(figure, name: str) -> None:
    """No title, label or legend is cut by the edges of a figure that has not been drawn before."""
    figure.savefig(io.BytesIO(), dpi="figure")
    texts = [*figure.texts, *(text for legend in figure.legends for text in legend.get_texts())]
    for ax in figure.axes:
        texts += [ax.title, ax.xaxis.label, ax.yaxis.label]
        texts += ax.get_legend().get_texts() if ax.get_legend() else []
    for text in texts:
        if text.get_text().strip() and text.get_visible():
            box = text.get_window_extent()
            inside = (
                box.x0 > -1
                and box.y0 > -1
                and box.x1 < figure.bbox.x1 + 1
                and box.y1 < figure.bbox.y1 + 1
            )
            assert inside, f"{name}: {text.get_text()!r} is cut, {box} in {figure.bbox}"
