"""A server that speaks TLS, and the client in connect mode: whom it trusts, and a new certificate."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import openai
import pytest
import trustme

from mlxcel import LLM, AsyncLLM

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.e2e

KEY = "over-the-wire"


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def files(authority: trustme.CA, tmp_path: Path) -> Path:
    """A folder with the server's certificate and key, and the authority's certificate."""
    write(authority, tmp_path)
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    return tmp_path


def write(authority: trustme.CA, folder: Path) -> None:
    issued = authority.issue_cert("127.0.0.1", "localhost")
    issued.private_key_pem.write_to_path(str(folder / "key.pem"))
    for index, part in enumerate(issued.cert_chain_pems):
        part.write_to_path(str(folder / "cert.pem"), append=index > 0)


def arguments(binary: Path, folder: Path) -> list[str]:
    return [
        *(str(binary), "serve", "-m", "mlxcel-tiny", "--port", "0"),
        *("--tls-cert", str(folder / "cert.pem"), "--tls-key", str(folder / "key.pem")),
    ]


@contextmanager
def serving(binary: Path, folder: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(
            arguments(binary, folder),
            env={**os.environ, "LLAMA_API_KEY": KEY},
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
        )
    try:
        assert process.stdout is not None
        with process.stdout as stdout:
            address = json.loads(stdout.readline())["address"]
        yield process, address
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    finally:
        process.kill()
        process.wait()


def settled(base_url: str, ca: Path) -> None:
    """Until the model answers."""
    deadline = time.monotonic() + 60
    with LLM(base_url=base_url, api_key=KEY, verify=ca, timeout=30) as llm:
        while True:
            try:
                llm.chat("Hi", max_tokens=1)
            except openai.APIStatusError:
                assert time.monotonic() < deadline
                time.sleep(0.1)
            else:
                return


async def test_the_client_trusts_whom_it_is_told_to(real_binary: Path, files: Path) -> None:
    with serving(real_binary, files) as (_, base_url):
        assert base_url.startswith("https://127.0.0.1:")
        ca = files / "ca.pem"
        settled(base_url, ca)
        with LLM(base_url=base_url, api_key=KEY, verify=ca, timeout=30) as llm:
            assert "".join(llm.stream("mlxcel is", max_tokens=8, temperature=0))
            assert [model.id for model in llm.models()] == ["mlxcel-tiny"]
        async with AsyncLLM(base_url=base_url, api_key=KEY, verify=str(ca), timeout=30) as llm:
            assert await llm.chat("Hi", max_tokens=4)
        with (
            LLM(base_url=base_url, api_key=KEY, timeout=30) as llm,
            pytest.raises(openai.APIConnectionError, match="verify="),
        ):
            llm.chat("Hi")
        with (
            LLM(base_url=base_url, api_key="wrong", verify=ca) as llm,
            pytest.raises(openai.AuthenticationError),
        ):
            llm.chat("Hi")
        plain = base_url.replace("https:", "http:")
        with LLM(base_url=plain, api_key=KEY, timeout=30) as llm, pytest.raises(openai.APIConnectionError):
            llm.chat("Hi")


def test_a_new_certificate_is_read_at_a_signal(real_binary: Path, files: Path, authority: trustme.CA) -> None:
    with serving(real_binary, files) as (process, base_url):
        settled(base_url, files / "ca.pem")
        host, port = base_url.removeprefix("https://").split(":")
        before = ssl.get_server_certificate((host, int(port)))

        # What cannot be used leaves the old one in place.
        (files / "cert.pem").write_text("no certificate")
        process.send_signal(signal.SIGHUP)
        deadline = time.monotonic() + 30
        while "stays as it was" not in (files / "log").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert ssl.get_server_certificate((host, int(port))) == before

        write(authority, files)
        process.send_signal(signal.SIGHUP)
        while ssl.get_server_certificate((host, int(port))) == before:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        with LLM(base_url=base_url, api_key=KEY, verify=files / "ca.pem", timeout=30) as llm:
            assert llm.chat("Hi", max_tokens=4)


@pytest.mark.parametrize("fault", ["missing", "empty", "no key", "another's"])
def test_files_that_make_no_server_are_told_in_one_line(
    real_binary: Path, files: Path, authority: trustme.CA, fault: str
) -> None:
    certificate, key = files / "cert.pem", files / "key.pem"
    match fault:
        case "missing":
            certificate.unlink()
            words = ["cannot read", "cert.pem"]
        case "empty":
            certificate.write_text("")
            words = ["no certificate", "--tls-cert"]
        case "no key":
            key.write_bytes(certificate.read_bytes())
            words = ["no private key", "--tls-key"]
        case _:
            authority.issue_cert("127.0.0.1").private_key_pem.write_to_path(str(key))
            words = ["cert.pem and", "key.pem do not make a server"]
    ended = subprocess.run(
        arguments(real_binary, files), capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 1
    last = ended.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert all(word in last for word in words), last
