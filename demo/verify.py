"""Checks that engines and transformers say the same: ``python -m demo.verify CHECKPOINT_DIR --hf HF_DIR [--core CORE]``.

CHECKPOINT_DIR holds ``model.gguf``, ``mmproj.gguf`` and ``tokenizer.json``; HF_DIR the checkpoint that they were
exported from, which vLLM loads itself. All sides get the same ids and the same resized pixels and decode greedily, an
engine with all prompts at once. Exit status 1 means that an engine drew an id that transformers holds to be clearly
less likely than its own choice. Rounding alone can do that in a model with routed experts, where a near-tie of the
router swaps an expert. It runs in the training environment, or in vLLM's (``make test-vllm`` sets it up), which have
torch and transformers; serving by llama.cpp needs neither.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any, Final

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer
from torch.nn.functional import pad
from transformers import Gemma4ForConditionalGeneration

from config.runtime import EngineRuntime
from demo.conversation import Conversation
from demo.conversations import BUILDERS
from demo.markup import write
from demo.pictures import draw, fit
from engine.core import EngineRequest, Image, Sampling
from engine.cores import load_core

PATCH: Final = 16
POOLING: Final = 3
BUDGETS: Final = (70, 140, 280, 560, 1120)
CONTEXT_TOKENS: Final = 4096
SEQUENCES: Final = 8
Logits = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Prompt:
    """One prompt as ids, with its pictures at their final sizes."""

    title: str
    ids: tuple[int, ...]
    images: tuple[Image, ...] = ()


@dataclass(frozen=True)
class Drawn:
    """Ids that one side drew; ``logprobs`` are its own natural logarithms, one per id, where it gives them."""

    ids: tuple[int, ...]
    logprobs: tuple[float, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What one prompt showed.

    ``equal`` counts the leading ids that agree. ``worst_gap`` is how far below transformers' best logit, given the
    engine's own earlier ids, an id of the engine lies at most. ``logprob_difference`` is the largest one of any id.
    """

    prompt: Prompt
    engine: Drawn
    reference: Drawn
    equal: int
    worst_gap: float
    logprob_difference: float

    @property
    def is_identical(self) -> bool:
        """Tell whether both sides drew the same ids."""
        return self.engine.ids == self.reference.ids


class PromptMaker:
    """Makes held-out demo prompts: a conversation up to the first token that the model has to write."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self._tokenizer = tokenizer
        self._random = random.Random(seed)

    def make(self, count: int, *, pictures: bool) -> list[Prompt]:
        """Return ``count`` prompts, all with pictures or all without; pictures go through every budget in turn."""
        prompts: list[Prompt] = []
        builders = list(BUILDERS.values())
        while len(prompts) < count:
            conversation = self._random.choice(builders)(self._random, held_out=True)
            if bool(conversation.pictures) is pictures:
                prompts.append(self._encode(conversation, BUDGETS[len(prompts) % len(BUDGETS)]))
        return prompts

    def _encode(self, conversation: Conversation, budget: int) -> Prompt:
        ids: list[int] = []
        images: list[Image] = []
        for piece in write(conversation):
            if piece.learnt:
                break
            if piece.picture >= 0:
                picture = fit(draw(conversation.pictures[piece.picture]), budget)
                images.append(Image(picture.convert("RGB").tobytes(), *picture.size))
                ids += [self._id("<|image>"), *[self._id("<|image|>")] * images[-1].soft_tokens, self._id("<image|>")]
            elif piece.special:
                ids.append(self._id(piece.special))
            else:
                ids += self._tokenizer.encode(piece.text, add_special_tokens=False).ids
        title = conversation.skill + "".join(f" {image.width}x{image.height}" for image in images)
        return Prompt(title, tuple(ids), tuple(images))

    def _id(self, name: str) -> int:
        number: int | None = self._tokenizer.token_to_id(name)
        if number is None:
            msg = f"the tokenizer lacks {name}"
            raise SystemExit(msg)
        return number


class Reference:
    """transformers, in float32."""

    def __init__(self, directory: Path, stop_ids: Sequence[int]) -> None:
        self._model = Gemma4ForConditionalGeneration.from_pretrained(directory, dtype=torch.float32).eval()
        self._stop_ids = list(stop_ids)
        self._image_token_id = self._model.config.image_token_id

    @torch.inference_mode()
    def generate(self, prompt: Prompt, tokens: int) -> Drawn:
        """Draw greedily."""
        inputs = self._inputs(prompt, prompt.ids)
        drawn = self._model.generate(
            **inputs, do_sample=False, max_new_tokens=tokens, eos_token_id=self._stop_ids, pad_token_id=0
        )
        return Drawn(tuple(drawn[0, len(prompt.ids) :].tolist()))

    @torch.inference_mode()
    def logits(self, prompt: Prompt, ids: Sequence[int]) -> Logits:
        """Return the logits ``[len(ids), vocabulary]`` from which each of ``ids`` is drawn after those before it."""
        output = self._model(**self._inputs(prompt, (*prompt.ids, *ids)))
        start = len(prompt.ids) - 1
        logits: Logits = output.logits[0, start : start + len(ids)].float().numpy()
        return logits

    def _inputs(self, prompt: Prompt, ids: Sequence[int]) -> dict[str, Any]:
        input_ids = torch.tensor([ids])
        inputs: dict[str, Any] = {"input_ids": input_ids, "attention_mask": torch.ones_like(input_ids)}
        if not prompt.images:
            return inputs
        inputs["mm_token_type_ids"] = (input_ids == self._image_token_id).long()
        longest = max(image.soft_tokens for image in prompt.images) * POOLING**2
        patches = [_patches(image) for image in prompt.images]
        # transformers tells padding by the position -1.
        pixels = [pad(values, (0, 0, 0, longest - len(values))) for values, _ in patches]
        positions = [pad(places, (0, 0, 0, longest - len(places)), value=-1) for _, places in patches]
        return {**inputs, "pixel_values": torch.stack(pixels), "image_position_ids": torch.stack(positions)}


def _patches(image: Image) -> tuple[torch.Tensor, torch.Tensor]:
    """Return patches ``[patches, 16 * 16 * 3]`` with values 0..1, and their positions ``[patches, 2]`` as (x, y).

    Patches go row by row, and so do the pixels of one patch, each with its three colours: the form that transformers'
    image processor gives, which itself would need torchvision.
    """
    rows, columns = image.height // PATCH, image.width // PATCH
    pixels = np.frombuffer(image.rgb, np.uint8).astype(np.float32) / 255
    patches = pixels.reshape(rows, PATCH, columns, PATCH, 3).transpose(0, 2, 1, 3, 4).reshape(rows * columns, -1)
    grid = torch.meshgrid(torch.arange(columns), torch.arange(rows), indexing="xy")
    return torch.from_numpy(np.ascontiguousarray(patches)), torch.stack(grid, dim=-1).reshape(-1, 2)


def runtime_of(core: str, checkpoint: Path, hf: Path, prompts: int) -> EngineRuntime:
    """Return what an engine is started with."""
    files = {"checkpoint_path": hf, "precision": "fp32"}
    if core == "llama_cpp":
        files = {"model_path": checkpoint / "model.gguf", "mmproj_path": checkpoint / "mmproj.gguf"}
    record = {
        "core": core,
        "tokenizer_path": checkpoint / "tokenizer.json",
        "endpoint": "unix:unused",
        "context_tokens": CONTEXT_TOKENS,
        "max_sequences": SEQUENCES,
        "max_queued": prompts,
    }
    return EngineRuntime.model_validate(record | files)


async def draw_with_engine(
    runtime: EngineRuntime, prompts: Sequence[Prompt], stop_ids: Sequence[int], tokens: int
) -> list[Drawn]:
    """Decode all prompts greedily in one engine at the same time."""
    core = await asyncio.to_thread(load_core, runtime)

    async def draw_one(index: int, prompt: Prompt) -> Drawn:
        request = EngineRequest(
            request_id=str(index),
            prompt_ids=prompt.ids,
            max_tokens=tokens,
            images=prompt.images,
            sampling=Sampling(temperature=0.0),
            stop_ids=tuple(stop_ids),
            logprobs=0,
        )
        ids: list[int] = []
        logprobs: list[float] = []
        async for delta in core.generate(request):
            ids += delta.token_ids
            logprobs += [entry.logprob for entry in delta.logprobs]
        return Drawn(tuple(ids), tuple(logprobs))

    try:
        return list(await asyncio.gather(*(draw_one(index, prompt) for index, prompt in enumerate(prompts))))
    finally:
        await core.close()


def compare(reference: Reference, prompt: Prompt, engine: Drawn, tokens: int) -> Comparison:
    """Draw the prompt with transformers too, and measure how far the engine's ids are from its choices."""
    wanted = reference.generate(prompt, tokens)
    pairs = list(zip(engine.ids, wanted.ids, strict=False))
    equal = next((index for index, (ours, theirs) in enumerate(pairs) if ours != theirs), len(pairs))
    logits = reference.logits(prompt, engine.ids).astype(np.float64)
    chosen = logits[np.arange(len(engine.ids)), list(engine.ids)]
    best = logits.max(axis=-1)
    logprobs = chosen - best - np.log(np.exp(logits - best[:, None]).sum(axis=-1))
    difference = float(np.abs(logprobs - np.array(engine.logprobs)).max())
    return Comparison(prompt, engine, wanted, equal, float((best - chosen).max()), difference)


def report(core: str, comparisons: Sequence[Comparison], tolerance: float, console: Console) -> bool:
    """Print the table, and return whether the engine agrees everywhere or differs in near-ties only."""
    table = Table("prompt", "ids in", "ids out", "equal", "worst gap", "logprob difference", "")
    for comparison in comparisons:
        verdict = "identical" if comparison.is_identical else "near-tie"
        if comparison.worst_gap > tolerance:
            verdict = "[red]DIFFERENT[/red]"
        table.add_row(
            comparison.prompt.title,
            str(len(comparison.prompt.ids)),
            str(len(comparison.engine.ids)),
            str(comparison.equal),
            f"{comparison.worst_gap:.4f}",
            f"{comparison.logprob_difference:.4f}",
            verdict,
        )
    console.print(table)
    identical = sum(comparison.is_identical for comparison in comparisons)
    worst = max(comparison.worst_gap for comparison in comparisons)
    console.print(f"{core}: {identical} of {len(comparisons)} identical; worst gap {worst:.4f} (allowed {tolerance})")
    return worst <= tolerance


def main() -> None:
    """Run the command line."""
    parser = argparse.ArgumentParser(prog="python -m demo.verify", description=__doc__)
    parser.add_argument("checkpoint", type=Path, help="directory with model.gguf, mmproj.gguf and tokenizer.json")
    parser.add_argument("--hf", type=Path, required=True, help="the checkpoint in Hugging Face layout")
    parser.add_argument("--core", action="append", choices=["llama_cpp", "vllm"], help="repeatable; default llama_cpp")
    parser.add_argument("--texts", type=int, default=20, help="number of text prompts")
    parser.add_argument("--pictures", type=int, default=10, help="number of prompts with pictures")
    parser.add_argument("--tokens", type=int, default=48, help="ids to draw per prompt at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tolerance", type=float, default=0.1, help="difference of logits that counts as a tie")
    arguments = parser.parse_args()
    stop_ids = json.loads((arguments.hf / "generation_config.json").read_text(encoding="utf-8"))["eos_token_id"]
    maker = PromptMaker(Tokenizer.from_file(str(arguments.checkpoint / "tokenizer.json")), arguments.seed)
    prompts = maker.make(arguments.texts, pictures=False) + maker.make(arguments.pictures, pictures=True)
    drawn: dict[str, list[Drawn]] = {}
    for core in arguments.core or ["llama_cpp"]:
        runtime = runtime_of(core, arguments.checkpoint, arguments.hf, len(prompts))
        drawn[core] = asyncio.run(draw_with_engine(runtime, prompts, stop_ids, arguments.tokens))
    reference, console, agrees = Reference(arguments.hf, stop_ids), Console(width=120), True
    for core, answers in drawn.items():
        pairs = zip(prompts, answers, strict=True)
        comparisons = [compare(reference, prompt, engine, arguments.tokens) for prompt, engine in pairs]
        agrees &= report(core, comparisons, arguments.tolerance, console)
    for one, other in combinations(drawn, 2):
        same = sum(a.ids == b.ids for a, b in zip(drawn[one], drawn[other], strict=True))
        console.print(f"{one} and {other}: {same} of {len(prompts)} identical")
    sys.exit(0 if agrees else 1)


if __name__ == "__main__":
    main()
