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
# # 07 · Likelihood, density maps and localizability
#
# **You will learn**
# 1. where the density of a flow comes from, what a divergence is on the sphere, and why the trace of a Jacobian in R³ is
#    another number;
# 2. how to test a likelihood: against a flow with a known density, against tiny triangles, and by its integral;
# 3. how a density map is made of a few thousand points, finer where the probability is;
# 4. how to put into one number how well an image can be located, and whether that number is to be trusted;
# 5. how to draw the smallest region that holds the place with 50, 90 or 95 %.
#
# | Needs | Minutes (laptop / GPU) | Produces |
# |---|---|---|
# | notebooks 03 and 05 | 6 / not needed | figures only |
#
# The model is the shipped one for Earth tiles, a Riemannian flow. Sections 1 and 2 need no model.

# %% tags=["parameters"]
from geoflow.settings import by_scale, scale

seed = 0
few, many = by_scale((20, 500), (50, 5_000), (100, 5_000))  # points of tests, and of integrals in closed form
mapped = by_scale(("coast",), ("ocean", "ice", "coast", "taiga"), ("ocean", "Sahara", "ice", "Amazon", "coast", "taiga"))
regular_levels = by_scale((2,), (3, 4), (3, 4, 5))  # of regular HEALPix grids: 12 · 4^level cells
ranked, ranked_held_out = by_scale((16, 8), (200, 60), (1000, 500))  # tiles whose localizability is measured
samples_per_tile = by_scale(32, 128, 1024)
most_cells = by_scale(1_200, 20_000, 20_000)  # of a density map

# %%
import copy
import math

import cartopy.crs as ccrs
import matplotlib.pyplot as plt
import torch

from geoflow import Geolocator, healpix, likelihood, maps, metrics, paths, samplers, schedules, sphere, velocity_jvp
from geoflow.data import tiles
from geoflow.density import density_map
from geoflow.velocity import VelocityTransformer

torch.manual_seed(seed)

# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008).
BLUE, ORANGE, RED, GREEN, GREY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#7f8c99"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## 1 · Where a density comes from
#
# A flow moves points; it neither makes nor destroys them. Take a small patch of noise. All points in it arrive together,
# in a patch of another size. If the patch has become half as large, the density in it has doubled:
#
# $$p_1(x) \cdot \text{area at the end} = p_0(x_0) \cdot \text{area at the start}.$$
#
# Here is a flow that we can solve by hand, our example for two sections: everything drifts to the North Pole, with the
# velocity s · (north pole − its part along x). In stereographic coordinates w, seen from the South Pole, it is a plain
# change of size, w → e^{−st} w.
#
# *What to look for:* circles of equal size at time 0. Where do they shrink, where do they grow?

# %%
path, s = paths.RiemannianFlow(), 1.5
NORTH = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def drift(x, t, cond=None):
    """s times the tangent part of the north pole; x (..., 3)."""
    return s * sphere.to_tangent(x, NORTH.expand_as(x))


def even_times(steps):
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


turn = torch.linspace(0, 2 * math.pi, 61, dtype=torch.float64)[:, None, None]
middle = sphere.unit(sphere.fibonacci_grid(40).double())
e1, e2 = sphere.tangent_basis(middle)
circles = sphere.exp(middle, 0.14 * (turn.cos() * e1 + turn.sin() * e2)).reshape(1, -1, 3)
states = list(samplers.trajectory(drift, path, circles, even_times(16)))

fig = plt.figure(figsize=(7.5, 2.7), layout="constrained")
for place, i in zip(fig.add_gridspec(1, 3), (0, 8, 16), strict=True):
    ax = maps.world("orthographic", center=(35.0, 10.0), ax=place)
    maps.draw_points(ax, sphere.to_latlon(states[i][0]), color=BLUE, size=1.2, alpha=1)
    ax.set_title(f"t = {i / 16:g}", fontsize=9)
plt.show()

# %% [markdown]
# *What was seen:* circles stay circles in this flow. Around the pole they shrink and crowd: high density. Those that
# come from the south have grown.
#
# ## The divergence
#
# How fast does the area of a small patch change? At the relative rate div v, the **divergence** of the field: how
# much the velocity spreads apart along the surface. So along the way of a point
#
# $$\frac{d}{dt} \log \text{area} = \operatorname{div} v, \qquad \frac{d}{dt} \log p = -\operatorname{div} v .$$
#
# This is the instantaneous change of variables (Chen et al., 2018; PLONK, proposition 1). To know the density at a
# place x, start there at time 1, solve *backwards* to the noise at time 0, and add up divergences on the way:
#
# $$\log p_1(x) = \log p_0(x_0) - \int_0^1 \operatorname{div} v(x_t, t)\, dt, \qquad \log p_0 = -\log 4\pi .$$
#
# On the sphere a point can move in two directions. Take two orthonormal tangent vectors e₁, e₂, and ask how much the
# velocity changes along each, in its own direction: div v = Σ ⟨eᵢ, ∂v/∂eᵢ⟩. By hand, with finite differences:


# %%
def divergence_by_hand(field, x, h=1e-5):
    total = 0.0
    for e in sphere.tangent_basis(x):
        ahead, behind = field(sphere.exp(x, h * e)), field(sphere.exp(x, -h * e))
        total = total + (e * (ahead - behind)).sum(-1) / (2 * h)
    return total


# %% [markdown]
# Take any constant vector a and its tangent part, v(x) = a − ⟨a, x⟩ x. Our drift is the case a = s · north. With pen and
# paper: along a tangent direction e, a does not change, ⟨a, x⟩ x changes by ⟨a, e⟩ x + ⟨a, x⟩ e, and its part along e is
# ⟨a, x⟩. Two directions: **div v = −2 ⟨a, x⟩**. Three ways, one number:

# %%
a = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
x = sphere.unit(sphere.fibonacci_grid(few).double())[None]  # (1, few, 3)


def tangent_part(y):
    return sphere.to_tangent(y, a.expand_as(y))


paper = -2 * x @ a
by_hand = divergence_by_hand(tangent_part, x)
package = likelihood.divergence(lambda y, t, cond: tangent_part(y), path, x, 0.0)[1]
print(f"largest deviation from −2⟨a, x⟩: by hand {(by_hand - paper).abs().max():.0e}, package {(package - paper).abs().max():.0e}")

# %% [markdown]
# ## The trace is another number
#
# In the plane the divergence is the trace of the Jacobian, and code for R³ is at hand: three derivatives instead of two.
# But a Jacobian in R³ needs a field in R³, and ours lives on a surface. To differentiate, it must be **continued** off
# the sphere, and that can be done in many ways. Three formulas whose tangent part, on the sphere, is the very same field:

# %%
continued = {
    "a, not projected": lambda y: a.expand_as(y),
    "a − ⟨a, y⟩ y": tangent_part,
    "a − ⟨a, n⟩ n with n = y/|y|": lambda y: tangent_part(sphere.unit(y)),
}


def trace(field, x):
    """Trace of the Jacobian in R³, exact."""
    axes = torch.eye(3, dtype=x.dtype)
    return sum(torch.func.jvp(field, (x,), (e.expand_as(x).contiguous(),))[1] @ e for e in axes)


away = (x @ a).abs() > 0.1
factor = {name: (trace(field, x) / (x @ a))[away] for name, field in continued.items()}
for name, value in factor.items():
    print(f"{name:30s} trace = {value.mean() + 0.0:+.3f} ⟨a, x⟩   (spread {value.std():.0e})")

# %% [markdown]
# *What was seen:* 0, −4 and −2 times ⟨a, x⟩. One field, three traces. In general, for a continuation f,
#
# $$\operatorname{tr} J_f = \operatorname{div} v + 2 \langle x, f(x) \rangle + \tfrac{d}{dr} \langle x, f(r x) \rangle \big|_{r=1} .$$
#
# Both extra terms are about the *radial* part of f, of which the flow on the sphere knows nothing. The third formula
# makes them vanish: normalise inside, project outside. The package's network does so, and for any other field
# `likelihood.divergence` takes the sum over two tangent directions and subtracts 2⟨x, f(x)⟩.
#
# ## 2 · A flow with a known density
#
# The height z of a point of our drift obeys dz/dt = s (1 − z²), so artanh z grows at the constant rate s. Equal areas are
# equal intervals of z (Archimedes), so the density is dz₀/dz / 4π:
#
# $$p_1(x) = \frac{1}{4\pi\, (\cosh s - z \sinh s)^2} .$$
#
# Does `likelihood.log_prob` find it?


# %%
def exact_log_density(x):
    return sphere.LOG_UNIFORM - 2 * torch.log(math.cosh(s) - x[..., 2] * math.sinh(s))


found = likelihood.log_prob(drift, path, x, even_times(64))
exact_error = (found - exact_log_density(x)).abs().max().item()
ratio = (exact_log_density(NORTH) - exact_log_density(-NORTH)).exp()
print(
    f"largest error of log_prob with 64 steps of RK4: {exact_error:.0e} nats; the North Pole is {ratio:.0f} times as dense as the South Pole"
)

# %% [markdown]
# And does the error fall as theory says? A solver of order k gains a factor 2ᵏ when the steps are halved. Left, the drift
# against its formula. Right, the tile model's density of 50 true places, each given its tile, against 128 steps, in
# float64.
#
# *What to look for:* straight lines of slope 1, 2 and 4. How many steps are enough?

# %%
geo = Geolocator.from_pretrained("tiles")
precise = copy.deepcopy(geo.network).double()
judged = tiles.load("test", ranked)
judged_cond = geo.encoder.embed(judged.images)


def model_log_prob(solver, steps):
    """log p of the first true places in float64, in steps placed by the model's schedule."""
    times = schedules.time_grid(geo.schedule, steps).double()
    places = sphere.unit(judged.x[:few, None].double())
    return likelihood.log_prob(precise, geo.path, places, times, judged_cond[:few].double(), solver)[:, 0]


steps_tried = by_scale((4, 8, 16), (4, 8, 16, 32, 64), (4, 8, 16, 32, 64))
reference = model_log_prob("rk4", by_scale(48, 128, 256))
error = {"a drift, known density": {}, "the tile model": {}}
for solver in ("euler", "midpoint", "rk4"):
    known = [likelihood.log_prob(drift, path, x, even_times(n), solver=solver) - exact_log_density(x) for n in steps_tried]
    error["a drift, known density"][solver] = [e.abs().mean().item() for e in known]
    error["the tile model"][solver] = [(model_log_prob(solver, n) - reference).abs().median().item() for n in steps_tried]

fig, axes = plt.subplots(1, 2, figsize=(8.4, 3), layout="constrained")
for ax, (title, curves) in zip(axes, error.items(), strict=True):
    for (solver, e), color in zip(curves.items(), (RED, GREEN, BLUE), strict=True):
        ax.loglog(steps_tried, e, "o-", ms=4, color=color, label=f"{solver}, last slope {math.log2(e[-2] / e[-1]):.1f}")
    ax.set_xscale("log", base=2)
    ax.set(title=title, xlabel="steps", xticks=steps_tried, xticklabels=steps_tried)
    ax.legend(fontsize=8)
axes[0].set_ylabel("error of log p (nats)")
plt.show()
default_error = error["the tile model"]["rk4"][2]
print(f"the package's default, 16 steps of RK4: median error {default_error:.4f} nats for the tile model")

# %% [markdown]
# *What was seen:* orders 1, 2 and 4 for the drift. The tile model shows them as soon as the steps are small enough for its
# field, which gathers the points in the last moments. The default of 16 steps of RK4 errs by about 0.02 nats; Euler, with as
# many steps, by more than two.
#
# ## A sham density that integrates to one
#
# What do the three traces make of the drift? Add them up in place of the divergence. Then ask two questions: does the
# result integrate to one, and does it agree with samples, say north of 45° N?

# %%
grid = sphere.unit(sphere.fibonacci_grid(many).double())[None]
arrived = samplers.sample(drift, path, grid, even_times(32))


def north_of_45(x):
    return x[..., 2] > math.sin(math.pi / 4)


rates = {
    "divergence": lambda x: -2 * s * x[..., 2],
    "trace, not normalised": lambda x: -4 * s * x[..., 2],
    "trace, not projected": lambda x: 0 * x[..., 2],
}
sham = {}
for name, rate in rates.items():
    for _, total in samplers.integrate(lambda x, t, rate=rate: (drift(x, t), rate(x)), path, grid, even_times(32).flip(0), "rk4"):
        pass
    p = (sphere.LOG_UNIFORM + total).exp()
    sham[name] = 4 * math.pi * p.mean().item(), 4 * math.pi * (p * north_of_45(grid)).mean().item()
share_north = north_of_45(arrived).double().mean().item()
for name, (integral, north) in sham.items():
    print(f"{name:22s} integral {integral:6.3f}   mass north of 45° N {north:6.3f}")
print(f"{'share of the samples':22s} {'':15s}   {'':18s} {share_north:6.3f}")

# %% [markdown]
# *What was seen:* without the normalisation the "density" adds up to about seven; in closed form, sinh 3s / (3 sinh s). Without
# the projection it is the uniform density, with an integral of exactly one, and wrong all the same: the samples crowd in
# the north. An integral of one is necessary, not sufficient.
#
# ## Tiny triangles
#
# For a network no formula is known, but the first paragraph of this notebook can be taken literally: let the three
# corners of a tiny triangle flow, and compare its areas. This knows nothing of derivatives or traces, only of samples.
#
# *What to look for:* one dot per sample of the tile model; both axes should say the same.

# %%
image = {name: tiles.tile(*place) for name, place in tiles.EXAMPLES.items()}
cond = {name: geo.embed(picture) for name, picture in image.items()}
h, times = 1e-6, schedules.time_grid(geo.schedule, 32).double()
noise = sphere.unit(sphere.uniform((1, few), torch.Generator().manual_seed(seed)).double())
e1, e2 = sphere.tangent_basis(noise)
corners = torch.cat([noise, sphere.exp(noise, h * e1), sphere.exp(noise, h * e2)], 1)
p, q, r = samplers.sample(precise, geo.path, corners, times, cond["coast"].double()).chunk(3, 1)
shrinkage = (torch.linalg.cross(q - p, r - p) * p).sum(-1) / h**2
_, log_p = likelihood.sample_with_log_prob(precise, geo.path, noise, times, cond["coast"].double())
by_triangles, by_divergence = -shrinkage.log()[0], log_p[0] - sphere.LOG_UNIFORM

fig, ax = plt.subplots(figsize=(3.4, 3), layout="constrained")
ax.plot(by_divergence, by_triangles, ".", color=BLUE, ms=4)
ax.axline((0, 0), slope=1, color=GREY, lw=0.8)
ax.set(xlabel="nats over uniform, by divergences", ylabel="by areas of triangles", title="samples for the coast tile")
plt.show()
triangle_error = (by_triangles - by_divergence).abs().median().item()
print(f"median difference {triangle_error:.1e} nats, largest {(by_triangles - by_divergence).abs().max():.1e}")

# %% [markdown]
# *What was seen:* dots on the diagonal, to a small fraction of a nat. The divergence of the network, its derivatives and
# the solver are right.
#
# ## 3 · The integral is one
#
# A density map evaluates log p on a grid that covers the Earth. `geo.density(image)` makes one; here are the same lines
# written out, to count the evaluations. (Section 4 looks into the grid.)


# %%
def make_map(name):
    """The density map of a telling tile, and how many places were evaluated at each level of the grid."""
    evaluated = []

    def log_prob(x):
        evaluated.append(len(x))
        return geo.log_prob(sphere.to_latlon(x), cond=cond[name], steps=20)[0]

    drawn = sphere.from_latlon(geo.sample(cond=cond[name], n=8192, seed=0))[0]
    return density_map(log_prob, drawn, resolution=0.5, max_cells=most_cells), evaluated


made = {name: make_map(name) for name in mapped}
densities = {name: density for name, (density, _) in made.items()}

# %% [markdown]
# *What to look for:* a common colour scale, logarithmic; what is below the uniform density is left blank.

# %%
maps.contact_sheet(
    [
        {
            "density": densities[name],
            "image": image[name],
            "truth": tiles.EXAMPLES[name],
            "title": name,
            "inset": "south-pole" if name == "ice" else None,
        }
        for name in mapped
    ]
)

# %%
print("         integral   evaluations   the peak over uniform")
for name, (density, evaluated) in made.items():
    above = density.log_density.max().item() - sphere.LOG_UNIFORM
    print(f"{name:7s} {density.integral:9.4f} {sum(evaluated):13,} {f'e^{above:.1f}':>23s}")

# %% [markdown]
# *What was seen:* one to within a per cent. The ocean needs most evaluations: a density that is spread over three oceans
# *and* has narrow ridges is the hardest for a grid. The ice is one of several places in the
# inner Antarctic, the taiga a dot, and the coast has two candidates: Arabia with the Horn of Africa, and the eastern
# Mediterranean.
#
# ## With the trace instead
#
# The public code of the paper takes, for the Riemannian model, the trace of the network's Jacobian in R³, as it stands.
# Its network is not projected; training brings its answers close to tangent *on* the sphere, but leaves open how they
# change *off* it, the last term of the formula above. What does that do? Take our network without its normalisation and
# projection, with the same weights, and follow three rates along the same paths:
#
# * the divergence;
# * the trace of f, made tangent on the sphere, but with no normalisation inside: what the best training of an
#   unconstrained network can reach;
# * the trace of the raw f. (In fairness: the radial part of *our* raw network was never trained, since the projection
#   removes it. So this row says what can happen, not what happens in the paper.)
#
# No grid is needed. A wrong density p̃ has the integral ∫ p̃ = E[p̃ / p], a mean over samples of the right one.

# %%
raw = VelocityTransformer(**{**geo.network.config, "tangent": False}).eval()
raw.load_state_dict(geo.network.state_dict())
all_cond = torch.cat(list(cond.values()))


def three_rates(x, t):
    v, div = likelihood.divergence(geo.network, geo.path, x, t, all_cond)
    axes = torch.eye(3).reshape(3, 1, 1, 3).expand(3, *x.shape)
    f, along = velocity_jvp.jvp(raw, x, t, all_cond, axes)
    raw_trace = (axes * along).sum((0, -1))
    return v, torch.stack([div, raw_trace - 2 * (x * f).sum(-1), raw_trace])


noise = sphere.uniform(by_scale(64, 512, 1024), torch.Generator().manual_seed(seed)).expand(len(all_cond), -1, -1)
for _, total in samplers.integrate(three_rates, geo.path, noise, schedules.time_grid(geo.schedule, 16), "rk4"):
    pass
excess = (total[0] - total[1:]).double()  # log p̃ − log p of each sample, (2, 6, n)
wrong_integral, shift = excess.exp().mean(-1), excess.mean(-1)
uncertain = excess.exp().std(-1) / excess.shape[-1] ** 0.5
print("             f tangent on the sphere               f as it is")
print("             integral          log p̃ − log p       integral          log p̃ − log p")
for i, name in enumerate(tiles.EXAMPLES):
    print(f"{name:8s}", end="")
    for k in (0, 1):
        print(f"{wrong_integral[k, i]:11.2g} ± {uncertain[k, i]:<8.1g} {shift[k, i]:+.2f} nats    ", end="")
    print()

# %% [markdown]
# *What was seen:* the flow is the same, the samples are the same, and yet the "density" adds up to other numbers than one. The
# best case gives 0.9 to 1.4 for four tiles, three for the Amazon, and more for the ice (how much more is uncertain: a few
# samples dominate the mean). In nats per image, the number that a table reports, it is off by up to one, in both
# directions; the raw trace by two to five. (`geoflow.plonk.ambient_trace_log_prob` is the public code's computation, in
# which the points leave the sphere as well. How large its error is for a published network must be measured on that network.)
#
# ## 4 · How a map is made
#
# A density may be a needle: a grid fine enough for it would need millions of cells. `density.density_map` starts from
# 768 equal cells of 7° (HEALPix). It splits a cell in four, and the cells around it too, where more than 1/480 of 8,192
# samples of the model fall (in the coarsest cells a half or a quarter of that), or where the centre's density promises 1/120
# of the probability. Why do the samples decide, and not the densities, which are exact? Because a density at a centre
# misses a filament beside it. If such cells were kept, and those split whose centre hits one, the kept ones would all err to
# the same side: an earlier version of this function did so, and found 0.977 for the ocean.

# %%
shown = "coast"
density, evaluated = made[shown]
cell_level = torch.log(math.pi / (3 * density.area)).div(math.log(4)).round().long()


def side_of(level):
    """Side of a HEALPix cell in degrees."""
    return math.degrees(math.sqrt(math.pi / (3 * 4**level)))


for k, n in enumerate(evaluated, start=3):
    print(f"cells of {side_of(k):5.2f}°: {n:6,} evaluated, {int((cell_level == k).sum()):6,} not split further")
print(f"together {sum(evaluated):,} evaluations; a regular 1° grid has {180 * 360:,}")

# %% [markdown]
# *What to look for:* the centres of the cells, coloured by size; at the right the neighbourhood of the true place.

# %%
fig = maps.MapFigure(figsize=(7.6, 2.9), layout="constrained")
columns = fig.add_gridspec(1, 2, width_ratios=(1.75, 1))
wide, near = maps.world(ax=columns[0]), maps.world("orthographic", center=tiles.EXAMPLES[shown], ax=columns[1])
near.set(xlim=(-2.2e6, 2.2e6), ylim=(-2.2e6, 2.2e6))
sizes = sorted(set(cell_level.tolist()))
for k in sizes:
    color = plt.get_cmap("viridis_r")(0.05 + 0.95 * (k - sizes[0]) / max(1, len(sizes) - 1))
    for ax, size in ((wide, 1.5), (near, 4)):
        maps.draw_points(ax, sphere.to_latlon(density.x[cell_level == k]), color=color, size=size, alpha=1, label=f"{side_of(k):.2g}°")
fig.legend(handles=wide.get_legend_handles_labels()[0], loc="outside lower center", ncols=len(sizes), markerscale=3, fontsize=8)
fig

# %% [markdown]
# *What was seen:* coarse cells cover most of the world, fine ones the two candidates, the finest the peaks. The samples
# matter: no coarse centre happens to lie on a peak a fraction of a degree wide, but some samples do.
#
# What does a regular grid of equal cells make of the same density?

# %%
regular = {}
for k in regular_levels:
    centres = healpix.centers(torch.arange(12 * 4**k), k).float()
    regular[k] = 4 * math.pi * geo.log_prob(sphere.to_latlon(centres), cond=cond[shown], steps=20)[0].double().exp().mean().item()
    print(f"regular, {12 * 4**k:6,} cells: integral {regular[k]:.3f}")
print(f"adaptive, {sum(evaluated):5,} evaluations: integral {density.integral:.3f}")

# %% [markdown]
# *What was seen:* the regular grids miss half of the probability, because they miss the peaks. The adaptive one finds them,
# for a fifteenth of the 64,800 evaluations of a 1° grid, whose cells are still thirty times as wide as its finest.
#
# ## 5 · Localizability
#
# How well can an image be located? The paper's answer (section 3.4) is the **negative entropy** of its density, in bits:
#
# $$\text{localizability}(c) = \int p(x \mid c)\, \log_2 p(x \mid c)\, dx = \mathbb{E}_{x \sim p}\, \log_2 p(x \mid c) .$$
#
# The second form needs no grid: draw samples, and average their log-densities, which come with the samples in one
# solution. A uniform density on an area A has −log₂ A (in units of the Earth's radius squared), so b bits mean "as sure
# as a uniform guess within R² · 2⁻ᵇ", and **each bit halves the area**. Knowing nothing has −log₂ 4π = −3.65 bits.


# %%
def samples_with_bits(cond):
    """Samples (B, n, 3), their log-densities (B, n) in nats."""
    noise = geo.path.noise((samples_per_tile,), torch.Generator().manual_seed(seed))
    times, found = schedules.time_grid(geo.schedule, 16), []
    for part in cond.split(max(1, 1024 // samples_per_tile)):
        shared_noise = noise.expand(len(part), -1, -1)
        found.append(likelihood.sample_with_log_prob(geo.velocity, geo.path, shared_noise, times, part))
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


samples, log_p = samples_with_bits(judged_cond)
bits = log_p.mean(-1) / math.log(2)
standard_error = log_p.std(-1) / math.log(2) / samples_per_tile**0.5
torch.testing.assert_close(bits[:2], geo.localizability(cond=judged_cond[:2], n=samples_per_tile, seed=seed), atol=1e-3, rtol=0)
km = metrics.error_km(metrics.best_for_geoscore(samples), judged.x)
print(
    f"{ranked} test tiles: from {bits.min():.1f} to {bits.max():.1f} bits, ± {standard_error.median():.2f} by {samples_per_tile} samples each"
)

# %% [markdown]
# Is the mean over samples the entropy of the map? Compare, for the telling tiles, the maps of section 3 with the samples
# that were drawn there for the wrong traces; the right log-density came with them.

# %%
telling_log_p = dict(zip(tiles.EXAMPLES, (sphere.LOG_UNIFORM - total[0]).double(), strict=True))
gap = {}
print("             by samples       by the map    as sure as a uniform guess within")
for name in mapped:
    one = telling_log_p[name] / math.log(2)
    by_samples, by_samples_error = one.mean().item(), one.std().item() / len(one) ** 0.5
    by_map = -densities[name].entropy / math.log(2)
    gap[name] = abs(by_samples - by_map) / by_samples_error
    print(f"{name:8s} {by_samples:6.2f} ± {by_samples_error:.2f} bits {by_map:10.2f} bits {6371**2 * 2**-by_map:18,.0f} km²")

# %% [markdown]
# *What was seen:* ice, coast and taiga agree within two standard errors; the ocean, whose log-densities scatter most, within
# two and a half. The maps cost thousands of evaluations each, the samples 512: for a number, samples do.
#
# (A note on units. The paper's figure 6 gives values such as 1.75 for the Eiffel Tower and 0.47 for a beach. Its public
# code divides the mean of log₂ p by 4π; with that factor undone they are 22 bits and 5.9 bits, areas of some 10 km² and
# 700,000 km², which makes sense. Here nothing is divided.)
#
# *What to look for:* the upper row the eight most localizable of the test tiles, the lower row the eight least, each with
# its bits and the distance of the model's answer from the truth.

# %%
order = bits.argsort(descending=True)
fig, axes = plt.subplots(2, 8, figsize=(8.6, 3.0), layout="constrained")
for ax, i in zip(axes.flat, [*order[:8].tolist(), *order[-8:].tolist()], strict=True):
    ax.imshow(judged.images[i].permute(1, 2, 0))
    ax.set(xticks=[], yticks=[])
    ax.set_title(f"{bits[i]:.1f} bits\n{km[i]:,.0f} km", fontsize=8, pad=2)
plt.show()
median_of = {"most": km[order[:8]].median().item(), "least": km[order[-8:]].median().item()}
print(f"median distance: most localizable eight {median_of['most']:,.0f} km, least localizable eight {median_of['least']:,.0f} km")

# %% [markdown]
# *What was seen:* above, forests and deserts, each with a tint of its own; below, dark water, eight times. These have about
# zero bits, which is still more than the −3.65 of knowing nothing: the model does know that it is looking at a sea.
#
# Ask for other tiles, or upload one (that needs a kernel): a density, its bits, the three best places.

# %%
from geoflow import widgets

player = widgets.explore_density(geo, keep=True)
player

# %%
player.contact_sheet()

# %% [markdown]
# ## Is it to be trusted?
#
# Localizability looks at the model's density alone, never at the truth. If it is worth something, confident answers
# should be near. For comparison: uniform in a disc of area R² · 2⁻ᵇ, half of the places are closer to its centre than
# R · √(2⁻ᵇ / 2π), the grey line. To see more than a line, the same for tiles of **held-out regions**, which the model
# never saw (notebook 05).
#
# *What to look for:* do the dots fall along the line? Blue, and orange?

# %%
held_out = tiles.load("held-out", ranked_held_out)
held_out_samples, held_out_log_p = samples_with_bits(geo.encoder.embed(held_out.images))
held_out_bits = held_out_log_p.mean(-1) / math.log(2)
held_out_km = metrics.error_km(metrics.best_for_geoscore(held_out_samples), held_out.x)


def spearman(a, b):
    """Correlation of the ranks."""
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).double()
    return torch.corrcoef(ranks)[0, 1].item()


correlation = {"seen": spearman(bits, km), "held-out": spearman(held_out_bits, held_out_km)}
fig, ax = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
line = torch.linspace(min(bits.min(), held_out_bits.min()).item(), max(bits.max(), held_out_bits.max()).item(), 50)
ax.plot(line, sphere.EARTH_RADIUS_KM * (2**-line / (2 * math.pi)).sqrt(), color=GREY, lw=1, label="median within a disc")
for split, b, d, color in (("seen", bits, km, BLUE), ("held-out", held_out_bits, held_out_km, ORANGE)):
    ax.plot(b, d.clamp(min=1), ".", ms=4, color=color, label=f"{split}: Spearman {correlation[split]:.2f}")
ax.set(yscale="log", xlabel="localizability (bits)", ylabel="distance of the answer (km)")
fig.legend(loc="outside upper center", ncols=3, fontsize=8)
plt.show()
groups = order.flip(0).tensor_split(4)  # least localizable first
quarters = [(bits[g].mean().item(), km[g].median().item()) for g in groups]
print("quarters of the seen tiles: " + "; ".join(f"{b:.1f} bits, median {d:,.0f} km" for b, d in quarters))
print(
    f"held-out: mean {held_out_bits.mean():.1f} bits, median {held_out_km.median():,.0f} km; seen: mean {bits.mean():.1f} bits, median {km.median():,.0f} km"
)

# %% [markdown]
# *What was seen:* in seen regions confident answers are near. Most blue dots lie even below the line: the density has a peak
# and wide tails, and the answer sits on the peak, nearer than in a disc of the same entropy. Most of the correlation comes
# from land against sea; between the three better quarters the distances differ little. In held-out regions the model is less
# sure, but by far not as much as it errs: nearly all orange dots lie above the line. Localizability tells what the model
# believes. It says something about the image only as far as the training data reach.
#
# ## 6 · Regions
#
# A map is a picture; a statement is: *with 90 %, the place lies in this region, of so many km²*. Among all regions of
# probability 90 % the smallest is the one where the density exceeds a threshold, the **highest-density region** (Hyndman,
# 1996). On a map: sort the cells by density, and add up their masses.

# %%
levels = (0.5, 0.9, 0.95)
areas = {name: [density.region_area_km2(level) for level in levels] for name, density in densities.items()}
print("area in km² of" + "".join(f"{level:>14.0%}" for level in levels) + "   holds the truth")
for name, density in densities.items():
    at_truth = geo.log_prob(torch.tensor([tiles.EXAMPLES[name]]), cond=cond[name], steps=20).item()
    inside = [f"{level:.0%}" for level in levels if at_truth >= density.region_threshold(level)]
    print(f"{name:14s}" + "".join(f"{area:14,.0f}" for area in areas[name]) + f"   {', '.join(inside) or 'none of them'}")

# %% [markdown]
# *What to look for:* from dark to pale the regions of 50, 90 and 95 %. One piece or several?

# %%
drawn_regions = [name for name in ("coast", "ocean") if name in densities]
fig = maps.MapFigure(figsize=(7.0, 3.6), layout="constrained")
for place, name in zip(fig.add_gridspec(1, len(drawn_regions)), drawn_regions, strict=True):
    density = densities[name]
    ax = maps.world("orthographic", center=tiles.EXAMPLES[name], ax=place)
    thresholds = [density.region_threshold(level) for level in sorted(levels, reverse=True)]
    ax.contourf(
        density.lon,
        density.lat,
        density.log_density,
        levels=[*thresholds, math.inf],
        colors=["#c6dbef", "#6baed6", "#08519c"],
        alpha=0.85,
        transform=ccrs.PlateCarree(globe=ax.projection.globe),
    )
    maps.draw_truth(ax, tiles.EXAMPLES[name])
    ax.set_title(f"{name}: 50 % on {round(areas[name][0], -3):,.0f} km²", fontsize=9)
fig

# %% [markdown]
# *What was seen:* the coast's region has several pieces, which no single place with a radius could describe. The ocean
# shows what one number hides. Its bits are almost those of the coast. But its 50 % lie on a streak, smaller than
# the coast's and beside the truth, and its 95 % on seven times the coast's area.
#
# A region of 90 % is worth something only if it holds the truth in nine of ten cases. No maps are needed to find out: the
# truth lies inside if fewer than 90 % of the samples have a higher density.

# %%
truth_log_p = geo.log_prob(sphere.to_latlon(judged.x[:, None]), cond=judged_cond)[:, 0]
calibration = metrics.calibration(log_p, truth_log_p, levels)
held_out_truth = geo.log_prob(sphere.to_latlon(held_out.x[:, None]), images=[tiles.to_pil(i) for i in held_out.images])[:, 0]
held_out_calibration = metrics.calibration(held_out_log_p, held_out_truth, levels)
for level in levels:
    key = f"calibration_{100 * level:g}"
    print(
        f"regions of {level:.0%} hold the truth in {calibration[key]:.0%} of seen tiles, in {held_out_calibration[key]:.0%} of held-out ones"
    )

# %% [markdown]
# *What was seen:* in seen regions the truth lies inside about as often as promised, in the wide regions more often: 96 % in
# place of 90 %. In held-out regions the promise is void.
#
# ## Check

# %%
assert (by_hand - paper).abs().max() < 1e-8
assert (package - paper).abs().max() < 1e-12
assert all(torch.allclose(value, torch.full_like(value, k), atol=1e-9) for value, k in zip(factor.values(), (0.0, -4.0, -2.0), strict=True))
assert exact_error < 1e-5
for solver, k in (("euler", 1), ("midpoint", 2), ("rk4", 4)):
    e = error["a drift, known density"][solver]
    assert abs(math.log2(e[-2] / e[-1]) - k) < 0.3
assert abs(sham["divergence"][0] - 1) < 1e-2
assert abs(sham["trace, not normalised"][0] - math.sinh(3 * s) / (3 * math.sinh(s))) < by_scale(1, 0.1, 0.1)
assert abs(sham["trace, not projected"][0] - 1) < 1e-9
assert abs(sham["divergence"][1] - share_north) < 0.02
assert triangle_error < 1e-2
assert all(abs(density.integral - 1) < by_scale(0.9, 0.01, 0.01) for density in densities.values())
assert math.isclose(sum(evaluated) - 768, 4 * sum(n - int((cell_level == k).sum()) for k, n in enumerate(evaluated, start=3)))
if scale() != "smoke":
    assert default_error < 0.05
    assert error["the tile model"]["euler"][2] > 1
    assert 1.5 < wrong_integral[0, list(tiles.EXAMPLES).index("Amazon")] < 6
    assert 0.5 < shift[0].abs().max() < 2
    assert shift[1].max() < -1
    assert all(integral < 0.8 for integral in regular.values())
    assert 64_800 / 20 < sum(evaluated) < 64_800 / 12
    assert max(gap[name] for name in ("ice", "coast", "taiga")) < 3
    assert gap["ocean"] < 5
    assert median_of["most"] < 100 < 1000 < median_of["least"]
    assert -0.8 < correlation["seen"] < -0.5
    assert quarters[0][1] > 3 * quarters[1][1] > 3 * quarters[-1][1]
    assert held_out_bits.mean() < bits.mean() - 1
    assert held_out_km.median() > 10 * km.median()
    assert areas["ocean"][0] < areas["coast"][0]
    assert areas["ocean"][2] > 5 * areas["coast"][2]
    assert 0.35 < calibration["calibration_50"] < 0.6
    assert 0.85 < calibration["calibration_90"] < 0.99
    assert held_out_calibration["calibration_90"] < 0.5
print("all checks passed")

# %% [markdown]
# ## References
#
# * N. Dufour, D. Picard, V. Kalogeiton, L. Landrieu, *Around the World in 80 Timesteps*, CVPR 2025, arXiv 2412.06781:
#   proposition 1, section 3.4, figure 6. Public code: github.com/nicolas-dufour/plonk.
# * R. T. Q. Chen, Y. Rubanova, J. Bettencourt, D. Duvenaud, *Neural Ordinary Differential Equations*, NeurIPS 2018,
#   arXiv 1806.07366: the instantaneous change of variables.
# * E. Mathieu, M. Nickel, *Riemannian Continuous Normalizing Flows*, NeurIPS 2020, arXiv 2006.10605.
# * R. T. Q. Chen, Y. Lipman, *Flow Matching on General Geometries*, ICLR 2024, arXiv 2302.03660.
# * K. M. Górski et al., *HEALPix*, The Astrophysical Journal 622, 2005.
# * R. J. Hyndman, *Computing and Graphing Highest Density Regions*, The American Statistician 50, 1996.
