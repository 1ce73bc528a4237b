"""A device's listener and what it does with who calls: into the spool, to the relay, or nowhere; real clients call."""

import socket
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import build_context, evt

from dicomward.edge.contexts import Pair
from dicomward.edge.queue import Waiting
from dicomward.identity.registry import Archive, Device, Endpoint, RegistrySnapshot
from dicomward.identity.zone import LegacyZone
from dicomward.io.edge.front import MOST_ASSOCIATIONS, EdgeFront
from dicomward.io.edge.learned import Learned
from dicomward.io.edge.link import LinkDown
from dicomward.io.edge.passage import connected_pair
from dicomward.io.edge.scp import StoreScp
from dicomward.io.gateway.server import Acceptor
from tests.io.edge.place import CT, files, make_spool, spliced
from tests.real.clients import Pynetdicom, Route, data_set_of, rejection_of
from tests.real.raw_store import send_raw_store
from tests.real.recording_archive import (
    COMMITMENT,
    COMMITMENT_INSTANCE,
    VERIFICATION,
    WORKLIST,
    RecordingArchive,
    storage_contexts,
)
from tests.real.samples import Sample, sample
from tests.real.site import ARCHIVE, worklist_item

PAIR = (CT.sop_class_uid, CT.transfer_syntax_uid)
MR = sample("MR_small.dcm")
REGISTRY = RegistrySnapshot(
    devices=(
        Device(
            name="ct1",
            ae_titles=("CT1",),
            role="edge-device",
            networks=("127.0.0.1/32",),
            legacy_zone="ct1",
            legacy_always=True,
        ),
    ),
    archives=(Archive(name="pacs", ae_title=ARCHIVE, endpoint=Endpoint(host="127.0.0.1", port=104)),),
    revision=1,
)


class _Learned:
    """Knows one pair; who asks for others finds nobody."""

    def __init__(self) -> None:
        self.noted: list[Pair] = []

    def known(self, titles: tuple[str, str]) -> dict[Pair, bool]:
        return {PAIR: True}

    known_for_now = known

    def ask(self, titles: tuple[str, str], pairs: object) -> None:
        raise LinkDown("no route")

    def note_accepted(self, titles: tuple[str, str], pair: Pair) -> None:
        self.noted.append(pair)


class Agent:
    """A listener with a spool, and an archive in the place of the relay."""

    def __init__(
        self,
        directory: Path,
        archive: RecordingArchive,
        *,
        quota: int = 1 << 30,
        network: str = "",
        request_seconds: float = 1.0,
    ) -> None:
        self.directory = directory
        self.archive = archive
        self.accepted: list[Waiting] = []
        self.is_delivered = True
        self.is_relay_up = True
        self.learned = _Learned()
        self._splice = spliced(archive.port)
        listening = socket.create_server(("127.0.0.1", 0))
        self.port = listening.getsockname()[1]
        scp = StoreScp(
            name="ct1",
            registry=REGISTRY,
            zone=LegacyZone(name="ct1", networks=(network or "127.0.0.1/32",), end_date=date.max),
            spool=make_spool(directory, quota=quota),
            learned=cast("Learned", self.learned),
            accepted=self.accepted.append,
            delivered=lambda _seconds: self.is_delivered,
            admit=self.admit,
            idle_seconds=30.0,
        )
        self.front = EdgeFront(listening, cast("Acceptor", self), scp, request_seconds)
        self.front.start()

    def admit(self, connection: socket.socket, address: str) -> None:
        """Be the relay."""
        assert address == "127.0.0.1"
        if self.is_relay_up:
            self._splice(connection)
        else:
            connection.close()

    def route(self, calling: str = "CT1", called: str = ARCHIVE) -> Route:
        return Route(port=self.port, calling_ae_title=calling, called_ae_title=called)

    def associate(self, *contexts: Any, route: Route | None = None, **options: Any) -> Any:
        return Pynetdicom().associate(route or self.route(), contexts, **options)

    def stop(self) -> None:
        self.front.stop()


@pytest.fixture(scope="module")
def archive() -> Iterator[RecordingArchive]:
    with RecordingArchive(ARCHIVE) as running:
        running.worklist.append(worklist_item(1))
        yield running


@pytest.fixture
def agent(tmp_path: Path, archive: RecordingArchive) -> Iterator[Agent]:
    made = Agent(tmp_path, archive)
    yield made
    made.stop()


def contexts(*samples: Sample) -> list[Any]:
    return storage_contexts(list(samples or (CT,)))


def hears(connection: socket.socket) -> bytes:
    """Return what comes, b"" for the end of the connection, whichever way it ends."""
    connection.settimeout(10)
    try:
        return connection.recv(100)
    except ConnectionResetError:
        return b""


def test_object_is_durable_when_the_device_hears_so(agent: Agent) -> None:
    association = agent.associate(*contexts(), build_context(VERIFICATION))
    assert association.send_c_echo().Status == 0x0000
    assert send_raw_store(association, CT, 2) == 0x0000
    assert [each.name for each in agent.accepted] == files(agent.directory, "ready")
    association.release()
    assert association.is_released


def test_what_is_not_known_upstream_is_not_accepted(agent: Agent) -> None:
    association = agent.associate(*contexts(CT, MR))
    assert [str(each.abstract_syntax) for each in association.accepted_contexts] == [CT.sop_class_uid]
    association.abort()
    assert rejection_of(agent.associate(*contexts(MR))) == (2, 3, 1)


def test_nobody_else_and_nowhere_else(agent: Agent) -> None:
    assert rejection_of(agent.associate(*contexts(), route=agent.route(calling="OTHER"))) == (1, 1, 3)
    assert rejection_of(agent.associate(*contexts(), route=agent.route(called="OTHER"))) == (1, 1, 7)


def test_object_that_is_not_what_the_command_says_is_refused(agent: Agent) -> None:
    association = agent.associate(*contexts())
    wrong = Sample(
        path=CT.path,
        sop_class_uid=CT.sop_class_uid,
        sop_instance_uid="1.2.3",
        transfer_syntax_uid=CT.transfer_syntax_uid,
        data_set=CT.data_set,
        in_data_set=CT.in_data_set,
    )
    assert send_raw_store(association, wrong, 1) == 0xA900
    broken = Sample(
        path=CT.path,
        sop_class_uid=CT.sop_class_uid,
        sop_instance_uid=CT.sop_instance_uid,
        transfer_syntax_uid=CT.transfer_syntax_uid,
        data_set=b"\xff" * 100,
        in_data_set=CT.in_data_set,
    )
    assert send_raw_store(association, broken, 2) == 0xC000
    # The association goes on, and nothing of those two is left.
    assert send_raw_store(association, CT, 3) == 0x0000
    assert len(files(agent.directory, "ready")) == 1
    assert list((agent.directory / "spool" / "incoming").iterdir()) == []
    association.release()


def test_full_spool_refuses_and_says_so(tmp_path: Path, archive: RecordingArchive) -> None:
    agent = Agent(tmp_path, archive, quota=1)
    association = agent.associate(*contexts())
    assert [send_raw_store(association, CT, number) for number in (1, 2)] == [0x0000, 0xA700]
    association.release()
    agent.stop()


def test_other_services_of_the_association_pass_through(agent: Agent) -> None:
    association = agent.associate(*contexts(), build_context(WORKLIST), build_context(COMMITMENT))
    found = list(association.send_c_find(data_set_of({"PatientID": ""}), UID(WORKLIST)))
    assert [status.Status for status, _identifier in found] == [0xFF00, 0x0000]
    assert send_raw_store(association, CT, 5) == 0x0000
    association.release()
    assert association.is_released
    assert agent.archive.wait_until(lambda: ("CT1", ARCHIVE) in agent.archive.associations.requested)


def test_without_the_archive_a_device_can_still_store(agent: Agent) -> None:
    agent.is_relay_up = False
    association = agent.associate(*contexts(), build_context(WORKLIST))
    assert [str(each.abstract_syntax) for each in association.accepted_contexts] == [CT.sop_class_uid]
    assert send_raw_store(association, CT, 1) == 0x0000
    association.release()


def test_commitment_waits_for_what_the_archive_does_not_have(agent: Agent) -> None:
    reported = [(evt.EVT_N_EVENT_REPORT, lambda _event: (0x0000, None))]
    association = agent.associate(*contexts(), build_context(COMMITMENT), evt_handlers=reported)
    agent.is_delivered = False
    information = Dataset()
    information.TransactionUID = "2.25.7"
    status, _ = association.send_n_action(information, 1, UID(COMMITMENT), UID(COMMITMENT_INSTANCE))
    assert status.Status == 0x0213
    # Alone on an association it is rejected as congested.
    assert rejection_of(agent.associate(build_context(COMMITMENT))) == (2, 3, 1)
    agent.is_delivered = True
    information.ReferencedSOPSequence = []
    status, _ = association.send_n_action(information, 1, UID(COMMITMENT), UID(COMMITMENT_INSTANCE))
    assert status.Status == 0x0000
    association.release()


def test_archive_that_goes_away_ends_only_who_waits_for_it(agent: Agent) -> None:
    association = agent.associate(*contexts(), build_context(WORKLIST))
    with agent.archive.away():
        assert send_raw_store(association, CT, 1) == 0x0000
    # It is back, and asked on a new association.
    found = list(association.send_c_find(data_set_of({"PatientID": ""}), UID(WORKLIST)))
    assert found[-1][0].Status == 0x0000
    with agent.archive.away():
        assert not list(association.send_c_find(data_set_of({"PatientID": ""}), UID(WORKLIST)))[-1][0]
    association.abort()


def test_association_without_storing_is_the_relays(agent: Agent) -> None:
    association = agent.associate(build_context(VERIFICATION))
    assert association.send_c_echo().Status == 0x0000
    association.release()
    # What is no request at all, the relay judges too: the archive ends it.
    with socket.create_connection(("127.0.0.1", agent.port)) as stranger:
        stranger.sendall(b"\x05\0\0\0\0\4\0\0\0\0")
        assert hears(stranger)[:1] in (b"", b"\x07")


def test_who_says_nothing_and_who_is_a_stranger_is_closed(tmp_path: Path, archive: RecordingArchive) -> None:
    agent = Agent(tmp_path / "a", archive, request_seconds=0.1)
    with socket.create_connection(("127.0.0.1", agent.port)) as silent:
        silent.sendall(b"\x01\0\0\0")
        assert hears(silent) == b""
    with socket.create_connection(("127.0.0.1", agent.port)) as short:
        short.sendall(b"\x01\0\0\0\0\4\0")
        short.shutdown(socket.SHUT_WR)
        assert hears(short) == b""
    agent.stop()
    elsewhere = Agent(tmp_path / "b", archive, network="192.0.2.1/32")
    with socket.create_connection(("127.0.0.1", elsewhere.port)) as stranger:
        assert hears(stranger) == b""
    elsewhere.stop()


def test_more_than_so_many_are_turned_away(agent: Agent) -> None:
    for _ in range(MOST_ASSOCIATIONS):
        agent.front._places.acquire()
    with socket.create_connection(("127.0.0.1", agent.port)) as one_more:
        assert hears(one_more) == b""


def test_stop_ends_what_is_open(agent: Agent) -> None:
    association = agent.associate(*contexts())
    ended = threading.Thread(target=agent.front.stop)
    ended.start()
    ended.join(20)
    assert not ended.is_alive()
    association.join(20)


def test_pair_is_connected_with_itself_only() -> None:
    near, far = connected_pair()
    near.sendall(b"x")
    assert far.recv(1) == b"x"
    assert near.getsockname() == far.getpeername()
    near.close()
    far.close()
