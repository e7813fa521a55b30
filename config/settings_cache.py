"""Settings of the cache and of the sources that fill it: where files lie, which keys open a source, how it is reached.

A secret's variable ``X`` may also be given as ``X_FILE``, the path of a file that holds it (``config.environment``
reads it). The names without ``NIM_`` are those that other programs use for the same.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, SecretStr

from config.settings_base import SettingsModel, variable

_OVERRIDES = ("s3://", "https://", "http://", "jfrog://", "ngc://", "file://", "/")


def _override(value: str) -> str:
    if not value.startswith(_OVERRIDES) or value in _OVERRIDES:
        raise ValueError(
            "give the base address of a mirror: s3://bucket/path, https://host:port/path, jfrog://host/path, a folder"
        )
    return value


def _key(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    if any(letter.isspace() or not letter.isprintable() for letter in text) or not text.isascii():
        raise ValueError("a key is one word of plain letters and digits")
    return SecretStr(text)


def _credential(value: SecretStr) -> SecretStr:
    text = value.get_secret_value().strip()
    if not text.isascii() or not text.isprintable() or text.count(" ") > 1:
        raise ValueError("write it as in the header Authorization: Bearer and a token, or Basic and base64")
    return SecretStr(text)


Secret = Annotated[SecretStr, AfterValidator(_key)]


class CacheSettings(SettingsModel):
    """The folder for downloaded models, and the keys of their sources."""

    path: Path | None = variable("NIM_CACHE_PATH", None)
    """Folder for models and files made from them. Unset: ``/opt/nim/.cache`` if it can be written or holds something,
    else the user's cache folder."""
    offline: bool = variable("NIM_OFFLINE", default=False)
    """Serve only what the cache or a local path has; no connection to any other machine is opened."""
    disable_download: bool = variable("NIM_DISABLE_MODEL_DOWNLOAD", default=False)
    """NIM's name for the same: either of the two is enough."""
    probe_timeout_s: float = variable("NIM_CACHE_PROBE_TIMEOUT", 60.0, gt=0, le=3600)
    """Seconds in which the cache folder must answer; a network drive that hangs ends the start."""
    repository_override: Annotated[str, AfterValidator(_override)] | None = variable("NIM_REPOSITORY_OVERRIDE", None)
    """Base address of a mirror that is asked instead of the public sources: ``s3://``, ``https://``, or a folder."""
    ngc_cli_api_key: Secret | None = variable("NGC_CLI_API_KEY", None)
    """Key for ``ngc://``; wins over ``NGC_API_KEY``."""
    ngc_api_key: Secret | None = variable("NGC_API_KEY", None)
    """Key for ``ngc://``. Not needed for public models."""
    hf_token: Secret | None = variable("HF_TOKEN", None)
    """Token for ``hf://``. Not needed for public models."""
    hf_endpoint: str | None = variable("HF_ENDPOINT", None, pattern=r"^https?://\S+$")
    """Address of the hub behind ``hf://``, where it is not Hugging Face's own."""
    https_credential: Annotated[SecretStr, AfterValidator(_credential)] | None = variable("NIM_HTTPS_CREDENTIAL", None)
    """What ``https://`` sources and mirrors get in the header ``Authorization``, such as ``Bearer`` and a token."""


class NetworkSettings(SettingsModel):
    """How other machines are reached for downloads."""

    https_proxy: SecretStr | None = variable("HTTPS_PROXY", None)
    """Proxy for https addresses. May hold a password, so it is never shown."""
    http_proxy: SecretStr | None = variable("HTTP_PROXY", None)
    """Proxy for http addresses."""
    no_proxy: str | None = variable("NO_PROXY", None)
    """Hosts that are reached without the proxy, separated by commas."""
    ca_file: Path | None = variable("SSL_CERT_FILE", None)
    """PEM file of the authorities that are trusted instead of the built-in list."""
    ca_bundle: Path | None = variable("REQUESTS_CA_BUNDLE", None)
    """The same, where ``SSL_CERT_FILE`` is not set."""
    native_tls: bool = variable("NIM_SDK_USE_NATIVE_TLS", default=False)
    """Trust the system's own list of authorities instead of the built-in one."""


class StoreSettings(SettingsModel):
    """Access to ``s3://`` mirrors."""

    access_key_id: str | None = variable("AWS_ACCESS_KEY_ID", None)
    """Name of the key. Without one the bucket must be public."""
    secret_access_key: SecretStr | None = variable("AWS_SECRET_ACCESS_KEY", None)
    """The key itself."""
    session_token: SecretStr | None = variable("AWS_SESSION_TOKEN", None)
    """Token that goes with a temporary key."""
    region: str | None = variable("AWS_REGION", None)
    """Region of the bucket."""
    endpoint_url: str | None = variable("AWS_ENDPOINT_URL", None)
    """Address of the store, where it is not Amazon's."""
    profile: str | None = variable("AWS_PROFILE", None)
    """Section of the credentials file to take the key from."""
    credentials_path: Path | None = variable("AWS_SHARED_CREDENTIALS_FILE", None)
    """The credentials file. Unset: ``~/.aws/credentials`` if ``AWS_PROFILE`` is set, else none."""
