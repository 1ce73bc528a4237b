"""The shipper against a receiver of the tests' own; a real rsyslog is in tests/real/test_syslog.py."""

import json
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dicomward.audit.event import AuditEvent, DegradedEntered, DegradedLeft
from dicomward.audit.standard import AuditSource
from dicomward.io.audit.cursor import cursor_path, read_cursor
from dicomward.io.audit.read import list_segments
from dicomward.io.audit.ship import ShipLimits, Shipper
from dicomward.settings.kinds import ListenAddress
from dicomward.settings.syslog import SyslogDestination
from tests.io.small_log import make_log
from tests.real.pki import Authority, Credentials

LIMITS = ShipLimits(
    look_seconds=0.02,
    settle_seconds=0.05,
    alarm_seconds=0.1,
    first_retry_seconds=0.02,
    longest_retry_seconds=0.05,
    stop_seconds=5.0,
)


class Receiver:
    """Takes frames over mutual TLS, one connection after the other."""

    def __init__(self, credentials: Credentials, port: int = 0) -> None:
        self._context = credentials.server_context()
        self._listener = socket.create_server(("127.0.0.1", port))
        self.port = self._listener.getsockname()[1]
        self.changed = threading.Condition()
        self.messages: list[bytes] = []
        self._connection: ssl.SSLSocket | None = None
        self._is_over = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        while not self._is_over:
            try:
                plain, _ = self._listener.accept()
            except OSError:
                return
            try:
                with self._context.wrap_socket(plain, server_side=True) as connection:
                    self._connection = connection
                    self._read(connection)
            except OSError:
                continue

    def _read(self, connection: ssl.SSLSocket) -> None:
        data = b""
        while received := connection.recv(65_536):
            data += received
            while b" " in data:
                length, _, rest = data.partition(b" ")
                if len(rest) < int(length):
                    break
                with self.changed:
                    self.messages.append(rest[: int(length)])
                    self.changed.notify_all()
                data = rest[int(length) :]

    def of(self, message_id: str) -> list[Any]:
        with self.changed:
            found = [each for each in self.messages if f" {message_id} ".encode() in each]
        return [json.loads(each.partition(b"\xef\xbb\xbf")[2]) for each in found]

    def wait_for(self, count: int, message_id: str = "DICOMWARD+RECORD") -> list[Any]:
        with self.changed:
            assert self.changed.wait_for(lambda: len(self.of(message_id)) >= count, 20)
        return self.of(message_id)

    def close(self) -> None:
        self._is_over = True
        try:
            self._listener.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self._listener.close()
        if self._connection is not None:
            try:
                self._connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass
        self._thread.join(5)


class Place:
    def __init__(self, tmp_path: Path) -> None:
        authority = Authority("Audit CA", tmp_path / "pki")
        self.theirs, self.ours = authority.issue("receiver"), authority.issue("gateway")
        self.log = tmp_path / "log"
        self.records: list[AuditEvent] = []
        self.told = threading.Condition()
        self.receiver = Receiver(self.theirs)

    def destination(self, **changes: Any) -> SyslogDestination:
        values: dict[str, Any] = {
            "address": ListenAddress(host="127.0.0.1", port=self.receiver.port),
            "ca": self.ours.authority,
            "certificate": self.ours.certificate,
            "key": self.ours.key,
            "server_name": "127.0.0.1",
            "encoding": "json",
            "from_start": True,
        }
        return SyslogDestination(**{**values, **changes})

    def shipper(self, **changes: Any) -> Shipper:
        return Shipper(
            self.log, self.destination(**changes), AuditSource("gw"), host="gw", record=self.record, limits=LIMITS
        )

    def record(self, event: AuditEvent) -> None:
        with self.told:
            self.records.append(event)
            self.told.notify_all()

    def wait_for_record(self, kind: type[AuditEvent]) -> None:
        with self.told:
            assert self.told.wait_for(lambda: any(isinstance(each, kind) for each in self.records), 20)

    def delivered(self) -> int | None:
        return read_cursor(cursor_path(self.log, self.destination()))


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    made = Place(tmp_path)
    yield made
    made.receiver.close()


def test_everything_arrives_in_order_and_the_cursor_follows(place: Place) -> None:
    make_log(place.log, 200)
    shipper = place.shipper()
    shipper.start()
    place.receiver.wait_for(200)
    make_log(place.log, 5)
    got = place.receiver.wait_for(205)
    assert [each["seq"] for each in got] == list(range(1, 206))
    assert place.receiver.wait_for(1, "DICOMWARD+HEAD")[0]["v"] == 1
    shipper.stop()
    assert place.delivered() == 205
    assert shipper.status.backlog == 0


def test_a_restart_goes_on_where_it_was(place: Place) -> None:
    make_log(place.log, 5)
    first = place.shipper()
    first.start()
    place.receiver.wait_for(5)
    first.stop()
    make_log(place.log, 3)
    second = place.shipper()
    second.start()
    assert [each["seq"] for each in place.receiver.wait_for(8)] == list(range(1, 9))
    second.stop()


def test_a_new_receiver_gets_what_comes_from_now_on(place: Place) -> None:
    make_log(place.log, 5)
    shipper = place.shipper(from_start=False)
    shipper.start()
    make_log(place.log, 2)
    assert [each["seq"] for each in place.receiver.wait_for(2)] == [6, 7]
    shipper.stop()


def test_a_receiver_that_goes_away_is_an_alarm_and_gets_what_it_missed(place: Place) -> None:
    make_log(place.log, 3)
    shipper = place.shipper()
    shipper.start()
    place.receiver.wait_for(3)
    place.receiver.close()
    make_log(place.log, 50)
    place.wait_for_record(DegradedEntered)
    assert not shipper.status.connected
    assert shipper.status.backlog >= 50
    place.receiver = Receiver(place.theirs, place.receiver.port)
    got = place.receiver.wait_for(50)
    assert sorted({each["seq"] for each in got} | {1, 2, 3}) == list(range(1, 54))
    place.wait_for_record(DegradedLeft)
    shipper.stop()


def test_records_that_the_log_can_not_take_are_sent_as_they_are(place: Place) -> None:
    make_log(place.log, 1)
    shipper = place.shipper()
    shipper.start()
    place.receiver.wait_for(1)
    shipper.divert([("2026-01-31T12:00:00.000000Z", {"code": "DW-SEC-ALERT", "detail": "the disk is full"})])
    got = place.receiver.wait_for(2)
    assert (got[1]["seq"], got[1]["detail"]) == (0, "the disk is full")
    shipper.stop()
    assert place.delivered() == 1


def test_more_than_memory_has_room_for_is_counted(place: Place) -> None:
    make_log(place.log, 1)
    shipper = place.shipper()
    shipper.divert([("2026-01-31T12:00:00.000000Z", {"code": "DW-GW-START"})] * 8200)
    shipper.start()
    with place.receiver.changed:
        assert place.receiver.changed.wait_for(lambda: any(b"DW-AUDIT-LOST" in e for e in place.receiver.messages), 30)
    (lost,) = [each for each in place.receiver.of("DICOMWARD+RECORD") if each["code"] == "DW-AUDIT-LOST"]
    assert lost["count"] == 8
    shipper.stop()


def test_records_that_are_damaged_or_gone_are_told(place: Place) -> None:
    make_log(place.log, 12)
    segments = list_segments(place.log)
    segments[0].path.unlink()
    path = segments[2].path
    path.write_bytes(path.read_bytes().replace(b"DW-GW-START", b"DW-GW-STORT", 1))
    shipper = place.shipper()
    shipper.start()
    gone = segments[1].first_seq - 1
    got = place.receiver.wait_for(12 - gone + 1)
    lost = [each for each in got if each["code"] == "DW-AUDIT-LOST"]
    assert [each["count"] for each in lost] == [gone, 1]
    shipper.stop()


@pytest.mark.parametrize("change", [{"server_name": "other.example"}, {"certificate": None, "key": None}])
def test_without_the_right_names_nothing_is_delivered(place: Place, change: dict[str, Any]) -> None:
    make_log(place.log, 2)
    shipper = place.shipper(**change)
    shipper.start()
    place.wait_for_record(DegradedEntered)
    shipper.stop()
    assert place.receiver.messages == []
    assert place.delivered() == 0


@pytest.mark.parametrize(("encoding", "message_id"), [("fhir", "IHE+FHIR"), ("ecs", "DICOMWARD+ECS")])
def test_other_encodings(place: Place, encoding: str, message_id: str) -> None:
    make_log(place.log, 1)
    shipper = place.shipper(encoding=encoding)
    shipper.start()
    assert place.receiver.wait_for(1, message_id)
    shipper.stop()
