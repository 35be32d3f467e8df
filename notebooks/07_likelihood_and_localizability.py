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
#    a different number;
# 2. how to test a likelihood: against a flow whose density is known, against tiny triangles, and by its integral;
# 3. how a density map is made from a few thousand points, which are closer together where the probability is high;
# 4. how to say in one number how well an image can be located, what clouds do to this number, and when to trust it;
# 5. how to draw the smallest region that contains the true place with a probability of 50, 90 or 95 %.
#
# | Needs | Time to read | Time to run (laptop / GPU) | Produces |
# |---|---|---|---|
# | notebooks 03 and 05 | 50 minutes, exercises 45 more | 4 minutes / not needed | figures only |
#
# The model is the shipped model `tiles`, a Riemannian flow for satellite tiles. The sections before "The order of a solver" need no
# model. Words such as *divergence*, *entropy* and *highest-density region* are explained where they first appear, and in the
# [glossary](GLOSSARY.md).

# %% tags=["parameters"]
from geoflow.runtime import by_scale, scale

seed = 0
few, many = by_scale((20, 500), (32, 5_000), (96, 5_000))  # points of tests, and of integrals of known flows
steps_tried = by_scale((4, 8, 16), (4, 8, 16, 32), (4, 8, 16, 32, 64))  # steps of the solvers that are compared
mapped = by_scale(("coast",), ("ocean", "ice", "coast"), ("ocean", "ice", "coast", "taiga"))  # tiles with a density map
map_samples, most_cells = by_scale((512, 1_000), (2048, 12_000), (8192, 20_000))  # of each density map
regular_levels = by_scale((2,), (3, 4), (3, 4, 5))  # regular HEALPix grids of 12 · 4^level cells
per_example = by_scale(32, 160, 1024)  # samples of each example tile
ranked, ranked_held_out = by_scale((16, 8), (120, 60), (1000, 500))  # tiles whose localizability is measured
samples_per_tile = by_scale(32, 48, 512)
cloudy, samples_under_clouds = by_scale((4, 32), (60, 32), (300, 128))  # tiles that are seen under more and more clouds

# %%
import copy
import functools
import math
from dataclasses import replace

import torch

from geoflow import Geolocator, likelihood, paths, samplers, schedules, sphere, velocity_jvp, vmf
from geoflow.data import tiles
from geoflow.density import density_map, importance_integral
from geoflow.gis import healpix
from geoflow.scores import metrics
from geoflow.viz import lessons_likelihood, maps, widgets
from geoflow.viz.lessons_training import place_name

_ = torch.manual_seed(seed)

# %% [markdown]
# ## Where a density comes from
#
# A flow moves points. It does not create points, and it does not remove any. Take a small patch of noise. All its points
# arrive together, in a patch of another size. If the patch has become half as large, the density in it has doubled:
#
# $$p_1(x) \cdot \text{area at the end} = p_0(x_0) \cdot \text{area at the start}.$$
#
# We begin with a flow that can be solved by hand. Every point drifts towards the North Pole n = (0, 0, 1), with the velocity
# v(x) = s (n − ⟨x, n⟩ x). This is s times the tangent part of n, where s = 1.5 is a speed.

# %%
path, s = paths.RiemannianFlow(), 1.5
NORTH = torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)


def drift(x, t, cond=None):
    """s times the tangent part of the north pole at x (..., 3)."""
    return s * sphere.to_tangent(x, NORTH.to(x).expand_as(x))


def even_times(steps):
    return torch.linspace(0, 1, steps + 1, dtype=torch.float64)


# %% [markdown]
# We draw 40 circles of equal size on the Earth and let their points drift. `sphere.tangent_basis(x)` returns two tangent
# vectors at x, of length 1 and perpendicular to each other; with them we draw a circle around x. In this flow circles stay circles
# (its maps are Möbius transformations of the sphere, which carry every circle to a circle), so their area follows from the radius: a circle of radius r on the sphere has the area 2π (1 − cos r).

# %%
turn = torch.linspace(0, 2 * math.pi, 61, dtype=torch.float64)[:, None]
middle = sphere.unit(sphere.fibonacci_grid(40).double())[:, None]  # (40, 1, 3)
e1, e2 = sphere.tangent_basis(middle)
circles = sphere.exp(middle, 0.14 * (turn.cos() * e1 + turn.sin() * e2))  # (40, 61, 3)
states = torch.stack(list(samplers.trajectory(drift, path, circles, even_times(16))))  # (17, 40, 61, 3)


def circle_areas(points):
    """Areas of circles (..., 61, 3) on the sphere; the sum of cross products points at their centres."""
    centre = sphere.unit(torch.linalg.cross(points[..., :-1, :], points[..., 1:, :]).sum(-2))
    return 2 * math.pi * (1 - sphere.distance(centre[..., None, :], points).mean(-1).cos())


growth = circle_areas(states) / circle_areas(states[0])  # (17, 40)

# %% [markdown]
# **Predict before you run:** a circle that starts at the South Pole, and a circle that ends at the North Pole: which of them grows,
# which shrinks, and by which factors?
#
# **What to look for:** the colour is the area of a circle, relative to its area at t = 0.

# %%
lessons_likelihood.circles_figure(states[[0, 8, 16]], growth[[0, 8, 16]], ["t = 0", "t = 0.5", "t = 1"])

# %%
southmost, northmost = middle[:, 0, 2].argmin(), middle[:, 0, 2].argmax()
most_grown, most_shrunk = growth[-1, southmost].item(), growth[-1, northmost].item()
print(f"the circle nearest to the South Pole grows to {most_grown:.1f} times its area")
print(
    f"the circle nearest to the North Pole shrinks to {most_shrunk:.3f} times, so the density in it is {1 / most_shrunk:.1f} times higher"
)

# %% [markdown]
# **What was seen:** circles shrink and crowd around the North Pole, where the density becomes high. Circles in the south grow,
# and the density there becomes low.
#
# ## The divergence
#
# How fast does the area of a small patch change? Its relative rate is div v, the **divergence** of the field. The divergence says how
# fast the velocity spreads neighbouring points apart along the surface. Along the way of a point
#
# $$\frac{d}{dt} \log \text{area} = \operatorname{div} v, \qquad \frac{d}{dt} \log p = -\operatorname{div} v .$$
#
# This is the instantaneous change of variables (Chen et al., 2018; PLONK, proposition 1). To find the density at a
# place x, we start there at time 1, follow the flow *backwards* to the noise at time 0, and add up the divergences on the way:
#
# $$\log p_1(x) = \log p_0(x_0) - \int_0^1 \operatorname{div} v(x_t, t)\, dt, \qquad \log p_0 = -\log 4\pi .$$
#
# On the sphere a point can move in two directions. We take two tangent vectors e₁, e₂ of length 1, perpendicular to each other,
# and ask how much the velocity changes along each of them, in that same direction: div v = Σ ⟨eᵢ, ∂v/∂eᵢ⟩. By hand, with finite
# differences:


# %%
def divergence_by_hand(field, x, h):
    total = 0.0
    for e in sphere.tangent_basis(x):
        ahead, behind = field(sphere.exp(x, h * e)), field(sphere.exp(x, -h * e))
        total = total + (e * (ahead - behind)).sum(-1) / (2 * h)
    return total


# %% [markdown]
# We test it on a field whose divergence we can find on paper. Take a constant vector a and its tangent part v(x) = a − ⟨a, x⟩
# x. (Our drift is the case a = s n.) Go a little in a tangent direction e. Then a does not change. The second term, ⟨a, x⟩ x,
# changes by ⟨a, e⟩ x + ⟨a, x⟩ e. The part of this change along e is ⟨a, x⟩, because x ⟂ e. There are two directions, and the
# term has a minus sign: **div v = −2 ⟨a, x⟩**.

# %%
a = torch.tensor([0.3, -0.5, 0.8], dtype=torch.float64)
x = sphere.unit(sphere.fibonacci_grid(few).double())[None]  # (1, few, 3): one (absent) image, few points


def tangent_part(y):
    return sphere.to_tangent(y, a.to(y).expand_as(y))


paper = -2 * x @ a
by_hand = divergence_by_hand(tangent_part, x, 1e-5)
package = likelihood.divergence(lambda y, t, cond: tangent_part(y), path, x, 0.0)[1]
hand_error, package_error = (by_hand - paper).abs().max().item(), (package - paper).abs().max().item()
print(f"largest deviation from −2⟨a, x⟩: by hand {hand_error:.0e}, package {package_error:.0e}")

# %% [markdown]
# ## Float32 and finite differences
#
# Why does the package not use finite differences? Networks compute in *float32*, which keeps about seven decimal digits.
# (*Float64* keeps about sixteen.) A difference of two nearly equal numbers loses digits, and the division by 2h makes the loss
# larger.
#
# **Predict before you run:** in float32, is a step h = 10⁻⁶ better or worse than h = 10⁻³?

# %%
precisions = {"float64": x, "float32": x.float()}
rounding = {}
for h in (1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6):
    rounding[h] = {name: (divergence_by_hand(tangent_part, y, h) - paper).abs().max().item() for name, y in precisions.items()}
rounding["none"] = {
    name: (likelihood.divergence(lambda y, t, cond: tangent_part(y), path, y, 0.0)[1] - paper).abs().max().item()
    for name, y in precisions.items()
}
print("largest error of the divergence\nstep h        float64    float32")
for h, errors in rounding.items():
    print(f"{h!s:10s}" + "".join(f"{error:11.0e}" for error in errors.values()))

# %% [markdown]
# **What was seen:** in float64 the error falls with h² down to h = 10⁻⁵. In float32 the best step is 10⁻³; with h = 10⁻⁶ the
# error is about a thousand times larger. The last row uses no step: `torch.func.jvp` and the package differentiate each operation
# exactly, so only the rounding of single numbers remains.
#
# ## The trace is a different number
#
# In the plane the divergence is the trace of the Jacobian, the sum of ∂vᵢ/∂xᵢ over the axes. Code for this is at hand in R³
# too, with three axes. But a Jacobian in R³ needs a field in R³, and our field is defined on a surface. To differentiate it
# along three axes, we must **continue** it off the sphere, and there are many ways to do so. Here are three formulas. On the
# sphere, the tangent part of all three is the same field.

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


# %% [markdown]
# **Predict before you run:** the divergence is −2 ⟨a, x⟩. Which of the three traces agrees with it?

# %%
away = (x @ a).abs() > 0.1  # points at which we can divide by ⟨a, x⟩
factor = {name: (trace(field, x) / (x @ a))[away] for name, field in continued.items()}
for name, value in factor.items():
    print(f"{name:30s} trace = {value.mean() + 0.0:+.3f} ⟨a, x⟩   (spread {value.std():.0e})")

# %% [markdown]
# **What was seen:** the traces are 0, −4 and −2 times ⟨a, x⟩. One field has three traces. In general, for a continuation f of v,
#
# $$\operatorname{tr} J_f = \operatorname{div} v + 2 \langle x, f(x) \rangle + \tfrac{d}{dr} \langle x, f(r x) \rangle \big|_{r=1} .$$
#
# Both additional terms concern the *radial* part of f, the part along x. The flow on the sphere does not depend on it. For the first
# formula they are 2⟨a, x⟩ and 0. For the second they are 0 and −2⟨a, x⟩. For the third both are 0: it normalises its
# input and projects its output. The package's network does the same. For any other field `likelihood.divergence` takes the
# sum over two tangent directions and subtracts 2⟨x, f(x)⟩.
#
# ## A flow with a known density
#
# The height z of a point of our drift obeys dz/dt = s (1 − z²). Hence artanh z grows at the constant rate s. On a sphere, equal
# areas are equal intervals of z (Archimedes, notebook 01), so the density is (dz₀/dz) / 4π, which is
#
# $$p_1(x) = \frac{1}{4\pi\, (\cosh s - z \sinh s)^2} .$$
#
# Does `likelihood.log_prob` find it?


# %%
def exact_log_density(x):
    return sphere.LOG_UNIFORM - 2 * torch.log(math.cosh(s) - x[..., 2] * math.sinh(s))


found = {name: likelihood.log_prob(drift, path, y, even_times(64)) for name, y in precisions.items()}
exact_error = {name: (log_p - exact_log_density(x)).abs().max().item() for name, log_p in found.items()}
ratio = (exact_log_density(NORTH) - exact_log_density(-NORTH)).exp().item()
for name, error in exact_error.items():
    print(f"largest error of log_prob with 64 steps of RK4 in {name}: {error:.0e} nats")
print(f"the density at the North Pole is {ratio:.0f} times the density at the South Pole; e^(4s) = {math.exp(4 * s):.0f}")

# %% [markdown]
# ## The order of a solver
#
# A solver of *order* k makes an error that is divided by 2ᵏ when the number of steps doubles (notebook 03). Does this hold for
# log-densities too? We try the drift, whose density we know, and the tile model. For the model, the reference is RK4 with many steps,
# computed in float64.
#
# The model locates *tiles*: small satellite pictures, 200 to 400 km wide, turned in any direction, in any light, with clouds
# over up to 60 % of the picture. `tiles.load("test", n)` returns n new tiles of the regions that training has seen.

# %%
geo = Geolocator.from_pretrained("tiles")
precise = copy.deepcopy(geo.network).double()  # the same network in float64
judged = tiles.load("test", ranked)
judged_cond = geo.embed(judged.images)
places = sphere.unit(judged.x[:few, None].double())  # (few, 1, 3): the true place of each tile


def model_log_prob(solver, steps, dtype=torch.float64):
    """log p of the first true places, with the steps placed by the model's schedule."""
    network = precise if dtype == torch.float64 else geo.network
    times = schedules.time_grid(geo.schedule, steps).to(dtype)
    return likelihood.log_prob(network, geo.path, places.to(dtype), times, judged_cond[:few].to(dtype), solver)[:, 0]


# %%
reference = model_log_prob("rk4", by_scale(48, 96, 256))
model_found = {solver: {n: model_log_prob(solver, n) for n in steps_tried} for solver in ("euler", "midpoint", "rk4")}
error = {"a drift, known density": {}, "the tile model, true places": {}}
for solver in ("euler", "midpoint", "rk4"):
    known = [likelihood.log_prob(drift, path, x, even_times(n), solver=solver) - exact_log_density(x) for n in steps_tried]
    error["a drift, known density"][solver] = [e.abs().mean().item() for e in known]
    error["the tile model, true places"][solver] = [(model_found[solver][n] - reference).abs().median().item() for n in steps_tried]
default_error = error["the tile model, true places"]["rk4"][2]
euler_error = error["the tile model, true places"]["euler"][2]
print(f"16 steps for the tile model, median error: RK4 {default_error:.4f} nats, Euler {euler_error:.2f} nats")

# %% [markdown]
# **What to look for:** straight lines in these drawings are powers of the number of steps. The orders of the three solvers are 1, 2
# and 4.

# %%
lessons_likelihood.orders_figure(error, steps_tried)

# %% [markdown]
# **What was seen:** the drift shows the orders 1, 2 and 4 from the start. For the tile model the lines are less steep: their last slopes
# are 0.9, 1.6 and 3.3, because even 32 steps are too long for the full orders. The reason is its field: it gathers the points in the last moments before t = 1, and long steps
# cannot follow it there. With 16 steps, the package's default, RK4 errs by less than 0.01 nats in the median; Euler's method
# errs by about one nat with as many steps.
#
# The package computes in float32. Is that enough? The next table separates the two errors: too few steps, and rounding.

# %%
print("median error of log p (nats), the tile model, RK4\nsteps     too few steps     rounding to float32")
solver_and_rounding = {}
for n in steps_tried:
    exact = model_found["rk4"][n]
    too_few = (exact - reference).abs().median().item()
    rounded = (model_log_prob("rk4", n, torch.float32).double() - exact).abs().median().item()
    solver_and_rounding[n] = too_few, rounded
    print(f"{n:5d} {too_few:17.1e} {rounded:23.1e}")

# %% [markdown]
# **What was seen:** rounding costs about 10⁻⁶ nats, whatever the number of steps. With 16 steps it is more than a thousand times
# smaller than the error of the solver. So float32 is precise enough for a log-density, as long as no finite differences are taken.
#
# ## A wrong density that integrates to one
#
# What do the three traces make of the drift? We add up each of them in the place of the divergence. Then we ask two questions.
# Is the integral over the sphere 1? Does the density agree with samples, for example north of 45° N?
#
# For a = s n the three rates are −2sz, −4sz and 0. We integrate over an even grid: the integral is 4π times the mean.

# %%
grid = sphere.unit(sphere.fibonacci_grid(many).double())[None]
arrived = samplers.sample(drift, path, grid, even_times(32))
rates = {
    "divergence": lambda x: -2 * s * x[..., 2],
    "trace, not normalised": lambda x: -4 * s * x[..., 2],
    "trace, not projected": lambda x: 0 * x[..., 2],
}


def north_of_45(x):
    return x[..., 2] > math.sin(math.pi / 4)


def density_with(rate):
    """The 'density' at the grid that follows from a rate; `integrate` adds it up, backwards in time."""
    *_, (_, total) = samplers.integrate(lambda x, t: (drift(x, t), rate(x)), path, grid, even_times(32).flip(0), "rk4")
    return (sphere.LOG_UNIFORM + total).exp()


# %% [markdown]
# **Predict before you run:** which of the three densities pass both tests?

# %%
sham = {}
for name, rate in rates.items():
    p = density_with(rate)
    sham[name] = 4 * math.pi * p.mean().item(), 4 * math.pi * (p * north_of_45(grid)).mean().item()
share_north = north_of_45(arrived).double().mean().item()
for name, (integral, north) in sham.items():
    print(f"{name:22s} integral {integral:6.3f}   probability north of 45° N {north:6.3f}")
print(f"{'share of the samples':22s} {'':15s}   {'':25s} {share_north:6.3f}")
print(f"sinh 3s / (3 sinh s) = {math.sinh(3 * s) / (3 * math.sinh(s)):.3f}")

# %% [markdown]
# **What was seen:** without the normalisation the integral is about seven; the exact value is sinh 3s / (3 sinh s). Without the
# projection, the result is the uniform density. Its integral is exactly one, and it is wrong: the samples are
# in the north. An integral of one is necessary, but it is not sufficient. The comparison with samples finds this error.
#
# ## Tiny triangles
#
# For a network we know no formula of its density. But we can take the first section of this notebook literally: let the three
# corners of a tiny triangle flow, and compare its areas at both ends. This test uses no derivatives and no traces, only samples.
#
# Six tiles accompany us from here on. They have no clouds, north is above, and each is 300 km wide.

# %%
pictures = tiles.render(sphere.from_latlon(torch.tensor(list(tiles.EXAMPLES.values()))))  # (6, 3, 32, 32), as `tiles.tile` makes them
image = {name: tiles.to_pil(picture) for name, picture in zip(tiles.EXAMPLES, pictures, strict=True)}
all_cond = geo.embed(pictures)  # (6, C)
cond = dict(zip(tiles.EXAMPLES, all_cond.split(1), strict=True))
lessons_likelihood.tiles_figure(pictures, [f"{name}\n{place_name(place)}" for name, place in tiles.EXAMPLES.items()], columns=6)

# %%
h, times = 1e-6, schedules.time_grid(geo.schedule, 32).double()
noise = sphere.unit(sphere.uniform((1, few), torch.Generator().manual_seed(seed)).double())
e1, e2 = sphere.tangent_basis(noise)
corners = torch.cat([noise, sphere.exp(noise, h * e1), sphere.exp(noise, h * e2)], 1)
p, q, r = samplers.sample(precise, geo.path, corners, times, cond["coast"].double()).chunk(3, 1)
area_ratio = (torch.linalg.cross(q - p, r - p) * p).sum(-1) / h**2  # twice the triangle's area, at the end and at the start
_, log_p = likelihood.sample_with_log_prob(precise, geo.path, noise, times, cond["coast"].double())
by_triangles, by_divergence = -area_ratio.log()[0], log_p[0] - sphere.LOG_UNIFORM
triangle_gap = (by_triangles - by_divergence).abs()
print(f"difference of the two log-densities: median {triangle_gap.median():.1e} nats, largest {triangle_gap.max():.1e} nats")

# %% [markdown]
# **What to look for:** each dot is one sample for the coast tile. Both axes are log-densities over the uniform density.

# %%
lessons_likelihood.agreement_figure(
    by_divergence, by_triangles, "by divergences (nats over uniform)", "by areas of triangles (nats over uniform)", "the coast tile"
)

# %% [markdown]
# **What was seen:** the dots lie on the diagonal. The two computations share the network and the sampler, but only one of them
# uses derivatives. So the divergence of the network is right.
#
# ## Density maps
#
# A density map holds the density of one image at places all over the Earth. `geo.density(image)` makes one. We write out what
# it does, so that we can count the evaluations of log p. It uses 64 steps of the method of Adams and Bashforth (`ab3`), which
# needs only one evaluation of the network per step, at the times of the schedule `few-steps`. (A later section explains how the grid is chosen.)

# %%
map_times = schedules.time_grid(schedules.few_steps, 64)


def log_prob_at(x, name):
    """Log-density of an example tile at places (n, 3) → (n,), in nats."""
    return likelihood.log_prob(geo.network, geo.path, x[None], map_times, cond[name], "ab3")[0]


def make_map(name):
    """The density map of an example tile, the number of places evaluated at each level of the grid, and the samples used."""
    evaluated = []

    def log_prob(x):
        evaluated.append(len(x))
        return log_prob_at(x, name)

    drawn = sphere.from_latlon(geo.sample(cond=cond[name], n=map_samples, seed=0))[0]
    return density_map(log_prob, drawn, resolution=0.5, cell_mass=1 / 120, max_cells=most_cells), evaluated, drawn


made = {name: make_map(name) for name in mapped}
densities = {name: density for name, (density, _, _) in made.items()}

# %% [markdown]
# **What to look for:** the colours are logarithmic and the same for all maps. Where the density is below the uniform density,
# the map is left blank. How many regions does each image have? Where is the true place?

# %%
maps.contact_sheet(
    [
        {"density": densities[name], "image": image[name], "truth": tiles.EXAMPLES[name], "title": name}
        | ({"inset": "south-pole"} if name == "ice" else {})
        for name in mapped
    ]
)

# %% [markdown]
# Now the test: is the integral of each density 1? We compute it in two ways. The first is the sum over the cells of the map.
# The second needs no grid. It draws random points from a smooth density q around the samples, and takes the mean of p/q
# (*importance sampling*); it has a standard error.

# %%
by_points = {}
print("        integral over the cells   evaluations   integral by random points   peak, over uniform")
for name, (density, evaluated, drawn) in made.items():
    log_prob, generator = functools.partial(log_prob_at, name=name), torch.Generator().manual_seed(seed)
    by_points[name] = importance_integral(log_prob, drawn, by_scale(64, 384, 4096), generator)
    above = density.log_density.max().item() - sphere.LOG_UNIFORM
    mean, uncertain = by_points[name]
    print(f"{name:7s} {density.integral:23.4f} {sum(evaluated):13,} {mean:19.3f} ± {uncertain:.3f} {f'e^{above:.1f}':>20s}")

# %% [markdown]
# **What was seen:** each density integrates to one: the sums over the cells are right to 2 %, and the means over random points
# agree with one within a few standard errors. Nothing in the training asks for this. It follows from the right divergence.
#
# A tile may fit several places. The true place of the coast tile is the tip of the Horn of Africa, where the density has a narrow peak. But much of the
# probability lies on other coasts of deserts, above all on the Mediterranean coast of Africa.
#
# ## With the trace in place of the divergence
#
# For the Riemannian model, the public code of the paper uses the trace of the network's Jacobian in R³, as it is. Its network
# is not projected. Training brings its answers close to the tangent plane *on* the sphere, but it does not control how they
# change *off* the sphere, which is the last term of the formula above. What are the consequences? We take our network without
# normalisation and projection, with the same weights, and add up three rates along the same paths:
#
# * the divergence;
# * the trace of f minus 2⟨x, f⟩. This is the trace of a network that is exactly tangent on the sphere, as training wants it. How its radial part
#   changes off the sphere is left free;
# * the trace of f as it is. (The radial part of *our* f was never trained, because the projection removes it. So these two rows say
#   what can happen. They do not say what happens in the paper.)
#
# We need no grid. A wrong density p̃ has the integral ∫ p̃ = E[p̃ / p], where the mean is over samples of the right density p.

# %%
raw = copy.deepcopy(geo.network)
raw.tangent = False  # the same weights; neither normalised nor projected


def three_rates(x, t):
    v, div = likelihood.divergence(geo.network, geo.path, x, t, all_cond)
    axes = torch.eye(3).reshape(3, 1, 1, 3).expand(3, *x.shape)
    f, along = velocity_jvp.jvp(raw, x, t, all_cond, axes)
    torch.testing.assert_close(sphere.to_tangent(x, f), v, atol=1e-3, rtol=1e-3)  # one velocity
    raw_trace = (axes * along).sum((0, -1))
    return v, torch.stack([div, raw_trace - 2 * (x * f).sum(-1), raw_trace])


noise = sphere.uniform(per_example, torch.Generator().manual_seed(seed)).expand(len(all_cond), -1, -1)
*_, (_, total) = samplers.integrate(three_rates, geo.path, noise, schedules.time_grid(geo.schedule, 16), "rk4")

# %%
excess = (total[0] - total[1:]).double()  # log p̃ − log p of each sample: (2 rates, 6 tiles, n)
wrong_integral, shift = excess.exp().mean(-1), excess.mean(-1)
uncertain = excess.exp().std(-1) / excess.shape[-1] ** 0.5
print("              f made tangent on the sphere            f as it is")
print("              integral ± s.e.      mean of            integral ± s.e.      mean of")
print("                                   log p̃ − log p                           log p̃ − log p")
for i, name in enumerate(tiles.EXAMPLES):
    row = (f"{wrong_integral[k, i]:11.3g} ± {uncertain[k, i]:<8.1g} {shift[k, i]:+7.2f} nats" for k in (0, 1))
    print(f"{name:8s}" + "      ".join(row))

# %% [markdown]
# **What was seen:** the flow is the same and the samples are the same, and yet the "density" integrates to other numbers than
# one. With f made tangent, five of the six integrals differ from one by more than two standard errors, from 0.89 (Amazon) to 1.66 (taiga). The mean of log p per image, the number
# that a table of results contains, is wrong by up to 0.46 nats here, and in both directions. With f as it is, the integrals are
# below one, for five tiles by more than two standard errors (a few samples dominate these means, so the errors are rough), and the mean of log p is 0.8 to 3.5 nats too low. (`geoflow.plonk.ambient_trace_log_prob` is the
# computation of the public code, in which the points leave the sphere as well. How large its error is for a published network
# must be measured on that network.)
#
# ## How a map is made
#
# A density may have a very narrow peak. A regular grid that is fine enough for it would need millions of cells.
# `density.density_map` starts with 768 cells of equal area (HEALPix, notebook 01). It splits a cell into four, together with
# the cells around it, if the cell seems to hold more than 1/120 of the probability (1/240 in `geo.density`). Two estimates are
# made, and the larger one counts: the density at the centre times the area, and the share of the samples in the cell, times a
# safety factor. The samples are needed because a density at the centre says nothing about a narrow ridge beside the centre.

# %%
shown = "coast"
density, evaluated, _ = made[shown]


def side_of(level):
    """Side of a HEALPix cell in degrees."""
    return math.degrees(math.sqrt(math.pi / (3 * 4**level)))


for k, n in enumerate(evaluated, start=3):
    print(f"cells of {side_of(k):5.2f}°: {n:6,} evaluated, {int((density.levels == k).sum()):6,} not split further")
print(f"together {sum(evaluated):,} evaluations; a regular grid of 1° has {180 * 360:,}")

# %% [markdown]
# **What to look for:** each dot is the centre of a cell; the colour is the size of the cell. The right panel shows the
# neighbourhood of the true place.

# %%
sides = torch.tensor([side_of(k) for k in density.levels.tolist()])
lessons_likelihood.cells_figure(density.x, sides, tiles.EXAMPLES[shown])

# %% [markdown]
# **What was seen:** coarse cells cover most of the Earth. Fine cells cover the places where the density is high, here and there
# with a margin around them. This is why a few thousand evaluations are enough.
#
# What does a regular grid of equal cells make of the same density? And of the narrow peak of a formula: a von Mises–Fisher density
# (notebook 01's round peak) with a width of about 100 km?

# %%
kappa = (sphere.EARTH_RADIUS_KM / 100) ** 2
peak = sphere.from_latlon(torch.tensor(tiles.EXAMPLES[shown]).double())


def log_peak(x):
    return math.log(kappa / (2 * math.pi)) + kappa * (x.double() @ peak - 1)


regular = {}
for k in regular_levels:
    centres = healpix.centers(torch.arange(12 * 4**k), k)
    model = log_prob_at(centres.float(), shown).double()
    regular[k] = tuple(4 * math.pi * values.exp().mean().item() for values in (model, log_peak(centres)))
    print(f"regular,  {12 * 4**k:6,} cells: integral {regular[k][0]:.3f} for the tile, {regular[k][1]:.3f} for the peak")
around = torch.randn(map_samples, 3, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) / kappa**0.5
peak_map = density_map(log_peak, sphere.unit(peak + around))
print(f"adaptive, {sum(evaluated):6,} cells: integral {density.integral:.3f} for the tile")
print(f"adaptive, {len(peak_map.x):6,} cells: integral {peak_map.integral:.3f} for the peak")

# %% [markdown]
# **What was seen:** the narrow peak shows the danger of a regular grid. 768 cells find 0.29 of its probability, because all
# centres lie beside the top. 3,072 cells find 2.6 times as much as there is, because one centre happens to lie near the top.
# The adaptive map finds it all. The density of the tile has a peak as high as this one, but only a part of its probability lies there. So
# its integrals are 1.03 with 768 cells and 1.28 with 3,072 cells: here the finer grid is even worse, because one of its centres lies near the top.
#
# ## Localizability
#
# How well can an image be located? The paper's answer (section 3.4) is the **negative entropy** of its density, in bits:
#
# $$\text{localizability}(c) = \int p(x \mid c)\, \log_2 p(x \mid c)\, dx = \mathbb{E}_{x \sim p}\, \log_2 p(x \mid c) .$$
#
# The second form needs no grid. We draw samples and average their log-densities, which are computed together with the samples in one
# solution of the flow. A uniform density on an area A (in units of R², where R is the Earth's radius) has the localizability
# −log₂ A. So b bits mean "as sure as a uniform guess within an area of R² · 2⁻ᵇ", and **each bit halves the area**. Knowing nothing
# has −log₂ 4π = −3.65 bits.
#
# We use 8 steps of RK4 to save time. What that costs is printed below: for the worst of eight tiles about half of the standard error of the mean over so few samples.


# %%
def samples_with_log_prob(cond, n=samples_per_tile):
    """Samples (B, n, 3) and their log-densities (B, n) in nats."""
    noise = geo.path.noise((n,), torch.Generator().manual_seed(seed))
    times, found = schedules.time_grid(geo.schedule, 8), []
    for part in cond.split(8):
        shared_noise = noise.expand(len(part), -1, -1)
        found.append(likelihood.sample_with_log_prob(geo.velocity, geo.path, shared_noise, times, part))
    return tuple(torch.cat(parts) for parts in zip(*found, strict=True))


def in_bits(log_p):
    return log_p.mean(-1) / math.log(2)


samples, log_p = samples_with_log_prob(judged_cond)
bits = in_bits(log_p)
package_gap = (bits[:8] - geo.localizability(cond=judged_cond[:8], n=samples_per_tile, seed=seed)).abs().max().item()
standard_error = (log_p.std(-1) / math.log(2) / samples_per_tile**0.5).median().item()
print(f"{ranked} test tiles: from {bits.min():.1f} to {bits.max():.1f} bits, median {bits.median():.1f}")
print(f"the standard error by {samples_per_tile} samples is {standard_error:.2f} bits in the median")
print(f"geo.localizability uses 16 steps; the largest difference for eight tiles is {package_gap:.2f} bits")

# %% [markdown]
# Is the mean over samples really the negative entropy of the map? We compare the maps above with the samples that we drew for
# the three rates; their right log-densities were computed there.

# %%
gap = {}
print("              by samples      by the map    as sure as a uniform guess within")
for name in mapped:
    one = (sphere.LOG_UNIFORM - total[0, list(tiles.EXAMPLES).index(name)]).double() / math.log(2)
    by_samples, by_samples_error = one.mean().item(), one.std().item() / len(one) ** 0.5
    by_map = -densities[name].entropy / math.log(2)
    gap[name] = abs(by_samples - by_map) / by_samples_error
    print(f"{name:8s} {by_samples:6.2f} ± {by_samples_error:.2f} bits {by_map:10.2f} bits {6371**2 * 2**-by_map:18,.0f} km²")
print("differences in standard errors: " + ", ".join(f"{name} {value:.1f}" for name, value in gap.items()))

# %% [markdown]
# **What was seen:** the two ways agree within a few standard errors. A map costs thousands of evaluations of log p, the samples
# cost only as many as there are samples. For this one number, samples are enough.
#
# A note on units. The paper's figure 6 gives 1.75 for a picture of the Eiffel Tower and 0.47 for a beach. Its public code
# divides the mean of log₂ p by 4π. Without this division the values are 22.0 bits and 5.9 bits, which are areas of about 10 km²
# and 680,000 km². These are plausible areas. In this notebook nothing is divided.

# %%
paper_values = {"Eiffel Tower": 1.75, "beach": 0.47}
undivided = {name: value * 4 * math.pi for name, value in paper_values.items()}
for name, b in undivided.items():
    print(f"{name}: {paper_values[name]} · 4π = {b:.1f} bits, an area of {6371**2 * 2**-b:,.0f} km²")

# %% [markdown]
# **What to look for:** the upper row shows the eight most localizable of the test tiles, the lower row the eight least
# localizable. Each has its bits, and the distance of the model's answer from the true place. (The answer is the sample with the
# highest expected GeoScore, see notebook 09.) What do the tiles of a row have in common?

# %%
km = metrics.error_km(metrics.best_for_geoscore(samples), judged.x)
order = bits.argsort(descending=True)
best, worst = order[:8], order[-8:]
ends = torch.cat([best, worst])
lessons_likelihood.tiles_figure(judged.images[ends], [f"{bits[i]:.1f} bits\n{km[i]:,.0f} km" for i in ends])

# %%
median_of = {"most": km[best].median().item(), "least": km[worst].median().item()}
on_land = {"most": int(tiles.is_land(judged.x[best]).sum()), "least": int(tiles.is_land(judged.x[worst]).sum())}
for name in ("most", "least"):
    print(f"the eight {name} localizable tiles: median error {median_of[name]:,.0f} km, {on_land[name]} of 8 centres on land")

# %% [markdown]
# **What was seen:** the eight most localizable tiles lie on land, and some show a coast. The eight least localizable tiles are
# dark sea under clouds. They have −2.6 to −1.0 bits, which is little more than the −3.65 bits of knowing nothing. But two of
# the eight most localizable tiles are wrong by more than 4,000 km, and one of them is the most localizable tile of all. A
# confident model can be wrong.
#
# The next cell is to play with, if you run the notebook: choose a tile or upload one, and see its samples, its bits and the
# three best places. Choose *exact* for its density.

# %%
player = widgets.explore_density(geo, n=by_scale(64, 384, 1024), keep=True)
player

# %% [markdown]
# **What to look for:** the ocean tile without the player. The map shows 384 samples, each smoothed by a kernel of 200 km. Its title has the bits,
# and the shares of the samples that are nearest to each of the three best places (numbered circles).

# %%
player.contact_sheet()

# %% [markdown]
# ## Clouds
#
# Localizability should measure how much an image says about its place. We can test this, because we can hide a part of the same
# image. We take tiles of the seen regions and put clouds over 0, 20, 40 and 60 % of each. The place, the heading, the width and
# the light stay the same.
#
# **Predict before you run:** how many bits do clouds over 60 % of a tile cost? (One bit doubles the area.)

# %%
covers = (0.0, 0.2, 0.4, 0.6)
centres, views = tiles.draw(cloudy, "test", torch.Generator().manual_seed(7))
covered = torch.stack([tiles.render(centres.float(), replace(views, cover=torch.full((cloudy,), c))) for c in covers])
found = [samples_with_log_prob(geo.embed(images), samples_under_clouds) for images in covered]
cover_bits = torch.stack([in_bits(log_p) for _, log_p in found])  # (4, cloudy)
cover_km = torch.stack([metrics.error_km(metrics.best_for_geoscore(x), centres) for x, _ in found])
loss = (cover_bits[0] - cover_bits).double()
loss_error = loss.std(1) / cloudy**0.5
for i, c in enumerate(covers):
    fewer = f"{loss[i].mean():5.2f} ± {loss_error[i]:.2f} fewer"
    print(f"{c:4.0%} clouds: {cover_bits[i].mean():5.2f} bits, {fewer}; median error {cover_km[i].median():6,.0f} km")

# %% [markdown]
# **What to look for:** two of these tiles under more and more clouds, with their bits and the errors of their answers. Then the means
# over all tiles.

# %%
typical = loss[-1].argsort()[[len(loss[-1]) // 2, -1]]
titles = [f"{c:.0%} clouds\n{cover_bits[j, i]:.1f} bits, {cover_km[j, i]:,.0f} km" for i in typical for j, c in enumerate(covers)]
lessons_likelihood.tiles_figure(covered[:, typical].transpose(0, 1).flatten(0, 1), titles, columns=4)

# %%
lessons_likelihood.cover_figure(covers, cover_bits, cover_km)

# %% [markdown]
# **What was seen:** clouds cost bits, and the median error grows. (The printed loss has a standard error, because the tiles
# differ: on some tiles the clouds hide the one telling detail, on others there was none.) The model was never told how much
# an image says. It has learnt to give wide densities to images that say little.
#
# ## When can it be trusted?
#
# Localizability is computed from the model's density alone. It never sees the true place. If it is useful, then confident
# answers must be near. For comparison: if the true place were uniform in a disc of area R² · 2⁻ᵇ, half of the places would be
# nearer to its centre than R arccos(1 − 2⁻ᵇ/4π). The figure shows this median as a grey line. We also look at tiles of
# **held-out blocks**, parts of the Earth from which training had no tiles (notebook 05).

# %%
held_out = tiles.load("held-out", ranked_held_out)
held_out_cond = geo.embed(held_out.images)
held_out_samples, held_out_log_p = samples_with_log_prob(held_out_cond)
held_out_bits = in_bits(held_out_log_p)
held_out_km = metrics.error_km(metrics.best_for_geoscore(held_out_samples), held_out.x)


def spearman(a, b):
    """Correlation of the ranks: 1 for equal orders, −1 for opposite orders, 0 for no relation."""
    ranks = torch.stack([a.argsort().argsort(), b.argsort().argsort()]).double()
    return torch.corrcoef(ranks)[0, 1].item()


# %% [markdown]
# **What to look for:** do the errors fall along the line? Where are the orange dots, compared with the blue dots?

# %%
groups = {"seen": (bits, km), "held-out": (held_out_bits, held_out_km)}
correlation = {name: spearman(b, k) for name, (b, k) in groups.items()}
lessons_likelihood.trust_figure({f"{name}, Spearman {correlation[name]:.2f}": pair for name, pair in groups.items()})

# %%
below = {name: (k < lessons_likelihood.disc_median_km(b)).double().mean().item() for name, (b, k) in groups.items()}
quarters = [(bits[g].mean().item(), km[g].median().item()) for g in order.flip(0).tensor_split(4)]  # least localizable first
print("quarters of the seen tiles: " + "; ".join(f"{b:.1f} bits, median error {d:,.0f} km" for b, d in quarters))
for name, (b, k) in groups.items():
    print(f"{name:9s} mean {b.mean():5.2f} bits, median error {k.median():6,.0f} km, {below[name]:.0%} below the grey line")

# %% [markdown]
# **What was seen:** in seen regions, confident answers are nearer. The median error falls from 4,268 km in the least
# localizable quarter to 190 km in the most localizable quarter. 45 % of the blue dots lie below the grey line; if every density
# were a uniform disc around the answer, it would be half. Single tiles are far from the line in both directions.
#
# In held-out blocks the model is nearly as sure (3.4 bits on average, 3.5 in seen regions), but the median error is more than
# twice as large, and only 7 % of the orange dots lie below the line. So localizability says what the model believes, and its
# size can be trusted only where the training data reach.
#
# ## Regions
#
# A map is a picture. A statement is: *with a probability of 90 %, the place lies in this region, which has so many km²*. Among
# all regions of probability 90 % the smallest is the one in which the density exceeds a threshold, the **highest-density
# region** (Hyndman, 1996). On a map we find it by sorting the cells by density and adding up their probabilities.

# %%
levels = (0.5, 0.9, 0.95)
areas = {name: [density.region_area_km2(level) for level in levels] for name, density in densities.items()}
print("area in km² of" + "".join(f"{level:>14.0%}" for level in levels) + "   contains the true place")
for name, density in densities.items():
    at_truth = log_prob_at(sphere.from_latlon(torch.tensor([tiles.EXAMPLES[name]])), name).item()
    inside = [f"{level:.0%}" for level in levels if at_truth >= density.region_threshold(level)]
    print(f"{name:14s}" + "".join(f"{area:14,.0f}" for area in areas[name]) + f"   {', '.join(inside) or 'none of them'}")

# %% [markdown]
# **What to look for:** the colours go from dark to pale for the regions of 50, 90 and 95 %. Does a region have one part or several?

# %%
panels = [
    {"density": densities[name], "truth": tiles.EXAMPLES[name], "title": f"{name}: 50 % in {areas[name][0] / 1e6:.2f} million km²"}
    for name in mapped
]
lessons_likelihood.regions_figure(panels, levels)

# %% [markdown]
# **What was seen:** the regions of the coast tile have several parts, on different coasts. No single place with a radius can
# describe them.
#
# A region of 90 % is useful only if it contains the true place in nine of ten cases. A model that keeps this promise is called
# *calibrated*. To test it, we need no maps: the true place lies inside the region of 90 % if fewer than 90 % of the samples
# have a higher density than the true place. This share is called the *rank* of the true place, `metrics.hpd_rank`.
#
# **Predict before you run:** for seen regions, and for held-out blocks, in how many of 100 cases does the region of 90 %
# contain the true place?

# %%
truth_log_p = geo.log_prob(sphere.to_latlon(judged.x[:, None]), cond=judged_cond)[:, 0]
held_out_truth_log_p = geo.log_prob(sphere.to_latlon(held_out.x[:, None]), cond=held_out_cond)[:, 0]
ranks = {"seen": metrics.hpd_rank(log_p, truth_log_p), "held-out": metrics.hpd_rank(held_out_log_p, held_out_truth_log_p)}
kept = {name: {level: (rank < level).double().mean().item() for level in levels} for name, rank in ranks.items()}
for level in levels:
    print(
        f"regions of {level:.0%} contain {kept['seen'][level]:.0%} of the seen tiles, {kept['held-out'][level]:.0%} of the held-out tiles"
    )

# %%
lessons_likelihood.promises_figure(ranks)

# %% [markdown]
# **What was seen:** in seen regions the promises are kept, up to the error of so few tiles: 52, 91 and 98 %. (With 2,000 tiles notebook 09 finds small deviations: 46.7, 93.2 and 96.5 %.) In held-out blocks
# they are not kept: the region of 90 % contains 12 % of the true places. Two causes are mixed: the model has learnt that no
# tile comes from these blocks, and these tiles look different.
#
# ## Check
#
# The laws and the main claims of the text are asserted here, with some room; its other numbers are those printed above. First, what holds for any network:

# %%
assert most_grown > 10
assert most_shrunk < 0.1
assert hand_error < 1e-8
assert package_error < 1e-12
assert package_gap < by_scale(2, 0.4, 0.4)
assert rounding[1e-6]["float32"] > 500 * rounding[1e-3]["float32"]
assert rounding[1e-3]["float32"] == min(e["float32"] for h, e in rounding.items() if h != "none")
assert rounding["none"]["float32"] < 1e-5
assert all(torch.allclose(value, torch.full_like(value, k), atol=1e-9) for value, k in zip(factor.values(), (0.0, -4.0, -2.0), strict=True))
assert exact_error["float64"] < 1e-5
assert exact_error["float32"] < 1e-3
for solver, k in (("euler", 1), ("midpoint", 2), ("rk4", 4)):
    e = error["a drift, known density"][solver]
    assert abs(math.log2(e[-2] / e[-1]) - k) < 0.4
assert abs(sham["divergence"][0] - 1) < 1e-2
assert abs(sham["trace, not normalised"][0] - math.sinh(3 * s) / (3 * math.sinh(s))) < by_scale(1, 0.1, 0.1)
assert abs(sham["trace, not projected"][0] - 1) < 1e-9
assert abs(sham["divergence"][1] - share_north) < 0.02
assert triangle_gap.median() < 1e-2
assert all(abs(density.integral - 1) < by_scale(0.9, 0.02, 0.02) for density in densities.values())
assert all(abs(mean - 1) < 5 * uncertain + 0.02 for mean, uncertain in by_points.values())
assert abs(peak_map.integral - 1) < 0.02

# %% [markdown]
# Then, what holds for the shipped model:

# %%
if scale() != "smoke":
    assert default_error < 0.01
    assert 0.5 < euler_error < 2
    assert all(3e-7 < rounded < 5e-6 for _, rounded in solver_and_rounding.values())
    assert solver_and_rounding[16][1] < solver_and_rounding[16][0] / 1000
    assert abs(wrong_integral[0].min() - 0.89) < 0.02
    assert abs(wrong_integral[0].max() - 1.66) < 0.02
    assert abs(shift[0].max() - 0.46) < 0.02
    assert shift[0].min() < -0.1
    assert wrong_integral[1].max() < 0.9
    assert -3.6 < shift[1].min() < shift[1].max() < -0.7
    assert regular[3][1] < 0.5
    assert regular[4][1] > 2
    assert sum(evaluated) < 180 * 360 / 4
    assert max(gap.values()) < 5

# %%
if scale() != "smoke":
    assert median_of["most"] < median_of["least"] / 3
    assert on_land == {"most": 8, "least": 0}
    assert (km[best] > 4000).sum() == 2
    assert km[best[0]] > 4000
    assert -2.7 < bits[worst].min() < bits[worst].max() < -0.9
    assert loss[-1].mean() > 2 * loss_error[-1]
    assert cover_km[-1].median() > cover_km[0].median()
    assert correlation["seen"] < -0.4
    assert quarters[0][1] > 10 * quarters[-1][1]
    assert abs(held_out_bits.mean() - bits.mean()) < 0.3
    assert held_out_km.median() > 2 * km.median()
    assert below["held-out"] < 0.1 < 0.4 < below["seen"] < 0.5
    assert all(abs(kept["seen"][level] - level) < 0.06 for level in levels)
    assert kept["held-out"][0.9] < 0.2
print("all checks passed")

# %% [markdown]
# ## Exercises
#
# Each exercise has stages. Fill the gap marked `# your code here`, run the cell, then run the check cell below it. The solutions,
# executed, are in `solutions/07_likelihood_and_localizability.ipynb`.
#
# ### Exercise 1 · A flow to both poles
#
# Let f(y) = 2⟨y, n⟩ n, where n is the North Pole, and let the velocity on the sphere be its tangent part. It points away from
# the equator, towards the nearer pole.
#
# **Stage 1a.** Find the divergence of this field on paper, as a function of the height z. Use div v = Σ ⟨eᵢ, ∂f/∂eᵢ⟩ − 2⟨x,
# f(x)⟩ over two tangent vectors. (Help: ⟨e₁, n⟩² + ⟨e₂, n⟩² + z² = 1, because e₁, e₂ and x are perpendicular to each other.)


# %%
def to_both_poles(x, t, cond=None):
    """Tangent part of 2⟨x, n⟩ n at x (..., 3)."""
    return sphere.to_tangent(x, 2 * x[..., 2:] * NORTH.to(x).expand_as(x))


def both_divergence(z):
    """Divergence of `to_both_poles` at the height z."""
    # your code here


# %%
def check_1a():
    x = sphere.unit(sphere.fibonacci_grid(200).double())[None]
    if both_divergence(x[..., 2]) is None:
        return "Exercise 1a is still to be solved"
    error = (both_divergence(x[..., 2]) - likelihood.divergence(to_both_poles, path, x, 0.0)[1]).abs().max()
    assert error < 1e-9, f"the largest deviation from likelihood.divergence is {error:.2f}"
    return "Exercise 1a: right"


print(check_1a())

# %% [markdown]
# **Stage 1b.** What is the trace of the Jacobian of f in R³? If this trace takes the place of the divergence, which number is
# the integral of the "density" at time 1? Answer with pen and paper.

# %%
sham_integral = None  # your code here: a number

# %%
*_, (_, traced) = samplers.integrate(
    lambda x, t: (to_both_poles(x, t), trace(lambda y: 2 * y[..., 2:] * NORTH, x)), path, grid, even_times(8).flip(0), "rk4"
)
measured = 4 * math.pi * (sphere.LOG_UNIFORM + traced).exp().mean().item()
if sham_integral is None:
    print("Exercise 1b is still to be solved")
else:
    print(f"Exercise 1b: {'right' if abs(sham_integral - measured) < 1e-3 else 'not yet'}, the measured integral is {measured:.4f}")

# %% [markdown]
# **Stage 1c.** How much probability lies within |z| > 0.9 at time 1? Compute it from the density, with `likelihood.log_prob` on
# the points of `grid` (1, n, 3). The check compares it with samples.

# %%
polar_mass = None  # your code here: a number

# %%
polar_share = (samplers.sample(to_both_poles, path, grid, even_times(32))[..., 2].abs() > 0.9).double().mean().item()
if polar_mass is None:
    print("Exercise 1c is still to be solved")
else:
    print(f"Exercise 1c: {'right' if abs(polar_mass - polar_share) < 0.02 else 'not yet'}; by samples {polar_share:.3f}")

# %% [markdown]
# ### Exercise 2 · Which density is wrong?
#
# Here are 4,000 samples, and three formulas that claim to be their density. One is right. **Stage 2a:** compute the integral of
# each over the sphere, on an even grid. **Stage 2b:** compare the probability of the northern half (z > 0) by the formula with
# the share of the samples there, in standard errors √(P (1 − P) / 4000).


# %%
def draw_peak(kappa, n):
    """n points of the von Mises–Fisher density around the North Pole, and their log-densities."""
    uniforms, kappa = torch.rand(n, 2, generator=torch.Generator().manual_seed(9)).double(), torch.tensor(kappa).double()
    x = vmf.sample(uniforms, NORTH, kappa)
    return x, vmf.log_prob(x, NORTH, kappa)


drawn, _ = draw_peak(1.0, 4000)
formulas = {
    "A": lambda x: x[..., 2] - math.log(4 * math.pi * math.sinh(1)),
    "B": lambda x: x[..., 2] - 1 - math.log(2 * math.pi),
    "C": lambda x: 0.5 * x[..., 2] - math.log(8 * math.pi * math.sinh(0.5)),
}
even = sphere.unit(sphere.fibonacci_grid(5000).double())


# %%
def integral_of(log_p):
    """Integral over the sphere of a log-density, a function of points (n, 3)."""
    # your code here


def north_deviation(log_p):
    """Probability of z > 0 by the density minus the share of `drawn` there, in standard errors."""
    # your code here


# %%
verdict = {"A": None, "B": None, "C": None}  # your code here: True or False for each formula


# %%
def check_2():
    if integral_of(formulas["A"]) is None or north_deviation(formulas["A"]) is None:
        return "Exercise 2 is still to be solved"
    assert abs(integral_of(lambda x: 0 * x[..., 2]) - 4 * math.pi) < 1e-3, "the integral of e⁰ is the area 4π"
    far = north_deviation(lambda x: x[..., 2] * 0 + sphere.LOG_UNIFORM)
    assert abs(far - (0.5 - (drawn[:, 2] > 0).double().mean()) / math.sqrt(0.25 / 4000)) < 1, "test the uniform density by hand"
    for name, log_p in formulas.items():
        print(f"{name}: integral {integral_of(log_p):.3f}, deviation in the north {north_deviation(log_p):+.1f} standard errors")
    good = {name: abs(integral_of(p) - 1) < 0.01 and abs(north_deviation(p)) < 3 for name, p in formulas.items()}
    return f"Exercise 2: {'right' if verdict == good else 'the verdict does not follow from these numbers yet'}"


print(check_2())

# %% [markdown]
# ### Exercise 3 · Localizability of a round peak
#
# The von Mises–Fisher density with the concentration κ around μ is p(x) = κ / (4π sinh κ) · exp(κ μ·x). The mean of μ·x is coth
# κ − 1/κ.
#
# **Stage 3a.** Write its localizability in bits.


# %%
def vmf_bits(kappa):
    """Localizability in bits of a von Mises–Fisher density; kappa: a number from 0.01 to 500."""
    # your code here


# %%
def check_3a():
    if vmf_bits(1.0) is None:
        return "Exercise 3a is still to be solved"
    assert abs(vmf_bits(0.01) + math.log2(4 * math.pi)) < 1e-3, "with κ → 0 it must be that of the uniform density"
    for kappa in (1.0, 30.0, 400.0):
        by_samples = draw_peak(kappa, 20_000)[1].mean().item() / math.log(2)
        assert abs(vmf_bits(kappa) - by_samples) < 0.05, f"κ = {kappa}: {vmf_bits(kappa):.3f}; samples say {by_samples:.3f}"
    return "Exercise 3a: right"


print(check_3a())

# %% [markdown]
# **Stage 3b.** A narrow peak (large κ) looks like a normal distribution in the plane. Its localizability is log₂(κ / 2πe), and
# its distance r from the middle (in units of R) has P(r > ρ) = exp(−κ ρ² / 2). Write the area of its smallest region of a given
# probability, as a function of its **bits**, in km².


# %%
def peak_area_km2(bits, level):
    """Area in km² of the smallest region of probability `level` of a narrow round peak with this localizability."""
    # your code here


# %%
def check_3b():
    if peak_area_km2(8.0, 0.5) is None:
        return "Exercise 3b is still to be solved"
    log_p = draw_peak(3000.0, 20_000)[1][None]
    for level in (0.5, 0.9):
        expected = metrics.region_area_km2(log_p, level).item()
        found = peak_area_km2(log_p.mean().item() / math.log(2), level)
        assert abs(found / expected - 1) < 0.05, f"{level:.0%}: {found:,.0f} km²; samples say {expected:,.0f} km²"
    return "Exercise 3b: right"


print(check_3b())

# %% [markdown]
# **Stage 3c.** Are the densities of the tiles round peaks? For each test tile with more than 2 bits, divide the area of its
# region of 50 % (by samples, `metrics.region_area_km2(log_p, 0.5)`) by that of a round peak with the same bits. Do the same for
# 90 %. What do the two medians say about the shape of the densities?

# %%
ratios = {0.5: None, 0.9: None}  # your code here: for each level a tensor of ratios, one for each tile with more than 2 bits

# %%
if any(ratio is None for ratio in ratios.values()):
    print("Exercise 3c is still to be solved")
else:
    print("Exercise 3c: median ratios " + ", ".join(f"{ratio.median():.2f} for {level:.0%}" for level, ratio in ratios.items()))

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
