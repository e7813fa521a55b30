"""``python -m benchmarks.hop``: what the hop through Triton costs, with our responses against one response per token.

Run it with the interpreter whose environment holds Triton's server. A scripted core draws for all streams in steps;
the real model, the real ``tritonserver`` and the real client carry that. Two loads: steps of 1 ms, more than the hop
manages with one response per token, and steps as long as a large model's. The rounds of both variants alternate; the
medians are shown.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

from benchmarks.processes import cpu_seconds, run_json
from config.runtime import EngineRuntime
from engine.core import EngineRequest
from engine.triton.client import EngineClient
from engine.triton.server_process import Listeners, TritonServer

STREAMS: Final = (1, 8, 64)
READY_TIMEOUT_S: Final = 60.0
ROUND_TIMEOUT_S: Final = 300.0
MODEL_FILE: Final = '"""The benchmark\'s model."""\n\nfrom benchmarks.hop_model import TritonPythonModel\n'


@dataclass(frozen=True, slots=True)
class Load:
    """How long a step takes and for how long one round is to last, about."""

    name: str
    step_ms: float
    tokens: int


LOADS: Final = (Load("steps of 1 ms", 1.0, 500), Load("steps of 20 ms", 20.0, 150))
VARIANTS: Final = {"joined": False, "one per token": True}


@dataclass(slots=True)
class Round:
    """What one round gave: seconds, tokens, responses, and CPU seconds of server, model and client."""

    took_s: float
    tokens: int
    responses: int
    server_s: float
    model_s: float
    client_s: float


@dataclass(slots=True)
class Row:
    """All rounds of one variant at one load."""

    rounds: list[Round] = field(default_factory=list)

    def median(self, figure: str) -> float:
        """Return the median of a figure over the rounds."""
        return statistics.median(_FIGURES[figure](one) for one in self.rounds)


_FIGURES: Final = {
    "tokens/s": lambda one: one.tokens / one.took_s,
    "tokens/response": lambda one: one.tokens / one.responses,
    "server": lambda one: 1e6 * one.server_s / one.tokens,
    "model": lambda one: 1e6 * one.model_s / one.tokens,
    "client": lambda one: 1e6 * one.client_s / one.tokens,
    "CPU": lambda one: 1e6 * (one.server_s + one.model_s + one.client_s) / one.tokens,
}


class HopServer(TritonServer):
    """Triton with the benchmark's model."""

    def __init__(self, folder: Path, load: Load, *, one_per_token: bool) -> None:
        nowhere = Path("/nowhere")
        self.endpoint = f"unix:{folder}/hop"
        runtime = EngineRuntime(
            model_path=nowhere, tokenizer_path=nowhere, endpoint=self.endpoint, context_tokens=1, max_sequences=1
        )
        super().__init__(runtime, Listeners(), folder)
        self._load = load
        self._one_per_token = one_per_token
        self._files = folder

    def write_models(self) -> None:
        """Write the product's repository with another model file."""
        super().write_models()
        model = self._files / "models" / "gemma4"
        (model / "1" / "model.py").write_text(MODEL_FILE)
        (model / "step_ms").write_text(str(self._load.step_ms))
        if self._one_per_token:
            (model / "one_per_token").touch()

    def processes(self) -> list[int]:
        """Return the ids of the server and of the model's process."""
        server = self._process.pid if self._process is not None else 0
        listed = [path.read_text().split() for path in Path(f"/proc/{server}/task").glob("*/children")]
        return [server, *(int(child) for entry in listed for child in entry)]


async def measure(load: Load, streams: int, *, one_per_token: bool) -> Round:
    """Run one round on a fresh server."""
    with tempfile.TemporaryDirectory(prefix="hop") as folder:
        server = HopServer(Path(folder), load, one_per_token=one_per_token)
        running = asyncio.create_task(server.run())
        # The client uses gRPC, after which this process could no longer fork safely.
        while not running.done() and not server.processes()[0]:  # noqa: ASYNC110 - the start is short
            await asyncio.sleep(0.01)
        client = EngineClient([server.endpoint])
        try:
            async with asyncio.timeout(READY_TIMEOUT_S):
                while not await client.ready():
                    if running.done():
                        running.result()
                    await asyncio.sleep(0.05)
            await _drive(client, streams, 50)
            server_id, model_id = server.processes()
            before = cpu_seconds(server_id), cpu_seconds(model_id), time.process_time()
            begun = time.perf_counter()
            responses = await _drive(client, streams, load.tokens)
            took_s = time.perf_counter() - begun
            after = cpu_seconds(server_id), cpu_seconds(model_id), time.process_time()
        finally:
            await client.close()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            await server.stop()
    used = (end - start for end, start in zip(after, before, strict=True))
    return Round(took_s, streams * load.tokens, responses, *used)


async def _drive(client: EngineClient, streams: int, tokens: int) -> int:
    """Run sequences side by side and return how many responses they took."""

    async def one(number: int) -> int:
        request = EngineRequest(f"r{number}", (1, 2, 3), tokens)
        seen, responses = 0, 0
        async for delta in client.generate(request):
            seen += len(delta.token_ids)
            responses += 1
        if seen != tokens:
            message = f"{seen} of {tokens} tokens arrived"
            raise RuntimeError(message)
        return responses

    return sum(await asyncio.gather(*(one(number) for number in range(streams))))


def show(rows: dict[tuple[str, int, str], Row], rounds: int) -> Table:
    """Return the table of all medians."""
    table = Table(title=f"The hop through Triton, medians of {rounds} rounds; CPU in µs per token")
    headings = ("load", "streams", "sent", "tokens/s", "tokens/response", "server", "model", "client", "CPU", "times")
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number in (0, 2) else "right")
    for (load, streams, variant), row in rows.items():
        single = rows[load, streams, "one per token"]
        figures = [f"{row.median(name):,.1f}" for name in ("server", "model", "client", "CPU")]
        factor = row.median("tokens/s") / single.median("tokens/s")
        table.add_row(
            load, str(streams), variant, f"{row.median('tokens/s'):,.0f}", f"{row.median('tokens/response'):.1f}",
            *figures, f"{factor:.1f}",
        )  # fmt: skip
    return table


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="rounds of each variant")
    parser.add_argument("--single", nargs=3, metavar=("LOAD", "STREAMS", "VARIANT"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.single is not None:
        number, streams_text, variant = options.single
        one = measure(LOADS[int(number)], int(streams_text), one_per_token=VARIANTS[variant])
        sys.stdout.write(json.dumps(dataclasses.asdict(asyncio.run(one))))
        return
    rows: dict[tuple[str, int, str], Row] = {}
    for number, load in enumerate(LOADS):
        for streams in STREAMS:
            for variant in tuple(VARIANTS) * options.rounds:
                # A process of its own: one that has used gRPC can no longer fork safely.
                arguments = ["-m", "benchmarks.hop", "--single", str(number), str(streams), variant]
                found = run_json(arguments, timeout_s=ROUND_TIMEOUT_S)
                row = rows.setdefault((load.name, streams, variant), Row())
                row.rounds.append(Round(**found))  # type: ignore[arg-type] # whole numbers stay whole in JSON
    Console(width=140).print(show(rows, options.rounds))


if __name__ == "__main__":
    main()
