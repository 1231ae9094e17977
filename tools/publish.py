"""Put the repository's real address in every file that repeats it.

    make publish REPO=https://github.com/me/agman

The address in ``pyproject.toml`` (``[project.urls] Repository``) is the one that counts: whatever
it is now is replaced by the new one in all text files that git tracks or would track.
"""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tomllib
from pathlib import Path

_ADDRESS = re.compile(r"https://github\.com/([A-Za-z0-9-]+)/([A-Za-z0-9._-]+)")


def repository(root: Path) -> str:
    """The repository's address, as ``pyproject.toml`` below `root` states it."""
    project = tomllib.loads((root / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    return str(project["urls"]["Repository"])


def github_path(address: str) -> str:
    """``owner/name`` of a GitHub address; ValueError when it is not of that form."""
    match = _ADDRESS.fullmatch(address)
    if match is None or address.endswith(".git"):
        raise ValueError(
            f"{address!r} is not a repository's address: give https://github.com/<owner>/<name>, "
            "with no slash and no .git at the end."
        )
    return f"{match[1]}/{match[2]}"


def publish(root: Path, address: str) -> list[str]:
    """Rewrite the current address to `address` below `root`; the names of the changed files.

    Also rewritten: links that hold only ``owner/name``, as Colab's and the badge services' do.

    Raises:
        ValueError: `address` is not of the form ``https://github.com/<owner>/<name>``.
    """
    new = github_path(address)
    old = github_path(repository(root))
    if new == old:
        return []
    # After "owner/name" comes the end of the word: github.com/me/agman-fork is somebody else's.
    pattern = re.compile(rf"(github(?:\.com)?/){re.escape(old)}(?![\w-]|\.(?!git\b)\w)")
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=root,
        check=True,
        capture_output=True,
    )
    changed = []
    for name in filter(None, listing.stdout.decode().split("\0")):
        path = root / name
        if not path.is_file() or path.is_symlink():
            continue
        try:
            text = path.read_bytes().decode("utf-8")
        except UnicodeDecodeError:
            continue  # an image or another binary file
        rewritten = pattern.sub(rf"\g<1>{new}", text)
        if rewritten != text:
            path.write_bytes(rewritten.encode("utf-8"))
            changed.append(name)
    return changed


def main(arguments: list[str] | None = None) -> int:
    """Command line: one address, the changed files on standard output."""
    parser = argparse.ArgumentParser(prog="make publish")
    parser.add_argument("address", help="https://github.com/<owner>/<name>")
    options = parser.parse_args(arguments)
    try:
        changed = publish(Path(__file__).resolve().parents[1], options.address)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    except subprocess.CalledProcessError:
        print(
            "This folder is not a git clone: clone the repository, then publish.", file=sys.stderr
        )
        return 2
    for name in changed:
        print(name)
    print(f"{len(changed)} files changed." if changed else "Nothing to change.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
