"""Errors that a client meets before its request reaches a route: keys, certificates, sizes, deadlines, counts."""

from __future__ import annotations

from collections.abc import Mapping

from api.errors import ApiError, BadRequestError, OverloadedError, UnavailableError


class DeepJsonError(BadRequestError):
    """Objects and lists of the body stand too deep in each other."""

    code = "json_too_deep"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request body has more than {limit} levels of objects and lists.")


class CrowdedJsonError(BadRequestError):
    """The body has more values than anybody needs."""

    code = "json_too_many_values"

    def __init__(self, limit: int) -> None:
        super().__init__(f"The request body has more than {limit} commas and brackets.")


class EncodedBodyError(ApiError):
    """The body is compressed, and its size after that is not known."""

    status = 415
    type = "invalid_request_error"
    code = "unsupported_content_encoding"

    def __init__(self) -> None:
        super().__init__("The request body has a Content-Encoding. Send it as it is.")


class MalformedRequestError(BadRequestError):
    """What came is no HTTP request."""

    code = "malformed_request"

    def __init__(self) -> None:
        super().__init__("The request is not valid HTTP/1.1.")


class UnauthorizedError(ApiError):
    """No key was sent, or one that opens nothing."""

    status = 401
    type = "invalid_request_error"
    code = "invalid_api_key"

    def __init__(self, *, is_missing: bool) -> None:
        how = "Send it in the header Authorization, as Bearer and the key, or in x-api-key."
        super().__init__(f"An API key is needed. {how}" if is_missing else "The API key is not valid.")
        self._challenge = 'Bearer realm="gemma4-nim"' + ("" if is_missing else ', error="invalid_token"')

    @property
    def headers(self) -> Mapping[str, str]:
        """Tell what is asked for."""
        return {"www-authenticate": self._challenge}


class CertificateNeededError(ApiError):
    """The client has shown no certificate where one is asked for."""

    status = 403
    type = "invalid_request_error"
    code = "client_certificate_required"

    def __init__(self) -> None:
        super().__init__("A client certificate is needed for this connection.")


class SlowHeadersError(ApiError):
    """The client did not send the head of its request in time."""

    status = 408
    type = "invalid_request_error"
    code = "request_timeout"

    def __init__(self, limit_s: float) -> None:
        super().__init__(f"The head of the request did not arrive within {limit_s:g} seconds.")


class UriTooLongError(ApiError):
    """The request line exceeds the limit."""

    status = 414
    type = "invalid_request_error"
    code = "uri_too_long"

    def __init__(self, limit_bytes: int) -> None:
        super().__init__(f"The request's address is longer than {limit_bytes} bytes.")


class HeadersTooLargeError(ApiError):
    """The headers exceed a limit; ``what`` says which."""

    status = 431
    type = "invalid_request_error"
    code = "headers_too_large"

    def __init__(self, what: str) -> None:
        super().__init__(f"The request's headers are too large: {what}.")


class KeyBusyError(OverloadedError):
    """One key has as many requests under way as it may."""

    code = "key_concurrency"

    def __init__(self, limit: int) -> None:
        super().__init__(
            f"This API key has {limit} requests under way, as many as it may. Try again when one has ended."
        )


class TooManyConnectionsError(UnavailableError):
    """More clients are connected than may be."""

    code = "too_many_connections"

    def __init__(self) -> None:
        super().__init__("The server has too many connections. Try again shortly.")
