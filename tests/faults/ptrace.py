"""Stops programs at chosen system calls: ptrace with a seccomp filter, so that other calls cost nothing.

Linux on x86-64 only. A stopped call has not been executed yet: it can go on, be answered with an error
without being executed, or never return because its process is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

_libc = ctypes.CDLL(None, use_errno=True)
_libc.ptrace.argtypes = [ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_void_p]
_libc.ptrace.restype = ctypes.c_long

_TRACEME, _CONT, _GETREGS, _SETREGS, _SYSCALL, _SETOPTIONS = 0, 7, 12, 13, 24, 0x4200
_EVENT_SECCOMP = 7
# fork, vfork, clone, exec, seccomp; and the kernel kills all that is traced when the tracer goes.
_OPTIONS = 0x2 | 0x4 | 0x8 | 0x10 | 0x80 | 0x100000
_WALL = 0x40000000
_PR_SET_NO_NEW_PRIVS, _PR_SET_SECCOMP, _FILTER_MODE = 38, 22, 2
_AUDIT_ARCH_X86_64 = 0xC000003E
_ALLOW, _TRACE = 0x7FFF0000, 0x7FF00000
_LOAD, _EQUAL, _RETURN = 0x20, 0x15, 0x06
_REGISTERS = 27
_RAX, _ORIG_RAX = 10, 15
# rdi, rsi, rdx, r10, r8, r9
_ARGUMENTS = (14, 13, 12, 7, 9, 8)

MACHINE = "x86_64"


@dataclass
class Call:
    """One system call that a traced thread is about to make."""

    thread: int
    number: int
    arguments: tuple[int, ...]

    def text(self, argument: int) -> str:
        """Read a path argument from the thread's memory."""
        address = self.arguments[argument]
        if not address:
            return ""
        with Path(f"/proc/{self.thread}/mem").open("rb", buffering=0) as memory:
            memory.seek(address)
            data = memory.read(4096 - address % 4096)
            if b"\0" not in data:
                data += memory.read(4096)
        return os.fsdecode(data.split(b"\0", 1)[0])

    def descriptor(self, argument: int) -> str:
        """Return the path that a descriptor argument stands for."""
        number = ctypes.c_int(self.arguments[argument] & 0xFFFFFFFF).value
        with contextlib.suppress(OSError):
            return str(Path(f"/proc/{self.thread}/fd/{number}").readlink())
        return ""


GO_ON = 0
# What a decision returns: GO_ON, a positive errno to answer with instead of making the call, or one of these.
KILL_THIS = -1
KILL_ALL = -2
# Plus an errno: make the call and then answer with that, as an NFS client does when the server's first answer was
# lost and the repeated call finds the work done.
DONE_BUT = 1 << 16


def _ptrace(request: int, thread: int, address: int = 0, data: object = None) -> None:
    if _libc.ptrace(request, thread, address, data) < 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def trace_me(numbers: Iterable[int]) -> None:
    """In the child: be traced by the parent, and stop at these system calls."""
    _ptrace(_TRACEME, 0)
    os.kill(os.getpid(), signal.SIGSTOP)
    wanted = sorted(set(numbers))
    program = [(_LOAD, 0, 0, 4), (_EQUAL, 1, 0, _AUDIT_ARCH_X86_64), (_RETURN, 0, 0, _ALLOW), (_LOAD, 0, 0, 0)]
    for at, number in enumerate(wanted):
        program.append((_EQUAL, len(wanted) - at, 0, number))
    program += [(_RETURN, 0, 0, _ALLOW), (_RETURN, 0, 0, _TRACE)]
    code = b"".join(struct.pack("HBBI", *line) for line in program)
    buffer = ctypes.create_string_buffer(code, len(code))
    header = struct.pack("HxxxxxxP", len(program), ctypes.addressof(buffer))
    if _libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or _libc.prctl(
        _PR_SET_SECCOMP, _FILTER_MODE, ctypes.c_char_p(header), 0, 0
    ):
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


@dataclass
class Tracer:
    """Runs a stopped child and all that it forks to the end."""

    decide: Callable[[Call], int]
    known: set[int] = field(default_factory=set)
    answers: dict[int, int] = field(default_factory=dict)

    def run(self, root: int) -> int:
        """Let it run; every chosen call is shown to ``decide`` first.

        Returns:
            the root's wait status, when it and all its offspring have ended.
        """
        os.waitpid(root, _WALL)
        _ptrace(_SETOPTIONS, root, 0, _OPTIONS)
        self.known = {root}
        self._go_on(root, 0)
        result = 0
        while True:
            try:
                thread, status = os.waitpid(-1, _WALL)
            except ChildProcessError:
                return result
            if os.WIFSTOPPED(status):
                self._stopped(thread, status)
            else:
                self.known.discard(thread)
                if thread == root:
                    result = status

    def _stopped(self, thread: int, status: int) -> None:
        number, event = os.WSTOPSIG(status), status >> 16
        if thread not in self.known:  # a new process or thread begins with a stop
            self.known.add(thread)
            number = 0
        elif event == _EVENT_SECCOMP:
            with contextlib.suppress(ProcessLookupError):
                self._called(thread)
            return
        elif thread in self.answers and number == signal.SIGTRAP and not event:  # its call is made
            registers = (ctypes.c_ulong * _REGISTERS)()
            _ptrace(_GETREGS, thread, 0, ctypes.addressof(registers))
            registers[_RAX] = ctypes.c_ulong(-self.answers.pop(thread)).value
            _ptrace(_SETREGS, thread, 0, ctypes.addressof(registers))
            number = 0
        elif event or number == signal.SIGTRAP:
            number = 0
        self._go_on(thread, number)

    def _called(self, thread: int) -> None:
        registers = (ctypes.c_ulong * _REGISTERS)()
        _ptrace(_GETREGS, thread, 0, ctypes.addressof(registers))
        call = Call(thread, registers[_ORIG_RAX], tuple(registers[index] for index in _ARGUMENTS))
        decision = self.decide(call)
        if decision == KILL_ALL:
            for other in self.known:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(other, signal.SIGKILL)
        elif decision == KILL_THIS:
            os.kill(thread, signal.SIGKILL)
        elif decision > DONE_BUT:
            self.answers[thread] = decision - DONE_BUT
            _ptrace(_SYSCALL, thread)
        else:
            if decision:
                registers[_ORIG_RAX] = ctypes.c_ulong(-1).value
                registers[_RAX] = ctypes.c_ulong(-decision).value
                _ptrace(_SETREGS, thread, 0, ctypes.addressof(registers))
            self._go_on(thread, 0)

    @staticmethod
    def _go_on(thread: int, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):  # killed meanwhile
            _ptrace(_CONT, thread, 0, number)
