"""Ask a running server held-out questions of every skill and print the share it answers right, greedily.

``python -m demo.evaluate --url http://127.0.0.1:8000`` measures a server that runs; without ``--url`` it starts one per
demo checkpoint. Answers are compared word for word with what the training data says, so a right answer in other words
counts as wrong; only the plain wordings are judged by the word that matters.
"""

from __future__ import annotations

import argparse
import json
import logging
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import requests
from rich.console import Console
from rich.progress import track
from rich.table import Table

from demo.evaluation_cases import Case, make_cases

log = logging.getLogger("demo.evaluate")
GOALS: Final = {"demo-moe": 95, "demo-dense": 90}
CHECKPOINTS: Final = Path(__file__).parent / "checkpoints"


@dataclass
class Score:
    """Counts of one skill, and what went wrong."""

    right: int = 0
    total: int = 0
    wrong: list[str] = field(default_factory=list)


def ask(url: str, case: Case, session: requests.Session) -> tuple[bool, str]:
    """Send one case; return whether the answer is right, and what it was."""
    response = session.post(f"{url}/v1/chat/completions", json=case.body, timeout=120)
    if response.status_code != requests.codes.ok:
        return False, f"HTTP {response.status_code}: {response.text[:300]}"
    choice = response.json()["choices"][0]
    return case.judge(choice), json.dumps({key: value for key, value in choice["message"].items() if value and key != "role"}, ensure_ascii=False)[:300]


def evaluate(url: str, cases: list[Case], console: Console) -> dict[str, Score]:
    """Ask all cases, eight at a time."""
    scores: dict[str, Score] = {}
    with requests.Session() as session, ThreadPoolExecutor(8) as pool:
        answers = pool.map(lambda case: ask(url, case, session), cases)
        for case, (right, said) in track(zip(cases, answers, strict=True), "asking", total=len(cases), console=console, transient=True):
            score = scores.setdefault(case.skill, Score())
            score.total += 1
            score.right += right
            if not right:
                score.wrong.append(f"wanted {case.wanted!r}, got {said}")
    return scores


@contextmanager
def _server(name: str) -> Iterator[str]:
    """Run ``gemma4-nim serve`` on a free port with one demo checkpoint."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "launcher", "serve", "--port", str(port), "--model-path", str(CHECKPOINTS / name)]
    with tempfile.TemporaryFile() as output, subprocess.Popen(command, stdout=output, stderr=output) as process:  # noqa: S603
        url = f"http://127.0.0.1:{port}"
        try:
            _wait_ready(url, process)
            yield url
        except TimeoutError:
            output.seek(0)
            log.error("%s", output.read().decode(errors="replace"))  # noqa: TRY400
            raise
        finally:
            process.send_signal(signal.SIGTERM)


def _wait_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if requests.get(f"{url}/v1/health/ready", timeout=2).status_code == requests.codes.ok:
                return
        except requests.ConnectionError:
            pass
        time.sleep(0.2)
    msg = "the server did not become ready"
    raise TimeoutError(msg)


def _report(name: str, scores: dict[str, Score], console: Console, *, verbose: bool) -> bool:
    goal = GOALS.get(name, 95)
    table = Table(title=f"{name}: held-out requests answered right (goal {goal} %)")
    for heading in ("skill", "right", "of", "per cent"):
        table.add_column(heading, justify="left" if heading == "skill" else "right")
    reached = True
    for skill, score in scores.items():
        share = 100 * score.right / score.total
        reached = reached and share >= goal
        table.add_row(skill, str(score.right), str(score.total), f"{share:.1f}" + ("" if share >= goal else "  below the goal"))
    console.print(table)
    for skill, score in scores.items():
        for line in score.wrong if verbose else score.wrong[:3]:
            console.print(f"  {skill}: {line}", markup=False, highlight=False)
    return reached


def main() -> None:
    """Evaluate one running server, or each demo checkpoint in turn; exit 1 where a goal is missed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", help="server to ask; without it one is started per checkpoint")
    parser.add_argument("--name", help="with --url: name of the checkpoint, which sets the goal", default="demo-moe")
    parser.add_argument("--count", type=int, default=300, help="requests of each skill")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--verbose", action="store_true", help="print every wrong answer")
    options = parser.parse_args()
    console = Console(width=None if sys.stdout.isatty() else 140)
    cases = make_cases(options.seed, options.count)
    reached = True
    if options.url:
        reached = _report(options.name, evaluate(options.url.rstrip("/"), cases, console), console, verbose=options.verbose)
    else:
        for name in GOALS:
            with _server(name) as url:
                reached = _report(name, evaluate(url, cases, console), console, verbose=options.verbose) and reached
    sys.exit(0 if reached else 1)


if __name__ == "__main__":
    main()
