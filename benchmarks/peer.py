"""``python -m benchmarks.peer``: a chat server that streams in the usual style, to compare with.

FastAPI, ``StreamingResponse``, and a pydantic model that is built and dumped for every token. It neither detokenises
nor parses: each token's text is a constant. Its tokens come from a loop in the same process, which costs it nothing,
or, with ``--engine``, from the same engine that the product uses, through Triton's own asynchronous client.
"""

from __future__ import annotations

import argparse
import asyncio
import time
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import uvicorn
from fastapi import FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field
from tritonclient.grpc import InferInput
from tritonclient.grpc.aio import InferenceServerClient

TOKEN_TEXT = " token"


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


async def loop_tokens(count: int, step_s: float) -> AsyncIterator[int]:
    """Yield one token count at a time; paced, or giving way to others after each as a queue would."""
    start = time.monotonic()
    for done in range(count):
        wait = start + (done + 1) * step_s - time.monotonic() if step_s else 0.0
        await asyncio.sleep(max(0.0, wait))
        yield 1


async def engine_tokens(client: InferenceServerClient, prompt: str, count: int) -> AsyncIterator[int]:
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


def create_app(engine: str | None, step_s: float) -> FastAPI:
    """Return the application."""
    clients: list[InferenceServerClient] = []

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        if engine is not None:
            clients.append(InferenceServerClient(engine))
        yield

    app = FastAPI(lifespan=lifespan)

    @app.post("/v1/chat/completions")
    async def create(request: ChatRequest) -> StreamingResponse:
        count, prompt = request.max_tokens, str(request.messages)
        tokens = engine_tokens(clients[0], prompt, count) if clients else loop_tokens(count, step_s)
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
    parser.add_argument("--step-ms", type=float, default=0.0, help="without an engine: time per token and answer")
    options = parser.parse_args()
    app = create_app(options.engine, options.step_ms / 1000)
    uvicorn.run(app, port=options.port, loop="uvloop", http="httptools", access_log=False, log_level="warning")


if __name__ == "__main__":
    main()
