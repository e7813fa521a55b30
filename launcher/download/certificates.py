"""Which certificates of servers are accepted."""

from __future__ import annotations

import ssl
from pathlib import Path

import certifi

from launcher.download.access import Trust
from launcher.download.messages import reason_of
from launcher.errors import ExitCode, LaunchError


def tls_context(trust: Trust) -> ssl.SSLContext:
    """Return the context that checks servers' certificates.

    Raises:
        LaunchError: the file with certificates cannot be read.
    """
    try:
        context = ssl.create_default_context()
        if trust.ca_bundle is not None:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
            _load(context, trust.ca_bundle)
        elif not trust.native:
            context.load_verify_locations(cafile=certifi.where())
    except (OSError, ssl.SSLError) as error:
        raise LaunchError(
            ExitCode.BAD_SETTINGS,
            f"the certificates in {trust.ca_bundle} cannot be read: {reason_of(error)}",
            "SSL_CERT_FILE must name a PEM file that this user may read",
        ) from error
    # From Python 3.13 on this is the default, and refuses the roots of many companies for a missing extension.
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _load(context: ssl.SSLContext, path: Path) -> None:
    if path.is_dir():
        context.load_verify_locations(capath=str(path))
    else:
        context.load_verify_locations(cafile=str(path))
