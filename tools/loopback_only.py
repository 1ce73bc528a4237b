"""Run a command in a network namespace of its own that has loopback and nothing else.

    python tools/loopback_only.py COMMAND [ARGUMENT ...]

Several test peers (DCMTK's servers, Orthanc) listen on every address of the machine. In a namespace of their own
nobody outside can reach them, and their ports meet nobody else's. Where the kernel gives no namespace, the command
runs all the same, with a note on stderr; DICOMWARD_LOOPBACK_ONLY says which it was ("yes" or "no").
"""

import ctypes
import fcntl
import os
import socket
import struct
import sys

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
SIOCGIFFLAGS = 0x8913
SIOCSIFFLAGS = 0x8914
IFF_UP = 0x1


def enter_namespace() -> None:
    """Leave the machine's network; an ordinary user does it inside a user namespace of its own."""
    libc = ctypes.CDLL(None, use_errno=True)
    uid, gid = os.getuid(), os.getgid()
    flags = CLONE_NEWNET if uid == 0 else CLONE_NEWNET | CLONE_NEWUSER
    if libc.unshare(flags) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    if uid != 0:
        for name, text in (("setgroups", "deny"), ("uid_map", f"{uid} {uid} 1"), ("gid_map", f"{gid} {gid} 1")):
            with open(f"/proc/self/{name}", "w", encoding="ascii") as file:
                file.write(text)


def bring_loopback_up() -> None:
    """Set IFF_UP on `lo`: a new namespace has it, but down."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as handle:
        request = fcntl.ioctl(handle, SIOCGIFFLAGS, struct.pack("16sh22x", b"lo", 0))
        (flags,) = struct.unpack_from("h", request, 16)
        fcntl.ioctl(handle, SIOCSIFFLAGS, struct.pack("16sh22x", b"lo", flags | IFF_UP))


def main() -> int:
    """Enter the namespace if we may and become the command."""
    if len(sys.argv) < 2:
        print(__doc__, file=sys.stderr)
        return 2
    isolated = "yes"
    if sys.platform == "linux" and os.environ.get("DICOMWARD_LOOPBACK_ONLY") != "yes":
        try:
            enter_namespace()
            bring_loopback_up()
        except OSError as error:
            isolated = "no"
            print(
                f"note: no network namespace here ({error.strerror}): the test peers share this machine's network.\n"
                "      Some of them (DCMTK's servers, Orthanc) listen on all its addresses while the tests run.",
                file=sys.stderr,
            )
    os.environ["DICOMWARD_LOOPBACK_ONLY"] = isolated
    try:
        os.execvp(sys.argv[1], sys.argv[1:])
    except OSError as error:
        print(f"can't run {sys.argv[1]}: {error.strerror}", file=sys.stderr)
    return 127


if __name__ == "__main__":
    sys.exit(main())
