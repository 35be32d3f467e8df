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
# # 04 · The velocity network: solutions
#
# **You will learn** how the exercises of notebook 04 can be solved. Try them first. The check cells are those of the notebook.
#
# | Needs | Time to read | Time to run (laptop / GPU) | Produces |
# |---|---|---|---|
# | notebook 04 | 10 minutes | seconds / not needed | one figure |
#
# Words are explained in notebook 04 and in the [glossary](../GLOSSARY.md).

# %% tags=["parameters"]
from geoflow.runtime import by_scale

seed = 0
many_features = by_scale(2_000, 20_000, 20_000)  # frequencies that show the law of the similarity

# %%
import math

import torch
from torch import nn

from geoflow import sphere
from geoflow.velocity import Block, VelocityTransformer
from geoflow.viz import lessons_sphere

_ = torch.manual_seed(seed)

# %% [markdown]
# ## Exercise 1 · Count the parameters
#
# A helper counts one linear layer from a to b numbers: a · b weights and b biases.
#
# **Stage 1a.** A block has the modulation (d → 3d) and the two layers of its MLP (d → e d and e d → d). LayerNorm and GELU have no parameters.
#
# **Stage 1b.** The network has the first layer (3 → d), the MLP of the time (d/4 → d and d → d), the layer of the embedding (C → d), L blocks, the modulation of
# the last LayerNorm (d → 2d) and the last layer (d → 3). The frequencies of the waves are fixed, so they do not count.


# %%
def linear(a, b):
    return a * b + b


def block_parameters(d, e):
    return linear(d, 3 * d) + linear(d, e * d) + linear(e * d, d)


def network_parameters(cond_dim, d, depth, e=4):
    ends = linear(3, d) + linear(d, 2 * d) + linear(d, 3)
    condition = linear(d // 4, d) + linear(d, d) + linear(cond_dim, d)
    return ends + condition + depth * block_parameters(d, e)


# %%
def check_1():
    if block_parameters(64, 4) is None:
        return "Exercise 1a is still to be solved"
    for d, e in ((64, 4), (128, 2)):
        expected = sum(p.numel() for p in Block(d, e).parameters())
        assert block_parameters(d, e) == expected, f"{block_parameters(d, e):,} for d = {d}, e = {e}; expected {expected:,}"
    if network_parameters(64, 64, 2) is None:
        return "Exercise 1a: right. Exercise 1b is still to be solved"
    expected = sum(p.numel() for p in VelocityTransformer(48, dim=64, depth=3).parameters())
    assert network_parameters(48, 64, 3) == expected, f"{network_parameters(48, 64, 3):,}; expected {expected:,}"
    return f"Exercises 1a and 1b: right; the paper's network has {network_parameters(1024, 512, 12):,} parameters"


print(check_1())

# %% [markdown]
# For a large width d, a block has about 3d² + 8d² = 11d² parameters, and the blocks have nearly all of them.

# %%
share = 12 * block_parameters(512, 4) / network_parameters(1024, 512, 12)
print(f"block of width 512: {block_parameters(512, 4):,} parameters; 11 d² = {11 * 512**2:,}; the 12 blocks have {share:.0%} of all")

# %% [markdown]
# ## Exercise 2 · Points that look at many patches
#
# **Stage 2a.** `queries @ keys.transpose(-1, -2)` has the shape (B, N, M): one row of M comparisons for each query. The softmax is taken along the
# last dimension, so that the weights of each row have the sum 1.


# %%
def attend(queries, keys, values):
    """Queries (B, N, d), keys and values (B, M, d) → (B, N, d)."""
    weights = (queries @ keys.transpose(-1, -2) / math.sqrt(queries.shape[-1])).softmax(-1)  # (B, N, M)
    return weights @ values


# %%
def check_2a():
    q, k, v = torch.randn(2, 5, 8), torch.randn(2, 7, 8), torch.randn(2, 7, 8)
    if attend(q, k, v) is None:
        return "Exercise 2a is still to be solved"
    torch.testing.assert_close(attend(q, k, v), nn.functional.scaled_dot_product_attention(q, k, v))
    return "Exercise 2a: right"


print(check_2a())

# %% [markdown]
# **Stage 2b.** We measure the largest differences.

# %%
points, one, seven = torch.randn(2, 5, 8), torch.randn(2, 1, 8), torch.randn(2, 7, 8)
others = torch.cat([points[:, :1], torch.randn(2, 4, 8)], dim=1)  # the first point stays
spread = {m: (out - out[:, :1]).abs().max().item() for m, out in ((1, attend(points, one, one)), (7, attend(points, seven, seven)))}
change = (attend(others, seven, seven) - attend(points, seven, seven))[:, 0].abs().max().item()
print(f"answers of different points differ by {spread[1]:.0e} with one patch and by {spread[7]:.2f} with seven")
print(f"other points replaced: the first answer changes by {change:.0e}")
same_with_one_patch = spread[1] < 1e-6
different_with_seven = spread[7] > 0.1
sees_other_points = change > 1e-6

# %%
claims = (same_with_one_patch, different_with_seven, sees_other_points)
if None in claims:
    print("Exercise 2b is still to be solved")
else:
    print(
        "Exercise 2b: right" if claims == (True, True, False) else "Exercise 2b: look again; what does each row of the softmax depend on?"
    )

# %% [markdown]
# Each row of the softmax depends on one point and on the image, but on no other point. So attention of the points **to patches** would keep the samples independent.
# Only attention of the points **to each other** would not. With a single embedding per image, as here, neither is needed.
#
# ## Exercise 3 · What the scale of Fourier features means
#
# **Stage 3a.**


# %%
def fourier(x, frequencies):
    """x (..., 3), frequencies (3, F) → (..., 2F)."""
    waves = x @ frequencies
    return torch.cat([waves.cos(), waves.sin()], dim=-1)


# %%
def check_3a():
    x, y, scale = sphere.uniform(50), sphere.uniform(50), 1.5
    frequencies = scale * torch.randn(3, 20_000)
    if fourier(x, frequencies) is None:
        return "Exercise 3a is still to be solved"
    torch.testing.assert_close(fourier(x, frequencies).square().sum(-1), torch.full((50,), 20_000.0))
    similarity = nn.functional.cosine_similarity(fourier(x, frequencies), fourier(y, frequencies), dim=-1)
    expected = (-(scale**2) * (x - y).square().sum(-1) / 2).exp()
    assert (similarity - expected).abs().max() < 0.04, "the similarities are not those of a Gaussian"
    return "Exercise 3a: right"


print(check_3a())

# %% [markdown]
# **Stage 3b.** exp(−s² r²/2) = 1/2 gives r = √(2 log 2)/s in radians; times 6,371 km.

# %%
half_km = {scale: math.sqrt(2 * math.log(2)) / scale * 6371 for scale in (4, 64)}

# %%
if None in half_km.values():
    print("Exercise 3b is still to be solved")
else:
    for scale, km in half_km.items():
        similarity = math.exp(-((scale * km / 6371) ** 2) / 2)
        print(
            f"scale {scale}: at {km:,.0f} km the similarity is {similarity:.3f}: {'right' if abs(similarity - 0.5) < 0.01 else 'not yet'}"
        )

# %% [markdown]
# **What to look for:** the similarity of two places against their distance, measured with many features (curves) for three scales.

# %%
km = torch.linspace(1, 4000, 200)
angles = km / 6371
x, y = torch.tensor([1.0, 0.0, 0.0]), torch.stack([angles.cos(), angles.sin(), torch.zeros(200)], -1)
curves = {}
for scale in (4, 16, 64):
    frequencies = scale * torch.randn(3, many_features)
    similarity = nn.functional.cosine_similarity(fourier(x, frequencies), fourier(y, frequencies), dim=-1)
    curves[f"scale {scale}"] = km, similarity
lessons_sphere.curves_figure(curves, "distance (km)", "cosine similarity", ("1/2", 0.5), log="")

# %% [markdown]
# **What was seen:** with scale 4, places within a thousand kilometres look alike to the network, so it cannot draw much finer detail quickly. With scale 64, places a few
# hundred kilometres apart look unrelated, so the network learns each neighbourhood almost by itself. This is why the coasts of notebook 04 are smooth with scale 4 and
# speckled with scale 64.
#
# ## Check

# %%
assert network_parameters(1024, 512, 12) == 36_034_563
assert share > 0.9
assert (same_with_one_patch, different_with_seven, sees_other_points) == (True, True, False)
assert abs(half_km[4] - 1875) < 1
assert abs(half_km[64] - 117) < 1
assert curves["scale 4"][1][50] > 0.8, "at 1,000 km"
assert abs(curves["scale 64"][1][25]) < 0.1, "at 500 km"
print("all checks passed")

# %% [markdown]
# ## References
#
# * A. Rahimi, B. Recht, *Random Features for Large-Scale Kernel Machines*, NeurIPS 2007: the law of the similarity.
# * A. Vaswani et al., *Attention Is All You Need*, NeurIPS 2017, arXiv 1706.03762.
