"""``python -m benchmarks.peer``: a chat server that streams in the usual style, to compare with.

FastAPI, ``StreamingResponse``, a queue per request, and a pydantic model that is built and dumped for every token. It
neither detokenises nor parses: each token's text is a constant. Its tokens come in one of three ways:

- from a loop in its own process that steps like an engine, which costs it next to nothing;
- with ``--engine`` and ``--wire batched`` over the product's own client, one message per step for all requests;
- with ``--engine`` and ``--wire plain`` over Triton's own asynchronous client, one RPC per request.
"""

from __future__ import annotations

import argparse
import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

from benchmarks.scripted_engine import SteppedCore
from engine.core import EngineDelta, EngineRequest
from engine.errors import EngineError
from engine.triton.client import EngineClient

TOKEN_TEXT = " token"
TokenSource = Callable[[str, int], AsyncIterator[int]]
"""Takes a prompt and a number of tokens; yields how many tokens have come, until all have."""


class ChatRequest(BaseModel):
    """The fields of a request that this server looks at."""

    model: str
    messages: list[dict[str, Any]]
    max_tokens: int = 100
    stream: bool = True


class Delta(BaseModel):
    """What a chunk adds."""

    role: str | None = None
    content: str | None = None


class ChunkChoice(BaseModel):
    """The one choice of a chunk."""

    index: int = 0
    delta: Delta
    logprobs: None = None
    finish_reason: str | None = None


class Chunk(BaseModel):
    """One server-sent event."""

    id: str
    object: str = "chat.completion.chunk"
    created: int = Field(default_factory=lambda: int(time.time()))
    model: str
    choices: list[ChunkChoice]


class Stepper:
    """Draws one token for every request in each step and puts it into the request's queue."""

    def __init__(self, step_s: float) -> None:
        self._core = SteppedCore((0,), step_s)

    async def tokens(self, _prompt: str, count: int) -> AsyncIterator[int]:
        """Yield one token count at a time."""
        queue: asyncio.Queue[int] = asyncio.Queue()
        sequence = await self._core.start(EngineRequest("", (), count), QueueReceiver(queue))
        try:
            for _ in range(count):
                yield await queue.get()
        finally:
            sequence.close()


class QueueReceiver:
    """Puts the number of tokens that came into a queue."""

    def __init__(self, queue: asyncio.Queue[int]) -> None:
        self._queue = queue

    def ids(self, token_ids: tuple[int, ...]) -> None:
        """Count ids."""
        self._queue.put_nowait(len(token_ids))

    def delta(self, delta: EngineDelta) -> None:
        """Count the ids of a delta."""
        self._queue.put_nowait(len(delta.token_ids))

    def failed(self, error: EngineError) -> None:
        """Fail: nothing in a benchmark may."""
        raise error


async def batched_tokens(client: EngineClient, prompt: str, count: int) -> AsyncIterator[int]:
    """Yield the number of ids in each delta that the product's client receives."""
    request = EngineRequest(uuid.uuid4().hex, tuple(prompt.encode()), count)
    async for delta in client.generate(request):
        yield len(delta.token_ids)


async def plain_tokens(client: InferenceServerClient, prompt: str, count: int) -> AsyncIterator[int]:
    """Yield the number of ids in each response of the engine."""
    ids = np.frombuffer(prompt.encode(), dtype=np.uint8).astype(np.int32)
    tensors = [InferInput("input_ids", list(ids.shape), "INT32"), InferInput("request_output_len", [1], "INT32")]
    tensors[0].set_data_from_numpy(ids)
    tensors[1].set_data_from_numpy(np.array([count], dtype=np.int32))

    async def requests() -> AsyncIterator[dict[str, Any]]:
        yield {"model_name": "gemma4", "inputs": tensors, "request_id": uuid.uuid4().hex}

    async for result, error in client.stream_infer(requests()):
        if error is not None:
            raise error
        yield len(result.as_numpy("output_ids"))


def create_app(source: Callable[[], TokenSource]) -> FastAPI:
    """Return the application; ``source`` is called in its event loop."""
    sources: list[TokenSource] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        sources.append(source())
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/chat/completions")
    async def create(request: ChatRequest) -> StreamingResponse:
        tokens = sources[0](str(request.messages), request.max_tokens)
        return StreamingResponse(events(request.model, tokens), media_type="text/event-stream")

    return app


async def events(model: str, tokens: AsyncIterator[int]) -> AsyncIterator[str]:
    """Yield one event per token, then the end."""
    answer_id = f"chatcmpl-{uuid.uuid4().hex}"

    def event(delta: Delta, finish_reason: str | None = None) -> str:
        chunk = Chunk(id=answer_id, model=model, choices=[ChunkChoice(delta=delta, finish_reason=finish_reason)])
        return f"data: {chunk.model_dump_json()}\n\n"

    yield event(Delta(role="assistant", content=""))
    async for count in tokens:
        for _ in range(count):
            yield event(Delta(content=TOKEN_TEXT))
    yield event(Delta(), "stop")
    yield "data: [DONE]\n\n"


def main() -> None:
    """Serve."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--engine", help="gRPC address of an engine; without it tokens come from a loop")
    parser.add_argument("--wire", choices=["batched", "plain"], default="batched", help="how to talk to the engine")
    parser.add_argument("--step-ms", type=float, default=5.0, help="without an engine: time of one step")
    options = parser.parse_args()

    def source() -> TokenSource:
        if options.engine is None:
            return Stepper(options.step_ms / 1000).tokens
        if options.wire == "batched":
            return partial(batched_tokens, EngineClient([options.engine]))
        return partial(plain_tokens, InferenceServerClient(options.engine))

    app = create_app(source)
    uvicorn.run(app, port=options.port, loop="uvloop", http="httptools", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
