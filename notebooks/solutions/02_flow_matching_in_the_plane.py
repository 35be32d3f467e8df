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
# # 02 · Flow matching in the plane: solutions
#
# **You will learn** how the exercises of [notebook 02](../02_flow_matching_in_the_plane.ipynb) can be solved. Try them first.
#
# | Needs | Reading time | Run time (2 CPU cores) | Produces |
# |---|---|---|---|
# | notebook 02 | 15 minutes | 2 minutes; no GPU needed | figures only |
#
# The [glossary](../GLOSSARY.md) explains the technical terms.

# %% tags=["parameters"]
import os

seed = 0
scale = os.environ.get("GEOFLOW_SCALE", "laptop")
train_steps = {"smoke": 150, "laptop": 2000, "gpu": 4000}[scale]
batch_size = 256
n_samples = {"smoke": 500, "laptop": 3000, "gpu": 3000}[scale]  # noise points that are followed
SIDE = {"smoke": 48, "laptop": 96, "gpu": 96}[scale]  # cells along each side of the plane, where a density is summed up

# %%
import math

import matplotlib.pyplot as plt
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

from geoflow.viz import lessons
from geoflow.viz.lessons import BLUE, GREY, ORANGE

torch.manual_seed(seed)
lessons.use_style()

# %% [markdown]
# The pieces of notebook 02 that are needed again: the moons, a network, and the solvers Euler and RK4.


# %%
def draw_moons(n):
    upper, angle = torch.rand(n) < 0.5, math.pi * torch.rand(n)
    x = torch.where(upper, angle.cos(), 1 - angle.cos())
    y = torch.where(upper, angle.sin(), 0.5 - angle.sin())
    return 1.2 * torch.stack([x - 0.5, y - 0.25], -1) + 0.12 * torch.randn(n, 2)


class Velocity(nn.Module):
    def __init__(self, width=128, waves=16):
        super().__init__()
        self.register_buffer("frequencies", 1.5 * torch.randn(2, waves))
        self.net = nn.Sequential(nn.Linear(2 + 2 * waves + 5, width), nn.SiLU(), nn.Linear(width, width), nn.SiLU(), nn.Linear(width, 2))

    def forward(self, x, t):
        t = t[:, None]
        wave, turn = x @ self.frequencies, math.pi * t
        return self.net(torch.cat([x, wave.cos(), wave.sin(), t, turn.cos(), turn.sin(), (2 * turn).cos(), (2 * turn).sin()], -1))


# %%
def at(t, x):
    return torch.full((len(x),), float(t))


def integrate(v, x, steps, start=0.0, end=1.0, rk4=False):
    h, states = (end - start) / steps, [x]
    for i in range(steps):
        x, t = states[-1], at(start + i * h, x)
        k1 = v(x, t)
        if rk4:
            k2 = v(x + h / 2 * k1, t + h / 2)
            k3 = v(x + h / 2 * k2, t + h / 2)
            k1 = (k1 + 2 * k2 + 2 * k3 + v(x + h * k3, t + h)) / 6
        states.append(x + h * k1)
    return torch.stack(states)


# %% [markdown]
# ## Exercise 1 · Straighter lines
#
# **Stage a.** The examples of a batch are put into another order. Each noise point is still normal and each data point is
# still data, so the distributions of noise and data are what they were; only the pairing is no longer independent.


# %%
def pair(x0, x1):
    """The examples x1 (N, 2) in the order in which they are paired with the noise x0 (N, 2)."""
    _, order = linear_sum_assignment(torch.cdist(x0, x1).square())
    return x1[torch.from_numpy(order)]


# %% [markdown]
# The check of exercise 1:

# %%
x0, x1 = torch.randn(100, 2), draw_moons(100)
paired = pair(x0, x1)
assert torch.equal(paired[paired[:, 0].argsort()], x1[x1[:, 0].argsort()]), "every example should be used once"
before, after = ((x0 - x).square().sum(-1) for x in (x1, paired))
assert after.sum() < before.sum(), "the total squared distance should fall"
i, j = torch.triu_indices(100, 100, 1)
swapped = (x0[i] - paired[j]).square().sum(-1) + (x0[j] - paired[i]).square().sum(-1)
assert (swapped - after[i] - after[j]).min() > -1e-4, "no exchange of two partners should make it smaller"
print(f"exercise 1: right; the mean squared distance falls from {before.mean():.2f} to {after.mean():.2f}")

# %% [markdown]
# **Stage b.** Two networks, with the same start and the same number of steps:


# %%
def train(optimal):
    torch.manual_seed(seed)
    velocity, losses = Velocity(), []
    optimizer = torch.optim.Adam(velocity.parameters(), lr=4e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, train_steps)
    for _ in range(train_steps):
        x0, x1, t = torch.randn(batch_size, 2), draw_moons(batch_size), torch.rand(batch_size)
        if optimal:
            x1 = pair(x0, x1)
        loss = (velocity((1 - t)[:, None] * x0 + t[:, None] * x1, t) - (x1 - x0)).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        losses.append(loss.item())
    return velocity.requires_grad_(False), sum(losses[-50:]) / 50


models = {"random pairs": train(False), "optimal pairs": train(True)}

# %%
noise = torch.randn(n_samples, 2)
paths, few_steps, gap, crossing = {}, {}, {}, {}
for name, (velocity, loss) in models.items():
    paths[name] = integrate(velocity, noise, 50, rk4=True)
    few_steps[name] = {steps: integrate(velocity, noise, steps)[-1] for steps in (1, 2, 4)}
    gap[name] = [(x - paths[name][-1]).norm(dim=-1).mean().item() for x in few_steps[name].values()]
    crossing[name] = len(lessons.crossings(paths[name][:, :50]))
    off = ", ".join(f"{e:.2f}" for e in gap[name])
    print(f"{name:14s} loss {loss:.2f}; 1, 2, 4 Euler steps end {off} from the exact end point; {crossing[name]} of 1,225 paths cross")

# %% [markdown]
# *What to look for:* the paths of the flow, and the samples of few Euler steps.

# %%
fig = plt.figure(figsize=(10, 5.4), layout="constrained")
for part, name in zip(fig.subfigures(2, 1), models, strict=True):
    titles = [f"{name}: paths"] + [f"{steps} Euler step{'s' * (steps > 1)}" for steps in few_steps[name]]
    first, *others = lessons.frames(part, titles)
    first.plot(*paths[name][:, :50].permute(2, 0, 1), color=GREY, lw=0.8)
    lessons.scatter(first, paths[name][0, :50], ORANGE, 6)
    lessons.scatter(first, paths[name][-1, :50], BLUE, 6)
    for ax, x in zip(others, few_steps[name].values(), strict=True):
        lessons.scatter(ax, x, size=1.6)
plt.show()

# %% [markdown]
# *What was seen:* with optimal pairs there is little to average, because lines hardly cross. The loss falls to a fraction, the paths of
# the flow are nearly straight, and even one Euler step shows both moons. The points between the moons are a fault of this small network and
# not of the solver, since four steps already end close to the exact end points.
#
# On the sphere the same trick needs geodesic distances. For conditional models the pairs must be made within one condition. In a mixed batch the pairing gives each
# condition its own part of the noise, but the sampler draws from all of it, so the samples would be wrong.
#
# ## Exercise 2 · A broken change of variables
#
# **Stage a.** The point and the integral of the divergence are followed together, back from t = 1 to t = 0.


# %%
def log_prob_with(v, x, factor, steps=25):
    """log N(x₀) − factor · ∫ div v dt, for points x (N, 2)."""

    def both(state, t):
        y, total = state[:, :2], 0.0
        for axis in range(2):
            e = torch.zeros_like(y)
            e[:, axis] = 1.0
            value, along = torch.func.jvp(lambda y: v(y, t), (y,), (e,))
            total = total + along[:, axis]
        return torch.cat([value, total[:, None]], -1)

    end = integrate(both, torch.cat([x, torch.zeros(len(x), 1)], -1), steps, start=1.0, end=0.0, rk4=True)[-1]
    x0, integral = end[:, :2], -end[:, 2]  # the sum ran from 1 to 0, hence the minus
    return -x0.square().sum(-1) / 2 - math.log(2 * math.pi) - factor * integral


# %% [markdown]
# The check of exercise 2, with the toy field v(x) = −x:

# %%
spot = torch.tensor([[0.0, 0.0], [0.3, -0.2]])
by_formula = torch.distributions.Normal(0.0, math.exp(-1)).log_prob(spot).sum(-1)
torch.testing.assert_close(log_prob_with(lambda x, t: -x, spot, 1.0), by_formula, atol=1e-4, rtol=0)
torch.testing.assert_close(log_prob_with(lambda x, t: -x, spot, 0.0), by_formula - 2, atol=1e-4, rtol=0)
torch.testing.assert_close(log_prob_with(lambda x, t: -x, spot, -1.0), by_formula - 4, atol=1e-4, rtol=0)
print("exercise 2: right")

# %% [markdown]
# **Stage b.** The integrals of the three "densities" of the network that was trained on random pairs:

# %%
ticks = torch.linspace(-4, 4, SIDE + 1)[:-1] + 4 / SIDE
grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1).reshape(-1, 2)
network = models["random pairs"][0]
mass = {}
for name, factor in (("right", 1.0), ("left out", 0.0), ("wrong sign", -1.0)):
    mass[name] = log_prob_with(network, grid, factor).exp().sum().item() * (8 / SIDE) ** 2
    print(f"{name:11s} integral {mass[name]:.3f}")

# %% [markdown]
# Only the right formula adds up to one. The moons are narrower than the noise, so most of the data comes from where the flow converges
# (div v < 0). Without the divergence the density there is too low, and much of the mass is lost. With the wrong sign it is lower still there,
# but too high where the flow spreads points. (Let D be the integral of the divergence along a way that begins at noise. The two integrals are the means over
# the noise of e^D, left out, and of e^(2D), wrong sign; a few large D raise the second.)
#
# ## Exercise 3 · A flow without training


# %%
def exact_velocity(x, t, examples):
    t = t[:, None]
    log_weight = -(x[:, None] - t[..., None] * examples).square().sum(-1) / (2 * (1 - t) ** 2)
    return (torch.softmax(log_weight, -1) @ examples - x) / (1 - t)


fifty = draw_moons(50)
copies = integrate(lambda x, t: exact_velocity(x, t, fifty), torch.randn(1000, 2), 100)[-1]

# %% [markdown]
# The check of exercise 3:

# %%
nearest = torch.cdist(copies, fifty).min(-1).values
copied = (nearest < 0.01).double().mean().item()
assert copies.shape == (1000, 2)
assert copied > 0.9, "nearly every sample should be a copy of an example"
print(f"exercise 3: right; {copied:.1%} of the samples lie within 0.01 of an example, the largest distance is {nearest.max():.3f}")

# %% [markdown]
# *What to look for:* the samples (orange) and the fifty examples (blue).

# %%
fig, ax = plt.subplots(figsize=(4.4, 4.2), layout="constrained")
lessons.frame(ax, "1,000 samples of the exact field")
lessons.scatter(ax, copies, ORANGE, 10, label="samples")
lessons.scatter(ax, fifty, BLUE, 4, label="examples")
ax.legend(loc="upper right", fontsize=9)
plt.show()

# %% [markdown]
# **Stage b.** Nearly every sample is a copy of an example. The few others lie between two close examples, where
# a finer last step would decide. So the *perfect* minimiser of the loss over a finite training set memorises it. Networks
# generalise because of what they cannot fit: they are smooth, their weights are shared between all places and times, and the training
# stops. Keep held-out data to see the difference.
#
# ## Check

# %%
trained = train_steps >= 1000
assert abs(mass["right"] - 1) < 0.02
assert abs(mass["left out"] - 1) > 0.2
assert abs(mass["wrong sign"] - 1) > 0.2
assert not trained or mass["left out"] < 0.8
if trained:
    assert models["optimal pairs"][1] < 0.25 * models["random pairs"][1]
    assert all(better < worse for better, worse in zip(gap["optimal pairs"], gap["random pairs"], strict=True))
    assert crossing["optimal pairs"] < crossing["random pairs"]
print("all checks passed")

# %% [markdown]
# ## References
#
# * A. Tong et al., *Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport*, TMLR
#   2024, arXiv 2302.00482.
# * A.-A. Pooladian et al., *Multisample Flow Matching: Straightening Flows with Minibatch Couplings*, ICML 2023, arXiv
#   2304.14772.
