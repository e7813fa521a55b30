"""Engines that listen by TLS: our own server and the real ``tritonserver``, their files, and the probe beside them."""

from __future__ import annotations

import asyncio
import logging
import shutil
import sys
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from pydantic import ValidationError

from config.runtime import EngineRuntime, ListenerTls
from engine import ready
from engine.core import EngineLimits, EngineRequest
from engine.errors import EngineLoadError
from engine.listener_tls import check_files, own_address
from engine.server import InferenceService, create_server
from engine.triton.client import EngineClient
from engine.triton.connection import ConnectionOptions, TlsFiles
from tests.fakes.processes import free_port

TLS = Path(__file__).parents[2] / "data" / "tls"
SERVER = {"certificate": TLS / "server.pem", "key": TLS / "server.pem"}
TRUST = {"authorities": TLS / "authority.pem", "server_name": "images.test"}
ENGINE = {"certificate": TLS / "engine.pem", "key": TLS / "engine.pem"}
TRUST_ENGINE = {"authorities": TLS / "engine.pem", "server_name": "engine.test"}
OWN = {"certificate": TLS / "client.pem", "key": TLS / "client.pem"}
BY_OTHERS = "from no authority that is trusted here (NIM_ENGINE_TLS_CA)"
OTHER_NAME = "for another name (NIM_ENGINE_TLS_SERVER_NAME)"
CLOSED = "NIM_ENGINE_TLS_CERT"


@pytest.fixture
def mutual(tmp_path):
    """Return the files of an engine that takes clients of two authorities, one of which is its own."""
    authorities = tmp_path / "authorities.pem"
    authorities.write_bytes((TLS / "engine.pem").read_bytes() + (TLS / "client.pem").read_bytes())
    return ENGINE | {"client_authorities": authorities}


@asynccontextmanager
async def client_of(address, **fields):
    client = EngineClient([address], ConnectionOptions(call_timeout_s=60, tls=TlsFiles(**fields) if fields else None))
    try:
        yield client
    finally:
        await client.close()


async def is_ready(address, **fields):
    async with client_of(address, **fields) as client:
        return await client.ready()


class LoadedCore:
    """A core that is only asked how it is."""

    async def health(self):
        return True

    def limits(self):
        return EngineLimits(64, 2, 2, 100, vision=False, grammar=False, logprobs=False, core="none", model="m")


@asynccontextmanager
async def serving(**files):
    """Serve by TLS at a port of this machine; yields its address."""
    service = InferenceService()
    service.core = LoadedCore()
    address = f"127.0.0.1:{free_port()}"
    server = create_server(service, address, ListenerTls(**files))
    await server.start()
    try:
        yield address
    finally:
        await server.stop(0)


@pytest.fixture
def reason(caplog):
    """Return what tells why a client does not get in, as it is logged."""

    def told():
        return [record.getMessage() for record in caplog.records if record.name == "engine.triton.endpoint"]

    async def ask(address, **fields):
        caplog.clear()
        with caplog.at_level(logging.WARNING, "engine.triton.endpoint"):
            async with client_of(address, **fields) as client, asyncio.timeout(60):
                # Rarely gRPC tells of its first attempt only that it has closed the connection itself.
                while all("Endpoint closing" in line for line in told()):
                    assert not await client.ready()
        *unclear, line = told()
        assert len(unclear) <= 1
        assert line.startswith(f"the engine at {address} does not answer: ")
        return line

    return ask


def test_our_own_server_speaks_tls(reason):
    """Who trusts the authority gets in; who does not, takes another name or speaks no TLS reads that, and where."""

    async def main():
        async with serving(**SERVER) as address:
            assert await is_ready(address, **TRUST)
            assert BY_OTHERS in await reason(address, **TRUST | {"authorities": TLS / "client.pem"})
            assert OTHER_NAME in await reason(address, **TRUST | {"server_name": "other.test"})
            assert "NIM_ENGINE_TLS" in await reason(address)

    asyncio.run(main())


def test_our_own_server_can_demand_certificates(reason, mutual):
    """Without a certificate of the named authorities nobody gets in."""

    async def main():
        async with serving(**mutual) as address:
            assert CLOSED in await reason(address, **TRUST_ENGINE)
            assert CLOSED in await reason(address, **TRUST_ENGINE, **SERVER)
            assert await is_ready(address, **TRUST_ENGINE, **OWN)

    asyncio.run(main())


def test_renewed_files_are_taken(tmp_path):
    """Connections that are made after a renewal see the new certificate, without a restart."""
    file = tmp_path / "tls.pem"
    shutil.copyfile(TLS / "server.pem", file)
    renewed = {"authorities": TLS / "client.pem", "server_name": "api.test"}

    async def main():
        async with serving(certificate=file, key=file) as address:
            assert await is_ready(address, **TRUST)
            shutil.copyfile(TLS / "client.pem", file)
            assert await is_ready(address, **renewed)
            file.unlink()
            assert await is_ready(address, **renewed)

    asyncio.run(main())


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"certificate": Path("/nowhere/tls.crt")}, "tls.certificate='/nowhere/tls.crt' cannot be read: No such file"),
        ({"key": Path("/nowhere/tls.key")}, "tls.key='/nowhere/tls.key' cannot be read: No such file"),
        ({"key": TLS / "client.pem"}, "client.pem' cannot be used: KEY_VALUES_MISMATCH"),
        ({"certificate": TLS / "README.md"}, "cannot be used"),
        ({"client_authorities": TLS / "README.md"}, "tls.client_authorities="),
        ({"client_authorities": Path("/nowhere/ca.crt")}, "tls.client_authorities='/nowhere/ca.crt' cannot be read"),
    ],
)
def test_files_that_cannot_work_are_named(changes, words):
    with pytest.raises(EngineLoadError) as caught:
        check_files(ListenerTls(**SERVER | changes))
    assert words in caught.value.message


def test_a_certificate_that_keeps_probes_out_is_told(mutual, caplog):
    """Where clients must show a certificate, the probe shows the engine's, which clients must be allowed."""
    with caplog.at_level(logging.WARNING, "engine.listener_tls"):
        check_files(ListenerTls(**mutual))
        assert not caplog.records
        check_files(ListenerTls(**mutual | SERVER))
    assert "server.pem is refused by the engine itself" in caplog.text


def runtime_at(endpoint, tls=None):
    nowhere = Path("/nowhere")
    return EngineRuntime(model_path=nowhere, tokenizer_path=nowhere, context_tokens=64, endpoint=endpoint, tls=tls)


def test_a_unix_socket_has_no_tls():
    with pytest.raises(ValidationError, match="unix socket"):
        runtime_at("unix:/e", ListenerTls(**SERVER))


@pytest.mark.parametrize(
    ("endpoint", "own"),
    [
        ("0.0.0.0:8001", "127.0.0.1:8001"),
        ("[::]:8001", "[::1]:8001"),
        ("gpu-1:8001", "gpu-1:8001"),
        ("unix:/e", "unix:/e"),
    ],
)
def test_the_probes_address(endpoint, own):
    """An engine that listens everywhere is asked on this machine."""
    assert own_address(endpoint) == own


@pytest.fixture
def probe(tmp_path, capsys):
    """Return what asks as a kubelet does, with the engine's own file: status, and what is said."""

    def run(runtime):
        file = tmp_path / "runtime.json"
        file.write_text(runtime.model_dump_json(), encoding="utf-8")
        return ready.main(["--runtime", str(file)]), capsys.readouterr().err

    return run


def test_the_probe_says_what_is_missing(probe):
    """Nobody there: the address. A certificate that is not there: its field and file."""
    address = f"127.0.0.1:{free_port()}"
    status, words = probe(runtime_at(address))
    assert status == 1
    assert f"nothing at {address}" in words
    status, words = probe(runtime_at(address, ListenerTls(certificate="/no/crt", key="/no/key")))
    assert status == 1
    assert words.startswith("engine.ready: tls.certificate='/no/crt' cannot be read")


def generate(address, prompt, **fields):
    async def main():
        async with client_of(address, **fields) as client:
            return [delta async for delta in client.generate(EngineRequest("r", prompt, 3, ignore_stop_ids=True))]

    return [token_id for delta in asyncio.run(main()) for token_id in delta.token_ids]


def wait_ready(process, **fields):
    async def main():
        async with client_of(process.endpoint, **fields) as client:
            await process.wait_ready(client)

    asyncio.run(main())


@pytest.fixture(params=["embedded", "triton"])
def program(request):
    """Return the command of an engine process of each kind."""
    if request.param == "embedded":
        return [sys.executable, "-m", "engine"]
    return request.getfixturevalue("triton_program")


@pytest.mark.slow
def test_an_engine_process_speaks_tls(start_process, program, vocabulary, probe, reason):
    """Ids come by TLS, and the probe gets in; who trusts another authority does not."""
    address, tls = f"127.0.0.1:{free_port()}", ListenerTls(**SERVER)
    process = start_process(program, endpoint=address, tls=tls)
    wait_ready(process, **TRUST)
    assert len(generate(address, vocabulary.prompt(8), **TRUST)) == 3
    assert probe(runtime_at(address, tls))[0] == 0
    assert BY_OTHERS in asyncio.run(reason(address, **TRUST | {"authorities": TLS / "client.pem"}))
    assert process.stop() == 0


@pytest.mark.slow
def test_an_engine_process_demands_certificates(start_process, program, vocabulary, probe, reason, mutual):
    """Who shows a certificate of a named authority gets ids, and the probe gets in; who shows none does not."""
    address, tls = f"127.0.0.1:{free_port()}", ListenerTls(**mutual)
    process = start_process(program, endpoint=address, tls=tls)
    wait_ready(process, **TRUST_ENGINE, **OWN)
    assert len(generate(address, vocabulary.prompt(8), **TRUST_ENGINE, **OWN)) == 3
    assert probe(runtime_at(address, tls))[0] == 0
    assert CLOSED in asyncio.run(reason(address, **TRUST_ENGINE))
    assert process.stop() == 0


@pytest.mark.slow
def test_an_engine_process_names_a_missing_file(start_process, program):
    """Status 1 and one line, before the model is loaded."""
    tls = ListenerTls(certificate="/nowhere/tls.crt", key=TLS / "server.pem")
    process = start_process(program, endpoint=f"127.0.0.1:{free_port()}", tls=tls)
    assert process.process.wait(100) == 1
    last = process.errors().strip().splitlines()[-1]
    assert last == "engine: tls.certificate='/nowhere/tls.crt' cannot be read: No such file or directory"
