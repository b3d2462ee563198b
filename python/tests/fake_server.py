"""A stand-in for `mlxcel serve` that can misbehave on request; standard library only.

It takes the real command line. `--fake-…` flags, passed through `extra_args`,
force the faults that a real server would only show by accident.
"""

from __future__ import annotations

import argparse
import json
import os
import select
import signal
import socketserver
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("command", choices=["serve"])
    parser.add_argument("-m", dest="model", required=True)
    parser.add_argument("-a", dest="alias")
    parser.add_argument("--host", required=True)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--ctx-size", type=int)
    parser.add_argument("--n-predict", type=int)
    parser.add_argument("--n-parallel", type=int)
    parser.add_argument("--warmup", action=argparse.BooleanOptionalAction)
    parser.add_argument("--fake-exit", type=int, help="write to stderr and exit with this code at once")
    parser.add_argument("--fake-exit-loading", type=int, help="the same, but after the listener is up")
    parser.add_argument("--fake-die-by", type=int, help="end by this signal at once")
    parser.add_argument("--fake-load-seconds", type=float, default=0.0, help="time until ready")
    parser.add_argument("--fake-stuck", action="store_true", help="never ready, never any progress")
    parser.add_argument("--fake-silent", action="store_true", help="never listens")
    parser.add_argument("--fake-ignore-sigterm", action="store_true")
    parser.add_argument(
        "--fake-flood", type=int, default=0, help="bytes to write to both pipes before listening"
    )
    parser.add_argument("--fake-old", action="store_true", help="binds only after loading, announces nothing")
    parser.add_argument(
        "--fake-port-taken", type=Path, help="fail as if the port were taken until this file exists"
    )
    parser.add_argument("--fake-port-error", help="what it then says")
    parser.add_argument("--fake-lifeline", action="store_true", help="end with the owner, as ours does")
    parser.add_argument(
        "--fake-die-once", type=Path, help="end by SIGKILL when this file appears, and remove it first"
    )
    parser.add_argument("--fake-fail-from", type=Path, help="when this file exists, fail before listening")
    parser.add_argument("--fake-bytes", type=int, help="tell the load in bytes of so many, too")
    parser.add_argument("--fake-busy", action="store_true", help="compute while loading")
    parser.add_argument("--fake-dump", type=Path, help="write argv, environment and process facts here")
    parser.add_argument("--fake-record", type=Path, help="append every request here, one JSON object a line")
    parser.add_argument("--fake-print-key", action="store_true", help="leak the key to stderr")
    parser.add_argument("--fake-any-key", action="store_true", help="check no key")
    parser.add_argument("--fake-other-key", action="store_true", help="accept only a key of its own")
    return parser.parse_args()


class State:
    """Progress of the pretended load."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options = options
        self.began = time.monotonic()
        self.key = "another" if options.fake_other_key else os.environ.get("LLAMA_API_KEY", "")
        self.record_lock = threading.Lock()

    @property
    def progress(self) -> float:
        if self.options.fake_stuck:
            return 0.25
        seconds = self.options.fake_load_seconds
        return 1.0 if seconds <= 0 else min((time.monotonic() - self.began) / seconds, 1.0)

    def record(self, entry: dict[str, Any]) -> None:
        if self.options.fake_record is not None:
            with self.record_lock, self.options.fake_record.open("a") as file:
                file.write(json.dumps(entry) + "\n")


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    state: State

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def address_string(self) -> str:
        return "unix"

    def do_GET(self) -> None:
        if self.path == "/health":
            progress = self.state.progress
            if progress < 1:
                body = {"status": "loading", "stage": "weights", "progress": round(progress, 2)}
                if (total := self.state.options.fake_bytes) is not None:
                    body |= {"bytes_done": int(progress * total), "bytes_total": total}
                self.reply(503, body)
            else:
                self.reply(200, {"status": "ok"})
            return
        if not self.authorized():
            return
        if self.path == "/props" and self.state.options.fake_lifeline:
            tokens = {"prompt_tokens_total": 7, "generated_tokens_total": 5}
            rates = {"prompt_tokens_per_second": 1.5, "generated_tokens_per_second": 0.5}
            memory = {"rss_bytes": 4, "active_bytes": 3, "peak_bytes": 2, "cache_bytes": 1}
            self.reply(200, {"memory": memory, "throughput": tokens | rates})
        elif self.path == "/v1/models":
            name = self.state.options.alias or Path(self.state.options.model).name
            self.reply(200, {"object": "list", "data": [{"id": name, "object": "model", "created": 0}]})
        else:
            self.reply(404, {"error": {"message": f"no route {self.path}", "type": "not_found"}})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.state.record({"path": self.path, "headers": dict(self.headers), "body": body})
        if not self.authorized():
            return
        if self.path == "/tokenize":
            self.reply(200, {"tokens": list(body["content"].encode())})
        elif self.path == "/detokenize":
            self.reply(200, {"content": bytes(body["tokens"]).decode()})
        elif self.path in ("/v1/completions", "/v1/chat/completions"):
            self.complete(body)
        else:
            self.reply(404, {"error": {"message": f"no route {self.path}", "type": "not_found"}})

    def complete(self, body: dict[str, Any]) -> None:
        chat = "messages" in body
        text = body["messages"][-1]["content"] if chat else body["prompt"]
        if body.get("temperature", 0) < 0:
            status = 422 if self.state.options.fake_old else 400
            self.reply(
                status, {"error": {"message": "temperature is negative", "type": "invalid_request_error"}}
            )
            return
        if text == "slow":
            time.sleep(60)
        if text == "hang up":
            self.close_connection = True
            return
        usage = {"prompt_tokens": 1, "completion_tokens": 2, "total_tokens": 3}
        if not body.get("stream"):
            answer = f"echo: {text}"
            choice: dict[str, Any] = {"index": 0, "finish_reason": "stop"}
            choice |= {"message": {"role": "assistant", "content": answer}} if chat else {"text": answer}
            self.reply(200, {"id": "1", "model": body["model"], "choices": [choice], "usage": usage})
            return
        self.stream(text, chat=chat, usage=usage)

    def stream(self, text: str, *, chat: bool, usage: dict[str, int]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        try:
            count = 0
            while count < 3 or text == "forever":
                piece = {"delta": {"content": f"{count} "}} if chat else {"text": f"{count} "}
                self.event({"choices": [{"index": 0, "finish_reason": None, **piece}]})
                count += 1
                time.sleep(0.01)
            if text != "cut short":
                last: dict[str, Any] = {"delta": {}} if chat else {"text": ""}
                self.event({"choices": [{"index": 0, "finish_reason": "stop", **last}], "usage": usage})
                self.chunk(b"data: [DONE]\n\n")
            self.chunk(b"")
        except OSError:
            self.state.record({"disconnected_after": count})
            self.close_connection = True

    def event(self, data: dict[str, Any]) -> None:
        self.chunk(f"data: {json.dumps(data)}\n\n".encode())

    def chunk(self, data: bytes) -> None:
        self.wfile.write(f"{len(data):x}\r\n".encode() + data + b"\r\n")

    def authorized(self) -> bool:
        given = self.headers.get("Authorization")
        if self.state.options.fake_any_key or given == f"Bearer {self.state.key}":
            return True
        self.reply(401, {"error": {"message": "wrong key", "type": "authentication_error"}})
        return False

    def reply(self, status: int, body: dict[str, Any]) -> None:
        raw = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 128


class TcpServer(socketserver.ThreadingTCPServer):
    daemon_threads = True
    request_queue_size = 128
    allow_reuse_address = True


def fail(code: int) -> None:
    print("loading the model", file=sys.stderr)
    print("error: the model has no tensor lm_head.weight", file=sys.stderr, flush=True)
    os._exit(code)


def watch_owner(value: str) -> None:
    """End when the pipe does, or when another process is the parent."""
    descriptor, owner = (int(part) for part in value.split(":"))
    while os.getppid() == owner:
        if select.select([descriptor], [], [], 0.1)[0]:
            break
    os._exit(0)


def die_when_told(order: Path) -> None:
    while not order.exists():
        time.sleep(0.01)
    order.unlink()
    os.kill(os.getpid(), signal.SIGKILL)


def load(options: argparse.Namespace) -> None:
    """What an older server does before it listens."""
    end = time.monotonic() + options.fake_load_seconds
    while time.monotonic() < end:
        if not options.fake_busy:
            time.sleep(0.01)


def main() -> None:
    options = parse_arguments()
    if options.fake_lifeline and "MLXCEL_LIFELINE" in os.environ:
        threading.Thread(target=watch_owner, args=[os.environ["MLXCEL_LIFELINE"]], daemon=True).start()
    if options.fake_die_once is not None:
        threading.Thread(target=die_when_told, args=[options.fake_die_once], daemon=True).start()
    state = State(options)
    if options.fake_dump is not None:
        facts = {
            "argv": sys.argv,
            "environment": dict(os.environ),
            "session": os.getsid(0),
            "pid": os.getpid(),
            "parent_group": os.getpgid(os.getppid()),
            "stdin_is_null": os.fstat(0).st_rdev == Path(os.devnull).stat().st_rdev,
            "descriptors": sorted(int(entry.name) for entry in Path("/proc/self/fd").iterdir())
            if sys.platform == "linux"
            else [],
        }
        options.fake_dump.write_text(json.dumps(facts))
    if options.fake_print_key:
        print(f"my key is {os.environ['LLAMA_API_KEY']}!", file=sys.stderr, flush=True)
    if options.fake_exit is not None:
        fail(options.fake_exit)
    if options.fake_die_by is not None:
        os.kill(os.getpid(), options.fake_die_by)
    if options.fake_port_taken is not None and not options.fake_port_taken.exists():
        options.fake_port_taken.touch()
        print(f"error: {options.fake_port_error}", file=sys.stderr, flush=True)
        os._exit(1)
    if options.fake_ignore_sigterm:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    else:
        signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    for _ in range(options.fake_flood // 100):
        os.write(1, b"o" * 99 + b"\n")
        os.write(2, b"e" * 99 + b"\n")
    if options.fake_silent:
        time.sleep(600)
    if options.fake_fail_from is not None and options.fake_fail_from.exists():
        fail(7)
    if options.fake_old:
        load(options)

    Handler.state = state
    server: socketserver.BaseServer
    if options.host.startswith("/"):
        server = UnixServer(options.host, Handler)
        address = f"unix:{options.host}"
    else:
        server = TcpServer((options.host, options.port), Handler)
        address = f"http://{options.host}:{server.server_address[1]}"
    if not options.fake_old:
        print(json.dumps({"event": "listening", "address": address}), flush=True)
    if options.fake_exit_loading is not None:
        threading.Timer(0.2, fail, [options.fake_exit_loading]).start()
    server.serve_forever(poll_interval=0.05)


main()
