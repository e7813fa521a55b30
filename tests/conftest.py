"""The real product for tests: ``gemma4-nim serve`` with the demo checkpoint, as a user starts it."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import openai
import pytest

from tests.fakes.processes import ServerProcess, free_port, wait_until

# Tests of the engine's client and of the launcher share a process here, as they never do in the product. gRPC's fork
# handlers abort a child that the launcher starts while a channel is open; it replaces itself at once and needs none.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "false"

# Hundreds of processes are started here that import the same modules, which should be compiled once, not by each.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

# A job in the background of a shell ignores Ctrl-C, and so does all that it starts. The product is to be tested as from
# a terminal.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parent.parent
DEMO = ROOT / "demo" / "checkpoints" / "demo-moe"
COMMAND = Path(sys.executable).with_name("gemma4-nim")


TRANSPORTS = ("embedded", "triton")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the caller choose what carries the engine, and where Triton's server is."""
    parser.addoption("--transport", choices=TRANSPORTS, default="embedded", help="what carries the engine")
    parser.addoption("--triton-python", type=Path, help="interpreter whose environment holds Triton's server")


@pytest.fixture(scope="session")
def triton_python(pytestconfig: pytest.Config) -> Path:
    """Return the interpreter that holds Triton's server, or skip the test where there is none."""
    python: Path | None = pytestconfig.getoption("--triton-python")
    if python is None:
        pytest.skip("needs Triton's server: give --triton-python")
    return python.absolute()


@pytest.fixture(scope="session")
def transport_variables(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> dict[str, str]:
    """Return the settings with which the product is started on the chosen transport."""
    if pytestconfig.getoption("--transport") == "embedded":
        return {}
    return {"NIM_ENGINE_TRANSPORT": "triton", "NIM_TRITON_PYTHON": str(request.getfixturevalue("triton_python"))}


class Product(ServerProcess):
    """A running product: launcher, engine and API."""

    picture_port: int | None = None
    """The port of this machine from which it fetches pictures, if any."""

    @property
    def client(self) -> openai.OpenAI:
        """An SDK client that never retries, so that each fault is seen."""
        return openai.OpenAI(base_url=f"{self.base_url}/v1", api_key="unused", max_retries=0, timeout=60)


StartProduct = Callable[..., AbstractContextManager[Product]]


@pytest.fixture(scope="session")
def start_product(tmp_path_factory: pytest.TempPathFactory, transport_variables: dict[str, str]) -> StartProduct:
    """Return what starts a product of its own: keyword arguments are ``NIM_*`` variables."""

    @contextmanager
    def start(**variables: str) -> Iterator[Product]:
        folder = tmp_path_factory.mktemp("product")
        settings = {"NIM_MODEL_PATH": str(DEMO), "NIM_CACHE_PATH": str(folder), "NIM_LOG_LEVEL": "INFO"}
        settings |= transport_variables | variables
        with Product([str(COMMAND), "serve"], free_port(), folder / "serve.log", settings) as product:
            # The launcher sees readiness a moment after the route tells it; only then it is ready for crashes.
            wait_until(lambda: "ready on" in product.log(), what="the launcher's announcement")
            yield product

    return start


@pytest.fixture(scope="session")
def product(start_product: StartProduct) -> Iterator[Product]:
    """Return one running product per test process; it may fetch pictures from one port, at which nobody listens yet."""
    port = free_port()
    fetching = {"NIM_ALLOWED_MEDIA_DOMAINS": f"127.0.0.1:{port}", "NIM_MEDIA_FETCH_TIMEOUT_SECONDS": "60"}
    with start_product(**fetching) as running:
        running.picture_port = port
        yield running


@pytest.fixture(scope="session")
def base_url(product: Product) -> str:
    """Return the address of the running product."""
    return product.base_url
