"""Attention and experts of the text model with their gradients written out.

On a CPU most of a small model's time goes into passes over memory, and the gradients that PyTorch derives need several
times as many as these. Sums and products are taken in the precision of the inputs and everything else in float32.
"""

from __future__ import annotations

from typing import Any, Final

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from demo.packing import Group, Layout, Part

_STEP: Final = 32
"""The slots of an expert are a multiple of this: every new shape costs milliseconds of preparation in oneDNN."""


class Attend(Function):
    """``apply(query, key, value, layout, is_global)``: attention of each place to its sample, with scale 1.

    All are [places, heads, size], with the same number of query heads for each head of keys and values. The products are
    taken in the type of ``value``.
    """

    @staticmethod
    def forward(ctx: Any, query: Tensor, key: Tensor, value: Tensor, layout: Layout, is_global: bool) -> Tensor:
        """Return [places, query heads * size]."""
        ctx.layout, ctx.is_global, ctx.saved = layout, is_global, []
        query, key, value = (F.pad(part.to(value.dtype), (0, 0, 0, 0, 0, 1)) for part in (query, key, value))
        ctx.heads, kv_heads = query.shape[1], key.shape[1]
        outs = []
        for group in layout.groups:
            queries = _grouped(query, group, kv_heads)
            keys, values = (_grouped(part, group, kv_heads)[:, :, 0].flatten(0, 1) for part in (key, value))
            out = torch.empty_like(queries)
            weights = []
            for part in group.parts(is_global):
                scores = torch.bmm(_part(queries, part), keys[:, : part.end].transpose(1, 2))
                scores.view(*queries.shape[:3], -1, part.end)[..., part.start :].masked_fill_(part.hidden, -torch.inf)
                weights.append(scores.softmax(-1))
                _set_part(out, part, torch.bmm(weights[-1], values[:, : part.end]))
            ctx.saved.append((queries, keys, values, weights))
            outs.append(_placed(out))
        return torch.cat(outs).index_select(0, layout.order).flatten(1)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of queries, keys and values."""
        grad = F.pad(grads[0].unflatten(-1, (ctx.heads, -1)), (0, 0, 0, 0, 0, 1))
        found: tuple[list[Tensor], ...] = ([], [], [])
        for group, (queries, keys, values, weights) in zip(ctx.layout.groups, ctx.saved, strict=True):
            grads_out = _grouped(grad, group, queries.shape[1])
            by_query = torch.empty_like(queries)
            by_key, by_value = (torch.zeros_like(part, dtype=torch.float32) for part in (keys, values))
            for part, weight in zip(group.parts(ctx.is_global), weights, strict=True):
                grad_out = _part(grads_out, part)
                by_value[:, : part.end] += torch.bmm(weight.transpose(1, 2), grad_out)
                by_weight = torch.bmm(grad_out, values[:, : part.end].transpose(1, 2))
                by_score = torch._softmax_backward_data(by_weight, weight, -1, weight.dtype)
                by_key[:, : part.end] += torch.bmm(by_score.transpose(1, 2), _part(queries, part))
                _set_part(by_query, part, torch.bmm(by_score, keys[:, : part.end]))
            found[0].append(_placed(by_query))
            found[1].append(_placed(by_key.view(*queries.shape[:2], 1, *keys.shape[1:])))
            found[2].append(_placed(by_value.view(*queries.shape[:2], 1, *keys.shape[1:])))
        return *(torch.cat(parts).index_select(0, ctx.layout.order) for parts in found), None, None


def _grouped(x: Tensor, group: Group, kv_heads: int) -> Tensor:
    """Gather [places, heads, size] as [samples, kv heads, heads for each, length, size]."""
    gathered = x.index_select(0, group.places.flatten()).view(*group.places.shape, kv_heads, -1, x.shape[-1])
    return gathered.permute(0, 2, 3, 1, 4).contiguous()


def _placed(x: Tensor) -> Tensor:
    """Undo the order of ``_grouped``: [samples * length, heads, size]."""
    return x.permute(0, 3, 1, 2, 4).flatten(2, 3).flatten(0, 1)


def _part(x: Tensor, part: Part) -> Tensor:
    """Cut a part's positions out of what ``_grouped`` returned: [samples * kv heads, heads for each * positions, size]."""
    return x[..., part.start : part.stop, :].flatten(2, 3).flatten(0, 1)


def _set_part(x: Tensor, part: Part, values: Tensor) -> None:
    """Put back what has the form of ``_part``."""
    x[..., part.start : part.stop, :] = values.view(*x.shape[:3], -1, x.shape[-1])


class Mix(Function):
    """``apply(x, gate_up, down, index, weights)``: every place's experts, each on the places that chose it.

    ``x`` is [places, hidden], ``index`` and ``weights`` are [places, experts of each]; the result is in float32.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, gate_up: Tensor, down: Tensor, index: Tensor, weights: Tensor) -> Tensor:
        """Return the weighted sums [places, hidden]."""
        slots, sources, ends = _route(index, len(gate_up))
        inputs = x.index_select(0, sources)
        weight = x.new_zeros(len(sources), 1).index_copy_(0, slots, weights.reshape(-1, 1).to(x.dtype))
        gate_up, down = gate_up.to(x.dtype), down.to(x.dtype)
        # On rows of a tensor that do not follow each other GELU takes more than ten times as long.
        gate, up = (part.contiguous() for part in _each(inputs, gate_up.transpose(1, 2), ends).chunk(2, dim=-1))
        opened = F.gelu(gate, approximate="tanh")
        gated = opened * up
        active = gated * weight
        ctx.save_for_backward(slots, sources, weight, inputs, gate, up, opened, gated, active, gate_up, down)
        ctx.ends, ctx.count = ends, index.shape[1]
        return _together(_each(active, down.transpose(1, 2), ends), slots, ctx.count)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Return the gradients of inputs, both matrices and the weights."""
        slots, sources, weight, inputs, gate, up, opened, gated, active, gate_up, down = ctx.saved_tensors
        grad = grads[0].to(inputs.dtype).index_select(0, sources)
        by_active = _each(grad, down, ctx.ends)
        by_weight = (by_active * gated).sum(-1, dtype=torch.float32).index_select(0, slots).view(-1, ctx.count)
        by_gated = by_active.mul_(weight)
        by_gate = torch.ops.aten.gelu_backward(by_gated * up, gate, approximate="tanh")
        by_inner = torch.cat((by_gate, by_gated * opened), dim=-1)
        by_x = _together(_each(by_inner, gate_up, ctx.ends), slots, ctx.count)
        return by_x, _matrices(by_inner, inputs, ctx.ends), _matrices(grad, active, ctx.ends), None, by_weight


def _route(index: Tensor, experts: int) -> tuple[Tensor, Tensor, list[int]]:
    """Give every choice a slot among those of its expert.

    Returns:
        The slot of each choice; the place that each slot takes its input from; where each expert's slots end. Their
        number is rounded up: the slots left over have no weight.
    """
    chosen = index.flatten()
    order = chosen.argsort(stable=True)
    counts = chosen.bincount(minlength=experts)
    sizes = (counts + (_STEP - 1)) // _STEP * _STEP
    shift = (sizes.cumsum(0) - sizes) - (counts.cumsum(0) - counts)
    taken = torch.arange(len(order), device=order.device) + shift.repeat_interleave(counts)
    ends = sizes.cumsum(0).tolist()
    sources = order.new_zeros(ends[-1]).index_copy_(0, taken, order // index.shape[1])
    return torch.empty_like(order).index_copy_(0, order, taken), sources, ends


def _each(x: Tensor, matrices: Tensor, ends: list[int]) -> Tensor:
    """Multiply each expert's slots by its matrix [inputs, outputs]."""
    out = x.new_empty(len(x), matrices.shape[-1])
    for start, end, matrix in zip([0, *ends], ends, matrices, strict=False):
        torch.mm(x[start:end], matrix, out=out[start:end])
    return out


def _matrices(grad: Tensor, x: Tensor, ends: list[int]) -> Tensor:
    """Return the gradient of each expert's matrix [outputs, inputs]."""
    return torch.stack([grad[start:end].t() @ x[start:end] for start, end in zip([0, *ends], ends, strict=False)])


def _together(x: Tensor, slots: Tensor, count: int) -> Tensor:
    """Sum up what a place's experts returned, in float32."""
    first, *others = x.index_select(0, slots).view(-1, count, x.shape[-1]).unbind(1)
    total = first.float()
    for other in others:
        total += other
    return total
