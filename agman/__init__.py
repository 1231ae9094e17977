"""AG-MAN and its baselines for fine-grained fashion retrieval: networks, data, evaluation."""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

# Public names and where they live; imported on first use, so that `import agman` stays light.
_PUBLIC = {
    "AttributeSchema": "agman.attributes",
    "AttributeTable": "agman.attributes",
    "InputError": "agman.errors",
    "PhotoIndex": "agman.index",
    "Report": "agman.evaluation",
    "TrainConfig": "agman.training",
    "create_model": "agman.models",
    "evaluate": "agman.evaluation",
    "list_models": "agman.models",
    "load": "agman.models",
    "load_reference": "agman.checkpoint",
    "train": "agman.training",
}
_MODULES = (
    *("attention", "attributes", "backbones", "checkpoint", "course", "datasets", "embedding"),
    *("engines", "errors", "evaluation", "export", "figures", "index", "loading", "losses"),
    *("memory", "metrics", "models", "provenance", "ranking", "sampling", "shards", "storage"),
    *("training",),
)
__all__ = ["__version__", *_PUBLIC, *_MODULES]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if name in _MODULES:
        return importlib.import_module(f"agman.{name}")
    raise AttributeError(f"module 'agman' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
