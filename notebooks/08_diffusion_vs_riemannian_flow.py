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
# # 08 · Euclidean diffusion or Riemannian flow?
#
# **You will learn**
# 1. the three ways in which the paper turns a place into noise and back, drawn side by side;
# 2. how to train all three with the same network, data and steps, and what decides their quality;
# 3. how to compare likelihoods of methods that live in different spaces;
# 4. what the whole comparison says, over three trainings of each method, next to von Mises–Fisher baselines, retrieval
#    and guessing;
# 5. how six methods answer one ambiguous tile.
#
# | Needs | Minutes (laptop / GPU) | Produces |
# |---|---|---|
# | notebooks 03, 05, 07 | 15, two thirds of it for two maps in R³ / not run here | figures only |
#
# The models are shipped; nothing long is trained here. `geoflow compare --scale laptop --encoder tiles` trains and scores all
# of them again.

# %% tags=["parameters"]
from geoflow.settings import by_scale

seed = 0
drawn = by_scale(100, 400, 400)  # points per picture of a noising
students_steps = by_scale(4, 300, 2000)  # of the small trainings
students_tiles = by_scale(500, 30_000, 100_000)
judged = by_scale(4, 100, 500)  # tiles for the small trainings' likelihoods
checked = by_scale(8, 400, 400)  # tiles on which the mixture and the Riemannian flow are compared one by one
resolution = by_scale(10.0, 1.0, 1.0)  # degrees, of the density maps
cells = by_scale(2000, 20_000, 20_000)  # most evaluations of a density for its map
mapped = by_scale(
    ("vmf", "riemannian"),
    ("vmf", "vmf-mixture", "diffusion", "flow", "riemannian", "land"),
    ("vmf", "vmf-mixture", "diffusion", "flow", "riemannian", "land"),
)

# %%
import math

import matplotlib.pyplot as plt
import torch

from geoflow import Geolocator, losses, maps, methods, paths, samplers, schedules, settings, sphere, training
from geoflow.cli import read_recipe
from geoflow.data import tiles
from geoflow.density import density_map
from geoflow.evaluation import read_report
from geoflow.methods import SolverOptions

torch.manual_seed(seed)
SHIPPED = {
    "riemannian": "tiles",
    "flow": "tiles-flow",
    "diffusion": "tiles-diffusion",
    "vmf": "tiles-vmf",
    "vmf-mixture": "tiles-vmf-mixture",
    "land": "land",
    "uniform": "uniform",
}
TITLES = {
    "riemannian": "Riemannian flow, S²",
    "flow": "flow matching, R³",
    "diffusion": "diffusion, R³",
    "vmf": "von Mises–Fisher",
    "vmf-mixture": "mixture of three vMF",
    "retrieval": "retrieval",
    "land": "land, without looking",
    "uniform": "uniform",
}
BLUE, ORANGE, RED, GREEN, GREY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#7f8c99"
COLORS = {"riemannian": BLUE, "flow": ORANGE, "diffusion": GREEN}
plt.rcParams.update({"figure.dpi": 100, "font.size": 9, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## Three ways to turn a place into noise
#
# | | lives in | noise x₀ | between them | the network learns |
# |---|---|---|---|---|
# | diffusion | R³ | N(0, I) | √t x₁ + √(1−t) x₀ | the noise x₀ |
# | flow matching | R³ | N(0, I) | (1−t) x₀ + t x₁ | the velocity x₁ − x₀ |
# | Riemannian flow matching | S² | uniform | the geodesic from x₀ to x₁ | its velocity, tangent to the sphere |
#
# This is figure 2 of the paper: the place is Paris, the circle is the Earth seen from above Paris' meridian, and each column
# is a time. Time 0 is noise, 1 is data.
#
# *What to look for:* when are the points on the Earth? And at which time do they come together?

# %%
paris = sphere.from_latlon(torch.tensor([48.9, 2.4]))
moments = torch.tensor([0.0, 0.5, 0.8, 0.95, 1.0])
fig, axes = plt.subplots(3, len(moments), figsize=(8.4, 5.3), layout="constrained", sharex=True, sharey=True)
for row, name in zip(axes, ("diffusion", "flow", "riemannian"), strict=True):
    path = paths.by_name(name)
    generator = torch.Generator().manual_seed(seed)
    x1 = paris.expand(drawn, 3)
    x0 = path.noise_like(x1, generator)
    for ax, t in zip(row, moments, strict=True):
        x = path.sample(x0, x1, t.expand(drawn)).x_t
        behind = x[:, 0] < 0
        ax.add_patch(plt.Circle((0, 0), 1, color="#eef2f4", zorder=0))
        ax.scatter(*x[behind, 1:].T, s=3, color=GREY, alpha=0.5, lw=0)
        ax.scatter(*x[~behind, 1:].T, s=4, color=COLORS[name], alpha=0.8, lw=0)
        ax.set(xlim=(-2.4, 2.4), ylim=(-2.4, 2.4), xticks=[], yticks=[], aspect="equal")
        ax.spines[["left", "bottom"]].set_visible(False)
        ax.set_title(f"t = {t:g}" if name == "diffusion" else "")
    row[0].set_ylabel(TITLES[name])
plt.show()

# %% [markdown]
# *What was seen:* in R³ the noise fills a ball of radius 2 or 3, and only at the very end do the points touch the Earth.
# The Riemannian points never leave it. At t = 0.8 the diffusion's cloud is still wide (its noise is √0.2 = 0.45), the flow's
# is 0.2 wide: the same t means different things.
#
# How far from the truth are the points, on the Earth, while time runs? *What to look for:* the scale of a country is
# 500 km, that of an answer 100 km. When is it decided?

# %%
fig, ax = plt.subplots(figsize=(5.4, 2.8), layout="constrained")
fine = 1 - torch.logspace(0, -3, 60)
left = {}
for name in COLORS:
    path = paths.by_name(name)
    x1 = paris.expand(2000, 3)
    x0 = path.noise_like(x1, torch.Generator().manual_seed(seed))
    km = torch.stack([sphere.distance_km(sphere.unit(path.sample(x0, x1, t.expand(2000)).x_t), x1).median() for t in fine])
    left[name] = float(1 - fine[(km < 500).nonzero()[0]])
    ax.plot(1 - fine, km, color=COLORS[name], label=TITLES[name])
ax.set(xscale="log", yscale="log", xlabel="time that is left, 1 − t", ylabel="median distance from the truth (km)", ylim=(5, 2e4))
ax.invert_xaxis()
ax.legend()
plt.show()
print({name: f"within 500 km when {share:.3f} of the time is left" for name, share in left.items()})

# %% [markdown]
# *What was seen:* for both flows the last twentieth of the time decides between places 500 km apart, for diffusion the
# last 0.4 %. Training that draws its times uniformly shows the network little of that. The paper's **skewed sigmoid**
# schedule draws more of its times there. Does it matter?
#
# ## Trained side by side
#
# The same small network for each method, the same embeddings (of the shipped encoder), the same batches and steps: first with
# uniform times, then with the skewed sigmoid. The loop is the one of notebook 05.

# %%
encoder = Geolocator.from_pretrained("tiles").encoder
train, test = tiles.load("train", students_tiles), tiles.load("test", 1000)
cond, x1 = encoder.embed(train.images), train.x
test_cond = encoder.embed(test.images)
recipe = read_recipe("tiles", "laptop")


def student(method, schedule):
    """Embeddings → a method, after a short training, and its losses."""
    torch.manual_seed(seed)
    path = paths.by_name(method)
    size = {**recipe["flow"]["network"], "guess": method, "tangent": path.tangent}
    network = methods.network_for(method, {"cond_dim": cond.shape[1], **size})
    plan = training.Optimization(students_steps, 512, 4e-3, warmup=min(50, students_steps))
    optimizer = torch.optim.AdamW(network.parameters(), lr=plan.lr, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, plan.lr_factor)
    generator = torch.Generator().manual_seed(seed)
    history = []
    for _ in settings.progress(range(plan.steps), desc=f"{method}, {schedule}"):
        rows = torch.randint(len(x1), (plan.batch,), generator=generator)
        loss = losses.flow_matching_loss(
            network, path, x1[rows], cond[rows], schedule=schedules.by_name(schedule), draws=2, generator=generator
        )
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay.step()
        history.append(loss.item())
    return Geolocator(network, method, "skewed-sigmoid"), history


# %%
students = {(method, schedule): student(method, schedule) for method in COLORS for schedule in ("linear", "skewed-sigmoid")}

# %% [markdown]
# *What to look for:* the losses. Which method is best?

# %%
fig, axes = plt.subplots(1, 2, figsize=(7.4, 2.6), layout="constrained", sharey=True)
for ax, schedule in zip(axes, ("linear", "skewed-sigmoid"), strict=True):
    for method, color in COLORS.items():
        smooth = torch.tensor(students[method, schedule][1]).unfold(0, min(20, students_steps), 1).mean(-1)
        ax.plot(smooth, color=color, label=TITLES[method])
    ax.set(title=f"times: {schedule}", xlabel="step", yscale="log")
axes[0].set_ylabel("loss (mean of 20 batches)")
axes[0].legend()
plt.show()

# %% [markdown]
# *What was seen:* that the question makes no sense. The losses measure different things (noise, velocities in R³, velocities
# on S²) at differently chosen times. Only a number that means the same for all will do: the density that each gives to the
# true places, **on the sphere**.
#
# ## One likelihood for all
#
# An R³ method is asked for places too: the *direction* of its last state. The density of that direction is known, since
# the probability-flow ODE gives p(x) in R³ (notebook 07), and the mass along the ray of direction u adds up:
#
# $$p(u) = \int_0^\infty p(r u)\, r^2\, dr.$$
#
# Here is p(ru) r² along the ray of one answer, by the shipped models.
#
# *What to look for:* where is the mass, and how wide is it?

# %%
shipped = {method: Geolocator.from_pretrained(name) for method, name in SHIPPED.items()}
ambiguous = tiles.EXAMPLES["coast"]
image = tiles.tile(*ambiguous)
embedding = encoder.embed(torch.stack([encoder.preprocess(image)]))

fig, axes = plt.subplots(1, 2, figsize=(7.4, 2.4), layout="constrained")
width = {}
for ax, method in zip(axes, ("flow", "diffusion"), strict=True):
    model = shipped[method].model
    for state in model.states(model.noise((1, 8), torch.Generator().manual_seed(seed)), embedding, SolverOptions(16)):
        pass
    radius = torch.linspace(0.97, 1.03, 241)
    for u, r in zip(sphere.unit(state[0, :3]), state[0, :3].norm(dim=-1), strict=True):
        along = model.ambient_log_prob((u * radius[:, None])[None], embedding, SolverOptions(16))[0] + 2 * radius.log()
        share = (along - along.logsumexp(0)).exp()
        mean = (share * radius).sum()
        width.setdefault(method, []).append(float((share * (radius - mean) ** 2).sum().sqrt()))
        (line,) = ax.plot(radius, share / (radius[1] - radius[0]), lw=1)
        ax.plot(r, 0, "^", ms=5, color=line.get_color(), clip_on=False)
    ax.set(title=TITLES[method], xlabel="radius r (triangle: the sample's own)", ylim=(0, None))
axes[0].set_ylabel("share of the mass per radius")
plt.show()
print({method: "deviations " + ", ".join(f"{w:.4f}" for w in widths) for method, widths in width.items()})

# %% [markdown]
# *What was seen:* a shell one to three thousandths of the Earth's radius thick (8 to 16 km) for the flow, several times thicker
# for the diffusion, a little below or above 1 depending on the direction. The density *in R³* at r = 1, which the paper reports for these methods, depends on how thin that
# shell is: squeezing it by ten adds log 10 = 2.3 nats without moving any place. So the paper rightly warns that its
# R³ and S² numbers cannot be compared. The integral along the ray can.
#
# `log_prob` computes it for R³ methods (with nodes that follow each ray's own shell). What the six students reach on the
# sphere, with what the R³ numbers would have said:

# %%
truth = sphere.to_latlon(test.x[:judged, None])
fair, ambient = {}, {}
for key, (geo, _) in students.items():
    fair[key] = -float(geo.log_prob(truth, cond=test_cond[:judged]).mean()) + sphere.LOG_UNIFORM
    ambient[key] = -float(geo.ambient_log_prob(truth, cond=test_cond[:judged]).mean()) + sphere.LOG_UNIFORM
print(f"{'NLL over uniform, nats':28s}{'on S², fair':>14s}{'where it lives':>16s}")
for (method, schedule), value in fair.items():
    print(f"{method + ', ' + schedule:28s}{value:14.2f}{ambient[method, schedule]:16.2f}")

# %% [markdown]
# *What was seen:* the right column would let the R³ methods win by more than two nats; that is only their shell. On the sphere, after
# these few steps, the choice of times moves diffusion by a whole nat, the Riemannian flow by a tenth to the better and the R³ flow
# by three tenths to the worse, since it has not yet learnt the coarse part that the skewed times neglect. Here, with 300 steps,
# who wins depends on the schedule.
#
# ## The whole comparison
#
# Now the trainings that count: the laptop recipe, 4,000 steps on 300,000 tiles, skewed sigmoid. Each method was trained three
# times (seeds 0, 1, 2), on the same embeddings, and scored on the same 500 tiles from seen regions and 500 from held-out
# blocks. These numbers are read from the reports that `geoflow compare --scale laptop --encoder tiles` wrote.

# %%
results = settings.DATA / "results" / "tiles"
reports = {(method, split): read_report(results / f"{method}-{split}.json") for method in methods.METHODS for split in ("test", "held-out")}


def entry(report, name, digits=0):
    if name not in report.metrics:
        return ""
    deviation = f" ± {report.deviations[name]:.{digits}f}" if name in report.deviations else ""
    return f"{report.metrics[name]:,.{digits}f}{deviation}"


COLUMNS = {
    "NLL over uniform": ("nll_over_uniform", 2),
    "GeoScore": ("geoscore", 0),
    "median km": ("median_km", 0),
    "one sample": ("single_geoscore", 0),
    "energy km": ("energy_km", 0),
    "country": ("country", 3),
    "precision": ("precision", 2),
    "recall": ("recall", 2),
    "density": ("density", 2),
    "coverage": ("coverage", 2),
    "paper's R³ bits": ("ambient_bits_per_dimension", 2),
}
order = sorted(methods.METHODS, key=lambda method: reports[method, "test"].metrics["nll"])
for split, columns in (("test", list(COLUMNS)), ("held-out", ["GeoScore", "median km", "one sample", "energy km", "country"])):
    print(f"{'seen regions' if split == 'test' else 'held-out blocks'}: mean ± deviation over three trainings")
    for part in (columns[:5], columns[5:]):
        if part:
            print(f"  {'':24s}" + "".join(f"{column:>18s}" for column in part))
            for method in order:
                report = reports[method, split]
                print(f"  {TITLES[method]:24s}" + "".join(f"{entry(report, *COLUMNS[column]):>18s}" for column in part))

# %% [markdown]
# *What to look for:* the same as a picture, one dot per method with its deviation. Left is better in the first panel, right
# in the others.

# %%
fig, axes = plt.subplots(1, 3, figsize=(8.4, 2.6), layout="constrained", sharey=True)
for ax, (title, name, split) in zip(
    axes,
    (
        ("NLL over uniform (nats), seen", "nll_over_uniform", "test"),
        ("GeoScore, seen", "geoscore", "test"),
        ("GeoScore, held-out", "geoscore", "held-out"),
    ),
    strict=True,
):
    for place, method in enumerate(reversed(order)):
        report = reports[method, split]
        ax.errorbar(
            report.metrics[name], place, xerr=report.deviations.get(name, 0.0), fmt="o", ms=5, capsize=3, color=COLORS.get(method, GREY)
        )
    ax.set(title=title, yticks=range(len(order)), yticklabels=[TITLES[method] for method in reversed(order)])
    ax.grid(axis="x", color="#e4e8ea")
plt.show()

# %% [markdown]
# *What was seen:*
#
# * **Among the three generative methods there is no single winner.** Diffusion has the best density, the Riemannian flow the best
#   answers: the highest GeoScore, the lowest energy score, and the smallest deviations between trainings. The R³ flow is behind
#   both. Most gaps are wider than the deviations. The order by the "paper's R³ bits" would have been another: there the R³ flow is
#   far ahead of diffusion.
# * **The mixture of three wins.** In the paper it is the other way round, by far (OSV-5M, GeoScore: mixture 1746, the
#   generative methods 3688 to 3767), scored by single random samples. With single samples, too, the mixture leads here.
# * **Retrieval** wins by more, where its gallery has the neighbours of the tile, and is last where it has not.
# * In **held-out blocks** no method can be told from another by GeoScore: they differ by less than one training from the next. The
#   energy score, which asks for the whole distribution, sees a difference: the generative methods (4,130 to 4,210 km) are less
#   confidently wrong than the closed forms (4,830 to 4,920) and retrieval (5,850). Knowing where land is, and nothing else, has 4,604.
# * **Precision, recall, density and coverage** are near 1 for every method that looks at the image, and not far from it for a
#   uniform guess. They compare the set of all answers with the set of all truths, and forget which answer belongs to which image.
#
# ## Why does the mixture win?
#
# The Riemannian flow can make any density, the mixture only three round blobs; so the flow should not lose. Is it equally
# behind on all tiles? Sort them by something that needs no truth, the mixture's own localizability (notebook 07), and compare in
# four groups, from ambiguous to clear, the log-density of the true place.
#
# *What to look for:* who is ahead at the left, who at the right?

# %%
group_of = shipped["vmf-mixture"].localizability(cond=test_cond[:checked], n=256).argsort().tensor_split(4)
places = sphere.to_latlon(test.x[:checked, None])
gained = {
    method: shipped[method].log_prob(places, cond=test_cond[:checked])[:, 0] - sphere.LOG_UNIFORM
    for method in ("vmf", "vmf-mixture", "riemannian")
}
believed = {method: shipped[method].localizability(cond=test_cond[:checked], n=256) for method in ("vmf-mixture", "riemannian")}
fig, ax = plt.subplots(figsize=(5.4, 2.8), layout="constrained")
for (method, values), color, shift in zip(gained.items(), (GREY, RED, BLUE), (-0.1, 0, 0.1), strict=True):
    mean = [float(values[group].mean()) for group in group_of]
    error = [float(values[group].std()) / len(group) ** 0.5 for group in group_of]
    ax.errorbar([k + shift for k in range(4)], mean, yerr=error, fmt="o-", ms=5, capsize=3, color=color, label=TITLES[method])
ax.set(xticks=range(4), xticklabels=["ambiguous", "", "", "clear"], ylabel="log p(truth) over uniform (nats)")
ax.legend()
plt.show()
for k, group in enumerate(group_of):
    print(
        f"group {k + 1}: "
        + "   ".join(f"{TITLES[method]} {values[group].mean():5.2f} nats" for method, values in gained.items())
        + "   own bits: "
        + ", ".join(f"{TITLES[method]} {values[group].mean():.1f}" for method, values in believed.items())
    )

# %% [markdown]
# *What was seen:* two different stories. (And a third: the single vMF in the second group, where it stakes everything on a wrong
# place for a few tiles.) On the ambiguous quarter the Riemannian flow is ahead, by more than a nat: its density has
# shapes that three blobs cannot make. On the clear tiles the mixture is ahead by as much, and the last columns say why: it is sure
# to 11 or 12 bits where the flow has two bits less, an area four times as large. So the flow is not wrong there; its peaks are too
# wide. A peak of 40 km is made in the last hundredth of the time, of which training shows the network little, while the width of
# a blob is one number that the likelihood teaches directly. It fits that the flow improves as training times favour the end: after
# 2,000 steps −6.14 nats with uniform times, −6.94 with the skewed sigmoid, −7.15 with t = 1 − (1 − s)⁴ (measured once each, on
# validation tiles; see `geoflow/training/recipes/tiles.yaml`).
#
# Three of four tiles have one clear answer, since their neighbours were in the training set. Holiday photos are more like the
# ambiguous quarter. That may be why the paper finds the opposite; only its data can tell.
#
# ## Six answers to one tile
#
# Figure A of the paper: six methods, one ambiguous image, one colour scale. The tile is the dry cape of notebook 00, the Horn of
# Africa; a desert coast could be many places.
#
# *What to look for:* the shapes that a method can make. What does one blob do with two candidate regions?

# %%


def density_of(method):
    """As `Geolocator.density`; methods in R³, which follow 32 points of a ray for each place, on cells twice as heavy."""
    model, in_space = shipped[method], method in ("flow", "diffusion")
    samples = sphere.from_latlon(model.sample(cond=embedding, n=8192, seed=seed))[0]

    def log_prob(x):
        return model.log_prob(sphere.to_latlon(x), cond=embedding, steps=20)[0]

    return density_map(log_prob, samples, resolution, 1 / 60 if in_space else 1 / 120, cells)


densities = {method: density_of(method) for method in mapped}
maps.contact_sheet(
    [
        {"density": density, "image": image, "truth": ambiguous, "title": f"{TITLES[method]}, integral {density.integral:.3f}"}
        for method, density in densities.items()
    ]
)

# %%
for method, density in densities.items():
    answer = shipped[method].predict(cond=embedding, k=1, seed=seed).latlon[0]
    km = float(sphere.distance_km(sphere.from_latlon(answer), sphere.from_latlon(torch.tensor([ambiguous])))[0])
    area = density.region_area_km2(0.5)
    print(f"{TITLES[method]:24s} integral {density.integral:.3f}   half of the probability on {area:13,.0f} km²   answer {km:6,.0f} km off")

# %% [markdown]
# *What was seen:* the single blob must cover everything between its candidates. The mixture puts most of its mass on one small blob, next
# to the truth. The three generative methods draw shapes, and agree on them: the coasts of the eastern Mediterranean and of Arabia
# and the Horn of Africa. They weigh them differently: the two R³ models prefer Egypt and answer 3,500 km off, the Riemannian model
# the right side. One tile says nothing about which is better; the table does.
#
# ## How they move
#
# *What to look for*, dragging the slider: who decides early, who late? The points of a closed form rest.

# %%
from geoflow import widgets

player = widgets.compare_methods(
    {TITLES[method]: shipped[method] for method in mapped}, {"dry cape": image}, {"dry cape": ambiguous}, n=200, keep=True
)
player

# %%
player.contact_sheet()

# %% [markdown]
# *What to look for:* the distance of the states from the Earth's centre while time runs: when do R³ methods arrive?

# %%
steps = 32
fig, axes = plt.subplots(1, 2, figsize=(7.4, 2.4), layout="constrained", sharey=True)
for ax, method in zip(axes, ("flow", "diffusion"), strict=True):
    model = shipped[method].model
    noise = model.noise((1, 60), torch.Generator().manual_seed(seed))
    states = torch.stack(list(model.states(noise, embedding, SolverOptions(steps))))[:, 0]
    times = schedules.time_grid(model.schedule, steps)
    ax.plot(times, states.norm(dim=-1), color=COLORS[method], lw=0.5, alpha=0.6)
    ax.axhline(1, color="black", lw=0.8, ls=":")
    ax.set(title=TITLES[method], xlabel="time t")
axes[0].set_ylabel("|x|, Earth radii")
plt.show()

# %% [markdown]
# *What was seen:* states start between 0.3 and 4 Earth radii from the centre, many inside the Earth, and arrive on the surface
# together, those of the diffusion only at the very end. All of that is work that the Riemannian flow need not do.
#
# Diffusion is solved here in the angle φ = arcsin √t, where it is a rotation, x = sin φ x₁ + cos φ x₀, and its ODE is regular at
# the data. In that variable **DDIM** is an exact rotation with the predicted noise held fixed. *What to look for:* the
# solvers' errors against the number of network evaluations.

# %%
geo = shipped["diffusion"]
noise = geo.model.noise((1, 200), torch.Generator().manual_seed(seed))
reference = sphere.from_latlon(geo.sample(cond=embedding, noise=noise, steps=by_scale(16, 256, 512)))
fig, ax = plt.subplots(figsize=(5.4, 2.8), layout="constrained")
errors = {}
for solver in ("ddim", "euler", "heun", "rk4"):
    for n in by_scale((2, 4), (2, 4, 8, 16, 32, 64), (2, 4, 8, 16, 32, 64, 128)):
        x = sphere.from_latlon(geo.sample(cond=embedding, noise=noise, steps=n, solver=solver))
        errors[solver, samplers.evaluations(solver, n)] = float(sphere.distance_km(x, reference).median())
    points = [(evaluations, km) for (name, evaluations), km in errors.items() if name == solver]
    ax.plot(*zip(*points, strict=True), "o-", ms=4, label=solver)
ax.set(xscale="log", yscale="log", xlabel="evaluations of the network", ylabel="median distance to\na fine solution (km)")
ax.legend(ncols=2)
plt.show()

# %% [markdown]
# *What was seen:* with few evaluations DDIM is ahead of Euler and of the higher orders: it solves a constant prediction
# exactly, and at 8 evaluations is within 150 km where two steps of RK4 are off by 400. From 32 evaluations on the fourth order wins, and
# at 256 it is exact to a fraction of a kilometre.
#
# ## Check

# %%
full = by_scale(False, True, True)
assert all(abs(density.integral - 1) < 0.02 for density in densities.values())
assert left["diffusion"] < left["flow"]
for method in methods.METHODS:
    assert math.isfinite(reports[method, "test"].metrics["nll"])
    assert reports[method, "test"].metrics["images"] == 500
    assert method not in methods.TRAINED or reports[method, "test"].settings["trained"] == 3
assert abs(reports["uniform", "test"].metrics["nll_over_uniform"]) < 1e-6
if full:
    nll = {method: reports[method, "test"].metrics["nll"] for method in methods.METHODS}
    score = {method: reports[method, "test"].metrics["geoscore"] for method in methods.METHODS}
    assert nll["retrieval"] < nll["vmf-mixture"] < nll["diffusion"] < nll["riemannian"] < nll["flow"] < nll["vmf"] < nll["land"]
    assert score["vmf-mixture"] > score["riemannian"] > score["diffusion"] > score["flow"] > score["vmf"]
    held_out = {method: reports[method, "held-out"].metrics["geoscore"] for method in methods.TRAINED}
    assert max(held_out.values()) - min(held_out.values()) < 2 * reports["vmf-mixture", "held-out"].deviations["geoscore"]
    assert gained["riemannian"][group_of[0]].mean() > gained["vmf-mixture"][group_of[0]].mean() + 0.5
    assert gained["riemannian"][group_of[3]].mean() < gained["vmf-mixture"][group_of[3]].mean() - 0.5
    assert fair["diffusion", "skewed-sigmoid"] < fair["diffusion", "linear"]
print("all checks passed")

# %% [markdown]
# ## References
#
# * N. Dufour, D. Picard, V. Kalogeiton, L. Landrieu, *Around the World in 80 Timesteps*, CVPR 2025, arXiv 2412.06781: the
#   comparison (tables 1 and 2), figures 2 and A.
# * J. Ho, A. Jain, P. Abbeel, *Denoising Diffusion Probabilistic Models*, NeurIPS 2020, arXiv 2006.11239.
# * J. Song, C. Meng, S. Ermon, *Denoising Diffusion Implicit Models*, ICLR 2021, arXiv 2010.02502.
# * Y. Lipman et al., *Flow Matching for Generative Modeling*, ICLR 2023, arXiv 2210.02747.
# * R. T. Q. Chen, Y. Lipman, *Flow Matching on General Geometries*, ICLR 2024, arXiv 2302.03660.
# * K. V. Mardia, P. E. Jupp, *Directional Statistics*, 2000: the von Mises–Fisher distribution.
