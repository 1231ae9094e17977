"""Files that are whole or absent: write under a temporary name, then replace.

Weights are safetensors with JSON metadata, everything else is JSON; neither can run code.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from agman.errors import InputError

_METADATA_KEY = "agman"


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A temporary path beside `path` that takes its place if the block ends well.

    A killed or failed block leaves `path` as it was.

    Raises:
        InputError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        os.replace(temporary, path)
    except OSError as error:
        raise InputError(
            f"{path} could not be written ({error.strerror or error}); free some space or choose "
            "a folder you may write to; nothing was changed."
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: str | Path, data: Any) -> None:
    """Write JSON, indented, whole or not at all."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing or is not JSON; the message names the line.
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"There is no file {path}; check the path.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check the path.") from error
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}); repair or remake the file."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a UTF-8 text file; repair or remake it.") from error


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Any) -> None:
    """Write tensors and JSON metadata as one safetensors file, whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors would let nobody else read the file
        save_file(contiguous, temporary, {_METADATA_KEY: json.dumps(metadata)})
        temporary.chmod(mode)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], Any]:
    """The tensors of a safetensors file, on the CPU, and agman's metadata (None if absent).

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    if not Path(path).is_file():
        raise InputError(f"There is no weights file {path}; check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get(_METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, None if metadata is None else json.loads(metadata)
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); give a file that agman saved."
        ) from error
