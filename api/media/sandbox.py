"""Takes from a process, for good, the system calls that decoding pictures does not need.

Linux only, by a seccomp filter: whoever takes over a decoder through a fault in a codec can start no program, open no
connection, touch no other process and no file by its name. Where the kernel or the architecture has no such filter the
other limits of ``api.media.decoder_process`` remain.
"""

from __future__ import annotations

import ctypes
import errno
import platform
import struct
from typing import Final

_PR_SET_NO_NEW_PRIVS: Final = 38
_PR_SET_SECCOMP: Final = 22
_SECCOMP_MODE_FILTER: Final = 2
_ALLOW: Final = 0x7FFF0000
_ERROR: Final = 0x00050000
_KILL: Final = 0x80000000
_LOAD, _EQUAL, _AT_LEAST, _HAS_BITS, _RETURN = 0x20, 0x15, 0x35, 0x45, 0x06
_NUMBER_OFFSET, _ARCHITECTURE_OFFSET, _FIRST_ARGUMENT_OFFSET = 0, 4, 16
_X32_BIT: Final = 0x40000000
_CLONE_THREAD: Final = 0x00010000
_CLONE3: Final = 435

_INSTRUCTION: Final = struct.Struct("=HBBI")

ARCHITECTURES: Final = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}
"""The kernel's names (AUDIT_ARCH_*) of the machines for which the numbers below are known."""

FORBIDDEN: Final = {
    # open, creat, link, unlink, symlink, rename, mkdir, rmdir, chmod, chown and their later forms; truncate by name
    "x86_64": (
        2, 85, 86, 87, 88, 82, 83, 84, 90, 92, 94, 76, 133, 257, 437, 258, 259, 260, 263, 264, 265, 266, 268, 316,
        # socket, connect, accept, bind, listen, socketpair, accept4
        41, 42, 43, 49, 50, 53, 288,
        # fork, vfork, execve, execveat, kill, tkill, tgkill, ptrace, process_vm_readv, process_vm_writev, pidfd_*
        57, 58, 59, 322, 62, 200, 234, 101, 310, 311, 424, 434, 438,
        # mount, umount2, chroot, pivot_root, unshare, setns, bpf, keyctl, perf_event_open, userfaultfd, io_uring_*
        165, 166, 161, 155, 272, 308, 321, 250, 298, 323, 425, 426, 427,
        # modules, kexec, reboot, swap, clocks, shared memory and message queues by name
        175, 176, 313, 246, 320, 169, 167, 168, 227, 164, 29, 30, 31, 64, 68, 240,
    ),
    "aarch64": (
        # mknodat, mkdirat, unlinkat, symlinkat, linkat, renameat, truncate, fchmodat, fchownat, openat, openat2,
        # renameat2
        33, 34, 35, 36, 37, 38, 45, 53, 54, 56, 437, 276,
        # socket, socketpair, bind, listen, accept, connect, accept4
        198, 199, 200, 201, 202, 203, 242,
        # execve, execveat, kill, tkill, tgkill, ptrace, process_vm_readv, process_vm_writev, pidfd_*
        221, 281, 129, 130, 131, 117, 270, 271, 424, 434, 438,
        # umount2, mount, pivot_root, chroot, unshare, setns, bpf, keyctl, perf_event_open, userfaultfd, io_uring_*
        39, 40, 41, 51, 97, 268, 280, 219, 241, 282, 425, 426, 427,
        # modules, kexec, reboot, swap, clocks, shared memory and message queues by name
        105, 106, 273, 104, 294, 142, 224, 225, 112, 170, 180, 186, 190, 194, 196,
    ),
}  # fmt: skip
"""Numbers of the system calls that are refused, by machine."""

CLONE: Final = {"x86_64": 56, "aarch64": 220}
"""Number of the call that makes threads, which the decoder of WebP uses, and processes, which nobody needs."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_char_p))


def confine() -> bool:
    """Refuse the forbidden calls in this process and its threads from now on; tell whether that was possible."""
    machine = platform.machine()
    if machine not in ARCHITECTURES:
        return False
    code = _program(ARCHITECTURES[machine], FORBIDDEN[machine], CLONE[machine])
    library = ctypes.CDLL(None, use_errno=True)
    if library.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0):
        return False
    program = _Program(len(code) // _INSTRUCTION.size, code)
    return not library.prctl(_PR_SET_SECCOMP, _SECCOMP_MODE_FILTER, ctypes.byref(program), 0, 0)


def _program(architecture: int, forbidden: tuple[int, ...], clone: int) -> bytes:
    """Return the filter: end on a foreign architecture, refuse the forbidden numbers, allow the rest."""
    count = len(forbidden)
    lines = [
        (_LOAD, 0, 0, _ARCHITECTURE_OFFSET),
        (_EQUAL, 1, 0, architecture),
        (_RETURN, 0, 0, _KILL),
        (_LOAD, 0, 0, _NUMBER_OFFSET),
        # The second set of numbers that x86-64 has would go around the list.
        (_AT_LEAST, count + 5, 0, _X32_BIT),
        *((_EQUAL, count - index + 4, 0, number) for index, number in enumerate(forbidden)),
        # Its flags lie in memory, out of a filter's sight; told that it does not exist, libraries use the older call.
        (_EQUAL, 5, 0, _CLONE3),
        (_EQUAL, 0, 2, clone),
        (_LOAD, 0, 0, _FIRST_ARGUMENT_OFFSET),
        (_HAS_BITS, 0, 1, _CLONE_THREAD),
        (_RETURN, 0, 0, _ALLOW),
        (_RETURN, 0, 0, _ERROR | errno.EPERM),
        (_RETURN, 0, 0, _ERROR | errno.ENOSYS),
    ]
    return b"".join(_INSTRUCTION.pack(*line) for line in lines)
