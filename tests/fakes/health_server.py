"""A stand-in for the API and for the engine: ``python health_server.py ROLE FOLDER [BEHAVIOUR]``.

The API answers the health routes on the port in ``FOLDER/port``; it is ready while ``FOLDER/engine.pid`` names a
running process. The engine only writes that file. A behaviour makes a process fail in one chosen way. With a file
``FOLDER/listen_fd`` the API takes over the inherited socket of that number instead of opening the port.
"""

from __future__ import annotations

import http.server
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path


def _log(folder: Path, line: str) -> None:
    with (folder / "events.txt").open("a") as file:
        file.write(line + "\n")


def _engine_runs(folder: Path) -> bool:
    try:
        os.kill(int((folder / "engine.pid").read_text()), 0)
    except (OSError, ValueError):
        return False
    return True


def _api(folder: Path, behaviour: str) -> None:
    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            ready = self.path.endswith("live") or (behaviour != "never-ready" and _engine_runs(folder))
            self.send_response(200 if ready else 503)
            self.send_header("content-length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    inherited = folder / "listen_fd"
    address = ("127.0.0.1", int((folder / "port").read_text()))
    server = http.server.ThreadingHTTPServer(address, Handler, bind_and_activate=not inherited.exists())
    if inherited.exists():
        server.socket = socket.socket(fileno=int(inherited.read_text()))

    def stop(*_: object) -> None:
        _log(folder, f"api stopped, engine {'runs' if _engine_runs(folder) else 'gone'}")
        threading.Thread(target=server.shutdown).start()

    if behaviour != "stubborn":
        signal.signal(signal.SIGTERM, stop)
    else:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    server.serve_forever()


def _eat_memory() -> None:
    """Take memory until somebody puts an end to it; the kernel is told to choose this process first."""
    Path("/proc/self/oom_score_adj").write_text("1000")
    kept = []
    while True:
        kept.append(b"x" * 2**22)


def _engine(folder: Path, behaviour: str) -> None:
    if behaviour == "killed":
        os.kill(os.getpid(), signal.SIGKILL)
    if behaviour == "eats-memory":
        _eat_memory()
    stopped = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stopped.set())
    partial = folder / f"engine.{os.getpid()}"
    partial.write_text(str(os.getpid()))
    partial.replace(folder / "engine.pid")
    _log(folder, "engine started")
    if behaviour == "crashes-when-ready":
        while '"ready"' not in (folder / "status.json").read_text():
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGSEGV)
    stopped.wait()
    _log(folder, "engine stopped")


def main() -> int:
    """Play the role until told to stop."""
    role, folder, behaviour = sys.argv[1], Path(sys.argv[2]), sys.argv[3] if len(sys.argv) > 3 else ""
    if behaviour.startswith("exit-"):
        return int(behaviour.removeprefix("exit-"))
    (_api if role == "api" else _engine)(folder, behaviour)
    return 0


if __name__ == "__main__":
    sys.exit(main())
