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
# # 13 · What the paper says and what its code computes
#
# **You will learn**
# 1. where the text of *Around the World in 80 Timesteps*, its public code and arithmetic differ, shown by running each;
# 2. what each difference does to a number that you may want to compare with yours;
# 3. which of two numbers geoflow computes, and how to get the other.
#
# | Needs | Minutes (laptop / GPU) | Produces |
# |---|---|---|
# | notebooks 03, 07 and 08 | 2 / not needed | figures only |
#
# Every published code base of this size has such places; ours had, and surely has, its own. The method is sound: in notebook 05
# you saw it work. We write this down for those who compare numbers, and for the authors, whose open code and weights made it
# possible to check at all. The code is `diff-plonk` 0.4; everything below is computed here from formulas.

# %% tags=["parameters"]
from geoflow.settings import by_scale

seed = 0
training_steps = by_scale(5, 800, 3000)  # of the three small networks
cells_at_most = by_scale(1000, 20_000, 20_000)  # of the grid on which densities are integrated
points = by_scale(200, 4000, 10_000)  # of the comparisons with random points

# %%
import math

import matplotlib.pyplot as plt
import torch

from geoflow import likelihood, losses, metrics, paths, plonk, samplers, schedules, sphere
from geoflow.density import density_map
from geoflow.velocity import VelocityTransformer
from geoflow.vmf import Mixture

torch.manual_seed(seed)
BLUE, ORANGE, RED, GREEN, GREY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#7f8c99"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## 1 · The likelihood of a flow on the sphere
#
# **Text** (proposition 1): along the flow, log p changes by −div v. On the sphere that is the Riemannian divergence: two
# derivatives, along two directions of the tangent plane, of a field that is tangent.
#
# **Code**: the network's output is used as it is, neither projected to the tangent plane nor constant along rays; the
# solution is not kept on the sphere; and the trace of the 3 × 3 Jacobian in R³ is integrated. That is a change of variables in
# R³, started from a value, 1/4π, that is no density there.
#
# To compare fairly we train a small network *as the code does*: no projection anywhere. The data are three von Mises–Fisher blobs,
# whose density we know.

# %%
centers = sphere.from_latlon(torch.tensor([[48.0, 2.0], [-10.0, -60.0], [35.0, 110.0]]))
truth = Mixture(torch.tensor([[0.5, 0.3, 0.2]]).log(), centers[None], torch.tensor([[200.0, 30.0, 80.0]]))


def batch(n, generator):
    return truth.sample(torch.rand(1, n, 3, generator=generator))[0]


def trained(path):
    torch.manual_seed(seed)
    network = VelocityTransformer(cond_dim=0, dim=64, depth=3, fourier=16, time_scale=20.0, tangent=False)
    optimizer = torch.optim.AdamW(network.parameters(), lr=4e-3, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, training_steps)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(training_steps):
        loss = losses.flow_matching_loss(network, path, batch(512, generator), schedule=schedules.by_name("sigmoid"), generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return network.eval()


sphere_path, diffusion_path = paths.by_name("riemannian"), paths.by_name("diffusion")
network, flow_network = trained(sphere_path), trained(paths.by_name("flow"))

# %% [markdown]
# Both log-densities of the same network, on a grid of the sphere that is finer where the mass is (notebook 07). A density
# integrates to one.
#
# *What to look for:* the integrals, and in the plot the distance from the diagonal. Horizontal is the density of the data, which the
# network has learnt nearly, not exactly.

# %%
times = schedules.time_grid(schedules.by_name("sigmoid"), by_scale(4, 32, 64))
drawn = samplers.sample(network, sphere_path, sphere.uniform((1, 8192), torch.Generator().manual_seed(seed)), times)[0]
grid = density_map(lambda x: likelihood.log_prob(network, sphere_path, x[None], times)[0], drawn, max_cells=cells_at_most)
values = {
    "data": truth.log_prob(grid.x[None])[0],
    "Riemannian": grid.cell_log_density,
    "code": plonk.ambient_trace_log_prob(network, grid.x.float()[None])[0].double(),
}
integral = {name: float((grid.area * value.exp()).sum()) for name, value in values.items()}
known, right, code = values.values()
variation = {name: float((grid.area * (values[name].exp() - known.exp()).abs()).sum()) / 2 for name in ("Riemannian", "code")}
fig, ax = plt.subplots(figsize=(3.8, 3.4), layout="constrained")
where = known > -6
ax.plot([-6, 4], [-6, 4], color=GREY, lw=0.8, ls=":")
ax.scatter(known[where], code[where], s=2, color=RED, label=f"ambient trace, ∫ = {integral['code']:.2f}")
ax.scatter(known[where], right[where], s=2, color=BLUE, label=f"Riemannian, ∫ = {integral['Riemannian']:.2f}")
ax.set(xlabel="log-density of the data (nats)", ylabel="log-density of the model (nats)")
ax.legend()
plt.show()
print("integrals", {name: f"{value:.3f}" for name, value in integral.items()})
print("total variation from the data", {name: f"{value:.3f}" for name, value in variation.items()})
difference = (code - right)[where]
print(f"code − Riemannian: mean {difference.mean():+.2f}, root mean square {difference.square().mean().sqrt():.2f} nats")

# %% [markdown]
# *What was seen:* the Riemannian density integrates to one, and its distance from the data's is what the small network has not learnt.
# The ambient "density" of the same network integrates to a sixth more, and single values are off by 0.7 nats (root mean
# square), up or down. How far depends on the network: the less its output is tangent and constant along rays, the more.
#
# In geoflow: `Geolocator.log_prob` is the density; `plonk.ambient_trace_log_prob` is the code's number, for comparison. The published
# negative log-likelihoods of Riemannian models are of the second kind.
#
# ## 2 · The likelihood of diffusion
#
# **Text**: the probability-flow ODE. With a network that predicts the noise, dx/dt = (x − ε̂/√(1−t)) / 2t in our time (0 noise,
# 1 data). **Code**: the factor 1/√(1−t), the paper's 1/√κ, is missing: (x − ε̂) / 2t.
#
# For Gaussian data the exact noise prediction is known, and so is the density. *What to look for:* the curves are densities as a
# function of the distance from the centre.

# %%
SIGMA = 0.3


def exact_noise(x, t, cond=None):
    """E[x₀ | x_t = x] for data N(0, σ² I)."""
    t = torch.as_tensor(t, dtype=x.dtype)
    return (1 - t).sqrt() * x / (t * SIGMA**2 + 1 - t)


class WithoutTheFactor:
    """The code's ODE, in our variable φ with t = sin² φ: dx/dφ = cos φ (x − ε̂) / sin φ."""

    tangent = None

    def __init__(self, noise):
        self.noise = noise

    def __call__(self, x, t, cond=None):
        t = torch.as_tensor(t, dtype=x.dtype).clamp(paths.Diffusion.START, 1)
        return (1 - t).sqrt() * (x - self.noise(x, t, cond)) / t.sqrt()


radius = torch.linspace(0.0, 1.5, 61, dtype=torch.float64)
ray = torch.stack([radius, 0 * radius, 0 * radius], -1)[None]
fine = schedules.time_grid(schedules.by_name("cosine"), 128).double()
fields = {"exact": diffusion_path.velocity(exact_noise), "without 1/√κ": WithoutTheFactor(exact_noise)}
density = {name: likelihood.log_prob(field, diffusion_path, ray, fine)[0].exp() for name, field in fields.items()}
closed = (-(radius**2) / (2 * SIGMA**2)).exp() / (SIGMA * math.sqrt(2 * math.pi)) ** 3
fig, ax = plt.subplots(figsize=(5, 2.6), layout="constrained")
ax.plot(radius, closed, color="black", lw=3, alpha=0.3, label="closed form")
for (name, values), color in zip(density.items(), (BLUE, RED), strict=True):
    ax.plot(radius, values, color=color, label=name)
ax.set(xlabel="|x|", ylabel="density in R³", yscale="log", ylim=(1e-6, 10))
ax.legend()
plt.show()
volume = {name: float(torch.trapezoid(4 * math.pi * radius**2 * values, radius)) for name, values in density.items()}
print("∫ over |x| < 1.5", {name: f"{value:.3f}" for name, value in volume.items()})

# %% [markdown]
# *What was seen:* with the factor the ODE reproduces the closed form. Without it, the curve has another shape, and a quarter of the
# probability is missing within |x| < 1.5. So the published likelihoods of diffusion models are not those of the models.
#
# ## 3 · Comparing R³ and S²
#
# **Text**: likelihoods of R³ and S² methods cannot be compared, and the table prints both. R³ densities of data that lie on a sphere
# have no upper bound: the thinner the model's shell, the higher. They *can* be compared, as densities on the sphere:
# p(u) = ∫ p(ru) r² dr, notebook 08. And "bits per dimension" divides by 3 also where the space has two dimensions; the uniform
# density has 1.22 in that unit.

# %%
print(
    f"uniform: {sphere.LOG_UNIFORM:.4f} nats; bits ÷ 3: {-sphere.LOG_UNIFORM / math.log(2) / 3:.4f}; bits ÷ 2: {-sphere.LOG_UNIFORM / math.log(2) / 2:.4f}"
)

# %% [markdown]
# ## 4 · The schedule's constants
#
# **Text** (section 3.1): the skewed sigmoid with α = −3, β = 7 spends more steps near the data. **Code**: from −7 to 3. Only the code's
# does what the text says. *What to look for:* the noise level κ; where is it low for long?

# %%
s = torch.linspace(0, 1, 101)
shapes = {"code: −7 → 3": schedules.sigmoid(-7, 3)(s), "as printed: −3 → 7": schedules.sigmoid(-3, 7)(s)}
fig, ax = plt.subplots(figsize=(4.2, 2.6), layout="constrained")
for (name, t), color in zip(shapes.items(), (BLUE, RED), strict=True):
    ax.plot(s, 1 - t, color=color, label=name)
ax.set(xlabel="progress of the sampler (noise → data)", ylabel="noise level κ")
ax.legend()
plt.show()
half = {name: float((1 - t < 0.1).float().mean()) for name, t in shapes.items()}
print({name: f"{share:.0%} of the steps at κ < 0.1" for name, share in half.items()})

# %% [markdown]
# *What was seen:* with the code's constants half of the steps go to the last tenth of the noise, where places are decided;
# with the printed ones one in eight. geoflow's `skewed-sigmoid` is the code's.
#
# ## 5 · The average of the weights
#
# **Text**: an exponential moving average (EMA) with decay 0.999. **Code**: the average is moved by `lerp(weights, 0.999)`, which
# keeps 0.1 % of itself: the "average" is the present weights. *What to look for:* what either rule makes of a noisy sequence.

# %%
noisy = torch.cumsum(0.02 * torch.randn(3000), 0) * 0.2 + torch.randn(3000)
average, inverted, follow = [0.0], [0.0], []
for weight in noisy.tolist():
    average.append(0.999 * average[-1] + 0.001 * weight)
    inverted.append(0.001 * inverted[-1] + 0.999 * weight)
fig, ax = plt.subplots(figsize=(5, 2.4), layout="constrained")
ax.plot(inverted[1:], color=RED, lw=0.5, label="as in the code")
ax.plot(average[1:], color=BLUE, label="decay 0.999")
ax.set(xlabel="training step", ylabel="one weight")
ax.legend()
plt.show()
tail = {"code": torch.tensor(inverted[-1000:]).std().item(), "average": torch.tensor(average[-1000:]).std().item()}
print({name: f"deviation over the last 1,000 steps {value:.3f}" for name, value in tail.items()})

# %% [markdown]
# *What was seen:* no averaging takes place. The published weights are good all the same: the learning rate falls to zero at the end,
# which averages in its own way.
#
# ## 6 · Points off the sphere
#
# Four small things about coordinates. First, the pipeline starts a Riemannian flow from a *normal* vector, not from a point of
# the sphere; second, steps are taken in a straight line and projected back, not along geodesics. How far apart are the two?

# %%
x = sphere.uniform(points, torch.Generator().manual_seed(seed)).double()
east, _ = sphere.tangent_basis(x)
gaps = {}
for steps in (4, 16, 250):
    v = math.pi / 2 / steps * east  # a quarter of the Earth in that many steps
    gaps[steps] = float(1000 * sphere.distance_km(sphere.unit(x + v), sphere.exp(x, v)).mean())
print({f"{steps} steps": f"{gap:,.0f} m per step" for steps, gap in gaps.items()})

# %% [markdown]
# *What was seen:* at the default 250 steps it does not matter; at four it does.
#
# Third, samplers of diffusion run in half precision. *What to look for:* how far a place moves when its unit vector is rounded.

# %%
rounding = {}
for name, dtype in (("float32", torch.float32), ("float16", torch.float16), ("bfloat16", torch.bfloat16)):
    km = sphere.distance_km(sphere.unit(x.to(dtype).double()), x)
    rounding[name] = float(km.median())
    print(f"{name:9s} median {km.median():9.5f} km, largest {km.max():9.5f} km")

# %% [markdown]
# *What was seen:* bfloat16 coordinates are kilometres coarse. Table 1 has diffusion at 11 % within 25 km, against 22 to 24 % for
# the flows, which run in float32; this may be a part of it. geoflow keeps coordinates in float32 whatever the network runs in.
#
# Fourth, R³ samples are read as places without bringing them to the sphere: latitude = arcsin z. A sample of radius r at latitude φ is
# read at arcsin(r sin φ): moved along the meridian, and without a value, NaN and dropped from the means, if |z| > 1. How far does
# that move the samples of our small R³ flow?

# %%
flow_path = paths.by_name("flow")
noise = flow_path.noise((1, points), torch.Generator().manual_seed(seed))
for end in plonk.trajectory(flow_network, flow_path, noise, schedules.time_grid(schedules.by_name("skewed-sigmoid"), 250)):
    pass
radii, z = end[0].norm(dim=-1), end[0, :, 2]
lost = float((z.abs() > 1).double().mean())
read = torch.stack([z.asin(), torch.atan2(end[0, :, 1], end[0, :, 0])], -1).rad2deg()[z.abs() <= 1]
moved = sphere.distance_km(sphere.from_latlon(read), sphere.unit(end[0][z.abs() <= 1]))
print(
    f"radii: 90 % from {radii.quantile(0.05):.3f} to {radii.quantile(0.95):.3f}; NaN {lost:.2%}; moved by {moved.median():.0f} km in the median, 95 % by less than {moved.quantile(0.95):.0f} km"
)

# %% [markdown]
# *What was seen:* 6 km in the median for this small network, more than 50 km for one sample in twenty. It matters for accuracies
# within 25 km. (DDIM's samples cannot be NaN: its predictions are clamped to a cube, whose corners have radius √3.)
#
# ## 7 · Counting images
#
# With one GPU, the evaluation loader drops the last partial batch and repeats the first ones. 4,536 images at batch 4,096 are scored as
# 8,192 rows of 4,096 images: every accuracy is a multiple of 1/8192, twice over the same half, and 440 images are never seen. A
# public re-run of the released YFCC model reports accuracies of exactly that kind.

# %%
for accuracy in (32.62, 43.75, 59.62, 75.06):
    rows = round(accuracy / 100 * 8192)
    print(f"{accuracy} % ≈ {rows}/8192 = {100 * rows / 8192:.4f} %")

# %% [markdown]
# `geoflow.evaluate` scores every image once and asserts it; NaN counts as a miss, and is reported.
#
# ## 8 · Precision, recall, density, coverage in chunks
#
# **Code**: the four numbers are computed on 20 consecutive chunks and averaged. They depend on the number of points: with fewer, the
# spheres around them are larger. *What to look for:* two sets from the same distribution should have density 1 and, for k = 3,
# coverage 1 − 1/2³ = 0.875.

# %%
generator = torch.Generator().manual_seed(seed)
real, fake = batch(points, generator), batch(points, generator)
shifted = sphere.unit(fake + 0.03)
for name, other in (("same distribution", fake), ("moved by 300 km", shifted)):
    whole, chunked = metrics.prdc(real, other), metrics.prdc(real, other, chunks=20)
    print(f"{name:18s} whole   " + ", ".join(f"{key} {value:.3f}" for key, value in whole.items()))
    print(f"{'':18s} chunked " + ", ".join(f"{key} {value:.3f}" for key, value in chunked.items()))
whole, chunked = metrics.prdc(real, shifted), metrics.prdc(real, shifted, chunks=20)

# %% [markdown]
# *What was seen:* whole sets have the values that theory gives. In chunks precision and recall are lower, since 200 points draw a
# rougher picture than 4,000. State the number of points with such numbers, and compare only equal ones.
#
# ## 9 · Two constants
#
# The score of a uniform guess, which opens the tables, has a closed form. Mean distance: a quarter of the circumference. GeoScore:
# E exp(−d/1492.7 km), with the density sin(d/R)/2R of distances.

# %%
d = torch.linspace(0, math.pi * 6371.0088, 200_001, dtype=torch.float64)
weight = torch.sin(d / 6371.0088) / (2 * 6371.0088)
expected_km = float(torch.trapezoid(d * weight, d))
expected_score = float(torch.trapezoid(5000 * torch.exp(-d / 1492.7) * weight, d))
print(f"mean distance {expected_km:,.1f} km (table 1: 10,052), GeoScore {expected_score:.1f} (table 1: 131)")

# %% [markdown]
# And localizability (section 3.4) is the negative entropy ∫ p log₂ p in bits; the code divides it by 4π. Figure 6's values only make sense
# with that: "1.75" for the Eiffel Tower is 22 bits, an area of

# %%
for label, value in (("Eiffel Tower", 1.75), ("beach", 0.47)):
    bits = value * 4 * math.pi
    print(f"{label:13s} {value} · 4π = {bits:4.1f} bits: an effective area of {2**-bits * 6371.0088**2:,.0f} km²")

# %% [markdown]
# `Geolocator.localizability` is in bits, without that factor.
#
# ## What else we noticed
#
# * The main text counts 6 blocks; supplement, code and weights have 12.
# * Condition dropout sets the caller's embeddings to zero in place; noise on the sphere ignores the seed.
# * The pipeline's likelihood takes the formula for S² for `_flow` and `_diffusion` models as well.
# * Table A's guided likelihood (33.1) cannot come from the code, where guidance is 0 in likelihoods.
# * City labels without a sub-region can never match, so city accuracies have a ceiling.
# * Baselines (von Mises–Fisher) are scored on random samples, not on modes.
#
# ## Check

# %%
assert half["code: −7 → 3"] > 0.35 > 0.2 > half["as printed: −3 → 7"]
assert tail["code"] > 5 * tail["average"]
assert gaps[250] < 10 < gaps[4] / 100
assert rounding["bfloat16"] > 1000 * rounding["float32"]
assert abs(volume["exact"] - 1) < 0.01
assert abs(volume["without 1/√κ"] - 1) > 0.05
assert abs(expected_km - 10_007.5) < 1
assert abs(expected_score - 130.1) < 0.1
if by_scale(False, True, True):
    assert abs(integral["data"] - 1) < 0.01
    assert abs(integral["Riemannian"] - 1) < 0.01
    assert abs(integral["code"] - 1) > 0.05
    assert variation["code"] > variation["Riemannian"]
    assert 5 < moved.median() < 100
    assert abs(whole["precision"] - chunked["precision"]) > 0.01
print("all checks passed")

# %% [markdown]
# ## References
#
# * N. Dufour, D. Picard, V. Kalogeiton, L. Landrieu, *Around the World in 80 Timesteps*, CVPR 2025, arXiv 2412.06781, and the package
#   `diff-plonk` 0.4.
# * Y. Song et al., *Score-Based Generative Modeling through Stochastic Differential Equations*, ICLR 2021, arXiv 2011.13456: the
#   probability-flow ODE.
# * E. Mathieu, M. Nickel, *Riemannian Continuous Normalizing Flows*, NeurIPS 2020, arXiv 2006.10605: the change of variables on
#   manifolds.
# * M. F. Naeem et al., *Reliable Fidelity and Diversity Metrics for Generative Models*, ICML 2020, arXiv 2002.09797: density and
#   coverage.
