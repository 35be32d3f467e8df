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
# 2. which steps lead from a photo to a map, from Python and from the command line;
# 3. how to get the answer into a map program (a geographic information system, GIS);
# 4. what such a model can and cannot tell, and what that means for your privacy and that of other people.
#
# | Needs | Time to read | Time to run (laptop / GPU) | Produces |
# |---|---|---|---|
# | notebook 00; for a published model also the internet once (1.4 GB) and `pip install -c constraints.txt -e '.[photos]'` | 20 minutes | 2 minutes with the tile model / not run here | files in `outputs/11_published_models/` |
#
# > **What the saved outputs do not show.** They show **no published model** and **no place of a real photo**. The machine that made
# > them has no access to the internet, so the published weights could not be fetched. You see two substitutes instead:
# >
# > * a **rehearsal** of the way of a photo: a drawn picture, a *tiny random encoder* and a *random network* of the published layout.
# >   Every step is the real one, but nothing was trained, so the answer has no meaning;
# > * the model of **satellite tiles** that comes with geoflow, for everything that needs a trained model.
# >
# > With internet, the same cells load the model named in the parameters; add paths of your photos there.
#
# Words such as *embedding*, *encoder* and *GeoTIFF* are explained in the [glossary](GLOSSARY.md).

# %% tags=["parameters"]
from geoflow.runtime import by_scale

seed = 0
wanted = "plonk-yfcc"  # or plonk-inaturalist, plonk-osv5m, each also with -flow or -diffusion
my_photos = []  # paths of your own photos; empty: satellite tiles
reach_for_the_hub = by_scale(False, True, True)
samples = by_scale(50, 300, 500)
resolution = by_scale(10.0, 1.0, 1.0)  # degrees, of the maps
coarser = by_scale(10, 1, 1)  # a density map with a coarser grid is quicker, and less exact
examples = by_scale(1, 3, 3)  # how many tiles to ask about

# %%
import json
import os
from pathlib import Path
from types import SimpleNamespace

import matplotlib.pyplot as plt
import torch
from PIL import Image, ImageDraw
from safetensors.torch import save_file
from torch import nn

from geoflow import Geolocator, plonk, schedules, sphere
from geoflow.data import photos, tiles
from geoflow.encoders import PhotoEncoder
from geoflow.viz import maps

if not reach_for_the_hub:
    os.environ["HF_HUB_OFFLINE"] = "1"
folder = Path("../outputs/11_published_models")
folder.mkdir(parents=True, exist_ok=True)

# %% [markdown]
# ## The nine models
#
# The authors trained three methods on three data sets. A photo goes through a large encoder first, whose weights are frozen. Which
# encoder it is depends on the data set:
#
# * **YFCC** (holiday photos) and **iNaturalist** (animals and plants) use DINOv2-L/14 with registers;
# * **OpenStreetView-5M** (street views) uses StreetCLIP.
#
# The columns are: a short name, the repository on the Hugging Face hub, the method, the encoder.

# %%
for alias, model in plonk.MODELS.items():
    print(f"{alias:28s}{model.repository:44s}{model.method:12s}{model.encoder}")

# %% [markdown]
# ## Loading one
#
# `from_pretrained` takes a short name, the repository's name (with `revision=` for a fixed commit), or a folder with the two files
# `config.json` and `model.safetensors`. The first call downloads them; later calls read them from the cache of the hub's client.
# For a machine that is offline, copy the folder and keep its name: `PLONK_YFCC_flow` tells geoflow which method and which encoder
# belong to it. A file that is damaged, or does not match its config, is refused.
#
# (The encoder of photos is a second download.) If the hub does not answer, this cell says so and takes the tile model. It knows only satellite tiles: if you
# named photos of your own, all answers below then mean nothing.

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
# ## A rehearsal: from a photo to a map
#
# ### 1 · The photo
#
# We draw a picture and save it as a camera would: as a JPEG with *EXIF* data, a block of notes about the camera and, often, the place.
# The place in this block is invented. geoflow reads it for comparison only; no model sees it.


# %%
def draw_photo(file):
    """Save a drawn landscape of 640 × 480 pixels with an EXIF block that names a camera and a place."""
    image = Image.linear_gradient("L").resize((640, 480))
    image = Image.merge("RGB", (image.point(lambda v: 120 + v // 3), image.point(lambda v: 170 + v // 4), image.point(lambda v: 235)))
    draw = ImageDraw.Draw(image)
    draw.ellipse((470, 60, 550, 140), fill=(255, 230, 150))
    draw.polygon([(0, 330), (150, 180), (300, 340), (430, 230), (640, 360), (640, 480), (0, 480)], fill=(95, 120, 105))
    draw.rectangle((0, 390, 640, 480), fill=(150, 135, 95))
    exif = Image.Exif()
    exif[0x0110] = "drawn by a notebook"  # the model of the camera
    exif.get_ifd(0x8825).update({1: "N", 2: (48.0, 30.0, 0.0), 3: "E", 4: (9.0, 6.0, 0.0)})  # 48° 30′ N, 9° 6′ E
    image.save(file, exif=exif)


draw_photo(folder / "drawn.jpg")
photo = photos.read(folder / "drawn.jpg")
print(f"{photo.image.width} × {photo.image.height} pixels; place by the camera: {photo.place}")

# %% [markdown]
# ### 2 · The encoder
#
# A photo encoder sees the central square of a photo, resized to 336 × 336 pixels, with normalised colours. A vision transformer
# such as DINOv2 cuts it into 24 × 24 *patches* of 14 × 14 pixels, turns each into a token, and adds one more token, called CLS, that
# gathers what the whole image says. The embedding is the last CLS token: 1,024 numbers.
#
# The published encoder has 300 million weights. **In its place we put a tiny random encoder**: one random layer that looks at
# the patches, with the mean of all patches as its CLS token. Cutting, resizing and normalising are done by the real `PhotoEncoder`.


# %%
class TinyRandomBody(nn.Module):
    """In the place of DINOv2: one layer with random weights. (B, 3, 336, 336) → tokens (B, 1 + 576, 64), CLS first."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 64, kernel_size=14, stride=14)

    def forward(self, pixels):
        tokens = self.patches(pixels).flatten(2).transpose(1, 2)
        return SimpleNamespace(last_hidden_state=torch.cat([tokens.mean(1, keepdim=True), tokens], 1))


torch.manual_seed(seed)
tiny_random_encoder = PhotoEncoder("dinov2")
tiny_random_encoder.body = TinyRandomBody().eval()
embedding = tiny_random_encoder.embed(photo.image)
print(f"an embedding of shape {tuple(embedding.shape)}")

# %% [markdown]
# **What to look for:** which part of the picture the encoder never sees.

# %%
seen = tiny_random_encoder.preprocess(photo.image).permute(1, 2, 0)
seen = (seen - seen.amin()) / (seen.amax() - seen.amin())  # to show the normalised colours
fig, axes = plt.subplots(1, 2, figsize=(6.4, 2.4), layout="constrained", width_ratios=(4, 3))
axes[0].imshow(photo.image)
axes[0].set(xlabel="pixels", ylabel="pixels", title="the drawn picture")
axes[1].imshow(seen)
axes[1].set(xlabel="pixels", xticks=(0, 335), yticks=(0, 335), title="what the encoder sees")
plt.show()

# %% [markdown]
# **What was seen:** the encoder sees the central square only. The left and right edges are lost.
#
# ### 3 · The network
#
# We write a folder as the authors wrote theirs, with the official names of the weights, and load it with `from_pretrained`. The network is
# small and **its weights are random**. The folder does not have a published name, so it brings no encoder: we put ours beside it. We make two
# such networks, which differ only in their random seed.


# %%
def random_network(number):
    """A folder in the published layout whose weights are random: config.json and model.safetensors."""
    where = folder / f"random-network-{number}"
    where.mkdir(exist_ok=True)
    config = {"dim": 64, "depth": 2, "expansion": 4, "cond_dim": 64}
    shapes = plonk.averaged_network("riemannian", config).named_parameters()
    generator = torch.Generator().manual_seed(number)
    weights = {plonk.official_name(name): 0.15 * torch.randn(old.shape, generator=generator) for name, old in shapes}
    save_file(weights, where / "model.safetensors")
    (where / "config.json").write_text(json.dumps({"input_dim": 3, **config}))
    return where


loaded = [Geolocator.from_pretrained(random_network(number), method="riemannian") for number in (1, 2)]
rehearsals = [Geolocator(part.network, part.method, part.model.schedule_name, tiny_random_encoder) for part in loaded]
print(rehearsals[0])

# %% [markdown]
# ### 4 · The answer
#
# **Predict before you run:** both networks have random weights. Will their samples lie all over the Earth, as noise does? Will they agree?

# %%
answers = [model.sample(photo.image, n=samples, seed=seed)[0] for model in rehearsals]
without_meaning = [float(model.localizability(photo.image, n=samples, seed=seed)) for model in rehearsals]
ax = maps.world(figsize=(7, 3.4))
for number, (latlon, color) in enumerate(zip(answers, ("#0072B2", "#D55E00"), strict=True), start=1):
    print(f"random network {number}: localizability {without_meaning[number - 1]:.1f} bits; places spread evenly over the Earth have −3.7")
    maps.draw_points(ax, latlon, color=color, size=8, label=f"random network {number}")
ax.set_title(f"rehearsal: {samples} samples of each random network, without meaning", fontsize=9)
ax.figure.legend(loc="outside lower center", ncols=2, fontsize=8)
ax.figure

# %% [markdown]
# **What was seen:** each network prefers one region, as if it knew something, and the two regions are different. Nothing was learnt, so nothing is
# known. **An answer that looks decided is no evidence.** Only the measured scores of a trained model are (notebook 09). The
# *localizability* is the negative entropy in bits (notebook 07); each bit more halves the area where the image could be.
#
# ## The images that we ask about
#
# From here on we use a trained model: the published one if it was reached, else the model of satellite tiles. The images are your photos if you named
# some (the first three of them), else tiles. The model of tiles learnt from any view: any heading, 200 to 400 km wide, any light, partly under clouds. One place in
# the Sahara is shown twice, once clear and north-up, once turned by 130° and half under clouds.

# %%
if my_photos:
    files = photos.find(my_photos)
    named = {file.name: (file, photos.exif_latlon(file)) for file in files}
else:
    if reached:
        print("these are satellite tiles, which a photo model was not made for: name photos of your own in the parameters")
    place = tiles.EXAMPLES
    named = {name: (tiles.tile(*place[name]), place[name]) for name in ("Sahara", "coast")}
    cloudy = tiles.tile(*place["Sahara"], heading=130, cover=0.5), place["Sahara"]
    named = {"Sahara": named.pop("Sahara"), "Sahara, turned, under clouds": cloudy, **named}
named = dict(list(named.items())[:examples])
embeddings = {name: geo.embed(image) for name, (image, _) in named.items()}

fig, axes = plt.subplots(1, len(named), figsize=(1.9 * len(named), 2), layout="constrained", squeeze=False)
for ax, (name, (image, _)) in zip(axes[0], named.items(), strict=True):
    ax.imshow(plt.imread(image) if isinstance(image, Path) else image)
    ax.set(xticks=[], yticks=[])
    ax.set_title(name, fontsize=8)
plt.show()

# %% [markdown]
# ## Where could they have been taken?
#
# **What to look for:** how many regions each map has, whether the cross, the true place, lies in one of them, and what the clouds cost. The numbered
# rings are the three places that together answer best (`geo.predict`), most probable first.

# %%
densities = {name: geo.density(cond=cond, resolution=resolution, coarser=coarser) for name, cond in embeddings.items()}
best = {name: geo.predict(cond=cond, k=3, n=samples, seed=seed) for name, cond in embeddings.items()}
maps.contact_sheet(
    [{"density": densities[name], "truth": truth, "guesses": best[name].latlon[0], "title": name} for name, (_, truth) in named.items()]
)

# %%
bits = {name: float(geo.localizability(cond=cond, n=samples, seed=seed)) for name, cond in embeddings.items()}
for name, found in best.items():
    print(f"{name}: localizability {bits[name]:.1f} bits, integral of the map {densities[name].integral:.3f}")
    for row in photos.rows(found):
        lat, lon = row["latitude"], row["longitude"]
        where = f"{abs(lat):5.1f}° {'NS'[lat < 0]} {abs(lon):6.1f}° {'EW'[lon < 0]}"
        town = row["nearest_town"] or "none within 500 km"
        print(f"   {row['mass']:4.0%}  {where}   half within {row['half_within_km']:5,.0f} km   nearest town: {town}")

# %% [markdown]
# **What was seen:** the clear Sahara tile has three answers on three desert regions. The best one, with 71 % of the samples, is in Iran; the true place, in
# Algeria, is in the third, with 12 %. Turned and under clouds, the same place loses 2.4 bits: the radii that hold half of each answer were 120 to 208 km and are now 507 to 1,297 km. The
# coast too has several answers, and the true one is the second. So one number, or the first place alone, would hide what the model knows.
#
# The nearest town is a name for a place. It is no claim that the image shows this town: in the desert and at sea the town is far away.
#
# ## How the answers come about
#
# The samples start as noise all over the Earth, and the flow moves them. This is the image with the narrowest map.

# %%
name = min(densities, key=lambda name: densities[name].entropy)
steps = 32
ways = geo.trajectories(cond=embeddings[name], n=samples, steps=steps, seed=seed)[:, 0]
maps.trajectories_figure(ways, schedules.time_grid(geo.schedule, steps), truth=named[name][1], title=name)

# %% [markdown]
# ## Into a map program
#
# A density becomes a GeoTIFF, an image whose pixels have coordinates, with the probability per km². Samples, regions and best places become one GeoJSON
# file. Both open in QGIS and other map programs.

# %%
density, stem = densities[name], name.split(",")[0]
drawn = geo.sample(cond=embeddings[name], n=samples, seed=seed)[0]
tif = density.to_geotiff(folder / f"{stem}.tif")
answer = photos.to_geojson(density, drawn, photos.rows(best[name]))
(folder / f"{stem}.geojson").write_text(json.dumps(answer))
print(f"{tif.name}: {tif.stat().st_size / 1e3:.0f} kB; {stem}.geojson: {len(answer['features'])} features")
for feature in answer["features"]:
    print(
        f"   {feature['geometry']['type']:13s}",
        {key: round(v, 3) if isinstance(v, float) else v for key, v in feature["properties"].items()},
    )

# %% [markdown]
# The same from the command line, for whole folders; one bad file does not stop the rest:
#
# ```
# geoflow locate photo.jpg holiday/ 'trip/*.png' --model plonk-yfcc --out outputs/locate
# ```
#
# The command prints the places and writes `places.csv`, and for each image a map, a GeoJSON and a GeoTIFF. With `--no-maps` it is quick. With `--exif` it
# says how far the answer is from where the camera says it was. If it is interrupted, start it again: it goes on with the images that are left.
#
# ## The official sampler
#
# The published models were evaluated with 250 straight steps, each of which is projected back to the sphere. `solver="plonk"` does exactly that, for
# comparisons. We compare it with the default of the tile model, 16 steps of a fourth-order solver (RK4, four evaluations of the network per
# step). Both start from the same points. The reference is RK4 with 128 steps.
#
# **Predict before you run:** which is nearer to the reference, 64 evaluations of RK4 or 250 straight steps?

# %%
noise = geo.model.noise((1, samples), torch.Generator().manual_seed(seed))
fine = sphere.from_latlon(geo.sample(cond=embeddings[name], noise=noise, steps=128, solver="rk4"))
off = {}
for label, options, evaluations in (
    ("16 steps of RK4", {"steps": 16, "solver": "rk4"}, 64),
    ("official, 250 steps", {"steps": 250, "solver": "plonk"}, 250),
):
    x = sphere.from_latlon(geo.sample(cond=embeddings[name], noise=noise, **options))
    off[label] = float(sphere.distance_km(x, fine).median())
    print(f"{label:22s}{evaluations:4d} evaluations, median distance from the reference {off[label]:8.3f} km")

# %% [markdown]
# **What was seen** with the tile model: RK4 takes a quarter of the evaluations, and its median error is 0.3 km in place of 9 km. The error of straight steps is
# proportional to their length; that of a fourth-order solver falls far faster.
#
# Published networks vary faster in time than the tile model: their time embedding holds sines and cosines of up to 1000 t. Between two
# steps such a wave passes many periods, so a solver of few steps sees it at arbitrary phases, and a higher order alone gains nothing. Therefore
# a published model is loaded with its conditioning averaged over the length of a step, which costs nothing (`geoflow.plonk.TimeAveraged`), and with steps placed for it
# (`geoflow.schedules.few_steps`). `tests/benchmarks/solvers.py` measures what this gains on networks that were trained here.
#
# ## Responsible use
#
# * **The answer is a set of places that look alike, and no proof.** It is a distribution learnt from where people took and shared
#   photos. Regions with few photos are answered with regions that have many. Read the whole map, not only the first place.
# * **The model does not know what it was not trained on.** On images of another kind it is confidently wrong (notebook 05, held-out
#   regions; notebook 09, calibration).
# * **Photos of people and homes.** A street, a plant or the light may tell more than the person who shared the photo meant. Do not use the model to find a
#   person who does not want to be found, and ask before you publish where somebody else's photo was taken. If you share photos, remember
#   that removing EXIF data does not remove the place.
# * **Never the only ground of a decision** about a person, a report or an accusation.
# * The licence of the models is MIT; the data sets behind them have their own terms.
#
# ## Check

# %%
assert len(plonk.MODELS) == 9
assert photo.place == (48.5, 9.1)
assert embedding.shape == (1, 64)
assert min(without_meaning) > -3, "a random network does not look like noise"
between = sphere.distance_km(*(sphere.unit(sphere.from_latlon(latlon).mean(0)) for latlon in answers))
assert between > 2000, "and another random network looks elsewhere"
assert all(abs(density.integral - 1) < by_scale(0.05, 0.02, 0.02) for density in densities.values())
assert len(answer["features"]) == 3 + 1 + 3
if not reached and not my_photos:
    assert off["16 steps of RK4"] < by_scale(100, 10, 10)
if examples == 3 and not reached and not my_photos:
    assert bits["Sahara"] > bits["Sahara, turned, under clouds"] + 0.5
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
