"""From variables to what downloads take: every key, proxy and certificate arrives where it belongs."""

from __future__ import annotations

from pathlib import Path

import pytest

from config.environment import load_settings
from launcher.download.access import HF_ENDPOINT
from launcher.download.access_settings import access_from, cache_from
from launcher.errors import ExitCode, LaunchError


def from_variables(**variables: str):
    return access_from(load_settings(environ=variables).settings)


def test_without_variables_public_sources_are_reached_directly() -> None:
    """No key, no proxy, no mirror, online."""
    access = from_variables()

    assert not access.offline
    assert access.hf_endpoint == HF_ENDPOINT
    assert access.keys.hf_token is None
    assert access.proxies.proxy_for(HF_ENDPOINT) is None
    assert access.repository_override is None


def test_every_variable_arrives() -> None:
    """Keys as secrets."""
    variables = {
        "HF_TOKEN": "hf_1", "NGC_API_KEY": "nvapi-1", "HF_ENDPOINT": "https://hub.example",
        "HTTPS_PROXY": "http://proxy:1", "NO_PROXY": "internal", "SSL_CERT_FILE": "/ca.pem",
        "NIM_REPOSITORY_OVERRIDE": "s3://bucket", "AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b",
        "AWS_REGION": "eu-west-1", "AWS_ENDPOINT_URL": "https://minio", "NIM_HTTPS_CREDENTIAL": "Basic dTpw",
    }  # fmt: skip
    access = from_variables(**variables)

    keys = access.keys
    assert (keys.hf_token.get_secret_value(), keys.ngc_api_key.get_secret_value()) == ("hf_1", "nvapi-1")
    assert keys.mirror_credential.get_secret_value() == "Basic dTpw"
    assert (keys.s3.region, keys.s3.endpoint) == ("eu-west-1", "https://minio")
    assert access.hf_endpoint == "https://hub.example"
    assert access.repository_override == "s3://bucket"
    assert access.trust.ca_bundle == Path("/ca.pem")
    assert access.proxies.proxy_for("https://huggingface.co") == "http://proxy:1"
    assert access.proxies.proxy_for("https://a.internal") is None
    assert "hf_1" not in repr(access)


def test_the_keys_of_the_command_line_client_win(tmp_path: Path) -> None:
    """``NGC_CLI_API_KEY`` over ``NGC_API_KEY``; either may be in a file."""
    (tmp_path / "key").write_text("nvapi-file\n")

    assert from_variables(NGC_API_KEY="a", NGC_CLI_API_KEY="b").keys.ngc_api_key.get_secret_value() == "b"
    assert from_variables(NGC_API_KEY_FILE=str(tmp_path / "key")).keys.ngc_api_key.get_secret_value() == "nvapi-file"


@pytest.mark.parametrize("variable", ["NIM_OFFLINE", "NIM_DISABLE_MODEL_DOWNLOAD"])
def test_either_variable_means_offline(variable: str) -> None:
    """Ours and NIM's."""
    assert from_variables(**{variable: "1"}).offline


def credentials(tmp_path: Path, text: str) -> dict[str, str]:
    (tmp_path / "credentials").write_text(text)
    return {"AWS_SHARED_CREDENTIALS_FILE": str(tmp_path / "credentials")}


def test_keys_of_s3_come_from_a_section_of_the_credentials_file(tmp_path: Path) -> None:
    """As ``aws configure`` writes it; variables win."""
    text = "[default]\naws_access_key_id=d\naws_secret_access_key=s%s\n[other]\naws_access_key_id=o\n"
    file = credentials(tmp_path, text + "aws_secret_access_key=t\naws_session_token=u\nregion=eu-west-3\n")

    default = from_variables(**file).keys.s3
    other = from_variables(**file, AWS_PROFILE="other").keys.s3
    given = from_variables(**file, AWS_ACCESS_KEY_ID="v", AWS_SECRET_ACCESS_KEY="w").keys.s3  # noqa: S106 - made up
    assert (default.access_key_id.get_secret_value(), default.secret_access_key.get_secret_value()) == ("d", "s%s")
    assert (other.session_token.get_secret_value(), other.region) == ("u", "eu-west-3")
    assert given.access_key_id.get_secret_value() == "v"


@pytest.mark.parametrize(
    ("text", "variables", "words"),
    [
        ("[default]\n", {"AWS_PROFILE": "other"}, r"no section \[other\]"),
        ("aws_secret_access_key=verysecret\n", {}, "cannot be used"),
        ("[default]\naws_access_key_id=a\n", {}, "AWS_SECRET_ACCESS_KEY"),
    ],
)
def test_a_credentials_file_that_is_no_use_is_named_and_not_quoted(
    tmp_path: Path, text: str, variables: dict[str, str], words: str
) -> None:
    """A parser's own message would show the line."""
    with pytest.raises(LaunchError, match=words) as caught:
        from_variables(**credentials(tmp_path, text), **variables)

    assert caught.value.code == ExitCode.BAD_SETTINGS
    assert "verysecret" not in caught.value.message


def test_the_cache_takes_the_patience_for_network_drives(tmp_path: Path) -> None:
    """``NIM_CACHE_PROBE_TIMEOUT``."""
    settings = load_settings(environ={"NIM_CACHE_PROBE_TIMEOUT": "7"}).settings

    assert cache_from(settings, tmp_path).probe_timeout_s == 7
