"""Gemma 4's vision tower and projector in plain PyTorch, under the published parameter names."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from demo.model_config import DemoConfig
from demo.text_model import Mlp, Norm, normalise


class _Linear(nn.Module):
    """A linear layer under the name ``linear``, as the published vision tower has them."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.linear = nn.Linear(inputs, outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class VisionAttention(nn.Module):
    """Attention of all patches to all patches, with a rotation by x in one half of a head and by y in the other."""

    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        hidden = config.vision_hidden
        self.heads = config.vision_heads
        self.size = hidden // self.heads
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (_Linear(hidden, hidden) for _ in range(4))
        self.q_norm = Norm(self.size, self.size**-0.25)
        self.k_norm = Norm(self.size, self.size**-0.25)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Attend: ``x`` [batch, patches, hidden]."""
        batch, length, _ = x.shape
        query, key, value = (proj(x).view(batch, length, self.heads, self.size) for proj in (self.q_proj, self.k_proj, self.v_proj))
        query, key = (self._turn(part, rope).transpose(1, 2) for part in (self.q_norm(query), self.k_norm(key)))
        out = F.scaled_dot_product_attention(query, key, normalise(value).transpose(1, 2), scale=1.0)
        return self.o_proj(out.transpose(1, 2).reshape(batch, length, -1))

    @staticmethod
    def _turn(x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        cos, sin = (part[None, :, None] for part in rope)
        a, b, c, d = x.chunk(4, dim=-1)
        return x * cos + torch.cat((-b, a, -d, c), dim=-1) * sin


class VisionLayer(nn.Module):
    """One layer of the vision tower."""

    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        hidden = config.vision_hidden
        self.self_attn = VisionAttention(config)
        self.mlp = Mlp(hidden, config.vision_mlp)
        for name in ("gate_proj", "up_proj", "down_proj"):
            inner: nn.Linear = getattr(self.mlp, name)
            setattr(self.mlp, name, _Linear(inner.in_features, inner.out_features))
        self.input_layernorm = Norm(hidden)
        self.post_attention_layernorm = Norm(hidden, 0.4)
        self.pre_feedforward_layernorm = Norm(hidden)
        self.post_feedforward_layernorm = Norm(hidden, 0.4)

    def forward(self, x: Tensor, rope: tuple[Tensor, Tensor]) -> Tensor:
        """Return the new residual stream."""
        x = x + self.post_attention_layernorm(self.self_attn(self.input_layernorm(x), rope))
        return x + self.post_feedforward_layernorm(self.mlp(self.pre_feedforward_layernorm(x)))


class PatchEmbedder(nn.Module):
    """Linear map of a patch plus learned tables of its x and its y."""

    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.input_proj = nn.Linear(3 * 16 * 16, config.vision_hidden, bias=False)
        # Zero, not random: positions that training never reaches then change nothing.
        self.position_embedding_table = nn.Parameter(torch.zeros(2, config.vision_positions, config.vision_hidden))

    def forward(self, patches: Tensor, x: Tensor, y: Tensor) -> Tensor:
        """Embed ``patches`` [batch, patches, 768] with values from 0 to 1 at the places ``x``, ``y`` [patches]."""
        table = self.position_embedding_table
        return self.input_proj(2 * (patches - 0.5)) + table[0][x] + table[1][y]


class _Encoder(nn.Module):
    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(VisionLayer(config) for _ in range(config.vision_layers))


class VisionTower(nn.Module):
    """Pictures to soft tokens, before the projection into the text model."""

    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embedder = PatchEmbedder(config)
        self.encoder = _Encoder(config)
        self.register_buffer("std_bias", torch.zeros(config.vision_hidden))
        self.register_buffer("std_scale", torch.ones(config.vision_hidden))

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode ``pixels`` [batch, height, width, 3] in 0..1, sides multiples of 48, to [batch, soft tokens, hidden]."""
        batch, height, width, _ = pixels.shape
        rows, columns = height // 16, width // 16
        patches = pixels.view(batch, rows, 16, columns, 16, 3).permute(0, 1, 3, 2, 4, 5).reshape(batch, rows * columns, 768)
        y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
        x, y = x.flatten().to(pixels.device), y.flatten().to(pixels.device)
        hidden = self.patch_embedder(patches, x, y)
        rope = self._rope(x, y)
        for layer in self.encoder.layers:
            hidden = layer(hidden, rope)
        grid = hidden.view(batch, rows // 3, 3, columns // 3, 3, -1).mean((2, 4)).flatten(1, 2)
        pooled = grid * self.config.vision_hidden**0.5
        return (pooled - self.std_bias) * self.std_scale

    def _rope(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        half = self.config.vision_hidden // self.config.vision_heads // 2
        frequencies = 100.0 ** (-torch.arange(0, half, 2, device=x.device) / half)
        angles = [place[:, None].float() * frequencies for place in (x, x, y, y)]
        angle = torch.cat(angles, dim=-1)
        return angle.cos(), angle.sin()


class Projector(nn.Module):
    """Soft tokens into the text model's space: a norm without weight, then a linear map."""

    def __init__(self, config: DemoConfig) -> None:
        super().__init__()
        self.embedding_projection = nn.Linear(config.vision_hidden, config.hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Project ``x`` [..., vision hidden] to [..., hidden]."""
        return self.embedding_projection(normalise(x))
