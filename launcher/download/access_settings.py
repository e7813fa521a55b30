"""Turns the settings of cache, network and stores into what downloads take: ``Access`` and ``Cache``."""

from __future__ import annotations

import configparser
from pathlib import Path
from typing import Final

from pydantic import SecretStr

from config.settings import Settings
from config.settings_cache import NetworkSettings, StoreSettings
from launcher.cache.store import Cache
from launcher.download.access import HF_ENDPOINT, Access, Keys, Proxies, S3Access, Trust
from launcher.errors import ExitCode, LaunchError

_DEFAULT_PROFILE: Final = "default"
_DEFAULT_REGION: Final = "us-east-1"


def access_from(settings: Settings) -> Access:
    """Return how the outside is reached.

    Raises:
        LaunchError: the file with the keys of an S3 store cannot be used.
    """
    cache = settings.cache
    keys = Keys(
        hf_token=cache.hf_token,
        ngc_api_key=cache.ngc_cli_api_key or cache.ngc_api_key,
        mirror_credential=cache.https_credential,
        s3=_store(settings.store),
    )
    network = settings.network
    return Access(
        offline=cache.offline or cache.disable_download,
        repository_override=cache.repository_override,
        keys=keys,
        hf_endpoint=cache.hf_endpoint or HF_ENDPOINT,
        proxies=Proxies(_text(network.https_proxy), _text(network.http_proxy), network.no_proxy or ""),
        trust=_trust(network),
    )


def cache_from(settings: Settings, root: Path, scratch: Path | None = None) -> Cache:
    """Return the cache at ``root``, which is ``NIM_CACHE_PATH`` or the folder that stands for it when that is unset."""
    return Cache(root, scratch, settings.cache.probe_timeout_s)


def _trust(network: NetworkSettings) -> Trust:
    return Trust(network.ca_file or network.ca_bundle, network.native_tls)


def _store(store: StoreSettings) -> S3Access:
    key, secret, token = store.access_key_id, store.secret_access_key, store.session_token
    region, endpoint = store.region, store.endpoint_url
    if key is None and store.credentials_path is not None:
        section = _section(store.credentials_path, store.profile)
        key = section.get("aws_access_key_id")
        secret, token = _secret(section.get("aws_secret_access_key")), _secret(section.get("aws_session_token"))
        region = region or section.get("region")
    elif key is None and store.profile is not None:
        raise LaunchError(
            ExitCode.BAD_SETTINGS,
            f"AWS_PROFILE is {store.profile}, but there is no credentials file",
            "set AWS_SHARED_CREDENTIALS_FILE, or AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY",
        )
    if (key is None) != (secret is None):
        missing = "AWS_SECRET_ACCESS_KEY" if secret is None else "AWS_ACCESS_KEY_ID"
        raise LaunchError(ExitCode.BAD_SETTINGS, f"half of the key for the S3 store is not set: {missing}")
    return S3Access(_secret(key), secret, token, region or _DEFAULT_REGION, endpoint)


def _section(path: Path, profile: str | None) -> dict[str, str]:
    parser = configparser.ConfigParser(interpolation=None)
    try:
        with path.open(encoding="utf-8") as file:
            parser.read_file(file)
    except FileNotFoundError:
        if profile is None:
            return {}
        raise _unusable(path, "it does not exist") from None
    except (OSError, configparser.Error, UnicodeDecodeError) as error:
        # The error's text may quote a line of the file, and so a key.
        raise _unusable(path, type(error).__name__) from None
    name = profile or _DEFAULT_PROFILE
    if profile is not None and not parser.has_section(name):
        raise _unusable(path, f"it has no section [{name}]")
    return dict(parser.items(name)) if parser.has_section(name) else {}


def _unusable(path: Path, why: str) -> LaunchError:
    return LaunchError(
        ExitCode.BAD_SETTINGS, f"the credentials file {path} cannot be used: {why}", "check AWS_SHARED_CREDENTIALS_FILE"
    )


def _secret(value: str | None) -> SecretStr | None:
    return SecretStr(value) if value else None


def _text(value: SecretStr | None) -> str | None:
    return value.get_secret_value() if value else None
