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
# 2. what distances, GeoScore and the names of countries each hide;
# 3. why a distribution needs *proper* scores: negative log-likelihood (NLL) and energy score;
# 4. why likelihoods in R³ and on S² cannot be compared, and how to make them comparable;
# 5. what precision, recall, density and coverage measure, and how much depends on the number of points;
# 6. whether a region of 90 % holds the truth nine times in ten, and when it does not.
#
# | Needs | Time to read | Time to run (laptop / GPU) | Produces |
# |---|---|---|---|
# | notebooks 03 and 05; 07 helps | 50 minutes, exercises 50 more | 4 minutes / not needed | figures only |
#
# Nothing is trained here; all models are shipped. Every score is defined before it is used. The [glossary](GLOSSARY.md) has the words.

# %% tags=["parameters"]
from geoflow.runtime import by_scale

seed = 0
seen_tiles, unseen_tiles = by_scale((60, 40), (2_000, 300), (2_000, 2_000))  # tiles of seen and of held-out regions
compared = by_scale(12, 200, 2_000)  # of the seen tiles, for methods whose densities take long
draws = 24  # samples of each tile
most_points = by_scale(4_000, 20_000, 100_000)  # for precision and recall

# %%
import math

import torch

from geoflow import Geolocator, evaluate, likelihood, samplers, sphere, vmf
from geoflow.data import tiles, towns
from geoflow.methods import SolverOptions
from geoflow.scores import metrics
from geoflow.viz import lessons_scores as lessons

_ = torch.manual_seed(seed)

# %% [markdown]
# ## The models, the tiles, and what every score is computed from
#
# Seven models answer for the same tiles. Five are trained on the same embeddings:
#
# * `riemannian`, the flow on the sphere of notebook 05;
# * `vmf` and `vmf-mixture`, the paper's baselines: one von Mises–Fisher density for each image, or a mixture of three (notebook 08);
# * `flow` and `diffusion`, the paper's two methods in R³, the space around the sphere.
#
# Two look at no image: `uniform`, and `land`, which only knows that three tiles in four lie on land.
#
# The tiles show the Earth from any heading, 200 to 400 km wide, in any light and partly under clouds. Most of them could lie in
# several places. `seen` tiles are new tiles of regions that training covered, `held-out` tiles lie in regions that training never saw. They are
# not the same 2,000 tiles as in the tables of notebook 08, and they happen to be easier: the flow's GeoScore is 100 points higher here. So compare
# methods on the same tiles only.

# %%
names = {
    "riemannian": "tiles",
    "vmf": "tiles-vmf",
    "vmf-mixture": "tiles-vmf-mixture",
    "flow": "tiles-flow",
    "diffusion": "tiles-diffusion",
}
models = {method: Geolocator.from_pretrained(name, device="cpu") for method, name in names.items()}
models |= {name: Geolocator.from_pretrained(name, device="cpu") for name in ("uniform", "land")}
splits = {"seen": tiles.load("test", seen_tiles), "held-out": tiles.load("held-out", unseen_tiles)}
cond = {split: models["riemannian"].encoder.embed(part.images) for split, part in splits.items()}
truth = splits["seen"].x
print({split: f"{len(part):,} tiles" for split, part in splits.items()})

# %% [markdown]
# For each tile we draw 24 samples and compute two kinds of numbers: the log-density of every sample and the log-density of the true place.
# All scores below follow from these. For a flow, one solution of its equation gives a sample and its log-density together.
#
# To save time, samples are drawn with 24 evaluations of the network (the solver `ab3`) instead of the package's 64. The second cell
# measures what that costs.

# %%
quick = SolverOptions(steps=24, solver="ab3", schedule="few-steps")


def draw(geo, cond, x):
    """Samples (B, draws, 3), their log-densities (B, draws), and the log-densities of the true places x (B, 3): (B,)."""
    noise = samplers.noise_for(geo.model, range(len(cond)), draws, seed)
    with torch.no_grad():
        parts = [geo.model.sample_with_log_prob(*part, quick) for part in zip(noise.split(50), cond.split(50), strict=True)]
    points, of_samples = (torch.cat(column) for column in zip(*parts, strict=True))
    return points, of_samples, geo.log_prob(sphere.to_latlon(x[:, None]), cond=cond)[:, 0]


drawn = {(method, "seen"): draw(models[method], cond["seen"], truth) for method in ("riemannian", "vmf-mixture", "vmf")}
drawn["riemannian", "held-out"] = draw(models["riemannian"], cond["held-out"], splits["held-out"].x)
samples, of_samples, of_truth = drawn["riemannian", "seen"]
print({" ".join(key): tuple(points.shape) for key, (points, _, _) in drawn.items()})

# %%
few = by_scale(4, 100, 200)
noise = samplers.noise_for(models["riemannian"].model, range(few), draws, seed)
with torch.no_grad():
    exact, of_exact = models["riemannian"].model.sample_with_log_prob(noise, cond["seen"][:few], SolverOptions(steps=32))
moved = sphere.distance_km(samples[:few], exact).median().item()
changed = (of_samples[:few] - of_exact).abs().median().item()
print(f"24 evaluations against 128: a sample moves by {moved:.1f} km, its log-density by {changed:.3f} nats (medians)")
rank_by_quick, rank_by_exact = (metrics.hpd_rank(values[:, :19], of_truth[:few]) for values in (of_samples[:few], of_exact))
print(f"share of the samples that are denser than the truth: {rank_by_quick.mean():.3f} against {rank_by_exact.mean():.3f} (means)")

# %% [markdown]
# **What was seen:** a sample moves by 5 km and its log-density changes by 0.04 nats, in the median. That is far less than the median errors of more than 1,000 km that we are going to
# measure. NLL does not depend on it, since the log-density of the *true* place is computed with the default steps. Section 6 compares the two kinds of log-density.
# The share of the samples that are denser than the truth, which it needs, is nearly the same with exact samples: 0.515 against 0.518.
#
# ## 1. One answer from a distribution
#
# ### Scores of one answer
#
# Let d be the *error*: the distance in km between the answer and the true place. Four kinds of numbers summarise the errors of many images:
#
# * the **mean error** and the **median error**, in km;
# * the **accuracy within r km**: the share of images with d ≤ r. The paper's table 1 takes r = 25, 200, 750 and
#   2,500, its code 1 as well;
# * the **GeoScore**, 5000 · exp(−d / 1492.7 km), averaged over images. It comes from the game GeoGuessr (PLONK, section 4.1). A perfect answer
#   scores 5,000.
#
# ### Rules to choose an answer
#
# A game, a table or a phone wants one place. From the same 24 samples x₁ … x₂₄ we can choose
#
# * a **single sample**: the first one;
# * the **best for GeoScore**: the sample xᵢ with the highest *expected GeoScore*, which is the mean over j of 5000 · exp(−d(xᵢ, xⱼ) / 1492.7 km).
#   The samples themselves stand for the unknown truth. **The true place is not used.** This is what other notebooks and tables
#   mean by "best of 24";
# * the **medoid**: the sample with the smallest mean distance to all samples;
# * the **likeliest**: the sample of highest density (the paper's ensemble, table A; `geo.sample_likeliest`);
# * the **spherical mean**: the direction of the mean of the 24 unit vectors. It is not one of the samples.
#
# For comparison, the last row of the table cheats: it takes the sample that is nearest to the truth. No method can answer so.
#
# **Predict before you run:** which rule has the smallest median error, and which the smallest mean error?

# %%
answers = {
    "single sample": samples[:, 0],
    "best for GeoScore": metrics.best_for_geoscore(samples),
    "medoid": metrics.medoid(samples),
    "likeliest": samples[torch.arange(len(samples)), of_samples.argmax(-1)],
    "spherical mean": metrics.spherical_mean(samples),
}
nearest = metrics.error_km(samples, truth[:, None]).argmin(-1)
cheating = samples[torch.arange(len(samples)), nearest]
points_of = {name: metrics.summary(x, truth) for name, x in (answers | {"nearest (cheats)": cheating}).items()}
columns = {"GeoScore": "geoscore", "mean km": "mean_km", "median km": "median_km"}
columns |= {f"≤{radius} km": f"within_{radius}_km" for radius in metrics.RADII_KM}
print(f"{'':18s}" + "".join(f"{title:>10s}" for title in columns))
for name, row in points_of.items():
    print(f"{name:18s}" + "".join(f"{row[key]:10.1%}" if "within" in key else f"{row[key]:10,.0f}" for key in columns.values()))

# %% [markdown]
# **What was seen:** the best for GeoScore has the highest GeoScore, 2,145, and the smallest median error, 1,452 km. A single sample has 2,431 km: a central
# sample is safer than a random one. The medoid, which is made for it, has the smallest mean error. The likeliest sample is most often within 200 km, but
# when it is wrong it is far away: its mean error is nearly that of a single sample. The spherical mean has a low mean error and
# is almost never near. The last row shows that a good place is often among the 24, but without the truth nobody can tell which one it is.
#
# **What to look for:** at the left, where the GeoScore is flat. At the right, the share of tiles whose error is below each distance. This
# is a whole curve. The table above shows five points of it; four of them are at the dotted lines, and 1 km lies left of the figure. Where do the curves cross?

# %%
errors = {name: metrics.error_km(x, truth) for name, x in answers.items()}
far = errors["best for GeoScore"].sort(descending=True).values
worst_tenth = (far[: seen_tiles // 10].sum() / far.sum()).item()
worth = {km: metrics.geoscore(torch.tensor(float(km))).item() for km in (25, 200, 5000, 10_000)}
print("GeoScore of an error of", {f"{km:,} km": round(score) for km, score in worth.items()})
print(f"the worst tenth of the errors makes {worst_tenth:.0%} of the mean error")
lessons.answers_figure(errors)

# %% [markdown]
# **What was seen:** an error of 25 km still scores 4,917, so GeoScore hardly tells a street from a town. An error of 5,000 km scores 175 and one
# of 10,000 km scores 6: a wrong continent costs about the same anywhere. The curves cross. Within 200 km the likeliest has the largest share (23.6 %), within 750 km
# the best for GeoScore (41.1 %). Within 2,500 km the best for GeoScore and the medoid are close, 58.2 and 57.5 %. Among very large errors the spherical mean has the largest share. So the ranking depends on the radius that a table happens to show. The worst tenth of the tiles makes 37 % of the mean error, and the
# median says nothing about them.
#
# ### Where nothing is
#
# The spherical mean is no sample. If the samples lie in two regions, it answers a place between them. We look for the tile where the density
# falls most from the best answer to the mean.
#
# **What to look for:** is there any sample near the black ring? (The cross marks the true place.)

# %%
latlon = {name: sphere.to_latlon(x[:, None]) for name, x in answers.items()}
at = {
    name: models["riemannian"].log_prob(latlon[name], cond=cond["seen"])[:, 0] - sphere.LOG_UNIFORM
    for name in ("best for GeoScore", "spherical mean")
}
worst = int((at["best for GeoScore"] - at["spherical mean"]).argmax())
to_nearest = sphere.distance_km(answers["spherical mean"][:, None], samples).min(1).values
below_uniform = {name: (value < 0).double().mean().item() for name, value in at.items()}
print(f"this tile: the mean is {to_nearest[worst]:,.0f} km from the nearest sample")
print(
    f"log-density over uniform: {at['best for GeoScore'][worst]:.1f} nats at the best answer, {at['spherical mean'][worst]:.1f} at the mean"
)
print("all tiles, answers less likely than a uniform guess:", {name: f"{value:.1%}" for name, value in below_uniform.items()})
shown = {name: answers[name][worst] for name in ("best for GeoScore", "spherical mean")}
lessons.answer_map_figure(samples[worst], shown, truth[worst])

# %% [markdown]
# **What was seen:** the samples lie in South America, in North America, in Asia and around New Guinea. The mean lies in the Pacific, thousands of kilometres from any
# sample. This is no rare case: for 46.5 % of the tiles the spherical mean is less likely than a uniform guess, for the best answer this
# happens in 0.1 %. A least-squares regressor predicts such a mean.
#
# ## 2. By name
#
# The paper also counts how often the country, the region, the sub-region and the city of the answer are right. The names are those of the nearest
# town in a list of towns (offline, `geoflow.data.towns`). The *accuracy* of a level is the share of images with the right name.

# %%
guessed, named = towns.lookup(latlon["best for GeoScore"][:, 0]), towns.lookup(sphere.to_latlon(truth))
by_name = metrics.label_accuracy(guessed, named)
for level in towns.LEVELS:
    print(f"{level:10s} right {by_name[level]:6.1%}   no true label {by_name[level + '_missing']:5,d} of {seen_tiles:,}")
for name in ("ocean", "ice"):
    print(f"{name} {tiles.EXAMPLES[name]}: {towns.lookup(torch.tensor([tiles.EXAMPLES[name]]))['city'][0]}")

# %% [markdown]
# **What was seen:** the country is right for 47 % of the tiles, the city for 16 %. But every place has a nearest town, however far. A tile of the southern
# Pacific counts as Easter Island in Chile, and one of inner Antarctica as a station on the coast. Two tiles in three have no sub-region at all.
#
# What do these shares hide? We look at three ways to treat a missing label, and at the distances behind right and wrong countries.
#
# **Predict before you run:** can an answer in the right country be farther from the truth than an answer in a wrong one? By how much?

# %%
on_land = tiles.is_land(truth).numpy()
right = {level: guessed[level] == named[level] for level in towns.LEVELS}
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
# **What was seen:** the sub-region score is 9 %, 3 % or 58 %, depending on what a missing label means. In geoflow such images are left out and counted. An answer in the
# right country can be 5,320 km off, and an answer in a wrong one 13 km. Names of countries are made for land: at sea, where the label is that of a far coast, they
# are right for 14 % of the tiles, on land for 57 %.
#
# ## 3. Scores of distributions
#
# GeoScore judges one answer. Two other scores judge the whole distribution. Let p be the model's density, y the true place, and X, X′ two
# independent samples of the model.
#
# * **NLL**, the negative log-likelihood: −log p(y). It needs a density. We report it *over uniform*, in nats: the uniform density has 0, and each nat below
#   0 is a factor e more density at the true place. The paper's unit is bits per dimension: the NLL divided by 3 log 2, where uniform has 1.22.
# * **Energy score**: E d(X, y) − ½ E d(X, X′), in km. It needs samples only. The first term is the mean distance of the samples to the truth.
#   The second rewards the samples for being apart, so that it pays to be as uncertain as one must be. If all samples are one point, the energy score is
#   the error of that point.
#
# Both are **proper**: no distribution has a better expected score than the one that the truth is drawn from. NLL is even *strictly* proper: no other
# distribution is as good. The energy score with distances on the sphere is so but for one thing that it cannot see, mass that is divided equally between opposite points:
# if the truth is uniform, half of the mass on each pole scores the same as the uniform distribution. To see what being proper means, take a toy that has two places, A and B, 9,000 km apart. The truth is A in 70 % of all cases. A model says A with the probability q. Then
#
# * NLL: −0.7 log q − 0.3 log(1 − q);
# * energy score: 9,000 km · [0.7 (1 − q) + 0.3 q − q (1 − q)], because E d(X, X′) = 2 q (1 − q) · 9,000 km;
# * GeoScore of a single sample: a right sample scores 5,000, a wrong one 5000 · exp(−9000/1492.7) = 12.
#
# **Predict before you run:** at which q does each of the three have its best value?

# %%
q = torch.linspace(0.02, 0.98, 25, dtype=torch.float64)
hit = 0.7 * q + 0.3 * (1 - q)  # probability that a single sample is right
toy = {
    "NLL (nats)": -0.7 * q.log() - 0.3 * (1 - q).log(),
    "energy score (km)": 9000 * (1 - hit - q * (1 - q)),
    "GeoScore of a single sample": 5000 * hit + metrics.geoscore(torch.tensor(9000.0)) * (1 - hit),
}
best_q = {name: q[values.argmax() if "Geo" in name else values.argmin()].item() for name, values in toy.items()}
print("best q:", {name: round(value, 2) for name, value in best_q.items()})
panels = [lessons.Panel(name, {"": values}) for name, values in toy.items()]
lessons.panels_figure(q, panels, "q, probability that the model gives to A", mark=("the truth, q = 0.7", 0.7), log=False)

# %% [markdown]
# **What was seen:** NLL and energy score are best at q = 0.7: it pays to say what one believes. The GeoScore of a single sample grows with q: it pays
# to pretend to be certain. A score that rewards this is not proper.
#
# ### Sharpening
#
# The same with a trained model. We take the mixture and **sharpen** it: every concentration κ is multiplied by s. The centres and weights of the three
# parts stay, so the model says the same places with more (s > 1) or less (s < 1) certainty.

# %%
with torch.no_grad():
    mixture = models["vmf-mixture"].network(cond["seen"])


def sharpen(s):
    """The mixtures of all tiles with every concentration multiplied by s."""
    concentration = (s * mixture.concentration).clamp(max=math.exp(vmf.MAX_LOG_CONCENTRATION))
    return vmf.Mixture(mixture.log_weight, mixture.mean, concentration)


noise = samplers.noise_for(models["vmf-mixture"].model, range(seen_tiles), draws, seed)
sharpness = torch.logspace(-1.5, 2.5, 17)
curves = {name: [] for name in ("single sample", "best for GeoScore", "energy", "nll")}
for s in sharpness.tolist():
    points = sharpen(s).sample(noise)
    curves["single sample"].append(metrics.summary(points[:, 0], truth)["geoscore"])
    curves["best for GeoScore"].append(metrics.summary(metrics.best_for_geoscore(points), truth)["geoscore"])
    curves["energy"].append(metrics.energy_score(points, truth).mean().item())
    curves["nll"].append((sphere.LOG_UNIFORM - sharpen(s).log_prob(truth[:, None])).mean().item())

# %% [markdown]
# **What to look for:** which curves are best at s = 1, as the model was trained?

# %%
at_one, at_ten = (int((sharpness.log10() - power).abs().argmin()) for power in (0, 1))
low_is_good = ("energy", "nll")
best_s = {
    name: sharpness[(min if name in low_is_good else max)(range(17), key=values.__getitem__)].item() for name, values in curves.items()
}
for name, values in curves.items():
    print(f"{name:18s} s = 1: {values[at_one]:8,.2f}   s = 10: {values[at_ten]:8,.2f}   best at s = {best_s[name]:.2g}")
panels = [
    lessons.Panel("GeoScore", {name: curves[name] for name in ("single sample", "best for GeoScore")}),
    lessons.Panel("energy score (km)", {"": curves["energy"]}),
    lessons.Panel("NLL over uniform (nats)", {"": curves["nll"]}, ylim=(min(curves["nll"]) - 0.5, 5)),
]
lessons.panels_figure(sharpness, panels, "sharpness s", mark=("the trained mixture, s = 1", 1))

# %% [markdown]
# **What was seen:** the GeoScore of a single sample grows with the sharpness, up to the sharpest mixture of the figure. The GeoScore of the best answer hardly changes
# above s = 1. At s = 10 the single sample scores more than at s = 1, while the density at the true place has fallen by more than 6 nats, a factor of several hundred. NLL and energy
# score are best at s = 1, as the model was trained. NLL punishes false certainty hard, the energy score mildly.
#
# ### The methods side by side
#
# Now all methods answer for the same tiles, with 24 samples each. The log-density of a method in R³ takes many solutions along a ray (section
# 4), so these are fewer tiles. The table of notebook 08 has 2,000.

# %%
some, few_truth = cond["seen"][:compared], truth[:compared]


def score(method):
    """Scores of a method for each of the first tiles: name → (compared,)."""
    geo = models[method]
    if (method, "seen") in drawn:
        points, _, log_prob = (part[:compared] for part in drawn[method, "seen"])
    else:
        points = sphere.from_latlon(geo.sample(cond=some, noise=samplers.noise_for(geo.model, range(compared), draws, seed))).float()
        log_prob = geo.log_prob(sphere.to_latlon(few_truth[:, None]), cond=some)[:, 0]
    answer = metrics.best_for_geoscore(points)
    return {
        "nll": (sphere.LOG_UNIFORM - log_prob).double(),
        "energy": metrics.energy_score(points, few_truth),
        "geoscore": metrics.geoscore(metrics.error_km(answer, few_truth)),
        "single": metrics.geoscore(metrics.error_km(points[:, 0], few_truth)),
    }


table = {method: score(method) for method in models}

# %% [markdown]
# A difference between two methods is measured tile by tile: `metrics.paired_difference` gives its mean and its standard error. We say that a method is
# *ahead of* another one only if the difference is more than two standard errors from 0.

# %%
print(f"{compared} tiles    NLL over uniform   bits/dimension   energy km   GeoScore, best   GeoScore, single")
for method, row in table.items():
    mean = {name: values.mean().item() for name, values in row.items()}
    bits = metrics.bits_per_dimension(sphere.LOG_UNIFORM - mean["nll"])
    print(f"{method:12s}{mean['nll']:17.2f}{bits:17.2f}{mean['energy']:12,.0f}{mean['geoscore']:17,.0f}{mean['single']:19,.0f}")
print("\nriemannian minus …        NLL (nats)        energy km         GeoScore, best     (± standard error)")
ahead = {}
for method in ("vmf-mixture", "vmf", "flow", "diffusion", "land"):
    ahead[method] = {
        name: metrics.paired_difference(table["riemannian"][name], table[method][name]) for name in ("nll", "energy", "geoscore")
    }
    print(
        f"{method:20s}"
        + "".join(
            f"{mean:10.2f} ± {error:5.2f}" if abs(mean) < 20 else f"{mean:10,.0f} ± {error:5,.0f}" for mean, error in ahead[method].values()
        )
    )

# %% [markdown]
# **What was seen:** the Riemannian flow is ahead of the single vMF in all three scores. It is ahead of the mixture of three in NLL and in GeoScore; its energy score is
# better by 88 ± 96 km, which proves nothing with 200 tiles. The two methods in R³ are close to it: it is ahead of diffusion in NLL, by 0.19 ± 0.08 nats,
# and no other difference between it and these two is more than two standard errors. To know only where land is, is worth half a nat, and little GeoScore.
#
# So the answer to "which method is better" depends on the score, and 200 tiles cannot separate methods that are close. All of this is one training of each method; notebook 08 has
# more tiles and several trainings, and notebook 12 the paper's numbers.
#
# ## 4. Likelihoods in R³ and on S²
#
# A method in R³ has a density with respect to *volume*. Its data lie on the sphere, a surface, which has no volume. The paper reports this density
# at the true place (`geo.ambient_log_prob`) and warns not to compare it with the Riemannian one (table 2). How bad is it?
#
# We take a distribution that we know: directions u from a von Mises–Fisher density, radii r from a normal distribution around 1 of width
# σ. Its density with respect to volume is vMF(u) · N(r; 1, σ) / r². What it says about **places** does not depend on σ. This part is the
# *radial marginal* p(u) = ∫ p(r u) r² dr.

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
formula = metrics.bits_per_dimension(vmf.log_prob(directions, center, concentration).mean().item())

# %% [markdown]
# **What to look for:** which curve rewards a thin shell (towards the left), and does it ever stop?

# %%
per_decade = (in_volume[-1] - in_volume[0]) / math.log10(widths[0] / widths[-1])
print(f"ten times thinner: {per_decade:.2f} bits per dimension (log₂ 10 / 3 = {math.log2(10) / 3:.2f})")
print(f"on S²: {min(on_sphere):.3f} to {max(on_sphere):.3f} bits per dimension, by the formula {formula:.3f}")
both = {"with respect to volume": in_volume, "on S², radial marginal": on_sphere}
lessons.panels_figure(widths, [lessons.Panel("bits per dimension", both)], "thickness σ of the shell (Earth radii)")

# %% [markdown]
# **What was seen:** each time the shell becomes ten times thinner, the density with respect to volume improves by 1.11 bits per dimension, and there is no end.
# Nothing about places has changed, and on S² the number stays the same.
#
# Now the shipped methods in R³, on the same tiles: both numbers, and the thickness of their shell.

# %%
surface = {
    method: metrics.bits_per_dimension(sphere.LOG_UNIFORM - table[method]["nll"].mean().item())
    for method in ("riemannian", "flow", "diffusion")
}
volume, thickness = {}, {}
for method in ("flow", "diffusion"):
    geo = models[method]
    log_prob = geo.ambient_log_prob(sphere.to_latlon(few_truth[:, None]), cond=some)
    volume[method] = metrics.bits_per_dimension(log_prob.double().mean().item())
    *_, last = geo.model.states(samplers.noise_for(geo.model, range(compared), 4, seed), some, SolverOptions())
    thickness[method] = last.norm(dim=-1).sub(1).abs().median().item()
print(f"bits per dimension: riemannian on S² {surface['riemannian']:.2f}")
for method, value in volume.items():
    print(f"{method:10s} volume {value:.2f}, on S² {surface[method]:.2f}; median |r − 1| of samples {thickness[method]:.6f}")

# %% [markdown]
# **What was seen:** with respect to volume, both methods seem more than two bits per dimension better than the Riemannian flow. On S² all three lie within 0.09 bits. The difference is
# made by the shell: that of `flow` is ten times thinner than that of `diffusion`, which explains 1.1 of the 1.2 bits by which its number is lower. In the paper's table 2 (OSV-5M), the flow in
# R³ has −5.01 and the Riemannian one −1.51. Nothing about places follows from such a pair.
#
# ## 5. Two sets of places: precision, recall, density, coverage
#
# Table 2 of the paper also compares the *set* of samples, one for each image, with the set of true places. Around each point lies a ball that
# reaches to the third-nearest neighbour in its own set.
#
# * **precision**: the share of the samples that lie inside some ball of a true place;
# * **recall**: the share of the true places that lie inside some ball of a sample;
# * **density**: the number of balls of true places in which a sample lies, averaged over samples and divided by 3;
# * **coverage**: the share of the balls of true places that hold a sample.
#
# For two sets that are drawn from the same distribution, density is 1 and coverage 1 − 2⁻³ = 0.875 on average.
#
# **What to look for:** three examples. The samples miss a cluster; the samples are everywhere; the samples are the same, but one true
# place has moved away from the others.

# %%
generator = torch.Generator().manual_seed(seed + 1)


def cluster(n, lat, lon, degrees):
    return sphere.from_latlon(torch.tensor([lat, lon]) + degrees * torch.randn(n, 2, generator=generator).double())


real = torch.cat([cluster(10, 0.0, -18.0, 4.0), cluster(10, 0.0, 18.0, 4.0)])
wide = sphere.from_latlon(torch.rand(20, 2, generator=generator).double() * torch.tensor([36.0, 66.0]) - torch.tensor([18.0, 33.0]))
outlier = torch.cat([real[:-1], cluster(1, 10.0, 0.0, 0.1)])
cases = {"one cluster is missed": (real, cluster(20, 0.0, -18.0, 3.0)), "everywhere": (real, wide), "the same, an outlier": (outlier, wide)}
small = {name: metrics.prdc(*sets) for name, sets in cases.items()}
lessons.balls_figure(cases)

# %% [markdown]
# **What was seen:** samples in one cluster have perfect precision and half the recall. Samples everywhere have perfect recall and poor precision. The
# outlier has no near neighbours, so its ball is huge, and **the same samples** get a much better precision. Coverage is not deceived, because each ball
# counts once.
#
# ### The number of points decides
#
# Photos come from where people are. We take 200 towns on land and true places within some 50 km of a town. The samples come from the same towns, blurred once by the
# same 50 km and once by 300 km.


# %%
def blurred(km):
    """Places (most_points, 3) around towns chosen at random, with a standard deviation of `km` in each direction."""
    home = centers[torch.randint(200, (most_points,), generator=generator)]
    kappa = torch.tensor((sphere.EARTH_RADIUS_KM / km) ** 2)
    return vmf.sample(torch.rand(most_points, 2, generator=generator), home, kappa)


generator = torch.Generator().manual_seed(seed)
centers = sphere.uniform(2000, generator)
centers = centers[tiles.is_land(centers)][:200]
real = blurred(50)
sets = {"samples blurred by 50 km": blurred(50), "samples blurred by 300 km": blurred(300)}
counts = torch.logspace(1.5, math.log10(most_points), by_scale(4, 9, 9)).round().int().tolist()
by_count = {name: [metrics.prdc(real[:n], fake[:n]) for n in counts] for name, fake in sets.items()}

# %% [markdown]
# **What to look for:** numbers that depend only on the two distributions would be horizontal lines. The squares at the right are the same 4,000
# points, cut into 20 chunks whose scores are averaged, as in the official evaluation.

# %%
x, y = real[:4000], sets["samples blurred by 300 km"][:4000]
by_latitude = (x[x[:, 2].argsort()], y[y[:, 2].argsort()])
ways = {
    "4,000 points": metrics.prdc(x, y),
    "4,000 in 20 chunks": metrics.prdc(x, y, chunks=20),
    "200 points": metrics.prdc(x[:200], y[:200]),
    "20 chunks, by latitude": metrics.prdc(*by_latitude, chunks=20),
}
for name, row in ways.items():
    print(f"{name:24s}" + "   ".join(f"{key} {value:.2f}" for key, value in row.items()))
keys = tuple(ways["4,000 points"])
panels = [lessons.Panel("score", {key: [row[key] for row in rows] for key in keys}, title, (0, None)) for title, rows in by_count.items()]
squares = {key: (4000, value) for key, value in ways["4,000 in 20 chunks"].items()}
lessons.panels_figure(counts, panels, "points in each set", points=squares)

# %% [markdown]
# **What was seen:** with few points the balls are wider than the towns, and an error of 300 km is invisible: all scores are near 1. With 4,000 points the precision
# is 0.19. For samples from the right distribution, density and coverage lie around 1 and 0.875 with any number of points. Recall never notices the blur. And 4,000 points in 20 chunks
# get nearly the numbers of 200 points, a precision of 0.93 in place of 0.19, unless the file is sorted by place. So state the number of points, and
# never compare scores of different numbers of points. `metrics.prdc` needs no chunks: its memory grows with the number of points, not with its square.
#
# ### A set forgets its images
#
# We compare one sample for each tile with the true places. There are three controls: *other true places*, drawn anew; `land` and `uniform`, which look at
# no image; and the flow's samples **shuffled**, so that each answers for another tile.
#
# First with 500 tiles, four times: the table shows the mean over the four groups and their standard deviation.

# %%
shuffled = samples[torch.randperm(seen_tiles, generator=generator), 0]
rivals = {"other true places": tiles.sample_centers(seen_tiles, "test", generator)}
rivals |= {method: drawn[method, "seen"][0][:, 0] for method in ("riemannian", "vmf-mixture", "vmf")}
rivals |= {"riemannian, shuffled": shuffled}
for name in ("land", "uniform"):
    noise = samplers.noise_for(models[name].model, range(seen_tiles), 1, seed)
    rivals[name] = sphere.from_latlon(models[name].sample(cond=cond["seen"], noise=noise)).float()[:, 0]
group = seen_tiles // 4
in_groups = {}
print(f"{group} tiles, four times" + "".join(f"{key:>16s}" for key in keys))
for name, x in rivals.items():
    rows = [metrics.prdc(a, b) for a, b in zip(truth.split(group), x.split(group), strict=True)]
    in_groups[name] = {key: torch.tensor([row[key] for row in rows], dtype=torch.float64) for key in keys}
    print(f"{name:22s}" + "".join(f"   {value.mean():5.2f} ± {value.std():.2f} " for value in in_groups[name].values()))

# %%
of_sets = {name: metrics.prdc(truth, x) | {"GeoScore": metrics.summary(x, truth)["geoscore"]} for name, x in rivals.items()}
print(f"{seen_tiles:,} tiles           " + "".join(f"{key:>11s}" for key in (*keys, "GeoScore")))
for name, row in of_sets.items():
    print(f"{name:22s}" + "".join(f"{row[key]:11.2f}" for key in keys) + f"{row['GeoScore']:11,.0f}")

# %% [markdown]
# **What was seen:** with 500 tiles, precision and recall of everything are 0.94 or more, even of `uniform`, which knows nothing. **All of them are near 1.** Recall
# separates nothing. Precision sets `land`, `uniform` and the single vMF apart, but by 0.03 to 0.04 only; density and coverage do so more clearly. With 2,000 tiles precision separates a little: 0.98 for the flow, 0.93 for the mixture, 0.90 for `land`. Shuffling changes none of the
# four numbers, but takes the GeoScore from 1,726 to 189. And the flow's coverage, 0.90, is a little above that of other true places, 0.87: some of its samples lie near
# the true place of their own tile, which an independent set cannot do. These four numbers say whether the samples cover the Earth as the data do. They say nothing about
# the answers to images.
#
# ## 6. Calibration
#
# A model says: "with 90 % probability the place lies in this region". Is this so nine times in ten? If it is, for every probability, the model is *calibrated*.
#
# The smallest region with the probability α consists of all places whose density is above some level: the *highest-density region*. The true place
# lies in it if less than a share α of the samples have a higher density than the true place has. This share is the **rank** of the true place
# (`metrics.hpd_rank`). Ranks of a calibrated model are uniform on [0, 1].
#
# With few samples the level must be chosen with care. Suppose that the model is right. Then the truth and n samples are n + 1 draws from one
# distribution, so each of them is equally likely to be the k-th densest. With n = 19 the truth is among the 10, 18 or 19 densest of 20 with
# the probability of exactly 50, 90 or 95 %. So we use 19 of our 24 samples.
#
# **Predict before you run:** the flow was trained on these regions, but not on these tiles. Will its regions of 90 % hold more or fewer than 90 % of the truths? And for
# held-out tiles?

# %%
ranks = {key: metrics.hpd_rank(values[:, :19], at_truth) for key, (_, values, at_truth) in drawn.items()}
regions = {key: metrics.calibration(values[:, :19], at_truth) for key, (_, values, at_truth) in drawn.items()}
print(f"{'':24s}  truth inside the region of 50 / 90 / 95 %         median area, million km²")
for key, row in regions.items():
    n = len(ranks[key])
    shares = [row[f"calibration_{level}"] for level in (50, 90, 95)]
    inside = " / ".join(f"{share:5.1%} ± {math.sqrt(share * (1 - share) / n):4.1%}" for share in shares)
    print(f"{', '.join(key):24s} {inside}     " + " / ".join(f"{row[f'area_{level}_km2'] / 1e6:6.2f}" for level in (50, 90, 95)))
off_by = {level: regions["riemannian", "seen"][f"calibration_{level}"] - level / 100 for level in (50, 90, 95)}
print(
    f"\nriemannian, {seen_tiles:,} seen tiles, inside minus promised:", {f"{level} %": f"{value:+.1%}" for level, value in off_by.items()}
)
print("within ± 3 %:", {f"{level} %": abs(value) <= 0.03 for level, value in off_by.items()})

# %% [markdown]
# **What to look for:** the diagonal is calibration. Below it, regions are too small: the model is too sure. Above it, they are too large.

# %%
lessons.calibration_figure({", ".join(key): rank for key, rank in ranks.items()}, images=seen_tiles, samples=19)

# %% [markdown]
# **What was seen:** on seen regions the flow's regions of 50, 90 and 95 % hold 46.7, 93.2 and 96.5 % of 2,000 truths. They are off by 3.3 ± 1.1, 3.1 ± 0.6 and 1.6 ± 0.4 percentage points. The aim is at most 3:
# it is met at 95 %, and just missed at 50 and 90 %, where 2,000 tiles cannot say on which side of 3 the model itself lies. But all three differ from 0 by more than two standard errors: the small regions hold too few truths, the large regions too many. So the flow's
# peaks are a little too sharp, and its tails a little too heavy. The mixture is nearly right at 50 % and too sure at 90 and 95 %, with regions five to six and a half times as large. The regions of
# the single vMF hold too many truths at 50 % and too few at 95 %. Calibration is not sharpness: a model that says "anywhere on Earth with equal probability" would be calibrated for uniform
# data and useless. Compare areas among models that are about equally calibrated. Areas that come from 19 samples are rough; `evaluate` (section 7) takes 200 samples for each of its first 500
# tiles, and its areas of the mixture are smaller.
#
# **A correction with one parameter.** The error has a shape that one number describes. Write E = −log(1 − rank). For a calibrated model, E has an
# exponential distribution. Suppose that E^k has one instead. With k > 1 the small regions hold too few truths, and the large ones too many, as here. We
# fit k by maximum likelihood on *validation* tiles (`metrics.level_shape`). Then a region that is to hold the truth with the probability α is drawn at another
# level, 1 − exp(−(−log(1 − α))^(1/k)) (`metrics.corrected_level`). The density itself does not change. A level that lies between two of the 20
# classes counts the class that it cuts in part.

# %%
judges = tiles.load("validation", seen_tiles)
_, of_drawn, at_place = draw(models["riemannian"], models["riemannian"].encoder.embed(judges.images), judges.x)
shape = metrics.level_shape(metrics.hpd_rank(of_drawn[:, :19], at_place), samples=19)
corrected = {level: metrics.corrected_level(level, shape) for level in (0.5, 0.9, 0.95)}
classes = 19 * ranks["riemannian", "seen"]  # how many of the 19 samples are denser than the truth
holds = {level: (20 * drawn_at - classes).clamp(0, 1).mean().item() for level, drawn_at in corrected.items()}
print(f"k = {shape:.3f}, fitted on {len(judges):,} validation tiles")
for level, share in holds.items():
    print(f"{level:.0%} region drawn at {corrected[level]:.1%}: holds {share:.1%} of {seen_tiles:,} truths ({share - level:+.1%})")

# %% [markdown]
# **What was seen:** k is 1.14. The corrected regions of 50, 90 and 95 % are drawn at 51.6, 87.4 and 92.7 %, and hold 48.7, 90.2 and 95.0 % of the 2,000 truths of other tiles. So
# one number, fitted on validation tiles, brings all three within 1.3 percentage points.
#
# On held-out regions the flow fails: its regions of 90 % hold 19 % of the truths. No correction that is fitted on seen regions can mend that.
#
# Why do the regions fail where training saw nothing? Two causes are mixed. The tiles look unlike those that were learnt. And no training tile lay in a
# held-out block, so the model rightly learnt to put no density there. How many of its samples fall there?

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
# **What was seen:** of the samples for held-out tiles, 2.6 % fall into held-out blocks, where all the truths are; by chance it would be 18 %. Much of the failure is thus in the data: more than a sixth
# of the Earth was never an answer. The regions of held-out tiles are only a quarter larger than those of seen tiles. **The model does not know that it does not
# know.** Calibration holds, at best, for images like those of the training, and must be measured on images like those that will come.
#
# ## 7. Count every image, once
#
# There are two quiet ways to a better score. **Drop what failed:** a prediction that is NaN ("not a number") disappears from the mean. Here NaN counts as a
# miss, with GeoScore 0 and half the Earth's circumference as its error. **Count some images twice:** several processes, or a last batch that is filled up,
# repeat images. `metrics.Accumulator` takes each row with the number of its image. Equal rows count once; missing rows are an error.

# %%
failed = answers["best for GeoScore"].clone()
hardest = errors["best for GeoScore"].argsort(descending=True)[: seen_tiles // 10]
failed[hardest] = math.nan
kept = ~failed.isnan().any(-1)
with_failures = {
    "no failures": points_of["best for GeoScore"],
    "NaN is a miss": metrics.summary(failed, truth),
    "NaN dropped": metrics.summary(failed[kept], truth[kept]),
}
for name, row in with_failures.items():
    print(
        f"{name:14s} {row['images']:5,d} images, {row['nan']:3d} NaN, GeoScore {row['geoscore']:5,.0f}, mean error {row['mean_km']:6,.0f} km"
    )

# %%
once, naive = metrics.Accumulator(seen_tiles), []
for batch in torch.arange(seen_tiles + seen_tiles // 5).remainder(seen_tiles).split(seen_tiles // 5):  # the first fifth comes twice
    once.update(batch, predicted=answers["best for GeoScore"][batch], truth=truth[batch])
    naive += [metrics.geoscore(errors["best for GeoScore"][batch])]
counted, repeated = metrics.summary(**once.compute())["geoscore"], torch.cat(naive).mean().item()
print(f"GeoScore with every image once {counted:.1f}, with a fifth of them twice {repeated:.1f}")
once.batches.pop(2)
try:
    once.compute()
except ValueError as error:
    print(error)

# %% [markdown]
# **What was seen:** without its hardest tenth, which "failed", the model seems to have a mean error of 2,806 km in place of 4,024 km. If failures count as misses, the mean error rises to 4,527 km, and
# the GeoScore stays the same, because these tiles had almost none. If a fifth of the images is counted twice, the GeoScore changes by 18 points without any change
# of the model. The accumulator notices that a batch is missing.
#
# `evaluate` does all of this in one call, here for the mixture:

# %%
report = evaluate(models["vmf-mixture"], splits["seen"], "seen regions", labels=True, calibrated=min(500, seen_tiles), seed=seed)
print("\n".join(report.table().splitlines()[1:]))

# %% [markdown]
# ## Check
#
# The laws and the main claims of the text are asserted here, with some room for other seeds; its other numbers are those printed above. First come the laws that
# hold for any model.

# %%
best = points_of["best for GeoScore"]
assert abs(counted - best["geoscore"]) < 1e-6
assert abs(repeated - counted) > 1e-3
assert with_failures["NaN is a miss"]["geoscore"] < best["geoscore"] < with_failures["NaN dropped"]["geoscore"]
assert with_failures["NaN is a miss"]["images"] == seen_tiles
assert points_of["nearest (cheats)"]["geoscore"] > best["geoscore"]
assert round(worth[25]) == 4917
assert abs(best_q["NLL (nats)"] - 0.7) < 0.011
assert abs(best_q["energy score (km)"] - 0.7) < 0.011
assert best_q["GeoScore of a single sample"] > 0.97
assert abs(per_decade + math.log2(10) / 3) < 0.01
assert all(abs(value - formula) < 0.02 for value in on_sphere)

# %%
unshuffled, mixed = of_sets["riemannian"], of_sets["riemannian, shuffled"]
assert all(unshuffled[key] == mixed[key] for key in keys), "a set forgets which image a sample belongs to"
assert small["one cluster is missed"]["precision"] == small["everywhere"]["recall"] == 1
assert small["the same, an outlier"]["precision"] > small["everywhere"]["precision"] + 0.2
assert abs(small["the same, an outlier"]["coverage"] - small["everywhere"]["coverage"]) < 0.11
assert ways["4,000 points"]["precision"] < 0.25
assert ways["4,000 in 20 chunks"]["precision"] > 0.9
assert abs(ways["20 chunks, by latitude"]["precision"] - ways["4,000 points"]["precision"]) < 0.1
assert all(volume[method] < surface[method] for method in volume)

# %% [markdown]
# Then what the text says about the shipped models.

# %%
if seen_tiles >= 2_000:
    single, mean = points_of["single sample"], points_of["spherical mean"]
    assert best["geoscore"] > max(single["geoscore"], mean["geoscore"]) + 300
    assert best["geoscore"] > points_of["medoid"]["geoscore"]
    assert single["median_km"] > 1.3 * best["median_km"]
    assert below_uniform["best for GeoScore"] < 0.02 < below_uniform["spherical mean"]
    assert to_nearest[worst] > 500
    assert 0.3 < by_name["country"] < 0.55
    assert ways_of_counting["a miss"] < ways_of_counting["left out and counted"] < ways_of_counting["equal to another missing one"]
    assert curves["single sample"][at_ten] > curves["single sample"][at_one] + 50
    assert curves["nll"][at_ten] > curves["nll"][at_one] + 3
    assert 0.3 < best_s["nll"] < 3.2
    assert all(ahead[method]["nll"][0] < -2 * ahead[method]["nll"][1] for method in ("vmf-mixture", "vmf", "land"))
    assert all(volume[method] < surface[method] - 1.5 for method in volume)
    assert thickness["diffusion"] > 2 * thickness["flow"]
    assert by_count["samples blurred by 300 km"][1]["precision"] > 0.9
    assert mixed["GeoScore"] < 0.3 * unshuffled["GeoScore"]
    assert min(in_groups[method]["precision"].mean() for method in ("riemannian", "vmf-mixture", "vmf")) > 0.9
    assert regions["riemannian", "held-out"]["calibration_90"] < 0.5
    assert all(abs(share - level) < 0.03 for level, share in holds.items())
    assert share_held_out["samples for held-out tiles"] < 0.12
print("all checks passed")

# %% [markdown]
# ## Exercises
#
# Each exercise has stages. Fill the gap marked `# your code here`, run the cell, then run the check cell below it. The solutions,
# executed, are in `solutions/09_evaluation.ipynb`.
#
# ### Exercise 1 · The energy score
#
# **Stage 1a.** Write the energy score of one image: the mean distance of the samples to the truth, minus half the mean distance between two *different* samples.
# `sphere.distance_km(a, b)` gives distances; `samples[:, None]` and `samples[None]` together give all pairs.


# %%
def my_energy_score(samples, truth):
    """Energy score in km of samples (n, 3) for a true place (3,)."""
    # your code here


# %%
def check_1a():
    x = sphere.uniform((20, 8), torch.Generator().manual_seed(1)).double()
    if my_energy_score(x[0, :7], x[0, 7]) is None:
        return "Exercise 1a is still to be solved"
    mine = torch.stack([torch.as_tensor(my_energy_score(row[:7], row[7])) for row in x])
    torch.testing.assert_close(mine.double(), metrics.energy_score(x[:, :7], x[:, 7]), atol=1e-3, rtol=1e-5)
    return "Exercise 1a: right"


print(check_1a())

# %% [markdown]
# **Stage 1b.** Precision, recall, density and coverage did not notice that samples were shuffled. Does the energy score? Predict first. Then give each tile the 24
# samples of the tile before it (`roll`), and compute the mean energy score over the seen tiles, with `metrics.energy_score`.

# %%
shuffled_energy = None  # your code here

# %%
own_energy = metrics.energy_score(samples, truth).mean().item()
if shuffled_energy is None:
    print("Exercise 1b is still to be solved")
else:
    assert shuffled_energy > own_energy + 1000, "samples of another tile must score far worse"
    print(f"Exercise 1b: right, {shuffled_energy:,.0f} km in place of {own_energy:,.0f} km")

# %% [markdown]
# ### Exercise 2 · A calibrated mixture
#
# **Stage 2a.** Write the rank of the truth: the share of the samples whose log-density is higher than that of the truth.


# %%
def my_rank(of_samples, of_truth):
    """Ranks (B,) of true places of log-density (B,), among samples of log-density (B, n)."""
    # your code here


# %%
def check_2a():
    values = torch.randn(50, 20, generator=torch.Generator().manual_seed(2))
    ranks = my_rank(values[:, :19], values[:, 19])
    if ranks is None:
        return "Exercise 2a is still to be solved"
    torch.testing.assert_close(ranks.double(), metrics.hpd_rank(values[:, :19], values[:, 19]))
    return "Exercise 2a: right"


print(check_2a())

# %% [markdown]
# **Stage 2b.** `sharpen(s)` (section 3) gives the mixtures of all seen tiles with concentrations multiplied by s; `.sample(noise)` and `.log_prob(points)` are
# its methods. Write the share of the truths inside the regions of 90 %, as a function of s. Use 19 samples.


# %%
def inside_90(s):
    """Share of the seen truths that lie in the 90 % region of the mixture sharpened by s."""
    # your code here


# %%
def check_2b():
    if inside_90(1.0) is None:
        return "Exercise 2b is still to be solved"
    shares = [float(inside_90(s)) for s in (0.3, 1.0, 3.0)]
    assert abs(shares[1] - regions["vmf-mixture", "seen"]["calibration_90"]) < 0.03, "at s = 1 it must be the share of section 6"
    assert shares[0] > shares[1] > shares[2], "sharper regions are smaller and hold fewer truths"
    return f"Exercise 2b: right, {shares[0]:.1%}, {shares[1]:.1%} and {shares[2]:.1%} at s = 0.3, 1 and 3"


print(check_2b())

# %% [markdown]
# **Stage 2c.** Find an s for which the regions of 90 % hold 88 to 92 % of the truths. Is it above or below 1? What does this say about the mixture? (In
# practice, s must be found on validation tiles, not on the tiles that are scored.)

# %%
my_s = None  # your code here

# %%
if my_s is None or inside_90(my_s) is None:
    print("Exercise 2c is still to be solved")
else:
    share = float(inside_90(my_s))
    print(f"Exercise 2c: {'right' if 0.88 <= share <= 0.92 else 'not yet'}, {share:.1%} of the truths at s = {my_s:.2f}")

# %% [markdown]
# ### Exercise 3 · Precision
#
# **Stage 3a.** Write precision for two small sets. The ball around a true place reaches to its k-th nearest neighbour among the other true places.


# %%
def my_precision(real, fake, k=3):
    """Share of the samples fake (m, 3) inside at least one ball of the true places real (n, 3)."""
    # your code here


# %%
def check_3a():
    if my_precision(*cases["everywhere"]) is None:
        return "Exercise 3a is still to be solved"
    for name, sets in cases.items():
        assert abs(float(my_precision(*sets)) - small[name]["precision"]) < 1e-6, f"{name}: expected {small[name]['precision']}"
    return "Exercise 3a: right"


print(check_3a())

# %% [markdown]
# **Stage 3b.** Deceive precision: choose 20 samples whose precision is 1 although they cover almost nothing. The check asks for a coverage below 0.3.

# %%
deceiving = None  # your code here: (20, 3)

# %%
true_places = cases["everywhere"][0]
if deceiving is None:
    print("Exercise 3b is still to be solved")
else:
    scores = metrics.prdc(true_places, deceiving)
    right = len(deceiving) == 20 and scores["precision"] == 1 and scores["coverage"] < 0.3
    print(f"Exercise 3b: {'right' if right else 'not yet'}, precision {scores['precision']:.2f}, coverage {scores['coverage']:.2f}")

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
