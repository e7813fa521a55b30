"""Every setting can be given in every way, the stronger way wins, and complaints name the place."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from config.environment import LoadedSettings, child_environment, load_settings
from config.errors import ConfigError
from config.settings import Settings, secrets, sections, variables
from config.settings_flags import SHORT_NAMES, option_of, options

VALUES = {
    "NIM_LOG_LEVEL": "ERROR",
    "NIM_IMAGE_TOKENS": "560",
    "NIM_MODEL_URI": "hf://a/b",
    "NIM_TAGS_SELECTOR": "precision=fp8,tp=2",
    "NIM_MODEL_VARIANT": "31b",
    "NIM_MODEL_PRECISION": "fp8",
    "NIM_PERF_PROFILE": "latency",
    "NIM_ENGINE": "vllm",
    "NIM_TENSOR_PARALLEL_SIZE": "2",
    "NIM_GPU_MEMORY_UTILIZATION": "0.5",
    "NIM_REPOSITORY_OVERRIDE": "s3://bucket/a",
    "NIM_ALLOWED_MEDIA_PORTS": "81,82",
    "NIM_ALLOWED_MEDIA_DOMAINS": "a.example,b.example",
    "NIM_ALLOWED_LOCAL_MEDIA_PATH": "/data/pictures",
    "NIM_IMAGE_DECODER_MEMORY_BYTES": "1073741824",
    "NIM_MAX_REQUEST_BYTES": "2048",
    "NIM_SSL_MODE": "tls",
    "NIM_CORS_ALLOW_ORIGINS": "https://a.example,http://b.example:8080",
    "NIM_MAX_HEADER_BYTES": "2048",
    "NIM_MAX_HEADERS": "50",
    "NIM_MAX_JSON_DEPTH": "9",
    "NIM_MAX_IMAGE_BYTES": "2048",
    "NIM_MAX_MODEL_LEN": "4096",
    "NIM_ALLOW_URL_INPUT": "0",
    "HF_ENDPOINT": "https://hub.example",
    "NIM_OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example:4318",
    "NIM_OTEL_TRACES_EXPORTER": "console",
    "NIM_ENGINE_TRANSPORT": "triton",
    "NIM_ENGINE_ENDPOINTS": "a.example:8001,[::1]:8001",
    "NIM_TRITON_GRPC_ADDRESS": "127.0.0.1:8001",
    "NIM_TRITON_HTTP_ADDRESS": "127.0.0.1:8003",
    "NIM_TRITON_METRICS_ADDRESS": "127.0.0.1:8002",
}
"""A value other than the default, where "7", "1" or "word" is none."""


def _value(name: str) -> str:
    section, field = variables()[name]
    annotation = str(sections()[section].model_fields[field].annotation)
    if name in VALUES:
        return VALUES[name]
    return "1" if "bool" in annotation else "7" if "int" in annotation or "float" in annotation else "word"


def _in_environment(name: str, value: str, _: Path) -> LoadedSettings:
    return load_settings(environ={name: value})


def _on_command_line(name: str, value: str, folder: Path) -> LoadedSettings:
    return load_settings(environ={}, arguments=_words(name, value, folder))


def _in_passthrough(name: str, value: str, folder: Path) -> LoadedSettings:
    return load_settings(environ={"NIM_PASSTHROUGH_ARGS": " ".join(_words(name, value, folder))})


def _words(name: str, value: str, folder: Path) -> list[str]:
    option = option_of(name)
    if name in secrets():
        (folder / "secret").write_text(value)
        return [f"{option}-file", str(folder / "secret")]
    if value == "0":
        return [option.replace("--", "--no-", 1)]
    section, field = variables()[name]
    return [option] if sections()[section].model_fields[field].annotation is bool else [option, value]


def _in_file(name: str, value: str, folder: Path) -> LoadedSettings:
    section, field = variables()[name]
    path = folder / "settings.yaml"
    path.write_text(f"{section}:\n  {field}: {value}\n")
    return load_settings(environ={"NIM_CONFIG_FILE": str(path)})


WAYS: dict[str, Callable[[str, str, Path], LoadedSettings]] = {
    "environment": _in_environment,
    "command line": _on_command_line,
    "passthrough": _in_passthrough,
    "file": _in_file,
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", sorted(variables()))
def test_every_setting_can_be_given_in_every_way(way: str, name: str, tmp_path: Path) -> None:
    """The environment, the file, NIM_PASSTHROUGH_ARGS and the command line reach the same settings."""
    section, field = variables()[name]

    loaded = WAYS[way](name, _value(name), tmp_path)

    assert getattr(getattr(loaded.settings, section), field) != getattr(getattr(Settings(), section), field)
    assert loaded.settings == _in_environment(name, _value(name), tmp_path).settings
    assert loaded.warnings == ()


def _file(folder: Path, text: str) -> str:
    path = folder / "settings.yaml"
    path.write_text(text)
    return str(path)


@given(ways=st.lists(st.sampled_from(["file", "environment", "passthrough", "override", "flag"]), unique=True))
def test_stronger_way_wins(tmp_path_factory: pytest.TempPathFactory, ways: list[str]) -> None:
    """Command line, then NIM_PASSTHROUGH_ARGS, then the variable, then the file, then the default."""
    port = {"file": 9001, "environment": 9002, "passthrough": 9003, "override": 9004, "flag": 9005}
    environ: dict[str, str] = {}
    if "file" in ways:
        folder = tmp_path_factory.mktemp("settings")
        environ["NIM_CONFIG_FILE"] = _file(folder, f"server:\n  port: {port['file']}\n")
    if "environment" in ways:
        environ["NIM_SERVER_PORT"] = str(port["environment"])
    if "passthrough" in ways:
        environ["NIM_PASSTHROUGH_ARGS"] = f"--port {port['passthrough']}"
    overrides = {"NIM_SERVER_PORT": str(port["override"])} if "override" in ways else {}
    arguments = ["--server-port", str(port["flag"])] if "flag" in ways else []

    loaded = load_settings(overrides, environ=environ, arguments=arguments)

    assert loaded.settings.server.port == max([port[way] for way in ways], default=8000)


def test_alias_in_a_stronger_way_wins_over_the_name_in_a_weaker() -> None:
    """What counts is the way, not the spelling; between two ways nothing is in conflict."""
    loaded = load_settings({"NIM_HTTP_API_PORT": "9002"}, environ={"NIM_SERVER_PORT": "9001"})

    assert loaded.settings.server.port == 9002
    assert loaded.warnings == ()


def test_address_in_the_model_path_is_an_address() -> None:
    """NIM_MODEL_PATH takes what NIM's takes: a path or an address."""
    model = load_settings(environ={"NIM_MODEL_PATH": "hf://google/gemma-4-31B-it"}).settings.model

    assert model.uri == "hf://google/gemma-4-31B-it"
    assert model.path is None


def test_model_of_the_command_line_replaces_any_other(tmp_path: Path) -> None:
    """A path on the command line is not mixed with an address in the environment, nor the other way round."""
    path = load_settings(environ={"NIM_MODEL_PATH": "hf://a/b"}, arguments=[str(tmp_path)]).settings.model
    address = load_settings(environ={"NIM_MODEL_PATH": str(tmp_path)}, arguments=["hf://a/b"]).settings.model

    assert (path.path, path.uri) == (tmp_path, None)
    assert (address.path, address.uri) == (None, "hf://a/b")


def test_children_see_the_same_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever the source was, a child's own reading of its environment gives the same, keys and warnings excepted."""
    monkeypatch.setenv("NIM_CONFIG_FILE", _file(tmp_path, "model:\n  served_names: [a, b]\nserver: {port: 9001}\n"))
    monkeypatch.setenv("NIM_PASSTHROUGH_ARGS", "--max-model-len 4096")
    monkeypatch.setenv("NIM_HTTP_API_PORT", "9002")
    monkeypatch.setenv("NGC_API_KEY", "nvapi-secret")
    monkeypatch.setenv("HF_TOKEN_FILE", _file(tmp_path / "..", "hf_secret"))
    loaded = load_settings(arguments=["--port", "9003", "--no-allow-url-input"])

    environment = child_environment(loaded.variables)
    child = load_settings(environ=environment | {"NIM_STRICT_CONFIG": "1"})

    assert loaded.settings.cache.ngc_api_key is not None
    assert child.settings.server.port == 9003
    assert child.settings.model == loaded.settings.model
    assert child.settings.fetch == loaded.settings.fetch
    assert not {"NGC_API_KEY", "HF_TOKEN", "HF_TOKEN_FILE"} & environment.keys()
    assert "secret" not in "".join(environment.values())


@pytest.mark.parametrize(
    ("arguments", "environ", "text", "place"),
    [
        (["--port", "x"], {}, "", "NIM_SERVER_PORT='x' from --port: "),
        (["--server-port=x"], {}, "", "NIM_SERVER_PORT='x' from --server-port: "),
        ([], {"NIM_PASSTHROUGH_ARGS": "--port x"}, "", "NIM_SERVER_PORT='x' from --port in NIM_PASSTHROUGH_ARGS: "),
        ([], {"NIM_HTTP_API_PORT": "x"}, "", "NIM_SERVER_PORT='x' from NIM_HTTP_API_PORT: "),
        ([], {"NIM_SERVER_PORT": "x"}, "", "NIM_SERVER_PORT='x': "),
        ([], {}, "log:\n  level: INFO\nserver:\n  port: x\n", "NIM_SERVER_PORT='x' from {path}:4 (server.port): "),
    ],
)
def test_complaint_names_the_place(
    arguments: list[str], environ: dict[str, str], text: str, place: str, tmp_path: Path
) -> None:
    """A bad value is found at once: option, variable, or file with line and key."""
    path = _file(tmp_path, text)

    with pytest.raises(ConfigError) as caught:
        load_settings(environ={"NIM_CONFIG_FILE": path} | environ, arguments=arguments)

    (problem,) = caught.value.problems
    assert problem.startswith(place.format(path=path))


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--max-model-length", "5"], "--max-model-length is not an option; did you mean --max-model-len?"),
        (["--port"], "--port needs a value"),
        (["--port", "--no-offline"], "--port needs a value"),
        (["--port="], "--port needs a value"),
        (["a", "b"], "'b' is one word too many: give one model, and options"),
        (["--zzz"], "--zzz is not an option"),
        (["--no-port"], "--no-port is not an option; did you mean --port?"),
    ],
)
def test_bad_words_are_refused(words: list[str], complaint: str) -> None:
    """Each in one line that names the word."""
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={}, arguments=words)

    assert complaint in caught.value.problems


def test_secret_on_a_command_line_is_refused_without_showing_it() -> None:
    """Command lines can be read by everybody on the machine."""
    with pytest.raises(ConfigError) as caught:
        load_settings(environ={}, arguments=["--hf-token", "hf_secret", "--port", "1"])

    (problem,) = caught.value.problems
    assert "--hf-token-file" in problem
    assert "hf_secret" not in problem


@pytest.mark.parametrize("option", sorted(options()))
def test_no_option_takes_a_secret(option: str) -> None:
    """There is none whose value would be one."""
    assert options()[option] not in secrets()


@pytest.mark.parametrize("option", sorted(SHORT_NAMES))
def test_short_options_do_what_their_variable_does(option: str) -> None:
    """Names that engines' users know."""
    value = "1" if SHORT_NAMES[option] != "NIM_SERVER_HOST" else "127.0.0.1"

    assert load_settings(environ={}, arguments=[option, value]).variables == {SHORT_NAMES[option]: value}


def test_last_of_several_options_counts() -> None:
    """As with engines' own command lines; --x and --no-x are such."""
    settings = load_settings(environ={}, arguments=["--port", "1", "--offline", "--port", "2", "--no-offline"]).settings

    assert settings.server.port == 2
    assert settings.cache.offline is False


def test_unbalanced_quotes_in_passthrough_are_refused() -> None:
    """The variable is named."""
    with pytest.raises(ConfigError, match=r"NIM_PASSTHROUGH_ARGS=.*no closing quotation"):
        load_settings(environ={"NIM_PASSTHROUGH_ARGS": '--served-model-name "a'})


@given(st.lists(st.text(max_size=12), max_size=5))
def test_any_words_are_used_or_refused(words: list[str]) -> None:
    """Never another error."""
    try:
        load_settings(environ={}, arguments=words)
    except ConfigError as error:
        assert all("\n" not in problem for problem in error.problems)
