"""Gemma 4's text model in plain PyTorch, small enough to train on two CPU cores.

Parameter names are those of the published checkpoints, so a state dict is already the Hugging Face layout. The forward
pass is checked against the ``transformers`` implementation by ``demo.verify``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo.model_config import EPS, DemoConfig


class Norm(nn.Module):
    """RMS norm, computed in float32 and multiplied by ``weight`` itself, not by ``1 + weight``."""

    def __init__(self, size: int, start: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((size,), start))

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last dimension."""
        return normalise(x) * self.weight


def normalise(x: Tensor) -> Tensor:
    """RMS-normalise the last dimension without a weight."""
    return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS)


def rotate_half(x: Tensor) -> Tensor:
    """Swap the halves of the last dimension and negate the first."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat((-second, first), dim=-1)


def text_rope(config: DemoConfig, positions: Tensor, *, is_global: bool) -> tuple[Tensor, Tensor]:
    """Return cosines and sines, shaped like ``positions`` plus a last dimension of the head's size.

    Global layers turn only the first quarter of the frequencies; the others are zero.
    """
    size = config.global_head_dim if is_global else config.head_dim
    theta = 1e6 if is_global else 1e4
    turning = size // 8 if is_global else size // 2
    frequencies = torch.zeros(size // 2, device=positions.device)
    frequencies[:turning] = theta ** (-torch.arange(0, 2 * turning, 2, device=positions.device) / size)
    angles = positions[..., None].float() * frequencies
    angles = torch.cat((angles, angles), dim=-1)
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

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor) -> Tensor:
        """Attend: ``x`` [batch, length, hidden], ``mask`` [batch, 1, length, length], added to the scores."""
        batch, length, _ = x.shape
        cos, sin = (part[:, None] for part in rope)
        query = self.q_norm(self.q_proj(x).view(batch, length, self.heads, self.size)).transpose(1, 2)
        raw = self.k_proj(x).view(batch, length, self.kv_heads, self.size)
        value = raw if self.v_proj is None else self.v_proj(x).view(batch, length, self.kv_heads, self.size)
        key = self.k_norm(raw).transpose(1, 2)
        value = normalise(value).transpose(1, 2)
        query = query * cos + rotate_half(query) * sin
        key = key * cos + rotate_half(key) * sin
        # Written out: on a CPU, with masks and heads this small, it is twice as fast as the fused kernel and its gradient.
        scores = query.unflatten(1, (self.kv_heads, -1)).flatten(2, 3) @ key.transpose(-1, -2)
        weights = (scores.unflatten(2, (-1, length)) + mask[:, :, None]).softmax(-1).to(value.dtype)
        out = (weights.flatten(2, 3) @ value).unflatten(2, (-1, length)).flatten(1, 2)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))


class Mlp(nn.Module):
    """Gated feed-forward block with the tanh form of GELU."""

    def __init__(self, hidden: int, inner: int) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Apply the block to the last dimension."""
        return self.down_proj(F.gelu(self.gate_proj(x), approximate="tanh") * self.up_proj(x))


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

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return probabilities and weights, both [..., experts]; weights are zero for experts not chosen."""
        probabilities = self.proj(normalise(x) * self.scale * self.factor).softmax(-1)
        top, index = probabilities.topk(self.count, dim=-1)
        weights = torch.zeros_like(probabilities).scatter(-1, index, top / top.sum(-1, keepdim=True))
        return probabilities, weights * self.per_expert_scale


class Experts(nn.Module):
    """All experts, computed densely and weighted: at this size that is faster than gathering tokens."""

    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.gate_up_proj = nn.Parameter(torch.randn(config.experts, 2 * config.expert_dim, config.hidden) * config.hidden**-0.5)
        self.down_proj = nn.Parameter(torch.randn(config.experts, config.hidden, config.expert_dim) * config.expert_dim**-0.5)

    def forward(self, x: Tensor, weights: Tensor) -> Tensor:
        """Mix the experts: ``x`` [..., hidden], ``weights`` [..., experts]."""
        experts, double, hidden = self.gate_up_proj.shape
        inner = F.linear(x, self.gate_up_proj.reshape(experts * double, hidden)).unflatten(-1, (experts, double))
        gate, up = inner.chunk(2, dim=-1)
        mixed = F.gelu(gate, approximate="tanh") * up * weights[..., None]
        return F.linear(mixed.flatten(-2), self.down_proj.permute(1, 0, 2).reshape(hidden, experts * double // 2))


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

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor], mask: Tensor) -> tuple[Tensor, Tensor]:
        """Return the new residual stream and the router's balance loss (zero in the dense shape)."""
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), rope, mask))
        inner = self.mlp(self.pre_feedforward_layernorm(x))
        balance = x.new_zeros(())
        if hasattr(self, "router"):
            probabilities, weights = self.router(x)
            mixed = self.experts(self.pre_feedforward_layernorm_2(x), weights)
            inner = self.post_feedforward_layernorm_1(inner) + self.post_feedforward_layernorm_2(mixed)
            used = (weights.detach() > 0).float().flatten(0, -2).mean(0)
            balance = (used * probabilities.flatten(0, -2).mean(0)).sum() * weights.shape[-1]
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

    def forward(self, x: Tensor, positions: Tensor, masks: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """Run the layers on embeddings.

        Args:
            x: [batch, length, hidden].
            positions: [batch, length].
            masks: of the sliding and of the global layers, each [batch, 1, length, length], added to the scores.

        Returns:
            Normalised hidden states [batch, length, hidden], and the mean balance loss.
        """
        ropes = tuple(text_rope(self.config, positions, is_global=is_global) for is_global in (False, True))
        balance = x.new_zeros(())
        for index, layer in enumerate(self.layers):
            is_global = int(index % 6 == 5)
            x, part = layer(x, ropes[is_global], masks[is_global])
            balance = balance + part
        return self.norm(x), balance / len(self.layers)

    def logits(self, hidden: Tensor) -> Tensor:
        """Return soft-capped logits for normalised hidden states."""
        cap = self.config.softcap
        return torch.tanh(F.linear(hidden, self.embed_tokens.weight) / cap) * cap
