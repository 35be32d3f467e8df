"""Derive `land-110m.geojson` from the TopoJSON of npm `world-atlas`: see "Coastlines" in README.md.

    python data/derive_land.py package/land-110m.json data/land-110m.geojson

Rings on a sphere may cross the antimeridian or enclose a pole; a planar polygon may not. Each ring
is unwrapped into continuous longitudes, closed along the pole if it goes around it, and cut into
360° boxes that are moved onto one.
"""

import json
import sys
from pathlib import Path

import numpy as np
import shapely
from shapely.affinity import translate


def decode(topology: dict) -> list[tuple[np.ndarray, list[np.ndarray]]]:
    """Outer ring and holes, (n, 2) longitude and latitude, of every polygon of `land`."""
    transform = topology["transform"]
    scale, origin = np.array(transform["scale"]), np.array(transform["translate"])
    arcs = [np.cumsum(arc, axis=0) * scale + origin for arc in topology["arcs"]]

    def ring(numbers):  # ~i is arc i backwards; neighbours share an end point
        parts = [arcs[i] if i >= 0 else arcs[~i][::-1] for i in numbers]
        return np.concatenate([parts[0], *(part[1:] for part in parts[1:])])

    shapes = topology["objects"]["land"]["geometries"]
    polygons = [rings for shape in shapes for rings in shape["arcs"]]
    return [(ring(outer), [ring(hole) for hole in holes]) for outer, *holes in polygons]


def planar(ring: np.ndarray) -> shapely.Geometry:
    """The part of the plane, longitude by latitude, that a ring on the sphere surrounds."""
    ring = np.stack([np.unwrap(ring[:, 0], period=360), ring[:, 1]], axis=1)
    if abs(ring[-1, 0] - ring[0, 0]) > 180:  # it goes around a pole
        pole = np.copysign(90, ring[:, 1].mean())
        ring = np.concatenate([ring, [[ring[-1, 0], pole], [ring[0, 0], pole]]])
    inside = shapely.make_valid(shapely.Polygon(ring))
    parts = []
    for turn in (-720, -360, 0, 360, 720):
        box = shapely.box(turn - 180, -90, turn + 180, 90)
        parts.append(translate(inside.intersection(box), -turn))
    return shapely.union_all(parts)


if __name__ == "__main__":
    source, target = map(Path, sys.argv[1:])
    polygons = decode(json.loads(source.read_text()))
    parts = []
    for outer, holes in polygons:
        parts.append(planar(outer) - shapely.union_all([planar(hole) for hole in holes]))
    land = shapely.set_precision(shapely.union_all(parts), 0.01)  # about 1 km
    text = shapely.to_geojson(shapely.normalize(land))
    target.write_text(text.replace(".0,", ",").replace(".0]", "]") + "\n")
