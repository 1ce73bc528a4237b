"""Which hosts a run begins with, and that it goes on where it was killed."""

import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from hashlib import sha256
from ipaddress import ip_address
from pathlib import Path

import pytest

from dicomward.assess.scope import parse_scope
from dicomward.assess.targets import Target
from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAssociateRj
from dicomward.io.assess.run import Progress, fill_store
from dicomward.io.assess.store import AssessStore, TargetRow

HEAD = 'owner = "C"\nauthorisation = "A"\ncontact = "c"\nvalid_from = 2020-01-01\nvalid_until = 2099-01-01\n'
SCOPE = parse_scope(
    (HEAD + 'networks = ["127.0.0.0/29", "::1"]\n[[do_not_probe]]\ncidr = "127.0.0.3"\nreason = "pump"\n').encode()
)


def test_hosts_of_the_networks(tmp_path: Path) -> None:
    with AssessStore(tmp_path, create=True) as store:
        fill_store(store, SCOPE, None)
        assert {each.address for each in store.waiting()} == {*(f"127.0.0.{n}" for n in (1, 2, 4, 5, 6)), "::1"}
        assert store.excluded() == [("127.0.0.3", "do_not_probe 127.0.0.3/32: pump")]


def test_hosts_that_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = {"pacs.example": "127.0.0.2", "outside.example": "192.0.2.1"}

    def look_up(name: str, port: None, type: socket.SocketKind) -> list[tuple[object, ...]]:
        if name not in names:
            raise OSError("no such name")
        return [(0, 0, 0, "", (names[name], 0))]

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    targets = [
        Target(host="pacs.example", ports=(104,)),
        Target(host="::ffff:127.0.0.2", ports=(105,), called_ae_titles=("PACS",)),
        Target(host="127.0.0.3"),
        Target(host="outside.example"),
        Target(host="missing.example"),
    ]
    with AssessStore(tmp_path, create=True) as store:
        fill_store(store, SCOPE, targets)
        assert store.waiting() == [
            TargetRow(
                address="127.0.0.2", host="pacs.example", ports=(104, 105), called_ae_titles=("PACS",), is_named=True
            )
        ]
        assert {address for address, _ in store.excluded()} == {"127.0.0.3", "192.0.2.1", "missing.example"}


def test_estimate() -> None:
    assert Progress(done=0, total=10, servers=0, seconds=1).seconds_left is None
    assert Progress(done=5, total=10, servers=0, seconds=1).seconds_left == 1


def test_run_that_is_killed_goes_on_where_it_was(tmp_path: Path) -> None:
    """Each server is asked by one run only, but for those that were being asked when it was killed."""
    addresses = [str(ip_address("127.0.9.1") + n) for n in range(12)]
    calls = dict.fromkeys(addresses, 0)
    with ExitStack() as stack:
        port = 0
        listeners = []
        for address in addresses:
            listener = stack.enter_context(socket.create_server((address, port)))
            listener.setblocking(False)
            port = listener.getsockname()[1]
            listeners.append(listener)

        def answer() -> None:
            for address, listener in zip(addresses, listeners, strict=True):
                try:
                    connection, _ = listener.accept()
                except BlockingIOError:
                    continue
                with connection:
                    connection.settimeout(2)
                    if connection.recv(4096):
                        calls[address] += 1
                        connection.sendall(encode_pdu(AAssociateRj(result=1, source=1, reason=3)))

        scope = tmp_path / "scope.toml"
        scope.write_text(
            f'{HEAD}dimse_ports = [{port}]\nweb_ports = []\nnetworks = ["127.0.9.0/28"]\n'
            "[pace]\nhosts_at_once = 1\nconnections_per_second = 40\n"
        )
        command = [
            sys.executable, "-m", "dicomward.cli.main", "assess", str(scope), "--out", str(tmp_path / "out"),
            "--confirm", sha256(scope.read_bytes()).hexdigest(),
        ]  # fmt: skip
        for options, enough in (((), 5), (("--resume",), 99)):
            with subprocess.Popen([*command, *options], stdout=subprocess.DEVNULL, env=dict(os.environ)) as child:
                deadline = time.monotonic() + 60
                while child.poll() is None and time.monotonic() < deadline:
                    answer()
                    if sum(calls.values()) >= enough:
                        child.send_signal(signal.SIGKILL)
                        child.wait()
                    time.sleep(0.001)
        assert child.returncode == 0
    assert all(calls.values())
    assert sum(calls.values()) <= len(addresses) + 1
    with AssessStore(tmp_path / "out") as store:
        assert len({each.address for each in store.observations()}) == len(addresses)
        assert store.progress() == (14, 14)
