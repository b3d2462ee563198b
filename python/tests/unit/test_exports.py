"""The package's surface: what is named is there, and importing it costs nothing."""

from __future__ import annotations

import ast
import importlib
import json
import pkgutil
import subprocess
import sys
from pathlib import Path

import pytest

import mlxcel

MODULES = sorted(info.name for info in pkgutil.iter_modules(mlxcel.__path__))


def test_all_is_what_is_exported() -> None:
    # pytest rewrites the assertions of a package with a plugin, and leaves names like `@pytest_ar` in it.
    public = {
        name
        for name in dir(mlxcel)
        if name.isidentifier()
        and not name.startswith("_")
        and name not in MODULES
        and name not in ("TYPE_CHECKING", "Any")
    }
    assert public | {"__version__"} == set(mlxcel.__all__)
    for name in mlxcel.__all__:
        assert getattr(mlxcel, name) is not None


def test_the_type_checker_sees_the_same_names() -> None:
    tree = ast.parse(Path(str(mlxcel.__file__)).read_text())
    guarded = next(node for node in tree.body if isinstance(node, ast.If))
    imported = {name.name for node in guarded.body if isinstance(node, ast.ImportFrom) for name in node.names}
    assert imported | {"__version__"} == set(mlxcel.__all__)


@pytest.mark.parametrize("module", MODULES)
def test_each_module_exports_what_it_says(module: str) -> None:
    home = importlib.import_module(f"mlxcel.{module}")
    for name in getattr(home, "__all__", []):
        assert hasattr(home, name), f"mlxcel.{module}.__all__ names {name}, which is not there"


def test_errors_are_all_exported() -> None:
    from mlxcel import errors

    assert set(errors.__all__) <= set(mlxcel.__all__)


def test_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'LMM'"):
        _ = mlxcel.LMM


def test_import_defines_names_only() -> None:
    code = "import sys, json, mlxcel; print(json.dumps(sorted(sys.modules)))"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, check=True, text=True).stdout
    loaded = set(json.loads(output))
    assert not loaded & {
        "openai",
        "httpx2",
        "pydantic",
        "anyio",
        "asyncio",
        "subprocess",
        "tqdm",
        "mlx",
        "psutil",
    }


def test_version_matches_the_distribution() -> None:
    from importlib.metadata import version

    assert version("mlxcel") == mlxcel.__version__
