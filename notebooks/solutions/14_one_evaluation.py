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
# # 14 · One evaluation: solutions
#
# **You will learn** how the exercises of notebook 14 can be solved. Try them first. The check cells are those of the notebook.
#
# | Needs | Time to read | Time to run (laptop / GPU) | Produces |
# |---|---|---|---|
# | notebook 14 | 10 minutes | 1 minute / not needed | nothing |
#
# Words are explained in notebook 14 and in the [glossary](../GLOSSARY.md).

# %% tags=["parameters"]
seed = 0

# %%
import math

import torch

from geoflow import Geolocator, schedules, sphere
from geoflow.data import tiles

two = sphere.from_latlon(torch.tensor([[48.9, 2.4], [-15.8, -47.9]], dtype=torch.float64))  # Paris, Brasília


def exact_velocity(x, t):
    """Mean velocity at x (n, 3) and time t < 1 of the paths to the two places: (n, 3)."""
    towards = sphere.log(x.expand(2, *x.shape), two[:, None].expand(2, *x.shape))  # (2, n, 3)
    r = towards.norm(dim=-1, keepdim=True)
    theta = r / (1 - t)
    weight = torch.where(theta < math.pi, torch.sinc(theta / math.pi) / torch.sinc(r / math.pi), 0.0) + 1e-12
    return (weight / weight.sum(0) * towards).sum(0) / (1 - t)


def euler(x, steps):
    for i in range(steps):
        x = sphere.exp(x, exact_velocity(x, i / steps) / steps)
    return x


# %% [markdown]
# ## Exercise 1 · Where one step leads
#
# **Stage 1a.** At time 0 the noise point x says nothing about its end, so the velocity is the mean of log_x(place) with the weights of the data. One step
# of length 1 walks along this mean.


# %%
def one_step(x, places, weights):
    """End of one Euler step from noise x (n, 3); places (k, 3), weights (k,) → (n, 3)."""
    k, n = len(places), len(x)
    towards = sphere.log(x.expand(k, n, 3), places[:, None].expand(k, n, 3))
    return sphere.exp(x, (weights[:, None, None] * towards).sum(0))


# %%
def check_1a():
    x = sphere.unit(sphere.uniform(500, torch.Generator().manual_seed(4)).double())
    if one_step(x, two, torch.tensor([0.5, 0.5])) is None:
        return "Exercise 1a is still to be solved"
    half = one_step(x, two, torch.tensor([0.5, 0.5], dtype=torch.float64))
    torch.testing.assert_close(half, euler(x, 1), atol=1e-6, rtol=0)
    alone = one_step(x, two, torch.tensor([1.0, 0.0], dtype=torch.float64))
    assert sphere.distance_km(alone, two[:1].expand_as(alone)).max() < 1, "with one place a single step is exact"
    return "Exercise 1a: right"


print(check_1a())

# %% [markdown]
# **Stage 1b.** We try the six weights with 2,000 noise points.

# %%
x = sphere.unit(sphere.uniform(2000, torch.Generator().manual_seed(seed)).double())
shares_1b = []
for w in (0.5, 0.6, 0.7, 0.8, 0.9, 1.0):
    end = one_step(x, two, torch.tensor([w, 1 - w], dtype=torch.float64))
    km = sphere.distance_km(end[:, None].expand(-1, 2, 3), two.expand(len(x), 2, 3)).amin(-1)
    shares_1b.append((km < 1000).double().mean().item())

# %%
if shares_1b is None:
    print("Exercise 1b is still to be solved")
else:
    assert len(shares_1b) == 6
    assert shares_1b[-1] > 0.999
    assert shares_1b[0] < 0.35
    print("Exercise 1b: right,", ", ".join(f"{share:.0%}" for share in shares_1b))

# %% [markdown]
# The clearer the answer, the better is a single step; with one certain answer it is exact. The difficulty of few steps is the difficulty of images with several
# answers.
#
# ## Exercise 2 · Where to stop on the way

# %%
flow, one_call = Geolocator.from_pretrained("tiles"), Geolocator.from_pretrained("tiles-flow-map")

# %%
tiles_2 = tiles.load("test", 20)
cond_2 = one_call.embed(tiles_2.images)
noise_2 = sphere.uniform((20, 50), torch.Generator().manual_seed(6))
flow_2 = sphere.from_latlon(flow.sample(cond=cond_2, noise=noise_2))
print(f"the schedule of the shipped map stops at r = {schedules.time_grid(one_call.schedule, 2)[1]:.3f}")


def off_by(r):
    """Median distance in km of two jumps through time r from the end of the flow: a number."""
    with torch.no_grad():
        halfway = one_call.network.jump(noise_2, 0.0, r, cond_2)
        end = one_call.network.jump(halfway, r, 1.0, cond_2)
    return sphere.distance_km(end, flow_2).median().item()


# %%
if off_by(0.5) is None:
    print("Exercise 2 is still to be solved")
else:
    found = {r: off_by(r) for r in (0.2, 0.5, 0.8, 0.9, 0.95, 0.99)}
    print("Exercise 2:", ", ".join(f"{km:,.0f} km at r = {r}" for r, km in found.items()))
    assert min(found, key=found.get) in (0.8, 0.9, 0.95), "the best middle is late: early points know little about their end"

# %% [markdown]
# A late middle is the best one. Early in the flow a point has hardly moved, and it says little about its end; the first jump to an early time is easy and the
# second one is as hard as a single jump. A late middle divides the work: the first jump chooses the basin, the second one finds the place in it.
