"""An exported checkpoint is loaded by the engine that it is made for, text and pictures."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from config.runtime import EngineRuntime
from engine.core import EngineRequest, Image, Sampling
from engine.llama_cpp.core import LlamaCppCore
from engine_build.gguf_encoding import WeightType
from engine_build.gguf_export import export_checkpoint

if TYPE_CHECKING:
    from tests.engine_build.conftest import Checkpoint


async def draw(directory: Path, request: EngineRequest) -> list[int]:
    """Return the ids that the engine draws from the checkpoint in ``directory``."""
    runtime = EngineRuntime(
        model_path=directory / "model.gguf",
        mmproj_path=directory / "mmproj.gguf",
        tokenizer_path=directory / "tokenizer.json",
        endpoint="unix:unused",
        context_tokens=512,
        max_sequences=1,
    )
    core = LlamaCppCore(runtime)
    try:
        return [number async for delta in core.generate(request) for number in delta.token_ids]
    finally:
        await core.close()


@pytest.mark.parametrize("weight_type", list(WeightType))
@pytest.mark.parametrize("kind", ["checkpoint", "dense_checkpoint"])
def test_engine_runs_the_export(
    request: pytest.FixtureRequest, tmp_path: Path, kind: str, weight_type: WeightType
) -> None:
    """Every type of both shapes loads and answers a prompt with a picture."""
    checkpoint: Checkpoint = request.getfixturevalue(kind)
    export_checkpoint(checkpoint.directory, tmp_path / "out", weight_type)
    ids = checkpoint.tokenizer["model"]["vocab"]
    image = Image(bytes(range(256)) * 27, 48, 48)
    prompt = ("<bos>", "<|turn>", "a", "<|image>", "<|image|>", "<image|>", "b", "<turn|>")
    wanted = EngineRequest(
        request_id="1",
        prompt_ids=tuple(ids[name] for name in prompt),
        max_tokens=4,
        images=(image,),
        sampling=Sampling(temperature=0.0),
    )
    drawn = asyncio.run(draw(tmp_path / "out", wanted))
    assert len(drawn) == 4
    assert all(0 <= number < len(ids) for number in drawn)
