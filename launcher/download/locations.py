"""Where exactly a file can be had: turns a source and the access to the outside into addresses and credentials."""

from __future__ import annotations

import threading
from typing import Final
from urllib.parse import quote, urlencode, urlsplit

from pydantic import SecretStr

from launcher.download.access import Access
from launcher.download.assets import Location
from launcher.download.credentials import (
    Credential,
    NoCredential,
    S3Credential,
    basic,
    bearer,
    for_mirror,
    s3_url,
)
from launcher.download.messages import shown
from launcher.download.network import Client
from launcher.download.refusals import Kind, Subject, refusal
from launcher.download.retry import Attempts, Pace
from launcher.download.sources import HubSource, NgcSource, S3Source, WebSource

_OK: Final = 200
# Keys of this form are tokens themselves; older ones are exchanged for one first.
_IS_TOKEN: Final = "nvapi-"  # noqa: S105 - how a key begins is no key


class Locations:
    """Makes locations; asks NGC for a token at most once per organisation."""

    def __init__(self, access: Access, client: Client, pace: Pace) -> None:
        self._access = access
        self._client = client
        self._pace = pace
        self._tokens: dict[str, SecretStr] = {}
        self._lock = threading.Lock()

    def attempts(self) -> Attempts:
        """Return a new count of failures for one question."""
        return self._pace.attempts()

    def of_file(self, source: HubSource | NgcSource | WebSource | S3Source, file: str, commit: str) -> Location:
        """Return where ``file`` of a repository is, at ``commit``; a web or S3 source is itself the file.

        Raises:
            LaunchError: NGC refuses the key.
        """
        match source:
            case HubSource():
                url = f"{self._hub}/{source.repository}/resolve/{quote(commit, safe='')}/{quote(file)}"
                return Location(url, self._hub_credential(), self._hub_subject(source, file))
            case NgcSource():
                files = self.ngc_files(source)
                subject = Subject(Kind.NGC, f"{source.canonical.partition('?')[0]} {file}", files.subject.has_key)
                return Location(f"{files.url}/{quote(file)}", files.credential, subject)
            case S3Source():
                return self._s3(source)
            case WebSource():
                return self._web(source)

    def hub_api(self, source: HubSource) -> Location:
        """Return the repository's place in the hub's API."""
        url = f"{self._hub}/api/models/{source.repository}"
        return Location(url, self._hub_credential(), self._hub_subject(source, None))

    def ngc_files(self, source: NgcSource) -> Location:
        """Return where NGC lists a model version's files.

        Raises:
            LaunchError: NGC refuses the key.
        """
        team = f"/team/{quote(source.team, safe='')}" if source.team else ""
        model = f"models/{quote(source.model, safe='')}/versions/{quote(source.version, safe='')}/files"
        url = f"{self._ngc}/v2/org/{quote(source.org, safe='')}{team}/{model}"
        credential = self._ngc_credential(source)
        return Location(url, credential, Subject(Kind.NGC, source.canonical, not isinstance(credential, NoCredential)))

    @property
    def _hub(self) -> str:
        return self._access.hf_endpoint.rstrip("/")

    @property
    def _ngc(self) -> str:
        override = self._access.repository_override or ""
        if override.startswith("ngc://"):
            return f"https://{override.removeprefix('ngc://').rstrip('/')}"
        return self._access.ngc_endpoint.rstrip("/")

    def _hub_credential(self) -> Credential:
        return bearer(self._hub, self._access.keys.hf_token)

    def _hub_subject(self, source: HubSource, file: str | None) -> Subject:
        name = f"hf://{source.repository}@{source.revision}" + (f":{file}" if file else "")
        return Subject(Kind.HUB, name, self._access.keys.hf_token is not None, f"{self._hub}/{source.repository}")

    def _ngc_credential(self, source: NgcSource) -> Credential:
        key = self._access.keys.ngc_api_key
        if key is None:
            return NoCredential()
        if key.get_secret_value().startswith(_IS_TOKEN):
            return bearer(self._ngc, key)
        scope = f"group/ngc:{source.org}"
        with self._lock:
            if scope not in self._tokens:
                self._tokens[scope] = self._log_in(scope, key)
            return bearer(self._ngc, self._tokens[scope])

    def _log_in(self, scope: str, key: SecretStr) -> SecretStr:
        login = self._access.ngc_login.rstrip("/")
        url = f"{login}/token?{urlencode({'service': 'ngc', 'scope': scope}, safe=':/')}"
        subject = Subject(Kind.NGC, "NGC's login", has_key=True)

        def once() -> SecretStr:
            with self._client.open(url, basic(login, "$oauthtoken", key)) as reply:
                if reply.status != _OK:
                    raise refusal(subject, reply)
                return SecretStr(str(reply.json().get("token", "")))

        return self.attempts().run(once)

    def _s3(self, source: S3Source) -> Location:
        access = self._access.keys.s3
        url = s3_url(access, source.bucket, source.key)
        subject = Subject(Kind.S3, source.canonical, access.access_key_id is not None)
        return Location(url, S3Credential(url, access), subject)

    def _web(self, source: WebSource) -> Location:
        mirror = self._access.repository_override or ""
        is_mirror = urlsplit(mirror).hostname == urlsplit(source.url).hostname and bool(mirror)
        url, credential = for_mirror(source.url, self._access.keys.mirror_credential if is_mirror else None)
        kind = Kind.MIRROR if is_mirror else Kind.WEB
        return Location(url, credential, Subject(kind, shown(url), not isinstance(credential, NoCredential)))
