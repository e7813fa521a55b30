"""What ``tritonserver`` writes: passed on, kept where it says why a start failed, left out where it says nothing."""

from __future__ import annotations

import asyncio
import logging
import re
import sys
from collections import deque

from engine.triton.protocol import MODEL_NAME

logger = logging.getLogger("engine.triton")

MAX_LINE_BYTES = 1 << 20
KEPT_PROBLEMS = 5
_TRITON_LINE = re.compile(r"([IWEF])\d{4} [\d:.]+ \d+ \S+\] ?(.*)")
_LEVELS = {"I": logging.DEBUG, "W": logging.DEBUG, "E": logging.WARNING, "F": logging.ERROR}
"""Triton warns of absent GPUs and tells much that only its developers need."""
_LOAD_FAILURE = re.compile(
    rf"failed to load '{MODEL_NAME}' version 1: \w+: (?:\w+Exception: )?(.*?)(?:\\n\\nAt:.*)?\"?$"
)
"""The message, without the place in the code that the backend adds."""
_SERVES = "Started GRPCInferenceService at "
"""How the line begins with which Triton says that it has opened its port for gRPC."""
_ENDS = "Waiting for in-flight requests to complete."
"""The first line of its end."""
NOISE = (
    "CudaDriverHelper has not been initialized.",
    "Error: Failed to initialize NVML",
    "Signal (15) received.",
    "failed to stop server: Internal - Exit timeout expired. Exiting immediately.",
)
"""What a server that was built for GPUs says where there are none, and one that is stopped with requests running."""
STOP_NOISE = ("terminate called after throwing an instance of 'std::system_error'", "  what():  Invalid argument")
"""What the backend's stub says when the server has ended before the model was unloaded, which is so after the exit
timeout: it joins a thread twice. The core's process ends at that moment in any case."""


class ServerOutput:
    """Both output streams of one server."""

    def __init__(self) -> None:
        self.load_failure: str | None = None
        """Why the model could not be loaded, in the core's own words."""
        self.serves = asyncio.Event()
        """Set when the server takes requests."""
        self.is_ending = False
        """Whether the server has begun to end, for whatever reason."""
        self.is_stopping = False
        """Whether the server has been told to end."""
        self._problems: deque[str] = deque(maxlen=KEPT_PROBLEMS)

    def problems(self) -> str:
        """Return the last errors in one line."""
        return "; ".join(self._problems) or "it said nothing"

    async def read(self, process: asyncio.subprocess.Process) -> None:
        """Log what Triton says, and pass on what the model says, until both have ended."""
        lines = process.stdout
        while lines is not None and (line := await lines.readline()):
            text = line.decode("utf-8", "replace").rstrip()
            said = _TRITON_LINE.match(text)
            if said is None:
                if _is_models(text) and not (self.is_stopping and text in STOP_NOISE):
                    sys.stderr.write(text + "\n")
                continue
            level, words = said[1], said[2].strip('"')
            if words.startswith(_SERVES):
                self.serves.set()
            self.is_ending = self.is_ending or words == _ENDS
            if words and words not in NOISE:
                logger.log(_LEVELS[level], "%s", words)
                self._note(level, words)

    def _note(self, level: str, words: str) -> None:
        if level in "EF":
            self._problems.append(words)
        failure = _LOAD_FAILURE.search(words)
        if failure is not None and self.load_failure is None:
            self.load_failure = failure[1]


def _is_models(text: str) -> bool:
    """Tell whether a line comes from the model: Triton draws tables beside its log."""
    return bool(text) and text[0] not in "+|" and text not in NOISE
