"""What runs inside vLLM's own engine process: its scheduler, with two things added.

vLLM imports this class by its name (``scheduler_cls``), so a version that cannot take it does not start. A grammar may
cover ids that the prompt ends with, which vLLM's requests cannot say; here the compiled grammar takes them before the
first mask. And when the process that started vLLM is gone, however it ended, this one ends too.
"""

from __future__ import annotations

import os
import select
import threading
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

from vllm.v1.core.sched.async_scheduler import AsyncScheduler

from engine.vllm.sampling import BEGUN

if TYPE_CHECKING:
    from vllm.v1.request import Request


class Gemma4Scheduler(AsyncScheduler):  # type: ignore[misc] # vLLM is not installed where types are checked
    """vLLM's scheduler for asynchronous steps."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        """Take whatever vLLM gives."""
        super().__init__(*arguments, **options)
        _follow_parent()

    def add_request(self, request: Request) -> None:
        """Queue a request; its grammar is being compiled by vLLM's own threads."""
        begun = ((request.sampling_params and request.sampling_params.extra_args) or {}).get(BEGUN)
        constraint = request.structured_output_request
        if begun and constraint is not None:
            constraint.grammar = _after(constraint._grammar, begun)  # noqa: SLF001 - the property hides the future
        super().add_request(request)


def _after(compiled: Any, begun: list[int]) -> Future[Any]:
    """Return a future of the grammar when it has taken what the answer has begun with."""
    result: Future[Any] = Future()

    def advance(grammar: Any) -> None:
        if not grammar.accept_tokens("begun", begun):
            message = "the grammar does not take what the answer has begun with"
            raise ValueError(message)
        result.set_result(grammar)

    def settle(future: Future[Any]) -> None:
        try:
            advance(future.result())
        except Exception as error:  # noqa: BLE001 - whatever it is, vLLM ends this one request with it
            result.set_exception(error)

    if isinstance(compiled, Future):
        compiled.add_done_callback(settle)
    else:
        done: Future[Any] = Future()
        done.set_result(compiled)
        settle(done)
    return result


def _follow_parent() -> None:
    parent = os.pidfd_open(os.getppid())

    def watch() -> None:
        poll = select.poll()
        poll.register(parent, select.POLLIN)
        poll.poll()
        os._exit(1)

    threading.Thread(target=watch, name="parent-watch", daemon=True).start()
