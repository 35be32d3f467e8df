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
# # 08 · Euclidean diffusion or Riemannian flow?: solutions
#
# **You will learn** how the exercises of notebook 08 can be solved. Try them first. The check cells are those of the notebook.
#
# | Needs | Time to read | Time to run (laptop / GPU) | Produces |
# |---|---|---|---|
# | notebook 08 | 10 minutes | seconds / not needed | one figure |
#
# Words are explained in notebook 08 and in the [glossary](../GLOSSARY.md).

# %% tags=["parameters"]
from geoflow.runtime import by_scale

seed = 0
repetitions = by_scale(50, 1000, 1000)  # experiments that test the error bars of exercise 2

# %%
import math

import torch

from geoflow import paths, sphere
from geoflow.viz import lessons_scores

_ = torch.manual_seed(seed)


def new_generator():
    return torch.Generator().manual_seed(seed)


# %% [markdown]
# ## Exercise 1 · What a thin shell is worth
#
# Take points whose direction is uniform and whose radius is normal, with mean 1 and a small standard deviation s. Their density in R³ at the radius r is
#
# $$p(r u) = \frac{1}{4\pi r^2} \cdot \frac{1}{s\sqrt{2\pi}} \exp\Big(\!-\frac{(r - 1)^2}{2 s^2}\Big) .$$
#
# **Stage 1a:** write the logarithm of this density at points x of R³. **Stage 1b:** write the radial marginal of *any* log-density for unit vectors u, log ∫ p(ru) r² dr, as a sum over the given radii, which have equal distances.


# %%
def shell_log_density(x, s):
    """Points (..., 3) → (...) nats with respect to volume."""
    r = x.norm(dim=-1)
    return -(4 * math.pi * r**2 * s * math.sqrt(2 * math.pi)).log() - (r - 1) ** 2 / (2 * s**2)


def radial_log_density(log_density, u, radii):
    """Unit vectors u (n, 3), radii (m,) → (n,) nats with respect to area."""
    rays = u[:, None] * radii[:, None]  # (n, m, 3)
    return (log_density(rays) + 2 * radii.log()).logsumexp(-1) + (radii[1] - radii[0]).log()


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
gain_in_space, gain_of_the_place = math.log(10), 0.0

# %%
if gain_in_space is None or gain_of_the_place is None:
    print("Exercise 1c is still to be solved")
else:
    right = abs(gain_in_space - math.log(10)) < 0.01 and abs(gain_of_the_place) < 0.01
    print("Exercise 1c: " + ("right" if right else "look again; which of the two factors of p(ru) holds s?"))

# %% [markdown]
# The factor 1/s√(2π) is that of the radius alone: ten times thinner is ten times denser in R³, log 10 = 2.30 nats. The direction does not know s. So densities in R³ of two methods differ by
# how thin their shells are, and this says nothing about places.
#
# *What to look for:* both densities against the thickness of the shell.

# %%
thickness = torch.logspace(-3, -1, 9, dtype=torch.float64)
on_the_ray = torch.linspace(0.5, 1.5, 20_001, dtype=torch.float64)
north = torch.tensor([[0.0, 0.0, 1.0]], dtype=torch.float64)
in_space = torch.stack([shell_log_density(north, s)[0] for s in thickness])
of_place = torch.stack([radial_log_density(lambda x, s=s: shell_log_density(x, s), north, on_the_ray)[0] for s in thickness])
kilometres = 6371 * thickness
curves = {"in R³, at r = 1": in_space, "of the place": of_place}
lessons_scores.panels_figure(kilometres, [lessons_scores.Panel("log-density (nats)", curves)], "thickness of the shell (km)")

# %% [markdown]
# *What was seen:* towards the left the density in R³ grows by 2.30 nats for each factor of ten, without end. The density of the place stays that of the uniform distribution, −2.53 nats.

# %% [markdown]
# ## Exercise 2 · A paired error
#
# Two methods answered the same n tiles. Write the mean of the differences a − b and two estimates of its standard error. **Stage 2a:** the formula, the standard
# deviation of the differences divided by √n. **Stage 2b:** the bootstrap: draw n tiles with replacement, take the mean difference, do this 1,000 times, and take the standard deviation of the means.


# %%
def formula(a, b):
    """Scores (n,), (n,) → mean difference and its standard error."""
    difference = a - b
    return difference.mean().item(), (difference.std() / len(difference) ** 0.5).item()


def bootstrap(a, b, draws=1000):
    """The same by drawing tiles again."""
    difference = a - b
    rows = torch.randint(len(difference), (draws, len(difference)), generator=new_generator())
    return difference.mean().item(), difference[rows].mean(1).std().item()


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
# Pairing matters because the tiles differ much more than the methods: in the check the standard deviation over tiles is 3, that of the differences 0.5. A test of the rule "more than two standard errors": if there is no
# difference, how often does it claim one?

# %%
generator, claims = new_generator(), 0
for _ in range(repetitions):
    a, b = torch.randn(2, 400, generator=generator)
    mean, error = formula(a, b)
    claims += abs(mean) > 2 * error
print(
    f"without any difference the rule claims one in {claims / repetitions:.1%} of {repetitions} experiments; a normal distribution promises 4.6 %"
)

# %% [markdown]
# With nine methods and several scores there are dozens of comparisons in notebook 08, so one or two claims of "ahead" near two errors may be luck.

# %% [markdown]
# ## Exercise 3 · A step of DDIM
#
# A state is x = sin φ x₁ + cos φ x₀, and the network predicts the noise x₀ in it. **Stage 3a:** compute from x, φ and the noise the data x₁ that belongs to them, and then the state at another
# angle φ′ with the same noise and the same data.


# %%
def ddim_step(x, noise, phi, new_phi):
    """States (..., 3) at angle φ → states at φ′."""
    data = (x - math.cos(phi) * noise) / math.sin(phi)
    return math.sin(new_phi) * data + math.cos(new_phi) * noise


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
steps_needed = 1

# %%
if steps_needed is None:
    print("Exercise 3b is still to be solved")
else:
    print("Exercise 3b: " + ("right" if steps_needed == 1 else "look again; what does a step assume?"))


# %% [markdown]
# A step of DDIM assumes that the predicted noise stays what it is. If it is the true noise, one step from any angle φ > 0 to φ = 90° gives the data. At φ = 0 the state is the noise itself and says nothing about the data. A trained network cannot know the true noise near the start, since many places are still
# possible; its prediction changes along the way, and this is why several steps are needed.
#
# ## Check

# %%
assert check_1().startswith("Exercises 1a and 1b: right")
assert check_2().startswith("Exercises 2a and 2b: right")
assert check_3().startswith("Exercise 3a: right")
assert abs(gain_in_space - (in_space[0] - in_space[4]).item()) < 1e-6, "from 64 km to 6 km"
assert (of_place - sphere.LOG_UNIFORM).abs().max() < 1e-4
assert steps_needed == 1
assert claims / repetitions < by_scale(0.2, 0.08, 0.08)
print("all checks passed")

# %% [markdown]
# ## References
#
# * B. Efron, *Bootstrap Methods: Another Look at the Jackknife*, Annals of Statistics 7, 1979.
# * J. Song, C. Meng, S. Ermon, *Denoising Diffusion Implicit Models*, ICLR 2021, arXiv 2010.02502.
