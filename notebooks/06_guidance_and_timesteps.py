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
# # 06 · Guidance and sampling timesteps
#
# **You will learn**
# 1. that sampling is solving a differential equation, and what accuracy costs with each solver;
# 2. what a schedule does: it chooses where the steps are, nothing else;
# 3. how few steps suffice for a good score, which is not the same as an exact solution;
# 4. what guidance does to samples, to scores and to the density, and why a guided density is no longer to be believed.
#
# | Needs | Minutes (laptop / GPU) | Produces |
# |---|---|---|
# | notebooks 03 and 05 | 5 / not run here | figures only |

# %% tags=["parameters"]
from geoflow.settings import by_scale, scale

seed = 0
points = by_scale(10, 40, 200)  # samples per tile where solvers are compared
finest = by_scale(16, 128, 256)  # RK4 steps of the reference
most = by_scale(16, 256, 256)  # largest number of evaluations, and of Euler steps
scored = by_scale(20, 200, 2000)  # tiles of each kind to score
draws = by_scale(4, 8, 8)  # samples per scored tile
weights = by_scale((0, 0.5, 2, 10), (0, 0.25, 0.5, 1, 2, 5, 10), (0, 0.25, 0.5, 1, 2, 5, 10))  # guidance ω
judged = by_scale(10, 100, 500)  # tiles whose likelihood is computed

# %%
import math

import matplotlib.pyplot as plt
import torch

from geoflow import Geolocator, maps, metrics, paths, samplers, schedules, sphere
from geoflow.data import tiles

torch.manual_seed(seed)
geo = Geolocator.from_pretrained("tiles")
cond = geo.embed([tiles.tile(*place) for place in tiles.EXAMPLES.values()])  # (6, C): six tiles that tell something
noise = geo.path.noise((points,), torch.Generator().manual_seed(seed)).expand(len(cond), -1, -1)

# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008).
BLUE, ORANGE, RED, GREEN, PURPLE, GREY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#CC79A7", "#7f8c99"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## Sampling is solving
#
# A trained flow is a velocity field v(x, t). A sample is where a random starting point arrives, when it follows
#
# $$\frac{dx}{dt} = v(x, t), \qquad t: 0 \to 1 .$$
#
# The field fixes the answer; the solver only approximates it. So there is a right place for every starting point, and
# the error of a solver can be measured in kilometres. What costs time is calling the network, so we count these calls:
#
# | solver | order | calls per step |
# |---|---|---|
# | Euler | 1 | 1 |
# | midpoint, Heun | 2 | 2 |
# | RK4 | 4 | 4 |
# | Adams–Bashforth, `ab3` | 3 | 1, and one more to begin |
# | bosh3, dopri5 | 3, 5 | they decide as they go |
#
# Order p means: with twice as many steps the error is 2ᵖ times smaller, once the steps are small. Adams–Bashforth gets its
# order from the velocities of the two steps before, which the others forget. The adaptive solvers take no number of steps
# but a tolerance, here 10⁻⁶ per step.


# %%
def solve(solver, steps, schedule=geo.schedule, velocity=geo.velocity):
    """Where the same noise arrives, for six tiles: (6, points, 3)."""
    return samplers.sample(velocity, geo.path, noise, schedules.time_grid(schedule, steps), cond, solver)


reference = solve("rk4", finest)


def error_of(x):
    """Median distance in km from the fine solution."""
    return sphere.distance_km(x, reference).median().item()


budget = [2**k for k in range(9) if 2**k <= most]
error = {}
for solver in samplers.FIXED:
    least = samplers.evaluations(solver, 1)
    steps_for = {n: n - 1 if solver == samplers.AB3 else n // least for n in budget if least <= n < 4 * finest}
    error[solver] = {n: error_of(solve(solver, steps)) for n, steps in steps_for.items()}

# %% [markdown]
# To count the calls of the adaptive solvers, we wrap the velocity in a counter.


# %%
class Counter:
    def __init__(self):
        self.calls = 0

    def __call__(self, x, t, cond):
        self.calls += 1
        return geo.velocity(x, t, cond)


adaptive = {}
for solver in samplers.ADAPTIVE:
    counter = Counter()
    adaptive[solver] = error_of(solve(solver, 1, velocity=counter)), counter.calls
print("\n".join(f"{solver}: {km:.3f} km with {calls} calls" for solver, (km, calls) in adaptive.items()))

# %% [markdown]
# *What to look for:* straight lines at the right, whose slopes are the orders. And who wins at the left, with few
# calls?

# %%
fig, ax = plt.subplots(figsize=(6, 3.8), layout="constrained")
slope = {}
for (solver, curve), color in zip(error.items(), (RED, GREEN, ORANGE, BLUE, "black"), strict=True):
    *_, before, last = curve.values()
    slope[solver] = math.log2(before / last)
    ax.loglog(curve.keys(), curve.values(), "o-", ms=4, color=color, label=f"{solver}, last slope {slope[solver]:.1f}")
for (solver, (km, calls)), marker in zip(adaptive.items(), "*D", strict=True):
    ax.plot(calls, km, marker, color=PURPLE, ms=7, label=f"{solver}, adaptive")
ax.axvline(80, color=GREY, lw=0.8, ls=":")
ax.text(80, 1, " 80", color=GREY, transform=ax.get_xaxis_transform(), va="top")
ax.set(xlabel="calls of the network", ylabel="median error of a sample (km)", xticks=[1, 4, 16, 64, 256], xticklabels=[1, 4, 16, 64, 256])
ax.legend(fontsize=9)
plt.show()
for n in budget[::2]:
    print(f"{n:4d} calls: " + ", ".join(f"{solver} {curve[n]:,.3g} km" for solver, curve in error.items() if n in curve))

# %% [markdown]
# *What was seen:* Euler's slope is 1, that of midpoint and Heun about 2. RK4 falls fastest, with slope 3: its steps are
# not yet small enough for its order 4. With four calls the order is turned around: Euler is 246 km off, RK4 1,390 km,
# since its single step looks far ahead into a field that changes. From 32 calls on Euler is last. At the 80 of the
# paper's title Euler is below 10 km, midpoint and RK4 below 1 km. Adams–Bashforth has the slope of its order and is ahead
# of all from 8 calls on, with 16 calls by half and more, since it throws no velocity away. The adaptive solvers land within 60 m, with hundreds of
# calls: their tolerance is stricter than needed here, and one step size must serve all samples.
#
# The error depends on the tile. *What to look for:* which tiles are hard?

# %%
by_tile = sphere.distance_km(solve("euler", 16), reference).median(1).values
spread_of = sphere.distance_km(metrics.medoid(reference)[:, None], reference).median(1).values
for name, km, spread in zip(tiles.EXAMPLES, by_tile.tolist(), spread_of.tolist(), strict=True):
    print(f"{name:7s} 16 Euler steps: {km:6.1f} km off; half of the samples lie within {spread:6.0f} km of their medoid")

# %% [markdown]
# *What was seen:* the taiga and the Amazon, where the samples lie close together, are solved well; the tiles with several
# possible regions are several times worse. For an image that is sure of one place all paths are geodesics to it,
# and a geodesic is one Euler step. Only a choice makes paths bend.
#
# ### Diffusion's own solver
#
# Models of diffusion have one solver more, DDIM (Song et al., 2021): exact if the network's guess of the clean point did
# not change along the way. `tiles-diffusion` is the same network, trained on diffusion in R³.

# %%
diffusion = Geolocator.from_pretrained("tiles-diffusion")
start = diffusion.path.noise((points,), torch.Generator().manual_seed(seed)).expand(len(cond), -1, -1)


def solve_diffusion(solver, calls):
    times = schedules.time_grid(diffusion.schedule, calls // samplers.evaluations(solver, 1))
    return sphere.unit(samplers.sample(diffusion.velocity, diffusion.path, start, times, own_cond, solver))


own_cond = diffusion.embed([tiles.tile(*place) for place in tiles.EXAMPLES.values()])
fine = solve_diffusion("rk4", 2 * most)
error_diffusion = {
    (solver, calls): sphere.distance_km(solve_diffusion(solver, calls), fine).median().item()
    for solver in ("ddim", "euler", "rk4")
    for calls in budget[2::2]
}
for solver in ("ddim", "euler", "rk4"):
    print(f"{solver:6s}" + ", ".join(f"{calls} calls {error_diffusion[solver, calls]:,.3g} km" for calls in budget[2::2]))

# %% [markdown]
# *What was seen:* DDIM is a method of order 1, like Euler. With 4 calls it is more than twice as good, with more there is
# nothing to choose between them, and RK4 wins from 64 calls on. Its order shows later than for the Riemannian flow.
# Notebook 08 compares the methods themselves.
#
# ## Schedules
#
# A schedule is a warp of the time axis: step number s of n ends at t(s/n). Neither field nor answer changes, only the
# places of the steps. The paper's figure 4 draws three (as noise level κ = 1 − t, from data to noise; here t is 0 for
# noise and 1 for data); the cosine schedule is a classic of diffusion models.
#
# *What to look for:* where the dots crowd. The skewed sigmoid, the default, is far from symmetric.

# %%
colors = dict(zip(schedules.SCHEDULES, (GREY, ORANGE, BLUE, GREEN), strict=True))
shown_steps = 16
s = torch.linspace(0, 1, 200)
fig, (left, right) = plt.subplots(1, 2, figsize=(9, 2.9), layout="constrained")
late = {}
for row, (name, schedule) in enumerate(schedules.SCHEDULES.items()):
    times = schedules.time_grid(schedule, shown_steps)
    late[name] = int((times[1:] > 0.9).sum())
    left.plot(s, schedule(s), color=colors[name], label=name)
    right.plot(times, [-row] * len(times), "o", ms=4, color=colors[name])
left.set(xlabel="share of the steps", ylabel="time t")
left.legend(fontsize=9)
right.set(xlabel="time t", yticks=[0, -1, -2, -3], yticklabels=list(schedules.SCHEDULES), ylim=(-3.5, 0.5))
plt.show()
print(f"of {shown_steps} steps, this many end after t = 0.9: {late}")

# %% [markdown]
# Why late? Near a place that the image is sure about, the field is log_x(place)/(1 − t): it changes slowly first and
# fast at the end. A `Geolocator` takes its sampling schedule by name, so the comparison is a loop over four models that
# share one network.
#
# *What to look for:* with equal numbers of calls, how much does the place of the steps matter?

# %%
scheduled = {}
for name in schedules.SCHEDULES:
    model = Geolocator(geo.network, "riemannian", name, geo.encoder)
    for solver in ("euler", "rk4"):
        for calls in budget[2:8]:
            scheduled[name, solver, calls] = error_of(solve(solver, calls // samplers.evaluations(solver, 1), model.schedule))

fig, axes = plt.subplots(1, 2, figsize=(9, 3), sharey=True, layout="constrained")
for ax, solver in zip(axes, ("euler", "rk4"), strict=True):
    for name in schedules.SCHEDULES:
        ax.loglog(budget[2:8], [scheduled[name, solver, calls] for calls in budget[2:8]], "o-", ms=4, color=colors[name], label=name)
    ax.set(title=solver, xlabel="calls of the network", xticks=budget[2:8], xticklabels=budget[2:8])
    ax.minorticks_off()
axes[0].set_ylabel("median error of a sample (km)")
axes[0].legend(fontsize=9)
plt.show()
at = budget[2:8][-2]
for solver in ("euler", "rk4"):
    print(f"{solver}, {at} calls: " + ", ".join(f"{name} {scheduled[name, solver, at]:.3g} km" for name in schedules.SCHEDULES))

# %% [markdown]
# *What was seen:* the skewed sigmoid is best everywhere, uniform steps are worst: with 64 calls they are 4 times further
# off with Euler and 40 times with RK4. Half of the skewed sigmoid's steps lie after t = 0.9. The network was also
# *trained* with times drawn by the skewed sigmoid, so this schedule fits it in two ways. Sigmoid and cosine are nearly
# the same curve, and nearly the same error.
#
# The same to play with: all schedules in step, each with its error; choose another tile, solver or number of steps. (The
# choices need a kernel, the slider does not. `few-steps` is a grid made for networks that are rough in time, see
# `geoflow/schedules.py`.)

# %%
from geoflow import widgets

player = widgets.explore_schedule(geo, n=200, keep=True)
player

# %%
player.contact_sheet()

# %% [markdown]
# ## Few steps
#
# An exact solution is one thing, a useful sample another. First the ocean tile: it could be in more than one basin.
#
# *What to look for:* how soon do the Euler samples look like those of a fine solution?

# %%
ocean = dict(cond=cond[:1], n=by_scale(50, 500, 500), seed=seed)
drawn = {f"{n} Euler step{'s' * (n > 1)}": geo.sample(**ocean, solver="euler", steps=n)[0] for n in (1, 2, 4, 16, 64)}
drawn["64 RK4 steps"] = geo.sample(**ocean, steps=by_scale(8, 64, 64))[0]
fig = plt.figure(figsize=(9, 3.2), layout="constrained")
for slot, (title, latlon) in zip(fig.add_gridspec(2, 3), drawn.items(), strict=True):
    ax = maps.world(ax=slot)
    maps.draw_points(ax, latlon, color=BLUE, size=3)
    ax.set_title(title, fontsize=9)
plt.show()

# %% [markdown]
# *What was seen:* one step gives a broad heap in the right ocean, four a narrower one. From 16 steps on the pattern is
# that of the fine solution: a thin stripe in the South Pacific, and small groups in the South Atlantic and the Indian
# Ocean. The eye cannot tell 16 Euler steps from 64 RK4 steps, although they differ by tens of kilometres.
#
# Choose the steps yourself; below the title stands how far the samples are from a fine solution. (Without a kernel:
# `geoflow explore` writes a page that holds all answers, as on the [site](site/explore.md).)

# %%
player = widgets.explore_timesteps(geo, n=300, keep=True)
player

# %%
player.contact_sheet()

# %% [markdown]
# Now the score of a single sample on test tiles, as in the paper's figure 5: the first one that comes, without choosing
# the best of several. The paper draws that figure with guidance ω = 2, which comes in the next section; here are both.
# The score is a mean over a few samples per tile, which only calms the curve.

# %%
test, held_out = tiles.load("test", scored), tiles.load("held-out", scored)
embedded = {"seen": geo.encoder.embed(test.images), "held-out": geo.encoder.embed(held_out.images)}
truth = {"seen": test.x, "held-out": held_out.x}
starts = samplers.noise_for(geo.path, range(scored), draws, seed)


def samples_of(split, **how):
    """(scored, draws, 3) samples for the tiles of a split, from the same noise each time."""
    return sphere.from_latlon(geo.sample(cond=embedded[split], noise=starts, solver="euler", **how)).float()


def single(split, x):
    """GeoScore and median km of a single sample."""
    km = metrics.error_km(x, truth[split][:, None])
    return metrics.geoscore(km).mean().item(), km.median().item()


few_steps = budget[:8]
few = {(omega, n): single("seen", samples_of("seen", steps=n, guidance=omega)) for omega in (0, 2) for n in few_steps}

# %% [markdown]
# *What to look for:* the paper's curve is 591 with 1 step, 3,744 with 16, and flat from there. Is it the same here?

# %%
fig, axes = plt.subplots(1, 2, figsize=(9, 2.9), layout="constrained")
for ax, i, name in zip(axes, (0, 1), ("GeoScore of a single sample", "median error (km)"), strict=True):
    for omega, color in ((0, BLUE), (2, RED)):
        ax.plot(few_steps, [few[omega, n][i] for n in few_steps], "o-", ms=4, color=color, label=f"ω = {omega}")
    ax.axvline(80, color=GREY, lw=0.8, ls=":")
    ax.text(80, 1, " 80", color=GREY, transform=ax.get_xaxis_transform(), va="top")
    ax.set_xscale("log", base=2)
    ax.set(xlabel="Euler steps", ylabel=name, xticks=few_steps, xticklabels=few_steps)
axes[0].set_ylim(0, 5000)
axes[1].set_yscale("log")
axes[0].legend()
plt.show()
for omega in (0, 2):
    print(f"ω = {omega}: " + ", ".join(f"{n} steps {few[omega, n][0]:.0f} ({few[omega, n][1]:,.0f} km)" for n in few_steps))

# %% [markdown]
# *What was seen:* without guidance one step already scores 2,200, and from 16 steps on the curve is flat. With ω = 2 the
# first step is hopeless, no better than a random guess (130): it goes about three times too far. With 8 steps guidance
# overtakes, and it too is flat from 16 steps on. That is the paper's curve, which starts at 591 and is flat from 16:
# **the score needs far fewer steps than the solution**, because a sample's error of 50 km is small beside the
# spread of the distribution. Eighty timesteps are plenty.
#
# ## Guidance
#
# In training, one embedding in ten was replaced by zeros. So the network knows two fields: v(c), for the image c, and
# v(∅), for no image, whose samples lie wherever training tiles do. **Classifier-free guidance** (Ho & Salimans, 2022; the
# paper's section 3.3) goes on from the second through the first:
#
# $$\hat v = v(c) + \omega\, \big(v(c) - v(\varnothing)\big) .$$
#
# ω = 0 is no guidance, ω = −1 leaves v(∅). The package computes both fields in one call of the network with twice as
# many rows. By hand:

# %%
x, t = noise, 0.6
by_hand = geo.velocity(x, t, cond) + 2.0 * (geo.velocity(x, t, cond) - geo.velocity(x, t, torch.zeros_like(cond)))
torch.testing.assert_close(samplers.guided(geo.velocity, 2.0)(x, t, cond), by_hand, atol=1e-4, rtol=1e-4)

n = dict(n=200, seed=seed, steps=4)
prior, minus_one = geo.sample(cond=torch.zeros(1, cond.shape[1]), **n), geo.sample(cond=cond[:1], guidance=-1.0, **n)
same = sphere.distance_km(sphere.from_latlon(prior), sphere.from_latlon(minus_one)).median().item()
print(f"by hand and by the package: equal; ω = −1 against no image: {same:.3f} km apart")

# %% [markdown]
# *What to look for:* samples for the ice tile at six values of ω, around the South Pole. Where do they go?

# %%
names = list(tiles.EXAMPLES)
ice = cond[names.index("ice")][None]
shown = (-1, 0, 0.25, 0.5, 1, 2)
iced = {omega: geo.sample(cond=ice, n=by_scale(50, 600, 600), seed=seed, guidance=omega, solver="euler", steps=80)[0] for omega in shown}
fig = plt.figure(figsize=(9, 1.9), layout="constrained")
for slot, (omega, latlon) in zip(fig.add_gridspec(1, len(shown)), iced.items(), strict=True):
    ax = maps.world("south-pole", ax=slot)
    maps.draw_points(ax, latlon, color=BLUE, size=3)
    maps.draw_truth(ax, tiles.EXAMPLES["ice"])
    ax.set_title(f"ω = {omega:g}", fontsize=9)
plt.show()


# %%
def radius_km(latlon):
    """Distance from their medoid within which half of the samples lie."""
    x = sphere.from_latlon(latlon).float()[None]
    return sphere.distance_km(metrics.medoid(x)[:, None], x).median().item()


ice_radius = {omega: radius_km(latlon) for omega, latlon in iced.items()}
ice_off = {
    omega: sphere.distance_km(sphere.from_latlon(places), sphere.from_latlon(tiles.EXAMPLES["ice"])).median().item()
    for omega, places in iced.items()
}
for omega in shown:
    print(
        f"ω = {omega:5g}: half of the samples within {ice_radius[omega]:8,.1f} km of each other's middle, {ice_off[omega]:6,.0f} km from the truth"
    )

# %% [markdown]
# *What was seen:* ω = −1 forgets the image. With ω = 0 the samples fill two parts of the inner continent. With ω = 0.25 the
# smaller one is almost empty, with 0.5 it is gone. With ω = 1 all samples lie within some 10 km, with ω = 2 within a
# few hundred metres, in a place that is **not the true one**: the middle distance from the truth is 750 km without guidance
# and 810 km with ω = 2. Guidance made the model certain, not right.
#
# To watch it happen: the same points without guidance and with it, in step.

# %%
player = widgets.explore_guidance(geo, n=200, keep=True)
player

# %%
player.contact_sheet()

# %% [markdown]
# ## How much sharper? A case that can be calculated
#
# Take the flat plane, a normal prior of spread Σ = 1 and an image that leaves a normal distribution of spread σ, both
# around the same place. Then both fields are known: v = x · s′(t)/s(t), with s² = (1 − t)² + t² σ² (or Σ²). The flow
# shrinks everything by s(1) = σ. With guidance the logarithms of the factors combine as the velocities do:
#
# $$\text{spread} = \sigma \left(\frac{\sigma}{\Sigma}\right)^{\omega} .$$
#
# Guidance does not narrow a distribution by a factor: it takes its **power**. Compare the sharpened posterior
# p(x|c)^{1+ω}/p(x)^ω, which is often named as the meaning of guidance: its spread is about σ/√(1+ω).


# %%
def toy(x, t, cond, sigma=0.1):
    """The exact field of a normal distribution of spread sigma; without a condition, of spread 1."""
    s = torch.where(cond[:, :1, None] == 0, 1.0, sigma)
    return x * (t * s**2 - (1 - t)) / ((1 - t) ** 2 + (t * s) ** 2)


one = torch.tensor([[[1.0, 0.0, 0.0]]])  # one standard deviation of the noise
toy_spread = {}
for omega in (0, 1, 2):
    field, times = samplers.guided(toy, omega), schedules.time_grid(geo.schedule, 400)
    toy_spread[omega] = samplers.sample(field, paths.by_name("flow"), one, times, torch.ones(1, 1)).norm().item()
    sharpened = ((1 + omega) / 0.1**2 - omega) ** -0.5
    print(f"ω = {omega}: guided flow {toy_spread[omega]:.5f}, σ^(1+ω) = {0.1 ** (1 + omega):.5f}, sharpened posterior {sharpened:.5f}")

# %% [markdown]
# On the Earth the unit is one radius, 6,371 km, and the prior's spread is about that. A tile that the flow places
# within 100 km would then be placed within 100 · (100/6371) = 1.6 km with ω = 1, and within 25 m with ω = 2. No image
# of 300 × 300 km justifies that.
#
# ## Guidance on many tiles
#
# For every ω: samples for tiles of seen and of held-out regions, by 80 Euler steps. In addition, by 16 Euler steps, since
# a strong field asks for small steps.

# %%
guided_samples = {(split, omega): samples_of(split, steps=80, guidance=omega) for split in embedded for omega in weights}
singles = {(split, omega, 80): single(split, x) for (split, omega), x in guided_samples.items()}
for omega in weights:
    singles["seen", omega, 16] = single("seen", samples_of("seen", steps=16, guidance=omega))
best = {key: metrics.summary(metrics.best_for_geoscore(x), truth[key[0]])["geoscore"] for key, x in guided_samples.items()}
spread = {key: metrics.error_km(x, metrics.medoid(x)[:, None]).median(1).values.median().item() for key, x in guided_samples.items()}
expected = {omega: sphere.EARTH_RADIUS_KM * (spread["seen", 0] / sphere.EARTH_RADIUS_KM) ** (1 + omega) for omega in weights}

print(
    f"{'':8s}{'seen: single':>14s}{'median km':>11s}{f'best of {draws}':>11s}{'held-out: single':>18s}{f'best of {draws}':>11s}{'spread km, seen':>17s}{'formula':>11s}"
)
for omega in weights:
    score, km = singles["seen", omega, 80]
    print(
        f"ω = {omega:<4g}{score:14.0f}{km:11.0f}{best['seen', omega]:11.0f}{singles['held-out', omega, 80][0]:18.0f}"
        f"{best['held-out', omega]:11.0f}{spread['seen', omega]:17.3f}{expected[omega]:11.3f}"
    )

# %% [markdown]
# Precision, recall, density and coverage compare two *sets* of places: one sample for each tile against the true
# places (notebook 09 explains them). Here the mean over the few samples per tile.

# %%
prdc = {}
for (split, omega), x in guided_samples.items():
    each = [metrics.prdc(truth[split], x[:, i]) for i in range(draws)]
    prdc[split, omega] = {name: sum(scores[name] for scores in each) / draws for name in each[0]}
for split in embedded:
    for omega in weights:
        print(f"{split:9s} ω = {omega:<4g} " + ", ".join(f"{name} {value:.3f}" for name, value in prdc[split, omega].items()))

# %% [markdown]
# A guided field has a density too: that of its own flow. How much of it does the true place get? And does the region
# that promises to hold the truth with 90 % do so? (For each tile: is the truth among the 90 % densest of its samples?)
# With strong guidance the second question has one answer, so it is asked for small ω only.

# %%
places = sphere.to_latlon(test.x[:judged, None])
log_p, inside = {}, {}
for omega in weights:
    found = geo.log_prob(places, cond=embedded["seen"][:judged], guidance=omega, steps=by_scale(8, 32, 64))
    log_p[omega] = found[:, 0].double()
for omega in [omega for omega in weights if omega <= 1]:
    how = dict(cond=embedded["seen"][:judged], guidance=omega)
    rivals = geo.sample(noise=samplers.noise_for(geo.path, range(judged), 20, seed + 1), **how)
    values = geo.log_prob(torch.cat([places, rivals], 1), **how)
    inside[omega] = (metrics.hpd_rank(values[:, 1:], values[:, 0]) < 0.9).double().mean().item()
finer = geo.log_prob(places, cond=embedded["seen"][:judged], guidance=5, steps=by_scale(16, 64, 128)).mean().item() - sphere.LOG_UNIFORM
nats = {omega: (values - sphere.LOG_UNIFORM).mean().item() for omega, values in log_p.items()}
bits = {omega: metrics.bits_per_dimension(values.mean().item()) for omega, values in log_p.items()}
for omega in weights:
    region = f"; truth in the 90 % region: {inside[omega]:.0%}" if omega in inside else ""
    print(
        f"ω = {omega:<4g} log-density of the truth: {nats[omega]:7.2f} nats over uniform, NLL {bits[omega]:6.2f} bits per dimension{region}"
    )
print(f"ω = 5 with twice as many steps: {finer:.2f} nats over uniform")

# %% [markdown]
# *What to look for:* four answers to "is guidance good?". Which of them get better with ω, which worse?

# %%
fig, axes = plt.subplots(2, 2, figsize=(9, 5.6), layout="constrained")
ax = axes[0, 0]
for split, steps, color, style in (("seen", 80, BLUE, "o-"), ("seen", 16, BLUE, "o:"), ("held-out", 80, ORANGE, "o-")):
    ax.plot(weights, [singles[split, omega, steps][0] for omega in weights], style, ms=4, color=color, label=f"{split}, {steps} steps")
ax.set(ylabel="GeoScore of a single sample", ylim=(0, 5000))
ax = axes[0, 1]
f1 = {omega: 2 * p["precision"] * p["recall"] / (p["precision"] + p["recall"]) for (split, omega), p in prdc.items() if split == "held-out"}
for name, color in zip(("precision", "recall", "density", "coverage"), (BLUE, RED, GREEN, ORANGE), strict=True):
    ax.plot(weights, [prdc["held-out", omega][name] for omega in weights], "o-", ms=4, color=color, label=name)
ax.plot(weights, f1.values(), "k:", label="F1")
ax.set(ylabel="held-out regions", ylim=(0, 1.05))
ax = axes[1, 0]
ax.plot(weights, [spread["seen", omega] for omega in weights], "o-", ms=4, color=BLUE, label="measured, seen")
ax.plot(weights, expected.values(), ":", color=GREY, label="formula")
ax.set(ylabel="spread of a tile's samples (km)", yscale="log", ylim=(1e-4, 1e3))
ax = axes[1, 1]
ax.plot(weights, nats.values(), "o-", ms=4, color=BLUE, label="density of the truth, seen")
ax.axhline(0, color=RED, lw=0.8, ls=":", label="uniform")
ax.set(ylabel="nats over uniform")
for ax in axes.flat:
    ax.set_xscale("symlog", linthresh=1)
    ax.set(xlabel="guidance ω", xlim=(-0.05, 11), xticks=[0, 0.5, 1, 2, 5, 10], xticklabels=["0", "0.5", "1", "2", "5", "10"])
    ax.minorticks_off()
    ax.legend(fontsize=8)
plt.show()

# %% [markdown]
# *What was seen:*
#
# * **GeoScore of a single sample: better.** 3,829 → 4,288 in seen regions with ω = 2, the median error halves, and it
#   stays so up to ω = 10. The paper reports the same rise: 3,486 → 3,747 (table A). Most of the gain is at ω = 0.25. In
#   held-out regions the gain is small. And the best of 8 unguided samples scores 4,229: guidance does much of what
#   choosing among samples does.
# * **The fall at large ω**, which figure 7 of the paper shows, appears here only with 16 steps: then the steps are too long
#   for so strong a field. With 80 it is gone. We cannot tell what causes the paper's.
# * **Diversity: worse.** In held-out regions recall and coverage fall, and precision hardly rises, so that F1 falls
#   slightly. The paper has the fall of recall (0.924 → 0.896) and of F1, too, but its coverage rises a little. In seen
#   regions the four numbers hardly move: one sample for each of 200 tiles is a diverse set, even if every tile has
#   only one answer. Within a tile the spread collapses, 75 km → 0.3 km with ω = 1, still faster than the
#   formula: real distributions have several parts, and guidance selects one.
# * **Likelihood: ruined.** At ω = 0.5 the true place is about as probable as under a uniform guess, at ω = 1 e⁸ times
#   less. The 90 % region holds the truth in 93 % of the cases without guidance, in 34 % with ω = 0.25, hardly ever with
#   ω = 1. The paper's table A: −1.81 → 33.1 bits per dimension with ω = 2; here −2.5 → 11.5. (The published
#   code fixes ω = 0 in its likelihood, so its number could not be repeated.) For large ω more steps make the density
#   lower still, so read it as "hopeless".
#
# The rule of the paper holds: ω > 0 (it takes 2) for one answer, ω = 0 whenever the distribution matters.
#
# ## The guided density
#
# It is a density: that of the guided field's own flow, so its integral is 1, for every ω. To see it, the map must
# resolve it. *What to look for:* the ice tile again, without guidance and with very little of it.

# %%
densities = {omega: geo.density(cond=ice, guidance=omega) for omega in by_scale((0,), (0, 0.25), (0, 0.25))}
peak = maps.peak_of(*densities.values())
fig = plt.figure(figsize=(6, 3.2), layout="constrained")
for slot, (omega, density) in zip(fig.add_gridspec(1, len(densities)), densities.items(), strict=True):
    ax = maps.world("south-pole", ax=slot)
    maps.draw_density(ax, density, unit="nats", peak=peak)
    maps.draw_truth(ax, tiles.EXAMPLES["ice"])
    ax.set_title(f"ω = {omega:g}", fontsize=9)
plt.show()
for omega, density in densities.items():
    print(f"ω = {omega:<4g} integral {density.integral:.3f}, half of the probability on {density.region_area_km2(0.5):10,.0f} km²")

# %% [markdown]
# *What was seen:* a quarter of guidance shrinks the region to a seventh. The second part of the distribution is almost gone;
# nothing in the image has changed. With ω = 1 the mass would lie on needles of a few kilometres and less, which twenty steps back in time
# do not hit exactly: the integral over the cells would miss 1, although the density does not.
#
# What to remember: steps are cheap to save, guidance is not free. It trades a distribution for an answer.
#
# ## Check

# %%
trained = scale() != "smoke"
assert same < 0.1
assert all(abs(toy_spread[omega] / 0.1 ** (1 + omega) - 1) < 0.01 for omega in toy_spread)
assert all(abs(density.integral - 1) < 0.03 for density in densities.values())
assert late["skewed-sigmoid"] > 2 * late["linear"]
if trained:
    assert abs(slope["euler"] - 1) < 0.2
    assert slope["midpoint"] > 1.8
    assert slope["heun"] > 1.8
    assert slope["rk4"] > 2.5
    assert error["euler"][4] < error["rk4"][4] / 2
    assert all(error["euler"][n] > max(error[solver][n] for solver in ("midpoint", "heun", "rk4")) for n in budget if n >= 32)
    assert error["euler"][64] < 15
    assert error["midpoint"][64] < 1.5
    assert error["rk4"][64] < 1.5
    assert all(km < 0.2 and calls > 150 for km, calls in adaptive.values())
    sure = [name in ("Amazon", "taiga") for name in names]
    assert by_tile[sure].max() < by_tile[[not one for one in sure]].min()
    assert spread_of[sure].max() < spread_of[[not one for one in sure]].min()
    assert error_diffusion["ddim", 4] < error_diffusion["euler", 4] / 1.5
    assert 0.5 < error_diffusion["ddim", 64] / error_diffusion["euler", 64] < 2
    assert error_diffusion["rk4", 64] < error_diffusion["ddim", 64] / 2
    for solver, factor in (("euler", 3), ("rk4", 20)):
        here = {name: scheduled[name, solver, at] for name in schedules.SCHEDULES}
        assert min(here, key=here.get) == "skewed-sigmoid"
        assert here["linear"] > factor * here["skewed-sigmoid"]
    assert all(abs(few[omega, 16][0] - few[omega, 128][0]) < 60 for omega in (0, 2))
    assert few[2, 1][0] < 300 < 2000 < few[0, 1][0]
    assert few[2, 8][0] > few[0, 8][0]
    assert all(ice_radius[a] > 1.5 * ice_radius[b] for a, b in zip(shown, shown[1:], strict=False))
    assert ice_radius[1] < 20
    assert ice_radius[2] < 1
    assert ice_off[2] > 0.9 * ice_off[0]
    gain = singles["seen", 2, 80][0] - singles["seen", 0, 80][0]
    assert gain > 250
    assert singles["seen", 2, 80][1] < 0.7 * singles["seen", 0, 80][1]
    assert singles["seen", 0.25, 80][0] - singles["seen", 0, 80][0] > gain / 2
    assert 0 < singles["held-out", 2, 80][0] - singles["held-out", 0, 80][0] < gain / 2
    assert best["seen", 0] > singles["seen", 0, 80][0] + 250
    assert abs(singles["seen", 10, 80][0] - singles["seen", 2, 80][0]) < 100 < 500 < singles["seen", 10, 80][0] - singles["seen", 10, 16][0]
    before, after = prdc["held-out", 0], prdc["held-out", 10]
    assert after["recall"] < before["recall"] - 0.05
    assert after["coverage"] < before["coverage"] - 0.04
    assert f1[10] < f1[0]
    assert abs(after["precision"] - before["precision"]) < 0.05
    assert all(abs(prdc["seen", 0][name] - prdc["seen", 10][name]) < 0.06 for name in before)
    assert spread["seen", 1] < 1
    assert all(spread["seen", omega] < expected[omega] for omega in (0.25, 0.5, 1, 2))
    assert nats[0] > 7
    assert abs(nats[0.5]) < 1.5
    assert -10 < nats[1] < -6
    assert nats[2] < -18
    assert finer < nats[5] - 3
    assert inside[0] > 0.85
    assert 0.2 < inside[0.25] < 0.5
    assert inside[1] < 0.05
    assert 5 < densities[0].region_area_km2(0.5) / densities[0.25].region_area_km2(0.5) < 9
print("all checks passed")

# %% [markdown]
# ## References
#
# * N. Dufour, D. Picard, V. Kalogeiton, L. Landrieu, *Around the World in 80 Timesteps*, CVPR 2025, arXiv 2412.06781:
#   schedules in figure 4, timesteps in figure 5, guidance in figure 7 and table A.
# * J. Ho, T. Salimans, *Classifier-Free Diffusion Guidance*, NeurIPS workshop 2021, arXiv 2207.12598.
# * J. Song, C. Meng, S. Ermon, *Denoising Diffusion Implicit Models*, ICLR 2021, arXiv 2010.02502.
# * E. Hairer, S. P. Nørsett, G. Wanner, *Solving Ordinary Differential Equations I*, Springer, 1993: orders, adaptive
#   steps.
# * A. Bradley, P. Nakkiran, *Classifier-Free Guidance is a Predictor-Corrector*, 2024, arXiv 2408.09000: guidance does
#   not sample the sharpened posterior.
# * R. J. Hyndman, *Computing and Graphing Highest Density Regions*, The American Statistician 50, 1996.
