"""Gemma 4's text model in plain PyTorch, small enough to train on two CPU cores.

Parameter names are those of the published checkpoints, so a state dict is already the Hugging Face layout. The forward
pass is checked against the ``transformers`` implementation by ``demo.verify``.
"""

from __future__ import annotations

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo.kernels import Attend, Mix
from demo.model_config import EPS, DemoConfig
from demo.packing import Batch, Layout

# Compilers of graphs are to leave these two alone: their gradients are written out.
_attend = torch.compiler.disable(Attend.apply)
_mix = torch.compiler.disable(Mix.apply)
_LOOKING_LAYER: Final = 3
"""Before it a model can know what is asked for and what stands before each word, behind it it can use what was found."""


class Norm(nn.Module):
    """RMS norm, computed in float32 and multiplied by ``weight`` itself, not by ``1 + weight``."""

    def __init__(self, size: int, start: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return normalise(x) * self.weight


def normalise(x: Tensor) -> Tensor:
    """RMS-normalise the last dimension without a weight, in float32."""
    x = x.float()
    return x * torch.rsqrt(x.square().mean(-1, keepdim=True) + EPS)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn ``x`` [places, heads, size] by angles [places, 1, size / 2] between its halves."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def gelu(x: Tensor) -> Tensor:
    """Return the tanh form of GELU, in float32; a logistic function is what CPUs compute faster."""
    x = x.float()
    return x * torch.sigmoid(2 * (2 / math.pi) ** 0.5 * (x + 0.044715 * x * x * x))


def text_rope(config: DemoConfig, positions: Tensor, *, is_global: bool) -> tuple[Tensor, Tensor]:
    """Return cosines and sines for ``positions`` [places]: [places, 1, half of a head's size].

    Global layers turn only the first quarter of the frequencies; the others are zero.
    """
    size = config.global_head_dim if is_global else config.head_dim
    theta = 1e6 if is_global else 1e4
    turning = size // 8 if is_global else size // 2
    frequencies = torch.zeros(size // 2, device=positions.device)
    frequencies[:turning] = theta ** (-torch.arange(0, 2 * turning, 2, device=positions.device) / size)
    angles = positions[:, None, None].float() * frequencies
    return angles.cos(), angles.sin()


class Attention(nn.Module):
    """Grouped-query attention with normalised queries, keys and values; global layers use keys as values."""

    def __init__(self, config: DemoConfig, *, is_global: bool) -> None:
        super().__init__()
        self.size = config.global_head_dim if is_global else config.head_dim
        self.heads = config.heads
        self.kv_heads = config.global_kv_heads if is_global else config.kv_heads
        self.q_proj = nn.Linear(config.hidden, self.heads * self.size, bias=False)
        self.k_proj = nn.Linear(config.hidden, self.kv_heads * self.size, bias=False)
        self.v_proj = None if is_global else nn.Linear(config.hidden, self.kv_heads * self.size, bias=False)
        self.o_proj = nn.Linear(self.heads * self.size, config.hidden, bias=False)
        # The attention scale is 1, so the norms start where the usual 1 / sqrt(size) comes out.
        self.q_norm = Norm(self.size, self.size**-0.25)
        self.k_norm = Norm(self.size, self.size**-0.25)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], layout: Layout) -> Tensor:
        """Attend: ``x`` [places, hidden]."""
        projections = [part for part in (self.q_proj, self.k_proj, self.v_proj) if part is not None]
        mixed = F.linear(x, torch.cat([part.weight for part in projections])).unflatten(-1, (-1, self.size))
        query, key, value = mixed.split((self.heads, self.kv_heads, mixed.shape[1] - self.heads - self.kv_heads), dim=1)
        value = normalise(key if self.v_proj is None else value).to(mixed.dtype)
        query, key = (rotate(part, *rope) for part in (self.q_norm(query), self.k_norm(key)))
        return self.o_proj(_attend(query, key, value, layout, self.v_proj is None))


def missed_looks(attention: Attention, x: Tensor, rope: tuple[Tensor, Tensor], looks: Tensor) -> Tensor:
    """Return how little the first head of a sliding layer attends to what has to be found.

    Args:
        attention: Of the layer.
        x: What it attends to [places, hidden].
        rope: Cosines and sines of the places.
        looks: [looks, 4], see ``Batch``.

    Returns:
        The mean over all looks of the negative logarithm of the attention that its places get in all.
    """
    first, place, start, stop = looks.unbind(1)
    cos, sin = rope
    query, key = (F.linear(part, weights.weight[: attention.size])[:, None] for part, weights in ((x[place], attention.q_proj), (x, attention.k_proj)))
    query = rotate(attention.q_norm(query), cos[place], sin[place])[:, 0]
    key = rotate(attention.k_norm(key), cos, sin)[:, 0]
    places = torch.arange(len(x), device=x.device)
    scores = (query @ key.t()).float()
    seen = (places >= first[:, None]) & (places <= place[:, None])
    wanted = (places >= start[:, None]) & (places < stop[:, None])
    return (scores.masked_fill(~seen, -torch.inf).logsumexp(1) - scores.masked_fill(~wanted, -torch.inf).logsumexp(1)).mean()


class Mlp(nn.Module):
    """Gated feed-forward block with the tanh form of GELU."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to the last dimension."""
        up = self.up_proj(x)
        return self.down_proj((gelu(self.gate_proj(x)) * up).to(up.dtype))


class Router(nn.Module):
    """Chooses experts: normalised input, linear, softmax, the best few renormalised and scaled per expert."""

    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.proj = nn.Linear(config.hidden, config.experts, bias=False)
        # The factor hidden**-0.5 of the architecture would make a fresh router flat and slow to learn.
        self.scale = nn.Parameter(torch.full((config.hidden,), config.hidden**0.5))
        self.per_expert_scale = nn.Parameter(torch.ones(config.experts))
        self.count = config.experts_per_token
        self.factor = config.hidden**-0.5

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the probabilities [places, experts], and index and weights [places, experts of each] of those chosen."""
        probabilities = self.proj(normalise(x) * self.scale * self.factor).float().softmax(-1)
        top, index = probabilities.topk(self.count, dim=-1)
        return probabilities, index, top / top.sum(-1, keepdim=True) * self.per_expert_scale[index]


class Experts(nn.Module):
    """The weights of all experts; each is computed for the places that chose it."""

    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(config.experts, 2 * config.expert_dim, config.hidden) * config.hidden**-0.5)
        self.down_proj = nn.Parameter(torch.randn(config.experts, config.hidden, config.expert_dim) * config.expert_dim**-0.5)

    def forward(self, x: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """Mix the experts: ``x`` [places, hidden], ``index`` and ``weights`` [places, experts of each]."""
        return _mix(x, self.gate_up_proj, self.down_proj, index, weights)


class DecoderLayer(nn.Module):
    """One text layer: attention, then the MLP and, in the mixture, the experts beside it."""

    def __init__(self, config: DemoConfig, *, is_global: bool) -> None:
        super().__init__()
        # Post norms re-normalise each branch, so they, not the weights, set how loud a branch starts.
        quiet = 0.4
        self.self_attn = Attention(config, is_global=is_global)
        self.mlp = Mlp(config.hidden, config.mlp)
        self.input_layernorm = Norm(config.hidden)
        self.post_attention_layernorm = Norm(config.hidden, quiet)
        self.pre_feedforward_layernorm = Norm(config.hidden)
        self.post_feedforward_layernorm = Norm(config.hidden, quiet)
        self.register_buffer("layer_scalar", torch.ones(1))
        if config.experts:
            self.router = Router(config)
            self.experts = Experts(config)
            self.post_feedforward_layernorm_1 = Norm(config.hidden)
            self.post_feedforward_layernorm_2 = Norm(config.hidden)
            self.pre_feedforward_layernorm_2 = Norm(config.hidden)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], batch: Batch, *, is_last: bool) -> tuple[Tensor, Tensor]:
        """Return the new residual stream and the router's balance loss [kinds] (zero in the dense shape).

        After the last layer only the places in ``batch.rows`` are looked at, so only theirs are returned.
        """
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), rope, batch.layout))
        balance = x.new_zeros(len(batch.counts))
        if hasattr(self, "router"):
            probabilities, index, weights = self.router(x)
            used = torch.zeros_like(probabilities).scatter(-1, index, 1.0)
            shares = batch.shares[..., None]
            balance = ((shares * used).sum(1) * (shares * probabilities).sum(1)).sum(1) * probabilities.shape[-1]
            if is_last:
                index, weights = index[batch.rows], weights[batch.rows]
        if is_last:
            x = x[batch.rows]
        even = normalise(x)
        inner = self.mlp(even * self.pre_feedforward_layernorm.weight)
        if hasattr(self, "router"):
            mixed = self.experts((even * self.pre_feedforward_layernorm_2.weight).to(inner.dtype), index, weights)
            inner = self.post_feedforward_layernorm_1(inner) + self.post_feedforward_layernorm_2(mixed)
        x = x + self.post_feedforward_layernorm(inner)
        return x * self.layer_scalar, balance


class LanguageModel(nn.Module):
    """Embedding, layers and the last norm; the output matrix is the embedding."""

    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab, config.hidden)
        nn.init.normal_(self.embed_tokens.weight, std=config.hidden**-0.5)
        self.layers = nn.ModuleList(DecoderLayer(config, is_global=(i % 6 == 5)) for i in range(config.layers))
        self.norm = Norm(config.hidden)

    def embed(self, ids: Tensor) -> Tensor:
        """Look up ids and scale by the square root of the hidden size."""
        return self.embed_tokens(ids) * self.config.hidden**0.5

    def forward(self, x: Tensor, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """Run the layers on the embeddings [places, hidden] of a batch.

        Returns:
            Normalised hidden states of the learnt places [len(batch.wanted), hidden], the mean balance loss [kinds], and the
            loss of ``missed_looks``.
        """
        ropes = tuple(text_rope(self.config, batch.positions, is_global=is_global) for is_global in (False, True))
        balance = x.new_zeros(len(batch.counts))
        last = len(self.layers) - 1
        missed = x.new_zeros(())
        for index, layer in enumerate(self.layers):
            if index == _LOOKING_LAYER and len(batch.looks):
                missed = missed_looks(layer.self_attn, layer.input_layernorm(x), ropes[0], batch.looks)
            x, part = layer(x, ropes[index % 6 == 5], batch, is_last=index == last)
            balance = balance + part
        return self.norm(x[: len(batch.wanted)]), balance / len(self.layers), missed

    def raw_logits(self, hidden: Tensor) -> Tensor:
        """Return logits for normalised hidden states, before ``soft_cap``."""
        return F.linear(hidden, self.embed_tokens.weight)


def soft_cap(logits: Tensor, cap: float) -> Tensor:
    """Bend logits smoothly to lie between ``-cap`` and ``cap``."""
    return torch.tanh(logits / cap) * cap
