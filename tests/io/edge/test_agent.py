"""A whole agent in this process: it starts or says why not, serves, and ends in order."""

import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAssociateRj
from dicomward.io.edge.agent import EdgeAgent, EdgeStartError
from dicomward.settings.edge import EdgeSettings, parse_edge_settings
from tests.io.edge.place import WHO, Upstreams, make_spool, upstreams
from tests.io.enrolment_place import enrolment_place
from tests.io.world import Peer
from tests.real.site import ARCHIVE
from tests.relay.wire import CT_IMAGE, VERIFICATION, a_associate_rq, c_store_rq, image, message

SETTINGS = """
[edge]
state_directory = "state"
[upstream]
address = "127.0.0.1:{port}"
name = "localhost"
ca = "{ca}"
ae_titles = ["{archive}"]
[[devices]]
name = "ct1"
ae_titles = ["CT1"]
listen = "127.0.0.1:0"
certificate = "{certificate}"
key = "{key}"
store = "{store}"
{more}
"""
SPOOL = '[spool]\nkey = "spool-key"\nfree_bytes = 0\ncommitment = "off"\n'
SECONDS = 20.0


@pytest.fixture(scope="module")
def upstream(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Upstreams]:
    with upstreams(tmp_path_factory.mktemp("upstream")) as made:
        yield made


def settings_of(upstream: Upstreams, directory: Path, *, store: str = "pass-through", more: str = "") -> EdgeSettings:
    (directory / "spool-key").write_bytes(bytes(32))
    text = SETTINGS.format(
        port=upstream.archive.port,
        ca=upstream.credentials.authority,
        archive=ARCHIVE,
        certificate=upstream.credentials.certificate,
        key=upstream.credentials.key,
        store=store,
        more=more,
    )
    return parse_edge_settings(text, directory / "edge.toml")


@contextlib.contextmanager
def running(settings: EdgeSettings, served: Callable[[str], None] = lambda _name: None) -> Iterator[EdgeAgent]:
    agent = EdgeAgent(settings, served=served)
    agent.open()
    try:
        yield agent
    finally:
        agent.close(lambda: True)


def connect(agent: EdgeAgent) -> Peer:
    return Peer(socket.create_connection(agent.addresses["ct1"]))


def request(calling: str = "CT1") -> bytes:
    contexts = {1: VERIFICATION, 3: CT_IMAGE}
    return encode_pdu(replace(a_associate_rq(contexts), calling_ae_title=calling, called_ae_title=ARCHIVE))


def test_pass_through_gives_the_archives_own_answer(upstream: Upstreams, tmp_path: Path) -> None:
    with running(settings_of(upstream, tmp_path)) as agent, connect(agent) as peer:
        peer.established(replace(a_associate_rq({1: VERIFICATION}), called_ae_title=ARCHIVE))
        assert peer.echo() == 0
        peer.release()
    assert agent.senders == []


def test_nobody_but_the_device_is_served(upstream: Upstreams, tmp_path: Path) -> None:
    with running(settings_of(upstream, tmp_path)) as agent, connect(agent) as peer:
        peer.send(request("OTHER"))
        assert isinstance(peer.next(), AAssociateRj)
    elsewhere = settings_of(upstream, tmp_path, more='networks = ["192.0.2.7/32"]')
    with running(elsewhere) as agent, connect(agent) as peer:
        assert peer.is_gone()


def test_what_is_stored_is_spooled_and_delivered(upstream: Upstreams, tmp_path: Path) -> None:
    upstream.archive.stored.clear()
    with running(settings_of(upstream, tmp_path, store="spool", more=SPOOL)) as agent, connect(agent) as peer:
        peer.established(replace(a_associate_rq({3: CT_IMAGE}), called_ae_title=ARCHIVE))
        peer.send(message(3, c_store_rq(2), image()))
        assert peer.next_message().command.status == 0
        peer.release()
        assert upstream.archive.wait_until(lambda: upstream.archive.stored)
        assert [each.name for each in agent.senders] == ["ct1"]


def test_association_that_is_open_ends_with_the_agent(upstream: Upstreams, tmp_path: Path) -> None:
    agent = EdgeAgent(settings_of(upstream, tmp_path))
    agent.open()
    with connect(agent) as peer:
        peer.established(replace(a_associate_rq({1: VERIFICATION}), called_ae_title=ARCHIVE))
        closing = threading.Thread(target=agent.close, args=(lambda: True,))
        closing.start()
        assert peer.is_gone()
    closing.join(SECONDS)
    assert not closing.is_alive()


def test_association_that_ends_by_itself_is_waited_for(upstream: Upstreams, tmp_path: Path) -> None:
    agent = EdgeAgent(settings_of(upstream, tmp_path))
    agent.open()
    with connect(agent) as peer:
        peer.established(replace(a_associate_rq({1: VERIFICATION}), called_ae_title=ARCHIVE))
        closing = threading.Thread(target=agent.close)
        closing.start()
        assert peer.echo() == 0
        peer.release()
    closing.join(SECONDS)
    assert not closing.is_alive()


def test_device_that_listens_has_reverse_connections_and_they_end_with_the_agent(
    upstream: Upstreams, tmp_path: Path
) -> None:
    # This archive knows nothing of them, which the status says; nothing else is different.
    settings = settings_of(upstream, tmp_path, more='address = "127.0.0.1:9"')
    with running(settings) as agent, connect(agent) as peer:
        peer.established(replace(a_associate_rq({1: VERIFICATION}), called_ae_title=ARCHIVE))
        assert peer.echo() == 0
        line = agent._reverse["ct1"]
        waited = threading.Event()
        while line.status()["problem"] == "ok":
            agent._engine.post(waited.set)
            assert waited.wait(SECONDS)
            waited.clear()
        assert line.status() == {"parked": 0, "used": 0, "problem": "the upstream offers no reverse connections"}
    assert (tmp_path / "state" / "ct1" / "reverse" / "correlations.db").exists()


def test_address_that_is_taken_is_told_and_nothing_stays_open(upstream: Upstreams, tmp_path: Path) -> None:
    settings = settings_of(upstream, tmp_path, more='address = "127.0.0.1:9"')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = replace(settings.devices[0].listen, port=taken.getsockname()[1])
        blocked = replace(settings, devices=(replace(settings.devices[0], listen=listen),))
        with pytest.raises(EdgeStartError, match=r"can't listen on .* for ct1: Address already in use\. Does another"):
            EdgeAgent(blocked).open()
    # Its log and its files are free again.
    with running(settings):
        pass


@pytest.mark.parametrize(
    ("change", "why"),
    [("certificate", "can't be used"), ("spool-key", "can't be read"), ("waiting", "no device is called so")],
    ids=["certificate", "spool-key", "waiting"],
)
def test_what_keeps_it_from_starting_is_told(upstream: Upstreams, tmp_path: Path, change: str, why: str) -> None:
    settings = settings_of(upstream, tmp_path, store="spool", more=SPOOL)
    if change == "certificate":
        broken = replace(settings.devices[0], certificate=tmp_path / "nowhere.pem")
        settings = replace(settings, devices=(broken,))
    elif change == "spool-key":
        (tmp_path / "spool-key").unlink()
    else:
        incoming = make_spool(tmp_path).receive("gone", WHO)
        incoming.write(b"image")
        incoming.keep(b"1.2")
    with pytest.raises(EdgeStartError, match=why):
        EdgeAgent(settings).open()


def test_device_with_a_code_is_served_when_its_certificate_has_come(upstream: Upstreams, tmp_path: Path) -> None:
    files = 'certificate = "{certificate}"\nkey = "{key}"\n'
    with enrolment_place(tmp_path / "gateway") as place:
        text = SETTINGS.replace(files, "").format(
            port=upstream.archive.port,
            ca=upstream.credentials.authority,
            archive=ARCHIVE,
            store="spool",
            more=SPOOL.replace('"spool-key"', f'"{place.url}"') + f'key_ca = "{place.root}"\n',
        )
        text += f'[enrolment]\nserver = "{place.url}"\n'
        settings = parse_edge_settings(text, tmp_path / "edge.toml")
        with pytest.raises(EdgeStartError, match="there is no certificate for ct1, and no code"):
            EdgeAgent(settings).open()
        served = threading.Event()
        agent = EdgeAgent(settings, {"ct1": place.invite("ct1").code}, lambda _name: served.set())
        agent.open()
        assert served.wait(SECONDS)
        agent.close(lambda: True)
        # The next start has the certificate, and serves at once; the spool's key is as it was.
        with running(settings) as again, connect(again) as peer:
            peer.send(request("OTHER"))
            assert isinstance(peer.next(), AAssociateRj)
        # Without the key, which the server can't give now, the device waits, and nothing is lost.
        (tmp_path / "state" / "ct1" / "spool.pub").unlink()
    told: list[str] = []
    with running(settings, told.append) as waiting, connect(waiting) as peer:
        peer.send(request())
        assert isinstance(peer.next(), AAssociateRj)
    assert told == []


def test_device_that_spools_no_more_still_sends_what_waits(upstream: Upstreams, tmp_path: Path) -> None:
    incoming = make_spool(tmp_path).receive("ct1", WHO)
    incoming.write(b"\x08\x00\x18\x00UI\x02\x001\x00")
    incoming.keep(b"1.2")
    settings = settings_of(upstream, tmp_path, more=SPOOL)
    with running(settings) as agent, connect(agent) as peer:
        peer.established(replace(a_associate_rq({1: VERIFICATION}), called_ae_title=ARCHIVE))
        assert [each.name for each in agent.senders] == ["ct1"]
        assert peer.echo() == 0


def test_agent_loads_no_database_library() -> None:
    code = "import sys, dicomward.io.edge.agent; print('sqlalchemy' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "False\n"
