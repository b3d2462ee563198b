"""The wheel, installed where nothing of the checkout is, runs the quickstart."""

from __future__ import annotations

import os
import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2]
CHECKOUT = PACKAGE.parent

# Prints which files of the checkout the running server has mapped or opened, besides the answer.
PROBE = """
import pathlib, sys
from mlxcel import LLM

with LLM("mlxcel-tiny") as llm:
    print("answer:", llm.chat("What is 12 + 30?", max_tokens=32, temperature=0))
    print("binary:", pathlib.Path(f"/proc/{llm.server.pid}/exe").resolve() if sys.platform == "linux" else "")
    if sys.platform == "linux":
        maps = pathlib.Path(f"/proc/{llm.server.pid}/maps").read_text()
        for line in maps.splitlines():
            if "/" in line:
                print("maps:", line[line.index("/"):])
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(PACKAGE)],
        check=True,
        stdout=subprocess.DEVNULL,
    )
    (path,) = folder.glob("*.whl")
    return path


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clean environment with the wheel; its Python."""
    folder = tmp_path_factory.mktemp("elsewhere")
    venv.create(folder / "env", with_pip=True)
    python = folder / "env" / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", str(wheel)], check=True)
    return python


def run(python: Path, *arguments: str) -> str:
    """Runs Python away from the checkout, with nothing in the environment that leads to it."""
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], "HF_HUB_OFFLINE": "1"}
    done = subprocess.run(
        [python, *arguments],
        cwd=python.parent,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_carries_the_binary_and_the_model_and_is_tagged_for_the_platform(wheel: Path) -> None:
    assert wheel.name.startswith("mlxcel-")
    assert "-py3-none-" in wheel.name
    assert not wheel.name.endswith("-any.whl")
    with zipfile.ZipFile(wheel) as archive:
        sizes = {info.filename: info.file_size for info in archive.infolist()}
        binary = archive.getinfo("mlxcel/_bin/mlxcel")
        assert binary.external_attr >> 16 & 0o111, "the binary is not executable"
        assert str(CHECKOUT).encode() not in archive.read(binary), "a path of the checkout is in the binary"
    model = {name: size for name, size in sizes.items() if name.startswith("mlxcel/_models/mlxcel-tiny/")}
    assert "mlxcel/_models/mlxcel-tiny/config.json" in model
    assert sum(model.values()) < 8_000_000
    assert "mlxcel/py.typed" in sizes


def test_it_answers_with_nothing_of_the_checkout_in_reach(installed: Path) -> None:
    output = run(installed, "-c", PROBE)
    lines = [line.split(": ", 1) for line in output.splitlines()]
    answer = next(value for key, value in lines if key == "answer")
    assert "42" in answer
    used = [value for key, value in lines if key in {"binary", "maps"} and value]
    assert not [path for path in used if Path(path).is_relative_to(CHECKOUT)]
    if sys.platform == "linux":
        environment = installed.parents[1].resolve()
        assert any(Path(path).name == "libmlx.so" and Path(path).is_relative_to(environment) for path in used)


def test_it_runs_the_quickstart(installed: Path, tmp_path: Path) -> None:
    script = tmp_path / "quickstart.py"
    script.write_text((PACKAGE / "examples" / "quickstart.py").read_text())
    assert run(installed, str(script)).strip()
