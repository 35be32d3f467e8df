"""What the tests of players share: random paths, and places read from a player's bytes."""

import numpy as np
import torch

from geoflow import sphere


def paths(steps: int, n: int, seed: int = 0) -> torch.Tensor:
    """(steps + 1, n, 2) random places."""
    return sphere.to_latlon(sphere.uniform((steps + 1, n), torch.Generator().manual_seed(seed)))


def places_of(player, number: int = 0) -> torch.Tensor:
    """(states, n, 2) degrees, read from the bytes as the browser reads them."""
    panel = player.panels[number]
    shape = panel["states"], panel["count"], 2
    pairs = np.frombuffer(player.data, "<u2", int(np.prod(shape)), panel["start"]).reshape(shape)
    return torch.from_numpy(pairs / [65535, 65536] * [180, 360] - [90, 180])


def apart_km(latlon, others) -> float:
    """The largest distance between places (..., 2) and others."""
    x, y = (
        sphere.from_latlon(torch.as_tensor(places, dtype=torch.float64))
        for places in (latlon, others)
    )
    return float(sphere.distance_km(x, y).max())
