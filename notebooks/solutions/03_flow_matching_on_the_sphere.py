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
# # 03 · Flow matching on the sphere: solutions
#
# **You will learn** how the exercises of notebook 03 can be solved. Try them first. The check cells are those of the notebook.
#
# | Needs | Time to read | Time to run (laptop / GPU) | Produces |
# |---|---|---|---|
# | notebook 03 | 15 minutes | 1 minute / not needed | figures only |
#
# Words are explained in notebook 03 and in the [glossary](../GLOSSARY.md).

# %% tags=["parameters"]
from geoflow.runtime import by_scale

seed = 0
train_steps = by_scale(150, 1_500, 6_000)
grid_points = by_scale(1_000, 2_000, 4_000)

# %%
import math

import torch
from torch import nn

from geoflow import likelihood, paths, sphere
from geoflow.viz import lessons_sphere

path = paths.RiemannianFlow()
_ = torch.manual_seed(seed)

# %% [markdown]
# ## Exercise 1 · The exact field
#
# **Stage 1a.** A uniform noise point lies at a distance in [θ, θ + dθ] from x₁ with probability sin θ dθ / 2. At time t it has
# come closer, to r = (1 − t) θ. It now lies on the ring of radius r and width dr = (1 − t) dθ, which has the area 2π sin r dr.
# Probability per area is
#
# $$p(x_t \mid x_1) = \frac{\sin\theta\; d\theta / 2}{2\pi \sin r\; dr} = \frac{\sin\theta}{4\pi\,(1 - t)\sin r}, \qquad \theta = \frac{r}{1 - t} < \pi .$$
#
# In code, we write sin θ = θ sinc(θ/π) with `torch.sinc(x)` = sin(πx)/(πx). Then θ/r = 1/(1 − t) can be cancelled, and r = 0 makes
# no trouble.


# %%
def conditional_density(r, t):
    """Density of x_t at the distance r from the example x₁, for a time t < 1. r: (...) → (...)."""
    theta = r / (1 - t)
    ratio = torch.sinc(theta / math.pi) / torch.sinc(r / math.pi)  # (sin θ / θ) / (sin r / r)
    return torch.where(theta < math.pi, ratio, 0.0) / (4 * math.pi * (1 - t) ** 2)


# %%
def check_1a():
    r = (torch.arange(20_000, dtype=torch.float64) + 0.5) / 20_000 * math.pi
    if conditional_density(r, 0.3) is None:
        return "Exercise 1a is still to be solved"
    for t in (0.0, 0.3, 0.8):
        total = (2 * math.pi * r.sin() * conditional_density(r, t)).mean() * math.pi
        assert abs(total - 1) < 0.001, f"at t = {t} the integral over the sphere is {total:.3f}; expected 1"
    assert abs(conditional_density(r, 0.0) * 4 * math.pi - 1).max() < 1e-6, "at t = 0 the density must be uniform"
    return "Exercise 1a: right"


print(check_1a())

# %% [markdown]
# **Stage 1b.** On the path to xᵢ the velocity at x is log_x(xᵢ)/(1 − t): the point must go the rest of the way in the rest of the time.
# By Bayes' rule the probability that x belongs to xᵢ is proportional to the density of stage 1a.


# %%
def exact_velocity(examples, x, t):
    """Mean velocity at x (n, 3) and time t < 1 for examples (E, 3): (n, 3)."""
    E, n = len(examples), len(x)
    to_each = sphere.log(x[:, None].expand(n, E, 3), examples.expand(n, E, 3))  # (n, E, 3)
    weight = conditional_density(to_each.norm(dim=-1), t)
    weight = weight / weight.sum(-1, keepdim=True)
    return (weight[..., None] * to_each).sum(-2) / (1 - t)


# %%
def check_1b():
    g = torch.Generator().manual_seed(3)
    examples = sphere.unit(sphere.uniform(12, g).double())
    index = torch.randint(12, (20_000,), generator=g)
    x1, x0 = examples[index], sphere.unit(sphere.uniform(20_000, g).double())
    for t in (0.3, 0.7):
        at = path.sample(x0, x1, torch.full((20_000,), t, dtype=torch.float64))
        v = exact_velocity(examples, at.x_t, t)
        if v is None:
            return "Exercise 1b is still to be solved"
        own = at.x_t[index == 0]  # points on the way to the first example
        alone = exact_velocity(examples[:1], own, t) - sphere.log(own, examples[:1].expand_as(own)) / (1 - t)
        assert alone.abs().max() < 1e-6, "with one example the answer must be log_x(x₁)/(1 − t)"
        product = ((at.target - v) * v).sum(-1)
        errors = product.mean() / (product.std() / math.sqrt(20_000))
        assert abs(errors) < 4, f"at t = {t}: the mean of ⟨u − v, v⟩ is {errors:.1f} standard errors away from 0"
    return "Exercise 1b: right"


print(check_1b())

# %% [markdown]
# **Stage 1c.** The density of the flow up to the time 0.3 is known in two ways: by the change of variables along the field, and as the
# mean of the twelve conditional densities. Both must integrate to 1, and they must agree point by point.

# %%
examples = sphere.unit(sphere.uniform(12).double())
stop, grid = 0.3, sphere.unit(sphere.fibonacci_grid(grid_points).double())


def field(x, t, cond=None):
    return exact_velocity(examples, x.reshape(-1, 3), float(t)).reshape(x.shape)


flowed = likelihood.log_prob(field, path, grid[None], torch.linspace(0, stop, 17))[0]
exact_mass = 4 * math.pi * flowed.exp().mean().item()
if exact_mass is None:
    print("Exercise 1c is still to be solved")
else:
    print(f"Exercise 1c: {'right' if abs(exact_mass - 1) < 0.02 else 'not yet'}, the integral is {exact_mass:.4f}")

# %%
formula = conditional_density(sphere.distance(grid[:, None], examples), stop).mean(-1)
formula_mass = 4 * math.pi * formula.mean().item()
median_gap = (flowed - formula.log()).abs().median().item()
print(f"integral of the mean of the conditional densities: {formula_mass:.4f}")
print(f"median difference of the two log-densities: {median_gap:.1e} nats")

# %% [markdown]
# The two agree. As t → 1 the density concentrates on the twelve examples: as in the plane, the exact field only copies its examples.
#
# ## Exercise 2 · A flow in degrees
#
# **Stage 2a.** The path of notebook 02:


# %%
def flat_path(p0, p1, t):
    """Point and velocity at time t of the straight line from p0 to p1. p0, p1: (n, 2); t: (n, 1)."""
    return (1 - t) * p0 + t * p1, p1 - p0


# %%
def check_2a():
    p0, p1, t, h = torch.randn(9, 2), torch.randn(9, 2), torch.rand(9, 1), 1e-2
    if flat_path(p0, p1, t) is None:
        return "Exercise 2a is still to be solved"
    torch.testing.assert_close(flat_path(p0, p1, 0 * t)[0], p0)
    torch.testing.assert_close(flat_path(p0, p1, 0 * t + 1)[0], p1)
    step = flat_path(p0, p1, t + h)[0] - flat_path(p0, p1, t)[0]
    torch.testing.assert_close(step / h, flat_path(p0, p1, t)[1], atol=1e-3, rtol=1e-3)
    return "Exercise 2a: right"


print(check_2a())

# %% [markdown]
# **Stage 2b.** We need the checkerboard of notebook 03 and a network like the one there, with two coordinates in place of three.

# %%
SECTORS, BANDS, SHIFT = 6, 4, 30.0  # SHIFT: degrees by which the sectors are turned


def field_of(x):
    """Number of the field of each point (..., 3), from 0 in the south to 23 in the north."""
    lon = sphere.to_latlon(x)[..., 1]
    sector = ((lon + 180 + SHIFT) % 360 / 360 * SECTORS).long().clamp(max=SECTORS - 1)
    band = ((x[..., 2] + 1) / 2 * BANDS).long().clamp(max=BANDS - 1)
    return band * SECTORS + sector


def on_board(x):
    """Whether each point (..., 3) lies on a dark field."""
    return (field_of(x) // SECTORS + field_of(x) % SECTORS) % 2 == 0


def draw_data(n, generator=None):
    x = sphere.uniform(int(2.1 * n) + 200, generator)
    return x[on_board(x)][:n]


# %%
class Flat(nn.Module):
    """(p (n, 2), t (n, 1)) → velocity (n, 2)."""

    def __init__(self, width=128, waves=64):
        super().__init__()
        self.register_buffer("frequencies", 4.0 * torch.randn(2, waves))
        sizes = [2 + 2 * waves + 1, width, width, width]
        hidden = [layer for a, b in zip(sizes[:-1], sizes[1:], strict=True) for layer in (nn.Linear(a, b), nn.SiLU())]
        self.net = nn.Sequential(*hidden, nn.Linear(width, 2))

    def forward(self, p, t):
        wave = p @ self.frequencies
        return self.net(torch.cat([p, wave.cos(), wave.sin(), t], -1))


UNIT = torch.tensor([90.0, 180.0])  # degrees of latitude and longitude that are one unit of the plane

# %%
flat = Flat()
optimizer = torch.optim.Adam(flat.parameters(), lr=4e-3)
decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, train_steps)
for _ in range(train_steps):
    p1 = sphere.to_latlon(draw_data(512)) / UNIT
    p0, t = torch.randn(len(p1), 2), torch.rand(len(p1), 1)
    p_t, target = flat_path(p0, p1, t)
    loss = (flat(p_t, t) - target).square().sum(-1).mean()
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    decay.step()

# %%
with torch.no_grad():
    p = torch.randn(20_000, 2)
    for i in range(64):
        p = p + flat(p, torch.full((len(p), 1), i / 64)) / 64
degrees = p * UNIT
outside = (p.abs() > 1).any(-1)
off_earth = outside.double().mean().item()
print(f"samples beyond ±90° or ±180°: {off_earth:.1%}")
lessons_sphere.degrees_figure(degrees[:6000], outside[:6000])

# %% [markdown]
# **What was seen:** the red samples are nowhere on Earth. The board is blurred (this training is shorter than that of notebook 03). A smooth
# flow in the plane cannot end exactly at the edges at ±180°, where the data are cut: it thins out before them and runs over them.
#
# To count, we must first bring the red samples back to Earth by hand: longitudes are wrapped, latitudes beyond a pole are set to the
# pole.

# %%
lat, lon = degrees.unbind(-1)
fake = torch.stack([lat.clamp(-90, 90), (lon + 180) % 360 - 180], -1)
real = sphere.to_latlon(draw_data(200_000, torch.Generator().manual_seed(4)))
flat_share, real_share = ((y[:, 1].abs() > 175).double().mean().item() for y in (fake, real))
flat_dark = on_board(sphere.from_latlon(fake)).double().mean().item()
print(f"data: {real_share:.2%} within 5° of the antimeridian; 10° of 360° are {10 / 360:.2%}")
print("Exercise 2b is still to be solved" if flat_share is None else f"Exercise 2b: your flow {flat_share:.2%}")
print(f"samples of the flow in degrees on dark fields: {flat_dark:.1%}")

# %% [markdown]
# Near the antimeridian the flow in degrees has fewer samples than the data. Part of this may be the short training, which blurs the whole board; we did not
# separate the two. For the flow on the sphere of notebook 03 the antimeridian is no border.
#
# ## Exercise 3 · The wrong target
#
# **Stage 3a.** Along the geodesic the right velocity turns, together with the point, by the angle t θ. The wrong target does not turn. So
# the angle between them is t θ. The mean of θ is π/2, hence the mean angle is 90° · t. **Stage 3b:**


# %%
def wrong_angle(x0, x1, t):
    """Angle in degrees between log_{x0}(x1) and the velocity at time t of the path. x0, x1: (n, 3); t: a number → (n,)."""
    wrong, right = sphere.log(x0, x1), sphere.geodesic_velocity(x0, x1, t)
    return torch.rad2deg(sphere.distance(sphere.unit(wrong), sphere.unit(right)))


# %%
def check_3():
    x0, x1 = sphere.uniform(5000).double(), sphere.uniform(5000).double()
    x0, x1 = sphere.unit(x0), sphere.unit(x1)
    if wrong_angle(x0, x1, 0.5) is None:
        return "Exercise 3 is still to be solved"
    means = {t: wrong_angle(x0, x1, t).mean().item() for t in (0.0, 0.5, 1.0)}
    assert all(abs(mean - 90 * t) < 2 for t, mean in means.items()), f"mean angles {means}; expected 90° · t"
    return f"Exercise 3: right, mean angles {means[0.0]:.0f}°, {means[0.5]:.0f}° and {means[1.0]:.0f}° at t = 0, 0.5 and 1"


print(check_3())

# %% [markdown]
# The wrong target also leaves the tangent plane at x_t: its part along x_t has the length θ sin(t θ). As a share of θ, its mean over the
# density sin θ / 2 is ∫ sin(t θ) sin θ / 2 dθ, which is 2/3 at t = 0.5 and π/4 at t = 1.

# %%
x0, x1 = sphere.unit(sphere.uniform(5000).double()), sphere.unit(sphere.uniform(5000).double())
off_plane = {}
for t in (0.5, 1.0):
    wrong = sphere.log(x0, x1)
    off_plane[t] = ((wrong * sphere.geodesic(x0, x1, t)).sum(-1).abs() / wrong.norm(dim=-1)).mean().item()
    print(f"t = {t}: {off_plane[t]:.3f} of its length is off the tangent plane")
print(f"2/3 = {2 / 3:.3f}, π/4 = {math.pi / 4:.3f}")

# %% [markdown]
# A network without the projection would learn this target without complaint.
#
# ## Check

# %%
assert abs(exact_mass - 1) < 0.02
assert abs(formula_mass - 1) < 0.01
assert median_gap < 0.02
assert abs(off_plane[0.5] - 2 / 3) < 0.02
assert abs(off_plane[1.0] - math.pi / 4) < 0.02
assert off_earth > 0.005
if train_steps >= 1000:
    assert flat_share < 0.8 * real_share
print("all checks passed")

# %% [markdown]
# ## References
#
# * R. T. Q. Chen, Y. Lipman, *Flow Matching on General Geometries*, ICLR 2024, arXiv 2302.03660.
