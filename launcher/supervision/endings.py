"""What the end of a process means: whether another start could help, and if not, the launcher's own exit code.

Pure. ``launcher.supervision.supervisor`` tells how a process ended and what was known then; here stands what follows.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Final

from launcher.errors import ExitCode, LaunchError

API_BAD_SETTINGS: Final = 64
API_PORT_TAKEN: Final = 98
"""With these statuses an API process says why it cannot start."""
_LESS_MEMORY: Final = "lower NIM_MAX_MODEL_LEN or NIM_MAX_NUM_SEQS, use a smaller model, or give it more memory"


@dataclass(frozen=True, slots=True)
class Ending:
    """How one process ended.

    Attributes:
        name: ``api`` or ``engine``; of several API processes ``api-1`` and so on.
        status: its exit status, minus the signal's number if it died of one.
        by_guard: the memory guard stopped it.
        for_memory: the kernel killed it because memory ran out; None when the kernel does not tell.
    """

    name: str
    status: int
    by_guard: bool = False
    for_memory: bool | None = None

    @property
    def was_killed(self) -> bool:
        """Tell whether it died of SIGKILL by a hand that is not ours."""
        return self.status == -signal.SIGKILL and not self.by_guard

    @property
    def is_for_memory(self) -> bool:
        """Tell whether memory was the cause, as far as that is known for sure."""
        return self.by_guard or (self.was_killed and self.for_memory is True)

    def describe(self) -> str:
        """Say in words how it ended."""
        if self.by_guard:
            return "stopped by the memory guard"
        if self.is_for_memory:
            return "killed by the kernel because memory ran out"
        return describe(self.status)


def before_ready(ending: Ending, kills: int) -> LaunchError | None:
    """Tell "can never start" from "crashed", for an engine that was never ready yet; None allows another start.

    Args:
        ending: how it ended.
        kills: how often it was killed from outside so far, this time included.
    """
    if ending.is_for_memory:
        message = f"the engine was {ending.describe()} while it loaded the model"
        return LaunchError(ExitCode.OUT_OF_MEMORY, message, _LESS_MEMORY)
    # One kill may have been somebody's hand; the kernel's comes again.
    if ending.was_killed and kills > 1:
        message = "the engine was killed twice while it loaded the model, most likely because memory ran out"
        return LaunchError(ExitCode.OUT_OF_MEMORY, message, _LESS_MEMORY)
    if ending.status >= 0 and not ending.by_guard:
        message = "the engine could not load the model; its own message stands above"
        return LaunchError(ExitCode.CANNOT_START, message)
    return None


def api_never_live(ending: Ending) -> LaunchError:
    """Return why the launcher stops when the API ended before it ever answered."""
    if ending.is_for_memory:
        return LaunchError(ExitCode.OUT_OF_MEMORY, f"the API was {ending.describe()} while it started", _LESS_MEMORY)
    if ending.status == API_BAD_SETTINGS:
        return LaunchError(ExitCode.BAD_SETTINGS, "the API refuses its settings; its own message stands above")
    if ending.status == API_PORT_TAKEN:
        message = "the port was taken by another program meanwhile"
        return LaunchError(ExitCode.PORT_UNAVAILABLE, message, "set NIM_SERVER_PORT to a free port")
    return LaunchError(ExitCode.API_FAILED, f"the API could not start ({ending.describe()})")


def not_started(name: str, error: OSError) -> LaunchError:
    """Return why the launcher stops when the system did not start a process at all."""
    code = ExitCode.ENGINE_FAILED if name == "engine" else ExitCode.API_FAILED
    return LaunchError(
        code,
        f"the {name} process could not be started: {error.strerror or error}",
        "see the limits of this user: ulimit -a",
    )


def gave_up(ending: Ending, allowed: int) -> LaunchError:
    """Return why the launcher stops when a process ended more often than allowed."""
    message = f"the {ending.name} process ended more than {allowed} times within ten minutes, last: {ending.describe()}"
    # Nobody but a guardian of the memory kills an engine again and again; not all of them are the kernel.
    if ending.is_for_memory or (ending.name == "engine" and ending.was_killed):
        return LaunchError(ExitCode.OUT_OF_MEMORY, message, _LESS_MEMORY)
    if ending.name != "engine":
        return LaunchError(ExitCode.API_FAILED, message)
    return LaunchError(ExitCode.ENGINE_FAILED, message)


def describe(status: int) -> str:
    """Say in words how a process with this status ended."""
    if status >= 0:
        return f"status {status}"
    try:
        return f"killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"killed by signal {-status}"
