"""The model's folder, and whether its weights fit into memory."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

from .._units import size
from ._check import Check, fail, ok, skip, warn
from ._safetensors import DamagedError, Weights, read_weights

__all__ = ["check_memory", "check_model", "find_folder"]

_BUILT_IN = "mlxcel-tiny"
_CONFIG, _TOKENIZER, _INDEX = "config.json", "tokenizer.json", "model.safetensors.index.json"
_JSON_LIMIT = 100_000_000


def find_folder(model: str, binary: Path | None) -> Path | None:
    """The folder a model argument stands for, by the server's rules; None for one that is not downloaded."""
    if model == _BUILT_IN:
        return None if binary is None else _built_in(binary)
    path = Path(model).expanduser()
    if model.startswith((".", "/", "~")) or path.exists():
        return path
    return _cached(model)


def check_model(model: str, folder: Path | None) -> tuple[Check, Weights | None]:
    """The check, and what the weights weigh if they are whole."""
    if folder is None:
        return _not_here(model), None
    details: dict[str, Any] = {"model": model, "folder": str(folder)}
    problem = _look(folder, details)
    if isinstance(problem, Weights):
        kind = details.get("model_type", "model")
        return ok("model", f"{kind}, {size(problem.total)} of weights in {folder}", **details), problem
    what, advice = problem
    return fail("model", what, advice, **details), None


def check_memory(weights: Weights | None, *, on_cpu: bool = sys.platform != "darwin") -> Check:
    """Weights against memory. On the CPU half-precision weights become float32: twice the bytes."""
    if weights is None:
        return skip("memory", "the size of the model is not known")
    import psutil

    memory = psutil.virtual_memory()
    need = weights.total + (weights.half if on_cpu else 0)
    details = {"needed": need, "available": memory.available, "total": memory.total}
    summary = f"the weights take {size(need)}; {size(memory.available)} are free of {size(memory.total)}"
    if need > memory.total:
        return fail(
            "memory",
            summary,
            "it cannot be loaded here: choose a smaller or a quantized (4-bit) model",
            **details,
        )
    if need > memory.available:
        advice = "close other programs (`python -m mlxcel ps` lists your servers), or choose a smaller model"
        return warn("memory", summary, advice, **details)
    return ok("memory", summary, **details)


def _look(folder: Path, details: dict[str, Any]) -> Weights | tuple[str, str]:
    """The weights of a folder that is whole, else what is wrong and what to do."""
    try:
        there = folder.exists()
    except PermissionError:
        return (
            f"you may not look into {folder.parent}",
            f"check the permissions of the folders above {folder}",
        )
    if not there:
        return f"there is nothing at {folder}", "check the spelling; a repository is named as owner/name"
    if not folder.is_dir():
        return f"{folder} is a file", "name the folder that holds config.json and the weights"
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except PermissionError:
        return f"you may not read {folder}", f"chmod u+rx {folder}, or ask its owner"
    download = "fetch it anew: `mlxcel download owner/name`"
    for name in (_CONFIG, _TOKENIZER):
        if name not in names:
            extra = " (a tokenizer.model alone is not enough)" if "tokenizer.model" in names else ""
            return f"{folder} has no {name}{extra}", f"is it the model's folder? if so, {download}"
        content = _read(folder / name)
        if isinstance(content, str):
            return f"{folder / name} {content}", download
        if name == _CONFIG:
            details["model_type"] = content.get("model_type")
    return _look_at_weights(folder, names, download)


def _look_at_weights(folder: Path, names: list[str], download: str) -> Weights | tuple[str, str]:
    files = [name for name in names if name.endswith(".safetensors")]
    if _INDEX in names:
        index = _read(folder / _INDEX)
        if isinstance(index, str):
            return f"{folder / _INDEX} {index}", download
        named = sorted({str(name) for name in index.get("weight_map", {}).values()})
        missing = [name for name in named if name not in files]
        if missing:
            return f"{folder} lacks {', '.join(missing)}, which {_INDEX} names", download
        files = named
    if not files:
        other = [name for name in names if name.endswith((".gguf", ".bin", ".pt", ".pth", ".npz"))]
        have = f"; it has {', '.join(other)}" if other else ""
        return f"{folder} has no weights (*.safetensors){have}", "models are read from safetensors only"
    total = Weights()
    for name in files:
        try:
            total += read_weights(folder / name)
        except DamagedError as error:
            return f"{folder / name} {error}", f"the download was not complete; {download}"
        except OSError as error:
            return (
                f"{folder / name} cannot be read: {error.strerror}",
                f"check its permissions: ls -l {folder}",
            )
    return total


def _read(path: Path) -> dict[str, Any] | str:
    """A JSON object, or what is wrong with the file."""
    try:
        if path.stat().st_size > _JSON_LIMIT:
            return "is far too large"
        content = json.loads(path.read_bytes())
    except OSError as error:
        return f"cannot be read: {error.strerror}"
    except ValueError as error:
        return f"is not JSON: {error}"
    return content if isinstance(content, dict) else "is not a JSON object"


def _not_here(model: str) -> Check:
    if model == _BUILT_IN:
        return fail("model", "the built-in model is not beside the server", "reinstall mlxcel", model=model)
    if model.count("/") != 1:
        advice = "name a folder, a repository as owner/name, or mlxcel-tiny"
        return fail("model", f"{model} is no folder and no repository", advice, model=model)
    return warn(
        "model",
        f"{model} is not downloaded yet",
        f"the first start downloads it; to do so now: `mlxcel download {model}`",
        model=model,
    )


def _built_in(binary: Path) -> Path | None:
    folder = binary.resolve().parent
    candidates = [folder.parent / "_models" / _BUILT_IN]
    candidates += [root / "tiny-model" / _BUILT_IN for root in folder.parents]
    return next((path for path in candidates if (path / _CONFIG).is_file()), None)


def _cached(model: str) -> Path | None:
    """The snapshot of a repository in the hub's cache (the layout of huggingface_hub)."""
    name, _, revision = model.partition("@")
    home = os.environ.get("HF_HOME") or Path("~/.cache/huggingface").expanduser()
    cache = Path(os.environ.get("HF_HUB_CACHE") or Path(home) / "hub")
    repository = cache / f"models--{name.replace('/', '--')}"
    try:
        commit = (repository / "refs" / (revision or "main")).read_text(encoding="utf-8").strip()
    except OSError:
        commit = revision
    folder = repository / "snapshots" / commit
    return folder if commit and folder.is_dir() else None
