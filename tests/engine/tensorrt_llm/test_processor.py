"""The layout of pictures against the processor that TensorRT-LLM calls; runs where transformers is installed."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from engine.images import ImageRun
from engine.tensorrt_llm.prompts import budget_of, check_layout, frame_of, probe_text, skeleton

CHECKPOINT = Path(__file__).parents[3] / "demo" / "checkpoints" / "demo-moe"
NAMES = {
    "image_token": "<|image|>",
    "boi_token": "<|image>",
    "eoi_token": "<image|>",
    "audio_token": "<|audio|>",
    "boa_token": "<|audio>",
    "eoa_token": "<audio|>",
}
CELL = 48


@pytest.fixture(scope="module")
def processor():
    """Gemma 4's processor around the demo tokenizer, set up as the core sets up the library's."""
    transformers = pytest.importorskip("transformers", minversion="5.5")
    pytest.importorskip("torchvision")
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_file=str(CHECKPOINT / "tokenizer.json"),
        pad_token="<pad>",  # noqa: S106 - the name of a token
        extra_special_tokens=NAMES,
    )
    made = transformers.Gemma4Processor(
        feature_extractor=transformers.Gemma4AudioFeatureExtractor(),
        image_processor=transformers.Gemma4ImageProcessor(),
        tokenizer=tokenizer,
        video_processor=transformers.Gemma4VideoProcessor(),
    )
    made.image_processor.do_resize = False
    return made


@pytest.fixture(scope="module")
def ids():
    content = json.loads((CHECKPOINT / "tokenizer.json").read_text(encoding="utf-8"))
    return {token["content"]: token["id"] for token in content["added_tokens"]}


@pytest.mark.parametrize(
    "sizes", [[(144, 96)], [(48, 48), (1104, 48)], [(816, 624), (96, 96)], [(1584, 1584)], [(960, 48)]]
)
def test_a_skeleton_becomes_the_prompts_layout(processor, ids, sizes):
    """Pictures of any size, alone and together, stand where our ids have them, and are not sized again."""
    pillow = pytest.importorskip("PIL.Image")
    prompt, runs, pictures = [ids["<bos>"], 100, 101], [], []
    for width, height in sizes:
        count = (width // CELL) * (height // CELL)
        runs.append(ImageRun(len(prompt) + 1, count))
        prompt += [ids["<|image>"], *[ids["<|image|>"]] * count, ids["<image|>"]]
        pixels = random.Random(count).randbytes(width * height * 3)
        pictures.append(pillow.frombytes("RGB", (width, height), pixels))
    prompt += [200, 201, ids["<turn|>"]]
    frame = frame_of(processor.tokenizer(probe_text())["input_ids"], ids["<pad>"])
    processor.image_processor.max_soft_tokens = budget_of(max(run.count for run in runs))
    found = processor(text=skeleton(len(prompt), runs, frame), images=pictures, return_tensors="pt", do_rescale=True)
    check_layout(found["input_ids"][0].tolist(), prompt, ids["<|image|>"])
    patches = [int((places != -1).all(dim=-1).sum()) for places in found["image_position_ids"]]
    assert patches == [9 * run.count for run in runs]
