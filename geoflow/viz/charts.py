"""What figures share: colours, style, names of methods; loss curves, and figures as files."""

import io
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from PIL import Image

from geoflow.runtime import replacing

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


def save_figure(figure: Figure, file: Path, dpi: int = 120) -> None:
    """Write a figure as a small PNG on white; an interruption leaves no half file."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=dpi, facecolor="white")
    with replacing(file) as partial:
        Image.open(buffer).convert("RGB").save(partial, "PNG", optimize=True)


def loss_figure(curves: dict[str, dict[str, Curve]], units: dict[str, str]) -> Figure:
    """Draw the loss curves of the parts of a run, side by side.

    For each part, `curves` holds what `geoflow.training.loss_curve` gives, and `units` the label of
    the vertical axis.
    """
    figure = Figure(figsize=(7, 2.6), layout="constrained")
    shown = {"loss": ("training batch", "#9ecae1"), "val_loss": ("validation", "#08519c")}
    axes = figure.subplots(1, len(curves), squeeze=False)[0]
    for ax, (part, losses) in zip(axes, curves.items(), strict=True):
        for name, (label, color) in shown.items():
            if losses[name]:
                ax.plot(*zip(*losses[name], strict=True), color=color, label=label)
        ax.set(title=part, xlabel="step", ylabel=units[part])
        ax.legend(frameon=False)
    return figure
