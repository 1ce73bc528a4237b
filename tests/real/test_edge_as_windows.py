"""The real agent without any call that Windows lacks: its functions, and a restart in the middle.

What is hidden and put in its place: tests/real/as_windows.py. `make windows-test` has Windows' own Python run it.
"""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Final

import pytest

from tests.real.clients import Dcmtk, Pynetdicom
from tests.real.edge import Edge, Site, edge_site
from tests.real.processes import REPOSITORY
from tests.real.raw_store import send_raw_store
from tests.real.recording_archive import storage_contexts
from tests.real.test_edge_spool import SPOOL, arrived, copies, files, wait_for, wait_until_empty

COMMAND: Final = (sys.executable, "-m", "tests.real.as_windows")
MANY = 64


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with edge_site(tmp_path_factory.mktemp("windows")) as here:
        yield here


def agent(site: Site, directory: Path, store: str, more: str = "") -> Edge:
    (directory / "spool-key").write_bytes(bytes(range(32)))
    edge = Edge(directory / "edge", site.gateway.port, site.credentials, store=store, more=more, command=COMMAND)
    site.stack.callback(edge.stop)
    edge.start()
    return edge


def test_what_is_hidden_is_not_there() -> None:
    program = (
        "from tests.real.as_windows import hide; hide()\n"
        "import os, select, socket\n"
        "for name in ('fcntl', 'pwd', 'resource', 'termios'):\n"
        "    try: __import__(name)\n"
        "    except ModuleNotFoundError: print('no', name)\n"
        "print(hasattr(select, 'epoll'), hasattr(os, 'eventfd'), hasattr(socket, 'AF_UNIX'))\n"
        "print(hasattr(socket.socket(), 'sendmsg'))\n"
        "from dicomward.io.system import calls; print(calls.__name__)\n"
    )
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", program], capture_output=True, text=True, check=False)
    assert done.stdout.split("\n")[:-1] == [
        *("no fcntl", "no pwd", "no resource", "no termios"),
        *("False False False", "False", "dicomward.io.system.windows"),
    ], done.stderr


def test_every_service_passes_through(site: Site, tmp_path: Path) -> None:
    edge = agent(site, tmp_path, "pass-through")
    (image,) = copies(tmp_path / "images", 1)
    assert Dcmtk().echo(edge.route()).succeeded
    assert Dcmtk().find(edge.route(), {"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": ""}).succeeded
    assert Dcmtk().worklist(edge.route()).succeeded
    assert Dcmtk().store(edge.route(), [image]).succeeded
    assert not Dcmtk().echo(edge.route("OTHER")).succeeded


def test_restart_in_the_middle_loses_nothing(site: Site, tmp_path: Path) -> None:
    edge = agent(site, tmp_path, "spool", SPOOL.format(alarm=15))
    samples = copies(tmp_path / "images", 40)
    assert Dcmtk().store(edge.route(), samples[:1]).succeeded
    wait_for(site, samples[:1])
    sending = threading.Thread(target=lambda: Dcmtk().store(edge.route(), samples[1:]))
    sending.start()
    wanted = {each.sop_instance_uid for each in samples}
    assert site.archive.wait_until(
        lambda: len({each.sop_instance_uid for each in site.archive.stored} & wanted) > 3, seconds=20.0
    )
    assert edge.child is not None
    edge.child.process.kill()
    edge.child.process.wait()
    sending.join()
    edge.stop()
    edge.start()
    # What the device did not hear of, it sends again.
    assert Dcmtk().store(edge.route(), samples).succeeded
    wait_for(site, samples)
    wait_until_empty(edge)
    assert not files(edge, "quarantine")


def test_many_associations_at_once(site: Site, tmp_path: Path) -> None:
    edge = agent(site, tmp_path, "spool", SPOOL.format(alarm=15))
    samples = copies(tmp_path / "images", MANY)
    with ExitStack() as stack:
        associations = []
        for _ in range(MANY):
            association = Pynetdicom().associate(edge.route(), storage_contexts(samples))
            assert association.is_established
            stack.callback(association.release)
            associations.append(association)
        assert [
            send_raw_store(association, each, 1) for association, each in zip(associations, samples, strict=True)
        ] == [0] * MANY
    wait_for(site, samples)
    wait_until_empty(edge)
    # And to the bit.
    assert {(each.sop_instance_uid, each.data_set) for each in samples} <= arrived(site).keys()


def test_second_agent_on_one_spool_does_not_start(site: Site, tmp_path: Path) -> None:
    edge = agent(site, tmp_path, "spool", SPOOL.format(alarm=15))
    done = subprocess.run(
        [*COMMAND, "edge", "--config", edge.configuration], cwd=REPOSITORY, capture_output=True, text=True, check=False
    )
    assert (done.returncode, "another agent uses" in done.stderr) == (1, True)
