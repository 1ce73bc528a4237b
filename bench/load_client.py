"""The raw client of P3 and P4: association, C-ECHO, release, again and again; the same bytes for every rival.

It is a process of its own (python -m bench.load_client …) so that its work is not counted as anybody else's. `rate`
counts associations for a time, `hold` keeps many open (after a C-STORE on each, if `--megabytes` are asked for),
`store` sends on all at the same time, `latency` times one after the other, `flood` never ends. It prints one JSON
object a line.
"""

import argparse
import contextlib
import json
import socket
import ssl
import struct
import sys
import threading
import time
from dataclasses import dataclass, field

from bench import wire
from bench.pki import Credentials

TIMEOUT_SECONDS = 20


@dataclass(slots=True, kw_only=True)
class Caller:
    """One thread's way to the archive; `resume` offers the newest session of the thread each time."""

    port: int
    called_ae_title: str
    calling_ae_title: str
    tls: ssl.SSLContext | None
    resume: bool = False
    session: ssl.SSLSession | None = None
    done: int = 0
    resumed: int = 0
    protocol: str = "plaintext"

    def open(self) -> socket.socket:
        """Connect and negotiate; raises OSError or ProtocolFailureError."""
        connection: socket.socket = socket.create_connection(("127.0.0.1", self.port), TIMEOUT_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if self.tls is not None:
            session = self.session if self.resume else None
            secured = self.tls.wrap_socket(connection, server_hostname="localhost", session=session)
            self.resumed += bool(secured.session_reused)
            cipher = secured.cipher()
            self.protocol = f"{secured.version()} {cipher[0] if cipher else ''}"
            connection = secured
        connection.sendall(wire.associate_rq(self.called_ae_title, self.calling_ae_title))
        kind, body = receive_pdu(connection)
        if kind != wire.A_ASSOCIATE_AC or not wire.is_accepted(body):
            raise ProtocolFailureError(f"the association was not accepted: PDU type {kind}, {body[:8].hex()}")
        return connection

    def echo(self, connection: socket.socket) -> None:
        """Send one C-ECHO and insist on Success."""
        connection.sendall(wire.echo_rq(1))
        kind, body = receive_pdu(connection)
        if kind != wire.P_DATA_TF or wire.command_elements(body).get(0x0900) != b"\0\0":
            raise ProtocolFailureError(f"the C-ECHO was not answered with Success: PDU type {kind}, {body[:64].hex()}")

    def store(self, connection: socket.socket, size: int) -> None:
        """Send one C-STORE with so many bytes of pixels, and insist on Success."""
        instance = b"1.2.826.0.1.3680043.8.498.26.1"
        connection.sendall(wire.store_rq(1, instance))
        for part in wire.image_parts(instance, size):
            connection.sendall(part)
        kind, body = receive_pdu(connection)
        if kind != wire.P_DATA_TF or wire.command_elements(body).get(0x0900) != b"\0\0":
            raise ProtocolFailureError(f"the C-STORE was not answered with Success: PDU type {kind}, {body[:64].hex()}")

    def release(self, connection: socket.socket) -> None:
        """Release, keep the session ticket that came meanwhile, and close."""
        connection.sendall(wire.pdu(wire.A_RELEASE_RQ, bytes(4)))
        kind, _ = receive_pdu(connection)
        if kind != wire.A_RELEASE_RP:
            raise ProtocolFailureError(f"the release was not answered: PDU type {kind}")
        if self.resume and isinstance(connection, ssl.SSLSocket):
            self.session = connection.session
        connection.close()

    def once(self) -> None:
        """One whole association with its C-ECHO."""
        connection = self.open()
        self.echo(connection)
        self.release(connection)
        self.done += 1


class ProtocolFailureError(Exception):
    """The peer did not do what the standard asks; the run is void."""


def receive_pdu(connection: socket.socket) -> tuple[int, bytes]:
    """Return type and body of the next PDU."""
    header = _receive(connection, 6)
    kind, length = struct.unpack(">BxI", header)
    return kind, _receive(connection, length)


def _receive(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        more = connection.recv(count - len(data))
        if not more:
            raise ProtocolFailureError("the peer closed the connection")
        data += more
    return data


def client_context(credentials: Credentials) -> ssl.SSLContext:
    """Return the client context that every rival meets: TLS 1.3, the server checked, our certificate shown."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_verify_locations(credentials.ca)
    context.load_cert_chain(credentials.certificate, credentials.key)
    return context


@dataclass(slots=True)
class Team:
    """Threads that do the same work from one start; the first failure stops all of them."""

    callers: list[Caller]
    failures: list[str] = field(default_factory=list)
    stopped: threading.Event = field(default_factory=threading.Event)

    def run(self, seconds: float) -> float:
        """Work for `seconds` after one warm-up association each; return the time until the last has ended."""
        barrier = threading.Barrier(len(self.callers) + 1)
        threads = [threading.Thread(target=self._work, args=(caller, barrier), daemon=True) for caller in self.callers]
        for thread in threads:
            thread.start()
        # A warm-up that fails breaks the barrier; its reason is in `failures`.
        with contextlib.suppress(threading.BrokenBarrierError):
            barrier.wait(4 * TIMEOUT_SECONDS)
        began = time.monotonic()
        self.stopped.wait(seconds)
        self.stopped.set()
        for thread in threads:
            thread.join()
        return time.monotonic() - began

    def _work(self, caller: Caller, barrier: threading.Barrier) -> None:
        try:
            caller.once()
            caller.done = caller.resumed = 0
            barrier.wait(4 * TIMEOUT_SECONDS)
            while not self.stopped.is_set():
                caller.once()
        except (OSError, ProtocolFailureError, threading.BrokenBarrierError) as error:
            self.failures.append(f"{type(error).__name__}: {error}")
            self.stopped.set()
            barrier.abort()


def rate(arguments: argparse.Namespace, callers: list[Caller]) -> dict[str, object]:
    """Count whole associations."""
    team = Team(callers)
    seconds = team.run(arguments.seconds)
    return {
        "associations": sum(caller.done for caller in callers),
        "resumed": sum(caller.resumed for caller in callers),
        "seconds": seconds,
        "protocol": callers[0].protocol,
        "failures": team.failures,
    }


def hold(arguments: argparse.Namespace, callers: list[Caller]) -> dict[str, object]:
    """Open `--count` associations, send a C-STORE or C-ECHO on each, then keep them until stdin ends."""
    size = arguments.megabytes * 1_000_000
    connections: list[tuple[Caller, socket.socket]] = []
    failures: list[str] = []
    lock = threading.Lock()
    share = [arguments.count // len(callers) + (i < arguments.count % len(callers)) for i in range(len(callers))]

    def opening(caller: Caller, count: int) -> None:
        try:
            for _ in range(count):
                connection = caller.open()
                if size:
                    caller.store(connection, size)
                with lock:
                    connections.append((caller, connection))
        except (OSError, ProtocolFailureError) as error:
            failures.append(f"{type(error).__name__}: {error}")

    began = time.monotonic()
    threads = [threading.Thread(target=opening, args=pair) for pair in zip(callers, share, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    opened = time.monotonic()
    try:
        for caller, connection in connections:
            caller.echo(connection)
    except (OSError, ProtocolFailureError) as error:
        failures.append(f"{type(error).__name__}: {error}")
    report = {"opened": len(connections), "open_seconds": opened - began, "echo_seconds": time.monotonic() - opened}
    print(json.dumps({**report, "failures": failures}), flush=True)
    sys.stdin.read()
    for caller, connection in connections:
        with contextlib.suppress(OSError, ProtocolFailureError):
            caller.release(connection)
    return {"released": len(connections), "failures": failures}


def store(arguments: argparse.Namespace, callers: list[Caller]) -> dict[str, object]:
    """Send one object on an association of each thread, all at the same time."""
    failures: list[str] = []
    began = time.monotonic()

    def work(caller: Caller) -> None:
        try:
            connection = caller.open()
            caller.store(connection, arguments.megabytes * 1_000_000)
            caller.release(connection)
        except (OSError, ProtocolFailureError) as error:
            failures.append(f"{type(error).__name__}: {error}")

    threads = [threading.Thread(target=work, args=(caller,)) for caller in callers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"stored": len(callers), "seconds": time.monotonic() - began, "failures": failures}


def latency(arguments: argparse.Namespace, callers: list[Caller]) -> dict[str, object]:
    """Time `--count` associations with a C-ECHO, and as many with a C-STORE of half a megabyte."""
    caller = callers[0]
    found: dict[str, object] = {"failures": []}
    works = {"echo": caller.echo, "store": lambda connection: caller.store(connection, 500_000)}
    for name, work in works.items():
        times = []
        for _ in range(arguments.count):
            began = time.monotonic()
            connection = caller.open()
            work(connection)
            caller.release(connection)
            times.append(time.monotonic() - began)
        found[name] = times
    return found


def flood(arguments: argparse.Namespace, callers: list[Caller]) -> dict[str, object]:
    """Send C-STOREs on every association for ever; what is refused is asked again at once."""

    def work(caller: Caller) -> None:
        while True:
            with contextlib.suppress(OSError, ProtocolFailureError):
                connection = caller.open()
                while True:
                    caller.store(connection, arguments.megabytes * 1_000_000)

    for caller in callers:
        threading.Thread(target=work, args=(caller,), daemon=True).start()
    print("at work", flush=True)
    sys.stdin.read()
    return {"failures": []}


def main() -> int:
    """Parse, work, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=tuple(WORKS))
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--called", required=True)
    parser.add_argument("--calling", required=True)
    parser.add_argument("--key")
    parser.add_argument("--certificate")
    parser.add_argument("--ca")
    parser.add_argument("--resume", action="store_true")
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--count", type=int, default=100)
    parser.add_argument("--megabytes", type=int, default=0)
    arguments = parser.parse_args()
    tls = None
    if arguments.key:
        tls = client_context(Credentials(key=arguments.key, certificate=arguments.certificate, ca=arguments.ca))
    callers = [
        Caller(
            port=arguments.port,
            called_ae_title=arguments.called,
            calling_ae_title=arguments.calling,
            tls=tls,
            resume=arguments.resume,
        )
        for _ in range(arguments.threads)
    ]
    result = WORKS[arguments.what](arguments, callers)
    print(json.dumps(result), flush=True)
    return 1 if result["failures"] else 0


WORKS = {"rate": rate, "hold": hold, "store": store, "latency": latency, "flood": flood}

if __name__ == "__main__":
    raise SystemExit(main())
