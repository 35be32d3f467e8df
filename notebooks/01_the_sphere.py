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
# # 01 · The sphere
#
# **You will learn**
# 1. why latitude and longitude are good labels for places, but bad coordinates for arithmetic;
# 2. the two maps on which everything later stands: `exp` ("walk from here") and `log` ("how do I walk there?");
# 3. why the textbook formula for distance fails in float32 below about two kilometres, and which formula does not fail;
# 4. what a shortest path is, how fast it moves, and where on Earth it stops being unique.
#
# | Needs | Reading time | Run time (2 CPU cores) | Produces |
# |---|---|---|---|
# | vectors and a little PyTorch; no other notebook | 45 minutes, exercises apart | under 1 minute; no GPU needed | figures only |
#
# Technical terms are set in *italics* where they first appear. The [glossary](GLOSSARY.md) explains them, in two sentences each.

# %% tags=["parameters"]
from geoflow.runtime import by_scale

seed = 0
n_points = by_scale(2_000, 20_000, 20_000)  # random points behind each measured number

# %%
import math

import matplotlib.pyplot as plt
import torch

from geoflow import sphere
from geoflow.gis import healpix
from geoflow.viz import lessons
from geoflow.viz.lessons import BLUE, GREEN, GREY, ORANGE, RED, Globe

torch.manual_seed(seed)
lessons.use_style()

# %% [markdown]
# The module `lessons` holds only drawing functions. The geometry of this notebook is written out in its cells, and then compared
# with the package's `geoflow.sphere`.
#
# ## Degrees are labels, not numbers
#
# A photo was taken somewhere. We could write this place as two numbers, latitude and longitude, and train a network to predict
# these two numbers. Three small experiments show why we do something else.
#
# ### Averaging
#
# Two villages in Fiji lie at longitudes 179° and −179°. They are two degrees of longitude apart.
#
# > **Predict before you run.** Where is the average of the two pairs of numbers?

# %%
fiji = torch.tensor([[-17.0, 179.0], [-17.0, -179.0]], dtype=torch.float64)  # latitude, longitude: in this order everywhere

middle_of_degrees = fiji.mean(0)
middle_of_vectors = sphere.to_latlon(sphere.from_latlon(fiji).mean(0))
print("average of the degrees:", middle_of_degrees.tolist())
print("average of the vectors:", [round(v, 3) for v in middle_of_vectors.tolist()])

# %% [markdown]
# The average of the degrees has longitude 0. It lies in the South Atlantic, on the other side of the Earth. The average of the two
# *unit vectors*, which we define below, has longitude −180° and lies between the villages. A network that is trained with a squared error
# on degrees makes the first mistake whenever a photo could come from either side of the *antimeridian*, the line of longitude 180°.
#
# ### Distance
#
# A degree of longitude does not have a fixed length:

# %%
for lat in (0, 45, 60, 80, 89):
    ends = sphere.from_latlon(torch.tensor([[lat, 0.0], [lat, 1.0]], dtype=torch.float64))
    print(f"one degree of longitude at {lat:2d}° N: {sphere.distance_km(*ends):6.1f} km")

# %% [markdown]
# ### Uniform places
#
# Our generative model will start from a random place on Earth, which must be *uniform*: equal areas must be equally likely.
#
# > **Predict before you run.** Draw the latitude uniformly in [−90°, 90°] and the longitude uniformly in [−180°, 180°). Is the
# > place uniform?
#
# The second recipe below draws a normal vector in R³, the three-dimensional space, and divides it by its length. The normal
# distribution has no preferred direction, so every direction is equally likely.


# %%
def random_points(n):
    """Uniform points in float64, so that what we measure is the formula and not the rounding."""
    return sphere.unit(torch.randn(n, 3, dtype=torch.float64))  # unit(x) is x / |x|


uniform_degrees = torch.rand(n_points, 2) * torch.tensor([180.0, 360.0]) - torch.tensor([90.0, 180.0])
from_degrees = sphere.from_latlon(uniform_degrees)
from_sphere = random_points(n_points)

# %% [markdown]
# To look at the points we need a globe. Seen from far away, a point x of the globe appears at its component along "right" and its
# component along "up". It is visible when its component towards the eye is positive. So a picture of a globe takes three scalar
# products per point (an *orthographic projection*):

# %%
right, up, eye = lessons.camera(55, 0)  # the axes of an observer far above 55° N 0° E
x = from_sphere
by_hand = torch.stack([x @ right, x @ up], -1)[x @ eye > 0]

fig, ax = plt.subplots()
by_package = Globe(ax, 55, 0).seen(x)
plt.close(fig)
torch.testing.assert_close(by_hand, by_package[by_package.isfinite().all(-1)])
print(f"{len(by_hand) / len(x):.1%} of the points are visible, where the picture says")

# %% [markdown]
# *What to look for:* the white lines meet at the North Pole. Compare how crowded the points are there and far from it.

# %%
fig, axes = plt.subplots(1, 2, figsize=(8, 4.2), layout="constrained")
for ax, x, title, color in (
    (axes[0], from_degrees, "uniform in degrees", RED),
    (axes[1], from_sphere, "uniform on the sphere", BLUE),
):
    Globe(ax, 55, 0, title).points(x[:3000], color=color, size=3.5, alpha=0.8)
plt.show()

north_of_60 = math.sin(math.radians(60))  # the height z above which a point is north of 60°
share_degrees = (from_degrees[:, 2] > north_of_60).double().mean().item()
share_sphere = (from_sphere[:, 2] > north_of_60).double().mean().item()
share_true = (1 - north_of_60) / 2  # area of a cap: 2π (1 − z), of 4π in all
print(f"north of 60° N: {share_degrees:.1%} of the left points, {share_sphere:.1%} of the right ones; share of the area: {share_true:.1%}")

# %% [markdown]
# *What was seen:* the left globe is crowded at the pole. The printed line says by how much: of the left points, about one in six
# lies north of 60° N (30 of 180 degrees), in a zone that holds 6.7 % of the Earth's area. The right globe is even.
#
# ## Places as unit vectors
#
# Inside the package a place is a **unit vector**, a vector of length 1:
#
# $$x = (\cos\varphi\cos\lambda,\; \cos\varphi\sin\lambda,\; \sin\varphi),$$
#
# where φ is the latitude and λ the longitude. A place at latitude φ has the height sin φ above the plane of the equator and the
# distance cos φ from the axis of the Earth; the longitude says in which direction. The x axis points to 0° N 0° E, the z axis
# to the North Pole. The set of all unit vectors in R³ is the *sphere* S². It has no seam, and no place on it is special.


# %%
def from_latlon(latlon):
    lat, lon = torch.deg2rad(latlon).unbind(-1)
    return torch.stack([lat.cos() * lon.cos(), lat.cos() * lon.sin(), lat.sin()], -1)


places = {
    "Paris": (48.8566, 2.3522),
    "Tokyo": (35.6762, 139.6503),
    "Nairobi": (-1.2921, 36.8219),
    "Lima": (-12.0464, -77.0428),
    "Wellington": (-41.2866, 174.7756),
}
latlon = torch.tensor(list(places.values()), dtype=torch.float64)

torch.testing.assert_close(from_latlon(latlon), sphere.from_latlon(latlon))
torch.testing.assert_close(sphere.to_latlon(sphere.from_latlon(latlon)), latlon)
print("the hand-written version equals geoflow.sphere.from_latlon, and to_latlon undoes it")

# %% [markdown]
# Distances are angles in this picture. The angle between two unit vectors, in radians, is the length of the way between them on a
# sphere of radius 1. On Earth, one radian is 6371 km.

# %%
print(f"one radian on Earth: {sphere.EARTH_RADIUS_KM:.0f} km; half of the circumference: {math.pi * sphere.EARTH_RADIUS_KM:,.0f} km")

# %% [markdown]
# ## The tangent plane
#
# A velocity on the sphere must not leave the surface. At a point x, the allowed velocities are the vectors orthogonal to x. They
# form the *tangent plane* at x. Any vector v becomes *tangent* when we subtract its component along x:
#
# $$\text{to\_tangent}(x, v) = v - \langle x, v\rangle\, x ,$$
#
# where ⟨x, v⟩ is the scalar product. One line of algebra confirms it: ⟨x, v − ⟨x, v⟩ x⟩ = ⟨x, v⟩ − ⟨x, v⟩ ⟨x, x⟩ = 0, because
# ⟨x, x⟩ = 1.


# %%
def to_tangent(x, v):
    return v - (x * v).sum(-1, keepdim=True) * x


x = random_points(n_points)
v = to_tangent(x, torch.randn(n_points, 3, dtype=torch.float64))
torch.testing.assert_close(v, sphere.to_tangent(x, v))
print(f"largest |⟨x, v⟩| over {n_points} pairs: {(x * v).sum(-1).abs().max():.1e}")

# %% [markdown]
# A plane needs two axes. The function `sphere.tangent_basis(x)` returns two tangent vectors e₁ and e₂ of length 1 that are orthogonal
# to each other. Then a·e₁ + b·e₂ is the tangent vector with the coordinates (a, b).

# %%
e1, e2 = sphere.tangent_basis(x)
products = {"⟨e₁, e₁⟩": (e1, e1), "⟨e₂, e₂⟩": (e2, e2), "⟨e₁, e₂⟩": (e1, e2), "⟨e₁, x⟩": (e1, x), "⟨e₂, x⟩": (e2, x)}
for name, (a, b) in products.items():
    print(f"{name} = {(a * b).sum(-1).mean():.6f}, the same at all points to {(a * b).sum(-1).std():.0e}")

# %% [markdown]
# ## exp: walk from here
#
# Stand at x, look along a tangent vector v, and walk straight ahead for the distance |v| (in radians). Where do you arrive?
#
# You never turn, so you stay in the plane that contains x and the direction of the walk, e = v/|v|. This plane cuts the sphere in a
# circle of radius 1, on which you walk an arc of length |v|. In the plane, x and e are two orthogonal axes, and the
# point at the angle |v| on the circle has the coordinates cos|v| and sin|v|:
#
# $$\exp_x(v) = \cos|v|\; x + \sin|v|\;\frac{v}{|v|} .$$
#
# This is the *exponential map*.


# %%
def naive_exp(x, v):
    n = v.norm(dim=-1, keepdim=True)
    return torch.cos(n) * x + torch.sin(n) * v / n


# %% [markdown]
# *What to look for:* on the left, the circle of the walk in its own plane. On the right, three walks from one point on a globe. The
# orange square is a piece of the tangent plane, which touches the globe at the black point. Each dashed arrow in the square
# is wrapped onto the globe.

# %%
foot = sphere.from_latlon(torch.tensor([32.0, -38.0], dtype=torch.float64))
e1, e2 = sphere.tangent_basis(foot)
corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) * 0.85
ways = torch.linspace(0, 1, 60, dtype=torch.float64)[:, None]

fig, (circle, ax) = plt.subplots(1, 2, figsize=(9.6, 4.6), layout="constrained")
lessons.draw_exp_in_its_plane(circle, angle=1.0)
globe = Globe(ax, 8, 0, "three walks from the black point")
square = (foot + corners @ torch.stack([e1, e2])) @ globe.axes.T
ax.fill(*square[:, :2].T, fc=ORANGE, ec="#b57a00", alpha=0.28, zorder=2)
for angle, color in ((0.2, RED), (2.0, GREEN), (4.9, BLUE)):
    v = 0.8 * (math.cos(angle) * e1 + math.sin(angle) * e2)
    ax.plot(*((foot + ways * v) @ globe.axes.T)[:, :2].T, color=color, lw=1.6, ls="--", zorder=4, label="v")
    globe.line(sphere.exp(foot, ways * v), color=color, lw=2.6, zorder=4, label="exp(tv), 0 ≤ t ≤ 1")
    globe.points(sphere.exp(foot, v), color=color, size=13)
globe.points(foot, color="black", size=13)
ax.legend(*(items[:2] for items in ax.get_legend_handles_labels()), loc="lower left", fontsize=9)
ax.set(xlim=(-1.45, 1.05), ylim=(-1.05, 1.55))
plt.show()

# %%
walked = sphere.exp(foot, ways * 0.8 * e1)
steps = sphere.distance(walked[:-1], walked[1:])
print(f"length of the arrow: {0.8:.4f}; length of the walk: {steps.sum():.4f}; all steps equal to {steps.std():.0e}")

# %% [markdown]
# *What was seen:* the dashed lines are the arrows v in the tangent plane, and the solid lines are the walks exp(tv) for t from 0
# to 1. Dashed and solid lines have equal length, 0.8, as the printed line measures for one of them. They differ in the picture
# because we see the square and the globe at an angle. So exp keeps lengths *along* the walk. It does squeeze lengths *across* the
# walk; we come back to that.
#
# ## log: how do I walk there?
#
# The inverse question: I stand at x. Which tangent vector leads to y? Let θ be the angle between x and y, so that
# cos θ = ⟨x, y⟩. The walk of the last section arrives at y when
#
# $$y = \cos\theta\; x + \sin\theta\; e .$$
#
# Solve this for the direction: e = (y − cos θ x) / sin θ. The vector that we look for has this direction and the length θ:
#
# $$\log_x(y) = \theta\, e = \frac{\theta}{\sin\theta}\,(y - \cos\theta\; x), \qquad \theta = \arccos\langle x, y\rangle .$$
#
# This is the *logarithm map*. It undoes exp.


# %%
def naive_log(x, y):
    c = (x * y).sum(-1, keepdim=True)
    theta = torch.arccos(c)
    return theta / torch.sin(theta) * (y - c * x)


x, y = random_points(n_points), random_points(n_points)
back = naive_exp(x, naive_log(x, y))
print(f"largest error of exp(log) in float64: {sphere.distance_km(back, y).max() * 1e6:.2f} mm")

# %% [markdown]
# Drag the two points of the explorer. *What to look for:* the arrow of log at the first point, and the way along which exp walks. Take
# the second point to the other side of the Earth, and watch the arrow swing around.

# %%
from geoflow import widgets

player = widgets.explore_sphere((48.9, 2.4), (35.7, 139.7), keep=True)
player

# %% [markdown]
# The same as a still picture. *What to look for:* the red arrow lies in the orange plane, which touches the globe at Paris. It has
# the direction in which the blue way leaves Paris, and in space it is as long as the blue way.

# %%
paris, tokyo = sphere.from_latlon(latlon[0]), sphere.from_latlon(latlon[1])
fig, ax = plt.subplots(figsize=(7, 5), layout="constrained")
lessons.draw_exp_and_log(Globe(ax, 48, 62, "log at Paris, and the way to Tokyo"), paris, tokyo, ("Paris", "Tokyo"))
plt.show()
arrow = sphere.log(paris, tokyo).norm().item()
print(f"length of log(Tokyo) at Paris: {arrow:.3f} radians = {arrow * sphere.EARTH_RADIUS_KM:,.0f} km")

# %% [markdown]
# *What was seen:* the arrow ends above the globe, since the plane is flat. The function exp bends it down to Tokyo. The blue way is a
# *geodesic*, a shortest path, to which we come back.
#
# The formulas of exp and log have two lines each. They are correct in float64 and for points far apart. Now we use them as a network
# would.
#
# ## The trap: arccos in float32
#
# Networks compute in float32, which keeps about 7 digits. That is about half a metre on the surface of the Earth, so it should be plenty. We
# place pairs of points at known distances, round them to float32, and measure the distance between them in two ways.
#
# The first is the textbook's arccos⟨x, y⟩. The second uses the half angle. For unit vectors at the angle θ,
#
# $$|x - y|^2 = 2 - 2\cos\theta = 4\sin^2\tfrac\theta2, \qquad |x + y|^2 = 2 + 2\cos\theta = 4\cos^2\tfrac\theta2 .$$
#
# So |x − y| and |x + y| are the sine and the cosine of the half angle, both times 2, and
#
# $$\theta = 2\,\text{atan2}\big(|x - y|,\; |x + y|\big) .$$
#
# The function atan2(s, c) returns the angle whose sine and cosine are in the ratio s to c.


# %%
def arccos_km(x, y):
    return torch.arccos((x * y).sum(-1)).double() * 6371.0  # the last product in float64: kilometres should not round again


def half_angle_km(x, y):
    return 2 * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1)).double() * 6371.0


def at_distance(km, n):
    """n random pairs of points at a known distance, computed in float64 and rounded to float32."""
    x = random_points(n)
    return x.float(), sphere.exp(x, sphere.tangent_basis(x)[0] * km / 6371.0).float()


# %% [markdown]
# > **Predict before you run.** Two places are 1 km apart. What does `arccos_km` answer in float32: 1.000 km, about 1 km, or something
# > else?

# %%
print("true distance    arccos reads 0    arccos reads NaN    arccos, median    half angle, worst")
for km in (0.001, 0.1, 1.0, 2.0, 10.0, 1000.0):
    x, y = at_distance(km, n_points)
    d = arccos_km(x, y)
    print(
        f"{km:10.3f} km {(d == 0).double().mean():15.0%} {d.isnan().double().mean():18.1%} "
        f"{d.nanmedian():15.3f} km {(half_angle_km(x, y) - km).abs().max() * 1000:16.2f} m off"
    )

# %% [markdown]
# For two places one kilometre apart, arccos most often answers 0 km. Near zero, cos θ ≈ 1 − θ²/2, and float32 has few
# numbers just below 1. The next cell lists the largest of them and the distances that they stand for.

# %%
below_one = torch.tensor(1.0)
print("numbers that float32 has near 1, and the distance whose cosine they are")
for _ in range(4):
    print(f"  1 − {1 - below_one.double():.2e}   {sphere.EARTH_RADIUS_KM * math.acos(below_one.double()):6.2f} km")
    below_one = torch.nextafter(below_one, torch.tensor(0.0))
swallowed = sphere.EARTH_RADIUS_KM * math.acos(1 - 2.0**-25)  # half-way to the first number below 1, where rounding goes up to 1
first_step = sphere.EARTH_RADIUS_KM * math.acos(1 - 2.0**-24)
print(f"a cosine of a distance below {swallowed:.1f} km is rounded to 1")

# %% [markdown]
# Most distances below 1.6 km are reported as 0, and the first distance above 0 that can be reported is 2.2 km. Rounding upwards is
# worse: a scalar product just above 1 has no arccos, and we read NaN ("not a number"). An "accuracy within 1 km" that is computed
# in this way means nothing.
#
# Now the worst error of both formulas over the whole range, from one metre to the antipode, the opposite point of the Earth
# at 20,015 km.

# %%
kms = torch.cat([torch.logspace(-3, 4, 36, dtype=torch.float64), 20015.0 - torch.logspace(4, -0.5, 20, dtype=torch.float64)])
worst = {"arccos": [], "half angle": []}
for km in kms.tolist():
    x, y = at_distance(km, 2000)
    worst["arccos"].append((arccos_km(x, y) - km).abs().nan_to_num(0.0).max().item() * 1000)  # generous: NaN counts as no error
    worst["half angle"].append((half_angle_km(x, y) - km).abs().max().item() * 1000)

# %% [markdown]
# *What to look for:* the two ends of the range, near 0 and near the antipode. Both axes are logarithmic.

# %%
near, far = slice(0, 36), slice(36, None)
fig, axes = plt.subplots(1, 2, figsize=(8, 3.4), sharey=True, layout="constrained")
for (name, errors), color, marker in zip(worst.items(), (RED, BLUE), "os", strict=True):
    axes[0].loglog(kms[near], errors[near], color=color, marker=marker, ms=3, label=name)
    axes[1].loglog(20015.0 - kms[far], errors[far], color=color, marker=marker, ms=3)
for ax in axes:
    ax.axhline(1.0, color=GREY, lw=0.8, ls=":")
axes[0].annotate("1 m", (2e-3, 1.15), color=GREY, fontsize=9)
axes[0].set(xlabel="true distance (km)", ylabel="worst error of 2,000 pairs (m)", ylim=(1e-2, 1e4))
axes[1].set(xlabel="distance left to the antipode (km)")
axes[1].invert_xaxis()
axes[0].legend(loc="lower left")
plt.show()
at_ten_thousand = {name: errors[35] for name, errors in worst.items()}
print({name: f"{m:.2f} m at 10,000 km" for name, m in at_ten_thousand.items()})
print({name: f"{max(errors):.2f} m at worst" for name, errors in worst.items()})

# %% [markdown]
# *What was seen:* arccos errs by kilometres at both ends. The half angle errs by half a metre at short distances, and it stays within
# two metres everywhere. Around 10,000 km arccos is even the better of the two (0.50 m against 1.78 m), but errors of this size do not
# matter for places of photos, and kilometres do. So `sphere.distance` is the half-angle form.
#
# ### The gradient
#
# The gradient is a second trap. A loss that contains a distance is differentiated, sooner or later, at two equal points:

# %%
clamped = lambda x, y: 6371.0 * torch.arccos((x * y).sum(-1).clamp(-1, 1))  # noqa: E731 (a well-meant repair)

gradient = {}
for name, km in (("arccos", arccos_km), ("arccos with a clamp", clamped), ("half angle", half_angle_km)):
    here = torch.tensor([0.6, 0.8, 0.0], requires_grad=True)
    km(here, here.detach()).backward()
    gradient[name] = here.grad
    print(f"{name:20s} gradient at distance 0: {here.grad.tolist()}")

# %% [markdown]
# One such pair in a batch is enough, and every weight of the network is NaN after the step. A clamp to [−1, 1], a
# common repair, does not help. The half angle returns 0.
#
# This 0 is a convention. As a function of x, the distance to y looks like the tip of a cone near y, and a tip has no gradient. PyTorch
# chooses 0 for the length of a zero vector. This choice is finite, and it leaves a point that is already in its place where it is.
#
# ## The forms that work
#
# The same care gives a `log` that is right near 0 and near π. Let u be the tangent part of y. Then |u| = sin θ and ⟨x, y⟩ =
# cos θ are *both* at hand, so θ = atan2(|u|, ⟨x, y⟩) loses no digits. And `exp` divides by |v|, which fails at v = 0. The function
# `sinc`, sinc(a) = sin(πa)/(πa) with sinc(0) = 1, does not fail. This is what the package does:


# %%
def good_exp(x, v):
    n = v.norm(dim=-1, keepdim=True)
    return sphere.unit(torch.cos(n) * x + torch.sinc(n / math.pi) * v)


def good_log(x, y):
    c = (x * y).sum(-1, keepdim=True)
    u = to_tangent(x, y - c.sign() * x)  # y ∓ x is exact where y is close to ±x; its tangent part is that of y
    s = u.norm(dim=-1, keepdim=True)
    return u * torch.atan2(s, c) / s


x, y = sphere.uniform(n_points), sphere.uniform(n_points)
torch.testing.assert_close(good_log(x, y), sphere.log(x, y))
torch.testing.assert_close(good_exp(x, good_log(x, y)), sphere.exp(x, sphere.log(x, y)))
torch.testing.assert_close(half_angle_km(x, y), sphere.distance_km(x, y).double(), rtol=1e-6, atol=1e-3)
print("both equal the package's functions")

# %%
worst_good = {}
print("float32, exp(log) of a pair at a known distance: worst error")
for km in (0.001, 1.0, 1000.0, 20000.0, 20014.0):
    x, y = at_distance(km, n_points)
    naive = sphere.distance_km(naive_exp(x, naive_log(x, y)), y)
    good = sphere.distance_km(sphere.exp(x, sphere.log(x, y)), y)
    worst_good[km] = good.max().item() * 1000
    print(f"{km:10.3f} km   naive {naive.nan_to_num(float('inf')).max() * 1000:12.2f} m   good {worst_good[km]:6.2f} m")

# %% [markdown]
# Here `inf` stands for NaN: for at least one pair the naive version broke down. The good version stays within six
# metres, at any of these distances, from one metre to one kilometre short of the antipode. From here on we use the package's
# `sphere.exp`, `sphere.log` and `sphere.distance_km`.
#
# ## Geodesics: straight lines on a round Earth
#
# Walk from x₀ towards x₁ without turning, and you follow the shortest path, a **geodesic**:
#
# $$x_t = \exp_{x_0}\!\big(t\,\log_{x_0}(x_1)\big), \qquad t \in [0, 1].$$
#
# We compare three ways from Paris to Tokyo: the geodesic; the straight line on a latitude-longitude map; and the *rhumb
# line*, which keeps a constant compass bearing and is a straight line on a Mercator map (the map whose vertical axis is
# asinh(tan φ)).
#
# > **Predict before you run.** Which way is the shortest? How far north does it go?

# %%
t = torch.linspace(0, 1, 400, dtype=torch.float64)
(lat0, lon0), (lat1, lon1) = latlon[0], latlon[1]


def mercator(lat):
    return torch.asinh(torch.tan(torch.deg2rad(lat)))


def between(a, b):
    return a + t * (b - a)


constant_bearing = torch.rad2deg(torch.atan(torch.sinh(between(mercator(lat0), mercator(lat1)))))
ways = {
    "geodesic": sphere.to_latlon(sphere.geodesic(paris.expand(400, 3), tokyo.expand(400, 3), t)),  # 400 copies, one for each time
    "rhumb line": torch.stack([constant_bearing, between(lon0, lon1)], -1),
    "straight in degrees": torch.stack([between(lat0, lat1), between(lon0, lon1)], -1),
}

# %%
length = {}
for name, way in ways.items():
    x = sphere.from_latlon(way)
    length[name] = sphere.distance_km(x[:-1], x[1:]).sum().item()
    print(f"{name:20s} {length[name]:7.0f} km, northernmost latitude {way[:, 0].max():.1f}°")
print(f"{'through the Earth':20s} {6371 * (tokyo - paris).norm():7.0f} km")
longer = length["straight in degrees"] / length["geodesic"] - 1
apart = (ways["rhumb line"] - ways["straight in degrees"])[:, 0].abs().max().item()
print(f"straight in degrees is {longer:.0%} longer than the geodesic; it differs from the rhumb line by at most {apart:.1f}° of latitude")

# %% [markdown]
# *What to look for:* which of the three looks straight on the map, and which on the globe above the middle of the trip. The rhumb line
# and the straight line in degrees lie so close together here that one is drawn as dashes on the other.

# %%
style = {
    "geodesic": {"color": BLUE, "lw": 2.4},
    "rhumb line": {"color": ORANGE, "lw": 3.4},
    "straight in degrees": {"color": RED, "lw": 1.4, "ls": "--"},
}
fig, (flat, round_earth) = plt.subplots(1, 2, figsize=(9.4, 3.7), width_ratios=(1.75, 1), layout="constrained")
lessons.draw_flat_land(flat, lat=(-15, 82), lon=(-30, 180))
globe = Globe(round_earth, *sphere.to_latlon(sphere.geodesic(paris, tokyo, 0.5)).tolist())
for name, way in ways.items():
    flat.plot(way[:, 1], way[:, 0], **style[name], label=f"{name}, {length[name]:,.0f} km")
    globe.line(sphere.from_latlon(way), **style[name])
for x, name, shift in ((paris, "Paris", (-0.2, 0.07)), (tokyo, "Tokyo", (0.02, 0.07))):
    globe.points(x, color="black", size=9)
    globe.label(x, name, shift)
flat.legend(loc="lower left", fontsize=8)
plt.show()

# %% [markdown]
# *What was seen:* the map is misleading. The detour through Siberia, up to 68.7° N, is the straight way: seen from above its
# middle, it does not bend to either side. The line that looks straight on the map is 17 % longer. In this series, the "path" of a point
# always means the blue one.
#
# ## The velocity of a geodesic
#
# A flow model learns velocities, so we need the derivative of x_t. Let θ = |log(x₁)| and e = log(x₁)/θ, both taken at x₀. Then the
# geodesic is x_t = cos(tθ) x₀ + sin(tθ) e, and its derivative with respect to t is
#
# $$\dot x_t = -\theta\,\sin(t\theta)\; x_0 + \theta\cos(t\theta)\; e = -\theta\,\sin(t\theta)\; x_0 + \cos(t\theta)\,\log_{x_0}(x_1) .$$
#
# It is tangent at x_t. Its length is θ at every t, because x₀ and e are orthogonal unit vectors and sin² + cos² = 1. The
# traveller neither accelerates nor turns.
#
# We check the formula against automatic differentiation, which does not know it. The call `torch.func.jvp(f, (t,), (1,))` (for
# Jacobian-vector product) returns f(t) and the derivative of f at t.

# %%
x0, x1 = random_points(n_points), random_points(n_points)
times = torch.rand(n_points, dtype=torch.float64)
xt, velocity = torch.func.jvp(lambda s: sphere.geodesic(x0, x1, s), (times,), (torch.ones_like(times),))
formula = sphere.geodesic_velocity(x0, x1, times)
speed = formula.norm(dim=-1)
rest = sphere.log(xt, x1) / (1 - times)[:, None]
print(f"largest difference from autograd:                  {(formula - velocity).abs().max():.1e}")
print(f"largest component out of the tangent plane:        {(formula * xt).sum(-1).abs().max():.1e}")
print(f"largest difference of speed and distance:          {(speed - sphere.distance(x0, x1)).abs().max():.1e}")
print(f"largest difference from rest of way / rest of time: {(rest - formula).abs().max():.1e}")

# %% [markdown]
# Remember the last line: the velocity is also "the rest of the way, divided by the rest of the time",
# log(x₁)/(1 − t), where log is taken at x_t.
#
# Now we describe the same traveller by a compass. The *bearing* of a tangent vector is its angle from north, clockwise.
#
# > **Predict before you run.** The traveller never turns. Does the bearing stay the same?


# %%
def bearing(x, v):
    """Degrees clockwise from north of a tangent vector."""
    north = sphere.unit(sphere.to_tangent(x, torch.tensor([0.0, 0.0, 1.0], dtype=x.dtype)))
    east = torch.linalg.cross(north, x)
    return torch.rad2deg(torch.atan2((v * east).sum(-1), (v * north).sum(-1))) % 360


stops = torch.linspace(0, 1, 6, dtype=torch.float64)
points = sphere.geodesic(paris.expand(6, 3), tokyo.expand(6, 3), stops)
along = sphere.geodesic_velocity(paris.expand(6, 3), tokyo.expand(6, 3), stops)
bearings = bearing(points, along)
print(f"speed at the six stops: {along.norm(dim=-1).min():.3f} to {along.norm(dim=-1).max():.3f} radians per unit of time")
print(f"bearing: {bearings[0]:.0f}° when leaving Paris, {bearings[-1]:.0f}° when arriving in Tokyo")

# %% [markdown]
# *What to look for:* the red arrows, one sixth of the velocity each, on the globe, and the bearing at the same six stops.

# %%
fig, axes = plt.subplots(1, 2, figsize=(8.4, 3.8), width_ratios=(1, 1.1), layout="constrained")
globe = Globe(axes[0], 42, 75, "velocity at six stops")
globe.line(sphere.geodesic(paris.expand(400, 3), tokyo.expand(400, 3), t), color=BLUE, lw=1.5)
globe.arrows(points, along, scale=6)
globe.points(points, size=9)
axes[1].plot(stops * length["geodesic"], bearings, "o-", color=BLUE)
axes[1].set(xlabel="distance travelled (km)", ylabel="bearing (degrees from north)", title="the bearing at these stops")
plt.show()

# %% [markdown]
# *What was seen:* the arrows lie along the curve and have equal length, up to the angle at which we see them; the bearing grows from
# 33° to 153°. It is the compass that turns. The directions "north" and "east" change from place to place, so they are not fit
# for describing velocities. The three components of a tangent vector are.
#
# ## Covering the sphere evenly
#
# We will integrate densities over the Earth, which needs points of equal weight. The package has three kinds:
#
# * `sphere.uniform(n)`: n random points;
# * `sphere.fibonacci_grid(n)`: n points on a spiral from pole to pole, which turns by the golden angle (137.5°) at each step;
# * `healpix.centers(cells, level)`: the centres of 12 · 4^level cells of *exactly* equal area. Each cell splits
#   into four cells of the next level, so that a map can be refined just where something happens.

# %%
level = 3
cells = 12 * 4**level
covers = {
    "random": sphere.uniform(cells),
    "Fibonacci": sphere.fibonacci_grid(cells),
    "HEALPix": healpix.centers(torch.arange(cells), level),
}
nearest = {}
for name, x in covers.items():
    between_points = sphere.distance_km(x.double()[:, None], x.double()[None]).fill_diagonal_(float("inf"))
    nearest[name] = between_points.min(1).values
    print(f"{name:10s} {cells} points, nearest neighbour: {nearest[name].min():6.0f} to {nearest[name].max():6.0f} km")
print(f"golden angle: {180 * (3 - math.sqrt(5)):.1f}°")

# %% [markdown]
# *What to look for:* where do points crowd, and where do they leave holes?

# %%
fig, axes = plt.subplots(1, 3, figsize=(9, 3.3), layout="constrained")
for ax, (name, x), color in zip(axes, covers.items(), (RED, BLUE, GREEN), strict=True):
    Globe(ax, 30, 20, f"{name}, {cells} points").points(x, color=color)
plt.show()

# %% [markdown]
# *What was seen:* random points clump. Some have a neighbour within a few dozen kilometres, others stand alone. In both
# grids the nearest neighbour of every point is 670 to 840 km away.
#
# What is the use of even points? We integrate a function whose integral we know, the bump $e^{\kappa(\mu\cdot x - 1)}$ with its top at
# μ. With κ = 50 it falls to 1/e at 11.5°, or 1,276 km, from the top. (It will return as the *von Mises–Fisher* density.) Its integral is
# 2π (1 − e^(−2κ))/κ, because the height z = μ·x is uniform: the slice of the sphere between z and z + dz has the area 2π dz, which is
# Archimedes' theorem.

# %%
peak, kappa = sphere.from_latlon(torch.tensor([48.0, 2.0], dtype=torch.float64)), 50.0
exact = 2 * math.pi * (1 - math.exp(-2 * kappa)) / kappa
width = math.acos(1 - 1 / kappa)
print(f"the bump falls to 1/e at {math.degrees(width):.1f}° = {sphere.EARTH_RADIUS_KM * width:,.0f} km")


def relative_error(x):
    estimate = 4 * math.pi * torch.exp(kappa * (x.double() @ peak - 1)).mean()
    return abs(estimate.item() / exact - 1)


levels = range(1, 7)
sizes = [12 * 4**k for k in levels]
integral_error = {
    "random": [sum(relative_error(sphere.uniform(n)) for _ in range(20)) / 20 for n in sizes],  # the average of 20 draws
    "Fibonacci": [relative_error(sphere.fibonacci_grid(n)) for n in sizes],
    "HEALPix": [relative_error(healpix.centers(torch.arange(n), k)) for n, k in zip(sizes, levels, strict=True)],
}

# %% [markdown]
# *What to look for:* how much each curve falls when the number of points is multiplied by four, which is one step to the right.

# %%
fig, ax = plt.subplots(figsize=(5.6, 3.4), layout="constrained")
for (name, e), color in zip(integral_error.items(), (RED, BLUE, GREEN), strict=True):
    ax.loglog(sizes, e, "o-", color=color, label=name)
ax.set(xlabel="number of points", ylabel="relative error of the integral")
ax.legend()
plt.show()
print({name: f"{e[3]:.0e}" for name, e in integral_error.items()}, "with", sizes[3], "points")
per_step = (integral_error["random"][0] / integral_error["random"][-1]) ** (1 / 5)
print(f"four times as many random points divide the error by {per_step:.1f}, on average over the five steps")

# %% [markdown]
# *What was seen:* four times as many random points halve the error. Once its cells are finer than the bump, HEALPix is more than a
# hundred times better than random points, and the Fibonacci spiral reaches the rounding of float32. So the package uses grids for
# integrals and random points for sampling.
#
# ## exp squeezes areas
#
# The map exp keeps lengths along the way. But two neighbours who leave x in slightly different directions meet again at
# the antipode. A circle of radius r has the circumference 2πr in the tangent plane, but only 2π sin r on the sphere. So across
# the way, lengths shrink by the factor sin r / r at the distance r. Areas shrink by the same factor: **an
# even distribution in the tangent plane is not even on the sphere**.

# %%
start = sphere.from_latlon(torch.tensor([20.0, 10.0], dtype=torch.float64))
e1, e2 = sphere.tangent_basis(start)
turn = torch.linspace(0, 2 * math.pi, 100, dtype=torch.float64)[:, None]


def discs():
    """Equal discs of radius 0.16 in the tangent plane: the ring's number, and the outline's coordinates a and b."""
    for ring, (r, count) in enumerate(((0.0, 1), (0.65, 6), (1.2, 9), (1.85, 12), (2.3, 12), (2.7, 12))):
        for direction in torch.arange(count) * 2 * math.pi / count:
            yield ring, r * direction.cos() + 0.16 * turn.cos(), r * direction.sin() + 0.16 * turn.sin()


# %% [markdown]
# *What to look for:* equal discs in the tangent plane (left) and their images on the globe, seen from above the start
# (middle) and from above its antipode (right). The dotted circle, at distance π, is the antipode: all of it is one
# point of the globe.

# %%
fig, axes = plt.subplots(1, 3, figsize=(9.4, 3.5), layout="constrained")
globes = Globe(axes[1], 20, 10, "on the globe, from above the start"), Globe(axes[2], -20, -170, "from above the antipode")
on_a_globe = []
for ring, a, b in discs():
    color = plt.cm.viridis(ring / 6)
    axes[0].fill(a[:, 0], b[:, 0], color=color)
    image = sphere.exp(start, a * e1 + b * e2)
    drawn = [globe.fill(image, color=color) for globe in globes]
    on_a_globe.append(any(drawn))
axes[0].add_patch(plt.Circle((0, 0), math.pi, fill=False, color=GREY, ls=":"))
axes[0].set(xlim=(-3.3, 3.3), ylim=(-3.3, 3.3), aspect="equal", title="in the tangent plane")
axes[0].set(xlabel="along e₁ (radians)", ylabel="along e₂ (radians)")
plt.show()
print(f"{sum(on_a_globe)} of the {len(on_a_globe)} discs are drawn on one of the two globes")

# %% [markdown]
# *What was seen:* near the start the discs stay discs. (Those near the rim of a globe look narrow only because we see
# them from the side.) Around the antipode, twelve discs that were far apart in the plane are needles, side by side.
#
# Automatic differentiation confirms the factor. The call `torch.func.jacrev(f)(p)` returns the matrix of all partial derivatives of f at
# p, the *Jacobian matrix*. Here it has two columns: where the image moves when we move by one unit along e₁, and along e₂. The two
# columns span a parallelogram, the image of a unit square, and the length of their cross product is its area.

# %%
print("distance   area after / before   sin r / r")
squeeze = {}
for r in (0.5, 1.0, 2.0, 3.0):
    at = torch.tensor([r, 0.0], dtype=torch.float64)
    jacobian = torch.func.jacrev(lambda ab: sphere.exp(start, ab[0] * e1 + ab[1] * e2))(at)
    squeeze[r] = torch.linalg.cross(jacobian[:, 0], jacobian[:, 1]).norm().item()
    print(f"{r:8.1f} {squeeze[r]:21.6f} {math.sin(r) / r:11.6f}")

# %% [markdown]
# A flow carries a density over the sphere, and such changes of area dilute and concentrate it. Notebook 02
# keeps count of them in the plane, notebook 03 on the sphere.
#
# ## The antipode, where log ends
#
# The antipode of Paris lies in the ocean south-east of New Zealand. From Paris, every direction is a shortest way to it. Take two targets
# close to the antipode, on opposite sides of it: they are reached by leaving Paris in opposite directions. So `log`
# jumps there. The set of points where shortest ways stop being unique is called the *cut locus*; here it is a single point.
#
# *What to look for:* the colour of a place is the direction in which one leaves Paris to reach it, and the grey lines are coasts. The
# left globe is seen from above Paris, the right one from above its antipode.

# %%
pixel = torch.linspace(-1, 1, 300, dtype=torch.float64)
u, v = torch.meshgrid(pixel, pixel, indexing="xy")
toward_eye = (1 - u**2 - v**2).clamp(min=0).sqrt()  # the orthographic projection, inverted

fig, axes = plt.subplots(1, 2, figsize=(7.8, 3.5), layout="constrained")
for ax, centre, title, mark in ((axes[0], latlon[0], "Paris", "o"), (axes[1], sphere.to_latlon(-paris), "its antipode", "X")):
    globe = Globe(ax, *centre.tolist(), title)
    place = sphere.unit(torch.stack([u, v, toward_eye], -1) @ globe.axes)
    leaving = bearing(paris, sphere.log(paris.expand_as(place), place)).where(u**2 + v**2 < 1, torch.nan)
    image = ax.imshow(leaving, origin="lower", extent=(-1, 1, -1, 1), cmap="twilight", vmin=0, vmax=360, zorder=2)
    globe.line(lessons.coastlines(), color="#3f4a52", lw=0.7, zorder=3)
    ax.plot(0, 0, mark, color="white", mec="black", ms=9, zorder=4)
bar = fig.colorbar(image, ax=axes, ticks=(0, 90, 180, 270, 360), shrink=0.8, label="direction when leaving Paris")
bar.ax.set_yticklabels(["north", "east", "south", "west", "north"])
plt.show()

# %%
e1, e2 = sphere.tangent_basis(-paris)
two_km_apart = sphere.exp(-paris, torch.stack([e1, -e1]) / 6371.0)
logs = sphere.log(paris.expand(2, 3), two_km_apart)
cosine = torch.nn.functional.cosine_similarity(*logs, dim=-1).item()
print(f"two places {sphere.distance_km(*two_km_apart):.1f} km apart near the antipode: cosine between their logs {cosine:+.6f}")

try:
    sphere.log(paris, -paris)
    refused = False
except ValueError as error:
    refused = True
    print("ValueError:", error)

too_close = (1 - math.cos(1e-3)) / 2
print(f"chance that a uniform point lies within 0.001 rad (6.4 km) of the antipode: {too_close:.1e}, one in {1 / too_close:,.0f}")

# %% [markdown]
# *What was seen:* all colours meet at two places. In Paris this is harmless, because the vector there has length 0. At the
# antipode it has length π, and neighbours get opposite velocities. The package refuses to guess at the exact antipode. In training, the
# one noise point in four million that comes within 0.001 rad of the antipode is moved to the opposite side of the Earth.
#
# ## Check
#
# The numbers on which the text relies, asserted:

# %%
assert abs(middle_of_degrees[1]) < 1e-9
assert abs(abs(middle_of_vectors[1]) - 180) < 1e-9
assert abs(share_degrees - 1 / 6) < 0.03
assert abs(share_sphere - share_true) < 0.02
assert abs(share_true - 0.067) < 0.0005
one_km = at_distance(1.0, n_points)
assert (arccos_km(*one_km) == 0).double().mean() > 0.5, "arccos reads 0 km for most pairs 1 km apart"
assert (half_angle_km(*one_km) - 1).abs().max() < 1e-3, "the half angle is right to a metre there"
assert (round(swallowed, 1), round(first_step, 1)) == (1.6, 2.2)
assert max(worst["half angle"]) < 2.0 < 1000 < max(worst["arccos"])
assert at_ten_thousand["arccos"] < 1 < at_ten_thousand["half angle"]
assert max(worst_good.values()) < 6
assert gradient["half angle"].abs().max() == 0
assert not gradient["arccos with a clamp"].isfinite().all()

# %%
assert length["geodesic"] < length["rhumb line"] < length["straight in degrees"]
assert round(100 * longer) == 17
assert abs(ways["geodesic"][:, 0].max() - 68.7) < 0.05
torch.testing.assert_close(formula, velocity)
torch.testing.assert_close(speed, sphere.distance(x0, x1))
torch.testing.assert_close(rest, formula)
assert [round(b.item()) for b in (bearings[0], bearings[-1])] == [33, 153]
assert all(670 < nearest[grid].min() < nearest[grid].max() < 840 for grid in ("Fibonacci", "HEALPix"))
assert nearest["random"].min() < 100
assert round(sphere.EARTH_RADIUS_KM * width) == 1276
assert 1.7 < per_step < 2.3
assert integral_error["HEALPix"][3] < integral_error["random"][3] / 100
assert integral_error["Fibonacci"][3] < 1e-6
assert all(abs(area - math.sin(r) / r) < 1e-9 for r, area in squeeze.items())
assert all(on_a_globe)
assert refused
assert cosine < -0.999
print("all checks passed")

# %% [markdown]
# ## Exercises
#
# Each exercise has a gap and a check. The check prints "to do" until the gap is filled. The solutions, executed, are in
# [solutions/01_the_sphere](solutions/01_the_sphere.ipynb).
#
# ### Exercise 1 · The middle of many places
#
# The normalised mean of unit vectors is one answer to "where is the middle?". Another is the point with the smallest mean
# *squared distance* to all places, the Fréchet mean.
#
# * **Stage a.** From the point m, the vectors log_m(xᵢ) lead to the places. Write one step: walk from m along their mean.
# * **Stage b.** Repeat the step 200 times, and start from the normalised mean of the five cities above.
# * **Stage c.** How far apart are the two middles, and why? Where do they agree?

# %%
cities = sphere.from_latlon(latlon)
normalised = sphere.project(cities.mean(0))


def one_step(m, places):
    """The point (3,) that is reached from m (3,) along the mean of the logs of the places (n, 3)."""
    # your code here: use sphere.log(m.expand_as(places), places) and sphere.exp


def frechet_mean(places):
    """200 steps from the normalised mean."""
    # your code here


# %% [markdown]
# The check of exercise 1:


# %%
def mean_squared_distance(m):
    return sphere.distance(m, cities).square().mean().item()


m = one_step(normalised, cities)
if m is None:
    print("exercise 1, stage a: to do")
else:
    assert mean_squared_distance(m) < mean_squared_distance(normalised), "a step should reduce the mean squared distance"
    print("exercise 1, stage a: right")

m = frechet_mean(cities)
if m is None:
    print("exercise 1, stage b: to do")
else:
    assert sphere.log(m.expand_as(cities), cities).mean(0).norm() < 1e-6, "at the minimum the mean of the logs is 0"
    print(f"exercise 1, stage b: right; the two middles are {sphere.distance_km(m, normalised):.0f} km apart")

# %% [markdown]
# ### Exercise 2 · How random is random?
#
# * **Stage a.** Put one place at the North Pole and draw the other uniformly. Its height z is uniform in [−1, 1] (Archimedes), and
#   z = cos d. Derive the density of the distance d on [0, π]. What is the mean distance in km?
# * **Stage b.** The *GeoScore* of a guess at the distance d is 5000 · exp(−d / 1492.7 km). What does a random guess get on average?
#   You need ∫ e^(−ad) sin d dd from 0 to π, which is (1 + e^(−aπ))/(1 + a²).

# %%
expected_km = None  # your code here
expected_score = None  # your code here

# %% [markdown]
# The check of exercise 2, by samples:

# %%
d = sphere.distance_km(sphere.uniform(200_000), sphere.uniform(200_000)).double()
sampled = {"a": d.mean().item(), "b": (5000 * torch.exp(-d / 1492.7)).mean().item()}
for (stage, mean), answer, tolerance in zip(sampled.items(), (expected_km, expected_score), (40, 5), strict=True):
    if answer is None:
        print(f"exercise 2, stage {stage}: to do")
    else:
        assert abs(answer - mean) < tolerance, f"your {answer:.1f}, but the samples have a mean of {mean:.1f}"
        print(f"exercise 2, stage {stage}: right, {answer:.1f}, where the samples have {mean:.1f}")

# %% [markdown]
# ### Exercise 3 · A tape measure with a floor
#
# * **Stage a.** Write a distance in km that uses `arccos` of the scalar product, clamped to [−1 + 1e-7, 1 − 1e-7], in float32.
# * **Stage b.** What is the smallest distance that it can report? What happens to "accuracy within 1 km", the share of guesses
#   that are less than 1 km away?


# %%
def clamped_km(x, y):
    """Distances in km of points (n, 3), by a clamped arccos."""
    # your code here


# %% [markdown]
# The check of exercise 3:

# %%
truth = sphere.uniform(2_000)
answer = clamped_km(truth, truth)
if answer is None:
    print("exercise 3: to do")
else:
    assert 2.8 < answer.min() < 3.3, "between equal points it should report its floor, about 3 km"
    far_away = at_distance(5_000.0, 2_000)
    assert (clamped_km(*far_away) - 5_000).abs().max() < 0.01, "at 5,000 km it should be right to 10 m"
    print(f"exercise 3: right; it cannot report less than {answer.min():.2f} km")

# %% [markdown]
# ## References
#
# * R. T. Q. Chen, Y. Lipman, *Flow Matching on General Geometries*, ICLR 2024, arXiv 2302.03660: geodesics as the paths
#   of a flow.
# * N. Dufour, D. Picard, V. Kalogeiton, L. Landrieu, *Around the World in 80 Timesteps*, CVPR 2025, arXiv 2412.06781:
#   exp and log, section 3.
# * W. Kahan, *How Futile are Mindless Assessments of Roundoff in Floating-Point Computation?*, 2006: the half-angle
#   form of an angle.
# * K. M. Górski et al., *HEALPix*, The Astrophysical Journal 622, 2005. · Á. González, *Measurement of Areas on a
#   Sphere Using Fibonacci and Latitude–Longitude Lattices*, Mathematical Geosciences 42, 2010.
# * M. Okabe, K. Ito, *Color Universal Design*, 2008: the palette.
