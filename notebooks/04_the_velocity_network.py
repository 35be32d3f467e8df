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
# # 04 · The velocity network
#
# **You will learn**
# 1. how a network is told the time and the image, and why the paper does it by *modulation* and not by concatenation;
# 2. the paper's network written from scratch, block by block, each piece equal to the package's by assertion;
# 3. why this transformer has no attention, and what it would (not) attend to;
# 4. how to pay for the image once and for points a thousand times: counted, then measured;
# 5. what Fourier features and the tangent projection do, and what goes wrong without them.
#
# | Needs | Minutes (laptop / GPU) | Produces |
# |---|---|---|
# | notebook 03; some PyTorch | 2 / not needed | figures only |

# %% tags=["parameters"]
from geoflow.settings import by_scale

seed = 0
race_steps = by_scale(60, 600, 3000)  # training steps of the networks that are compared
coast_steps = by_scale(60, 1000, 5000)  # training steps of the three networks that draw coastlines
timing_points = by_scale(32, 256, 1024)  # points per image in the timing

# %%
import math
import time

import matplotlib.pyplot as plt
import torch
from torch import nn

from geoflow import losses, paths, samplers, sphere, velocity_jvp
from geoflow.data import tiles
from geoflow.velocity import Block, TimeEmbedding, VelocityTransformer

torch.manual_seed(seed)

# Colours that stay apart for colour-blind readers (Okabe and Ito, 2008).
BLUE, ORANGE, RED, GREEN, GREY = "#0072B2", "#E69F00", "#D55E00", "#009E73", "#7f8c99"
plt.rcParams.update({"figure.dpi": 100, "font.size": 10, "axes.spines.top": False, "axes.spines.right": False, "legend.frameon": False})

# %% [markdown]
# ## The job
#
# Notebook 03 asked one thing of a velocity: `velocity(x, t, cond)`. Now the condition is real. The shapes, with B
# images, N points per image and embeddings of width C:
#
# | | shape | meaning |
# |---|---|---|
# | `x` | (B, N, 3) | points on the sphere, under way from noise to data |
# | `t` | a number, (B,) or (B, N) | their time, 0 is noise, 1 is data |
# | `cond` | (B, C) | **one** embedding per image; `None`: no image |
# | the answer | (B, N, 3) | a velocity at each point, tangent to the sphere |
#
# Two things are unequal here. The embedding has hundreds of numbers and a place has three; and there is one embedding
# for the many points that travel for the same image. A good network respects both.
#
# ## Version 1: concatenate everything


# %%
class Residual(nn.Module):
    """h + MLP(LayerNorm(h)): the layer of every modern network."""

    def __init__(self, width):
        super().__init__()
        self.mlp = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, h):
        return h + self.mlp(h)


class Version1(nn.Module):
    """Location, time and embedding side by side into a plain network."""

    def __init__(self, cond_dim, width, depth, time_dim=1):
        super().__init__()
        self.first = nn.Linear(3 + time_dim + cond_dim, width)
        self.rest = nn.Sequential(*(Residual(width) for _ in range(depth)), nn.LayerNorm(width), nn.Linear(width, 3))

    def embed_time(self, t):
        return t[..., None]

    def forward(self, x, t, cond):
        B, N, _ = x.shape
        t = torch.as_tensor(t, dtype=x.dtype).expand(B, N)
        everything = torch.cat([x, self.embed_time(t), cond[:, None].expand(-1, N, -1)], dim=-1)  # (B, N, 3 + 1 + C)
        return sphere.to_tangent(x, self.rest(self.first(everything)))


B, N, C = 4, 10, 64
x, t, cond = sphere.uniform((B, N)), torch.rand(B, N), torch.randn(B, C)
version1 = Version1(C, width=128, depth=3)
version1(x, t, cond).shape

# %% [markdown]
# It works. But look closer at its first layer. A linear map of concatenated vectors is a sum of linear maps,
#
# $$W\,[x;\, t;\, c] + b \;=\; W_x x \;+\; \underbrace{(w_t\, t + W_c\, c + b)}_{\text{the same for all points of an image at one time}},$$
#
# so **concatenation is a bias in disguise**: time and image can *shift* the first layer, and nothing else. Whatever
# they should change further up must be carried through all layers, mixed with everything. And the big product W_c c is
# repeated for each of the N points, although it does not depend on them.

# %%
weight_x, weight_t, weight_c = version1.first.weight.split([3, 1, C], dim=1)
shift = t[..., None] @ weight_t.T + (cond @ weight_c.T)[:, None] + version1.first.bias  # W_c c: once per image
torch.testing.assert_close(sphere.to_tangent(x, version1.rest(x @ weight_x.T + shift)), version1(x, t, cond))
print("concatenating equals shifting the first layer")

# %% [markdown]
# ## The idea: modulation
#
# If the condition acts by a shift, let it act in *every* layer, and not by a shift alone. Normalise the hidden vector h
# of a point, so that its scale is known. Then let the condition c choose, for each channel, a scale γ, a shift μ, and a
# gate σ for what the layer adds:
#
# $$h \;\leftarrow\; h + \sigma(c)\odot \mathrm{MLP}\big((1 + \gamma(c)) \odot \mathrm{LayerNorm}(h) + \mu(c)\big).$$
#
# This is FiLM (Perez et al., 2018) inside a residual block, called *adaptive LayerNorm* in diffusion transformers
# (Peebles & Xie, 2023) and used by the paper. The point flows through the network; the image sets its dials.
#
# The LayerNorm has no scale and shift of its own ("no affine"), since the condition supplies them. Here is the block,
# written out, and the package's.


# %%
class MyBlock(nn.Module):
    def __init__(self, dim, expansion):
        super().__init__()
        self.modulation = nn.Linear(dim, 3 * dim)
        self.mlp = nn.Sequential(nn.Linear(dim, expansion * dim), nn.GELU(), nn.Linear(expansion * dim, dim))

    def forward(self, h, c):  # h: (B, N, d), one vector per point; c: (B, 1, d), one per image
        gamma, mu, sigma = self.modulation(c).chunk(3, dim=-1)  # (B, 1, d) each
        normal = (h - h.mean(-1, keepdim=True)) / (h.var(-1, correction=0, keepdim=True) + 1e-5).sqrt()
        return h + sigma * self.mlp((1 + gamma) * normal + mu)


def shake(module):
    """Move all weights a little, so that nothing is zero and an assertion means something."""
    with torch.no_grad():
        for p in module.parameters():
            p.add_(0.05 * torch.randn_like(p))
    return module


d = 128
block, mine = shake(Block(d, expansion=4)), MyBlock(d, expansion=4)
mine.load_state_dict(block.state_dict())
h, c = torch.randn(B, N, d), torch.randn(B, 1, d)
torch.testing.assert_close(mine(h, c), block(h, c))
print("MyBlock equals velocity.Block")

# %% [markdown]
# ## Gates that start closed
#
# The package initialises the modulation with zeros, so γ = μ = σ = 0, and **every block starts as the identity**: a
# network of 12 blocks begins as easy to train as one of none. Do closed gates also stop the learning? Look at the
# gradients.
#
# *What to look for:* which weights of a fresh block have a gradient, at the first step and at the second.

# %%
fresh = Block(d, expansion=4)
identity = torch.equal(fresh(h, c), h)
optimizer = torch.optim.SGD(fresh.parameters(), lr=0.1)
gradients = []
for step in (1, 2):
    optimizer.zero_grad()
    (fresh(h, c) - torch.ones(d)).square().mean().backward()
    gradients.append({"modulation": fresh.modulation.weight.grad.norm().item(), "MLP": fresh.mlp[0].weight.grad.norm().item()})
    print(f"step {step}: gradient of the modulation {gradients[-1]['modulation']:.1e}, of the MLP {gradients[-1]['MLP']:.1e}")
    optimizer.step()
print(f"a fresh block is the identity: {identity}")

# %% [markdown]
# *What was seen:* at the first step only the gates learn, since what is behind a closed gate cannot matter. After one
# step the gates are ajar and everything learns.
#
# ## Telling the time
#
# The time is one number. Fed in as it is, the network would have to build sharp changes in time out of a straight line,
# and near the data the velocity does change quickly (notebook 03). So time is written as waves, fast and slow, with
# frequencies that fall from S to S/10,000:
#
# $$\cos(f_i\, t),\; \sin(f_i\, t), \qquad f_i = S \cdot 10^{-4\, i / (d/8)},\; i = 0, \dots, d/8 - 1,$$
#
# standardised over the channels and passed through a small network. The paper has S = 1000. Our recipes set
# `time_scale=20`, for a reason that we shall measure.


# %%
def my_waves(t, dim, scale=1000.0):
    f = scale * 10.0 ** (-4 * torch.arange(dim // 8) / (dim // 8))
    phase = t[..., None] * f
    waves = torch.cat([phase.cos(), phase.sin()], dim=-1)
    return (waves - waves.mean(-1, keepdim=True)) / waves.std(-1, keepdim=True)


embed_time = TimeEmbedding(512)
torch.testing.assert_close(embed_time.mlp(my_waves(t, 512)), embed_time(t), atol=1e-3, rtol=1e-3)
period = 2 * math.pi / embed_time.frequencies
print(
    f"S = 1000: periods from {period[0]:.4f} to {period[-1]:.0f}; {(period < 1 / 16).sum()} of 64 waves repeat within a sampler's step of 1/16"
)

# %% [markdown]
# *What to look for:* left and middle, each row is a channel, from the fastest wave to the slowest. Right, how similar
# the embeddings of t = 0.5 and of other times are.

# %%
moments = torch.linspace(0, 1, 1601)
near = {}
fig, axes = plt.subplots(1, 3, figsize=(10, 3), layout="constrained")
for ax, scale, color in ((axes[0], 1000.0, BLUE), (axes[1], 20.0, GREEN)):
    ax.imshow(
        my_waves(moments, 512, scale)[::2, :64].T,
        aspect="auto",
        extent=(0, 1, 64, 0),
        cmap="RdBu_r",
        vmin=-2,
        vmax=2,
        interpolation="nearest",
    )
    ax.set(title=f"S = {scale:g}", xlabel="time", ylabel="channel (cosines)")
    similarity = nn.functional.cosine_similarity(my_waves(moments, 512, scale), my_waves(torch.tensor([0.5]), 512, scale), dim=-1)
    axes[2].plot(moments, similarity, color=color, label=f"waves, S = {scale:g}")
    near[scale] = {delta: similarity[round((0.5 + delta) * 1600)].item() for delta in (0.01, 0.1, 0.5)}
plain = nn.functional.cosine_similarity(torch.stack([moments, torch.ones_like(moments)], -1), torch.tensor([[0.5, 1.0]]), dim=-1)
axes[2].plot(moments, plain, color=GREY, ls="--", label="t itself, and a bias")
axes[2].set(xlabel="time", ylabel="cosine similarity to t = 0.5", ylim=(-0.1, 1.05))
axes[2].legend(fontsize=8)
plt.show()
print({f"S = {scale:g}": {delta: f"{value:.2f}" for delta, value in values.items()} for scale, values in near.items()})

# %% [markdown]
# *What was seen:* with S = 1000 a needle on a broad, noisy hill: times 0.01 apart look different already. With S = 20 a
# smooth bell. For the bare number, all times look much the same.
#
# ## The whole network, assembled by hand
#
# One condition vector collects the image and the time; after a SiLU it sets the dials of every block, and of a last
# normalisation:
#
# $$\begin{aligned}
# c &= \mathrm{SiLU}(W_c\,\mathrm{cond} + b_c + \mathrm{time}(t)) && (B, 1, d)\\
# h &= W_x x + b_x && (B, N, d)\\
# h &\leftarrow \mathrm{block}_k(h, c), \quad k = 1, \dots, \text{depth} && (B, N, d)\\
# v &= W_v\,\big((1 + \gamma(c)) \odot \mathrm{LayerNorm}(h) + \mu(c)\big) + b_v && (B, N, 3)\\
# v &\leftarrow v - \langle x, v\rangle\, x
# \end{aligned}$$


# %%
class MyTransformer(nn.Module):
    def __init__(self, cond_dim, dim, depth, expansion=4):
        super().__init__()
        self.embed_location = nn.Linear(3, dim)
        self.embed_time = TimeEmbedding(dim)
        self.embed_cond = nn.Linear(cond_dim, dim)
        self.blocks = nn.ModuleList(MyBlock(dim, expansion) for _ in range(depth))
        self.norm = nn.LayerNorm(dim, elementwise_affine=False)
        self.modulation = nn.Linear(dim, 2 * dim)
        self.head = nn.Linear(dim, 3)

    def forward(self, x, t, cond):
        c = nn.functional.silu(self.embed_cond(cond)[:, None] + self.embed_time(t))  # (B, N or 1, d)
        h = self.embed_location(x)  # (B, N, d)
        for block in self.blocks:
            h = block(h, c)
        gamma, mu = self.modulation(c).chunk(2, dim=-1)
        v = self.head((1 + gamma) * self.norm(h) + mu)  # (B, N, 3)
        return v - (x * v).sum(-1, keepdim=True) * x


network = shake(VelocityTransformer(C, dim=128, depth=3))
mine = MyTransformer(C, dim=128, depth=3)
mine.load_state_dict(network.state_dict())
torch.testing.assert_close(mine(x, t, cond), network(x, t, cond), atol=1e-5, rtol=1e-4)
print("MyTransformer equals velocity.VelocityTransformer")

# %% [markdown]
# That is all: 20 lines. At the sizes of the paper, with embeddings of width 1024, it has exactly the paper's number of
# parameters, layer for layer:

# %%
sizes = {}
with torch.device("meta"):  # shapes without memory
    for dim in (512, 256):
        sizes[dim] = sum(p.numel() for p in VelocityTransformer(1024, dim=dim, depth=12).parameters())
        print(f"d = {dim}, 12 blocks: {sizes[dim]:,} parameters")

# %% [markdown]
# ## Modulation against concatenation: a race
#
# Does the effort pay? A clean test needs a task without noise floor. Let the "image" settle the place: its embedding is
# a fixed random function of x₁. Then the geodesic's velocity at (x, t) is known exactly from the embedding,
# log_x(x₁) / (1 − t), and the loss of notebook 03 can go to zero. Which network learns faster to read the embedding and
# steer?
#
# Equal numbers of parameters, the same optimiser, the same batches; each with the better of two learning rates. To see
# what comes from the waves of time alone, a Version 2 gets them by concatenation.


# %%
class Version2(Version1):
    """Version 1 with the time as waves."""

    def __init__(self, cond_dim, width, depth):
        super().__init__(cond_dim, width, depth, time_dim=64)

    def embed_time(self, t):
        return my_waves(t, 256)


read = torch.randn(3, C)
offset = 2 * math.pi * torch.rand(C)


def embedding_of(x1):
    """Stands for an image encoder: waves of the place. (B, 3) → (B, C)."""
    return math.sqrt(2) * (2 * x1 @ read + offset).cos()


def race(make, lr):
    torch.manual_seed(seed)
    model, generator = make(), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), lr=lr)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, race_steps)
    history = []
    for _ in range(race_steps):
        x1 = sphere.uniform(256, generator)
        loss = losses.flow_matching_loss(model, paths.RiemannianFlow(), x1, embedding_of(x1), draws=2, dropout=0.0, generator=generator)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
        history.append(loss.item())
    return model.requires_grad_(False), history


makers = {
    "concatenation": lambda: Version1(C, width=64, depth=3),
    "concatenation, time as waves": lambda: Version2(C, width=64, depth=3),
    "modulation": lambda: VelocityTransformer(C, dim=64, depth=2),
    "modulation, S = 20": lambda: VelocityTransformer(C, dim=64, depth=2, time_scale=20.0),
}
parameters = {name: sum(p.numel() for p in make().parameters()) for name, make in makers.items()}
runs = {(name, lr): race(make, lr) for name, make in makers.items() for lr in (2e-3, 8e-3)}
final = {key: sum(history[-20:]) / 20 for key, (_, history) in runs.items()}
for (name, lr), loss in final.items():
    print(f"{name:28s} {parameters[name]:,} parameters, learning rate {lr:g}: loss {loss:.3f}")

# %% [markdown]
# *What to look for:* two pairs of curves.

# %%
best = {name: min((loss, lr) for (n, lr), loss in final.items() if n == name) for name in makers}
fig, ax = plt.subplots(figsize=(5.4, 3), layout="constrained")
for (name, (loss, lr)), color in zip(best.items(), (ORANGE, RED, BLUE, GREEN), strict=True):
    smooth = torch.tensor(runs[name, lr][1]).unfold(0, 20, 10).mean(-1)
    ax.semilogy(torch.arange(len(smooth)) * 10 + 10, smooth, color=color, label=name)
ax.axhline((math.pi**2 - 4) / 2, color=GREY, lw=0.8, ls=":", label="always answering 0")
ax.set(xlabel="training step", ylabel="loss")
ax.legend(fontsize=9)
plt.show()

# %% [markdown]
# *What was seen:* modulation reads the embedding several times better with the same number of parameters, and that is not
# owed to the waves of time, which help concatenation a little. Slow waves do as well as fast ones. So why not keep the
# paper's?
#
# A sampler takes steps of, say, 1/16 and believes that the field is smooth in between; on this rests the order of its
# error (notebook 03). A network that listens to waves of period 0.006 need not be smooth. Follow both fields with 16
# steps of RK4, and then with 256:


# %%
def solver_error(model):
    """Mean distance in km between the ends of 16 and of 256 steps."""
    places = sphere.uniform(64, torch.Generator().manual_seed(seed))
    begin = sphere.uniform((64, 4), torch.Generator().manual_seed(seed + 1))
    coarse, fine = (
        samplers.sample(model, paths.RiemannianFlow(), begin, torch.linspace(0, 1, steps + 1), embedding_of(places)) for steps in (16, 256)
    )
    return sphere.distance_km(coarse, fine).mean().item()


error = {name: solver_error(runs[name, best[name][1]][0]) for name in ("modulation", "modulation, S = 20")}
print({name: f"{km:.1f} km" for name, km in error.items()})

# %% [markdown]
# *What was seen:* here, with places almost read off the embedding, the printed errors do not favour slow waves. On the
# tiles of notebook 05, where the field has fine detail, they do: S = 20 lowers the error of the log-density with 16 steps
# from 0.05 to 0.005 nats, at an equal likelihood (noted in `geoflow/training/recipes/tiles.yaml`). For the paper's own weights one
# keeps S = 1000 and takes more steps.
#
# ## A transformer with nothing to attend to
#
# The network is called a transformer and its points *location tokens*, but no block has attention. Nothing is missing,
# for two reasons that we can test.
#
# **Points must not see each other.** They are independent draws for one image; if they exchanged information, a sample
# would depend on how many samples one asks for. In our network a point's velocity has nothing to do with its company,
# and the order does not matter. In self-attention it does:

# %%
company = x.clone()
company[:, 1:] = sphere.uniform((B, N - 1))  # the first point of each image stays, the others are replaced
alone = (network(company, t, cond) - network(x, t, cond))[:, 0].abs().max().item()

attention = nn.MultiheadAttention(128, num_heads=4, batch_first=True)
before, after = (attention(h, h, h)[0][:, 0] for h in (network.embed_location(x), network.embed_location(company)))
attended = (after - before).abs().max().item()

order = torch.randperm(N)
permuted = (network(x[:, order], t[:, order], cond) - network(x, t, cond)[:, order]).abs().max().item()
print(f"other points replaced: the first point's velocity changes by {alone:.1e}; behind self-attention by {attended:.1e}")
print(f"points in another order: same velocities, up to {permuted:.1e}")

# %% [markdown]
# **There is one condition to look at.** Attention of the points to the image would have a single key. A softmax over
# one key is 1 whatever the query asks, so what comes out is a fixed linear map of the embedding, the same for all
# points: a shift again.

# %%
image_token = torch.randn(B, 1, 128)
looked_up, weights = attention(network.embed_location(x), image_token, image_token)
value = image_token @ attention.in_proj_weight[2 * 128 :].T + attention.in_proj_bias[2 * 128 :]
torch.testing.assert_close(looked_up, attention.out_proj(value).expand(B, N, 128))
print(f"attention weights from {weights.min():.0f} to {weights.max():.0f}: no dependence on the point")

# %% [markdown]
# Attention would earn its keep with *many* tokens per image: patch tokens, of which a point over the sea could look at
# the shoreline and a point over land at the forest. The paper did not try; `velocity.py` is where it would go.
#
# ## The image once, the points a thousand times
#
# What depends on (t, cond) alone is a vector per image; what depends on x is a vector per point. Let us count the
# multiplications of the paper's network. Per image and time: time network d²/4 + d², embedding C d, modulation 3 d² per
# block and 2 d² at the end. Per point: MLP 8 d² per block, and 3 d at both ends.

# %%
from torch.utils.flop_counter import FlopCounterMode


def multiplications(d, depth, cond_dim):
    """Of all linear layers: (per image and time, per point)."""
    return d * d // 4 + d * d + cond_dim * d + depth * 3 * d * d + 2 * d * d, depth * 8 * d * d + 2 * 3 * d


per_image, per_point = multiplications(512, 12, 1024)
paper = VelocityTransformer(1024, dim=512, depth=12)
with torch.no_grad(), FlopCounterMode(display=False) as counter:
    paper(sphere.uniform((1, 100)), 0.5, torch.randn(1, 1024))
counted = counter.get_total_flops() // 2  # a multiplication and an addition each
print(f"per image {per_image / 1e6:.1f} M, per point {per_point / 1e6:.1f} M")
print(f"one image, 100 points: by formula {(per_image + 100 * per_point) / 1e9:.3f} G, counted by PyTorch {counted / 1e9:.3f} G")
print(f"with the condition computed for each point: {100 * (per_image + per_point) / 1e9:.3f} G")

# %% [markdown]
# So sharing spares three multiplications in ten: worth having, no miracle. The larger gain is not in this count: the
# dials of a point, 3 d numbers for each block, need not be stored and read for each point. Measured, with the same
# weights and the same answers:


# %%
def seconds(call, rounds=5):
    call()
    start = time.perf_counter()
    for _ in range(rounds):
        call()
    return (time.perf_counter() - start) / rounds


images = 4
timed = shake(VelocityTransformer(256, dim=256, depth=4)).requires_grad_(False)
many, when, about = sphere.uniform((images, timing_points)), torch.rand(images), torch.randn(images, 256)
flat = many.reshape(-1, 1, 3), when.repeat_interleave(timing_points), about.repeat_interleave(timing_points, 0)
torch.testing.assert_close(timed(*flat).reshape(images, timing_points, 3), timed(many, when, about), atol=1e-4, rtol=1e-3)
shared, repeated = seconds(lambda: timed(many, when, about)), seconds(lambda: timed(*flat))
print(
    f"{images} images × {timing_points} points: {1e3 * shared:.0f} ms shared, {1e3 * repeated:.0f} ms repeated: {repeated / shared:.1f} times as long"
)

# %% [markdown]
# And one cost does not appear at all: the image encoder, far larger than this network. It ran once, before.
#
# ## Fourier features: fine detail
#
# A place is three smooth numbers, and small networks are reluctant to make sharp detail out of smooth inputs (Tancik et
# al., 2020). The remedy is the one used for time: give the network waves. `fourier=32` adds cosines and sines of 32
# random linear functions ωᵢ·x, with ωᵢ ~ N(0, scale²), to the input. (The paper's network has none; with 12 blocks and
# a million steps it can do without.)
#
# A test with fine detail is around us: coastlines. We borrow the velocity network, take the first number of its answer,
# and train it to say *land* or *sea* at every point of the Earth.


# %%
def draw_coastlines(fourier, scale=4.0):
    """A trained network x (n, 3) → logit of 'land' (n,)."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = VelocityTransformer(0, dim=64, depth=2, fourier=fourier, fourier_scale=scale, tangent=False)
    optimizer = torch.optim.Adam(network.parameters(), lr=5e-3)
    decay = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, coast_steps)
    for _ in range(coast_steps):
        x = sphere.uniform(1024, generator)
        logit = network(x[None], 0.0)[0, :, 0]
        loss = nn.functional.binary_cross_entropy_with_logits(logit, tiles.is_land(x).float())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    network.requires_grad_(False)
    return lambda x: network(x[None], 0.0)[0, :, 0]


contestants = {"no Fourier features": (0, 4.0), "32 features, scale 4": (32, 4.0), "32 features, scale 64": (32, 64.0)}
draw = {name: draw_coastlines(*options) for name, options in contestants.items()}
somewhere = sphere.uniform(20_000, torch.Generator().manual_seed(seed + 1))
wrong = {name: ((f(somewhere) > 0) != tiles.is_land(somewhere)).double().mean().item() for name, f in draw.items()}

# %% [markdown]
# *What to look for:* the Mediterranean, the British Isles, the gap between Australia and New Guinea. And, with very short
# waves, the sea.

# %%
lat, lon = torch.arange(89.5, -90, -1.0), torch.arange(-179.5, 180, 1.0)
pixels = sphere.from_latlon(torch.stack(torch.meshgrid(lat, lon, indexing="ij"), -1))
fig, axes = plt.subplots(2, 2, figsize=(9, 4.9), layout="constrained")
pictures = {"the Earth": tiles.is_land(pixels).float()} | {
    f"{name}: {wrong[name]:.1%} wrong": torch.sigmoid(f(pixels.reshape(-1, 3))).reshape(pixels.shape[:2]) for name, f in draw.items()
}
for ax, (title, picture) in zip(axes.flat, pictures.items(), strict=True):
    ax.imshow(picture, extent=(-180, 180, -90, 90), cmap="BuPu", vmin=0, vmax=1.2)
    ax.set(xticks=[], yticks=[])
    ax.set_title(title, fontsize=10)
plt.show()

# %% [markdown]
# *What was seen:* without features, the coasts of a globe seen through fog; the Mediterranean is a guess. With 32 of them
# the same network halves its errors. Very short waves (scale 64) draw the finest coasts and the fewest errors here, and
# speckles everywhere: each point has become almost a case of its own. For a velocity, whose derivatives are integrated,
# speckles are poison; our recipes take scale 4. (With 2 and 8 the likelihood was about the same.)
#
# ## The tangent projection
#
# A velocity on the sphere has no part along x. The last line of the network removes that part: v − ⟨x, v⟩ x, at
# x / |x|. So the network is a vector field **on** the sphere *for any weights*. A network that must learn this instead
# is right only roughly. What does "roughly" cost? Take the same weights with and without the projection.

# %%
free = VelocityTransformer(C, dim=128, depth=3, tangent=False)
free.load_state_dict(network.state_dict())
path, start = paths.RiemannianFlow(), sphere.uniform((1, 500))
steps, one = 32, cond[:1]


def follow(velocity, step, x):
    for i in range(steps):
        x = step(x, velocity(x, i / steps, one).detach() / steps)
    return x


radial = (start * free(start, 0.5, one)).sum(-1).abs().mean().item()
on_sphere = follow(network, sphere.exp, start)
by_exp, straight = follow(free, sphere.exp, start), follow(free, torch.add, start)
gap = sphere.distance_km(on_sphere, by_exp).mean().item()
gap_straight = sphere.distance_km(on_sphere, sphere.unit(straight)).mean().item()
print(f"mean |⟨x, v⟩|: {(start * network(start, 0.5, one)).sum(-1).abs().mean():.0e} with, {radial:.2f} without the projection")
print(f"without it, steps by exp: samples end {gap:,.0f} km away on average")
print(
    f"without it, straight steps: {gap_straight:,.0f} km away, at |x| from {straight.norm(dim=-1).min():.2f} to {straight.norm(dim=-1).max():.2f}"
)

# %% [markdown]
# *What was seen:* the radial part is far from zero, since nothing in random weights knows of the sphere. Steps by
# `exp` read it as additional length, so that points go too far; straight steps let them leave the Earth. Training would
# make the radial part small, never zero; the projection makes it zero before training begins, and costs six
# multiplications per point. Methods in R³, where leaving the sphere is allowed, turn it off (`tangent=False`).
#
# Normalising x inside the network has a second use. The field is constant along rays, so that its derivatives, of which
# the likelihood is made, are those of a field on the sphere:

# %%
ray = (network(3 * start, 0.5, one) - network(start, 0.5, one)).abs().max().item()
print(f"the velocity at 3x differs from that at x by {ray:.0e}")

# %% [markdown]
# For likelihoods the package has a faster way to differentiate its network: `velocity_jvp.jvp` carries a point's
# derivatives along any directions through all layers, beside the value. It must agree with automatic differentiation of
# our 20 lines:

# %%
directions = sphere.tangent_basis(x)  # (2, B, N, 3)
v, rates = velocity_jvp.jvp(network, x, t, cond, directions)
by_autodiff = [torch.func.jvp(lambda y: mine(sphere.unit(y), t, cond), (x,), (e,))[1] for e in directions]
torch.testing.assert_close(rates, torch.stack(by_autodiff), atol=1e-4, rtol=1e-3)
print("velocity_jvp.jvp equals torch.func.jvp of MyTransformer")

# %% [markdown]
# ## No image
#
# `cond=None` asks for the velocity without an image: where photos are taken at all. The convention is that *no image*
# is the zero embedding. During training one condition in ten is replaced by it, so one network learns both fields, and
# guidance, v(c) + ω (v(c) − v(∅)), has both at hand.
#
# Dropping must not change the caller's embeddings. That sounds obvious; the official code zeroes them in place, so that
# a dropped image stays dropped for whoever uses the tensor next.

# %%
null = (network(x, t, None) - network(x, t, torch.zeros_like(cond))).abs().max().item()
embeddings = torch.randn(10_000, C)
untouched = embeddings.clone()
dropped = losses.drop_condition(embeddings, 0.1)
dropped_share = (dropped == 0).all(-1).double().mean().item()
print(f"cond=None and a zero embedding differ by {null:.0e}")
print(f"{dropped_share:.1%} of the conditions dropped, the caller's tensor unchanged: {torch.equal(embeddings, untouched)}")

# %% [markdown]
# ## Check
#
# Every number the text relies on, asserted. What holds for any weights is asserted tightly; what needs training, only
# when there was some.

# %%
trained = race_steps >= 500
assert identity
assert gradients[0]["MLP"] == 0 < gradients[0]["modulation"]
assert gradients[1]["MLP"] > 0
assert near[1000.0][0.01] < 0.8 < plain.min()
assert near[20.0][0.01] > 0.99
assert sizes == {512: 36_034_563, 256: 9_153_539}
assert alone < 1e-5 < 1e-3 < attended
assert permuted < 1e-5
assert counted == per_image + 100 * per_point
assert 0.25 < per_image / (per_image + per_point) < 0.35
assert max(ray, null) < 1e-5
assert gap > 1
assert torch.equal(embeddings, untouched)
assert abs(dropped_share - 0.1) < 0.01
if trained:
    assert shared < repeated
    assert 2 * best["modulation"][0] < best["concatenation, time as waves"][0]
    assert best["modulation, S = 20"][0] < 1.5 * best["modulation"][0]
    assert wrong["32 features, scale 4"] < 0.7 * wrong["no Fourier features"]
print("all checks passed")

# %% [markdown]
# ## References
#
# * N. Dufour, D. Picard, V. Kalogeiton, L. Landrieu, *Around the World in 80 Timesteps*, CVPR 2025, arXiv 2412.06781:
#   the network, supplement, figure B.
# * E. Perez et al., *FiLM: Visual Reasoning with a General Conditioning Layer*, AAAI 2018, arXiv 1709.07871.
# * W. Peebles, S. Xie, *Scalable Diffusion Models with Transformers*, ICCV 2023, arXiv 2212.09748: adaptive LayerNorm
#   with gates that start at zero.
# * J. L. Ba, J. R. Kiros, G. E. Hinton, *Layer Normalization*, 2016, arXiv 1607.06450.
# * A. Vaswani et al., *Attention Is All You Need*, NeurIPS 2017, arXiv 1706.03762: also the waves.
# * M. Tancik et al., *Fourier Features Let Networks Learn High Frequency Functions in Low Dimensional Domains*, NeurIPS
#   2020, arXiv 2006.10739.
# * J. Ho, T. Salimans, *Classifier-Free Diffusion Guidance*, 2022, arXiv 2207.12598.
