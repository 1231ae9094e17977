"""Renew the scripts of others that the book serves itself, from pinned npm packages.

    make vendor            # fetch with `npm pack`, check, replace
    python tools/vendor.py --check   # only compare what is here with SHA256SUMS

So the built pages ask nothing of any other site. Needs npm, to fetch only: no package is
installed and none of their scripts runs.
"""

from __future__ import annotations

import argparse
import hashlib
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

ROOT = Path(__file__).resolve().parents[1]
VENDOR = ROOT / "book" / "_assets" / "vendor"
SUMS = VENDOR / "SHA256SUMS"

# npm package: (sha256 of its tarball, {file or folder in it: where it goes, from the root}).
_TO = "book/_assets/vendor"
PACKAGES: dict[str, tuple[str, dict[str, str]]] = {
    "mathjax@3.2.2": (
        "1b9c0a1c44df864e915690558e72adb9cc5203360daefd385084ced3b6c64c09",
        {
            "es5/tex-mml-chtml.js": f"{_TO}/mathjax/tex-mml-chtml.js",
            "es5/output/chtml/fonts/woff-v2": f"{_TO}/mathjax/output/chtml/fonts/woff-v2",
            "es5/input/tex/extensions": f"{_TO}/mathjax/input/tex/extensions",
            "LICENSE": f"{_TO}/licenses/mathjax.txt",
        },
    ),
    "requirejs@2.3.8": (
        "777158e89275e16bd51aec3ef714fbcb5dc45789e7078659933bc814916d7dec",
        {"require.js": f"{_TO}/require.js"},
    ),
    "@jupyter-widgets/html-manager@1.0.15": (
        "2b9d65cb7913e1c7d671757a10008b32c9c2448d4429513371e55c07d6107638",
        {
            f"dist/{name}": f"{_TO}/@jupyter-widgets/html-manager/dist/{name}"
            for name in (
                "embed-amd.js",
                "1551f4f60c37af51121f.woff2",
                "7a3337626410ca2f4071.woff2",
                "d878b0a6a1144760244f.woff2",
                "2285773e6b4b172f07d9.woff",
                "bb58e57c48a3e911f15f.woff",
                "eeccf4f66002c6f2ba24.woff",
            )
        },
    ),
    "reveal.js@5.2.1": (
        "359b575dd51bbda32f89b2fd4c7dc46ad7389a805572158916c29252f7a27333",
        {
            "dist/reveal.js": "tools/reveal/reveal.js",
            "dist/reveal.css": "tools/reveal/reveal.css",
            "dist/reset.css": "tools/reveal/reset.css",
            "LICENSE": f"{_TO}/licenses/reveal.txt",
        },
    ),
    "onnxruntime-web@1.30.0": (
        "d2228df7e4616bc3348bf504ee888f3bec43789a273f0a63f3e68d203ce3bf71",
        {
            f"dist/{name}": f"{_TO}/onnxruntime-web/{name}"
            for name in (
                "ort.wasm.min.mjs",
                "ort-wasm-simd-threaded.mjs",
                "ort-wasm-simd-threaded.wasm",
            )
        },
    ),
    "axe-core@4.14.1": (
        "e6b0ce02b84d892e2e33e403485e7f3d6c29e2be6df65daf44d89ba564139745",
        {
            "axe.min.js": "tests/book/axe.min.js",
            "LICENSE": f"{_TO}/licenses/axe-core.txt",
        },
    ),
}
# Too large to commit (git ignores it): only here after `make vendor`, checked where it is.
OPTIONAL = f"{_TO}/onnxruntime-web/"


def sha256(data: bytes) -> str:
    """Hexadecimal SHA-256 of `data`."""
    return hashlib.sha256(data).hexdigest()


def wanted_files(package: str, tarball: bytes) -> dict[str, bytes]:
    """The files of `package` that the book needs: where each goes, and its bytes."""
    expected, places = PACKAGES[package]
    if sha256(tarball) != expected:
        raise ValueError(f"{package}: the tarball's sha256 is not {expected}; nothing was changed.")
    files: dict[str, bytes] = {}
    with tempfile.TemporaryFile() as buffer:
        buffer.write(tarball)
        buffer.seek(0)
        with tarfile.open(fileobj=buffer) as archive:
            for member in archive:
                inside = PurePosixPath(member.name)
                for source, target in places.items():
                    wanted = PurePosixPath("package", source)
                    if member.isfile() and inside.is_relative_to(wanted):
                        content = archive.extractfile(member)
                        place = str(PurePosixPath(target, inside.relative_to(wanted)))
                        files[place] = content.read() if content else b""
    missing = [
        t for t in places.values() if not any(PurePosixPath(f).is_relative_to(t) for f in files)
    ]
    if missing:
        raise ValueError(f"{package}: nothing in the tarball for {', '.join(missing)}.")
    return files


def fetch(package: str) -> bytes:
    """The tarball of `package`, through npm."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["npm", "pack", "--silent", package], cwd=folder, check=True, stdout=subprocess.DEVNULL
        )
        return next(Path(folder).glob("*.tgz")).read_bytes()


def renew() -> None:
    """Fetch all packages first, then write their files and SHA256SUMS."""
    files: dict[str, bytes] = {}
    for package in PACKAGES:
        files |= wanted_files(package, fetch(package))
    for place, data in sorted(files.items()):
        (ROOT / place).parent.mkdir(parents=True, exist_ok=True)
        (ROOT / place).write_bytes(data)
    SUMS.write_text(
        "".join(f"{sha256(d)}  {p}\n" for p, d in sorted(files.items())), encoding="utf-8"
    )
    size = sum(map(len, files.values()))
    print(f"{len(files)} files, {size / 1e6:.1f} MB, from {len(PACKAGES)} packages.")


def differences() -> list[str]:
    """What SHA256SUMS names and what is here, compared: one line for each fault."""
    found = []
    for line in SUMS.read_text(encoding="utf-8").splitlines():
        expected, place = line.split("  ", 1)
        path = ROOT / place
        if not path.is_file() and place.startswith(OPTIONAL):
            continue
        if not path.is_file():
            found.append(f"{place}: missing")
        elif sha256(path.read_bytes()) != expected:
            found.append(f"{place}: changed")
    return found


def main(arguments: list[str] | None = None) -> int:
    """Renew, or with ``--check`` only compare."""
    parser = argparse.ArgumentParser(prog="make vendor")
    parser.add_argument("--check", action="store_true", help="compare only; fetch nothing")
    if parser.parse_args(arguments).check:
        found = differences()
        print("\n".join(found) or "All vendored files are as recorded.")
        return 1 if found else 0
    renew()
    return 0


if __name__ == "__main__":
    sys.exit(main())
