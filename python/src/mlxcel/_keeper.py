"""Keeps one shared server: its parent, its log, and whoever tidies up after it.

Run as a script of its own (`python -I -S _keeper.py`, standard library only), so
that the server belongs to none of its users and survives each of them. Works on
the same lock as `_share_place`; reads one JSON object from stdin:

    command    argv of the server
    lock_fd    the inherited lock, held until the starter has written its record
    lock, record, socket, log, exit    paths of its files; `{pid}` in the last two
    notes      a file to remove with the server; `{pid}` stands for its pid
    log_bytes  size at which the log is begun anew (one older part is kept)

It answers `{"pid": …}` or `{"error": …}` and waits for a line. Without one the
starter is dead, nobody knows of the server, and it is ended.
"""

import collections
import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
from pathlib import Path

_TAIL_BYTES = 65536
_CHUNK = 65536
_LINE_BYTES = 65536
_LAST_READS = 64
_GRACE = 10.0


class Log:
    """A file that never grows past two parts of `limit` bytes, and its last lines in memory.

    `secret` is blotted out of every line.
    """

    def __init__(self, path: str, limit: int, secret: bytes) -> None:
        self._path = path
        self._limit = limit
        self._secret = secret
        self._size = 0
        self._rest = b""
        self._recent: collections.deque[bytes] = collections.deque()
        self._recent_bytes = 0
        self._file = self._begin()

    def write(self, data: bytes) -> None:
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self._keep(line + b"\n")
        if len(self._rest) > _LINE_BYTES:
            self.flush()

    def flush(self) -> None:
        self._keep(self._rest)
        self._rest = b""

    def tail(self) -> str:
        return b"".join(self._recent)[-_TAIL_BYTES:].decode("utf-8", errors="replace").strip()

    def _keep(self, line: bytes) -> None:
        if self._secret:
            line = line.replace(self._secret, b"***")
        self._recent.append(line)
        self._recent_bytes += len(line)
        while self._recent_bytes - len(self._recent[0]) >= _TAIL_BYTES:
            self._recent_bytes -= len(self._recent.popleft())
        with contextlib.suppress(OSError):  # a full disk must not stop the server
            if self._size + len(line) > self._limit:
                Path(self._path).rename(f"{self._path}.1")
                os.close(self._file)
                self._file, self._size = self._begin(), 0
            self._size += os.write(self._file, line)

    def _begin(self) -> int:
        # What an earlier server of this name wrote is over; a link would lead elsewhere.
        flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
        return os.open(self._path, flags, 0o600)


def main() -> None:
    config = json.loads(sys.stdin.buffer.readline())
    os.umask(0o077)
    if os.fork():
        os._exit(0)  # so that nobody but init has this process to wait for
    os.setsid()
    try:
        keep(config)
    except Exception as error:  # noqa: BLE001 - told to the starter, as far as it still listens
        with contextlib.suppress(OSError):
            answer({"error": f"{type(error).__name__}: {error}"})
        os._exit(1)


def keep(config: dict[str, object]) -> None:
    secret = os.environ.get("LLAMA_API_KEY", "")
    log = Log(str(config["log"]), int(str(config["log_bytes"])), secret.encode())
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    os.set_blocking(woken, False)
    signal.set_wakeup_fd(wake, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: None)
    try:
        server = subprocess.Popen(
            config["command"],  # type: ignore[call-overload]
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd="/",  # no folder of the first user's is held, and no relative path means another file
            start_new_session=True,
        )
    except OSError as error:
        answer({"error": f"cannot start it: {error.strerror}"})
        tidy(config, None, 0, "")
        return
    signal.signal(signal.SIGTERM, lambda *_: server.terminate())
    acknowledged = False
    with contextlib.suppress(OSError):
        answer({"pid": server.pid})
        acknowledged = sys.stdin.buffer.readline() == b"ok\n"
    if not acknowledged:
        server.terminate()
        try:
            server.wait(_GRACE)
        except subprocess.TimeoutExpired:
            server.kill()
    silence()
    if acknowledged:
        os.close(int(str(config["lock_fd"])))
    code = drain(server, log, woken)
    tidy(config, server.pid, code if acknowledged else 0, log.tail(), locked=not acknowledged)


def drain(server: "subprocess.Popen[bytes]", log: Log, woken: int) -> int:
    """Write the server's output down until it ends; its exit status."""
    pipe = server.stdout.fileno()  # type: ignore[union-attr]
    os.set_blocking(pipe, False)
    with selectors.DefaultSelector() as selector:
        selector.register(pipe, selectors.EVENT_READ)
        selector.register(woken, selectors.EVENT_READ)
        while server.poll() is None:
            for key, _ in selector.select():
                if key.fd == woken:
                    os.read(woken, _CHUNK)
                elif take(pipe, log) == b"":
                    selector.unregister(pipe)
    for _ in range(_LAST_READS):  # what it wrote last; another process may hold the pipe, and write on
        if not take(pipe, log):
            break
    log.flush()
    return server.returncode


def take(pipe: int, log: Log) -> "bytes | None":
    """One read: empty at the end, None when there is nothing now."""
    try:
        data = os.read(pipe, _CHUNK)
    except BlockingIOError:
        return None
    log.write(data)
    return data


def tidy(config: dict[str, object], pid: "int | None", code: int, tail: str, *, locked: bool = True) -> None:
    """Remove the server's files, unless another server has them by now. A failure leaves word of itself."""
    if code != 0 and pid is not None:
        path = str(config["exit"]).format(pid=pid)
        draft = Path(f"{path}.new")
        draft.write_text(json.dumps({"pid": pid, "exit_code": code, "tail": tail}), encoding="utf-8")
        draft.rename(path)
    if pid is not None:
        unlink(str(config["notes"]).format(pid=pid))
    if not locked and not lock_again(str(config["lock"])):
        return
    try:
        owner = json.loads(Path(str(config["record"])).read_text(encoding="utf-8")).get("pid")
    except (OSError, ValueError, AttributeError):
        owner = None
    if owner not in (None, pid):
        return
    if not locked and owner is None:
        return  # tidied by somebody else
    unlink(str(config["record"]))
    if not answers(str(config["socket"])):  # whatever the records say
        unlink(str(config["socket"]))
    if code == 0:
        unlink(str(config["log"]))
        unlink(f"{config['log']}.1")
        unlink(str(config["lock"]))  # last: who takes it now makes a new one


def answers(path: str) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(path)
        except OSError:
            return False
    return True


def lock_again(path: str) -> bool:
    """Take the lock; False when its file is gone, and with it all there was to tidy."""
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except OSError:
            return False
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        with contextlib.suppress(OSError):
            if os.path.samestat(Path(path).stat(), os.fstat(descriptor)):
                return True  # held until this process ends
        os.close(descriptor)


def answer(message: dict[str, object]) -> None:
    os.write(1, json.dumps(message).encode() + b"\n")


def silence() -> None:
    """Let go of the starter's pipes."""
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)


def unlink(path: str) -> None:
    with contextlib.suppress(OSError):
        Path(path).unlink()


if __name__ == "__main__":
    main()
