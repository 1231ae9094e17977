"""A student's functions in a process of their own, asked by sending values and never trusted.

`agman.course.grading` stays outside of it: it holds the tests, runs no line of a student's code,
and unpickles nothing that comes back. What the process may not do is watched by an audit hook,
which Python code cannot take off again. That stops mistakes and the common tricks; a machine where
somebody may attack with native code needs a container around all of it.
"""

from __future__ import annotations

import ast
import contextlib
import json
import multiprocessing
import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from IPython.core.inputtransformer2 import TransformerManager

from agman.course.plain import from_plain, to_plain

__all__ = ["Failure", "Limits", "StudentProcess", "functions_of"]

_LARGEST_ANSWER = 50_000_000  # bytes
_LARGEST_FILE = 10_000_000  # bytes
_START_SECONDS = 60.0  # to import torch once, on a busy machine


class Failure(Exception):
    """Why a student's function gave no answer, in words for the student."""


@dataclass(frozen=True)
class Limits:
    """What a student's code may use.

    Args:
        seconds: for one call, and for reading the notebook's functions.
        total_seconds: for all calls of one submission.
        memory: in bytes, on top of what Python and torch take.
        closed: absolute folders that it may not read: those with tests and other submissions.
    """

    seconds: float = 20.0
    total_seconds: float = 300.0
    memory: int = 2 * 1024**3
    closed: tuple[Path, ...] = ()


def functions_of(cells: Sequence[str]) -> list[str]:
    """Imports, functions, classes and plain constants among the code of a notebook.

    All else (calls, plots, training, shell commands) is left out: functions are asked directly,
    so nothing of it is needed. A cell that is no Python is left out too.

    Args:
        cells: the source of each code cell.

    Returns:
        The source of each such statement, in their order.
    """
    return [ast.unparse(part) for cell in cells for part in _parsed(cell) if _stands_alone(part)]


def _parsed(cell: str) -> list[ast.stmt]:
    try:
        return ast.parse(TransformerManager().transform_cell(cell)).body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return []


def _stands_alone(part: ast.stmt) -> bool:
    if isinstance(part, ast.Assign | ast.AnnAssign):
        return not any(isinstance(inside, ast.Call) for inside in _outside_of_lambdas(part))
    kept = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
    return isinstance(part, kept)


def _outside_of_lambdas(part: ast.AST) -> Iterator[ast.AST]:
    yield part
    for child in ast.iter_child_nodes(part):
        if not isinstance(child, ast.Lambda):
            yield from _outside_of_lambdas(child)


class StudentProcess:
    """The functions of one submission, running elsewhere; to be used in a `with`.

    After a function was stopped for its time or its memory, the next call starts afresh.

    Args:
        statements: from `functions_of`.
        limits: what they may use.
    """

    def __init__(self, statements: Sequence[str], limits: Limits | None = None) -> None:
        self.limits = limits or Limits()
        self._statements = list(statements)
        self._running: tuple[Any, Connection, Path] | None = None
        self._spent = 0.0

    def call(self, name: str, args: Sequence[Any], named: Mapping[str, Any]) -> Any:
        """Call a function of the student.

        Args:
            name: of the function.
            args: its arguments by place; values that `to_plain` takes.
            named: its arguments by name.

        Returns:
            What it returned; tensors are on the CPU.

        Raises:
            Failure: if it gave no such value.
        """
        if self._spent > self.limits.total_seconds:
            raise Failure(f"all calls together took over {self.limits.total_seconds:g} seconds")
        if self._running is None:
            self._start()
        request = {"name": name, "args": to_plain(list(args)), "named": to_plain(dict(named))}
        answer = self._ask(request, self.limits.seconds)
        try:
            return from_plain(answer["value"])
        except (KeyError, ValueError, RecursionError):
            raise Failure(f"`{name}` answered with something that cannot be read") from None

    def close(self) -> None:
        """End the process and all that it started, and remove its folder."""
        if self._running is None:
            return
        process, connection, folder = self._running
        self._running = None
        connection.close()
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(process.pid, 9)  # its children too: it leads a group of its own
        process.kill()
        process.join()
        shutil.rmtree(folder, ignore_errors=True)

    def __enter__(self) -> StudentProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _start(self) -> None:
        context = multiprocessing.get_context("forkserver")
        # One process imports torch once, and each submission is a copy of it, made in no time.
        context.set_forkserver_preload(["agman.course.student"])
        ours, theirs = context.Pipe()
        folder = Path(tempfile.mkdtemp(prefix="submission-"))
        arguments = (theirs, self._statements, self.limits, folder)
        process = context.Process(target=_serve, args=arguments, daemon=True)
        process.start()
        theirs.close()
        self._running = process, ours, folder
        self._ask(None, _START_SECONDS)
        self._ask({"read": True}, self.limits.seconds)

    def _ask(self, request: dict[str, Any] | None, seconds: float) -> dict[str, Any]:
        """Send a request, if any, and wait for the answer."""
        if self._running is None:
            raise Failure("the functions of the notebook could not be read")
        connection, started = self._running[1], time.monotonic()
        try:
            if request is not None:
                connection.send_bytes(json.dumps(request).encode())
            if not connection.poll(seconds):
                raise TimeoutError
            answer = json.loads(connection.recv_bytes(_LARGEST_ANSWER))
        except TimeoutError:
            self.close()
            raise Failure(f"stopped after {seconds:g} seconds: a loop without an end?") from None
        except (EOFError, OSError, ValueError, RecursionError):
            self.close()
            raise Failure(
                "the process ended: too much memory, too large an answer, or a call that ends "
                "Python"
            ) from None
        finally:
            self._spent += time.monotonic() - started if request else 0.0
        if not isinstance(answer, dict) or "problem" in answer:
            raise Failure(str(answer["problem"] if isinstance(answer, dict) else answer)[:500])
        return answer


# --- inside the process ---------------------------------------------------------------------------


def _serve(connection: Connection, statements: Sequence[str], limits: Limits, folder: Path) -> None:
    """Answer questions about a student's functions until the process is ended from outside."""
    os.setsid()
    os.chdir(folder)
    _silence()
    torch.set_num_threads(1)
    _limit(limits)
    forbid = _guard(limits, folder)
    connection.send_bytes(b"{}")
    connection.recv_bytes()
    sys.addaudithook(forbid)
    space: dict[str, Any] = {"__name__": "submission"}
    troubles = [trouble for each in statements if (trouble := _tried(partial(exec, each, space)))]
    connection.send_bytes(b"{}")
    while True:
        request = json.loads(connection.recv_bytes())
        connection.send_bytes(json.dumps(_answer(request, space, troubles)).encode())


def _answer(request: dict[str, Any], space: dict[str, Any], troubles: list[str]) -> dict[str, Any]:
    name = request["name"]
    function = space.get(name)
    if not callable(function):
        before = f"; before it, the notebook stopped with {troubles[0]}" if troubles else ""
        return {"problem": f"there is no function `{name}`: was it renamed or deleted?{before}"}
    given: list[Any] = []
    trouble = _tried(
        lambda: given.append(function(*from_plain(request["args"]), **from_plain(request["named"])))
    )
    if trouble:
        return {"problem": f"`{name}` stopped with {trouble}"}
    value: list[Any] = []
    if _tried(lambda: value.append(to_plain(given[0]))):
        kind = type(given[0]).__name__
        return {"problem": f"`{name}` returns a {kind}; it should return numbers or tensors"}
    return {"value": value[0]}


def _tried(do: Callable[[], Any]) -> str | None:
    """Run something, and say what it raised."""
    try:
        do()
    except BaseException as error:  # SystemExit and KeyboardInterrupt end nothing here
        try:
            text = str(error)
        except Exception:  # a student's own exception
            text = ""
        return _explained(error, text)
    return None


def _explained(error: BaseException, text: str) -> str:
    if isinstance(error, NotImplementedError):
        return "NotImplementedError: it is still empty"
    if isinstance(error, NameError):
        text += "; a function may use what is imported, other functions and plain constants"
    return f"{type(error).__name__}" + (f": {text[:300]}" if text else "")


def _silence() -> None:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(nowhere, standard)


def _limit(limits: Limits) -> None:
    cpu = int(limits.total_seconds) + 60
    for kind, most in (
        (resource.RLIMIT_CPU, cpu),
        (resource.RLIMIT_FSIZE, _LARGEST_FILE),
        (resource.RLIMIT_CORE, 0),
    ):
        resource.setrlimit(kind, (most, most))
    with contextlib.suppress(OSError):  # only Linux says how much is used already
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
        most = pages * resource.getpagesize() + limits.memory
        resource.setrlimit(resource.RLIMIT_AS, (most, most))


_FORBIDDEN = (
    "socket.", "subprocess.", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork",
    "os.forkpty", "os.kill", "os.killpg", "os.putenv", "pty.", "ctypes.dlopen", "urllib.",
    "ftplib.", "smtplib.", "webbrowser.", "resource.setrlimit", "signal.", "syslog.",
)  # fmt: skip
_LOOKS = ("open", "os.listdir", "os.scandir")
_CHANGES = (
    "os.remove", "os.rename", "os.rmdir", "os.mkdir", "os.link", "os.symlink", "os.truncate",
    "os.chmod", "os.chown", "os.chdir", "shutil.",
)  # fmt: skip


def _guard(limits: Limits, folder: Path) -> Callable[[str, tuple[Any, ...]], None]:
    """An audit hook: no network, no other programs, no look into closed folders, no changes."""
    real = os.path.realpath  # taken now: a student may put another in its place

    def place(path: str | bytes) -> str:
        return real(os.fsdecode(path)) + os.sep

    closed = tuple(place(str(each)) for each in limits.closed)
    own = place(str(folder))

    def hook(event: str, details: tuple[Any, ...]) -> None:
        if event.startswith(_FORBIDDEN):
            raise PermissionError(f"{event} is not allowed here")
        if event not in _LOOKS and not event.startswith(_CHANGES):
            return
        paths = [place(each) for each in details if isinstance(each, str | bytes)]
        if event == "open":
            if not paths or isinstance(details[0], int):  # a file that is open already
                return
            flags = details[2] or 0
            writes = flags & os.O_ACCMODE != os.O_RDONLY or flags & os.O_CREAT
            allowed = (own, "/dev/null/")
            wrong = paths[0].startswith(closed) or (writes and not paths[0].startswith(allowed))
        elif event in _LOOKS:
            wrong = any(path.startswith(closed) for path in paths)
        else:
            wrong = not all(path.startswith(own) for path in paths)
        if wrong:
            raise PermissionError(
                f"{event} is not allowed here: the place is closed to submissions"
            )

    return hook
