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
# # 01 · The sphere: solutions
#
# **You will learn** how the exercises of notebook 01 can be solved. Try them first.
#
# | Needs | Minutes (laptop / GPU) | Produces |
# |---|---|---|
# | notebook 01 | under 1 / no GPU needed | figures only |

# %% tags=["parameters"]
from geoflow.settings import by_scale

seed = 0
n_points = by_scale(20_000, 400_000, 400_000)

# %%
import math

import matplotlib.pyplot as plt
import torch

from geoflow import sphere

torch.manual_seed(seed)
BLUE, RED, GREY = "#0072B2", "#D55E00", "#7f8c99"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## 1 · The middle of many places
#
# The mean of squared distances has the gradient −2 · mean(log_m(xᵢ)) at m. So walk along the mean of the logs until it
# vanishes: gradient descent, with a step (one half of the gradient) that is just the average way to the points.

# %%
latlon = torch.tensor([[48.8566, 2.3522], [35.6762, 139.6503], [-1.2921, 36.8219], [-12.0464, -77.0428], [-41.2866, 174.7756]])
cities = sphere.from_latlon(latlon.double())


def spread(m):
    return sphere.distance(m, cities).square().mean().item()


normalised = sphere.project(cities.mean(0))
m, path = normalised, [spread(normalised)]
for _ in range(200):
    m = sphere.exp(m, sphere.log(m.expand_as(cities), cities).mean(0))
    path.append(spread(m))

left_over = sphere.log(m.expand_as(cities), cities).mean(0).norm().item()
apart = sphere.distance_km(m, normalised).item()
for name, place in (("normalised mean", normalised), ("Fréchet mean", m)):
    lat, lon = sphere.to_latlon(place).tolist()
    print(f"{name:16s} latitude {lat:6.2f}, longitude {lon:7.2f}, mean squared distance {spread(place):.4f}")
print(f"{apart:.0f} km apart; what is left of the mean log: {left_over:.1e}")

# %% [markdown]
# The two are far apart: for points all over the globe there is no one "middle". (The normalised mean minimises the mean
# squared *chord*, the straight way through the Earth. For points within a few hundred kilometres the two agree.) The
# loop finds a *local* minimum: another start can end elsewhere.

# %% [markdown]
# ## 2 · How random is random?
#
# Put one point at the North Pole. The other is uniform, so its height z is uniform in [−1, 1] (Archimedes), and z = cos
# d. Hence the density of the distance d is sin(d)/2 on [0, π]. Its mean is π/2, a quarter of the way around: 10,007.5
# km. The GeoScore averages to
#
# $$\int_0^\pi 5000\, e^{-a d}\; \frac{\sin d}{2}\; \mathrm dd = 2500\,\frac{1 + e^{-a\pi}}{1 + a^2}, \qquad a = \frac{6371}{1492.7} .$$

# %%
d = sphere.distance_km(sphere.uniform(n_points), sphere.uniform(n_points)).double()
a = sphere.EARTH_RADIUS_KM / 1492.7
expected_km = sphere.EARTH_RADIUS_KM * math.pi / 2
expected_score = 2500 * (1 + math.exp(-a * math.pi)) / (1 + a**2)
sampled_score = (5000 * torch.exp(-d / 1492.7)).mean().item()
print(f"mean distance: {d.mean():,.1f} km sampled, {expected_km:,.1f} km exact")
print(f"mean GeoScore: {sampled_score:.1f} sampled, {expected_score:.1f} exact")

fig, ax = plt.subplots(figsize=(5.4, 2.8))
ax.hist(d, bins=80, density=True, color="#c6d3e1", label="sampled")
km = torch.linspace(0, math.pi * sphere.EARTH_RADIUS_KM, 200)
ax.plot(km, torch.sin(km / sphere.EARTH_RADIUS_KM) / 2 / sphere.EARTH_RADIUS_KM, color=RED, label="sin(d)/2")
ax.set(xlabel="distance between two uniform places (km)", yticks=[])
ax.legend()
fig.tight_layout()
plt.show()

# %% [markdown]
# Table 1 of the paper gives 10,052 km and a GeoScore of 131 for uniform guesses, a sample's worth away from these exact
# values.
#
# ## 3 · A tape measure with a floor
#
# arccos(1 − ε) ≈ √(2ε). For ε = 10⁻⁷ that is 4.5·10⁻⁴ rad. In float32 the nearest number to 1 − 10⁻⁷ is 1 − 1.19·10⁻⁷,
# which makes the floor a little higher:


# %%
def clamped_km(x, y, margin=1e-7):
    return 6371.0 * torch.arccos((x * y).sum(-1).clamp(-1 + margin, 1 - margin))


truth = sphere.uniform(5000)
guess = sphere.exp(truth, sphere.tangent_basis(truth)[0] * torch.linspace(0, 4, 5000)[:, None] / 6371.0)  # 0 to 4 km away
floor = clamped_km(truth, truth).min().item()
within = {
    "half angle": (sphere.distance_km(truth, guess) < 1).double().mean().item(),
    "clamped": (clamped_km(truth, guess) < 1).double().mean().item(),
}
print(f"the smallest distance it reports: {floor:.2f} km")
print(f"accuracy within 1 km: {within['half angle']:.1%} with the half angle, {within['clamped']:.1%} with the clamp; the truth is 25 %")

# %% [markdown]
# No guess, however good, is ever within one kilometre.
#
# ## Check

# %%
assert left_over < 1e-6
assert all(later <= earlier + 1e-12 for earlier, later in zip(path, path[1:], strict=False))
assert abs(d.mean().item() - expected_km) < 100
assert abs(expected_km - 10007.5) < 0.1
assert abs(expected_score - 130.1) < 0.1
assert abs(sampled_score - expected_score) < 10
assert 2.8 < floor < 3.3
assert within["clamped"] == 0
assert abs(within["half angle"] - 0.25) < 0.01
print("all checks passed")

# %% [markdown]
# ## References
#
# * M. Fréchet, *Les éléments aléatoires de nature quelconque dans un espace distancié*, Annales de l'Institut Henri
#   Poincaré 10, 1948.
# * H. Karcher, *Riemannian Center of Mass and Mollifier Smoothing*, Communications on Pure and Applied Mathematics 30,
#   1977.
# * N. Dufour et al., *Around the World in 80 Timesteps*, CVPR 2025, arXiv 2412.06781, table 1.
