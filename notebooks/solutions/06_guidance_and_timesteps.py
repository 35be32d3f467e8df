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
# # 06 · Guidance and sampling timesteps: solutions
#
# **You will learn** how the exercises of notebook 06 can be solved. Try them first. The check cells are those of the notebook.
#
# | Needs | Time to read | Time to run (laptop / GPU) | Produces |
# |---|---|---|---|
# | notebook 06 | 15 minutes | seconds / not needed | one figure |
#
# Words are explained in notebook 06 and in the [glossary](../GLOSSARY.md).

# %% tags=["parameters"]
from geoflow.runtime import by_scale

seed = 0
points = by_scale(4, 100, 100)  # points that are followed
steps_4 = by_scale(100, 400, 400)  # steps on the line

# %%
import math

import torch

from geoflow import Geolocator, paths, samplers, schedules, sphere
from geoflow.data import tiles
from geoflow.viz import lessons_steps
from geoflow.viz.lessons_steps import Panel

geo = Geolocator.from_pretrained("tiles")
cond = geo.embed([tiles.tile(*place) for place in tiles.EXAMPLES.values()])
noise = geo.path.noise((points,), torch.Generator().manual_seed(seed)).expand(len(cond), -1, -1)

# %% [markdown]
# ## Exercise 1 · Euler's method on the sphere
#
# **Stage 1a.** The times need not be equally spaced, so each step has its own length.


# %%
def my_euler(velocity, x, times, cond):
    """Points x (B, N, 3) at times[0] → where they are at times[-1]."""
    with torch.no_grad():
        for t, t_next in zip(times[:-1], times[1:], strict=True):
            x = sphere.exp(x, (t_next - t) * velocity(x, t, cond))
    return x


# %%
def check_1a():
    times = schedules.time_grid(geo.schedule, 4)
    x = my_euler(geo.velocity, noise[:, :4], times, cond)
    if x is None:
        return "Exercise 1a is still to be solved"
    expected = samplers.sample(geo.velocity, geo.path, noise[:, :4], times, cond, "euler")
    torch.testing.assert_close(x, expected, atol=1e-4, rtol=1e-4)
    return "Exercise 1a: right"


print(check_1a())


# %% [markdown]
# **Stage 1b.** Four times as many steps divide the error by 48.0/0.75 = 64 = 4³.

# %%
order_1b = math.log(48.0 / 0.75) / math.log(4)

# %%
if order_1b is None:
    print("Exercise 1b is still to be solved")
else:
    print("Exercise 1b: right" if abs(48.0 / 4**order_1b - 0.75) < 0.01 else "Exercise 1b: not yet; four times as many steps, not twice")


# %% [markdown]
# ## Exercise 2 · Mixed times
#
# **Stage 2a.** The clock at t = 0.9 is log(1 − 0.999 · 0.9)/log 0.001 = 0.33. So 67 % of the log times are later, and 10 % of the uniform ones.

# %%
clock = math.log(1 - 0.999 * 0.9) / math.log(0.001)
share_after = {"linear": 0.1, "log": 1 - clock, "mixed": 0.3 * 0.1 + 0.7 * (1 - clock)}

# %%
if None in share_after.values():
    print("Exercise 2a is still to be solved")
else:
    s = (torch.arange(100_000) + 0.5).double() / 100_000
    for name, share in share_after.items():
        expected = (schedules.by_name(name)(s) > 0.9).double().mean().item()
        print(f"{name:7s} {share:.3f}: {'right' if abs(share - expected) < 2e-3 else 'not yet'}")


# %% [markdown]
# **Stage 2b.** Each halving adds one binary digit; 40 of them give 12 decimal digits.


# %%
def my_mixed(s, end=1e-3):
    """Values s (n,) in [0, 1] → times t(s)."""
    low, high = torch.zeros_like(s), torch.ones_like(s)
    for _ in range(40):
        t = (low + high) / 2
        below = 0.3 * t + 0.7 * torch.log1p((end - 1) * t) / math.log(end) < s
        low, high = torch.where(below, t, low), torch.where(below, high, t)
    return (low + high) / 2


# %%
def check_2b():
    s = torch.linspace(0, 1, 101, dtype=torch.float64)
    if my_mixed(s) is None:
        return "Exercise 2b is still to be solved"
    torch.testing.assert_close(my_mixed(s), schedules.by_name("mixed")(s), atol=1e-6, rtol=0)
    torch.testing.assert_close(my_mixed(s, 1e-2), schedules.by_name("mixed-steps")(s), atol=1e-6, rtol=0)
    return "Exercise 2b: right"


print(check_2b())


# %% [markdown]
# ## Exercise 3 · The power law
#
# **Stage 3a.** 100 · (100/6371)^ω = 10, so ω = log 0.1/log(100/6371).

# %%
omega_3a = math.log(0.1) / math.log(100 / 6371)

# %%
if omega_3a is None:
    print("Exercise 3a is still to be solved")
else:
    print("Exercise 3a: right" if abs(100 * (100 / 6371) ** omega_3a - 10) < 0.1 else "Exercise 3a: not yet; take logarithms")


# %% [markdown]
# **Stage 3b.** √(1 + ω) = 10.

# %%
omega_3b = 10**2 - 1
print(f"guided flow: ω = {omega_3a:.2f}; tilted density: ω = {omega_3b}")

# %%
if omega_3b is None:
    print("Exercise 3b is still to be solved")
else:
    print("Exercise 3b: right" if abs(100 / math.sqrt(1 + omega_3b) - 10) < 0.1 else "Exercise 3b: not yet")


# %% [markdown]
# The same word "guidance" stands for two very different amounts of narrowing: a weight of about one half in the flow does what the tilted density does only at ω = 99.
#
# ## Exercise 4 · Guidance for a part of the time
#
# The fields of the line are those of the notebook.


# %%
def exact_field(weight, mean, width):
    """Velocity from N(0, 1) to a mixture of normal distributions on a line; x has the shape (..., 1)."""
    weight, mean, width = (torch.tensor(values, dtype=torch.float64) for values in (weight, mean, width))

    def velocity(x, t, cond=None):
        variance = (1 - t) ** 2 + (t * width) ** 2
        offset = x - t * mean
        share = (weight.log() - offset.square() / (2 * variance) - variance.log() / 2).softmax(-1)
        return (share * (mean + offset * (t * width**2 - (1 - t)) / variance)).sum(-1, keepdim=True)

    return velocity


def follow(velocity, x, schedule, steps, solver="rk4"):
    """Where points x (n,) on the line arrive."""
    times = schedules.time_grid(schedules.by_name(schedule), steps)
    return samplers.sample(velocity, paths.EuclideanFlow(), x[None, :, None], times, None, solver)[0, :, 0]


def guided_line(with_image, without, omega):
    """The guided field of two fields on the line."""
    return lambda x, t, cond: with_image(x, t) + omega * (with_image(x, t) - without(x, t))


prior = exact_field([1.0], [0.0], [1.0])

# %% [markdown]
# **Stage 4a.** The weight depends on the time.


# %%
def guided_between(with_image, without, omega, start, end):
    """Two fields (x, t) → velocity; the guided field (x, t, cond) → velocity."""

    def field(x, t, cond):
        weight = omega if start <= t < end else 0.0
        return with_image(x, t) + weight * (with_image(x, t) - without(x, t))

    return field


# %%
def check_4a():
    fields = exact_field([1.0], [0.0], [0.1]), prior
    if guided_between(*fields, 2.0, 0.0, 0.5) is None:
        return "Exercise 4a is still to be solved"
    x = torch.tensor([[0.3]]).double()
    for t, omega in ((0.2, 2.0), (0.5, 0.0), (0.8, 0.0)):
        expected = guided_line(*fields, omega)(x, t, None)
        torch.testing.assert_close(guided_between(*fields, 2.0, 0.0, 0.5)(x, t, None), expected)
    return "Exercise 4a: right"


print(check_4a())


# %% [markdown]
# **Stage 4b.** At t = 0.5, s_σ = √(0.25 + 0.0025) = 0.5025 and s_Σ = √(0.25 + 0.25) = 0.7071. Guidance multiplies the spread by (0.5025/0.7071)² = 0.505.

# %%
spread_4b = 0.1 * (math.sqrt(0.25 + 0.0025) / math.sqrt(0.5)) ** 2

# %%
if spread_4b is None:
    print("Exercise 4b is still to be solved")
else:
    field = guided_between(exact_field([1.0], [0.0], [0.1]), prior, 2.0, 0.0, 0.5)
    found = follow(field, torch.ones(1).double(), "linear", 400).item()
    print(f"the flow: {found:.4f}; {spread_4b:.4f} is {'right' if abs(spread_4b / found - 1) < 0.02 else 'not yet right'}")


# %% [markdown]
# **What to look for:** two places on the line, 70 % on the left, guided with ω = 2 for the whole time, only before t = 0.5, and only after it.

# %%
two_places = exact_field([0.7, 0.3], [-0.8, 0.8], [0.2, 0.2])
z = torch.linspace(-4, 4, 4001).double()
probability = torch.distributions.Normal(0.0, 1.0).log_prob(z).exp() * 0.002  # of the noise, between neighbours
curves, left = {}, {}
for name, interval in {"no guidance": (0, 0), "always": (0, 2), "before t = 0.5": (0, 0.5), "after t = 0.5": (0.5, 2)}.items():
    x = follow(guided_between(two_places, prior, 2.0, *interval), z, "mixed", steps_4 // 2)
    gaps = x.diff() > 0.02  # between distant neighbours the density is too small to be found in this way
    curves[name] = x[1:], (probability[1:] / x.diff()).masked_fill(gaps, math.nan)
    part = probability * (x < 0)
    mean = (part * x).sum() / part.sum()
    left[name] = part.sum().item(), ((part * (x - mean) ** 2).sum() / part.sum()).sqrt().item()
    print(f"guided {name:15s} {left[name][0]:.1%} on the left, where the standard deviation is {left[name][1]:.4f}")
options = {"ylim": (1e-2, 100), "xlim": (-2, 2)}
lessons_steps.panels_figure([Panel(curves, "place on the line", "density", "linear", "log", options=options)])

# %% [markdown]
# **What was seen:** early guidance chooses: with it before t = 0.5 only, 88.0 % of the points go left, nearly as many as with guidance for the whole time (91.5 %), while
# the peak becomes only 18 % narrower (from 0.200 to 0.165). Late guidance sharpens: after t = 0.5 it makes the peak eight times narrower and moves few points to the other place. This is the reason why mixed
# times keep a share of uniform ones: what happens early decides between the places.
#
# ## Check

# %%
assert abs(order_1b - 3) < 1e-9
assert 0.49 < share_after["mixed"] < 0.51
assert 0.5 < omega_3a < 0.6
assert abs(spread_4b - 0.0505) < 1e-4
assert left["before t = 0.5"][0] > 0.85 > 0.8 > left["after t = 0.5"][0]
assert left["after t = 0.5"][1] < left["no guidance"][1] / 7
assert left["before t = 0.5"][1] > 0.8 * left["no guidance"][1]
print("all checks passed")

# %% [markdown]
# ## References
#
# * T. Kynkäänniemi et al., *Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in Diffusion Models*, NeurIPS 2024, arXiv 2404.07724.
