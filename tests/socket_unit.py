"""Run a command as systemd would with sockets of a unit: `socket_unit.py FD,FD NAME:NAME COMMAND ...`."""

import fcntl
import os
import sys

# Above 3, so that no descriptor is overwritten before it is copied.
_ABOVE = 100

descriptors = [fcntl.fcntl(int(text), fcntl.F_DUPFD, _ABOVE) for text in sys.argv[1].split(",")]
for number, descriptor in enumerate(descriptors):
    os.dup2(descriptor, 3 + number, inheritable=True)
    os.close(descriptor)
os.environ |= {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": str(len(descriptors)), "LISTEN_FDNAMES": sys.argv[2]}
os.execv(sys.argv[3], sys.argv[3:])  # noqa: S606  the process that was asked for
