"""The ModelOpt script, held to the published calls: stand-ins with exactly those signatures take its place here."""

from __future__ import annotations

import contextlib
import inspect
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from engine_build.errors import EngineBuildError
from engine_build.modelopt_quantize import PRESETS, PROMPTS, complete, main, quantise, read_prompts

CONTRACT: dict[str, Any] = yaml.load(
    (Path(__file__).parent / "data" / "modelopt_contract.yaml").read_text(), yaml.CSafeLoader
)
DEMO = Path(__file__).parents[2] / "demo" / "checkpoints" / "demo-moe"


def published(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
    """Return ``work`` behind the parameters that the contract states: a call that does not fit them fails."""
    signature = inspect.Signature(
        [
            inspect.Parameter(
                parameter,
                inspect.Parameter.POSITIONAL_OR_KEYWORD,
                default=inspect.Parameter.empty if default is None else default,
            )
            for parameter, default in CONTRACT[name]["parameters"].items()
        ]
    )

    def called(*arguments: Any, **named: Any) -> Any:
        return work(signature.bind(*arguments, **named).arguments)

    return called


@dataclass
class StandIns:
    """Stand-ins for libraries that need a GPU, and what was asked of them."""

    has_gpu: bool = True
    presets: list[Any] = field(default_factory=list)
    generated: list[dict[str, Any]] = field(default_factory=list)
    exported: list[str] = field(default_factory=list)

    def quantize(self, arguments: dict[str, Any]) -> Any:
        self.presets.append(arguments["config"])
        arguments["forward_loop"](arguments["model"])
        return arguments["model"]

    def export(self, arguments: dict[str, Any]) -> None:
        folder = Path(arguments["export_dir"])
        self.exported.append(str(folder))
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_bytes(b"quantised")
        (folder / "config.json").write_text("{}")


@pytest.fixture
def stand_ins(monkeypatch: pytest.MonkeyPatch) -> StandIns:
    """Put the stand-ins where the script imports the libraries from."""
    found = StandIns()
    torch = types.ModuleType("torch")
    torch.cuda = types.SimpleNamespace(is_available=lambda: found.has_gpu)
    torch.inference_mode = contextlib.nullcontext
    quantization = types.ModuleType("modelopt.torch.quantization")
    quantization.quantize = published("modelopt.torch.quantization.quantize", found.quantize)
    for preset in CONTRACT["presets"]["names"]:
        setattr(quantization, preset, {"preset": preset})
    export = types.ModuleType("modelopt.torch.export")
    export.export_hf_checkpoint = published("modelopt.torch.export.export_hf_checkpoint", found.export)
    model = types.SimpleNamespace(
        device="cuda:0", eval=lambda: None, generate=lambda **named: found.generated.append(named)
    )
    inputs = type("Inputs", (dict,), {"to": lambda self, _: self})
    tokenizer = types.SimpleNamespace(apply_chat_template=lambda messages, **_: inputs(messages=messages))
    transformers = types.ModuleType("transformers")
    transformers.AutoTokenizer = types.SimpleNamespace(from_pretrained=lambda *_, **__: tokenizer)
    transformers.AutoModelForImageTextToText = types.SimpleNamespace(from_pretrained=lambda *_, **__: model)
    package = types.ModuleType("modelopt")
    package.torch = types.ModuleType("modelopt.torch")
    package.torch.quantization, package.torch.export = quantization, export
    for name, module in {
        "torch": torch, "transformers": transformers, "modelopt": package, "modelopt.torch": package.torch,
        "modelopt.torch.quantization": quantization, "modelopt.torch.export": export,
    }.items():  # fmt: skip
        monkeypatch.setitem(sys.modules, name, module)
    return found


@pytest.mark.parametrize("precision", sorted(PRESETS))
def test_a_checkpoint_is_quantised_by_the_published_calls(stand_ins: StandIns, tmp_path: Path, precision: str) -> None:
    """The preset of the precision is taken, every prompt is answered, and the result is a whole checkpoint."""
    quantise(DEMO, tmp_path / "out", precision, (["one", "two"], 7))

    assert stand_ins.presets == [{"preset": PRESETS[precision]}]
    assert [one["messages"][0]["content"][0]["text"] for one in stand_ins.generated] == ["one", "two"]
    assert all(one["max_new_tokens"] == 7 for one in stand_ins.generated)
    assert stand_ins.exported == [str(tmp_path / "out")]
    assert (tmp_path / "out" / "tokenizer.json").read_bytes() == (DEMO / "tokenizer.json").read_bytes()


def test_what_was_exported_is_not_overwritten(tmp_path: Path) -> None:
    """The quantised weights and their configuration stay; only what is missing is copied."""
    (tmp_path / "config.json").write_text("new")
    complete(DEMO, tmp_path)

    assert (tmp_path / "config.json").read_text() == "new"
    assert {path.name for path in tmp_path.iterdir()} == {
        "config.json", "generation_config.json", "processor_config.json", "tokenizer.json",
    }  # fmt: skip


@pytest.mark.usefixtures("stand_ins")
def test_without_a_gpu_it_says_so(stand_ins: StandIns, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The line is one, and the status is a failure."""
    stand_ins.has_gpu = False

    status = main(["--checkpoint", str(DEMO), "--out", str(tmp_path / "out"), "--precision", "fp8"])

    assert status == 1
    assert "quantising needs a GPU" in capsys.readouterr().err


def test_without_the_libraries_it_says_which(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Here none of them is installed, and that is what it says."""
    status = main(["--checkpoint", str(DEMO), "--out", str(tmp_path / "out"), "--precision", "nvfp4"])

    assert status == 1
    assert "needs torch, transformers and nvidia-modelopt" in capsys.readouterr().err


def test_prompts_are_there_and_bad_ones_refused(tmp_path: Path) -> None:
    """The shipped prompts are varied; an empty or missing file is named."""
    assert len(read_prompts(PROMPTS)) >= 32
    (tmp_path / "empty.txt").write_text("\n\n")
    for path in (tmp_path / "empty.txt", tmp_path / "absent.txt"):
        with pytest.raises(EngineBuildError, match=path.name):
            read_prompts(path)
