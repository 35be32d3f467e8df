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
# **You will learn** how the exercises of notebook 02 can be solved. Try them first.
#
# | Needs | Minutes (laptop / GPU) | Produces |
# |---|---|---|
# | notebook 02 | 1 / not needed | figures only |

# %% tags=["parameters"]
import os

seed = 0
train_steps = {"smoke": 150, "laptop": 2000, "gpu": 4000}[os.environ.get("GEOFLOW_SCALE", "laptop")]
batch_size = 256

# %%
import math

import matplotlib.pyplot as plt
import torch
from scipy.optimize import linear_sum_assignment
from torch import nn

torch.manual_seed(seed)
BLUE, ORANGE, RED, GREY = "#0072B2", "#E69F00", "#D55E00", "#7f8c99"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# The pieces of notebook 02 that are needed again, unchanged but shorter: moons, a network, Euler and RK4.


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


def frame(ax, title):
    ax.set(xlim=(-2.6, 2.6), ylim=(-2.6, 2.6), aspect="equal", xticks=[], yticks=[])
    ax.set_title(title, fontsize=9)
    for side in ax.spines.values():
        side.set(visible=True, color="#c9d1d8")


# %% [markdown]
# ## 1 · Straighter lines
#
# Within a batch, permute the noise so that the total squared distance to the data is smallest. Each noise point is
# still normal and each data point still data, so noise and data distributions are what they were; only the pairing is
# no longer independent.


# %%
def train(optimal):
    torch.manual_seed(seed)
    velocity = Velocity()
    optimizer = torch.optim.Adam(velocity.parameters(), lr=4e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, train_steps)
    for _ in range(train_steps):
        x0, x1, t = torch.randn(batch_size, 2), draw_moons(batch_size), torch.rand(batch_size)
        if optimal:
            _, order = linear_sum_assignment(torch.cdist(x0, x1).square())
            x1 = x1[order]
        loss = (velocity((1 - t)[:, None] * x0 + t[:, None] * x1, t) - (x1 - x0)).square().sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    return velocity.requires_grad_(False), loss.item()


noise = torch.randn(3000, 2)
models = {"random pairs": train(False), "optimal pairs": train(True)}
gap = {}
fig, axes = plt.subplots(2, 4, figsize=(9, 4.7), layout="constrained")
for row, (name, (velocity, loss)) in zip(axes, models.items(), strict=True):
    states = integrate(velocity, noise, 50, rk4=True)
    gap[name] = [(integrate(velocity, noise, steps)[-1] - states[-1]).norm(dim=-1).mean().item() for steps in (1, 2, 4)]
    frame(row[0], f"{name}: paths")
    row[0].plot(*states[:, :50].permute(2, 0, 1), color=GREY, lw=0.8)
    row[0].plot(*states[-1, :50].T, "o", ms=3, color=BLUE)
    for ax, steps, error in zip(row[1:], (1, 2, 4), gap[name], strict=True):
        frame(ax, f"{steps} Euler step{'s' * (steps > 1)}, off by {error:.2f}")
        ax.plot(*integrate(velocity, noise, steps)[-1].T, ".", ms=1.6, mew=0, color=BLUE)
plt.show()
for name, (_, loss) in models.items():
    print(f"{name:14s} last loss {loss:.3f}, distance to the exact end point after 1, 2, 4 steps: {[round(e, 3) for e in gap[name]]}")

# %% [markdown]
# With optimal pairs lines hardly cross, so there is little to average: the loss falls to a fraction, the paths of the
# flow are nearly the straight training lines, and even one Euler step shows both moons. On the sphere the same trick
# needs geodesic distances; for large conditional models it is less useful, since every condition has its own optimal
# pairing.
#
# ## 2 · A broken change of variables
#
# log p₁(x) = log N(x₀) − ∫ div. Drop the integral, or flip its sign, and see what the exponential adds up to.


# %%
def noise_and_integral(v, x, steps=25):
    """x₀ and ∫₀¹ div v dt along the flow that ends in x."""

    def both(state, t):
        y, total = state[:, :2], 0.0
        for axis in range(2):
            e = torch.zeros_like(y)
            e[:, axis] = 1.0
            value, along = torch.func.jvp(lambda y: v(y, t), (y,), (e,))
            total = total + along[:, axis]
        return torch.cat([value, total[:, None]], -1)

    end = integrate(both, torch.cat([x, torch.zeros(len(x), 1)], -1), steps, start=1.0, end=0.0, rk4=True)[-1]
    return end[:, :2], -end[:, 2]  # integrated from 1 to 0, hence the minus


ticks = torch.linspace(-4, 4, 97)[:-1] + 4 / 96
grid = torch.stack(torch.meshgrid(ticks, ticks, indexing="xy"), -1).reshape(-1, 2)
x0, integral = noise_and_integral(models["random pairs"][0], grid)
log_noise = -x0.square().sum(-1) / 2 - math.log(2 * math.pi)
mass = {
    name: (log_noise + sign * integral).exp().sum().item() * (8 / 96) ** 2
    for name, sign in (("right", -1), ("left out", 0), ("wrong sign", 1))
}
print({name: round(value, 3) for name, value in mass.items()})

# %% [markdown]
# Only the right formula adds up to one. The moons are narrower than the noise, so the flow mostly converges, div < 0,
# and leaving the divergence out loses half of the mass.
#
# ## 3 · A flow without training


# %%
def exact_velocity(x, t, examples):
    t = t[:, None]
    log_weight = -(x[:, None] - t[..., None] * examples).square().sum(-1) / (2 * (1 - t) ** 2)
    return (torch.softmax(log_weight, -1) @ examples - x) / (1 - t)


examples = draw_moons(50)
copies = integrate(lambda x, t: exact_velocity(x, t, examples), noise[:1000], 100)[-1]
nearest = torch.cdist(copies, examples).min(-1).values
fig, ax = plt.subplots(figsize=(3.4, 3.4), layout="constrained")
frame(ax, "1,000 samples of the exact field")
ax.plot(*copies.T, ".", ms=9, mew=0, color=ORANGE)
ax.plot(*examples.T, ".", ms=4, mew=0, color=BLUE)
plt.show()
copied = (nearest < 0.01).double().mean().item()
print(f"{copied:.1%} of the samples lie within 0.01 of an example; the largest distance is {nearest.max():.3f}")

# %% [markdown]
# Nearly every sample (orange) is a copy of an example (the blue dot on it); the rest lie between two close ones, where
# a finer last step would decide. The *perfect* minimiser of the loss over a finite training set memorises it. That
# networks generalise is due to what they cannot fit: smoothness, shared weights, training that stops. Keep held-out
# data.
#
# ## Check

# %%
trained = train_steps >= 1000
assert abs(mass["right"] - 1) < 0.02
assert abs(mass["left out"] - 1) > 0.2
assert abs(mass["wrong sign"] - 1) > 0.2
assert copied > 0.95
assert all(better < worse for better, worse in zip(gap["optimal pairs"], gap["random pairs"], strict=True)) or not trained
print("all checks passed")

# %% [markdown]
# ## References
#
# * A. Tong et al., *Improving and Generalizing Flow-Based Generative Models with Minibatch Optimal Transport*, TMLR
#   2024, arXiv 2302.00482.
# * A.-A. Pooladian et al., *Multisample Flow Matching: Straightening Flows with Minibatch Couplings*, ICML 2023, arXiv
#   2304.14772.
