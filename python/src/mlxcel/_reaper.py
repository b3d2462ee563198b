"""Parent of a server that cannot watch its owner by itself. A script of its own: standard library only.

    python -I -S _reaper.py CONTROL OWNER GRACE FOLDER BINARY [ARGUMENT…]

CONTROL is a connected socket's descriptor. Over it go, one a line, `pid N` or
`error ERRNO` after the start and `exit CODE` at the end (negative for a
signal); from the owner come the letters T (SIGTERM) and K (SIGKILL). When the
socket ends, when the parent is no longer OWNER, or on a SIGTERM of its own, the
reaper asks the server with SIGTERM and kills it after GRACE seconds. After an
owner's death it also removes the socket in FOLDER and FOLDER itself, if given.

As the server's parent it cannot signal a stranger: the process id stays taken
until the reaper has read its status.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import stat
import sys
import time

_LOOK = 0.25  # seconds between two looks at the parent's id
_RESET = ("SIGTERM", "SIGINT", "SIGHUP", "SIGPIPE", "SIGXFSZ", "SIGCHLD")


def main() -> None:
    control, owner, grace, folder = int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3]), sys.argv[4]
    os.set_inheritable(control, False)
    if os.getppid() != owner:
        return
    signals = _wakeups()
    try:
        pid = _spawn(sys.argv[5:])
    except OSError as error:
        os.write(control, f"error {error.errno}\n".encode())
        return
    _let_go_of_output()
    reaper = Reaper(pid, control, owner, grace, signals)
    reaper.tell(f"pid {pid}")
    code = reaper.watch()
    reaper.tell(f"exit {code}")
    if reaper.owner_gone and folder:
        _remove(folder)


class Reaper:
    """One server, from its start to its end."""

    def __init__(self, pid: int, control: int, owner: int, grace: float, signals: int) -> None:
        self._pid = pid
        self._control = control
        self._owner = owner
        self._grace = grace
        self._signals = signals
        self._kill_at: float | None = None
        self.owner_gone = False

    def tell(self, line: str) -> None:
        with contextlib.suppress(OSError):  # an owner that is gone needs no news
            os.write(self._control, f"{line}\n".encode())

    def watch(self) -> int:
        """Serve the owner until the server has ended; its exit code."""
        while True:
            pid, status = os.waitpid(self._pid, os.WNOHANG)
            if pid:
                return os.waitstatus_to_exitcode(status)
            if self._kill_at is not None and time.monotonic() >= self._kill_at:
                self._kill_at = None
                self._signal(signal.SIGKILL)
            watched = [self._signals] if self.owner_gone else [self._signals, self._control]
            readable, _, _ = select.select(watched, [], [], _LOOK)
            if self._signals in readable and signal.SIGTERM in os.read(self._signals, 1024):
                self._end()
            if self._control in readable:
                self._obey()
            if not self.owner_gone and os.getppid() != self._owner:
                self._bereave()

    def _obey(self) -> None:
        try:
            letters = os.read(self._control, 1024)
        except OSError:
            letters = b""
        if not letters:
            self._bereave()
        if b"T" in letters:
            self._signal(signal.SIGTERM)
        if b"K" in letters:
            self._signal(signal.SIGKILL)

    def _bereave(self) -> None:
        self.owner_gone = True
        self._end()

    def _end(self) -> None:
        if self._kill_at is None:
            self._signal(signal.SIGTERM)
            self._kill_at = time.monotonic() + self._grace

    def _signal(self, number: int) -> None:
        # The whole group: BINARY may be a script around the server.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._pid, number)


def _wakeups() -> int:
    """A pipe in which each SIGCHLD and SIGTERM leaves a byte; the rest of the terminal's are ignored."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    for number in (signal.SIGINT, signal.SIGHUP, signal.SIGPIPE):
        signal.signal(number, signal.SIG_IGN)
    # An owner may have been born with signals blocked; the server must hear SIGTERM.
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    return read


def _spawn(command: list[str]) -> int:
    """Fork and exec, in a session of its own; OSError when there is nothing to execute."""
    read, write = os.pipe()
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    pid = os.fork()
    if pid == 0:
        try:
            signal.set_wakeup_fd(-1)
            for name in _RESET:
                signal.signal(getattr(signal, name), signal.SIG_DFL)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            os.setsid()
            os.execv(command[0], command)  # noqa: S606 - no shell is wanted
        except OSError as error:
            os.write(write, str(error.errno).encode())
        finally:
            os._exit(127)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    os.close(write)
    failed = os.read(read, 16)
    os.close(read)
    if failed:
        os.waitpid(pid, 0)
        raise OSError(int(failed), os.strerror(int(failed)))
    return pid


def _let_go_of_output() -> None:
    """Only the server writes to the pipes from here on, so that their end is its end."""
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 1)
    os.dup2(null, 2)
    os.close(null)


def _remove(folder: str) -> None:
    # Without pathlib, whose import takes longer than all of this.
    with contextlib.suppress(OSError):
        for name in os.listdir(folder):  # noqa: PTH208
            path = f"{folder}/{name}"
            if stat.S_ISSOCK(os.lstat(path).st_mode):
                os.unlink(path)  # noqa: PTH108
        os.rmdir(folder)  # noqa: PTH106


if __name__ == "__main__":
    main()
