"""The SDKs from npm: each folder under npm/ is one, which the Makefile installs."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest
from served import ANNA, CHECKOUT, EXTRACT, GREET, MODEL, USE_TOOL

if TYPE_CHECKING:
    from served import Server


@pytest.mark.parametrize("name", ["openai", "ai"])
def test_sdk(server: Server, name: str) -> None:
    node = shutil.which("node")
    if node is None:
        pytest.fail("there is no node: install Node.js 20 or newer")
    folder = CHECKOUT / ".clients" / f"npm-{name}"
    if not (folder / "node_modules").is_dir():
        pytest.fail(f"{folder} is not installed: run this through `make test-client-npm`")
    served = {
        "url": server.url,
        "key": server.key,
        "model": MODEL,
        "greet": GREET,
        "extract": EXTRACT,
        "extracted": ANNA,
        "use_tool": USE_TOOL,
    }
    # Where its node_modules are is where a module looks for what it imports.
    tests = shutil.copy(CHECKOUT / "python/tests/clients/npm" / name / "sdk.test.mjs", folder)
    ran = subprocess.run(
        [node, "--test", "--test-reporter=tap", tests],
        env={**os.environ, "MLXCEL_SERVED": json.dumps(served)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "# fail 0" in ran.stdout
    assert "# tests 0" not in ran.stdout
