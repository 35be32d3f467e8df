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
# 1. why latitude and longitude are good labels for places and bad coordinates for arithmetic;
# 2. the two maps on which everything later stands: `exp` (walk from here) and `log` (how do I walk there?);
# 3. why the textbook formula for distance fails in float32 below three kilometres, and the one that does not;
# 4. what a shortest path is, how fast it moves, and where on Earth it stops being unique.
#
# | Needs | Minutes (laptop / GPU) | Produces |
# |---|---|---|
# | vectors, a little PyTorch; no other notebook | under 1 / no GPU needed | figures only |

# %% tags=["parameters"]
from geoflow.settings import by_scale

seed = 0
n_points = by_scale(2_000, 20_000, 20_000)  # random points behind each measured number

# %%
import json
import math

import matplotlib.pyplot as plt
import torch

from geoflow import healpix, settings, sphere

torch.manual_seed(seed)


def random_points(n):
    """Uniform points in float64, so that what we measure is the formula and not the rounding."""
    return sphere.unit(torch.randn(n, 3, dtype=torch.float64))


# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008).
BLUE, ORANGE, RED, GREEN, GREY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#7f8c99"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## Degrees are labels, not numbers
#
# A photo was taken somewhere. The obvious way to write *somewhere* is two numbers, latitude and longitude, and the
# obvious next step is to hand those two numbers to a network. Three small experiments show why we will not.
#
# **Averaging.** Two villages in Fiji lie at longitudes 179° and −179°, two degrees apart. Where is the middle?

# %%
fiji = torch.tensor([[-17.0, 179.0], [-17.0, -179.0]], dtype=torch.float64)  # latitude, longitude: in this order everywhere

middle_of_degrees = fiji.mean(0)
middle_of_vectors = sphere.to_latlon(sphere.from_latlon(fiji).mean(0))
print("average of the degrees:", middle_of_degrees.tolist())
print("average of the vectors:", [round(v, 3) for v in middle_of_vectors.tolist()])

# %% [markdown]
# The average of the degrees, longitude 0, lies in the South Atlantic, half a world away. Averaging *vectors* (we
# define them in a moment) lands between the villages. A network trained with a squared error on degrees makes the first
# mistake all day long.
#
# **Distance.** One degree of longitude is not a length:

# %%
for lat in (0, 45, 60, 80, 89):
    ends = sphere.from_latlon(torch.tensor([[lat, 0.0], [lat, 1.0]], dtype=torch.float64))
    print(f"one degree of longitude at {lat:2d}° N: {sphere.distance_km(*ends):6.1f} km")

# %% [markdown]
# **Uniformity.** "A random place on Earth" is where our generative model will start, so it had better be right. Draw
# latitude uniformly in [−90°, 90°] and longitude uniformly in [−180°, 180°): is the place uniform?
#
# To look at it we need a globe. Seen from far away, a point of a globe appears at its component along "right" and its
# component along "up", and it is visible when its component towards us is positive: three scalar products, an
# *orthographic* projection.


# %%
outlines = [  # coastlines as (n, 2) latitude and longitude; the file has GeoJSON's order, longitude first
    torch.tensor(ring, dtype=torch.float64).flip(-1)
    for polygon in json.loads((settings.DATA / "land-110m.geojson").read_text())["coordinates"]
    for ring in polygon
]


def coast(outline):
    """Unit vectors of an outline, NaN where it follows the edge of the flat map and not a coast."""
    edge = (outline[:, 1].abs() > 179.9) | (outline[:, 0] < -89.9)
    return sphere.from_latlon(outline).masked_fill(edge[:, None], torch.nan)


COAST = torch.cat([torch.cat([coast(o), torch.full((1, 3), torch.nan, dtype=torch.float64)]) for o in outlines])


def camera(lat, lon):
    """Right, up and towards-the-eye axes of an observer far above a place: the rows of a (3, 3) rotation."""
    eye = sphere.from_latlon(torch.tensor([lat, lon], dtype=torch.float64))
    up = sphere.unit(sphere.to_tangent(eye, torch.tensor([0.0, 0.0, 1.0], dtype=torch.float64)))
    return torch.stack([torch.linalg.cross(up, eye), up, eye])


def seen(cam, x):
    """Where points appear: (..., 2), NaN for those behind the globe."""
    p = x.to(cam) @ cam.T
    return torch.where(p[..., 2:] > -1e-9, p[..., :2], torch.nan)


def draw(ax, cam, x, *args, **style):
    """Draw points (or lines, with a line style) on the visible side of a globe."""
    ax.plot(*seen(cam, x).T, *args, **style)


def globe(ax, cam, title=""):
    """A globe with coastlines and a 30° graticule."""
    ax.add_patch(plt.Circle((0, 0), 1, fc="#eef3f8", ec="#9aa7b4", lw=1, zorder=0))
    fine = torch.linspace(-180, 180, 361)
    for lat in range(-60, 61, 30):
        draw(ax, cam, sphere.from_latlon(torch.stack([torch.full_like(fine, lat), fine], -1)), color="white", lw=0.9, zorder=1)
    for lon in range(-180, 180, 30):
        draw(ax, cam, sphere.from_latlon(torch.stack([fine / 2, torch.full_like(fine, lon)], -1)), color="white", lw=0.9, zorder=1)
    draw(ax, cam, COAST, color="#a9b4bf", lw=0.7, zorder=1)
    ax.set(xlim=(-1.05, 1.05), ylim=(-1.05, 1.05), aspect="equal")
    ax.set_title(title, fontsize=10)
    ax.axis("off")


# %% [markdown]
# *What to look for:* the white lines meet at the North Pole. Compare how crowded the points are there and far from it.

# %%
uniform_degrees = torch.rand(n_points, 2) * torch.tensor([180.0, 360.0]) - torch.tensor([90.0, 180.0])
from_degrees = sphere.from_latlon(uniform_degrees)
from_sphere = random_points(n_points)  # a normal vector in R³, divided by its length: every direction is equally likely

above = camera(55, 0)
fig, axes = plt.subplots(1, 2, figsize=(8, 4))
for ax, x, title, color in (
    (axes[0], from_degrees, "uniform in degrees", RED),
    (axes[1], from_sphere, "uniform on the sphere", BLUE),
):
    globe(ax, above, title)
    draw(ax, above, x[:3000], ".", ms=3.5, mew=0, color=color, alpha=0.8)
fig.tight_layout()
plt.show()

north_of_60 = math.sin(math.radians(60))  # the height z above which a point is north of 60°
share_degrees = (from_degrees[:, 2] > north_of_60).double().mean().item()
share_sphere = (from_sphere[:, 2] > north_of_60).double().mean().item()
share_true = (1 - north_of_60) / 2  # area of a cap: 2π (1 − z), of 4π in all
print(f"north of 60° N: {share_degrees:.1%} of the left points, {share_sphere:.1%} of the right ones; share of the area: {share_true:.1%}")

# %% [markdown]
# *What was seen:* the left globe is crowded at the pole: 16.4 % of its points lie north of 60° N, a zone that holds 6.7
# % of the Earth. The right globe is even. The recipe for even points could not be shorter, `randn(3)` divided by its
# length, because the normal distribution has no preferred direction. Latitude and longitude have one: their poles.
#
# ## Places as unit vectors
#
# So inside the package a place is a **unit vector**: x = (cos φ cos λ, cos φ sin λ, sin φ), with φ the latitude and λ
# the longitude. The x axis points to 0° N 0° E, the z axis to the North Pole. No seam, no pole, no special place. Here
# it is by hand:


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
# ## The tangent plane
#
# A velocity on the sphere cannot point anywhere: it must not leave the surface. At a point x the allowed velocities are
# those orthogonal to x. They form the **tangent plane** at x. Any vector v becomes tangent by removing its component
# along x:
#
# $$\text{to\_tangent}(x, v) = v - \langle x, v\rangle\, x .$$


# %%
def to_tangent(x, v):
    return v - (x * v).sum(-1, keepdim=True) * x


x = random_points(n_points)
v = to_tangent(x, torch.randn(n_points, 3, dtype=torch.float64))
print(f"largest |⟨x, v⟩| over {n_points} pairs: {(x * v).sum(-1).abs().max():.1e}")

# %% [markdown]
# ## exp: walk from here
#
# Stand at x, look along a tangent vector v, and walk straight ahead for the distance |v| (in radians: 1 radian is 6371
# km on Earth). You walk along a circle through x, so you arrive at
#
# $$\exp_x(v) = \cos|v|\; x + \sin|v|\;\frac{v}{|v|} .$$


# %%
def naive_exp(x, v):
    n = v.norm(dim=-1, keepdim=True)
    return torch.cos(n) * x + torch.sin(n) * v / n


# %% [markdown]
# *What to look for:* the flat square touches the globe at one point. Each straight arrow in the square is wrapped onto
# the globe, keeping its length and its first direction.

# %%
foot = sphere.from_latlon(torch.tensor([32.0, -38.0], dtype=torch.float64))
e1, e2 = sphere.tangent_basis(foot)
cam = camera(8, 0)
corners = torch.tensor([[-1.0, -1.0], [-1.0, 1.0], [1.0, 1.0], [1.0, -1.0]], dtype=torch.float64) * 0.85
ways = torch.linspace(0, 1, 60, dtype=torch.float64)[:, None]

fig, ax = plt.subplots(figsize=(5, 4.4))
globe(ax, cam)
square = (foot + corners @ torch.stack([e1, e2])) @ cam.T
ax.fill(*square[:, :2].T, fc=ORANGE, ec="#b57a00", alpha=0.28, zorder=3)
for angle, color in ((0.2, RED), (2.0, GREEN), (4.9, BLUE)):
    v = 0.8 * (math.cos(angle) * e1 + math.sin(angle) * e2)
    ax.plot(*((foot + ways * v) @ cam.T)[:, :2].T, color=color, lw=1.4, ls="--", zorder=4)
    draw(ax, cam, sphere.exp(foot, ways * v), color=color, lw=2.6, zorder=4)
    draw(ax, cam, sphere.exp(foot, v)[None], "o", color=color, ms=7, zorder=5)
draw(ax, cam, foot[None], "o", color="black", ms=7, zorder=6)
ax.set(xlim=(-1.45, 1.05), ylim=(-1.05, 1.3))
fig.tight_layout()
plt.show()

# %% [markdown]
# *What was seen:* dashed, the arrows v in the tangent plane; solid, the walks exp(tv) for t from 0 to 1. Dashed and
# solid have equal length: exp bends, it does not stretch along the way. (It does squeeze *across* the way; we come back
# to that.)
#
# ## log: how do I walk there?
#
# The inverse question: standing at x, which tangent vector leads to y? The direction is "y, made tangent"; the length
# is the angle θ between x and y:
#
# $$\log_x(y) = \frac{\theta}{\sin\theta}\,(y - \cos\theta\; x), \qquad \theta = \arccos\langle x, y\rangle .$$


# %%
def naive_log(x, y):
    c = (x * y).sum(-1, keepdim=True)
    theta = torch.arccos(c)
    return theta / torch.sin(theta) * (y - c * x)


x, y = random_points(n_points), random_points(n_points)
back = naive_exp(x, naive_log(x, y))
print(f"largest error of exp(log) in float64: {sphere.distance_km(back, y).max() * 1e6:.2f} mm")

# %% [markdown]
# Drag the two points. *What to look for:* the arrow of log at the first point, and the way that exp walks along it; take the second point
# to the other side of the Earth, and see the arrow swing around.

# %%
from geoflow import widgets

player = widgets.explore_sphere((48.9, 2.4), (35.7, 139.7), keep=True)
player

# %%
player.contact_sheet()

# %% [markdown]
# Formulas copied from a textbook, two lines each, and correct: in float64 and for points far apart. Now use them as a
# network would.
#
# ## The trap: arccos in float32
#
# Networks compute in float32, which keeps about 7 digits: 0.4 m on the Earth's surface. That should be plenty. Let us
# place pairs of points at known distances, round them to float32, and measure the distance between them in two ways:
#
# * the textbook's `arccos(⟨x, y⟩)`;
# * the half-angle form `2 · atan2(|x − y|, |x + y|)`: the half chord and the half sum are the sine and cosine of half
#   the angle.


# %%
def arccos_km(x, y):
    return torch.arccos((x * y).sum(-1)).double() * 6371.0  # the last product in float64: kilometres should not round again


def half_angle_km(x, y):
    return 2 * torch.atan2((x - y).norm(dim=-1), (x + y).norm(dim=-1)).double() * 6371.0


def at_distance(km, n):
    """n random pairs of points at a known distance, computed in float64 and rounded to float32."""
    x = random_points(n)
    return x.float(), sphere.exp(x, sphere.tangent_basis(x)[0] * km / 6371.0).float()


print("true distance    arccos reads 0    arccos reads NaN    arccos, median    half angle, worst")
for km in (0.001, 0.1, 1.0, 2.0, 10.0, 1000.0):
    x, y = at_distance(km, n_points)
    d = arccos_km(x, y)
    print(
        f"{km:10.3f} km {(d == 0).double().mean():15.0%} {d.isnan().double().mean():18.1%} "
        f"{d.nanmedian():15.3f} km {(half_angle_km(x, y) - km).abs().max() * 1000:16.2f} m off"
    )

# %% [markdown]
# For two places one kilometre apart, arccos most often answers 0 km. Near zero, cos θ ≈ 1 − θ²/2, and float32 has no
# number between 1 − 6·10⁻⁸ and 1: most angles below 2.4·10⁻⁴ rad (1.6 km) are swallowed, and the first step above 0 is
# 2.2 km. Rounding upwards is worse: ⟨x, y⟩ just above 1 has no arccos, and we read NaN. An "accuracy within 1 km"
# computed this way is fiction.
#
# *What to look for:* the error of both formulas over the whole range, from one metre to the antipode (20,015 km).

# %%
kms = torch.cat([torch.logspace(-3, 4, 36, dtype=torch.float64), 20015.0 - torch.logspace(4, -0.5, 20, dtype=torch.float64)])
worst = {"arccos": [], "half angle": []}
for km in kms.tolist():
    x, y = at_distance(km, 2000)
    worst["arccos"].append((arccos_km(x, y) - km).abs().nan_to_num(0.0).max().item() * 1000)  # generous: NaN counts as no error
    worst["half angle"].append((half_angle_km(x, y) - km).abs().max().item() * 1000)

fig, axes = plt.subplots(1, 2, figsize=(8, 3.2), sharey=True)
for ax, part, label in ((axes[0], slice(0, 36), "true distance (km)"), (axes[1], slice(36, None), "distance left to the antipode (km)")):
    across = kms[part] if ax is axes[0] else 20015.0 - kms[part]
    ax.loglog(across, worst["arccos"][part], color=RED, marker="o", ms=3, label="arccos")
    ax.loglog(across, worst["half angle"][part], color=BLUE, marker="s", ms=3, label="half angle")
    ax.axhline(1.0, color=GREY, lw=0.8, ls=":")
    ax.set_xlabel(label)
axes[1].invert_xaxis()
axes[0].set_ylabel("worst error (m)")
axes[0].set_ylim(1e-2, 1e4)
axes[0].legend(loc="lower left")
axes[0].annotate("1 m", (2e-3, 1.15), color=GREY, fontsize=9)
fig.tight_layout()
plt.show()

# %% [markdown]
# *What was seen:* arccos errs by kilometres at both ends, the half angle by half a metre at short distances and by at
# most two metres at long ones: that is the rounding of the points and of the angle, and no formula can do better. That
# is why `sphere.distance` is written this way.
#
# The gradient is a second, nastier trap. A loss that contains a distance is differentiated, sooner or later at two
# equal points:

# %%
clamped = lambda x, y: 6371.0 * torch.arccos((x * y).sum(-1).clamp(-1, 1))  # noqa: E731 (a well-meant repair)

gradient = {}
for name, km in (("arccos", arccos_km), ("arccos with a clamp", clamped), ("half angle", half_angle_km)):
    here = torch.tensor([0.6, 0.8, 0.0], requires_grad=True)
    km(here, here.detach()).backward()
    gradient[name] = here.grad
    print(f"{name:20s} gradient at distance 0: {here.grad.tolist()}")

# %% [markdown]
# One such pair in a batch, and every weight of the network is NaN after the step. The clamp that one finds in many
# codebases does not help. The half angle has gradient zero there, as it should.
#
# ## The good forms
#
# The same care gives a `log` that is right near 0 and near π. With u the tangent part of y, |u| = sin θ and ⟨x, y⟩ =
# cos θ are *both* at hand, so θ = atan2(|u|, ⟨x, y⟩) loses nothing. And `exp` divides by |v|, which fails at v = 0;
# `sinc` does not. This is what the package does:


# %%
def good_exp(x, v):
    n = v.norm(dim=-1, keepdim=True)
    return sphere.unit(torch.cos(n) * x + torch.sinc(n / math.pi) * v)  # sinc(a) is sin(πa)/(πa), and 1 at 0


def good_log(x, y):
    c = (x * y).sum(-1, keepdim=True)
    u = to_tangent(x, y - c.sign() * x)  # y ∓ x is exact where y is close to ±x; its tangent part is that of y
    s = u.norm(dim=-1, keepdim=True)
    return u * torch.atan2(s, c) / s


x, y = sphere.uniform(n_points), sphere.uniform(n_points)
torch.testing.assert_close(good_log(x, y), sphere.log(x, y))
torch.testing.assert_close(good_exp(x, good_log(x, y)), sphere.exp(x, sphere.log(x, y)))
torch.testing.assert_close(half_angle_km(x, y), sphere.distance_km(x, y).double(), rtol=1e-6, atol=1e-3)

print("float32, exp(log) of a pair at a known distance: worst error")
for km in (0.001, 1.0, 1000.0, 20000.0, 20014.0):
    x, y = at_distance(km, n_points)
    naive = sphere.distance_km(naive_exp(x, naive_log(x, y)), y)
    good = sphere.distance_km(sphere.exp(x, sphere.log(x, y)), y)
    print(f"{km:10.3f} km   naive {naive.nan_to_num(float('inf')).max() * 1000:12.2f} m   good {good.max() * 1000:6.2f} m")

# %% [markdown]
# `inf` stands for NaN: somewhere among the pairs the naive version broke down. The good version stays within six
# metres, at any distance from one metre to one kilometre short of the antipode. From here on we use the package's
# `sphere.exp`, `sphere.log` and `sphere.distance_km`.
#
# ## Geodesics: straight lines on a round Earth
#
# Walk from x₀ towards x₁ without turning and you follow the shortest path, a **geodesic**:
#
# $$x_t = \exp_{x_0}\!\big(t\,\log_{x_0}(x_1)\big), \qquad t \in [0, 1].$$
#
# Compare three ways from Paris to Tokyo: the geodesic; the straight line on a latitude-longitude map; and the *rhumb
# line*, the course that keeps a constant compass bearing (a straight line on a Mercator map).

# %%
paris, tokyo = sphere.from_latlon(latlon[0]), sphere.from_latlon(latlon[1])
t = torch.linspace(0, 1, 400, dtype=torch.float64)


def mercator(lat):
    return torch.asinh(torch.tan(torch.deg2rad(lat)))


def between(a, b):
    return a + t * (b - a)


(lat0, lon0), (lat1, lon1) = latlon[0], latlon[1]
ways = {
    "geodesic": sphere.to_latlon(sphere.geodesic(paris.expand(400, 3), tokyo.expand(400, 3), t)),
    "rhumb line": torch.stack([torch.rad2deg(torch.atan(torch.sinh(between(mercator(lat0), mercator(lat1))))), between(lon0, lon1)], -1),
    "straight in degrees": torch.stack([between(lat0, lat1), between(lon0, lon1)], -1),
}
length = {}
for name, way in ways.items():
    x = sphere.from_latlon(way)
    length[name] = sphere.distance_km(x[:-1], x[1:]).sum().item()
    print(f"{name:20s} {length[name]:7.0f} km, northernmost latitude {way[:, 0].max():.1f}°")
print(f"{'through the Earth':20s} {6371 * (tokyo - paris).norm():7.0f} km")

# %% [markdown]
# *What to look for:* which of the three looks straight on the map, and which on the globe above the middle of the trip.

# %%
style = {
    "geodesic": {"color": BLUE, "lw": 2.4},
    "rhumb line": {"color": ORANGE, "lw": 2.4},
    "straight in degrees": {"color": RED, "lw": 1.4, "ls": "--"},
}
fig, (flat, round_earth) = plt.subplots(1, 2, figsize=(9.4, 3.7), width_ratios=(1.75, 1), layout="constrained")
for outline in outlines:
    flat.fill(outline[:, 1], outline[:, 0], color="#dfe3e6", zorder=0)
middle = sphere.to_latlon(sphere.geodesic(paris, tokyo, 0.5)).tolist()
cam = camera(*middle)
globe(round_earth, cam)
for name, way in ways.items():
    flat.plot(way[:, 1], way[:, 0], **style[name], label=f"{name}, {length[name]:,.0f} km")
    draw(round_earth, cam, sphere.from_latlon(way), **style[name])
flat.set(xlim=(-30, 180), ylim=(-15, 82), aspect="equal", xlabel="longitude", ylabel="latitude")
flat.legend(loc="lower left", fontsize=8)
plt.show()

# %% [markdown]
# *What was seen:* the map has it backwards. The detour through Siberia, 68.7° N at its highest, is the straight way:
# seen from above its middle it does not bend to either side. The line that looks straight on the map is 17 % longer.
# "The path of a flow" will always mean the blue one.
#
# ## The velocity of a geodesic
#
# A flow model learns velocities, so we need the derivative of x_t. Differentiating the formula gives
#
# $$\dot x_t = -\theta\,\sin(t\theta)\; x_0 + \cos(t\theta)\,\log_{x_0}(x_1), \qquad \theta = |\log_{x_0}(x_1)| .$$
#
# It is tangent at x_t, and its length is θ at every t: the traveller neither accelerates nor turns. Check it against
# automatic differentiation, which knows nothing of our formula:

# %%
x0, x1 = random_points(n_points), random_points(n_points)
times = torch.rand(n_points, dtype=torch.float64)
xt, velocity = torch.func.jvp(lambda s: sphere.geodesic(x0, x1, s), (times,), (torch.ones_like(times),))
formula = sphere.geodesic_velocity(x0, x1, times)
speed = formula.norm(dim=-1)
print(f"formula against autograd:     {(formula - velocity).abs().max():.1e}")
print(f"tangent to the sphere:        {(formula * xt).sum(-1).abs().max():.1e}")
print(f"speed minus distance:         {(speed - sphere.distance(x0, x1)).abs().max():.1e}")
print(f"what is left of the way, /(1 − t): {(sphere.log(xt, x1) / (1 - times)[:, None] - formula).abs().max():.1e}")

# %% [markdown]
# The last line is worth remembering: the velocity is also "the rest of the way, divided by the rest of the time",
# log(x_t → x₁)/(1 − t).
#
# *What to look for:* the same arrows on a globe and the compass bearing along the way.

# %%
stops = torch.linspace(0, 1, 6, dtype=torch.float64)
points = sphere.geodesic(paris.expand(6, 3), tokyo.expand(6, 3), stops)
arrows = sphere.geodesic_velocity(paris.expand(6, 3), tokyo.expand(6, 3), stops)


def bearing(x, v):
    """Degrees clockwise from north of a tangent vector."""
    north = sphere.unit(sphere.to_tangent(x, torch.tensor([0.0, 0.0, 1.0], dtype=x.dtype)))
    east = torch.linalg.cross(north, x)
    return torch.rad2deg(torch.atan2((v * east).sum(-1), (v * north).sum(-1))) % 360


bearings = bearing(points, arrows)
cam = camera(42, 75)
fig, axes = plt.subplots(1, 2, figsize=(8, 3.8), width_ratios=(1, 1.1))
globe(axes[0], cam)
draw(axes[0], cam, sphere.geodesic(paris.expand(400, 3), tokyo.expand(400, 3), t), color=BLUE, lw=1.5)
at, along = points @ cam.T, arrows @ cam.T
axes[0].quiver(*at[:, :2].T, *along[:, :2].T, color=RED, angles="xy", scale_units="xy", scale=6, width=0.009, zorder=3)
draw(axes[0], cam, points, "o", color=BLUE, ms=4)
axes[1].plot(stops * length["geodesic"], bearings, "o-", color=BLUE)
axes[1].set(xlabel="kilometres travelled", ylabel="bearing (° from north)", title="the compass turns, the traveller does not")
axes[1].title.set_size(10)
fig.tight_layout()
plt.show()
print(f"bearing: {bearings[0]:.0f}° when leaving, {bearings[-1]:.0f}° when arriving")

# %% [markdown]
# *What was seen:* the arrows keep their length and lie along the curve, while the compass bearing runs from 33° to
# 153°. It is the compass that turns: "north" and "east" are directions that change from place to place, and not fit for
# describing a velocity field. Three components of a tangent vector are.
#
# ## Covering the sphere evenly
#
# We will integrate densities over the Earth, which needs points of equal weight. There are three kinds in the package:
#
# * `sphere.uniform(n)`: random;
# * `sphere.fibonacci_grid(n)`: a spiral from pole to pole which turns by the golden angle at each step, any n;
# * `healpix.centers(cells, level)`: centres of 12 · 4^level cells of *exactly* equal area, each of which splits
#   into four of the next level, so that a map can be refined just where something happens.
#
# *What to look for:* clumps and holes.

# %%
level = 3
cells = 12 * 4**level
covers = {
    "random": sphere.uniform(cells),
    "Fibonacci": sphere.fibonacci_grid(cells),
    "HEALPix": healpix.centers(torch.arange(cells), level),
}
cam = camera(30, 20)
fig, axes = plt.subplots(1, 3, figsize=(9, 3.1))
for ax, (name, x), color in zip(axes, covers.items(), (RED, BLUE, GREEN), strict=True):
    globe(ax, cam, f"{name}, {cells} points")
    draw(ax, cam, x, ".", ms=5, mew=0, color=color)
fig.tight_layout()
plt.show()

for name, x in covers.items():
    between_points = sphere.distance_km(x.double()[:, None], x.double()[None]).fill_diagonal_(float("inf"))
    nearest = between_points.min(1).values
    print(f"{name:10s} nearest neighbour: {nearest.min():6.0f} to {nearest.max():6.0f} km")

# %% [markdown]
# *What was seen:* random points clump: some are neighbours within a few dozen kilometres, others stand alone. Both
# grids keep their distance. What does evenness buy? Integrate a function whose integral we know, the bump
# $e^{\kappa(\mu\cdot x - 1)}$ of a few hundred kilometres' width (it will return as the von Mises–Fisher density):

# %%
peak, kappa = sphere.from_latlon(torch.tensor([48.0, 2.0], dtype=torch.float64)), 50.0
exact = 2 * math.pi * (1 - math.exp(-2 * kappa)) / kappa


def relative_error(x):
    estimate = 4 * math.pi * torch.exp(kappa * (x.double() @ peak - 1)).mean()
    return abs(estimate.item() / exact - 1)


levels = range(1, 7)
sizes = [12 * 4**k for k in levels]
errors = {
    "random": [sum(relative_error(sphere.uniform(n)) for _ in range(20)) / 20 for n in sizes],  # the average of 20 draws
    "Fibonacci": [relative_error(sphere.fibonacci_grid(n)) for n in sizes],
    "HEALPix": [relative_error(healpix.centers(torch.arange(n), k)) for n, k in zip(sizes, levels, strict=True)],
}
fig, ax = plt.subplots(figsize=(5.4, 3.2))
for (name, e), color in zip(errors.items(), (RED, BLUE, GREEN), strict=True):
    ax.loglog(sizes, e, "o-", color=color, label=name)
ax.set(xlabel="number of points", ylabel="relative error of the integral")
ax.legend()
fig.tight_layout()
plt.show()
print({name: f"{e[3]:.0e}" for name, e in errors.items()}, "with", sizes[3], "points")

# %% [markdown]
# *What was seen:* random points need four times their number to halve the error. Once its cells are finer than the
# bump, HEALPix is more than a hundred times better, and the Fibonacci spiral meets the rounding of float32. Grids for
# integrals, random points for sampling.
#
# ## exp squeezes areas
#
# Lengths along the way are kept by exp, but two neighbours who leave x in slightly different directions meet again at
# the antipode: across the way, distances shrink by sin r / r at distance r. Areas shrink by the same factor, so **an
# even distribution in the tangent plane is not even on the sphere**.
#
# *What to look for:* equal discs in the tangent plane (left) and their images on the globe, seen from above the start
# (middle) and from above the antipode (right). The dotted circle, at distance π, is the antipode: all of it is one
# point.

# %%
start = sphere.from_latlon(torch.tensor([20.0, 10.0], dtype=torch.float64))
e1, e2 = sphere.tangent_basis(start)
turn = torch.linspace(0, 2 * math.pi, 100, dtype=torch.float64)[:, None]
here, there = camera(20, 10), camera(-20, -170)

fig, axes = plt.subplots(1, 3, figsize=(9, 3.2))
globe(axes[1], here, "on the globe, from above the start")
globe(axes[2], there, "… and from above the antipode")
for r, count in ((0.0, 1), (0.65, 6), (1.15, 9), (1.7, 12), (2.2, 12), (2.65, 12)):
    color = plt.cm.viridis(r / 2.9)
    for direction in torch.arange(count) * 2 * math.pi / count:
        a, b = r * direction.cos() + 0.16 * turn.cos(), r * direction.sin() + 0.16 * turn.sin()
        disc = sphere.exp(start, a * e1 + b * e2)
        axes[0].fill(a[:, 0], b[:, 0], color=color)
        for ax, cam in ((axes[1], here), (axes[2], there)):
            if (disc @ cam[2]).min() > 0:
                ax.fill(*seen(cam, disc).T, color=color, zorder=3)
axes[0].add_patch(plt.Circle((0, 0), math.pi, fill=False, color=GREY, ls=":"))
axes[0].set(xlim=(-3.3, 3.3), ylim=(-3.3, 3.3), aspect="equal")
axes[0].set_title("in the tangent plane", fontsize=10)
axes[0].axis("off")
fig.tight_layout()
plt.show()

# %% [markdown]
# *What was seen:* near the start the discs stay discs (those near the rim of a globe only look narrow because we see
# them from the side). Around the antipode twelve discs that were far apart are needles, side by side. Automatic
# differentiation confirms the factor:

# %%
print("distance   area after / before   sin r / r")
squeeze = {}
for r in (0.5, 1.0, 2.0, 3.0):
    jacobian = torch.func.jacrev(lambda ab: sphere.exp(start, ab[0] * e1 + ab[1] * e2))(torch.tensor([r, 0.0], dtype=torch.float64))
    squeeze[r] = torch.linalg.cross(jacobian[:, 0], jacobian[:, 1]).norm().item()  # area of the image of a unit square
    print(f"{r:8.1f} {squeeze[r]:21.6f} {math.sin(r) / r:11.6f}")

# %% [markdown]
# A density that a flow carries over the sphere is diluted and concentrated by just such changes of area. Notebook 02
# keeps count of them in the plane, notebook 03 on the sphere.
#
# ## The antipode, where log ends
#
# From Paris to its antipode, in the ocean south-east of New Zealand, every direction is a shortest way. Two targets
# close to the antipode but on opposite sides of it are reached by leaving Paris in opposite directions: there `log`
# jumps. This set of points, here a single one, is called the *cut locus*.
#
# *What to look for:* the colour of a place is the direction in which one leaves Paris to reach it. Left the globe as
# seen from above Paris, right from above its antipode.

# %%
pixel = torch.linspace(-1, 1, 300, dtype=torch.float64)
u, v = torch.meshgrid(pixel, pixel, indexing="xy")
inside = u**2 + v**2 < 1

fig, axes = plt.subplots(1, 2, figsize=(7.6, 3.4), layout="constrained")
for ax, centre, title in ((axes[0], latlon[0], "Paris"), (axes[1], sphere.to_latlon(-paris), "its antipode")):
    cam = camera(*centre.tolist())
    place = torch.stack([u, v, (1 - u**2 - v**2).clamp(min=0).sqrt()], -1) @ cam  # the orthographic projection, inverted
    leaving = bearing(paris, sphere.log(paris.expand_as(place), sphere.unit(place)))
    globe(ax, cam, title)
    wheel = torch.where(inside, leaving, torch.nan)
    image = ax.imshow(wheel, origin="lower", extent=(-1, 1, -1, 1), cmap="twilight", vmin=0, vmax=360, zorder=2)
    ax.plot(0, 0, "o" if ax is axes[0] else "X", color="white", mec="black", ms=9, zorder=3)
bar = fig.colorbar(image, ax=axes, ticks=(0, 90, 180, 270, 360), shrink=0.8)
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
print(f"chance that a uniform point lies within 0.001 rad (6.4 km) of the antipode: {too_close:.1e}")

# %% [markdown]
# *What was seen:* all colours meet at two places. In Paris that is harmless: the vector there has length 0. At the
# antipode it has length π, and neighbours get opposite velocities. The package refuses to guess at the exact antipode,
# and training draws a new noise point in the one case in four million that comes within 0.001 rad of it.
#
# ## Check
#
# Every number the text relies on, asserted:

# %%
assert abs(middle_of_degrees[1]) < 1e-9
assert abs(abs(middle_of_vectors[1]) - 180) < 1e-9
assert abs(share_degrees - 1 / 6) < 0.03
assert abs(share_sphere - share_true) < 0.02
one_km = at_distance(1.0, n_points)
assert (arccos_km(*one_km) == 0).double().mean() > 0.5, "arccos reads 0 km for most pairs 1 km apart"
assert (half_angle_km(*one_km) - 1).abs().max() < 2e-3, "the half angle is right to two metres"
assert max(worst["half angle"]) < 2.0
assert max(worst["arccos"]) > 1000
assert gradient["half angle"].isfinite().all()
assert not gradient["arccos with a clamp"].isfinite().all()
assert length["geodesic"] < length["rhumb line"] < 1.2 * length["geodesic"]
assert length["straight in degrees"] > 1.15 * length["geodesic"]
torch.testing.assert_close(formula, velocity)
torch.testing.assert_close(speed, sphere.distance(x0, x1))
assert errors["HEALPix"][3] < errors["random"][3] / 30
assert errors["Fibonacci"][3] < errors["random"][3] / 100
assert all(abs(area - math.sin(r) / r) < 1e-9 for r, area in squeeze.items())
assert refused
assert cosine < -0.999
print("all checks passed")

# %% [markdown]
# ## Exercises
#
# Solutions, executed: `solutions/01_the_sphere.ipynb`.
#
# 1. **The middle of many places.** The normalised mean of unit vectors is one answer; the point with the smallest mean
#    *squared distance* (the Fréchet mean) is another. Find it with nothing but `log`, `exp` and a loop. How far apart
#    are the two for the five cities above?
# 2. **How random is random?** Derive the distribution of the distance between two uniform places. What is its mean in
#    km, and what GeoScore, 5000 · exp(−d / 1492.7 km), does a random guess get on average? Check both with samples.
# 3. **A tape measure with a floor.** Replace the half angle by `arccos` clamped at 1 − 1e-7. What is the smallest
#    distance this can report, and what becomes of "accuracy within 1 km"?
#
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
