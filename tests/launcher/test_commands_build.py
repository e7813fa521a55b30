"""``gemma4-nim build`` and ``bundle``: from Hugging Face layout to a served bundle, and what must be refused."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFReader
from typer.testing import CliRunner

from config.environment import child_environment
from config.settings import Settings
from config.settings_build import BuildSettings
from engine_build import prebuild
from engine_build.build_plan import Step
from engine_build.gguf_types import WeightType
from engine_build.manifest import read_manifest, write_manifest
from launcher.bundle.building import build_bundle
from launcher.bundle.order import Wanted
from launcher.cli import app
from launcher.commands.choice import check_own_files, look_around
from launcher.commands.start import launch
from launcher.download.progress import Silent
from launcher.errors import ExitCode, LaunchError
from tests.conftest import Product
from tests.fakes import manifests
from tests.fakes.file_server import file_server
from tests.fakes.processes import free_port, wait_until

ROOT = Path(__file__).parents[2]
DEMO = ROOT / "demo" / "checkpoints" / "demo-moe"
PICTURE = ROOT / "docs" / "images" / "red-circle.png"
TIMEOUT_S = 110
QUESTIONS = ("What is the capital of France?", "What is 23 + 14?", "What is the opposite of early?", "Write a poem.")

StartProduct = Callable[..., AbstractContextManager[Product]]


def environment(cache: Path, **variables: str) -> dict[str, str]:
    """Return the environment of a command that keeps its bundles in ``cache``."""
    kept = {name: text for name, text in child_environment({}).items() if not name.startswith("NIM_")}
    return {**kept, "NIM_CACHE_PATH": str(cache), "NIM_OFFLINE": "1", **variables}


def run(cache: Path, *arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "launcher", *arguments],
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        env=environment(cache, **variables),
        cwd=ROOT,
        check=False,
    )


def set_variables(monkeypatch: pytest.MonkeyPatch, cache: Path, **variables: str) -> None:
    """Have commands in this process keep their bundles in ``cache``."""
    for name in [name for name in os.environ if name.startswith("NIM_")]:
        monkeypatch.delenv(name)
    for name, text in {"NIM_CACHE_PATH": str(cache), "NIM_OFFLINE": "1", **variables}.items():
        monkeypatch.setenv(name, text)


def output(*arguments: str) -> Any:
    """Return the JSON output of a command that is run in this process."""
    result = CliRunner().invoke(app, [*arguments, "--json"])
    if result.exception is not None:
        raise result.exception
    return json.loads(result.stdout)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Return what runs a command in this process and gives its JSON output."""

    def call(cache: Path, *arguments: str) -> Any:
        set_variables(monkeypatch, cache)
        return output(*arguments)

    return call


@pytest.fixture
def refusal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Return what plans a start in this process, and gives its status and its line."""

    def call(*arguments: str, **variables: str) -> tuple[int, str]:
        set_variables(monkeypatch, tmp_path, **variables)
        status = launch(arguments, dry_run=True, as_json=False)
        return int(status), " ".join(capsys.readouterr().err.split())

    return call


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    """Return a cache in which the demo model was built in 8 bits, and what the command said."""
    cache = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        set_variables(patch, cache, NIM_MAX_NUM_SEQS="4")
        return cache, output("build", "demo-moe", "--precision", "q8_0")


@pytest.fixture
def copy(built: tuple[Path, dict[str, Any]], tmp_path: Path) -> Path:
    """Return a copy of the bundle that a test may spoil."""
    return Path(shutil.copytree(built[1]["path"], tmp_path / Path(built[1]["path"]).name))


def test_a_checkpoint_becomes_a_measured_bundle(built: tuple[Path, dict[str, Any]]) -> None:
    """The manifest says what the bundle was made for and from, how fast it is, and that it passed the gate."""
    cache, record = built
    figures, thresholds = record["gate"]["figures"], record["gate"]["thresholds"]

    assert Path(record["path"]).parent == cache / "bundles"
    assert record["new"] is True
    assert record["stage"] == "complete"
    assert record["fingerprint"]["engine"] == "llama_cpp"
    assert record["fingerprint"]["precision"] == "q8_0"
    assert record["source"]["files"].keys() >= {"config.json", "model.safetensors", "tokenizer.json"}
    assert record["files"].keys() == {
        "answers.json", "engine_args.yaml", "checkpoint/model.gguf", "checkpoint/mmproj.gguf",
        "checkpoint/tokenizer.json",
    }  # fmt: skip
    assert record["warm_up"]["tokens_per_second"] > 0
    assert record["warm_up"]["batch_sequences"] == 4
    assert record["warm_up"]["picture_s"] > 0
    assert record["starts"]["with_bundle"]["whole_s"] > record["starts"]["with_bundle"]["load_s"] > 0
    assert figures["positions"] > 200
    assert figures["mean_divergence"] <= thresholds["max_mean_divergence"]
    assert figures["agreement"] >= thresholds["min_agreement"]
    assert figures["reference_score"] > 0.9


def test_what_is_there_is_not_built_again(built: tuple[Path, dict[str, Any]], command: Callable[..., Any]) -> None:
    """The same order finds the bundle, whoever gives it and however it is worded."""
    cache, record = built

    again = command(cache, "build", "--from", str(DEMO), "--engine", "llama_cpp", "--precision", "q8_0")

    assert again["new"] is False
    assert again["path"] == record["path"]


def _ask(product: Product, content: object) -> str:
    answer = product.client.chat.completions.create(
        model="demo-moe", temperature=0, max_tokens=60, messages=[{"role": "user", "content": content}]
    )
    return str(answer.choices[0].message.content)


def _picture() -> list[dict[str, Any]]:
    url = f"data:image/png;base64,{base64.b64encode(PICTURE.read_bytes()).decode()}"
    return [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "What colour is the shape?"}]


@pytest.mark.slow
def test_a_served_bundle_answers_like_the_model(
    built: tuple[Path, dict[str, Any]], product: Product, start_product: StartProduct
) -> None:
    """Text and picture: the bundle, served, says what the shipped GGUF says."""
    cache, record = built
    with start_product(NIM_MODEL_PATH=record["path"], NIM_CACHE_PATH=str(cache)) as served:
        for content in (*QUESTIONS[:2], _picture()):
            assert _ask(served, content) == _ask(product, content)
        assert [model.id for model in served.client.models.list()] == ["demo-moe"]
    receipt = json.loads((cache / "bundles" / ".receipts" / f"{record['id']}.json").read_text())
    assert receipt.keys() == record["files"].keys()


def _tamper(bundle: Path) -> None:
    path = bundle / "checkpoint" / "model.gguf"
    data = bytearray(path.read_bytes())
    data[-100] ^= 1
    path.write_bytes(bytes(data))


def test_a_tampered_file_is_named_before_it_is_loaded(copy: Path) -> None:
    """One changed bit in the weights: what a start does before it starts the engine refuses the file by its name."""
    settings = Settings(build=BuildSettings(bundle=copy, folder=copy.parent))
    check_own_files(settings, Silent())
    _tamper(copy)

    with pytest.raises(LaunchError, match=r"checkpoint/model\.gguf was changed: its SHA-256 is another") as caught:
        check_own_files(settings, Silent())
    assert caught.value.code is ExitCode.CANNOT_START


@pytest.mark.slow
def test_a_tampered_file_keeps_the_server_from_starting(copy: Path, tmp_path: Path) -> None:
    """The same with a real server: its status and its last line say so, and nothing is served."""
    _tamper(copy)

    done = run(tmp_path / "cache", "serve", NIM_ENGINE_BUNDLE=str(copy), NIM_SERVER_PORT=str(free_port()))

    assert done.returncode == ExitCode.CANNOT_START
    assert "checkpoint/model.gguf was changed: its SHA-256 is another" in done.stderr.splitlines()[-1]


def test_a_bundle_for_another_engine_is_refused_by_name(
    copy: Path, tmp_path: Path, command: Callable[..., Any], refusal: Callable[..., tuple[int, str]]
) -> None:
    """Each difference between what the bundle was made for and what is here is in the line."""
    manifest = read_manifest(copy)
    hardware = manifest.fingerprint.hardware.model_copy(update={"device": "riscv64"})
    made = manifest.fingerprint.model_copy(update={"engine_version": "2020.1", "hardware": hardware})
    write_manifest(copy, manifest.model_copy(update={"fingerprint": made}))

    status, line = refusal(str(copy))

    assert status == ExitCode.CANNOT_START
    assert "engine_version: built for 2020.1, here 20" in line
    assert "device: built for riscv64, here " in line
    assert "gemma4-nim build makes one for this machine" in line
    assert command(tmp_path, "bundle", "inspect", str(copy))[0]["differences"][0].startswith("engine_version")


def test_a_start_that_cannot_be_meant_is_refused(copy: Path, refusal: Callable[..., tuple[int, str]]) -> None:
    """A bundle and another model contradict each other; a folder that is no bundle is not taken for one."""
    status, line = refusal(str(DEMO), NIM_ENGINE_BUNDLE=str(copy))
    assert status == ExitCode.BAD_SETTINGS
    assert "name two models" in line

    status, line = refusal(NIM_ENGINE_BUNDLE=str(DEMO))
    assert status == ExitCode.CANNOT_START
    assert "is no engine bundle" in line

    status, line = refusal(str(copy), NIM_MODEL_PRECISION="q4_k_m")
    assert status == ExitCode.CANNOT_START
    assert "precision: built for q8_0, here q4_k_m" in line


def test_bundles_are_listed_verified_and_pruned(
    built: tuple[Path, dict[str, Any]], tmp_path: Path, command: Callable[..., Any]
) -> None:
    """Good ones are kept; what cannot be used here, is damaged, or was left behind goes, and is said to go before."""
    bundles = tmp_path / "bundles"
    good = Path(shutil.copytree(built[1]["path"], bundles / built[1]["id"]))
    other = Path(shutil.copytree(good, bundles / "llama_cpp-q8_0-other"))
    manifest = read_manifest(other)
    made = manifest.fingerprint.model_copy(update={"engine_version": "2020.1"})
    write_manifest(other, manifest.model_copy(update={"fingerprint": made}))
    damaged = Path(shutil.copytree(good, bundles / "llama_cpp-q8_0-torn"))
    (damaged / "manifest.json").write_text("{")
    left = bundles / ".work" / "llama_cpp-f16-0123456789abcdef.aabbccdd"
    left.mkdir(parents=True)

    listed = command(tmp_path, "bundle", "list")
    useless = command(tmp_path, "bundle", "prune", "--dry-run")["would_delete"]
    would = command(tmp_path, "bundle", "prune", "--unusable", "--dry-run")["would_delete"]

    assert [Path(one["path"]).name for one in listed] == [good.name, other.name, damaged.name]
    assert command(tmp_path, "bundle", "verify", good.name)[0]["ok"] is True
    assert all(path.exists() for path in (good, other, damaged, left))
    assert {Path(one["path"]) for one in useless} == {damaged, left}
    gone = command(tmp_path, "bundle", "prune", "--unusable")["deleted"]
    assert gone == would
    assert {Path(one["path"]) for one in gone} == {other, damaged, left}
    assert good.exists()
    assert not any(path.exists() for path in (other, damaged, left))
    assert command(tmp_path, "bundle", "prune", "--keep", "1")["deleted"] == []
    assert command(tmp_path, "bundle", "prune", good.name)["deleted"][0]["why"] == "named"
    assert list((bundles / ".work").iterdir()) == []
    with pytest.raises(LaunchError) as caught:
        command(tmp_path, "bundle", "inspect", "nothing")
    assert caught.value.code is ExitCode.NOT_FOUND


def _tensors(path: Path) -> dict[str, tuple[str, bytes]]:
    return {tensor.name: (tensor.tensor_type.name, tensor.data.tobytes()) for tensor in GGUFReader(path).tensors}


def test_the_first_half_needs_no_engine(
    tmp_path: Path, command: Callable[..., Any], refusal: Callable[..., tuple[int, str]]
) -> None:
    """Weights in the type they are stored in are the shipped GGUF's, bit for bit; such a bundle is not served yet."""
    record = command(tmp_path, "build", "demo-moe", "--prebuild-only")

    assert record["stage"] == "prebuilt"
    assert record["fingerprint"]["hardware"] is None
    assert record["pending"] == ["cold start", "warm start", "gate"]
    for name in ("model.gguf", "mmproj.gguf"):
        assert _tensors(Path(record["path"]) / "checkpoint" / name) == _tensors(DEMO / name)
    status, line = refusal(record["path"])
    assert status == ExitCode.CANNOT_START
    assert "is only prebuilt: cold start, warm start, gate are left to do" in line


def test_a_profile_is_fetched_and_built(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A profile for the processor is made from its model's unquantised weights, which are fetched into the cache."""
    manifest, cache = tmp_path / "manifest.yaml", tmp_path / "cache"
    with file_server(DEMO) as server:
        names = (
            "config.json",
            "generation_config.json",
            "model.safetensors",
            "processor_config.json",
            "tokenizer.json",
        )
        weights = {name: manifests.file_entry(server.url, DEMO / name) for name in names}
        manifests.write_manifest(
            manifest,
            ({"precision": "q8_0"}, {"model.gguf": manifests.file_entry(server.url, DEMO / "model.gguf")}),
            ({"llm_engine": "vllm", "precision": "bf16"}, weights),
        )
        set_variables(monkeypatch, cache, NIM_MANIFEST_PATH=str(manifest), NIM_OFFLINE="0")
        record = output("build", "llama_cpp-26b-a4b-q8_0-tp1-pp1-latency", "--prebuild-only")

    assert record["fingerprint"]["precision"] == "q8_0"
    assert record["names"][0] == "google/gemma-4-26b-a4b-it"
    assert set(record["source"]["files"]) == set(names)
    assert (Path(record["path"]) / "checkpoint" / "model.gguf").is_file()
    # The second order needs the network no more, and finds the bundle.
    set_variables(monkeypatch, cache, NIM_MANIFEST_PATH=str(manifest))
    assert output("build", "llama_cpp-26b-a4b-q8_0-tp1-pp1-latency", "--prebuild-only")["new"] is False
    # For vLLM the same weights are used where they lie, wherever the volume is mounted.
    vllm = output("build", "vllm-26b-a4b-bf16-tp1-pp1-latency", "--prebuild-only", "--gpu", "B200")
    assert vllm["source"]["path"].startswith("../../workspaces/")
    assert (Path(vllm["path"]) / vllm["source"]["path"] / "model.safetensors").samefile(
        next(cache.glob("https/**/snapshots/*/model.safetensors"), cache)
    )


@pytest.mark.parametrize(("engine", "file"), [("tensorrt_llm", "llm_args.yaml"), ("vllm", "engine_args.yaml")])
def test_engines_for_gpus_are_prebuilt_without_one(
    tmp_path: Path, command: Callable[..., Any], engine: str, file: str
) -> None:
    """The arguments are frozen, the checkpoint is noted by its digest, and what needs the GPU is left to do."""
    record = command(
        tmp_path, "build", "--from", str(DEMO), "--engine", engine, "--precision", "nvfp4", "--prebuild-only"
    )

    assert record["pending"] == ["quantise", "reference", "cold start", "warm start", "gate"]
    assert Path(record["source"]["path"]) == DEMO
    assert record["source"]["files"]["model.safetensors"]["size"] == (DEMO / "model.safetensors").stat().st_size
    assert record["files"].keys() == {file}
    assert "max" in (Path(record["path"]) / file).read_text()


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--precision", "fp8"), ExitCode.BAD_SETTINGS, "fp8 is for vllm and tensorrt_llm"),
        (("--engine", "onnx"), ExitCode.BAD_SETTINGS, "--engine 'onnx' is no engine"),
        (("--engine", "vllm"), ExitCode.BAD_SETTINGS, "vllm is not installed here"),
        (("--gpu", "B200"), ExitCode.BAD_SETTINGS, "add --prebuild-only"),
        (("--from", "."), ExitCode.CANNOT_START, "config.json: cannot be read"),
        (("--reference", "nowhere"), ExitCode.BAD_SETTINGS, "neither a bundle nor a folder"),
    ],
)
def test_what_cannot_be_built_is_refused(
    tmp_path: Path, command: Callable[..., Any], arguments: tuple[str, str], code: ExitCode, words: str
) -> None:
    """The line says what is wrong, and the status whose fault it is; nothing is left behind."""
    source = () if "--from" in arguments else ("--from", str(DEMO))
    with pytest.raises(LaunchError) as caught:
        command(tmp_path, "build", *source, *arguments)

    assert caught.value.code is code
    assert words in caught.value.message + caught.value.remedy
    assert not list(tmp_path.glob("bundles/*"))


def _spoiled(cache: Path, spoil: str, *arguments: str) -> subprocess.Popen[str]:
    """Start a build in a process in which ``spoil`` has replaced the freezing of arguments, halfway through."""
    program = (
        "import os, signal, sys, time, engine_build.build as build\n"
        "from pathlib import Path\n"
        "from launcher.__main__ import main\n"
        "genuine = build.freeze_arguments\n"
        f"def freeze(plan, site):\n    {spoil}\n    genuine(plan, site)\n"
        "build.freeze_arguments = freeze\n"
        "main()\n"
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, "build", "demo-moe", "--prebuild-only", *arguments],
        env=environment(cache), cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def test_a_killed_build_leaves_nothing_half(tmp_path: Path, command: Callable[..., Any]) -> None:
    """After ``kill -9`` in the middle no bundle has its name; the next build takes over at once and cleans up."""
    with _spoiled(tmp_path, "os.kill(os.getpid(), signal.SIGKILL)") as killed:
        killed.communicate(timeout=TIMEOUT_S)
    left = list((tmp_path / "bundles" / ".work").iterdir())

    assert killed.returncode == -signal.SIGKILL
    assert len(left) == 1
    assert (left[0] / "checkpoint" / "model.gguf").is_file()
    assert command(tmp_path, "bundle", "list") == []
    record = command(tmp_path, "build", "demo-moe", "--prebuild-only")
    assert record["new"] is True
    assert list((tmp_path / "bundles" / ".work").iterdir()) == []
    assert command(tmp_path, "bundle", "verify", record["id"])[0]["ok"] is True


@pytest.fixture
def slow_builder(tmp_path: Path) -> Iterator[subprocess.Popen[str]]:
    """Return a build that holds the lock until the file ``go`` is there."""
    held, go = str(tmp_path / "held"), str(tmp_path / "go")
    wait = f"Path({held!r}).touch()\n    while not Path({go!r}).exists(): time.sleep(0.02)"
    with _spoiled(tmp_path, wait, "--json") as process:
        yield process
        process.kill()


class _Onlooker:
    """Lets the first builder go on as soon as the second has to wait for it."""

    def __init__(self, go: Path) -> None:
        self._go = go
        self.notes: list[str] = []
        self.steps: list[Step] = []

    def step(self, step: Step, text: str, done: int, total: int) -> None:
        del text, done, total
        self.steps.append(step)

    def waiting(self, note: str) -> None:
        self.notes.append(note)
        self._go.touch()


def test_of_two_builders_one_works(
    tmp_path: Path, slow_builder: subprocess.Popen[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second waits, says for whom and how far that is, and then finds the bundle."""
    wait_until((tmp_path / "held").exists, what="the first builder's lock")
    set_variables(monkeypatch, tmp_path)
    onlooker = _Onlooker(tmp_path / "go")

    second = build_bundle(look_around(), Wanted("demo-moe", prebuild_only=True), onlooker)
    first, _ = slow_builder.communicate(timeout=TIMEOUT_S)

    assert slow_builder.returncode == 0
    assert f"process {slow_builder.pid}), which builds this bundle" in onlooker.notes[0]
    assert set(onlooker.steps) == {Step.CHECK}
    assert json.loads(first)["new"] is True
    assert second.is_new is False
    assert json.loads(first)["path"] == str(second.path)


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("model", ["demo-moe", "demo-dense"])
@pytest.mark.parametrize("precision", ["f32", "f16", "q4_k_m"])
def test_every_precision_is_built_and_served(
    tmp_path: Path, start_product: StartProduct, model: str, precision: str
) -> None:
    """Both shapes in every kind of type: built, passed, served, and the same answers as from the shipped GGUF."""
    done = run(tmp_path, "build", model, "--precision", precision, "--json")
    assert done.returncode == ExitCode.OK, done.stderr
    record = json.loads(done.stdout)
    with (
        start_product(NIM_ENGINE_BUNDLE=record["path"], NIM_MODEL_PATH="") as served,
        start_product(NIM_MODEL_PATH=str(DEMO.parent / model), NIM_SERVED_MODEL_NAME="demo-moe") as direct,
    ):
        for content in (*QUESTIONS, _picture()):
            answer = served.client.chat.completions.create(
                model=model, temperature=0, max_tokens=60, messages=[{"role": "user", "content": content}]
            )
            assert answer.choices[0].message.content == _ask(direct, content)


@pytest.mark.slow
def test_broken_weights_do_not_pass_the_gate(
    tmp_path: Path, command: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Weights that a faulty conversion has damaged are refused with the figures, and no bundle is left."""
    genuine = prebuild.export_checkpoint

    def faulty(checkpoint: Path, out: Path, weight_type: WeightType, **named: Any) -> list[Path]:
        paths = genuine(checkpoint, out, weight_type, **named)
        if weight_type is WeightType.Q8_0:
            data = bytearray(paths[0].read_bytes())
            data[-200_000:-100_000] = bytes(100_000)
            paths[0].write_bytes(bytes(data))
        return paths

    monkeypatch.setattr(prebuild, "export_checkpoint", faulty)
    with pytest.raises(LaunchError) as caught:
        command(tmp_path, "build", "demo-moe", "--precision", "q8_0")

    assert caught.value.code is ExitCode.CANNOT_START
    assert "the accuracy gate refuses this q8_0 bundle: divergence " in caught.value.message
    assert "at most 0.01 is allowed" in caught.value.message
    assert command(tmp_path, "bundle", "list") == []
    assert list((tmp_path / "bundles" / ".work").iterdir()) == []


@pytest.mark.slow
def test_answers_of_an_unquantised_bundle_are_reference_enough(tmp_path: Path, command: Callable[..., Any]) -> None:
    """With ``--reference`` the unquantised weights are not run again; a quantised bundle is no reference."""
    plain = command(tmp_path, "build", "demo-dense")
    assert plain["gate"] is None

    quantised = command(tmp_path, "build", "demo-dense", "--precision", "q8_0", "--reference", plain["path"])

    assert "reference" not in quantised["step_seconds"]
    assert quantised["gate"]["figures"]["identical_answers"] == 32
    with pytest.raises(LaunchError, match="is itself q8_0: a reference must be unquantised"):
        command(tmp_path, "build", "demo-dense", "--precision", "q4_k_m", "--reference", quantised["path"])
    with pytest.raises(LaunchError, match="was made from another checkpoint than demo-moe"):
        command(tmp_path, "build", "demo-moe", "--precision", "q4_k_m", "--reference", plain["path"])
