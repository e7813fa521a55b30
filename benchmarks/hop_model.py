"""The model that ``benchmarks.hop`` runs in Triton: the product's own, with a scripted core instead of a real one.

Two files beside it say how: ``step_ms`` holds the length of a step, and where ``one_per_token`` exists, every token has
a response of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from benchmarks.scripted_engine import SteppedCore
from engine.core import EngineDelta
from engine.triton import model
from engine.triton.sender import Sender

if TYPE_CHECKING:
    from engine.errors import EngineError
    from engine.triton.sender import Outgoing, Reply

IDS = tuple(range(1000, 1100))


class SingleSender(Sender):
    """Sends at once, one response per token, as models for Triton mostly do."""

    def _send(self, outgoing: Outgoing, reply: Reply, delta: EngineDelta | None, end: EngineError | None) -> bool:
        if delta is None:
            return super()._send(outgoing, reply, delta, end)
        parts = [EngineDelta((token_id,)) for token_id in delta.token_ids[:-1]]
        last = EngineDelta(delta.token_ids[-1:], (), delta.finish_reason, delta.usage)
        return [super(SingleSender, self)._send(outgoing, reply, part, None) for part in (*parts, last)][-1]


class TritonPythonModel(model.TritonPythonModel):
    """The product's model with another core."""

    def initialize(self, args: dict[str, str]) -> None:
        """Start; the scripted core needs nothing of the runtime that the configuration holds."""
        folder = Path(args["model_repository"])
        step_s = float((folder / "step_ms").read_text()) / 1000
        model.load_core = lambda _runtime: SteppedCore(IDS, step_s)
        if (folder / "one_per_token").exists():
            model.Sender = SingleSender
        super().initialize(args)
