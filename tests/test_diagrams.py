"""Diagrams: no text is cut, and the network's names every layer that it has."""

import torch
from drawn import check_every_figure

from geoflow.velocity import VelocityTransformer
from geoflow.viz import diagrams


def test_every_diagram_is_drawn():
    figures = {
        "network_figure": diagrams.network_figure(),
        "pipeline_figure": diagrams.pipeline_figure(1000, 256),
    }
    check_every_figure(diagrams, figures)


def test_the_diagram_names_every_layer_of_the_network():
    network = VelocityTransformer(8, dim=16, depth=1)
    layers = {
        (m.in_features, m.out_features) for m in network.modules() if isinstance(m, torch.nn.Linear)
    }
    sizes = {"3": 3, "C": 8, "d": 16, "3d": 48, "4d": 64}
    shown = set()
    for text in (t.get_text() for ax in diagrams.network_figure().axes for t in ax.texts):
        if text.startswith("Linear "):
            a, b = text.removeprefix("Linear ").split(" → ")
            shown.add((sizes[a], sizes[b]))
    assert shown == layers - {(4, 16), (16, 16), (16, 32)}, (
        "all but time's MLP and the last LayerNorm's"
    )
