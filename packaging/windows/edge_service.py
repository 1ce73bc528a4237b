r"""The edge agent as a service of Windows: install, update with a way back, remove. docs/edge.md: Windows.

    python.exe edge_service.py install RELEASE    make the service, with a release below BASE\releases
    python.exe edge_service.py switch RELEASE     run another one; back by itself if that one does not serve
    python.exe edge_service.py back               the release before
    python.exe edge_service.py seal FILE          make a new key for the spool, sealed for this machine (DPAPI)
    python.exe edge_service.py remove             remove the service; nothing that it has written

Run it as an administrator, with the python.exe of a release: nothing else is needed. A release is a directory with
`python` (the embeddable package from python.org) and `lib` (our wheels, unpacked). Exit codes: 0, 1 failed, 2 usage.
"""

import argparse
import ctypes
import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

NAME = "dicomward-edge"
# A virtual account: made by Windows for this service alone, without a password, and without rights but its own files'.
ACCOUNT = rf"NT SERVICE\{NAME}"
BASE = Path(os.environ.get("PROGRAMFILES", r"C:\Program Files"), "Dicomward")
STATE = Path(os.environ.get("PROGRAMDATA", r"C:\ProgramData"), "Dicomward", "edge")
SECONDS_TO_SERVE = 60.0
SECONDS_TO_STOP = 30.0
STEP_SECONDS = 0.25

STOPPED = 1
ALL_RIGHTS = 0xF003F
ALL_OF_SERVICE = 0xF01FF
OWN_PROCESS, AUTO_START, NORMAL_ERROR, NO_CHANGE = 0x10, 2, 1, 0xFFFFFFFF
CONTROL_STOP = 1
ALREADY_RUNS = 1056
# It starts, it stops, or it has stopped meanwhile.
CANT_BE_ASKED = {1052, 1061, 1062}
# Levels of ChangeServiceConfig2W (winsvc.h).
DESCRIPTION, FAILURE_ACTIONS, DELAYED_START, FAILURE_FLAG, SID_TYPE, PRIVILEGES = 1, 2, 3, 4, 5, 6
UNKNOWN_LEVEL = {50, 120, 124}
RESTART = 1
RESTARTS_MILLISECONDS = (5_000, 30_000, 60_000)
FORGET_FAILURES_SECONDS = 86_400
UNRESTRICTED_SID = 1
LOCAL_MACHINE, NO_QUESTIONS = 4, 1


class Refused(Exception):
    """It can't be done; the message says why and what to do."""


def say(text: str) -> None:
    """Tell how it goes, on standard error."""
    print(f"edge_service: {text}", file=sys.stderr, flush=True)


class Manager:
    """Windows' service manager."""

    def __init__(self) -> None:
        from ctypes import wintypes as w

        library = ctypes.WinDLL("advapi32", use_last_error=True)
        for name, arguments in {
            "OpenSCManagerW": (w.LPCWSTR, w.LPCWSTR, w.DWORD),
            "OpenServiceW": (w.HANDLE, w.LPCWSTR, w.DWORD),
            "CreateServiceW": (
                *(w.HANDLE, w.LPCWSTR, w.LPCWSTR, w.DWORD, w.DWORD, w.DWORD, w.DWORD),
                *(w.LPCWSTR, w.LPCWSTR, w.LPVOID, w.LPCWSTR, w.LPCWSTR, w.LPCWSTR),
            ),
        }.items():
            function = getattr(library, name)
            function.restype, function.argtypes = w.HANDLE, arguments
        library.ChangeServiceConfigW.argtypes = (
            *(w.HANDLE, w.DWORD, w.DWORD, w.DWORD, w.LPCWSTR, w.LPCWSTR, w.LPVOID),
            *(w.LPCWSTR, w.LPCWSTR, w.LPCWSTR, w.LPCWSTR),
        )
        library.ChangeServiceConfig2W.argtypes = (w.HANDLE, w.DWORD, w.LPVOID)
        library.StartServiceW.argtypes = (w.HANDLE, w.DWORD, w.LPVOID)
        library.ControlService.argtypes = (w.HANDLE, w.DWORD, w.LPVOID)
        library.QueryServiceStatus.argtypes = (w.HANDLE, w.LPVOID)
        library.QueryServiceStatusEx.argtypes = (w.HANDLE, w.DWORD, w.LPVOID, w.DWORD, w.LPVOID)
        library.DeleteService.argtypes = (w.HANDLE,)
        library.CloseServiceHandle.argtypes = (w.HANDLE,)
        self._library = library
        self._manager = library.OpenSCManagerW(None, None, ALL_RIGHTS) or self._fail("opening the service manager")
        self._service = library.OpenServiceW(self._manager, NAME, ALL_OF_SERVICE)

    def _fail(self, what: str) -> int:
        code = ctypes.get_last_error()
        hint = "; run this as an administrator" if code == 5 else ""
        raise Refused(f"{what}: {ctypes.FormatError(code).strip()} ({code}){hint}")

    @property
    def exists(self) -> bool:
        """Say if there is such a service."""
        return bool(self._service)

    def create(self, command: str) -> None:
        """Make the service, which is not started."""
        self._service = self._library.CreateServiceW(
            *(self._manager, NAME, "Dicomward edge agent", ALL_OF_SERVICE, OWN_PROCESS, AUTO_START, NORMAL_ERROR),
            *(command, None, None, None, ACCOUNT, None),
        ) or self._fail("making the service")

    def set_command(self, command: str) -> None:
        """Say what the service runs from its next start on."""
        arguments = (NO_CHANGE, NO_CHANGE, NO_CHANGE, command, None, None, None, None, None, None)
        if not self._library.ChangeServiceConfigW(self._service, *arguments):
            self._fail("changing the service")

    def configure(self) -> None:
        """Describe it, have it started again when it fails, and leave it no privilege that it does not need."""
        actions = (ctypes.c_uint32 * 6)()
        for number, milliseconds in enumerate(RESTARTS_MILLISECONDS):
            actions[2 * number], actions[2 * number + 1] = RESTART, milliseconds

        class Failures(ctypes.Structure):
            _fields_ = (
                ("forget", ctypes.c_uint32),
                ("message", ctypes.c_wchar_p),
                ("command", ctypes.c_wchar_p),
                ("count", ctypes.c_uint32),
                ("actions", ctypes.c_void_p),
            )

        failures = Failures(FORGET_FAILURES_SECONDS, None, None, len(RESTARTS_MILLISECONDS), ctypes.addressof(actions))
        about = "Plaintext DICOM of the devices beside it, mutual TLS to the gateway"
        self._set(DESCRIPTION, ctypes.pointer(ctypes.c_wchar_p(about)), "its description")
        self._set(FAILURE_ACTIONS, ctypes.pointer(failures), "what happens when it fails")
        self._set(FAILURE_FLAG, ctypes.pointer(ctypes.c_int(1)), "what happens when it ends with an error")
        self._set(DELAYED_START, ctypes.pointer(ctypes.c_int(0)), "its start")
        self._set(SID_TYPE, ctypes.pointer(ctypes.c_uint32(UNRESTRICTED_SID)), "its SID")
        # A list of strings ends with an empty one.
        privileges = ctypes.create_unicode_buffer("SeChangeNotifyPrivilege\0")
        self._set(PRIVILEGES, ctypes.pointer(ctypes.c_void_p(ctypes.addressof(privileges))), "its privileges")

    def _set(self, level: int, value: object, what: str) -> None:
        if self._library.ChangeServiceConfig2W(self._service, level, ctypes.cast(value, ctypes.c_void_p)):
            return
        if ctypes.get_last_error() in UNKNOWN_LEVEL:
            say(f"WARNING this system can't set {what}")
        else:
            self._fail(f"setting {what}")

    def start(self) -> None:
        """Ask for its start."""
        if not self._library.StartServiceW(self._service, 0, None) and ctypes.get_last_error() != ALREADY_RUNS:
            self._fail("starting the service")

    def stop(self) -> None:
        """Stop it, and wait until it has. While it starts it can't be asked."""
        status = (ctypes.c_uint32 * 7)()
        deadline = time.monotonic() + SECONDS_TO_STOP
        while self.state() != STOPPED:
            asked = self._library.ControlService(self._service, CONTROL_STOP, status)
            if not asked and ctypes.get_last_error() not in CANT_BE_ASKED:
                self._fail("stopping the service")
            if time.monotonic() > deadline:
                say(f"the service has not stopped within {SECONDS_TO_STOP:g} s; it is ended, its spool stays")
                self._end()
                deadline += SECONDS_TO_STOP
            time.sleep(STEP_SECONDS)

    def _end(self) -> None:
        """End its process, which does not answer."""
        status = (ctypes.c_uint32 * 9)()
        needed = ctypes.c_uint32()
        arguments = (self._service, 0, status, ctypes.sizeof(status), ctypes.byref(needed))
        if not self._library.QueryServiceStatusEx(*arguments):
            self._fail("asking for the service")
        kernel = ctypes.WinDLL("kernel32", use_last_error=True)
        kernel.OpenProcess.restype = ctypes.c_void_p
        kernel.TerminateProcess.argtypes = (ctypes.c_void_p, ctypes.c_uint32)
        # PROCESS_TERMINATE
        process = kernel.OpenProcess(1, False, status[7])
        if not process or not kernel.TerminateProcess(process, 1):
            self._fail("ending the service")

    def state(self) -> int:
        """Return STOPPED, or another number of winsvc.h."""
        status = (ctypes.c_uint32 * 7)()
        if not self._library.QueryServiceStatus(self._service, status):
            self._fail("asking for the service")
        return int(status[1])

    def remove(self) -> None:
        """Remove it."""
        if not self._library.DeleteService(self._service):
            self._fail("removing the service")
        self._library.CloseServiceHandle(self._service)
        self._service = None


def python_of(base: Path, release: str) -> Path:
    """Return the interpreter of a release. Raises Refused."""
    path = base / "releases" / release / "python" / "python.exe"
    if Path(release).name != release or not path.is_file():
        raise Refused(f"there is no {path}; unpack the release and Python first")
    return path


def command_of(base: Path, state: Path, release: str) -> str:
    """Return what the service runs. A path in it has quotes, so that nothing shorter can be run in its place."""
    python = python_of(base, release)
    return f'"{python}" -X utf8 -m dicomward.cli.main edge service --config "{state / "edge.toml"}"'


def let_find_our_wheels(python: Path) -> None:
    """Add `lib` to where this Python looks for modules: the embeddable one looks nowhere else (python3XX._pth)."""
    for path in python.parent.glob("python*._pth"):
        lines = path.read_text("utf-8").splitlines()
        if r"..\lib" not in lines:
            path.write_text("\n".join([*lines, r"..\lib", ""]), "utf-8")


def dicomward(python: Path, state: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run a command of a release."""
    command = [python, "-X", "utf8", "-m", "dicomward.cli.main", "edge", *arguments, "--config", state / "edge.toml"]
    return subprocess.run(
        command, capture_output=True, text=True, encoding="utf-8", stdin=subprocess.DEVNULL, check=False
    )


def protect(state: Path) -> None:
    """Leave the directory to administrators, the system and the service; what is made in it inherits that."""
    state.mkdir(parents=True, exist_ok=True)
    rights = ("*S-1-5-32-544:(OI)(CI)F", "*S-1-5-18:(OI)(CI)F", f"{ACCOUNT}:(OI)(CI)M")
    command = ["icacls.exe", str(state), "/inheritance:r", "/grant:r", *rights]
    done = subprocess.run(command, capture_output=True, text=True, stdin=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise Refused(f"the rights of {state} can't be set: {done.stdout}{done.stderr}".strip())


def serves(python: Path, state: Path, release: str) -> bool:
    """Say if the agent of that release runs."""
    try:
        report = json.loads(dicomward(python, state, "status", "--json").stdout)
    except ValueError:
        return False
    return bool(report["running"]) and report["version"] == release


def verify(python: Path, state: Path, release: str) -> None:
    """Find out whether a release starts at all, and takes the settings. Raises Refused."""
    # Exit code 1 with a report: something is overdue, which is no reason to refuse.
    tried = dicomward(python, state, "status", "--json")
    if not tried.stdout:
        raise Refused(f"{release} does not start with these settings; nothing was changed: {tried.stderr.strip()}")


def restart_and_wait(manager: Manager, base: Path, state: Path, release: str) -> bool:
    """Run a release; False if it does not serve in time."""
    python = python_of(base, release)
    try:
        manager.stop()
        manager.set_command(command_of(base, state, release))
        manager.start()
    except Refused as error:
        say(str(error))
        return False
    deadline = time.monotonic() + SECONDS_TO_SERVE
    while time.monotonic() < deadline:
        if manager.state() == STOPPED:
            return False
        if serves(python, state, release):
            return True
        time.sleep(STEP_SECONDS)
    return False


def install(manager: Manager, base: Path, state: Path, release: str) -> None:
    """Make the service and start it. Raises Refused."""
    if manager.exists:
        raise Refused(f"there is a service {NAME} already; use switch, or remove it first")
    python = python_of(base, release)
    let_find_our_wheels(python)
    if not (state / "edge.toml").is_file():
        raise Refused(f"there is no {state / 'edge.toml'}; write it first, see docs/edge.md")
    verify(python, state, release)
    manager.create(command_of(base, state, release))
    manager.configure()
    # Only now Windows knows the account.
    protect(state)
    (state / "release").write_text(release, "utf-8")
    if not restart_and_wait(manager, base, state, release):
        raise Refused(f"it does not serve; look into {state / 'edge.log'}, then: edge_service.py switch {release}")
    say(f"{release} runs")


def switch(manager: Manager, base: Path, state: Path, release: str) -> None:
    """Run another release, or the old one again if that does not serve. Raises Refused."""
    if not manager.exists:
        raise Refused(f"there is no service {NAME}; install it first")
    old = (state / "release").read_text("utf-8")
    python = python_of(base, release)
    let_find_our_wheels(python)
    verify(python, state, release)
    if restart_and_wait(manager, base, state, release):
        (state / "release").write_text(release, "utf-8")
        if old != release:
            (state / "release.before").write_text(old, "utf-8")
        say(f"{release} runs; {old} is kept for: edge_service.py back")
        return
    say(f"{release} does not serve; back to {old}")
    if restart_and_wait(manager, base, state, old):
        raise Refused(f"{old} runs again")
    raise Refused(f"{old} does not serve either: look into {state / 'edge.log'}")


def back(manager: Manager, base: Path, state: Path) -> None:
    """Run the release before. Raises Refused."""
    try:
        release = (state / "release.before").read_text("utf-8")
    except FileNotFoundError:
        raise Refused("no release was before this one") from None
    switch(manager, base, state, release)


def remove(manager: Manager, state: Path) -> None:
    """Remove the service, and nothing that it has written."""
    if not manager.exists:
        say(f"there is no service {NAME}")
        return
    try:
        manager.stop()
    except Refused as error:
        say(f"WARNING {error}; Windows removes it when it has ended")
    manager.remove()
    say(f"removed; {state} is as it was")


def seal(path: Path) -> None:
    """Write a new key for the spool, sealed by DPAPI for this machine. Raises Refused."""
    if path.exists():
        raise Refused(f"{path} is there already: with another key what waits in the spool could not be read")
    path.write_bytes(protect_data(secrets.token_bytes(32)))
    say(f'{path} is made; in edge.toml: [spool] key = "dpapi:{path.as_posix()}"')


def protect_data(data: bytes) -> bytes:
    """Seal it for this machine. Raises Refused."""

    class Blob(ctypes.Structure):
        _fields_ = (("size", ctypes.c_uint32), ("data", ctypes.c_void_p))

    buffer = ctypes.create_string_buffer(data, len(data))
    given, sealed = Blob(len(data), ctypes.addressof(buffer)), Blob()
    library = ctypes.WinDLL("crypt32", use_last_error=True)
    flags = LOCAL_MACHINE | NO_QUESTIONS
    if not library.CryptProtectData(ctypes.byref(given), "spool", None, None, None, flags, ctypes.byref(sealed)):
        raise Refused(f"DPAPI: {ctypes.FormatError(ctypes.get_last_error()).strip()}")
    return ctypes.string_at(sealed.data, sealed.size)


def main(argv: Sequence[str] | None = None) -> int:
    """Do it; see above."""
    parser = argparse.ArgumentParser(prog="edge_service.py", description="The edge agent as a service of Windows.")
    parser.add_argument("action", choices=("install", "switch", "back", "seal", "remove"))
    parser.add_argument("what", nargs="?", metavar="RELEASE|FILE")
    parser.add_argument("--base", type=Path, default=BASE, help=f"where releases\\RELEASE is (default: {BASE})")
    parser.add_argument("--state", type=Path, default=STATE, help=f"where edge.toml is (default: {STATE})")
    args = parser.parse_args(argv)
    if (args.what is None) == (args.action in {"install", "switch", "seal"}):
        parser.error(f"{args.action} takes {'one' if args.what is None else 'no'} argument")
    base, state = args.base.absolute(), args.state.absolute()
    try:
        if args.action == "seal":
            seal(Path(args.what).absolute())
            return 0
        manager = Manager()
        if args.action == "install":
            install(manager, base, state, args.what)
        elif args.action == "switch":
            switch(manager, base, state, args.what)
        elif args.action == "back":
            back(manager, base, state)
        else:
            remove(manager, state)
    except (Refused, OSError) as error:
        say(str(error))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
