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
# # 09 · Evaluation: what each number hides
#
# **You will learn**
# 1. how to get one answer from a distribution, and which answer is best for which score;
# 2. what distances, GeoScore and names of countries each hide;
# 3. why a distribution needs *proper* scores: negative log-likelihood (NLL) and energy score;
# 4. why likelihoods in R³ and on S² do not compare, and how to make them;
# 5. what precision, recall, density and coverage measure, and how much the number of points decides;
# 6. whether a region of 90 % holds the truth nine times in ten, and when it does not.
#
# | Needs | Minutes (laptop / GPU) | Produces |
# |---|---|---|
# | notebooks 03 and 05 | 3 / not needed | figures only |
#
# All models are shipped; nothing is trained here.

# %% tags=["parameters"]
from geoflow.settings import by_scale, scale

seed = 0
scored, scored_unseen = by_scale((50, 50), (500, 150), (2000, 2000))  # tiles of seen and of held-out regions
draws = by_scale(24, 64, 200)  # samples per tile
compared = by_scale(10, 150, 500)  # of the tiles, for the comparison of methods
most_points = by_scale(4000, 20_000, 100_000)  # for precision and recall

# %%
import math

import matplotlib.pyplot as plt
import torch

from geoflow import Geolocator, evaluate, likelihood, maps, metrics, places, samplers, sphere, vmf
from geoflow.data import tiles
from geoflow.methods import SolverOptions

torch.manual_seed(seed)

# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008).
BLUE, ORANGE, RED, GREEN, GREY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#7f8c99"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

names = {
    "riemannian": "tiles",
    "vmf": "tiles-vmf",
    "vmf-mixture": "tiles-vmf-mixture",
    "flow": "tiles-flow",
    "diffusion": "tiles-diffusion",
}

models = {method: Geolocator.from_pretrained(name) for method, name in names.items()}
models |= {name: Geolocator.from_pretrained(name) for name in ("uniform", "land")}
splits = {"seen": tiles.load("test", scored), "held-out": tiles.load("held-out", scored_unseen)}
cond = {split: models["riemannian"].encoder.embed(part.images) for split, part in splits.items()}

# %% [markdown]
# Seven models answer for the same tiles. Five are trained on the same embeddings: the Riemannian
# flow of notebook 05, the paper's two baselines (one von Mises–Fisher distribution, and a mixture
# of three) and its two methods in R³ (flow matching and diffusion). Two look at no image:
# `uniform`, and `land`, which only knows that three tiles in four lie on land.
#
# Everything below is computed from three things per tile: samples, their log-densities, and the
# log-density of the true place. For a flow one solution gives a sample and its density together.


# %%
def draw(geo, cond, x):
    """Samples (B, draws, 3), their log-densities (B, draws), and those of the true places x: (B,)."""
    noise = samplers.noise_for(geo.model, range(len(cond)), draws, seed)
    parts = [geo.model.sample_with_log_prob(*part, SolverOptions()) for part in zip(noise.split(10), cond.split(10), strict=True)]
    points, of_samples = (torch.cat(column) for column in zip(*parts, strict=True))
    return points, of_samples, geo.log_prob(sphere.to_latlon(x[:, None]), cond=cond)[:, 0]


drawn = {(method, "seen"): draw(models[method], cond["seen"], splits["seen"].x) for method in ("riemannian", "vmf", "vmf-mixture")}
drawn["riemannian", "held-out"] = draw(models["riemannian"], cond["held-out"], splits["held-out"].x)
samples, of_samples, of_truth = drawn["riemannian", "seen"]
truth = splits["seen"].x
print({" ".join(key): tuple(points.shape) for key, (points, _, _) in drawn.items()})

# %% [markdown]
# ## 1. One answer from a distribution
#
# A game, a table or a phone wants one place. From the same samples one can choose
#
# * a **single sample**: the first;
# * the **best for GeoScore**: the sample with the highest mean GeoScore over all samples;
# * the **medoid**: the sample with the smallest mean distance to all samples;
# * the **likeliest**: the sample of highest density (the paper's ensemble, table A;
#   `geo.sample_likeliest`);
# * the **spherical mean**: the direction of the mean vector.

# %%
answers = {
    "single sample": samples[:, 0],
    "best for GeoScore": metrics.best_for_geoscore(samples),
    "medoid": metrics.medoid(samples),
    "likeliest": samples[torch.arange(len(samples)), of_samples.argmax(-1)],
    "spherical mean": metrics.spherical_mean(samples),
}
points_of = {name: metrics.summary(x, truth) for name, x in answers.items()}
columns = {"GeoScore": "geoscore", "mean km": "mean_km", "median km": "median_km"}
columns |= {f"≤{radius} km": f"within_{radius}_km" for radius in metrics.RADII_KM}
print(f"{'':18s}" + "".join(f"{title:>10s}" for title in columns))
for name, row in points_of.items():
    print(f"{name:18s}" + "".join(f"{row[key]:10.0%}" if "within" in key else f"{row[key]:10,.0f}" for key in columns.values()))

# %% [markdown]
# *What was seen:* a single sample has twice the median error of the others: drawing is gambling,
# answering is choosing. The best for GeoScore is best there, and shares the lowest mean with the
# medoid, which is made for it. The likeliest is as good in the median, but its misses go far. The
# spherical mean is nearly as bad as a single sample.
#
# The GeoScore, 5000 · exp(−d / 1493 km), comes from a game (GeoGuessr; PLONK, section 4.1).
#
# *What to look for:* at the left, where the score is flat. At the right, the share of tiles whose
# error is below each distance: a whole curve, of which the table shows a few points.

# %%
errors = {name: metrics.error_km(x, truth) for name, x in answers.items()}
fig, axes = plt.subplots(1, 2, figsize=(9, 2.9), layout="constrained")
km = torch.logspace(0, 4.3, 200)
axes[0].plot(km, metrics.geoscore(km), color=BLUE)
axes[0].set(xscale="log", xlabel="error (km)", ylabel="GeoScore", ylim=(0, 5100))
share = (torch.arange(scored) + 1) / scored
for (name, error), color in zip(errors.items(), (GREY, BLUE, GREEN, ORANGE, RED), strict=True):
    axes[1].plot(error.sort().values, share, color=color, lw=1.4, label=name)
axes[1].set(xscale="log", xlabel="error (km)", ylabel="share of tiles", xlim=(10, 20_000), ylim=(0, 1))
for ax in axes:
    for radius in metrics.RADII_KM:
        ax.axvline(radius, color=GREY, lw=0.5, ls=":")
axes[1].legend(fontsize=8)
plt.show()
far = errors["best for GeoScore"].sort(descending=True).values
worst_tenth = (far[: scored // 10].sum() / far.sum()).item()
score_below_25 = metrics.geoscore(torch.tensor(25.0)).item()
print(f"the worst tenth of the errors makes {worst_tenth:.0%} of the mean error; 25 km score {score_below_25:.0f}")

# %% [markdown]
# *What was seen:* within 25 km every answer scores more than 4,900, so GeoScore hardly tells a
# street from a town. Beyond 5,000 km it is flat again: a wrong continent costs the same anywhere.
# The worst tenth of the tiles makes most of the mean error, and the median says nothing of them.
# Read both, or the curve. It also shows where answers cross: the likeliest is first below some
# 300 km, and among the last beyond 2,500 km.
#
# ### Where nothing is
#
# The spherical mean is no sample. Of two regions it answers a place between them.
#
# *What to look for:* the tile where the density falls most from the best answer to the mean. Is
# there any sample near the black dot?

# %%
latlon = {name: sphere.to_latlon(x[:, None]) for name, x in answers.items()}
at = {
    name: models["riemannian"].log_prob(latlon[name], cond=cond["seen"])[:, 0] - sphere.LOG_UNIFORM
    for name in ("best for GeoScore", "spherical mean")
}
worst = int((at["best for GeoScore"] - at["spherical mean"]).argmax())
ax = maps.world(figsize=(7, 3.2))
maps.draw_points(ax, sphere.to_latlon(samples[worst]), color=BLUE, size=7, label=f"{draws} samples")
for name, color in (("best for GeoScore", ORANGE), ("spherical mean", "black")):
    maps.draw_points(ax, latlon[name][worst], color=color, size=45, alpha=1, label=name)
maps.draw_truth(ax, sphere.to_latlon(truth[worst]))
ax.figure.legend(loc="outside lower center", ncols=4, fontsize=8)
ax.figure

# %%
near_best = (sphere.distance_km(answers["best for GeoScore"][worst], samples[worst]) < 1000).double().mean().item()
print(f"this tile: {near_best:.0%} of the samples within 1,000 km of the best answer")
nearest = sphere.distance_km(answers["spherical mean"][:, None], samples).min(1).values
below_uniform = {name: (value < 0).double().mean().item() for name, value in at.items()}
print(
    f"this tile: nearest sample {nearest[worst]:,.0f} km from the mean, where the density is e^{at['spherical mean'][worst]:.1f} times uniform"
)
print({f"{name} less likely than a uniform guess": f"{value:.0%}" for name, value in below_uniform.items()})

# %% [markdown]
# *What was seen:* the samples lie on two continents, and the mean near neither: close to the
# pole, thousands of km from any sample. On 8 % of the tiles the spherical mean is less likely than a
# uniform guess; the best answer never is.
#
# ## 2. By name
#
# The paper counts how often the country, region, sub-region and city are right. The names come
# from the nearest town of a list (offline, `geoflow.places`).

# %%
guessed, named = places.lookup(latlon["best for GeoScore"][:, 0]), places.lookup(sphere.to_latlon(truth))
by_name = metrics.label_accuracy(guessed, named)
for level in places.LEVELS:
    print(f"{level:10s} right {by_name[level]:6.1%}   no true label {by_name[level + '_missing']:4d} of {scored}")
for name in ("ocean", "ice"):
    print(f"{name} {tiles.EXAMPLES[name]}: {places.lookup(torch.tensor([tiles.EXAMPLES[name]]))['city'][0]}")

# %% [markdown]
# *What was seen:* four countries in five are right, and two towns in five. But every place has a
# nearest town, however far. A tile of the southern Pacific counts as Easter Island in Chile, one of
# inner Antarctica as a station on the coast. Two tiles in three have no sub-region at all.
#
# What hides behind the shares? *What to look for:* three ways to treat a missing label, and how
# far a right country may be, how near a wrong one.

# %%
on_land = tiles.is_land(truth).numpy()
right = {level: guessed[level] == named[level] for level in places.LEVELS}
has_name = named["sub-region"] != ""
ways_of_counting = {
    "left out and counted": right["sub-region"][has_name].mean(),
    "a miss": (right["sub-region"] & has_name).mean(),
    "equal to another missing one": right["sub-region"].mean(),
}
print("sub-region right, if a missing label is …", {way: f"{share:.1%}" for way, share in ways_of_counting.items()})
km = errors["best for GeoScore"].numpy()
print(f"country right on land {right['country'][on_land].mean():.0%}, at sea {right['country'][~on_land].mean():.0%}")
farthest_right, nearest_wrong = km[right["country"]].max(), km[~right["country"]].min()
print(f"farthest answer in the right country {farthest_right:,.0f} km, nearest in a wrong one {nearest_wrong:,.0f} km")

# %% [markdown]
# *What was seen:* the sub-region score is 41 %, 14 % or 76 %, by what an empty label means; here
# such images are left out and counted. A right country can be 2,500 km off, a wrong one
# 50 km. Countries are land: at sea the label is that of a far coast, and about half are wrong.
#
# ## 3. Scores of distributions
#
# GeoScore judges one answer. Two scores judge the whole distribution, and both are **strictly
# proper**: only the distribution that the truth is drawn from has the best expectation.
#
# * **NLL**, −log p(truth): needs a density. In nats over uniform: 0 is a uniform guess, each nat
#   below is a factor e of density. The paper divides bits by 3 (bits per dimension, uniform 1.22).
# * **Energy score**, E d(X, truth) − ½ E d(X, X′) in km: needs samples only. For a point it is
#   the error.
#
# GeoScore does not ask for the right distribution. To see it, take the mixture and **sharpen** it:
# multiply every concentration κ by s. The centres and weights of its three parts stay.

# %%
mixture = models["vmf-mixture"].network(cond["seen"])
noise = samplers.noise_for(models["vmf-mixture"].model, range(scored), 24, seed)
sharpness = torch.logspace(-1.5, 2.5, 17)
curves = {"GeoScore, single sample": [], "GeoScore, best of 24": [], "energy score (km)": [], "NLL over uniform (nats)": []}
for s in sharpness.tolist():
    sharper = vmf.Mixture(mixture.log_weight, mixture.mean, (s * mixture.concentration).clamp(max=math.exp(vmf.MAX_LOG_CONCENTRATION)))
    with torch.no_grad():
        points, nll = sharper.sample(noise), -sharper.log_prob(truth[:, None]).mean() + sphere.LOG_UNIFORM
    curves["GeoScore, single sample"].append(metrics.summary(points[:, 0], truth)["geoscore"])
    curves["GeoScore, best of 24"].append(metrics.summary(metrics.best_for_geoscore(points), truth)["geoscore"])
    curves["energy score (km)"].append(metrics.energy_score(points, truth).mean().item())
    curves["NLL over uniform (nats)"].append(nll.item())

# %% [markdown]
# *What to look for:* which curves have their best place where the model was trained, at s = 1?

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 2.6), layout="constrained")
for ax, (name, values), color in zip((axes[0], *axes), curves.items(), (GREY, BLUE, BLUE, BLUE), strict=True):
    ax.plot(sharpness, values, "o-", ms=3, color=color, label=name.partition(", ")[2])
    ax.set(xscale="log", xlabel="sharpness s", ylabel=name.partition(",")[0])
    ax.axvline(1, color=RED, lw=0.8, ls=":")
axes[0].legend(fontsize=8)
axes[2].set(ylim=(min(curves["NLL over uniform (nats)"]) - 0.5, 5))
plt.show()
at_one, at_ten = (int((sharpness.log10() - power).abs().argmin()) for power in (0, 1))
for name, values in curves.items():
    best = (max if "Geo" in name else min)(range(len(values)), key=values.__getitem__)
    print(f"{name:24s} s = 1: {values[at_one]:8,.1f}   s = 10: {values[at_ten]:8,.1f}   best at s = {sharpness[best]:.2g}")

# %% [markdown]
# *What was seen:* the sharper, the higher the GeoScore of a single sample, without end. That of
# the best of 24 hardly cares. At s = 10 it is even a little higher than at s = 1, while the
# density at the true place has fallen by a factor of thousands. NLL and energy score are best near
# s = 1, where training left the model. NLL punishes false certainty hard, the energy score mildly.
#
# Now the methods side by side, on the same tiles, 24 samples each. A density of a method in R³
# costs many solutions along a ray (section 4), so here are fewer tiles.

# %%
few = truth[:compared]
table = {}
for method, geo in models.items():
    some = cond["seen"][:compared]
    if (method, "seen") in drawn:
        points, log_prob = drawn[method, "seen"][0][:compared, :24], drawn[method, "seen"][2][:compared]
    else:
        noise = samplers.noise_for(geo.model, range(compared), 24, seed)
        points = sphere.from_latlon(geo.sample(cond=some, noise=noise)).float()
        log_prob = geo.log_prob(sphere.to_latlon(few[:, None]), cond=some)[:, 0]
    alone = metrics.summary(metrics.best_for_geoscore(points), few)
    table[method] = {
        "nll over uniform": (sphere.LOG_UNIFORM - log_prob).double(),
        "bits per dimension": metrics.bits_per_dimension(log_prob.double()),
        "energy km": metrics.energy_score(points, few),
        "geoscore": alone["geoscore"],
        "median km": alone["median_km"],
    }
print(f"{compared} tiles    NLL over uniform (± s.e.)   bits/dim   energy km   GeoScore   median km")
for method, row in table.items():
    nll = row["nll over uniform"]
    print(f"{method:12s} {nll.mean():15.2f} ± {nll.std() / compared**0.5:.2f} {row['bits per dimension'].mean():14.2f}", end="")
    print(f" {row['energy km'].mean():11,.0f} {row['geoscore']:10,.0f} {row['median km']:11,.0f}")

# %% [markdown]
# *What was seen:* the mixture of three is best by every score, the single vMF has the worst NLL of
# the trained. The three flows lie together in NLL, within their errors; diffusion has the best of
# them, and the worst energy score. Which of them wins depends on the score. To know where land is
# is worth half a nat, and next to nothing to GeoScore.
#
# The paper finds another order: its mixture is the worst of the trained methods and the Riemannian
# flow the best (tables 1 and 2). Our task is small. The embeddings were trained to tell the tile's
# cell, many tiles may have no more than three candidates, training was short, and this is one seed
# and few tiles. A ranking belongs to its data.
#
# ## 4. Likelihoods in R³ and on S²
#
# A method in R³ has a density with respect to *volume*. All its data lie on a surface of no
# volume. The paper reports that density at the true place, on the unit sphere
# (`geo.ambient_log_prob`), and warns not to compare it with the Riemannian one (table 2). How bad
# is it? Take a distribution that we know: directions u by a von Mises–Fisher distribution, radii
# r by a normal distribution around 1 of width σ. Its density with respect to volume is
# vMF(u) · N(r; 1, σ) / r². What it says about **places** never depends on σ. That part is the
# radial marginal p(u) = ∫ p(r u) r² dr.

# %%
generator = torch.Generator().manual_seed(seed)
center = sphere.from_latlon(torch.tensor([48.9, 2.4])).double()
concentration = torch.tensor((sphere.EARTH_RADIUS_KM / 200) ** 2, dtype=torch.float64)  # blurred by 200 km
directions = vmf.sample(torch.rand(200, 2, generator=generator, dtype=torch.float64), center, concentration)


def shell(sigma):
    """Log-density with respect to volume: (..., 3) → (...)."""

    def log_prob(x):
        r = x.norm(dim=-1)
        radial = -(((r - 1) / sigma) ** 2) / 2 - math.log(sigma * math.sqrt(2 * math.pi))
        return vmf.log_prob(x / r[..., None], center, concentration) + radial - 2 * r.log()

    return log_prob


widths = torch.logspace(-0.7, -3, 13, dtype=torch.float64).tolist()
in_volume = [metrics.bits_per_dimension(shell(width)(directions).mean().item()) for width in widths]
on_sphere = [metrics.bits_per_dimension(likelihood.radial_marginal(shell(width), directions[None]).mean().item()) for width in widths]
exact = metrics.bits_per_dimension(vmf.log_prob(directions, center, concentration).mean().item())

# %% [markdown]
# *What to look for:* which curve rewards a thin shell, and whether it ever stops.

# %%
fig, ax = plt.subplots(figsize=(5.4, 2.8), layout="constrained")
ax.plot(widths, in_volume, "o-", ms=4, color=RED, label="with respect to volume")
ax.plot(widths, on_sphere, "o-", ms=4, color=BLUE, label="on S², radial marginal")
ax.axhline(exact, color=GREY, lw=0.8, ls=":", label="on S², formula")
ax.set(xscale="log", xlabel="thickness σ of the shell", ylabel="bits per dimension")
ax.invert_xaxis()
ax.legend(fontsize=8)
plt.show()
per_decade = (in_volume[-1] - in_volume[0]) / math.log10(widths[0] / widths[-1])
print(f"ten times thinner: {per_decade:.2f} bits per dimension (log₂ 10 / 3 = {math.log2(10) / 3:.2f})")

# %% [markdown]
# *What was seen:* each time the shell gets ten times thinner, the density with respect to volume
# improves by 1.11 bits per dimension, for ever. Nothing about places has changed, and on S² the
# number stands still.
#
# Now the shipped methods in R³, on the same tiles: both numbers, and how thick their shell is.

# %%
surface = {method: table[method]["bits per dimension"].mean().item() for method in ("riemannian", "flow", "diffusion")}
volume, thickness = {}, {}
for method in ("flow", "diffusion"):
    geo, some = models[method], cond["seen"][:compared]
    log_prob = geo.ambient_log_prob(sphere.to_latlon(few[:, None]), cond=some)
    volume[method] = metrics.bits_per_dimension(log_prob.double().mean().item())
    *_, last = geo.model.states(samplers.noise_for(geo.model, range(compared), 4, seed), some, SolverOptions())
    thickness[method] = last.norm(dim=-1).sub(1).abs().median().item()
print(f"bits per dimension: riemannian on S² {surface['riemannian']:.2f}")
for method, value in volume.items():
    print(f"{method:10s} volume {value:.2f}, on S² {surface[method]:.2f}; median |r − 1| of samples {thickness[method]:.4f}")

# %% [markdown]
# *What was seen:* with respect to volume both methods seem two to three bits per dimension better
# than the Riemannian flow. On S² all three are about equal. The shell makes the difference: that
# of the flow is ten times thinner than that of diffusion, and it earns one bit per dimension more,
# as the formula promised. In the paper's table 2 (OSV-5M) the flow in R³ has −5.01 and the
# Riemannian one −1.51: from such a pair nothing follows about places.
#
# ## 5. Two sets of places: precision, recall, density, coverage
#
# Table 2 of the paper also compares the *set* of samples, one per image, with the set of true
# places. Around each point lies a ball that reaches to its third-nearest neighbour in its own
# set.
#
# * **precision**: share of the samples inside some ball of a true place;
# * **recall**: share of the true places inside some ball of a sample;
# * **density**: in how many balls of true places a sample lies, divided by 3;
# * **coverage**: share of the balls of true places that hold a sample.
#
# *What to look for:* samples that miss a cluster; samples everywhere; then the same samples, and
# one true place moved away from the others.

# %%
generator = torch.Generator().manual_seed(seed + 1)


def cluster(n, lat, lon, degrees):
    return sphere.from_latlon(torch.tensor([lat, lon]) + degrees * torch.randn(n, 2, generator=generator).double())


real = torch.cat([cluster(10, 0.0, -18.0, 4.0), cluster(10, 0.0, 18.0, 4.0)])
wide = sphere.from_latlon(torch.rand(20, 2, generator=generator).double() * torch.tensor([36.0, 66.0]) - torch.tensor([18.0, 33.0]))
moved = torch.cat([real[:-1], cluster(1, 10.0, 0.0, 0.1)])
cases = {"one cluster": (real, cluster(20, 0.0, -18.0, 3.0)), "everywhere": (real, wide), "… and an outlier": (moved, wide)}
small = {name: metrics.prdc(*sets) for name, sets in cases.items()}
turn = torch.linspace(0, 2 * math.pi, 60, dtype=torch.float64)[:, None]
fig, axes = plt.subplots(1, 3, figsize=(9, 2.9), layout="constrained")
for ax, (name, (true, fake)) in zip(axes, cases.items(), strict=True):
    for x, reach in zip(true, sphere.distance(true[:, None], true[None]).sort(1).values[:, 3], strict=True):
        east, north = sphere.tangent_basis(x)
        lat, lon = sphere.to_latlon(sphere.exp(x.expand(60, 3), reach * (turn.cos() * east + turn.sin() * north))).unbind(-1)
        ax.fill(lon, lat, color=BLUE, alpha=0.08, lw=0)
    for x, color, label in ((true, BLUE, "true places and their balls"), (fake, ORANGE, "samples")):
        ax.scatter(*sphere.to_latlon(x).flip(-1).T, s=9, color=color, label=label)
    ax.set(xlim=(-36, 36), ylim=(-30, 30), xticks=[], yticks=[])
    found = [f"{key} {value:.2f}" for key, value in small[name].items()]
    ax.set_title("\n".join((name, ", ".join(found[:2]), ", ".join(found[2:]))), fontsize=8)
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
plt.show()

# %% [markdown]
# *What was seen:* one cluster has perfect precision and half the recall. Samples everywhere have
# perfect recall, and poor precision. The outlier has few neighbours near, so its ball is huge, and
# **the same samples** get a much better precision. Coverage is not fooled: each ball counts once.
#
# ### The number of points decides
#
# Photos come from where people are. Take 200 towns on land and true places within some 50 km of
# a town. The samples come from the same towns, once blurred by the same 50 km, once by 300 km.
#
# *What to look for:* numbers that only depend on the distributions would be horizontal lines. The
# squares are the same 4,000 points, cut into 20 chunks whose scores are averaged.

# %%
generator = torch.Generator().manual_seed(seed)
towns = sphere.uniform(2000, generator)
towns = towns[tiles.is_land(towns)][:200]
home = towns[torch.randint(200, (most_points,), generator=generator)]


def blurred(km):
    concentration = torch.tensor((sphere.EARTH_RADIUS_KM / km) ** 2)
    return vmf.sample(torch.rand(most_points, 2, generator=generator), home, concentration)


real = blurred(50)
sets = {"samples blurred by 50 km": blurred(50), "samples blurred by 300 km": blurred(300)}
counts = torch.logspace(1.5, math.log10(most_points), by_scale(4, 9, 9)).round().int().tolist()
by_count = {name: [metrics.prdc(real[:n], fake[:n]) for n in counts] for name, fake in sets.items()}
x, y = real[:4000], sets["samples blurred by 300 km"][:4000]
north = x[:, 2].argsort()
ways = {
    "4,000 points": metrics.prdc(x, y),
    "4,000 in 20 chunks": metrics.prdc(x, y, chunks=20),
    "200 points": metrics.prdc(x[:200], y[:200]),
    "20 chunks, by latitude": metrics.prdc(x[north], y[north], chunks=20),
}

fig, axes = plt.subplots(1, 2, figsize=(9, 2.9), layout="constrained", sharey=True)
palette = dict(zip(("precision", "recall", "density", "coverage"), (BLUE, ORANGE, GREEN, RED), strict=True))
for ax, (name, rows_of_n) in zip(axes, by_count.items(), strict=True):
    for key, color in palette.items():
        ax.plot(counts, [row[key] for row in rows_of_n], "o-", ms=3, lw=1.2, color=color, label=key)
        if name == "samples blurred by 300 km":
            ax.plot(4000, ways["4,000 in 20 chunks"][key], "s", ms=6, mfc="none", color=color)
    ax.set(xscale="log", xlabel="points in each set", title=name, ylim=(0, None))
fig.legend(*axes[0].get_legend_handles_labels(), loc="outside upper center", ncols=4)
plt.show()
for name, row in ways.items():
    print(f"{name:24s}" + "   ".join(f"{key} {value:.2f}" for key, value in row.items()))

# %% [markdown]
# *What was seen:* with 100 points the balls are wider than the towns, and an error of 300 km is
# invisible: everything is perfect. With 2,000 points precision is below 0.2. Samples of the same
# distribution approach the values of theory, density 1 and coverage 1 − 2⁻³ = 0.875, also slowly.
# Recall never sees the blur. And 4,000 points in 20 chunks give the numbers of 200 points,
# precision 0.96 in place of 0.18, unless the file is sorted by place. So state the number of
# points, and compare no number with one of another size. `metrics.prdc` needs no chunks: its
# memory grows with the number of points, not with its square.
#
# ### A set forgets its images
#
# One sample per tile against the true places, and three cheats: other true places; `land`, which
# looks at no image; and the flow's samples **shuffled**, so that each answers for another tile.

# %%
shuffled = samples[torch.randperm(scored, generator=generator), 0]
rivals = {"other true places": tiles.sample_centers(scored, "test", generator)}
rivals |= {method: drawn[method, "seen"][0][:, 0] for method in ("riemannian", "vmf-mixture", "vmf")}
rivals |= {"riemannian, shuffled": shuffled}
for name in ("land", "uniform"):
    noise = samplers.noise_for(models[name].model, range(scored), 1, seed)
    rivals[name] = sphere.from_latlon(models[name].sample(cond=cond["seen"], noise=noise)).float()[:, 0]
of_sets = {name: metrics.prdc(truth, x) | {"geoscore": metrics.summary(x, truth)["geoscore"]} for name, x in rivals.items()}
print(f"{scored} places           precision    recall   density  coverage   GeoScore")
for name, row in of_sets.items():
    print(f"{name:22s}" + "".join(f"{row[key]:10.2f}" for key in palette) + f"{row['geoscore']:11,.0f}")

# %% [markdown]
# *What was seen:* shuffling changes none of the four numbers, and ruins the GeoScore. `land`, which
# looks at no image, comes near the other true places. And the trained models have more coverage
# than those: each sample lies near its own true place, which no independent set can. These numbers
# say whether the model covers the Earth like the data do. They say nothing about its answers.
#
# ## 6. Calibration
#
# A model says: with 90 % it lies in this region. Does it, nine times in ten? The smallest region
# that holds a probability α is where the density is above some level. The truth lies in it
# exactly if less than a share α of the samples have a higher density than the truth
# (`metrics.hpd_rank`). So each tile gives one rank, and the ranks of a calibrated model are
# uniform.
#
# *What to look for:* the diagonal is calibration. Below it, regions are too small: the model is
# too sure. Above, too large.

# %%
levels = torch.linspace(0, 1, 101)[1:]
ranks = {key: metrics.hpd_rank(values, at_truth) for key, (_, values, at_truth) in drawn.items()}
fig, ax = plt.subplots(figsize=(4.2, 3.6), layout="constrained")
noise_band = 2 * (levels * (1 - levels) / scored).sqrt()
ax.fill_between(levels, levels - noise_band, levels + noise_band, color=GREY, alpha=0.25, lw=0, label="chance, ± 2 s.e.")
for (key, rank), color in zip(ranks.items(), (BLUE, GREEN, ORANGE, RED), strict=True):
    ax.plot(levels, [(rank < level).double().mean() for level in levels], color=color, lw=1.4, label=", ".join(key))
ax.set(xlabel="probability of the region", ylabel="share of truths inside", xlim=(0, 1), ylim=(0, 1))
ax.legend(fontsize=8, loc="upper left")
plt.show()
regions = {key: metrics.calibration(values, at_truth) for key, (_, values, at_truth) in drawn.items()}
print(f"{'':22s}truth inside 50 / 90 / 95 %      median area, million km²")
for key, row in regions.items():
    inside = " / ".join(f"{row[f'calibration_{level}']:4.0%}" for level in (50, 90, 95))
    print(f"{', '.join(key):24s} {inside}         " + " / ".join(f"{row[f'area_{level}_km2'] / 1e6:6.2f}" for level in (50, 90, 95)))

# %% [markdown]
# *What was seen:* nobody is calibrated, and each in another way. The vMF and the mixture are too
# sure of their tails: their regions of 95 % hold about nine truths in ten. Real errors are mostly
# small and sometimes huge, and a few round blobs cannot be both: the vMF's small regions hold too
# many truths, its large ones too few. The flow errs the other way: too few truths in its core, and
# nearly all in its regions of 90 and 95 %, which are ten times as large as the mixture's. Its NLL
# pays for both.
#
# In held-out regions the flow fails: most of its 90 % regions do not hold the truth.
#
# Why do the regions fail where nothing was seen in training? Two causes are mixed. The tiles look
# unlike any that were learned. And no training tile ever lay in a held-out block, so the model
# rightly learned to put no density there. How much do its samples fall there?

# %%
unseen = drawn["riemannian", "held-out"][0]
share_held_out = {"samples for held-out tiles": tiles.is_held_out(unseen).double().mean().item()}
share_held_out |= {
    "samples for seen tiles": tiles.is_held_out(samples).double().mean().item(),
    "the Earth": tiles.held_out_blocks().double().mean().item(),
}
print("in held-out blocks:", {name: f"{share:.1%}" for name, share in share_held_out.items()})
own_area = {split: regions["riemannian", split]["area_90_km2"] / 1e6 for split in splits}
print("median area of the 90 % region, million km²:", {split: f"{area:.2f}" for split, area in own_area.items()})

# %% [markdown]
# *What was seen:* of the samples for held-out tiles, few fall into held-out blocks, where all the
# truths are; by chance it would be 18 %. Much of the failure is thus in the data: a fifth of the
# Earth was never an answer. The regions of unknown tiles are several times larger, so the model
# does notice something. But it is far from enough: **it does not know that it does not know.**
# Calibration holds, at best, for images like those of the training, and must be measured on such
# as will come.
#
# ## 7. Count every image, once
#
# Two quiet ways to a better score. **Drop what failed**: a prediction that is NaN disappears from
# the mean. Here NaN counts as a miss: GeoScore 0, half the Earth's circumference away. **Count
# some twice**: several processes, or a last batch that is filled up, repeat images.
# `metrics.Accumulator` takes each row with the image's number. Rows that agree count once;
# missing ones are an error.

# %%
failed = answers["best for GeoScore"].clone()
hardest = errors["best for GeoScore"].argsort(descending=True)[: scored // 10]
failed[hardest] = math.nan
kept = ~failed.isnan().any(-1)
with_failures = {
    "no failures": points_of["best for GeoScore"],
    "NaN is a miss": metrics.summary(failed, truth),
    "NaN dropped": metrics.summary(failed[kept], truth[kept]),
}
for name, row in with_failures.items():
    print(f"{name:14s} {row['images']:4d} images, {row['nan']:3d} NaN, GeoScore {row['geoscore']:5.0f}, mean {row['mean_km']:5,.0f} km")

# %%
once, naive = metrics.Accumulator(scored), []
for batch in torch.arange(scored + scored // 5).remainder(scored).split(scored // 5):  # the first fifth comes twice
    once.update(batch, predicted=answers["best for GeoScore"][batch], truth=truth[batch])
    naive += [metrics.geoscore(errors["best for GeoScore"][batch])]
counted, repeated = metrics.summary(**once.compute())["geoscore"], torch.cat(naive).mean().item()
print(f"every image once {counted:.1f}, a fifth of them twice {repeated:.1f}")
once.batches.pop(2)
try:
    once.compute()
except ValueError as error:
    print(error)

# %% [markdown]
# `evaluate` does all of this in one call:

# %%
report = evaluate(models["vmf-mixture"], splits["seen"], "seen regions", labels=True, calibrated=min(200, scored), seed=seed)
print("\n".join(report.table().splitlines()[1:]))

# %% [markdown]
# ## Check
#
# What must hold for any model, and what the text claims of the shipped ones.

# %%
best = points_of["best for GeoScore"]
assert abs(counted - best["geoscore"]) < 1e-6
assert abs(repeated - counted) > 1e-3
assert with_failures["NaN is a miss"]["geoscore"] < best["geoscore"] < with_failures["NaN dropped"]["geoscore"]
assert with_failures["NaN is a miss"]["images"] == scored
assert score_below_25 > 4900
assert abs(per_decade + math.log2(10) / 3) < 0.01
assert all(abs(value - exact) < 0.02 for value in on_sphere)
assert torch.equal(metrics.hpd_rank(of_samples, of_truth), ranks["riemannian", "seen"])
assert all(of_sets["riemannian"][key] == of_sets["riemannian, shuffled"][key] for key in palette)
assert of_sets["riemannian, shuffled"]["geoscore"] < 0.3 * of_sets["riemannian"]["geoscore"]
assert small["one cluster"]["precision"] == small["everywhere"]["recall"] == 1
assert small["… and an outlier"]["precision"] > small["everywhere"]["precision"] + 0.2
assert abs(small["… and an outlier"]["coverage"] - small["everywhere"]["coverage"]) < 0.11
assert ways["4,000 points"]["precision"] < 0.25
assert ways["4,000 in 20 chunks"]["precision"] > 0.9
assert abs(ways["20 chunks, by latitude"]["precision"] - ways["4,000 points"]["precision"]) < 0.1
assert all(volume[method] < surface[method] - 1 for method in volume)
if scale() != "smoke":
    assert nearest[worst] > 500
    assert below_uniform["best for GeoScore"] < 0.02
    single, likeliest, mean = (points_of[name] for name in ("single sample", "likeliest", "spherical mean"))
    assert best["geoscore"] == max(row["geoscore"] for row in points_of.values())
    assert max(best["mean_km"], points_of["medoid"]["mean_km"]) < min(likeliest["mean_km"], mean["mean_km"], single["mean_km"])
    assert single["median_km"] > 1.5 * best["median_km"]
    assert mean["median_km"] > 1.3 * best["median_km"]
    assert likeliest["median_km"] < 1.15 * best["median_km"]
    assert likeliest["mean_km"] > 1.1 * best["mean_km"]
    assert worst_tenth > 0.6
    assert 0.04 < below_uniform["spherical mean"] < 0.2
    assert 0.7 < by_name["country"] < 0.95
    assert 0.25 < by_name["city"] < 0.6
    assert has_name.mean() < 0.5
    assert ways_of_counting["a miss"] < ways_of_counting["left out and counted"] < ways_of_counting["equal to another missing one"]
    assert farthest_right > 1500
    assert nearest_wrong < 100
    assert 0.3 < right["country"][~on_land].mean() < 0.7
    assert curves["GeoScore, single sample"][at_ten] > curves["GeoScore, single sample"][at_one] + 20
    assert abs(curves["GeoScore, best of 24"][at_ten] - curves["GeoScore, best of 24"][at_one]) < 100
    for name in ("energy score (km)", "NLL over uniform (nats)"):
        assert abs(min(range(len(sharpness)), key=curves[name].__getitem__) - at_one) <= 1
    assert curves["NLL over uniform (nats)"][at_ten] > curves["NLL over uniform (nats)"][at_one] + 4
    nll, energy = ({method: row[key].mean().item() for method, row in table.items()} for key in ("nll over uniform", "energy km"))
    assert min(nll, key=nll.get) == min(energy, key=energy.get) == max(table, key=lambda method: table[method]["geoscore"]) == "vmf-mixture"
    assert max(abs(nll[method] - nll["riemannian"]) for method in ("flow", "diffusion")) < 0.6
    assert nll["vmf"] > max(nll["riemannian"], nll["flow"], nll["diffusion"])
    assert nll["diffusion"] < min(nll["riemannian"], nll["flow"])
    assert energy["diffusion"] > max(energy["riemannian"], energy["flow"], energy["vmf"])
    assert 0.3 < -nll["land"] < 0.7
    assert -3.5 < volume["flow"] - surface["riemannian"] < -2.5
    assert -2.6 < volume["diffusion"] - surface["riemannian"] < -1.5
    assert max(surface.values()) - min(surface.values()) < 0.3
    assert 5 < thickness["diffusion"] / thickness["flow"] < 20
    assert by_count["samples blurred by 300 km"][1]["precision"] > 0.95
    assert abs(by_count["samples blurred by 50 km"][-1]["coverage"] - 0.875) < 0.03
    assert of_sets["land"]["recall"] > 0.95
    assert of_sets["riemannian"]["coverage"] > of_sets["other true places"]["coverage"]
    assert all(regions[method, "seen"]["calibration_95"] < 0.94 for method in ("vmf", "vmf-mixture"))
    assert regions["riemannian", "seen"]["calibration_90"] > 0.92
    assert regions["riemannian", "held-out"]["calibration_90"] < 0.4
    assert regions["riemannian", "seen"]["area_90_km2"] > 4 * regions["vmf-mixture", "seen"]["area_90_km2"]
    assert share_held_out["samples for held-out tiles"] < 0.12
    assert own_area["held-out"] > 3 * own_area["seen"]
print("all checks passed")

# %% [markdown]
# ## References
#
# * N. Dufour, D. Picard, V. Kalogeiton, L. Landrieu, *Around the World in 80 Timesteps*, CVPR 2025,
#   arXiv 2412.06781 (PLONK): sections 3.4 and 4, tables 1, 2, A and B.
# * T. Gneiting, A. E. Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation*, JASA
#   102, 2007: propriety and the energy score.
# * R. J. Hyndman, *Computing and Graphing Highest Density Regions*, The American Statistician 50,
#   1996.
# * T. Kynkäänniemi et al., *Improved Precision and Recall Metric for Assessing Generative Models*,
#   NeurIPS 2019, arXiv 1904.06991.
# * M. F. Naeem et al., *Reliable Fidelity and Diversity Metrics for Generative Models*, ICML 2020,
#   arXiv 2002.09797.
