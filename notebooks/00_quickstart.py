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
# # 00 · Quickstart
#
# **You will learn**
# 1. how to get from an image to a map of where it could have been taken, in ten lines;
# 2. what the model answers with: samples, a density, a few best places, and how sure it is;
# 3. that images differ in how well they can be located, and how to measure it;
# 4. what the model does not know.
#
# | Needs | Minutes (laptop / GPU) | Produces |
# |---|---|---|
# | an installed geoflow, nothing else | 2 / not needed | figures only |
#
# "Images" are square satellite tiles here, 300 km wide and 32 × 32 pixels, cut from NASA's Blue Marble, which comes
# with the installation. The question is the same as for photos: *where on Earth is this?*

# %% tags=["parameters"]
from geoflow.settings import by_scale

seed = 0
your_place = (30.5, 31.0)  # latitude, longitude in degrees: the Nile delta; try any other
samples_per_image = by_scale(200, 1000, 1000)
mapped = by_scale(("coast",), ("ocean", "ice", "coast", "taiga"), ("ocean", "Sahara", "ice", "Amazon", "coast", "taiga"))
scored_images = by_scale(20, 50, 1000)  # of each kind, in the last section
samples_of_entropy = by_scale(128, 128, 1024)

# %% [markdown]
# ## Ten lines to a map
#
# *What to look for:* the tile, at the left, shows a dry cape between two seas: the Horn of Africa. The colours say how
# probable each region is; the cyan cross marks the true place, the numbered rings are the model's three best answers.

# %%
from geoflow import Geolocator, maps
from geoflow.data import tiles

geo = Geolocator.from_pretrained("tiles")
truth = tiles.EXAMPLES["coast"]  # 12° N, 50.5° E
image = tiles.tile(*truth)
density = geo.density(image)
best = geo.predict(image, k=3, seed=seed)
maps.density_figure(density, image, truth, best.latlon[0], best.mass[0])

# %% [markdown]
# *What was seen:* not a pin but a distribution. The cape is in it, and so are other desert coasts, up to the
# Mediterranean. The scale is logarithmic; what is less probable than a blind guess is left blank.
#
# What did we load? A model that fits into a few megabytes: an encoder, which turns a tile into 256 numbers, and a
# velocity network, which moves points on the sphere. Its file tells how it was made.

# %%
parameters = {
    "encoder": sum(p.numel() for p in geo.encoder.parameters()),
    "velocity network": sum(p.numel() for p in geo.network.parameters()),
}
print({name: f"{count:,} parameters" for name, count in parameters.items()})
print({key: geo.provenance[key] for key in ("method", "seconds", "machine", "torch")})

# %% [markdown]
# ## Samples
#
# The basic answer is a list of places, each a draw from p(place | image). Latitude and longitude, in degrees, in this
# order. The same seed gives the same places.

# %%
places = geo.sample(image, n=samples_per_image, seed=seed)  # (B, n, 2): one image, n places
print(tuple(places.shape))
for lat, lon in places[0, :5].tolist():
    print(f"{abs(lat):5.1f}° {'NS'[lat < 0]} {abs(lon):6.1f}° {'EW'[lon < 0]}")

# %% [markdown]
# *What to look for:* dots are dense where the map above is dark. Samples and density are two views of one distribution.

# %%
ax = maps.world()
maps.draw_points(ax, places[0], size=4)
maps.draw_truth(ax, truth)
ax.figure

# %% [markdown]
# ## A few answers
#
# Somebody who needs one answer, or three, calls `predict`. Of the samples it picks the k places that together answer
# best; `mass` is the share of the samples nearest to each, `radius_km` the distance within which half of those lie.

# %%
for (lat, lon), mass, radius in zip(best.latlon[0].tolist(), best.mass[0].tolist(), best.radius_km[0].tolist(), strict=True):
    print(f"{mass:4.0%}  {abs(lat):5.1f}° {'NS'[lat < 0]} {abs(lon):6.1f}° {'EW'[lon < 0]}   half of them within {radius:,.0f} km")

# %% [markdown]
# ## Where the answers come from
#
# A sample starts as a point drawn uniformly on the Earth: noise. For one unit of time it follows a velocity field that
# depends on the image. *What to look for:* left, paths from noise (grey) to places (dark); right, all points at four
# times. Early on, nothing seems to happen.

# %%
from geoflow import schedules

steps = 32
ways = geo.trajectories(image, n=by_scale(100, 400, 400), steps=steps, seed=seed)[:, 0]  # (steps + 1, n, 2)
maps.trajectories_figure(ways, schedules.time_grid(geo.schedule, steps), image, truth)

# %% [markdown]
# *What was seen:* the points gather late and quickly. Why that is so, what the field is and how it is learned:
# notebooks 01 to 05.
#
# ## Tiles that tell something
#
# *What to look for:* one colour scale for all maps. Which tile gives one place, which gives several, and which hardly
# any answer? The ice comes with a view of the South Pole, which a world map flattens.

# %%
densities = {name: density if name == "coast" else geo.density(tiles.tile(*tiles.EXAMPLES[name])) for name in mapped}
panels = [
    {
        "density": densities[name],
        "image": tiles.tile(*tiles.EXAMPLES[name]),
        "truth": tiles.EXAMPLES[name],
        "title": name,
        "inset": "south-pole" if name == "ice" else None,
    }
    for name in mapped
]
maps.contact_sheet(panels)

# %% [markdown]
# *What was seen:* the forest gives one small region: it is the mix of colours, more than any shape, that this model has
# learned. The ice gives the middle of a continent. The open ocean gives a part of a basin: there is little in the
# picture, and the model knows it. The coast surprises: to a person its shape is the clearest clue of all; the model gives
# the right cape a good chance, but keeps other warm desert coasts in play.
#
# ## How sure?
#
# The **localizability** of an image puts this into one number: the negative entropy of its distribution, ∫ p log₂ p, in
# bits. A model that knows nothing has −3.65. Each bit more halves the area in which the place could be.

# %%
names = list(tiles.EXAMPLES)
bits = dict(
    zip(names, geo.localizability([tiles.tile(*tiles.EXAMPLES[name]) for name in names], n=samples_of_entropy).tolist(), strict=True)
)
for name in sorted(names, key=bits.get):
    print(f"{name:8s} {bits[name]:5.1f} bits: as sure as a uniform guess within {6371**2 * 2 ** -bits[name]:12,.0f} km²")

# %% [markdown]
# *What was seen:* the order of the maps. The ocean is the hardest, the coast next, the taiga the easiest.
#
# ## Your place
#
# `tiles.tile(latitude, longitude)` cuts a tile anywhere. Change `your_place` in the first code cell, and run this one.
# (An image of your own works too: `geo.density("tile.png")`, as long as it is a satellite view, some 300 km wide, north
# up.)

# %%
your_tile = tiles.tile(*your_place)
your_density, your_best = geo.density(your_tile), geo.predict(your_tile, seed=seed)
maps.density_figure(your_density, your_tile, your_place, your_best.latlon[0], your_best.mass[0])

# %% [markdown]
# ## What the model does not know
#
# **Some regions were never shown to it.** A fifth of the Earth, in blocks of 7°, was *held out* of the training tiles.
# What happens there? GeoScore rates a guess from 0 to 5000 (every 1,493 km costs a factor of e). The last column counts
# how often a sample lies in *any* held-out block.

# %%
from geoflow import evaluate, sphere

reports, samples_held_out = {}, {}
for split in ("test", "held-out"):
    examples = tiles.load(split, scored_images)
    reports[split] = evaluate(geo, examples, split, steps=8, likelihood=False, seed=seed).metrics
    drawn = geo.sample(cond=geo.encoder.embed(examples.images), n=20, steps=8, seed=seed)
    samples_held_out[split] = tiles.is_held_out(sphere.from_latlon(drawn).float()).double().mean().item()
print(f"{scored_images} tiles of       GeoScore   median error   samples in held-out blocks")
for split, name in (("test", "seen regions"), ("held-out", "held-out ones")):
    scores = reports[split]
    print(f"{name:18s} {scores['geoscore']:9.0f} {scores['median_km']:11,.0f} km {samples_held_out[split]:17.0%}")

# %% [markdown]
# *What was seen:* in a held-out region the model is far worse, though not lost: it looks for the nearest similar
# landscape that it knows. It has learned, rightly for its training data, that no tile ever comes from those blocks. A
# probability is one *under the training distribution*. This is true of every model of this kind, also of those trained
# on photos.
#
# **It answers any picture.** Here is one of random colours:

# %%
import numpy as np
from PIL import Image

noise = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))
nonsense = geo.predict(noise, seed=seed)
(lat, lon), noise_bits = nonsense.latlon[0, 0].tolist(), geo.localizability(noise, n=samples_of_entropy).item()
print(f"random colours: {abs(lat):.0f}° {'NS'[lat < 0]}, {abs(lon):.0f}° {'EW'[lon < 0]}, with {noise_bits:.1f} bits")

# %% [markdown]
# A place, and with some confidence. Localizability tells how many places on Earth fit an image; not whether it is an
# image of the Earth.
#
# ## Check
#
# The quantities that the text relies on.

# %%
assert places.shape == (1, samples_per_image, 2)
assert (geo.sample(image, n=5, seed=seed) == geo.sample(image, n=5, seed=seed)).all()
assert all(abs(d.integral - 1) < 0.02 for d in densities.values()), "a density integrates to one"
assert 0.1 < density.mass(lambda latlon: sphere.distance_km(sphere.from_latlon(latlon), sphere.from_latlon(truth)) < 500) < 0.9
assert min(bits, key=bits.get) == "ocean"
assert max(bits, key=bits.get) == "taiga"
assert min(bits.values()) > -3.65
assert reports["held-out"]["geoscore"] < reports["test"]["geoscore"]
assert samples_held_out["test"] < 0.1
print("all checks passed")

# %% [markdown]
# ## Where to go from here
#
# * The mathematics from the beginning: `01_the_sphere`, `02_flow_matching_in_the_plane`,
#   `03_flow_matching_on_the_sphere`.
# * The network and its training: `04_the_velocity_network`, `05_training_images_to_places`.
# * The same from the command line: `geoflow locate tile.png`; all settings: `geoflow --help`.
#
# **References.** N. Dufour, D. Picard, V. Kalogeiton, L. Landrieu, *Around the World in 80 Timesteps: A Generative
# Approach to Global Visual Geolocation*, CVPR 2025, arXiv 2412.06781. Imagery: R. Stöckli et al., *The Blue Marble Next
# Generation*, NASA Earth Observatory, 2005, public domain.
