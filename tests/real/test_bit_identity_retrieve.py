"""Each storable file comes back through the gateway bit by bit, in its own transfer syntax: by C-GET and by C-MOVE."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real import raw_peer as raw
from tests.real import raw_retrieve as retrieve
from tests.real.gateway import Gateway
from tests.real.hospital import TESTER
from tests.real.processes import LOOPBACK, free_port
from tests.real.samples import all_samples
from tests.real.site import ARCHIVE

SAMPLES = list(all_samples())
STORABLE = 250


class Here:
    """A gateway before an archive that the test plays, a reader, and a destination."""

    def __init__(self, directory: Path, archive: raw.RawArchive) -> None:
        self.archive = archive
        self.gateway = Gateway(directory / "gateway", archive=ARCHIVE, archive_port=archive.port)
        self.gateway.permit_everything_to(TESTER)
        self.reader = self.gateway.route(self.gateway.add_device("reader", "READER", role=TESTER), "READER")
        port = free_port()
        credentials = self.gateway.add_device("destination", "DEST", role=TESTER, address=port)
        self.context = credentials.server_context()
        self.listener = socket.create_server((LOOPBACK, port))
        self.gateway.start()


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with raw.RawArchive() as archive:
        made = Here(tmp_path_factory.mktemp("retrieve"), archive)
        try:
            yield made
        finally:
            made.listener.close()
            made.gateway.stop()


def test_enough_files() -> None:
    assert len(SAMPLES) == STORABLE


def _accepted(peer: raw.Connection) -> None:
    assert not any(raw.results_of(peer.expect(raw.ASSOCIATE_AC)))


def test_by_c_get(here: Here) -> None:
    contexts = retrieve.contexts_of(SAMPLES, retrieve.STUDY_GET)
    roles = sorted({each.sop_class_uid for each in SAMPLES})
    with raw.connect(here.reader) as device:
        device.send(raw.request_on(here.reader, contexts, roles=roles))
        with here.archive.accept() as archive:
            archive.send(raw.associate_ac(archive.expect(raw.ASSOCIATE_RQ), roles=roles))
            _accepted(device)
            device.send(retrieve.retrieve(retrieve.C_GET))
            asked = archive.message()
            found = []
            for number, each in enumerate(SAMPLES, 1):
                context_id = retrieve.context_for(contexts, each)
                sender = threading.Thread(target=archive.send, args=(retrieve.store(context_id, each, number),))
                sender.start()
                arrived = device.message()
                sender.join(timeout=20)
                found.append(retrieve.wrong(each, contexts, arrived))
                device.send(raw.response_to(arrived))
                assert archive.message()[raw.STATUS] == 0
            archive.send(raw.response_to(asked))
            assert device.message()[raw.STATUS] == 0
    assert [each for each in found if each] == []


def test_by_c_move(here: Here) -> None:
    contexts = retrieve.contexts_of(SAMPLES, None)
    query: raw.Contexts = {retrieve.QUERY_CONTEXT: (retrieve.STUDY_MOVE, [raw.IMPLICIT])}
    with raw.connect(here.reader) as device:
        device.send(raw.request_on(here.reader, query))
        with here.archive.accept() as archive:
            archive.send(raw.associate_ac(archive.expect(raw.ASSOCIATE_RQ)))
            _accepted(device)
            device.send(retrieve.retrieve(retrieve.C_MOVE, "DEST"))
            asked = archive.message()
            plain = socket.create_connection((LOOPBACK, here.gateway.archive_port), timeout=raw.SECONDS)
            with raw.Connection(plain) as sender:
                sender.send(raw.associate_rq(called="DEST", calling=ARCHIVE, contexts=contexts))
                connected, _ = here.listener.accept()
                with raw.Connection(here.context.wrap_socket(connected, server_side=True)) as destination:
                    destination.send(raw.associate_ac(destination.expect(raw.ASSOCIATE_RQ)))
                    _accepted(sender)
                    found = []
                    for number, each in enumerate(SAMPLES, 1):
                        data = retrieve.store(retrieve.context_for(contexts, each), each, number, "READER")
                        thread = threading.Thread(target=sender.send, args=(data,))
                        thread.start()
                        arrived = destination.message()
                        thread.join(timeout=20)
                        found.append(retrieve.wrong(each, contexts, arrived))
                        destination.send(raw.response_to(arrived))
                        assert sender.message()[raw.STATUS] == 0
            archive.send(raw.response_to(asked))
            assert device.message()[raw.STATUS] == 0
    assert [each for each in found if each] == []
