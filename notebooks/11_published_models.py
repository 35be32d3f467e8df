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
# # 11 · The published models, and your own photos
#
# **You will learn**
# 1. which nine models the paper's authors published, and how to load one;
# 2. how to ask of a photo: where could it have been taken? From Python and from the command line;
# 3. how to get the answer into a map program (GIS);
# 4. what such a model can and cannot tell, and what that means for your and other people's privacy.
#
# | Needs | Minutes (laptop / GPU) | Produces |
# |---|---|---|
# | notebook 00; for the published models the internet once (1.4 GB) and `pip install -c constraints.txt -e '.[photos]'` | 2 with the tile model / not run here | `outputs/11_published_models/` |
#
# **Without the internet this notebook runs too:** it says so, and goes through the same steps with the model for satellite tiles
# that comes with geoflow.

# %% tags=["parameters"]
from geoflow.settings import by_scale

seed = 0
wanted = "plonk-yfcc"  # or plonk-inaturalist, plonk-osv5m, each also with -flow or -diffusion
my_photos = []  # paths of your own photos; empty: satellite tiles, or nothing for a photo model
reach_for_the_hub = by_scale(False, True, True)
samples = by_scale(100, 500, 500)
examples = by_scale(("coast",), ("coast", "taiga", "Sahara", "ocean"), ("coast", "taiga", "Sahara", "ocean"))

# %%
import os
from pathlib import Path

import matplotlib.pyplot as plt
import torch

from geoflow import Geolocator, maps, photos, plonk, schedules
from geoflow.data import tiles

if not reach_for_the_hub:
    os.environ["HF_HUB_OFFLINE"] = "1"
folder = Path("../outputs/11_published_models")
folder.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The nine models
#
# Three data sets × three methods. Photos go through a large frozen encoder first, which differs by data set:
#
# * **YFCC** (holiday photos) and **iNaturalist** (animals and plants): DINOv2-L/14 with registers;
# * **OpenStreetView-5M** (street views): StreetCLIP.

# %%
for alias, model in plonk.MODELS.items():
    print(f"{alias:28s}{model.repository:44s}{model.method:12s}{model.encoder}")

# %% [markdown]
# ## Loading one
#
# `from_pretrained` takes an alias, the repository's name (with `revision=` for a fixed commit), or a folder with the two files. The first
# call downloads them to the usual cache and later ones read them from there. A copy on a stick keeps its name: the folder `PLONK_YFCC_flow` is
# taken for what it says. A file that is damaged or does not match its config is refused.

# %%
try:
    geo, reached = Geolocator.from_pretrained(wanted), True
    geo.encoder.load()
except (ConnectionError, ModuleNotFoundError) as error:
    print(f"{type(error).__name__}: {str(error).splitlines()[0][:110]} …")
    geo, reached = Geolocator.from_pretrained("tiles"), False
print(f"\ngoing on with {wanted if reached else 'the tile model'}: method {geo.method}, encoder {geo.encoder.name}")
print(f"{sum(weight.numel() for weight in geo.network.parameters()):,} parameters in the velocity network")

# %% [markdown]
# ## The images
#
# Your photos if you named some above, else four satellite tiles. The camera's own note of the place (EXIF) is read for comparison
# only; no model sees it.

# %%
if my_photos:
    files = photos.find(my_photos)
    named = {file.name: (file, photos.exif_latlon(file)) for file in files}
else:
    named = {name: (tiles.tile(*tiles.EXAMPLES[name]), tiles.EXAMPLES[name]) for name in examples}
    if reached:
        print("these are satellite tiles, which a photo model was not made for: name photos of your own in the parameters")
named = dict(list(named.items())[:4])
embeddings = {name: geo.embed(image) for name, (image, _) in named.items()}

fig, axes = plt.subplots(1, len(named), figsize=(1.8 * len(named), 2), layout="constrained", squeeze=False)
for ax, (name, (image, _)) in zip(axes[0], named.items(), strict=True):
    ax.imshow(plt.imread(image) if isinstance(image, Path) else image)
    ax.set(xticks=[], yticks=[], title=name)
plt.show()

# %% [markdown]
# ## Where could they have been taken?
#
# *What to look for:* the shape of each region, and how much smaller it is for an image that says more.

# %%
densities = {name: geo.density(cond=cond) for name, cond in embeddings.items()}
best = {name: geo.predict(cond=cond, k=3, seed=seed) for name, cond in embeddings.items()}
maps.contact_sheet(
    [{"density": densities[name], "truth": truth, "guesses": best[name].latlon[0], "title": name} for name, (_, truth) in named.items()]
)

# %%
bits = {name: float(geo.localizability(cond=cond, seed=seed)) for name, cond in embeddings.items()}
for name, places in best.items():
    print(f"{name}: localizability {bits[name]:.1f} bits, integral {densities[name].integral:.3f}")
    for row in photos.rows(places):
        lat, lon = row["latitude"], row["longitude"]
        where = f"{abs(lat):5.1f}° {'NS'[lat < 0]} {abs(lon):6.1f}° {'EW'[lon < 0]}"
        print(f"   {row['mass']:4.0%}  {where}   half within {row['half_within_km']:5,.0f} km   nearest town {row['nearest_town']}")

# %% [markdown]
# *What was seen:* more bits, a smaller region. The nearest town is a name for a place, not a claim that the image shows that town: in the
# desert and at sea it is far away.
#
# ## How the answers come about

# %%
name = min(densities, key=lambda name: densities[name].entropy)
steps = 32
ways = geo.trajectories(cond=embeddings[name], n=samples, steps=steps, seed=seed)[:, 0]
maps.trajectories_figure(ways, schedules.time_grid(geo.schedule, steps), truth=named[name][1], title=name)

# %% [markdown]
# ## Into a map program
#
# A density is a GeoTIFF (probability per km²), samples, regions and best places are one GeoJSON. Both open in QGIS and the like.

# %%
import json

density = densities[name]
drawn = geo.sample(cond=embeddings[name], n=samples, seed=seed)[0]
tif = density.to_geotiff(folder / f"{name}.tif")
answer = photos.to_geojson(density, drawn, photos.rows(best[name]))
(folder / f"{name}.geojson").write_text(json.dumps(answer))
print(f"{tif.name}: {tif.stat().st_size / 1e3:.0f} kB; {name}.geojson: {len(answer['features'])} features")
for feature in answer["features"]:
    print("  ", feature["geometry"]["type"], feature["properties"])

# %% [markdown]
# The same from the command line, for whole folders; one bad file does not stop the rest:
#
# ```
# geoflow locate photo.jpg holiday/ 'trip/*.png' --model plonk-yfcc --out outputs/locate
# ```
#
# It prints the places and writes `places.csv`, and per image a map, a GeoJSON and a GeoTIFF. `--no-maps` is quick; `--exif` says how far the
# answer is from where the camera says it was. Interrupted, the same command goes on with the images that are left.
#
# ## The official sampler
#
# The published models were evaluated with 250 straight steps, each projected back to the sphere. `solver="plonk"` does exactly that,
# for comparisons. *What to look for:* how far its samples are from a fine solution of the same ODE, next to our default of 16
# fourth-order steps, from the same starting points.

# %%
from geoflow import sphere

noise = geo.model.noise((1, samples), torch.Generator().manual_seed(seed))
fine = sphere.from_latlon(geo.sample(cond=embeddings[name], noise=noise, steps=256))
off = {}
for label, options, evaluations in (
    ("16 steps of RK4", {"steps": 16}, 64),
    ("official, 250 steps", {"steps": 250, "solver": "plonk"}, 250),
):
    x = sphere.from_latlon(geo.sample(cond=embeddings[name], noise=noise, **options))
    off[label] = float(sphere.distance_km(x, fine).median())
    print(f"{label:22s}{evaluations:4d} evaluations, median distance from the fine solution {off[label]:8.3f} km")

# %% [markdown]
# *What was seen* with the tile model: a quarter of the evaluations, and a tenth of the error. Straight steps err in proportion to
# their length, fourth-order ones far less.
#
# Published networks are rougher in time than the tile model: their time embedding turns by up to 1000 t radians. A solver of few
# steps meets such waves at a few arbitrary phases, and a higher order alone gains nothing. So loading a published model averages its
# conditioning over the length of a step, which costs nothing (`geoflow.plonk.TimeAveraged`), and places the steps for it
# (`geoflow.schedules.few_steps`). What that gains on networks trained here is in `tests/benchmarks/solvers.py`.
#
# ## Responsible use
#
# * **It answers with places that look alike, not with a proof.** The answer is a distribution learnt from where people took and shared
#   photos. Regions with few photos are answered with regions that have many. Read the whole map, not the first place.
# * **It does not know what it was not trained on.** On images of another kind it is confidently wrong (notebook 05, held-out
#   regions; notebook 09, calibration).
# * **Photos of people and homes.** A street, a plant or the light may tell more than the sharer meant. Do not use it to find a person who
#   does not want to be found, and do not publish a located photo of somebody else without asking. Whoever shares photos should know
#   that removing EXIF does not remove the place.
# * **Never the only ground of a decision** about a person, a report or an accusation.
# * The models' licence is MIT; the data sets behind them have their own terms.
#
# ## Check

# %%
assert len(plonk.MODELS) == 9
assert all(abs(density.integral - 1) < 0.02 for density in densities.values())
assert len(answer["features"]) == 3 + 1 + 3
assert off["16 steps of RK4"] < by_scale(100, 10, 10)
order = sorted(densities, key=lambda name: densities[name].entropy)
assert bits[order[0]] > bits[order[-1]]
print("all checks passed")

# %% [markdown]
# ## References
#
# * N. Dufour, D. Picard, V. Kalogeiton, L. Landrieu, *Around the World in 80 Timesteps*, CVPR 2025, arXiv 2412.06781.
# * M. Oquab et al., *DINOv2: Learning Robust Visual Features without Supervision*, TMLR 2024, arXiv 2304.07193; T. Darcet et al.,
#   *Vision Transformers Need Registers*, ICLR 2024, arXiv 2309.16588.
# * L. Haas, S. Alberti, M. Skreta, *Learning Generalized Zero-Shot Learners for Open-Domain Image Geolocalization* (StreetCLIP),
#   arXiv 2302.00275.
# * B. Thomee et al., *YFCC100M: The New Data in Multimedia Research*, Communications of the ACM 59, 2016.
