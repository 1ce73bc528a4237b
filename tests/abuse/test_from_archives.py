"""A hostile archive: the device gets well-formed PDUs or an end, and the devices of other archives notice nothing."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from tests.abuse.hostile import HOSTILE, HostileArchive
from tests.abuse.memory import Watch
from tests.abuse.place import Place, place
from tests.abuse.run import GOOD_SECONDS, good_echo
from tests.abuse.tap import StrictReader
from tests.abuse.tls_cases import ECHO_ALONE
from tests.real import raw_peer as raw
from tests.real.hospital import credentials_of
from tests.real.processes import LOOPBACK

PEAK_MIB, END_MIB = 64.0, 20.0


@pytest.fixture(scope="module")
def enemy() -> Iterator[HostileArchive]:
    with HostileArchive() as archive:
        yield archive


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory, enemy: HostileArchive) -> Iterator[Place]:
    directory: Path = tmp_path_factory.mktemp("hostile")
    with place(directory) as running:
        running.gateway.must("archive", "add", "hostile", f"HOSTILE@{LOOPBACK}:{enemy.port}")
        yield running


def _device(here: Place, name: str) -> str:
    """Ask the hostile archive for a C-ECHO; return what is wrong with what comes back."""
    route = replace(here.abuser, called_ae_title="HOSTILE")
    reader = StrictReader()
    with raw.connect(route) as device:
        device.socket.settimeout(0.15)
        device.send(raw.request_on(route, ECHO_ALONE))
        asked = released = False
        try:
            while data := device.socket.recv(65536):
                reader.feed(data)
                if not asked and reader.kinds[:1] == [raw.ASSOCIATE_AC]:
                    asked = True
                    device.send(raw.echo_rq(1, 1))
                if not released and raw.RELEASE_RQ in reader.kinds:
                    # In a collision it has wanted to be released itself before it reads that the archive wants it.
                    released = True
                    own = raw.pdu(raw.RELEASE_RQ, bytes(4)) if "collision" in name else b""
                    device.send(own + raw.pdu(raw.RELEASE_RP, bytes(4)))
            reader.close()
        except TimeoutError:
            # Nothing more is said while the archive is silent; then what was said must be whole.
            reader.close()
        except OSError as error:
            return f"{name}: {error}"
        assert good_echo(here.good, credentials_of(here.good).client_context(), seconds=GOOD_SECONDS)
    return ""


def test_devices_are_spared(here: Place, enemy: HostileArchive) -> None:
    context = credentials_of(here.good).client_context()
    for _ in range(5):
        assert good_echo(here.good, context) is not None
    assert len(HOSTILE) >= 80
    wrong = []
    with Watch(here.gateway.child.process.pid) as watch:
        for name, answer in HOSTILE.items():
            enemy.answer = answer
            if found := _device(here, name):
                wrong.append(found)
            enemy.let_go()
    assert wrong == []
    assert here.tap.breaches == []
    assert "internal-error" not in here.gateway.reasons()
    assert watch.peak - watch.start <= PEAK_MIB
    assert watch.now - watch.start <= END_MIB
