"""What figures share: colours, style, names of methods; loss curves, and figures as files."""

import io
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.figure import Figure
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from geoflow.gis.files import source
from geoflow.runtime import replacing
from geoflow.viz.basemap import MapFigure, new_figure

# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008), and a grey.
BLUE, ORANGE, RED, GREEN, GREY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#7f8c99"
PINK, PALE = "#CC79A7", "#c6d3e1"
STYLE: dict[Any, Any] = {  # matplotlib's settings for the figures of the notebooks
    "font.size": 9,
    "axes.titlesize": 9,
    "legend.frameon": False,
    "axes.spines.top": False,
    "axes.spines.right": False,
}
METHODS = {  # name of a method → what readers call it
    "riemannian": "Riemannian flow, S²",
    "flow": "flow matching, R³",
    "diffusion": "diffusion, R³",
    "vmf": "von Mises–Fisher",
    "vmf-mixture": "mixture of three vMF",
    "retrieval": "retrieval",
    "land": "land, without looking",
    "uniform": "uniform",
}
Curve = list[tuple[int, float]]


def save_figure(figure: Figure, file: Path, dpi: int = 120, about: dict | None = None) -> None:
    """Write a figure as a small PNG on white; an interruption leaves no half file.

    `about` becomes its text `source`.
    """
    texts = PngInfo()
    for name, text in source(about).items():
        texts.add_text(name, text)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    with replacing(file) as partial:
        Image.open(buffer).convert("RGB").save(partial, "PNG", optimize=True, pnginfo=texts)


def losses_figure(
    curves: dict[str, dict[str, Curve]], labels: dict[str, str], blind: dict[str, float]
) -> MapFigure:
    """Loss curves of the parts of a run, side by side.

    `curves` holds for each part what `geoflow.training.loss_curve` gives, `labels` the name of its
    vertical axis with the unit. `blind` has the loss of a network that knows nothing, as a dotted
    line, for the parts where it is known.

    >>> curves = {"flow": {"loss": [(1, 2.0), (2, 1.0)], "val_loss": []}}
    >>> figure = losses_figure(curves, {"flow": "loss (rad²)"}, {"flow": 2.9})
    """
    with matplotlib.rc_context(STYLE):
        figure = new_figure(9, 3)
        axes = figure.subplots(1, len(curves), squeeze=False)[0]
        for ax, (part, curve) in zip(axes, curves.items(), strict=True):
            kinds = {"loss": ("training batch", GREY, 0.6), "val_loss": ("validation", BLUE, 1.6)}
            for kind, (label, color, width) in kinds.items():
                if curve[kind]:
                    steps, values = zip(*curve[kind], strict=True)
                    ax.plot(steps, values, color=color, lw=width, label=label)
            if part in blind:
                ax.axhline(blind[part], color=RED, lw=1, ls=":", label="knowing nothing")
            ax.set(title=part, xlabel="training step", ylabel=labels[part])
        handles, names = axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=3)
    return figure
