"""``python -m engine_build.modelopt_quantize``: quantises a checkpoint to FP8 or NVFP4 with ModelOpt, on a GPU.

It runs in a process of its own, because it fills GPUs that the engine needs afterwards. ``torch``, ``transformers`` and
``modelopt`` are imported only here. Calls and arguments are those of nvidia-modelopt 0.47.0
(``modelopt/torch/quantization/model_quant.py``, ``modelopt/torch/export/unified_export_hf.py``); a test holds them to
``tests/engine_build/data/modelopt_contract.yaml``.

Activation ranges are found while the model writes answers of its own to the prompts in ``data/calibration.txt``, so no
data set is needed. The vision tower, its projection, the router and the output head stay as they are: ModelOpt's own
presets leave them out.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from engine_build.checkpoint_facts import PATTERNS
from engine_build.errors import EngineBuildError
from engine_build.trial import MARK

PRESETS: Final = MappingProxyType({"fp8": "FP8_DEFAULT_CFG", "nvfp4": "NVFP4_MLP_ONLY_CFG"})
"""Precision -> name of ModelOpt's preset. NVFP4 takes the MLPs and experts only, as NVIDIA's own checkpoints of these
models do: attention in 4 bits costs more accuracy than it saves memory."""
PROMPTS: Final = Path(__file__).with_name("data") / "calibration.txt"
ANSWER_TOKENS: Final = 256
EXIT_FAILED: Final = 1


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the process and return its exit status: 0, or 1 with one line on standard error."""
    parser = argparse.ArgumentParser(prog="python -m engine_build.modelopt_quantize", description=__doc__)
    parser.add_argument("--checkpoint", type=Path, required=True, help="unquantised checkpoint, Hugging Face layout")
    parser.add_argument("--out", type=Path, required=True, help="folder for the quantised checkpoint")
    parser.add_argument("--precision", choices=sorted(PRESETS), required=True)
    parser.add_argument("--prompts", type=Path, default=PROMPTS, help="texts to calibrate with, one a line")
    parser.add_argument("--answer-tokens", type=int, default=ANSWER_TOKENS, help="length of each answer to them")
    options = parser.parse_args(arguments)
    try:
        prompts = read_prompts(options.prompts)
        quantise(options.checkpoint, options.out, options.precision, (prompts, options.answer_tokens))
    except EngineBuildError as error:
        sys.stderr.write(f"trial: {error.message}\n")
        return EXIT_FAILED
    except ImportError as error:
        sys.stderr.write(f"trial: quantising needs torch, transformers and nvidia-modelopt: {error}\n")
        return EXIT_FAILED
    return 0


def read_prompts(path: Path) -> list[str]:
    """Return the texts to calibrate with.

    Raises:
        EngineBuildError: the file cannot be read, or holds none.
    """
    try:
        prompts = [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise EngineBuildError(f"{path}: cannot be read: {error}") from error
    if not prompts:
        raise EngineBuildError(f"{path}: holds no prompts")
    return prompts


def quantise(checkpoint: Path, out: Path, precision: str, calibration: tuple[Sequence[str], int]) -> None:
    """Quantise and write a checkpoint.

    Args:
        checkpoint: the unquantised one.
        out: where the new one is written.
        precision: ``fp8`` or ``nvfp4``.
        calibration: prompts, and how many tokens are written as an answer to each.

    Raises:
        ImportError: a library is not installed.
        EngineBuildError: there is no GPU.
    """
    import modelopt.torch.quantization as mtq  # noqa: PLC0415
    import torch  # noqa: PLC0415
    from modelopt.torch.export import export_hf_checkpoint  # noqa: PLC0415
    from transformers import AutoModelForImageTextToText, AutoTokenizer  # noqa: PLC0415

    if not torch.cuda.is_available():
        raise EngineBuildError("quantising needs a GPU, and torch sees none")
    _tell("loading the unquantised checkpoint")
    tokenizer = AutoTokenizer.from_pretrained(str(checkpoint), local_files_only=True)
    model = AutoModelForImageTextToText.from_pretrained(
        str(checkpoint), dtype="auto", device_map="auto", local_files_only=True
    )
    model.eval()
    prompts, answer_tokens = calibration

    def forward_loop(model: Any) -> None:
        for number, prompt in enumerate(prompts):
            _tell("calibrating", number, len(prompts))
            messages = [{"role": "user", "content": [{"type": "text", "text": prompt}]}]
            inputs = tokenizer.apply_chat_template(
                messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
            ).to(model.device)
            # Prompt and answer pass through every layer, so both are measured.
            model.generate(**inputs, max_new_tokens=answer_tokens, do_sample=True)

    model = mtq.quantize(model, getattr(mtq, PRESETS[precision]), forward_loop=forward_loop)
    _tell("writing the quantised checkpoint")
    with torch.inference_mode():
        export_hf_checkpoint(model, export_dir=str(out))
    complete(checkpoint, out)


def complete(checkpoint: Path, out: Path) -> None:
    """Copy what belongs to a checkpoint besides its weights and was not exported: tokenizer, processor, template."""
    for pattern in PATTERNS:
        for source in sorted(checkpoint.glob(pattern)):
            is_weight = source.suffix == ".safetensors" or source.name.endswith(".safetensors.index.json")
            if not is_weight and not (out / source.name).exists():
                shutil.copyfile(source, out / source.name)


def _tell(text: str, done: int = 0, total: int = 0) -> None:
    sys.stdout.write(json.dumps({MARK: text, "done": done, "total": total}) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
