"""Files that are whole or absent: write under a temporary name, then replace.

Weights are safetensors with JSON metadata, everything else is JSON; neither can run code.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from agman.errors import InputError

try:
    import fcntl
except ImportError:  # Windows, where runs are not guarded against a second process
    fcntl = None  # type: ignore[assignment]

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
    if "\0" in str(path):
        raise InputError(f"{str(path)!r} cannot be the name of a file; choose another.")
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


def remove_leftovers(folder: Path, name: str = "*") -> None:
    """Remove what killed writers of a file, or of all, left in a folder; it may be large."""
    for left in folder.glob(f".{name}.*.part"):
        with suppress(OSError):
            shutil.rmtree(left) if left.is_dir() else left.unlink()


def lock(descriptor: int, wait: bool = False) -> bool:
    """Lock an open file or folder until it is closed; whether that was possible."""
    if fcntl is None:  # Windows
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    except OSError:  # a network drive without locks: one process is the usual case
        return True
    return True


@contextmanager
def alone_in(folder: Path) -> Iterator[None]:
    """A folder for this process alone, without leftovers; made if it is not there.

    Raises:
        InputError: another process works in it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(folder, os.O_RDONLY) if fcntl is not None else None
    except OSError as error:
        raise InputError(
            f"{folder} cannot be opened ({error.strerror}); choose a folder you may write to."
        ) from error
    try:
        if descriptor is not None and not lock(descriptor):
            raise InputError(
                f"{folder}: another process is at work there; wait for it, or choose another "
                "folder; nothing was changed."
            )
        remove_leftovers(folder)
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)


def write_text(path: str | Path, text: str) -> None:
    """Write a text file in UTF-8 whole or not at all.

    Raises:
        InputError: the file cannot be written, or a character has no form in UTF-8.
    """
    try:
        data = text.encode()
    except UnicodeEncodeError as error:
        raise InputError(
            f"{path} could not be written: {text[error.start]!r} is half a character; correct the "
            "name that holds it."
        ) from error
    with replacing(path) as temporary:
        temporary.write_bytes(data)


def write_json(path: str | Path, data: Any) -> None:
    """Write JSON, indented, whole or not at all."""
    write_text(path, json.dumps(data, indent=1, ensure_ascii=False) + "\n")


def read_bytes(path: str | Path) -> bytes:
    """All bytes of a file.

    Raises:
        InputError: it cannot be read, or is a folder, a pipe or a device, which might never end.
    """
    try:
        regular = stat.S_ISREG(os.stat(path).st_mode)
        data = Path(path).read_bytes() if regular else None
    except (OSError, ValueError) as error:  # ValueError for a name that no file can have
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path}: cannot be read ({reason}); check the path.") from error
    if data is None:
        raise InputError(f"{path}: cannot be read (not a file); check the path.")
    return data


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing or is not JSON; the message names the line.
    """
    if not os.path.exists(path):
        raise InputError(f"There is no file {path}; check the path.")
    try:
        return json.loads(read_bytes(path).decode())
    except InputError:
        raise
    except json.JSONDecodeError as error:
        raise InputError(
            f"{path}, line {error.lineno}: not JSON ({error.msg}); repair or remake the file."
        ) from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not a UTF-8 text file; repair or remake it.") from error
    except (ValueError, RecursionError) as error:  # huge numbers, lists in lists
        raise InputError(f"{path}: not readable JSON ({error}); remake the file.") from error


def write_tensors(path: str | Path, tensors: Mapping[str, Tensor], metadata: Any) -> None:
    """Write tensors and JSON metadata as one safetensors file, whole or not at all."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    path = Path(path)
    with replacing(path) as temporary:
        temporary.touch()
        mode = temporary.stat().st_mode  # safetensors would let nobody else read the file
        # It also writes under a name of its own first, which a kill would leave behind.
        with tempfile.TemporaryDirectory(".part", f".{path.name}.", path.parent) as folder:
            file = Path(folder) / "tensors"
            try:
                save_file(contiguous, file, {_METADATA_KEY: json.dumps(metadata)})
            except SafetensorError as error:  # among others for a full disk
                raise OSError(str(error)) from error
            file.replace(temporary)
        temporary.chmod(mode)


def read_tensors(path: str | Path) -> tuple[dict[str, Tensor], Any]:
    """The tensors of a safetensors file, on the CPU, and agman's metadata (None if absent).

    Raises:
        InputError: the file is missing, damaged or of another kind.
    """
    if not os.path.isfile(path):
        raise InputError(f"There is no weights file {path}; check the path.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = (file.metadata() or {}).get(_METADATA_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, None if metadata is None else json.loads(metadata)
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); give a file that agman saved."
        ) from error
