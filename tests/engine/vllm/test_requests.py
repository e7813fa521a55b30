"""How requests, runtimes and outputs are written in vLLM's terms and back; no vLLM is needed for that."""

from __future__ import annotations

import json
import math
import sys
import tempfile
from types import SimpleNamespace

import numpy as np
import pytest

from engine.core import EngineRequest, FinishReason, Image, Sampling
from engine.cores import load_core
from engine.errors import EngineError, EngineLoadError, InvalidGrammarError, InvalidRequestError
from engine.grammar import GrammarCompiler
from engine.vllm.arguments import SCHEDULER, engine_arguments, environment
from engine.vllm.checkpoint import check_checkpoint
from engine.vllm.following import Following
from engine.vllm.guide import guide_of
from engine.vllm.patches import image_patches
from engine.vllm.sampling import BEGUN, DECISIVE, check_limits, sampling_arguments
from engine.vllm.tokenizer_files import TokenizerFolder

END = 1
STOP = 16


def request(**fields):
    return EngineRequest("r", fields.pop("prompt_ids", (2, 5, 6)), fields.pop("max_tokens", 10), **fields)


# --- launch ----------------------------------------------------------------------------------------------------------


def test_what_gemma_4_needs_is_chosen(vllm_runtime):
    """Hybrid cache, whole pictures, our grammars, no stop ids of the checkpoint's, and the scheduler that we add to."""
    arguments = engine_arguments(vllm_runtime(tensor_parallel=2, gpu_memory_fraction=0.8), on_cpu=False)
    assert arguments["disable_hybrid_kv_cache_manager"] is False
    assert arguments["enable_prefix_caching"] is True
    assert arguments["disable_chunked_mm_input"] is True
    assert arguments["structured_outputs_config"]["backend"] == "guidance"
    assert arguments["generation_config"] == "vllm"
    assert arguments["scheduling_policy"] == "priority"
    assert arguments["scheduler_cls"] == SCHEDULER
    assert arguments["mm_processor_kwargs"] == {"max_soft_tokens": 1120}
    assert (arguments["tensor_parallel_size"], arguments["gpu_memory_utilization"]) == (2, 0.8)
    assert "speculative_config" not in arguments


def test_a_draft_model_is_an_mtp_assistant(vllm_runtime, tmp_path):
    """Where the plan has one, vLLM is told."""
    found = engine_arguments(vllm_runtime(draft_path=tmp_path), on_cpu=False)["speculative_config"]
    assert (found["method"], found["model"]) == ("mtp", str(tmp_path))
    assert found["num_speculative_tokens"] >= 1


@pytest.mark.parametrize(
    ("precision", "on_cpu", "dtype"),
    [("auto", False, "auto"), ("bf16", False, "bfloat16"), ("nvfp4", False, "auto"), ("auto", True, "float32")],
)
def test_precision_is_the_checkpoints_unless_named(vllm_runtime, precision, on_cpu, dtype):
    """Quantised checkpoints say for themselves how they are stored."""
    assert engine_arguments(vllm_runtime(precision=precision), on_cpu=on_cpu)["dtype"] == dtype


def test_nothing_is_sent_or_fetched(vllm_runtime):
    """No usage statistics, no download, and no fork of a process with threads."""
    variables = environment(vllm_runtime(threads=3))
    assert variables["VLLM_NO_USAGE_STATS"] == variables["DO_NOT_TRACK"] == variables["HF_HUB_OFFLINE"] == "1"
    assert variables["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
    assert variables["OMP_NUM_THREADS"] == "3"


@pytest.mark.parametrize(
    ("files", "reason"),
    [
        ({}, r"config.json cannot be read"),
        ({"config.json": "{"}, "is not JSON"),
        ({"config.json": "[]"}, "not a JSON object"),
        ({"config.json": '{"model_type": "llama"}'}, "model_type is 'llama'"),
        ({"config.json": '{"model_type": "gemma4"}'}, "no \\*.safetensors"),
    ],
)
def test_a_bad_checkpoint_is_named(vllm_runtime, tmp_path, files, reason):
    """The message has the folder and what is wrong with it."""
    for name, text in files.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    with pytest.raises(EngineLoadError, match=reason) as caught:
        check_checkpoint(vllm_runtime(checkpoint_path=tmp_path))
    assert str(tmp_path) in caught.value.message


def test_a_missing_library_is_named(vllm_runtime, monkeypatch):
    """Where vLLM is not installed, loading the core says so."""
    monkeypatch.setattr("engine.vllm.preparing.provide_variables", lambda _: None)
    monkeypatch.delitem(sys.modules, "engine.vllm.library", raising=False)
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(EngineLoadError, match="vllm is not installed here"):
        load_core(vllm_runtime())


def test_a_runtime_needs_what_its_core_loads(vllm_runtime):
    """A GGUF file for one engine, a checkpoint for the others."""
    with pytest.raises(ValueError, match="checkpoint_path is missing: vllm"):
        vllm_runtime(checkpoint_path=None)
    with pytest.raises(ValueError, match="model_path is missing"):
        vllm_runtime(core="llama_cpp")


def test_the_tokenizer_folder_names_the_end_token(vllm_runtime):
    """The folder has the model's own vocabulary and a configuration made from its names."""
    runtime = vllm_runtime()
    folder = TokenizerFolder(runtime.tokenizer_path, runtime.checkpoint_path / "config.json")
    assert folder.end_id == END
    assert (folder.path / "tokenizer.json").read_bytes() == runtime.tokenizer_path.read_bytes()
    configuration = json.loads((folder.path / "tokenizer_config.json").read_text(encoding="utf-8"))
    assert configuration.items() >= {"bos_token": "<bos>", "eos_token": "<eos>"}.items()
    assert "<|image|>" in configuration["extra_special_tokens"].values()
    with pytest.raises(EngineLoadError, match="<nothing>"):
        folder.id_of("<nothing>")
    folder.close()
    assert not folder.path.exists()


def test_the_tokenizer_folder_of_a_killed_engine_is_removed(vllm_runtime, tmp_path, monkeypatch):
    """The next engine does that; it leaves those of engines that live."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    runtime = vllm_runtime()
    config = runtime.checkpoint_path / "config.json"
    living = TokenizerFolder(runtime.tokenizer_path, config)
    left = tmp_path / "g4nim-tokenizer-left"
    left.mkdir()
    (left / "tokenizer.json").symlink_to(runtime.tokenizer_path)
    (left / "lock").touch()

    TokenizerFolder(runtime.tokenizer_path, config).close()

    assert not left.exists()
    assert runtime.tokenizer_path.exists()
    assert living.path.exists()
    living.close()


# --- requests --------------------------------------------------------------------------------------------------------


def test_a_plain_request_ends_on_its_own_stop_ids_only():
    """No end token of the tokenizer's, no text, no bias."""
    arguments = sampling_arguments(request(stop_ids=(STOP, 9)), END)
    assert arguments["stop_token_ids"] == [9, STOP]
    assert arguments["ignore_eos"] is True
    assert arguments["detokenize"] is False
    assert arguments["logit_bias"] is None
    assert arguments["max_tokens"] == 10


def test_ignored_stop_ids_are_ruled_out_to_the_last_id():
    """VLLM forbids stop ids until min_tokens; with all of them that is never."""
    arguments = sampling_arguments(request(stop_ids=(STOP,), ignore_stop_ids=True), END)
    assert arguments["min_tokens"] == arguments["max_tokens"]
    assert sampling_arguments(request(min_tokens=99), END)["min_tokens"] == 10


def test_a_grammars_end_has_a_place_of_its_own():
    """The end token may come after the last id that counts, and only where nothing else may."""
    arguments = sampling_arguments(request(grammar="start: A", stop_ids=(STOP,)), END)
    assert arguments["max_tokens"] == 11
    assert arguments["stop_token_ids"] == [END, STOP]
    assert arguments["logit_bias"] == {END: -DECISIVE}
    assert sampling_arguments(request(grammar="start: A", stop_ids=(END,)), END)["logit_bias"] is None


def test_the_begun_part_travels_beside_the_grammar():
    """The ids that the grammar covers are those at the prompt's end."""
    arguments = sampling_arguments(request(grammar="start: A", grammar_begun=2), END)
    assert arguments["extra_args"] == {BEGUN: [5, 6]}


def test_infinite_bias_is_made_finite():
    """Plus and minus infinity would make no number of what a grammar forbids."""
    sampling = Sampling(logit_bias={3: math.inf, 4: -math.inf, 5: -2.5})
    assert sampling_arguments(request(sampling=sampling), END)["logit_bias"] == {3: DECISIVE, 4: -DECISIVE, 5: -2.5}


@pytest.mark.parametrize(
    ("sampling", "field"),
    [
        (Sampling(temperature=2.5), "temperature"),
        (Sampling(presence_penalty=-3), "presence_penalty"),
        (Sampling(frequency_penalty=2.1), "frequency_penalty"),
    ],
)
def test_what_vllm_does_not_take_is_named(sampling, field):
    """Values beyond vLLM's ranges are refused before it sees them."""
    with pytest.raises(InvalidRequestError, match=field):
        check_limits(request(sampling=sampling))
    check_limits(request())


def test_beside_a_draft_model_vllm_takes_no_bias():
    """A bias and min-p are refused by name, and a grammar does without the bias of its end token."""
    assert sampling_arguments(request(grammar="start: A"), END, drafts=True)["logit_bias"] is None
    for sampling, field in ((Sampling(min_p=0.1), "min_p"), (Sampling(logit_bias={3: 1.0}), "logit_bias")):
        check_limits(request(sampling=sampling))
        with pytest.raises(InvalidRequestError, match=field):
            check_limits(request(sampling=sampling), drafts=True)


def test_patches_put_every_pixel_where_its_place_says():
    """A picture can be put together again from its patches."""
    width, height = 96, 48
    pixels = np.random.default_rng(1).integers(0, 256, (height, width, 3), dtype=np.uint8)
    patches, places = image_patches(Image(pixels.tobytes(), width, height))
    assert patches.shape == (18, 768)
    again = np.zeros_like(pixels)
    for patch, (x, y) in zip(patches, places, strict=True):
        square = np.rint(patch.reshape(16, 16, 3) * 255).astype(np.uint8)
        again[y * 16 : y * 16 + 16, x * 16 : x * 16 + 16] = square
    assert (again == pixels).all()


# --- grammars and outputs --------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def compiler(vllm_runtime):
    return GrammarCompiler(vllm_runtime().tokenizer_path, 2048)


@pytest.fixture(scope="module")
def ids(vllm_runtime):
    content = json.loads(vllm_runtime().tokenizer_path.read_text(encoding="utf-8"))
    return content["model"]["vocab"]


def output(*token_ids, ended=None, cached=0, logprobs=None):
    completion = SimpleNamespace(token_ids=list(token_ids), finish_reason=ended, logprobs=logprobs)
    return SimpleNamespace(outputs=[completion], num_cached_tokens=cached)


def following(compiler, grammar, **fields):
    wanted = request(grammar=grammar, **fields)
    return Following(wanted, compiler.compile(grammar, wanted.stop_ids), END)


@pytest.mark.parametrize("stops", [(), (STOP,), (STOP, END)])
def test_stop_ids_may_follow_where_the_grammar_may_end(compiler, ids, stops):
    """The guide takes what the grammar takes, and then any stop id."""
    guide = guide_of(request(grammar="start: /[0-9]{1,2}/", stop_ids=stops))
    for stop in stops:
        state = compiler.compile(guide, ())
        state.accept(ids["4"])
        state.accept(stop)
        assert state.may_end
    state = compiler.compile(guide, ())
    with pytest.raises(InvalidGrammarError):
        state.accept(STOP)


def test_the_end_of_the_grammar_ends_the_sequence(compiler, ids):
    """The last id that the grammar takes is the last one delivered; the end token is never seen."""
    one = following(compiler, "start: /[0-9]{2}/")
    assert one.delta_of(output(ids["4"])).finish_reason is None
    last = one.delta_of(output(ids["2"]))
    assert (last.token_ids, last.finish_reason) == ((ids["2"],), FinishReason.STOP)
    both = following(compiler, "start: /[0-9]{2}/").delta_of(output(ids["4"], ids["2"], END, ended="stop"))
    assert (both.token_ids, both.finish_reason) == ((ids["4"], ids["2"]), FinishReason.STOP)
    assert both.usage.completion_tokens == 2


def test_a_stop_id_is_delivered_and_an_end_token_is_not(compiler, ids):
    """Where more might follow, a stop id ends the sequence as its last id; the end token ends it without."""
    stopped = following(compiler, "start: /[0-9]{1,9}/", stop_ids=(STOP,)).delta_of(
        output(ids["4"], STOP, ended="stop")
    )
    assert (stopped.token_ids, stopped.finish_reason) == ((ids["4"], STOP), FinishReason.STOP)
    ended = following(compiler, "start: /[0-9]{1,9}/", stop_ids=(STOP,)).delta_of(output(ids["4"], END, ended="stop"))
    assert (ended.token_ids, ended.finish_reason) == ((ids["4"],), FinishReason.STOP)


def test_max_tokens_counts_without_the_end_token(compiler, ids):
    """The place that was added for the end token is no place for another id."""
    cut = following(compiler, "start: /[0-9]{1,99}/", max_tokens=2).delta_of(output(*[ids["4"]] * 3, ended="length"))
    assert (cut.token_ids, cut.finish_reason) == ((ids["4"],) * 2, FinishReason.LENGTH)


@pytest.mark.parametrize("given", [output(END, ended="stop"), output(ended="error")])
def test_a_grammar_that_vllm_gave_up_is_an_error(compiler, given):
    """An end token where the grammar is not complete, or a failure, never looks like an answer."""
    with pytest.raises(InvalidGrammarError, match="too complex"):
        following(compiler, "start: /[0-9]{2}/").delta_of(given)


def test_without_a_grammar_a_failure_is_an_engine_error():
    """An end that the protocol does not know is named."""
    with pytest.raises(EngineError, match="vLLM ended the sequence: error"):
        Following(request(), None, END).delta_of(output(ended="error"))


def test_usage_comes_first_and_last():
    """The first delta with ids has a usage, the last one too, and an empty output says nothing."""
    one = Following(request(), None, END)
    assert one.delta_of(output()) is None
    deltas = [one.delta_of(output(7, cached=2)), one.delta_of(output(8)), one.delta_of(output(9, ended="length"))]
    assert [delta.usage is not None for delta in deltas] == [True, False, True]
    assert deltas[0].usage.completion_tokens == 1
    assert deltas[2].usage.completion_tokens == 3
    assert deltas[2].finish_reason is FinishReason.LENGTH


def test_logprobs_are_in_the_order_of_their_ranks():
    """VLLM gives the drawn id besides the likeliest ones; the likeliest come sorted."""
    entries = {
        7: SimpleNamespace(logprob=-3.0, rank=9),
        4: SimpleNamespace(logprob=-0.5, rank=1),
        5: SimpleNamespace(logprob=-0.9, rank=2),
    }
    delta = Following(request(logprobs=2), None, END).delta_of(output(7, logprobs=[entries]))
    assert delta.logprobs[0].token_id == 7
    assert delta.logprobs[0].logprob == -3.0
    assert delta.logprobs[0].top == ((4, -0.5), (5, -0.9))
    none = Following(request(logprobs=0), None, END).delta_of(output(7, logprobs=[entries]))
    assert none.logprobs[0].top == ()
