"""The solution of a flow on S² as a network: X_{t,s}, which takes a state at time t to time s.

    X_{t,s}(x) = exp_x((s − t) u_{t,s}(x, c, ω)),      u tangent at x

u is the mean velocity of the way from x. On the diagonal, s = t, it is the velocity of the flow, so
one network is a flow and its solution, and one call of it takes noise to a place (flow maps: Boffi
et al., 2025; MeanFlow: Geng et al., 2025; on manifolds: Davis et al., 2025). The guidance ω is an
input as well, so a guided sample costs one call, not two.
"""

import torch
from torch import Tensor

from geoflow import schedules, sphere
from geoflow.velocity import TimeEmbedding, VelocityTransformer, zero_linear

MOST_GUIDANCE = 4.0  # ω is drawn up to this in training
SCALE = 20.0  # largest frequency of the added embeddings, radians per unit of the clock


class FlowMapTransformer(VelocityTransformer):
    """A `VelocityTransformer` with two more inputs, the time of arrival s and the guidance ω.

    To the image and the time they add A(s) − A(t) + G(ω) − G(0), with embeddings A and G that begin
    as zero. On the diagonal without guidance the network is therefore a velocity network whatever
    A and G are, and one with the weights of a flow (`begun_as`) begins as that flow.

    >>> network, x = FlowMapTransformer(cond_dim=8, dim=32, depth=2), sphere.uniform((4, 10))
    >>> network(x, 0.5, torch.randn(4, 8)).shape  # velocity
    torch.Size([4, 10, 3])
    >>> network.jump(x, 0.0, 1.0, torch.randn(4, 8), guidance=2.0).shape  # places, in one call
    torch.Size([4, 10, 3])

    Arguments are those of `VelocityTransformer`.
    """

    def __init__(self, *arguments, **config):
        super().__init__(*arguments, **config)
        if not self.tangent:
            raise ValueError("tangent=False; expected True: a flow map is one of S²")
        self.embed_arrival, self.embed_guidance = (self._added() for _ in range(2))

    def _added(self) -> TimeEmbedding:
        embedding = TimeEmbedding(self.config["dim"], SCALE)
        embedding.mlp[-1] = zero_linear(self.config["dim"], self.config["dim"])
        return embedding

    def mean_velocity(self, x: Tensor, t, s, cond: Tensor | None = None, guidance=0.0) -> Tensor:
        """u_{t,s}(x, c, ω), tangent at x.

        Args:
            x: (B, N, 3) unit vectors, at time t.
            t, s: times, scalar, (B,) or (B, N).
            cond: (B, C), or None for the null condition, which has no guidance.
            guidance: ω, scalar, (B,) or (B, N).

        Returns:
            (B, N, 3).

        Raises:
            ValueError: shapes of x or cond that do not fit.
        """
        self.check(x, cond)
        t, s, guidance = (self.times_for(x, value) for value in (t, s, guidance))
        return self.velocity(x, t, self.request(t, s, cond, guidance))

    def request(self, t: Tensor, s: Tensor, cond: Tensor | None, guidance: Tensor) -> Tensor:
        """What `condition` returns for a way from t to s: times (B or 1, N or 1) → (…, d)."""
        arrival, start = (self.embed_arrival(schedules.log_clock(at)) for at in (s, t))
        more = arrival - start
        if cond is not None:
            more = more + self.embed_guidance(guidance / MOST_GUIDANCE)
            more = more - self.embed_guidance(torch.zeros_like(guidance))
        return self.condition(t, cond, more)

    def jump(self, x: Tensor, t, s, cond: Tensor | None = None, guidance=0.0) -> Tensor:
        """X_{t,s}(x), where the flow takes x from time t to time s; see `mean_velocity`."""
        length = self.times_for(x, s) - self.times_for(x, t)
        return sphere.exp(x, length[..., None] * self.mean_velocity(x, t, s, cond, guidance))


def begun_as(flow: VelocityTransformer) -> FlowMapTransformer:
    """A flow map whose diagonal is a flow on S²: its weights, and embeddings that are zero.

    >>> flow, x = VelocityTransformer(cond_dim=8, dim=32, depth=2), sphere.uniform((1, 5))
    >>> cond = torch.randn(1, 8)
    >>> torch.equal(begun_as(flow)(x, 0.5, cond), flow(x, 0.5, cond))
    True

    Raises:
        ValueError: a flow in R³.
    """
    network = FlowMapTransformer(**flow.config)
    network.load_state_dict(network.state_dict() | flow.state_dict())
    return network
