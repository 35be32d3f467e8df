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
# 2. what the model answers: samples, a density, a few best places, and how sure it is;
# 3. why one image can have several right answers, and how to measure how well it can be located;
# 4. what the model does not know.
#
# | Needs | Time to read | Time to run (laptop / GPU) | Produces |
# |---|---|---|---|
# | an installed geoflow, nothing else | 20 minutes | 2 minutes / not needed | figures only |
#
# The question is the same as for photos: *where on Earth is this?* Our images are **tiles**: square satellite pictures of 32 × 32 pixels, cut from NASA's
# Blue Marble, which comes with the installation. Technical words are explained where they first appear, and in the [glossary](GLOSSARY.md).

# %% tags=["parameters"]
from geoflow.runtime import by_scale

seed = 0
your_place = (30.5, 31.0)  # latitude, longitude in degrees: the Nile delta; try any other
samples_per_image = by_scale(200, 1000, 1000)
mapped = by_scale(("coast",), ("ocean", "ice", "coast", "taiga"), ("ocean", "Sahara", "ice", "Amazon", "coast", "taiga"))
scored_tiles = by_scale(20, 200, 2000)  # of each kind, in the section on what the model does not know
entropy_samples = by_scale(64, 256, 1024)  # per image, to measure how sure the model is
coarser = by_scale(10, 1, 1)  # a density map with a coarser grid is quicker, and less exact

# %% [markdown]
# ## The images
#
# A tile is a view from above. As a photo may be taken in any direction and in any weather, a tile may have any direction at its top, shows 200 to 400 km from
# side to side, has any brightness and tint, and is partly hidden by clouds (up to 60 %).
#
# **Predict before you run:** for which of these tiles could you name the continent?

# %%
from geoflow.data import tiles
from geoflow.viz import lessons_training as figures

some = tiles.load("test", 100)[:16]
figures.tiles_figure([some.images[:8], some.images[8:]], [[""] * 8, [""] * 8])

# %% [markdown]
# **What was seen:** mostly colours, a few shapes, and clouds. A blue tile could be in any ocean. For such an image a single place is the wrong kind of
# answer. The right kind is a **distribution**: it gives a probability to every region of the Earth.
#
# ## Ten lines to a map
#
# We take a tile without clouds and with north at its top, the Horn of Africa: a dry cape between two seas.
#
# **What to look for:** the tile is at the left. The colours say how probable each region is, on a logarithmic scale; where a place is less probable than by a
# uniform guess over the whole Earth, the map is left without colour. The cyan cross marks the true place, the numbered rings are the model's three best
# answers.

# %%
from geoflow import Geolocator, maps

geo = Geolocator.from_pretrained("tiles")
truth = tiles.EXAMPLES["coast"]  # 12° N, 50.5° E
image = tiles.tile(*truth)
density = geo.density(image, coarser=coarser)
best = geo.predict(image, k=3, seed=seed)
maps.density_figure(density, image, truth, best.latlon[0], best.mass[0])

# %% [markdown]
# **What was seen:** the answer is a probability map. One of its regions is the cape. The others are further dry coasts, above all those of North Africa, of
# Arabia and of Mexico. How much of the probability lies near the truth?

# %%
import math

from geoflow import sphere


def near_truth(latlon):
    """Whether places (..., 2) are within 500 km of the true place."""
    return sphere.distance_km(sphere.from_latlon(latlon), sphere.from_latlon(truth)) < 500


mass_near_truth = density.mass(near_truth)
print(
    f"probability within 500 km of the true place: {mass_near_truth:.0%}; by a uniform guess: {math.pi * 500**2 / sphere.EARTH_AREA_KM2:.2%}"
)

# %% [markdown]
# What did we load? It consists of two networks. The **encoder** turns a tile into 256 numbers, its *embedding*. The **velocity network** moves points on the
# sphere, from random places to places where this tile could be. Notebook 05 trains both.

# %%
parameters = {
    "encoder": sum(p.numel() for p in geo.encoder.parameters()),
    "velocity network": sum(p.numel() for p in geo.network.parameters()),
}
print({name: f"{count:,} parameters" for name, count in parameters.items()})
print("method:", geo.method)

# %% [markdown]
# ## Samples
#
# The basic answer is a list of places. Each is a *sample*, one random draw from the distribution of this image. A place is a latitude and a longitude, in
# degrees, always in this order. The same seed gives the same places.
#
# All answers are made for a list of images: the result has the shape (number of images, number of samples, 2). We gave one image, so its samples are
# `places[0]`.

# %%
places = geo.sample(image, n=samples_per_image, seed=seed)
print("shape:", tuple(places.shape))
for place in places[0, :5]:
    print(figures.place_name(place))

# %% [markdown]
# **What to look for:** the dots are dense where the map above is dark. Samples and density are two views of one distribution.

# %%
ax = maps.world()
dots = maps.draw_points(ax, places[0], size=4, label=f"{samples_per_image:,} samples")
cross = maps.draw_truth(ax, truth)
ax.figure.legend(handles=[dots, cross], loc="outside lower center", ncols=2)
ax.figure

# %% [markdown]
# ## A few answers
#
# For one answer, or three, call `predict`. It chooses k of the samples, so that the samples are, on average, as near as possible to the nearest of the k;
# nearness is measured by the GeoScore, which is explained below. For each of the k places, `mass` is the share of the samples that are nearer to it than
# to the other places, and half of these samples are within `radius_km` of it. Again the first index counts the images, so the answers for our one image
# are `best.latlon[0]`.

# %%
for place, mass, radius in zip(best.latlon[0], best.mass[0], best.radius_km[0], strict=True):
    print(f"{mass:4.0%} of the samples are nearest to {figures.place_name(place)}, half of these within {radius:,.0f} km")

# %% [markdown]
# ## Where the answers come from
#
# A sample starts as a point drawn uniformly on the Earth, which is called *noise*. From time 0 to time 1 it follows a velocity that depends on the image:
# where it arrives is a sample. All points together make a *flow*.
#
# **Predict before you run:** do all points move at a constant speed, or do they wait and gather at the end?

# %%
from geoflow import schedules

steps = by_scale(8, 32, 32)
ways = geo.trajectories(image, n=by_scale(100, 400, 400), steps=steps, seed=seed)[:, 0]  # (steps + 1, points, 2)
times = schedules.time_grid(geo.schedule, steps)  # the times of the steps: more of them near time 1
figures.moments_figure(ways, times, moments=[0, 0.2, 0.4, 0.6, 0.8, 1], truth=truth)

# %% [markdown]
# **What was seen:** the cloud moves from the start. The points leave the far side of the Earth first. At time 0.79 they form one wide cloud around the coasts at which they
# will end, and only in the last fifth of the time does this cloud divide into the single coasts. To see whether the speed is constant, we measure how far a
# point has come at each of these times.

# %%
x = sphere.from_latlon(ways.double())
travelled = sphere.distance_km(x[1:], x[:-1]).cumsum(0).median(1).values  # km, the median over the points
for moment in (0.2, 0.4, 0.6, 0.8, 1.0):
    state = int((times - moment).abs().argmin())
    km, part = travelled[state - 1].item(), (travelled[state - 1] / travelled[-1]).item()
    print(f"time {times[state]:.2f}: {km:6,.0f} km, {part:4.0%} of the way")

# %% [markdown]
# **What was seen:** the points move all the time and at a nearly constant speed. This is how they were trained: on paths of constant speed from noise to the
# true place. What the velocity is and how it is learned is the subject of [notebooks 01](01_the_sphere.ipynb) to [05](05_training_images_to_places.ipynb).
#
# ## Easy and hard tiles
#
# **Predict before you run:** four tiles, from the open ocean, the Antarctic ice, the coast above and the Siberian taiga. Which has the widest distribution,
# and which the narrowest?
#
# **What to look for:** all maps have one colour scale. The ice comes with a view of the South Pole, which a world map cannot show well. A single dot marks a
# peak that is too narrow to be seen at this size.

# %%
densities = {name: density if name == "coast" else geo.density(tiles.tile(*tiles.EXAMPLES[name]), coarser=coarser) for name in mapped}
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
# **What was seen:** the ocean tile could lie in every ocean, above all in the eastern Pacific. The ice could be nearly everywhere in Antarctica. The coast has a
# handful of regions. The taiga has a belt of Siberia, and small regions in Alaska and Canada.
#
# ## How sure?
#
# The **localizability** of an image puts this into one number, in *bits*. It is the average of log₂ p over places drawn from the density p itself, or in a
# formula ∫ p log₂ p dA, with the area A measured on a sphere of radius 1. The number with the opposite sign is called *entropy*. An example makes it plain:
# if p is constant on a region of the area A and zero elsewhere, then p = 1/A there, and the localizability is log₂(1/A). The whole sphere has the area 4π,
# and log₂(1/4π) = −3.65. So
#
# * a model that knows nothing has −3.65 bits;
# * each bit more halves the area of the region.
#
# The formula can also be read backwards: b bits are as much as a uniform guess within a region of 2⁻ᵇ on the unit sphere, or 6371² · 2⁻ᵇ km² on the Earth.

# %%
names = list(tiles.EXAMPLES)
bits = dict(zip(names, geo.localizability([tiles.tile(*tiles.EXAMPLES[name]) for name in names], n=entropy_samples).tolist(), strict=True))
area = {name: 6371**2 * 2 ** -bits[name] for name in names}
for name in sorted(names, key=bits.get):
    print(f"{name:8s} {bits[name]:5.1f} bits: as sure as a uniform guess within {area[name] / 1e6:6.2f} million km²")
print(f"a uniform guess: {sphere.LOG_UNIFORM / math.log(2):.2f} bits; the whole Earth has {sphere.EARTH_AREA_KM2 / 1e6:.0f} million km²")

# %% [markdown]
# **What was seen:** the numbers rank the tiles as the maps do. For the ocean tile the model is as unsure as a uniform guess within some fifty million km²,
# a tenth of the Earth; for the taiga tile, within little more than one million.
#
# ## The same place in another view
#
# **Predict before you run:** we turn the camera by 120°, then let clouds hide a third and two thirds of the tile. What does each change do to the
# localizability?

# %%
import numpy as np
import torch

views = {
    "north at the top": tiles.tile(*truth),
    "turned by 120°": tiles.tile(*truth, heading=120),
    "one third clouds": tiles.tile(*truth, cover=0.33, seed=4),
    "two thirds clouds": tiles.tile(*truth, cover=0.67, seed=4),
}
bits_of_view = dict(zip(views, geo.localizability(list(views.values()), n=entropy_samples).tolist(), strict=True))
answers = {name: geo.predict(view, n=samples_per_image, seed=seed).latlon[0, 0] for name, view in views.items()}
here = sphere.from_latlon(truth)
off = {name: sphere.distance_km(sphere.from_latlon(answer), here).item() for name, answer in answers.items()}
titles = [f"{name}: {bits_of_view[name]:.1f} bits\nbest answer {off[name]:,.0f} km from the truth" for name in views]
pixels = torch.stack([torch.from_numpy(np.array(view)).permute(2, 0, 1) for view in views.values()])
figures.tiles_figure([pixels], [titles])

# %% [markdown]
# **What was seen:** turning the camera changes the number by a fraction of a bit. The clouds do not lower it here: for this tile the model even becomes a
# little surer. (The last view has more clouds than any training tile.) But no best answer is near the true place, as the distances show. Bits say how narrow the answer is, and not whether it is true. What clouds
# cost on average, over many tiles, is measured in exercise 3 of [notebook 05](05_training_images_to_places.ipynb).
#
# ## Your place
#
# `tiles.tile(latitude, longitude)` cuts a tile anywhere, and takes `heading`, `side_km` and `cover` too. Change `your_place` in the first code cell, and run
# this cell again. (A picture of your own works too, as `geo.density("tile.png")`, if it is a satellite view that is 200 to 400 km wide.)

# %%
your_tile = tiles.tile(*your_place)
your_density = geo.density(your_tile, coarser=coarser)
your_best = geo.predict(your_tile, n=samples_per_image, seed=seed)
maps.density_figure(your_density, your_tile, your_place, your_best.latlon[0], your_best.mass[0])

# %% [markdown]
# ## What the model does not know
#
# **Some regions were never shown to it.** More than a sixth of the Earth, in blocks about 7° wide, was *held out* of the training. What happens there? We compare tiles
# from any view in both kinds of region, by two numbers. **GeoScore** rates one answer from 0 to 5000: it is 5000 · exp(−d/1493 km) for an error of d
# kilometres. The median error is exceeded by half of the tiles. To know what a score is worth we need a *baseline*: a uniform guess looks at no image.

# %%
from geoflow import evaluate

baseline, reports, share = Geolocator.from_pretrained("uniform"), {}, {}
for split, name in (("test", "seen regions"), ("held-out", "held-out blocks")):
    examples = tiles.load(split, scored_tiles)
    reports[name] = evaluate(geo, examples, name, steps=8, likelihood=False, seed=seed).metrics
    reports[f"{name}, uniform guess"] = evaluate(baseline, examples, name, likelihood=False, seed=seed).metrics
    drawn = geo.sample(cond=geo.embed(examples.images), n=20, steps=8, seed=seed)
    share[name] = tiles.is_held_out(sphere.from_latlon(drawn).float()).double().mean().item()
print(f"{scored_tiles} tiles each                  GeoScore   median error")
for name, scores in reports.items():
    print(f"{name:32s} {scores['geoscore']:5.0f} {scores['median_km']:11,.0f} km")
print(f"samples that lie in any held-out block: {share['seen regions']:.1%} and {share['held-out blocks']:.1%}")

# %% [markdown]
# **What was seen:** in held-out blocks the score is far lower than in seen regions, and yet four times that of a uniform guess: the model probably answers with the
# most similar landscapes that it knows. Hardly any sample lies in a held-out block, although more than a sixth of the Earth does. The model has learned, rightly for
# its training data, that no tile ever comes from there. So a probability of this model is a probability *under the distribution of its training data*. This
# is true of every model of this kind, also of those trained on photos.
#
# **It answers any picture.** Here is one of random colours:

# %%
from PIL import Image

noise = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (32, 32, 3), dtype=np.uint8))
nonsense = geo.predict(noise, n=samples_per_image, seed=seed).latlon[0, 0]
noise_bits = geo.localizability(noise, n=entropy_samples).item()
print(f"random colours: {figures.place_name(nonsense)}, with {noise_bits:.1f} bits")

# %% [markdown]
# **What was seen:** the model names a place, and is surer than it was for the real tiles above. Localizability says how few places the model names for an image. It
# does not say whether the image shows the Earth at all.
#
# ## Check
#
# The main claims of the text are asserted here, with some room; its other numbers are those printed above.

# %%
assert places.shape == (1, samples_per_image, 2)
assert (geo.sample(image, n=5, seed=seed) == geo.sample(image, n=5, seed=seed)).all(), "the same seed gives the same places"
assert all(abs(d.integral - 1) < by_scale(0.1, 0.02, 0.02) for d in densities.values()), "a density integrates to one"
assert 0.05 < mass_near_truth < 0.9
assert min(bits, key=bits.get) == "ocean"
assert max(bits, key=bits.get) == "taiga"
assert min(bits.values()) > -3.65
assert 20e6 < area["ocean"] < 100e6
assert 0.5e6 < area["taiga"] < 2.5e6
assert abs(bits_of_view["turned by 120°"] - bits_of_view["north at the top"]) < 1
assert bits_of_view["one third clouds"] > bits_of_view["north at the top"] - 0.5

assert noise_bits > max(bits.values())
assert max(share.values()) < 0.05
if scored_tiles >= 200:
    assert min(off.values()) > 1000
    geoscore = {name: scores["geoscore"] for name, scores in reports.items()}
    assert geoscore["seen regions"] > 1.5 * geoscore["held-out blocks"]
    assert geoscore["held-out blocks"] > 3 * geoscore["held-out blocks, uniform guess"]
print("all checks passed")

# %% [markdown]
# ## Where to go from here
#
# * **The mathematics from the beginning:** [01 the sphere](01_the_sphere.ipynb), [02 flow matching in the plane](02_flow_matching_in_the_plane.ipynb), [03
#   flow matching on the sphere](03_flow_matching_on_the_sphere.ipynb).
# * **The network and its training:** [04 the velocity network](04_the_velocity_network.ipynb), [05 training](05_training_images_to_places.ipynb).
# * **Better answers:** [06 guidance and steps](06_guidance_and_timesteps.ipynb), [07 likelihood and density maps](07_likelihood_and_localizability.ipynb).
# * **Is it any good?** [08 methods compared](08_diffusion_vs_riemannian_flow.ipynb), [09 evaluation](09_evaluation.ipynb).
# * **Photos:** [11 the published models](11_published_models.ipynb). From the command line: `geoflow locate tile.png`; all settings: `geoflow --help`, and
#   the [guide](GUIDE.md).
#
# ## References
#
# * N. Dufour, D. Picard, V. Kalogeiton, L. Landrieu, *Around the World in 80 Timesteps: A Generative Approach to Global Visual Geolocation*, CVPR 2025, arXiv
#   2412.06781: the method, and localizability.
# * R. Stöckli et al., *The Blue Marble Next Generation*, NASA Earth Observatory, 2005 (imagery, public domain).
