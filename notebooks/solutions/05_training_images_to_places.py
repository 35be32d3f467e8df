# ---
# jupyter:
#   jupytext:
#     formats: ipynb,py:percent
#     cell_metadata_filter: tags,slideshow,-all
#     notebook_metadata_filter: kernelspec,-jupytext.text_representation.jupytext_version
#     text_representation:
#       extension: .py
#       format_name: percent
#       format_version: '1.3'
#   kernelspec:
#     display_name: Python 3 (ipykernel)
#     language: python
#     name: python3
# ---

# %% [markdown]
# # 05 · Training: images to places: solutions
#
# **You will learn** how the exercises of notebook 05 can be solved. Try them first. The check cells are those of the notebook.
#
# | Needs | Time to read | Time to run (laptop / GPU) | Produces |
# |---|---|---|---|
# | notebook 05 | 10 minutes | 1 minute / not needed | text only |
#
# Words are explained in notebook 05 and in the [glossary](../GLOSSARY.md).

# %% tags=["parameters"]
from geoflow.runtime import by_scale

seed = 0
training_tiles = by_scale(2000, 20_000, 20_000)
scored = by_scale(40, 400, 2000)  # tiles of each kind

# %%
import dataclasses
import math

import torch

from geoflow import Geolocator, metrics, sphere
from geoflow.data import tiles

train = tiles.draw(training_tiles, "train", torch.Generator().manual_seed(seed))[0]  # places only
parts = {split: tiles.load(name, scored) for split, name in (("seen", "test"), ("held-out", "held-out"))}
test, held_out = parts.values()

# %% [markdown]
# ## Exercise 1 · What a random split hides
#
# **Stage 1a.** The nearest place on a sphere is the one with the largest scalar product, so the distance needs to be computed for one place only. `argmax`
# finds it without an (n, m) table of distances.


# %%
def nearest_km(test_x, train_x):
    """Unit vectors (n, 3) and (m, 3) → distances in km (n,)."""
    return sphere.distance_km(test_x, train_x[(test_x @ train_x.T).argmax(1)])


# %%
def check_1a():
    a, b = sphere.uniform(40, torch.Generator().manual_seed(1)), sphere.uniform(60, torch.Generator().manual_seed(2))
    if nearest_km(a, b) is None:
        return "Exercise 1a is still to be solved"
    expected = torch.stack([sphere.distance_km(x, b).min() for x in a])
    torch.testing.assert_close(nearest_km(a, b), expected, atol=0.5, rtol=1e-3)
    return "Exercise 1a: right"


print(check_1a())


# %% [markdown]
# **Stage 1b.** The notebook asks for the first 20,000 places of its training tiles; here are 20,000 others of the same distribution.

# %%
share_near = {name: (nearest_km(part.x, train) < 200).double().mean().item() for name, part in parts.items()}
median = {name: nearest_km(part.x, train).median().item() for name, part in parts.items()}
for name in parts:
    print(
        f"{name}: {share_near[name]:.0%} of the test tiles have a training tile nearer than 200 km; median distance {median[name]:.0f} km"
    )

# %% [markdown]
# Nearly every test tile of a seen region shares ground with a training tile, although the images differ. So a high score in seen regions says that the model
# has learned the map of the Earth. It does not say what the model would answer in a place that it never saw. In held-out blocks no test tile has a training
# tile so near, because no tile crosses the border of a block.
#
# ## Exercise 2 · What geocells cost
#
# **Stage 2a.** Again the nearest centre has the largest scalar product.


# %%
def cell_of(x, centers):
    """Places (n, 3) and centres (K, 3) → number of the cell of each place (n,)."""
    return (x @ centers.T).argmax(-1)


# %%
def check_2a():
    centers, x = sphere.fibonacci_grid(1000), sphere.uniform(5000, torch.Generator().manual_seed(0))
    if cell_of(x, centers) is None:
        return "Exercise 2a is still to be solved"
    assert (cell_of(centers, centers) == torch.arange(1000)).all(), "a centre belongs to its own cell"
    assert torch.equal(cell_of(x, centers), torch.cdist(x, centers).argmin(1)), "the nearest centre is another one"
    return "Exercise 2a: right"


print(check_2a())


# %% [markdown]
# **Stage 2b.** Draw uniform places, find their cells, and score the distance to the centre.

# %%
somewhere = sphere.uniform(20_000, torch.Generator().manual_seed(seed))
ceiling = {}
for K in (100, 1000, 10_000):
    centers = sphere.fibonacci_grid(K)
    own = torch.cat([cell_of(x, centers) for x in somewhere.split(1000)])
    km = sphere.distance_km(somewhere, centers[own])
    ceiling[K] = metrics.geoscore(km).mean().item()
    print(f"{K:6,} cells: mean distance to the centre {km.mean():4.0f} km")

# %%
if None in ceiling.values():
    print("Exercise 2b is still to be solved")
else:
    for K, score in ceiling.items():
        distance = sphere.EARTH_RADIUS_KM * torch.linspace(0, 1, 1001)[1:].sqrt() * 2 / K**0.5  # a disc of the area of a cell
        true = metrics.geoscore(distance).mean().item()
        print(f"{K:6,} cells: {float(score):.0f}, {'right' if abs(score - true) < 0.02 * true else 'not yet'}")


# %% [markdown]
# More cells raise the ceiling, but each cell then has fewer training tiles, and a classifier that misses does not know that its neighbour was nearly right. A
# flow has no cells: it learns one density for all places.
#
# ## Exercise 3 · What clouds cost
#
# **Stage 3a.** Clouds appear where a random field exceeds a level that depends on `cover`; with a cover of 0 no pixel does.

# %%
x, views = tiles.draw(by_scale(20, 200, 1000), "test", torch.Generator().manual_seed(1))


def without_clouds(views):
    return dataclasses.replace(views, cover=torch.zeros_like(views.cover))


# %%
def check_3a():
    clear = without_clouds(views)
    if clear is None:
        return "Exercise 3a is still to be solved"
    assert (clear.cover == 0).all(), "there are still clouds"
    assert torch.equal(clear.heading, views.heading), "the views must differ in their clouds alone"
    assert views.cover.max() > 0.3, "the given views must stay as they are"
    return "Exercise 3a: right"


print(check_3a())


# %% [markdown]
# **Stage 3b.** Each tile is its own control: the same place, light and direction with and without clouds, and the same noise (`seed`).


# %%
def score_of_each(geo, images):
    samples = sphere.from_latlon(geo.sample(cond=geo.embed(images), n=24, seed=seed))
    return metrics.geoscore(metrics.error_km(metrics.best_for_geoscore(samples), x))


shipped = Geolocator.from_pretrained("tiles")
cloudy, clear = (score_of_each(shipped, tiles.render(x, v)) for v in (views, without_clouds(views)))
print(f"GeoScore with clouds {cloudy.mean():.0f}, without {clear.mean():.0f}")
cost, standard_error = (clear - cloudy).mean().item(), (clear - cloudy).std().item() / math.sqrt(len(x))

# %%
if None in (cost, standard_error):
    print("Exercise 3b is still to be solved")
else:
    print(
        f"clouds cost {cost:.0f} ± {standard_error:.0f} of GeoScore:",
        "clearly more than nothing" if cost > 2 * standard_error else "not clear",
    )


# %% [markdown]
# Two separate means have larger errors, because tiles differ much among themselves. The difference within a tile does not contain this variation:

# %%
apart = math.hypot(clear.std().item(), cloudy.std().item()) / math.sqrt(len(x))
print(f"standard error of the difference: {standard_error:.0f} with pairs, {apart:.0f} as if the tiles were different ones")
assert standard_error < apart
