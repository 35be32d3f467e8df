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
# 2. why the losses of the three methods cannot be compared, and what can;
# 3. how to give all methods one likelihood, that of a place on the sphere;
# 4. what the comparison of nine methods says, with an error for every "ahead of";
# 5. on which tiles a flow gains over a mixture of peaks, shown by an experiment;
# 6. how six methods answer one ambiguous tile, and how they move.
#
# | Needs | Time to read | Time to run (laptop / GPU) | Produces |
# |---|---|---|---|
# | notebooks 03, 05 and 07 | 60 minutes, exercises 40 more | 3 minutes / not needed | figures only |
#
# The models are shipped, and only small ones are trained here. `geoflow compare --scale laptop` trains and scores all methods again, in some hours.
# Technical terms are explained where they first appear, and in the [glossary](GLOSSARY.md).

# %% tags=["parameters"]
from geoflow.runtime import by_scale

seed = 0
drawn = by_scale(100, 400, 400)  # points per picture of a noising
student_steps = by_scale(4, 150, 2000)  # of the small trainings
student_batch = by_scale(64, 256, 1024)  # images per step
gallery_size = by_scale(500, 20_000, 100_000)  # training tiles, for the small trainings and as neighbours
judged = by_scale(4, 50, 500)  # tiles for the likelihoods of the small trainings
checked = by_scale(20, 500, 1000)  # tiles on which the flow and the mixture are compared one by one
integral_points = by_scale({"S²": 20, "R³": 2}, {"S²": 2000, "R³": 60}, {"S²": 5000, "R³": 500})  # that check an integral

# %%
import math

import torch
from torch.nn.functional import normalize

from geoflow import Geolocator, density, likelihood, losses, methods, paths, runtime, samplers, schedules, sphere, training
from geoflow.data import tiles
from geoflow.methods import SolverOptions
from geoflow.scores import metrics
from geoflow.scores.evaluation import read_report
from geoflow.training.modules import sampling_schedule_of
from geoflow.training.recipes import read_recipe
from geoflow.viz import lessons_comparison, maps, widgets
from geoflow.viz.lessons_comparison import TITLES

GENERATIVE = ("riemannian", "flow", "diffusion")
few_steps = SolverOptions(by_scale(4, 16, 16))  # of the solver, RK4
_ = torch.manual_seed(seed)


def new_generator():
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## Three ways to turn a place into noise
#
# | | lives in | noise x₀ | between noise and data | the network learns |
# |---|---|---|---|---|
# | diffusion | R³ | N(0, I) | √t x₁ + √(1−t) x₀ | the noise x₀ |
# | flow matching | R³ | N(0, I) | (1−t) x₀ + t x₁ | the velocity x₁ − x₀ |
# | Riemannian flow matching | S² | uniform | the geodesic from x₀ to x₁ | its velocity, tangent to the sphere |
#
# R³ is the space around the centre of the Earth, S² is the surface of the Earth, and N(0, I) is the normal distribution with standard
# deviation 1 (one Earth radius) along each axis. Time 0 is noise, time 1 is data. A *diffusion* adds Gaussian noise to the data step by step. Its network learns to
# predict the noise, which can then be removed step by step.
#
# The next figure is made like figure 2 of the paper. The place is Paris, the disc is the Earth as seen from far above 0° N 0° E, and each column is a time. Grey points are on the far side.
#
# > **Predict before you run.** When are the points of each method on the surface of the Earth?

# %%
paris = sphere.from_latlon(torch.tensor([48.9, 2.4])).expand(drawn, 3)
moments = [0.0, 0.5, 0.8, 0.95, 1.0]
states = {}
for name in ("diffusion", "flow", "riemannian"):
    path = paths.by_name(name)
    x0 = path.noise_like(paris, new_generator())
    states[name] = torch.stack([path.sample(x0, paris, torch.full((drawn,), t)).x_t for t in moments])
lessons_comparison.noising_figure(states, moments)

# %% [markdown]
# *What was seen:* in R³ the noise fills a ball, and the points reach the surface only at the end. The Riemannian points never leave the surface.
# At t = 0.8 the cloud of the diffusion is wide (its noise is √0.2 = 0.45 Earth radii), that of the flow is 0.2 wide. The same t means different things
# for different methods.
#
# How far from the truth are the points, measured on the Earth, when how much time is left? A country of medium size is some 500 km wide. *What to look for:* at
# which time is it decided in which country a point ends?

# %%
left = torch.logspace(0, -3, 60)  # 1 − t
km, decided = {}, {}
for name in GENERATIVE:
    path = paths.by_name(name)
    x1 = paris[:1].expand(2000, 3)
    x0 = path.noise_like(x1, new_generator())
    points = torch.stack([sphere.unit(path.sample(x0, x1, (1 - share).expand(2000)).x_t) for share in left])
    km[name] = sphere.distance_km(points, x1).median(1).values
    decided[name] = float(left[(km[name] < 500).nonzero()[0]])
    late = f"with a thousandth left they are {km[name][-1]:.0f} km off"
    print(f"{TITLES[name]:20s} half of the points are within 500 km when {decided[name]:.1%} of the time is left; {late}")
lessons_comparison.approach_figure(left, km, 500)

# %% [markdown]
# *What was seen:* for the two flows the last twentieth of the time decides between places 500 km apart, for the diffusion the last 0.4 %. Near the end the diffusion is still far from the truth when the flows have almost arrived: with a
# thousandth of the time left, its points are 230 km off, those of the flows 7 and 10 km. A training that draws its times uniformly shows the network little of this. The *mixed* times of the shipped models draw 30 % of the times uniformly, and 70 % with equal shares for
# each halving of the time that is left, down to a thousandth. Does it matter?
#
# ## Trained side by side
#
# We train the same small network for each method, on the same embeddings, batches and steps; first with uniform training times (the schedule `linear`), then with the *mixed* times of
# the shipped models. The embeddings are those of the shipped encoder. Three parts of the shipped recipe are specific to a path, and each method
# gets its own:
#
# * the *guess*: the head of the network answers with a Gaussian guess of the true place, and the path's formula turns this guess into the target (notebook 04);
# * the projection to the tangent plane, which only the sphere needs;
# * the times of the solver's steps: a density in R³ lies in a thin shell and needs more of them near the end.

# %%
encoder = Geolocator.from_pretrained("tiles").encoder
train, test = tiles.load("train", gallery_size), tiles.load("test", checked)
cond, test_cond = encoder.embed(train.images), encoder.embed(test.images)
recipe = read_recipe("tiles", "laptop")


def fresh_network(method):
    torch.manual_seed(seed)
    own = {"cond_dim": cond.shape[1], "guess": method, "tangent": paths.by_name(method).tangent}
    return methods.network_for(method, recipe["flow"]["network"] | own)


# %% [markdown]
# The loop is that of notebook 05, written out.


# %%
def student(method, schedule):
    """A method after a short training, and the loss of every step."""
    network, path, generator = fresh_network(method), paths.by_name(method), new_generator()
    plan = training.Optimization(student_steps, student_batch, 4e-3, warmup=min(50, student_steps))
    optimizer = plan.optimizer_of(network.parameters())
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, plan.lr_factor)
    times, history = schedules.by_name(schedule), []
    for _ in runtime.progress(range(plan.steps), desc=f"{method}, {schedule}"):
        rows = torch.randint(len(train), (plan.batch,), generator=generator)
        loss = losses.flow_matching_loss(network, path, train.x[rows], cond[rows], schedule=times, generator=generator)
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
        decay.step()
        history.append(loss.item())
    return Geolocator(network, method, sampling_schedule_of(recipe, method)), history


students, history = {}, {}
for schedule in ("linear", "mixed"):
    for method in GENERATIVE:
        students[method, schedule], history[method, schedule] = student(method, schedule)

# %% [markdown]
# > **Predict before you run.** Can you tell from the six losses which method is best?

# %%
lessons_comparison.losses_figure(history, window=min(20, student_steps))

# %% [markdown]
# *What was seen:* the question makes no sense. The losses measure different things (noise, velocities in R³, velocities on S²), and the two panels
# measure them at different times. A number that means the same for all methods is the density that each of them gives to the true
# places, *on the sphere*.
#
# ## One likelihood for all
#
# A method in R³ ends at points near the sphere. Its answer is the *direction* u of its last state, a unit vector. The equation that moves the points also gives
# their density p(x) in R³ (notebook 07); for a diffusion it is called the *probability-flow ODE*. All points on the ray of u have the direction u, so their mass adds up:
#
# $$p(u) = \int_0^\infty p(r u)\, r^2\, dr .$$
#
# The factor r² is there because a cone of directions is wider at a larger radius. Below is p(ru) r² along the rays of four samples, from the shipped models.
# Each colour is one sample; its triangle is
# the radius at which the sample itself ended. *What to look for:* at which radius is the mass, and in how thick a shell?

# %%
SHIPPED = {"riemannian": "tiles"} | {method: f"tiles-{method}" for method in ("flow", "diffusion", "vmf", "vmf-mixture")}
shipped = {method: Geolocator.from_pretrained(name) for method, name in SHIPPED.items()}
shipped["land"] = Geolocator.from_pretrained("land")
place = tiles.EXAMPLES["coast"]
image = tiles.tile(*place)
embedding = encoder.embed(encoder.preprocess(image)[None])

radius = torch.linspace(0.98, 1.02, by_scale(21, 161, 161))
share, own_radius, thickness = {}, {}, {}
for method in ("flow", "diffusion"):
    model, options = shipped[method].model, few_steps
    *_, end = model.states(model.noise((1, 4), new_generator()), embedding, options)
    rays = sphere.unit(end)[0, :, None] * radius[:, None]  # (4, radii, 3)
    along = model.ambient_log_prob(rays.flatten(0, 1)[None], embedding, options).reshape(4, -1) + 2 * radius.log()
    mass = along.softmax(-1)
    mean = (mass * radius).sum(-1, keepdim=True)
    thickness[method] = (mass * (radius - mean).square()).sum(-1).sqrt()
    share[method], own_radius[method] = mass / (radius[1] - radius[0]), end[0].norm(dim=-1)
    print(f"{TITLES[method]:20s} standard deviation of the radius: " + ", ".join(f"{6371 * s:.0f} km" for s in thickness[method]))

# %%
lessons_comparison.shells_figure(radius, share, own_radius)

# %% [markdown]
# *What was seen:* the mass of a ray lies in a thin shell, with a standard deviation of 1 to 2 km for the flow and of 14 to 19 km for the diffusion (the radius of the Earth is 6,371 km), and its middle is a little below or above 1. The density *in R³* at r = 1, which the paper reports for
# these methods, depends on how thin this shell is: a shell that is ten times thinner adds log 10 = 2.3 nats without moving any place (exercise 1). So the paper rightly warns that its numbers for R³ and for S² cannot be compared. The integral along the ray can.
#
# `Geolocator.log_prob` computes the integral along the ray for methods in R³, at radii that follow each ray's own shell. Here is what the six students reach on the sphere,
# and beside it what the number in R³ would have said. Both are *NLL over uniform*: the mean of −log p over true places, minus that of a uniform guess. Lower is better, and 0 is a uniform guess.

# %%
truth = sphere.to_latlon(test.x[:judged, None])
log_p = {key: geo.log_prob(truth, cond=test_cond[:judged], steps=few_steps.steps)[:, 0] for key, geo in students.items()}
in_space = {key: geo.ambient_log_prob(truth, cond=test_cond[:judged], steps=few_steps.steps)[:, 0] for key, geo in students.items()}
fair = {key: sphere.LOG_UNIFORM - values.mean().item() for key, values in log_p.items()}
ambient = {key: sphere.LOG_UNIFORM - values.mean().item() for key, values in in_space.items()}
print(f"{'NLL over uniform, nats':32s}{'on S²':>8s}{'where its states live':>24s}")
for (method, schedule), value in fair.items():
    print(f"{TITLES[method] + ', ' + schedule:32s}{value:8.2f}{ambient[method, schedule]:24.2f}")
for method in GENERATIVE:
    gain, error = metrics.paired_difference(log_p[method, "mixed"], log_p[method, "linear"])
    print(f"mixed times instead of uniform ones, {TITLES[method]}: {gain:+.2f} ± {error:.2f} nats")

# %% [markdown]
# *What to read from it:* the right column would put the methods in R³ far ahead of the Riemannian flow, and that is only the thinness of their shells. On the sphere (left column) the numbers can be compared. The last three lines answer the question about the times, for these few steps. Mixed times help the
# diffusion, by 0.35 ± 0.13 nats, hurt flow matching in R³, by 0.30 ± 0.09, and make no clear difference for the Riemannian flow (−0.15 ± 0.13): only a difference of more than two standard errors counts. This fits the figure above, in which the diffusion is decided latest. The errors are those over 50 tiles; each method was
# trained once, so they do not say what another training would give. Trainings this short only illustrate how methods are compared; the next section has the long ones.
#
# ## The whole comparison
#
# Now the trainings that count. All trained methods have the same encoder, 300,000 tiles and networks of one size. The three generative methods were trained for 10,000 steps, by the recipe of the shipped
# flow with their own guess. The closed forms, networks that predict peaks, were trained for 4,000 steps, since afterwards they overfit; of every method the weights with the lowest validation loss were kept. A *von
# Mises–Fisher* (vMF) density is one round peak; the mixtures have 3, as in the paper, or 16. *Retrieval* looks up the training tiles with the most similar embeddings; its
# settings were tuned on validation tiles. *Land* and *uniform* do not look at the image.
#
# Every method was scored on the same 2,000 tiles of *seen regions* (new tiles, but of parts of the Earth on which it was trained) and on 2,000 tiles of *held-out blocks* (parts that no training tile shows). The scores:
#
# * **NLL over uniform**, as above. It judges the whole distribution. It is given for seen regions only: a model rightly learns that no
#   training tile comes from the held-out blocks.
# * **Energy score**: the mean distance of samples to the truth, minus half of their mean distance to each other, in kilometres. It judges the whole distribution, too. Lower is better, and it is lowest on average for the true distribution.
# * **GeoScore**: 5000 · exp(−d/1492.7 km) for an answer at the distance d. Higher is better. The *answer* is the one of 24 samples that has the highest GeoScore on average if the other samples stand for the
#   truth, which is not used. *One sample* is a single random sample.
#
# Another kind of score, precision and recall, asks whether the set of all answers looks like the set of all places; notebook 09 explains why it says little here.

# %%
FOLDER = runtime.DATA / "results" / "tiles"
COMPARED = ("riemannian", "flow", "diffusion", "vmf-mixture-16", "vmf-mixture", "vmf", "retrieval", "land", "uniform")
REPORTS = ("test", "held-out", "test-guided", "held-out-guided")
reports = {(method, name): read_report(FOLDER / f"{method}-{name}.json") for method in COMPARED for name in REPORTS}
differences = runtime.read_json(FOLDER / "differences.json")
COLUMNS = {
    "nll_over_uniform": "NLL",
    "energy_km": "energy km",
    "geoscore": "GeoScore",
    "single_geoscore": "one sample",
    "median_km": "median km",
}


def print_scores(name, methods=COMPARED):
    columns = [key for key in COLUMNS if key in reports[methods[0], name].metrics]
    print(f"{'':22s}" + "".join(f"{COLUMNS[key]:>12s}" for key in columns))
    for method in methods:
        row = reports[method, name].metrics
        print(f"{TITLES[method]:22s}" + "".join(f"{row[key]:12,.{2 if key.startswith('nll') else 0}f}" for key in columns))


# %%
print(f"seen regions, {reports['riemannian', 'test'].metrics['images']:,} tiles, no guidance")
print_scores("test")
for method in ("flow", "diffusion"):  # the paper's unit is bits divided by 3
    in_r3 = 3 * math.log(2) * reports[method, "test"].metrics["ambient_bits_per_dimension"] + sphere.LOG_UNIFORM
    print(f"the density in R³ would have given {TITLES[method]} an NLL over uniform of {in_r3:.2f}")

# %% [markdown]
# Which of these differences are real? All methods answered the same tiles, and some tiles are hard for all of them. So we compare tile by tile: the mean of the differences, with
# a standard error from a *paired bootstrap* (draw the tiles again with replacement a thousand times, and see how much the mean difference varies; exercise 2). We say that one method is *ahead of*
# another if the mean is more than two standard errors from zero. There is one training of each method, so the errors are those over tiles, and not over trainings.
#
# *What to look for:* the dots right of the line, where the Riemannian flow is ahead. The bars are two standard errors long on each side. A filled dot means ahead or behind, an
# open one means level.

# %%
lessons_comparison.ahead_figure({m: differences["test"][m] for m in COMPARED[1:-2]}, "seen regions, no guidance")


# %%
def print_differences(name, methods=COMPARED[1:-2]):
    units = {"nll": "nats", "energy_km": "km", "geoscore": "GeoScore", "single_geoscore": "GeoScore of one sample"}
    print(f"{name}: the Riemannian flow is ahead by (± standard error; = marks less than two of them)")
    for method in methods:
        parts = []
        for score, (mean, error) in differences[name][method].items():
            digits = 2 if score == "nll" else 0
            parts.append(f"{mean:+.{digits}f} ± {error:.{digits}f} {units[score]}{'' if abs(mean) > 2 * error else ' ='}")
        print(f"  {TITLES[method]:20s} " + ", ".join(parts))


print_differences("test")

# %% [markdown]
# *What was seen,* from the top:
#
# * **The three generative methods are close.** The Riemannian flow is ahead of both methods in R³ in likelihood, by 0.08 ± 0.03 nats each, and level in the three other scores. The densities in R³ would have told another story: they make the methods in R³
#   better than the Riemannian flow by 4.8 nats (diffusion) and 7.3 nats (flow matching), which is the thinness of their shells.
# * **The mixture of three** is behind the flow in everything: by 1.93 ± 0.06 nats, 134 ± 37 km and 190 ± 32 of GeoScore.
# * **The mixture of sixteen** is behind by 0.86 ± 0.04 nats, level in the energy score and in one sample, and *ahead* of the flow in the answer of 24, by 73 ± 34 of GeoScore, a little more than two errors. This agrees with the idea that
#   sixteen peaks find the candidate places but cannot draw their shapes, for which the likelihood asks.
# * **Retrieval**, a look-up among 300,000 training tiles, is behind in everything too, but by little in likelihood: 0.16 ± 0.05 nats.
# * One vMF cannot say "here or there", and is far behind in everything.
#
# ### With guidance
#
# The paper's protocol for one answer is a *guided single sample* with ω = 2 (notebook 06). Closed forms and retrieval have no guidance, so their rows are as before.

# %%
print("seen regions, guidance 2 where there is guidance")
print_scores("test-guided", COMPARED[:-2])
print()
print_differences("test-guided")

# %% [markdown]
# *What was seen:* guidance lifts the single sample of the Riemannian flow from 1595 to 2080. With it, the flow is ahead of every other method in one sample: by 105 ± 32 and 74 ± 31 of the methods in R³, by 454 ± 39 of the mixture of sixteen, by 654 ± 36 of the mixture of three and by 948 ± 45 of
# retrieval. This is the protocol of the paper's table 1, where the Riemannian flow is first, too. Diffusion comes before flow matching here as there, but by 31 points only, which was not tested. The protocol favours methods that have guidance, which makes their samples more concentrated. A mixture could be sharpened, too (notebook 09), and the answer of 24 from sixteen components, 2,118, needs no solver. So only the comparison of the three generative methods is like with like. In the answer of 24 samples, guidance makes the flow level with the mixture of sixteen. The price is the distribution: the energy score gets worse by 780 km, because guided samples are too concentrated. With guidance the flow is behind every other method in this score, also behind flow matching (181 ± 54 km) and diffusion (261 ± 51 km), which were guided as strongly. Guidance is for answers, not for
# densities.
#
# ### Minutes and components
#
# How much does the comparison depend on the length of the training, and on the number of components? `tests/benchmarks/curves.py` trained the flow and two mixtures with several budgets, and other
# mixtures for 2,000 steps. All share the encoder of the models above. The learning rate falls to zero within each budget. The scores are of 2,000 tiles of seen regions, which are not the tiles of the table above. Each method was trained once with each budget.
#
# *What to look for:* on the left, how long each curve still falls. On the right, whether any number of components reaches the flow with as many steps, which the line shows.

# %%
curves = runtime.read_json(runtime.DATA / "results" / "curves.json")
print(f"{'':22s}   steps  minutes     NLL  energy km  GeoScore   the flow with as many steps is ahead by, nats / km / GeoScore")
for row in curves["rows"]:
    name = f"mixture of {row['components']} vMF" if row["components"] else "Riemannian flow"
    nll, energy, geoscore = (row["scores"][f"test-{kind}"] for kind in ("nll", "energy_km", "geoscore"))
    line = f"{name:22s}{row['steps']:8,}{row['minutes']:9.1f}{nll:8.2f}{energy:11,.0f}{geoscore:10,.0f}"
    if row["components"]:
        nats, km, points = (row["flow_ahead"][f"test-{kind}"] for kind in ("nll", "energy_km", "geoscore"))
        line += f"   {nats[0]:.2f} ± {nats[1]:.2f} / {km[0]:.0f} ± {km[1]:.0f} / {points[0]:.0f} ± {points[1]:.0f}"
    print(line)

# %%
lessons_comparison.budgets_figure(curves["rows"], steps=2000)

# %% [markdown]
# *What was seen:* in likelihood, the flow is ahead of every mixture with as many steps, but for sixteen components after 500 steps, which are ahead by 0.06 ± 0.03 nats. Its lead grows with the length of the training: over sixteen components from 0.13 ± 0.04 nats after
# 1,000 steps to 0.51 ± 0.04 after 4,000. All curves flatten. The last doubling shown of the mixtures gives three components 0.17 nats and sixteen 0.12; from 4,000 to 8,000 steps the flow gains 0.23, and with four times as many steps again only 0.11, since its validation loss is lowest in the middle of that training. More components help, from −1.39 nats with one to −4.03 with 32, but none reaches the flow's −4.17.
#
# In the energy score and in the answer of 24 samples it is the other way round. Eight, sixteen and 32 components are ahead of the flow with 2,000 steps, by 110 to 121 km and by 88 to 175 of GeoScore. After 4,000 steps sixteen components and the flow are level in both, GeoScore (66 ± 34) and
# energy score (60 ± 35 km): these differences are just below two errors. A mixture's step also takes half of the time of a flow's. At equal minutes, sixteen components have the lower NLL, too, for trainings of up to about four minutes (−3.54 against −3.05 at 1.4 minutes). A longer training does not bring the flow ahead in these two
# scores: after 32,000 steps it has 2,490 km and 2,157, sixteen components 2,462 km and 2,159 after 4,000. So for a short training a mixture of sixteen is the better choice; after a long one the two are level where only the candidate regions matter, and the mixture is cheaper. The flow is the better one where the shape
# of the density matters, and for guided samples. The encoder is shared and was trained once, and so was each method, so these errors are those over tiles only.
#
# ### Several trainings
#
# A method may be lucky in one training, and the encoder too. `tests/benchmarks/seeds.py` trained encoder and methods anew with several seeds by the recipe `laptop`: five
# times the flow and the mixtures, three times the others. The encoders saw 2.0 million images in training, that of the models above 5.1 million, so all scores are worse here. The tiles are the same 2,000, and ±
# is the standard deviation between trainings. The paired bootstrap of the figure draws tiles and trainings; a method with three trainings is compared with the flow's trainings of the same three seeds.
#
# *What to look for:* what stays of the order above, and how much one training differs from another.

# %%
several = runtime.read_json(runtime.DATA / "results" / "seeds.json")["methods"]
print(f"{'':22s}trainings{'NLL':>15s}{'energy km':>15s}{'GeoScore':>15s}{'guided sample':>15s}{'held-out: GeoScore':>20s}")
SHOWN = [("test", "nll_over_uniform"), ("test", "energy_km"), ("test", "geoscore")]
SHOWN += [("test-guided", "single_geoscore"), ("held-out", "geoscore")]
for method, row in several.items():
    line = f"{TITLES[method]:22s}{len(row['seeds']):9d}"
    for name, score in SHOWN:
        digits = 2 if score.startswith("nll") else 0
        mean, spread = row["mean"][name][score], row["deviation"][name][score]
        line += f"{f'{mean:,.{digits}f} ± {spread:.{digits}f}':>{20 if name == 'held-out' else 15}s}"
    print(line)

# %%
flow_ahead = {method: row["flow_ahead"]["test"] for method, row in several.items() if method != "riemannian"}
guided = {method: row["flow_ahead"]["test-guided"]["single_geoscore"] for method, row in several.items() if method != "riemannian"}
for method, (mean, error) in guided.items():
    print(f"guided sample: the flow is ahead of {TITLES[method]:20s} by {mean:+.0f} ± {error:.0f} of GeoScore")
lessons_comparison.ahead_figure(flow_ahead, "several trainings, encoders of their own: seen regions, no guidance")

# %% [markdown]
# *What was seen:* one training differs from another by 0.03 to 0.05 nats (the single vMF by 0.13) and by 16 to 33 of GeoScore. In likelihood and in the guided sample the order of the methods stays. Three statements differ from those about one training; the encoders differ, too, so the number of trainings need not be the reason. In likelihood the diffusion is now level with the
# Riemannian flow (0.05 ± 0.04 nats), and flow matching in R³ remains behind, by 0.09 ± 0.04. The mixture of sixteen has lost its lead in the answer of 24 (11 ± 25 of GeoScore), and there the flow is now ahead of flow matching in R³ (54 ± 26; with three trainings the error is a little too small, so this lead of 2.1 errors is not safe). In the energy score, the flow is ahead of three components by 103 ± 27 km and of retrieval by
# 174 ± 32 km, and level with sixteen (3 ± 27 km the other way). In the guided sample it is ahead of every other method, of the diffusion by the least: 54 ± 24.
#
# ### In held-out blocks

# %%
print("held-out blocks, no guidance")
print_scores("held-out")
print()
print_differences("held-out", COMPARED[1:-1])
print()
print_scores("held-out-guided", COMPARED[:3])

# %%
lessons_comparison.ahead_figure({m: differences["held-out"][m] for m in COMPARED[1:-1]}, "held-out blocks, no guidance")

# %% [markdown]
# *What was seen:* on parts of the Earth that training never saw, all scores are much worse: GeoScores of 700 to 830, against 2045 for the flow in seen regions, and 209 for a guess on land. In the answer, all generative methods and mixtures are level with the flow. In the energy score the flow is ahead of flow matching in R³ (128 ± 37 km) and of the mixture of
# sixteen (171 ± 40 km), level with diffusion and with the mixture of three, and *behind* the single vMF (81 ± 36 km) and retrieval (189 ± 45 km). (In GeoScore these two are behind, by 101 and 52.) Over the several trainings above, two of these differences are level: the single vMF in the energy score and retrieval in GeoScore; and eight components are ahead of the flow in the held-out answer ([how far](../data/results/README.md)). In the energy score a wrong distribution loses less if it is wide, and in these regions every method is often wrong. What is learnt in seen regions carries over only in part, for every method. Notebook 09 shows that the
# Riemannian flow does not notice when it has left the regions that it knows.
#
# ## On which tiles does the flow gain?
#
# Sort the tiles from ambiguous to clear. The measure should belong to neither competitor. So we ask the training set: take the sixteen training tiles whose embeddings are most
# similar, and measure how far apart their *places* are. Neighbours all over the Earth mean an ambiguous tile. We form four groups of equal size, and compare in each of them the Riemannian flow with the mixture of three and with a
# single vMF:
#
# * the log-density of the true place, over uniform;
# * the *centre*: the median distance of the answer from the truth;
# * the *width*: the median distance of the samples from the answer.
#
# > **Predict before you run.** The mixture can draw three round peaks, the flow any shape. In which group should the flow gain most?

# %%
similarity = normalize(test_cond, dim=-1) @ normalize(cond, dim=-1).T
neighbours = train.x[similarity.topk(min(16, len(train))).indices]  # (checked, 16, 3)
apart = sphere.distance_km(neighbours[:, :, None], neighbours[:, None]).mean((1, 2))
groups = apart.argsort(descending=True).tensor_split(4)
print("median distance between neighbours: " + ", ".join(f"{apart[group].median():,.0f} km" for group in groups))

PAIR = ("riemannian", "vmf-mixture", "vmf")
places = sphere.to_latlon(test.x[:, None])
nats, centre, width = {}, {}, {}
for method in PAIR:
    nats[method] = shipped[method].log_prob(places, cond=test_cond)[:, 0] - sphere.LOG_UNIFORM
    points = sphere.from_latlon(shipped[method].sample(cond=test_cond, n=24, seed=seed))
    answer = metrics.best_for_geoscore(points)
    centre[method] = sphere.distance_km(answer, test.x)
    width[method] = sphere.distance_km(points, answer[:, None]).median(1).values


# %%
def by_group(values, statistic):
    """A statistic of each group, with its standard error by a bootstrap over tiles: (4, 2)."""
    generator, rows = new_generator(), []
    for group in groups:
        again = values[group][torch.randint(len(group), (300, len(group)), generator=generator)]
        rows.append([statistic(values[group]).item(), torch.stack([statistic(row) for row in again]).std().item()])
    return torch.tensor(rows)


panels = {
    "log p(truth) over uniform (nats)": {method: by_group(nats[method], torch.mean) for method in PAIR},
    "centre: answer to truth (km)": {method: by_group(centre[method], torch.median) for method in PAIR},
    "width: samples to answer (km)": {method: by_group(width[method], torch.median) for method in PAIR},
}
lessons_comparison.groups_figure(panels, log=tuple(panels)[1:])


# %%
def gap_of_medians(pair):
    """The median of the first column minus that of the second."""
    return pair[:, 0].median() - pair[:, 1].median()


ahead = [metrics.paired_difference(nats["riemannian"][group], nats["vmf-mixture"][group]) for group in groups]
gaps = {
    name: by_group(torch.stack([values["riemannian"], values["vmf-mixture"]], -1), gap_of_medians)
    for name, values in (("centre", centre), ("width", width))
}
print("Riemannian flow minus mixture of 3, with standard errors of a paired bootstrap")
for number, (mean, error) in enumerate(ahead):
    parts = [f"log p {mean:+.2f} ± {error:.2f} nats"]
    parts += [f"{name} {gap[number, 0]:+,.0f} ± {gap[number, 1]:,.0f} km" for name, gap in gaps.items()]
    print(f"quarter {number + 1}: " + ", ".join(parts))

# %% [markdown]
# *What was seen:* (bars in the figure are one standard error long on each side.) The flow is ahead of the mixture in likelihood on every quarter of the tiles, by 1.6 to 2.1 nats, and hardly more on the ambiguous ones. On the two ambiguous quarters the answers and widths of the two are level. On the third the flow is narrower, by 300 ± 116 km, and on the
# clearest its answers are closer to the truth, by 250 ± 97 km. But its likelihood gains as much on every quarter, also where answers and widths are level. This suggests that much of the gain comes from the *shape* of its density, which the answer and the width do not see. It is no proof, since the errors of these two are large on the ambiguous tiles. The tables agree with it: sixteen peaks in place of three, which can draw finer shapes, win back 1.07 of the 1.93 nats; and the regions in which half of the true places lie are several times smaller for the flow (notebook 09, section 6). The single vMF must be wide wherever there is more than one candidate.
#
# ### When is the density made?
#
# Along the flow the log-density of a point changes by the negative divergence of the velocity (notebook 07). Follow the true places back in time, and write down how much of the log-density is made
# until each time. *What to look for:* left, how late do clear tiles gain? Right, how many of the training times fall so late?

# %%
flow = shipped["riemannian"].model
times = flow.times(SolverOptions(by_scale(8, 32, 32)))
followed = [group[: by_scale(4, 64, 64)] for group in groups]


def rate(x, t):
    return likelihood.divergence(flow.velocity, flow.path, x, t, test_cond[rows])


gained = {}
for number, rows in enumerate(followed):
    totals = [torch.zeros(len(rows), 1)]
    for _, total in samplers.integrate(rate, flow.path, test.x[rows, None], times.flip(0), "rk4"):
        totals.append(total if total is not None else totals[0])
    so_far = torch.stack(totals[-len(times) :])[..., 0].mean(1).flip(0)  # from noise to data
    gained[("ambiguous", "second", "third", "clear")[number]] = so_far[0] - so_far
drawn_before = schedules.EVEN_SHARE * times + (1 - schedules.EVEN_SHARE) * schedules.log_clock(times)
late = int((times < 0.95).sum())  # the first of the sampler's times in the last twentieth
lessons_comparison.gained_figure(1 - times, gained, drawn_before)

# %%
print(f"after t = {times[late]:.3f}: {1 - drawn_before[late]:.0%} of the training times")
for name, values in gained.items():
    print(f"{name:10s} gains {values[-1]:5.2f} nats in all, {values[-1] - values[late]:5.2f} of them after t = {times[late]:.3f}")

# %% [markdown]
# *What was seen:* on a logarithmic axis of the time that is left, all groups gain over most of the range, and clear tiles gain more and begin earlier. In the last twentieth of the time, 34 to 41 % of the log-density is made (2.25 of 6.60 nats for clear tiles, 1.18 of 3.04 for ambiguous ones). The mixed times put 41 % of the training there; uniform
# times would put 5 % there.
#
# ## Six answers to one tile
#
# Figure A of the paper shows six methods, one ambiguous image and one colour scale. Our tile is the dry cape of notebook 00, the Horn of Africa; a desert coast could be in many places. The maps show 2,000 samples of each method, each
# smoothed to a peak 200 km wide. All six are drawn in the same way, since exact maps of the methods in R³ would take many minutes.
#
# *What to look for:* the shapes. What does one peak do with several candidate regions?

# %%
SIX = ("riemannian", "flow", "diffusion", "vmf-mixture", "vmf", "land")
answers = {method: shipped[method].sample(cond=embedding, n=by_scale(50, 2000, 2000), seed=seed)[0] for method in SIX}
rasters = {method: widgets.smoothed(sphere.from_latlon(latlon)) for method, latlon in answers.items()}
maps.contact_sheet([{"density": rasters[m], "image": image, "truth": place, "title": TITLES[m]} for m in SIX])

# %%
here = sphere.from_latlon(torch.tensor([place]))
near = {}
for method, latlon in answers.items():
    x = sphere.from_latlon(latlon)
    near[method] = (sphere.distance_km(x, here) < 1000).double().mean().item()
    off = float(sphere.distance_km(metrics.best_for_geoscore(x[None, :500]), here))
    area = lessons_comparison.half_area_km2(rasters[method]) / 1e6
    print(
        f"{TITLES[method]:20s} {near[method]:4.0%} of the samples within 1,000 km; answer {off:6,.0f} km off; half of the map on {area:6.1f} million km²"
    )

# %% [markdown]
# *What was seen:* the generative methods draw shapes and agree on them: the coasts of North Africa, the Horn of Africa and the coasts of Arabia, and some Baja California, which is faintest for the diffusion. All half areas here include the smoothing by 200 km, which widens thin coasts most: 1.6 to 1.8 million km² for the generative methods, 3.8 for the mixture. In the exact maps of this tile (figure A in [RESULTS](RESULTS.md)) the areas of the generative methods are several times smaller and differ
# more. The candidates have different weights: 22 to 33 % of the samples lie within 1,000 km of the truth. Their answers are 1,857 to 5,155 km off, and they depend on the draw where two candidates have nearly equal weight: from other samples the diffusion answers with a place near the truth (figure A). The
# mixture of three covers North Africa and the Horn of Africa with two round peaks, and has 28 % near the truth. The single vMF must cover everything between its candidates, Europe and the whole of the Sahara included. One tile says nothing about which method is better; the tables above do.
#
# ### Are these densities?
#
# The likelihoods above count only if each density integrates to one over the sphere. We test it for this tile by *importance sampling*: draw points from a density q that is similar to p (smoothed samples of the same method), and average p/q. This is right on average for every q that is positive wherever p is. Its
# standard error can be trusted if p/q is nowhere very large, so a twentieth of the points are drawn uniformly. A density in R³ costs 48 points along each ray, so fewer directions are drawn.

# %%
integrals = {}
for method in ("riemannian", "vmf-mixture", "flow", "diffusion"):
    few = integral_points["R³" if shipped[method].model.points_per_place > 1 else "S²"]

    def log_prob(x, geo=shipped[method]):
        return geo.log_prob(sphere.to_latlon(x), cond=embedding, steps=few_steps.steps)[0]

    integrals[method] = density.importance_integral(log_prob, sphere.from_latlon(answers[method]), few, new_generator())
    print(f"{TITLES[method]:20s} integral {integrals[method][0]:.3f} ± {integrals[method][1]:.3f}, from {few} directions")

# %% [markdown]
# *What to read from it:* an integral that is one within two standard errors is what a density must have. The errors of the methods in R³ are larger, because fewer directions were drawn: for flow matching this test would not notice a quarter too much or too little. The exact maps of this tile are the better test. They integrate to 1.006 and 0.995 (figure A of [RESULTS](RESULTS.md)).
#
# ## How they move
#
# *What to look for*, dragging the slider: which method decides early, and which late? Closed-form points stay put.

# %%
shown = {TITLES[method]: shipped[method] for method in by_scale(("vmf", "riemannian"), SIX, SIX)}
player = widgets.compare_methods(shown, {"dry cape": image}, {"dry cape": place}, n=by_scale(20, 200, 200), keep=True)
player

# %%
player.contact_sheet()

# %% [markdown]
# The methods in R³ move through space, which the map cannot show. *What to look for:* the distance of their states from the centre of the Earth. When do they arrive at the surface, the dotted line?

# %%
times_of, radii = {}, {}
for method in ("flow", "diffusion"):
    model, options = shipped[method].model, SolverOptions(by_scale(4, 32, 32))
    noise = model.noise((1, 60), new_generator())
    radii[method] = torch.stack(list(model.states(noise, embedding, options)))[:, 0].norm(dim=-1)
    times_of[method] = model.times(options)
    start = radii[method][0]
    arrived = times_of[method][((radii[method] - 1).abs() < 0.05).double().mean(1).gt(0.9).nonzero()[0, 0]]
    print(
        f"{TITLES[method]:20s} starts between {start.min():.1f} and {start.max():.1f} Earth radii; nine of ten are within 0.05 radii of the surface at t = {arrived:.3f}"
    )
lessons_comparison.radii_figure(times_of, radii)

# %% [markdown]
# *What was seen:* the states start between 0.3 and 3.8 Earth radii from the centre, many of them inside the Earth. Those of the flow arrive at the surface at t = 0.98, those of the diffusion when a thousandth of the time is left. The Riemannian flow needs to do none of this, since its points never leave the
# surface.
#
# ### The solver of a diffusion
#
# A diffusion is solved here in the angle φ = arcsin √t, in which the path is a rotation, x = sin φ x₁ + cos φ x₀, and the equation is regular at the data. In this variable **DDIM** (Song et al., 2021) is the exact rotation
# with the predicted noise held fixed (exercise 3). *What to look for:* which solver is closest to a fine solution after a given number of evaluations of the network?

# %%
geo = shipped["diffusion"]
noise = geo.model.noise((1, by_scale(20, 200, 200)), new_generator())
reference = sphere.from_latlon(geo.sample(cond=embedding, noise=noise, steps=by_scale(8, 256, 512)))
errors = {}
for solver in ("ddim", "euler", "heun", "rk4"):
    steps = by_scale((2, 4), (2, 4, 8, 16, 32, 64), (2, 4, 8, 16, 32, 64, 128))
    ends = [sphere.from_latlon(geo.sample(cond=embedding, noise=noise, steps=n, solver=solver)) for n in steps]
    off = [float(sphere.distance_km(x, reference).median()) for x in ends]
    errors[solver] = [samplers.evaluations(solver, n) for n in steps], off
    print(f"{solver:6s} " + ", ".join(f"{n}: {km:.2g} km" for n, km in zip(*errors[solver], strict=True)))
lessons_comparison.solvers_figure(errors)

# %% [markdown]
# *What was seen:* with few evaluations no solver is good: at 8 evaluations DDIM and Euler are about 200 km off, Heun's method three times as far, and two steps of Heun or RK4 are lost. At 16 evaluations Heun and RK4 are about as close as Euler, from 32 on they are closer, and RK4 is the closest. DDIM keeps the predicted noise fixed for a
# whole step. On this tile that is closer than keeping the velocity fixed, as Euler does, at 4 evaluations only.
#
# ## Check

# %%
assert decided["diffusion"] < decided["flow"] < 0.1
for method in COMPARED:
    assert reports[method, "test"].metrics["images"] == 2000
for method in COMPARED[1:]:  # the differences are those of the reports
    mean = reports[method, "test"].metrics["nll"] - reports["riemannian", "test"].metrics["nll"]
    assert abs(differences["test"][method]["nll"][0] - mean) < 1e-3
assert all(differences["test"][method]["nll"][0] > 2 * differences["test"][method]["nll"][1] for method in COMPARED[1:])
mean, error = differences["test"]["vmf-mixture-16"]["geoscore"]
assert mean < -2 * error, "sixteen components are ahead in the answer"
for method in ("flow", "diffusion", "vmf-mixture-16"):
    mean, error = differences["test"][method]["energy_km"]
    assert abs(mean) < 2 * error, "the energy score cannot separate them"
assert all(differences["test-guided"][method]["single_geoscore"][0] > 70 for method in COMPARED[1:])
assert all(differences["held-out"][method]["energy_km"][0] < 0 for method in ("vmf", "retrieval"))

# %%
for method, scores in flow_ahead.items():
    mean, error = scores["nll"]
    assert mean > 2 * error or method == "diffusion", "the flow is ahead in likelihood of all but one"
assert abs(flow_ahead["diffusion"]["nll"][0]) < 2 * flow_ahead["diffusion"]["nll"][1], "level"
assert all(
    abs(flow_ahead["vmf-mixture-16"][score][0]) < 2 * flow_ahead["vmf-mixture-16"][score][1] for score in ("energy_km", "geoscore")
), "level"
assert flow_ahead["flow"]["geoscore"][0] > 2 * flow_ahead["flow"]["geoscore"][1], "ahead"
assert all(flow_ahead[method]["energy_km"][0] > 2 * flow_ahead[method]["energy_km"][1] for method in ("vmf-mixture", "retrieval")), "ahead"
assert all(mean > 2 * error for mean, error in guided.values()), "the guided sample is ahead of every other"
leads = {(row["components"], row["steps"]): row["flow_ahead"] for row in curves["rows"] if row["components"]}
for (components, steps), row in leads.items():  # of as many steps
    mean, error = row["test-nll"]
    assert mean > 2 * error or (components, steps) == (16, 500), "the flow is ahead in likelihood"
    assert row["test-guided"][0] > 2 * row["test-guided"][1], "and in one guided sample"
    if components >= 8 and steps == 2000:
        assert all(row[kind][0] < -2 * row[kind][1] for kind in ("test-energy_km", "test-geoscore")), "many components are ahead here"
assert all(abs(leads[16, 4000][kind][0]) < 2 * leads[16, 4000][kind][1] for kind in ("test-energy_km", "test-geoscore")), "level"
if by_scale(False, True, True):
    assert thickness["flow"].max() < thickness["diffusion"].min()
    assert all(abs(value - 1) < 2 * error + 0.02 for value, error in integrals.values()), integrals
print("all checks passed")

# %% [markdown]
# ## Exercises
#
# Fill each gap marked `# your code here`, run the cell, then run the check cell below it. The solutions, executed, are in
# `solutions/08_diffusion_vs_riemannian_flow.ipynb`.
#
# ### Exercise 1 · What a thin shell is worth
#
# Take points whose direction is uniform and whose radius is normal, with mean 1 and a small standard deviation s. Their density in R³ at the radius r is
#
# $$p(r u) = \frac{1}{4\pi r^2} \cdot \frac{1}{s\sqrt{2\pi}} \exp\Big(\!-\frac{(r - 1)^2}{2 s^2}\Big) .$$
#
# **Stage 1a:** write the logarithm of this density at points x of R³. **Stage 1b:** write the radial marginal of *any* log-density for unit vectors u, log ∫ p(ru) r² dr, as a sum over the given radii, which have equal distances.


# %%
def shell_log_density(x, s):
    """Points (..., 3) → (...) nats with respect to volume."""
    # your code here


def radial_log_density(log_density, u, radii):
    """Unit vectors u (n, 3), radii (m,) → (n,) nats with respect to area."""
    # your code here


# %%
def check_1():
    x = torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.02, 0.0]], dtype=torch.float64)
    if shell_log_density(x, 0.01) is None:
        return "Exercise 1a is still to be solved"
    expected = [-math.log(4 * math.pi * r**2 * 0.01 * math.sqrt(2 * math.pi)) - (r - 1) ** 2 / 2e-4 for r in (1.0, 1.02)]
    torch.testing.assert_close(shell_log_density(x, 0.01), torch.tensor(expected, dtype=torch.float64))
    u, radii = sphere.uniform(3, new_generator()).double(), torch.linspace(0.5, 1.5, 20_001, dtype=torch.float64)
    if radial_log_density(lambda x: shell_log_density(x, 0.01), u, radii) is None:
        return "Exercise 1a: right. Exercise 1b is still to be solved"
    for s in (0.1, 0.01, 0.001):
        found = radial_log_density(lambda x, s=s: shell_log_density(x, s), u, radii)
        torch.testing.assert_close(found, torch.full((3,), sphere.LOG_UNIFORM, dtype=torch.float64), atol=1e-4, rtol=0)
    return "Exercises 1a and 1b: right; on the sphere every such shell is uniform"


print(check_1())

# %% [markdown]
# **Stage 1c:** by how many nats does the density *in R³* at r = 1 grow when the shell gets ten times thinner? And the density of the *place*?

# %%
gain_in_space, gain_of_the_place = None, None  # your code here

# %%
if gain_in_space is None or gain_of_the_place is None:
    print("Exercise 1c is still to be solved")
else:
    right = abs(gain_in_space - math.log(10)) < 0.01 and abs(gain_of_the_place) < 0.01
    print("Exercise 1c: " + ("right" if right else "look again; which of the two factors of p(ru) holds s?"))

# %% [markdown]
# ### Exercise 2 · A paired error
#
# Two methods answered the same n tiles. Write the mean of the differences a − b and two estimates of its standard error. **Stage 2a:** the formula, the standard
# deviation of the differences divided by √n. **Stage 2b:** the bootstrap: draw n tiles with replacement, take the mean difference, do this 1,000 times, and take the standard deviation of the means.


# %%
def formula(a, b):
    """Scores (n,), (n,) → mean difference and its standard error."""
    # your code here


def bootstrap(a, b, draws=1000):
    """The same by drawing tiles again."""
    # your code here


# %%
def check_2():
    common = 3 * torch.randn(400, generator=new_generator())  # easy and hard tiles
    a, b = common + 0.3, common + 0.5 * torch.randn(400, generator=torch.Generator().manual_seed(1))
    if formula(a, b) is None:
        return "Exercise 2a is still to be solved"
    mean, error = formula(a, b)
    assert abs(mean - (a - b).mean()) < 1e-5, f"the mean is {mean}; expected {(a - b).mean()}"
    assert abs(error - 0.025) < 0.003, f"the error is {error}; expected about 0.5 / √400 = 0.025"
    if bootstrap(a, b) is None:
        return "Exercise 2a: right. Exercise 2b is still to be solved"
    assert abs(bootstrap(a, b)[1] - error) < 0.004, f"the bootstrap's error is {bootstrap(a, b)[1]}; expected about {error}"
    unpaired = math.hypot(a.std(), b.std()) / 20
    return f"Exercises 2a and 2b: right; error {error:.3f}, and {unpaired:.3f} if the pairs are forgotten"


print(check_2())

# %% [markdown]
# ### Exercise 3 · A step of DDIM
#
# A state is x = sin φ x₁ + cos φ x₀, and the network predicts the noise x₀ in it. **Stage 3a:** compute from x, φ and the noise the data x₁ that belongs to them, and then the state at another
# angle φ′ with the same noise and the same data.


# %%
def ddim_step(x, noise, phi, new_phi):
    """States (..., 3) at angle φ → states at φ′."""
    # your code here


# %%
def check_3():
    x0, x1 = torch.randn(5, 3, generator=new_generator()), sphere.uniform(5, new_generator())
    state = math.sin(0.3) * x1 + math.cos(0.3) * x0
    if ddim_step(state, x0, 0.3, 0.9) is None:
        return "Exercise 3a is still to be solved"
    torch.testing.assert_close(ddim_step(state, x0, 0.3, 0.9), math.sin(0.9) * x1 + math.cos(0.9) * x0, atol=1e-5, rtol=1e-4)
    velocity = paths.Diffusion().velocity(lambda x, t, cond: x0[None])(state[None], math.sin(0.3) ** 2)[0]
    package = math.cos(0.6) * state + math.sin(0.6) * velocity  # the solver "ddim" of geoflow.samplers
    torch.testing.assert_close(ddim_step(state, x0, 0.3, 0.9), package, atol=1e-5, rtol=1e-4)
    return "Exercise 3a: right, and equal to the package's step"


print(check_3())

# %% [markdown]
# **Stage 3b:** suppose that a state at some angle φ > 0 is given, and that the predicted noise is always the true one. How many steps does DDIM need from there to reach the data exactly?

# %%
steps_needed = None  # your code here

# %%
if steps_needed is None:
    print("Exercise 3b is still to be solved")
else:
    print("Exercise 3b: " + ("right" if steps_needed == 1 else "look again; what does a step assume?"))


# %% [markdown]
# ## References
#
# * N. Dufour, D. Picard, V. Kalogeiton, L. Landrieu, *Around the World in 80 Timesteps*, CVPR 2025, arXiv 2412.06781: the comparison (tables 1 and 2), figures 2 and A.
# * J. Ho, A. Jain, P. Abbeel, *Denoising Diffusion Probabilistic Models*, NeurIPS 2020, arXiv 2006.11239.
# * J. Song, C. Meng, S. Ermon, *Denoising Diffusion Implicit Models*, ICLR 2021, arXiv 2010.02502.
# * Y. Lipman et al., *Flow Matching for Generative Modeling*, ICLR 2023, arXiv 2210.02747.
# * R. T. Q. Chen, Y. Lipman, *Flow Matching on General Geometries*, ICLR 2024, arXiv 2302.03660.
# * B. Efron, *Bootstrap Methods: Another Look at the Jackknife*, Annals of Statistics 7, 1979.
# * T. Gneiting, A. E. Raftery, *Strictly Proper Scoring Rules, Prediction, and Estimation*, JASA 102, 2007: the energy score.
# * K. V. Mardia, P. E. Jupp, *Directional Statistics*, 2000: the von Mises–Fisher distribution.
