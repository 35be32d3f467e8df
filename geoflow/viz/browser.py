"""A flow map for the browser: its weights as bytes, which `static/flowmap.js` computes with.

Weights become float16, a quarter of a thousandth coarse, and what the network makes of an image is
computed here: the page holds the images that it can answer for, and no encoder.
"""

from typing import Any

import torch
from torch import Tensor

from geoflow import schedules
from geoflow.flowmap import MAP
from geoflow.flowmap.network import MOST_GUIDANCE, SCALE
from geoflow.geolocator import Geolocator

JUMPS = (1, 2, 4, 8)


def pack_map(geo: Geolocator, cond: Tensor) -> tuple[dict[str, Any], bytes]:
    """A description of a flow map's network, and the bytes that it refers to.

    >>> from geoflow.flowmap.network import FlowMapTransformer
    >>> network = FlowMapTransformer(8, dim=16, depth=1, fourier=4, guess="riemannian")
    >>> about, data = pack_map(Geolocator(network, "flow-map"), torch.zeros(2, 8))
    >>> about["tensors"]["images"]
    {'start': 0, 'shape': [2, 16]}

    Args:
        geo: a flow map with random features of the place, and a head that guesses (`guess`).
        cond: (B, C) embeddings of the images.

    Returns:
        The sizes that `readNetwork` in `static/flowmap.js` reads, with the start and the shape of
        each tensor, and the tensors as float16, little-endian. `images` is (B, d).

    Raises:
        ValueError: another method, or a network that the script does not have.
    """
    if geo.method != MAP:
        raise ValueError(f"method {geo.method!r}; expected {MAP!r}: solvers are not in the page")
    network: Any = geo.network
    config = network.config
    drawn = config.get("guess") and config["fourier"] and config["cond_dim"]
    if not drawn or config.get("octaves"):
        raise ValueError(f"a network {config}; expected cond_dim, fourier, guess and no octaves")
    state = {
        name: value for name, value in network.state_dict().items() if "embed_cond" not in name
    }
    with torch.no_grad():
        tensors = {"images": network.embed_cond(cond.to(geo.device)), **state}
    # The script takes pairs, so an odd number gets a row of zeros.
    for name in ("head.weight", "head.bias"):
        tensors[name] = torch.cat([tensors[name], torch.zeros_like(tensors[name][:1])])
    described, data = {}, bytearray()
    for name, value in tensors.items():
        described[name] = {"start": len(data), "shape": list(value.shape)}
        data += value.detach().cpu().half().numpy().astype("<f2").tobytes()
    sizes = {name: config[name] for name in ("dim", "depth", "expansion", "fourier")}
    clocks = {"clock": network.clock, "scale": config["time_scale"], "added": SCALE}
    about = {**sizes, **clocks, "most": MOST_GUIDANCE, "tensors": described}
    about["times"] = {
        str(jumps): schedules.time_grid(geo.schedule, jumps).tolist() for jumps in JUMPS
    }
    return about, bytes(data)
