"""`device sync`: what a server elsewhere has stored comes into force."""

import signal
import threading
import time

import pytest

from dicomward.cli.common import now
from dicomward.io.ca.service import open_issuer
from dicomward.io.registry.file import read_registry
from dicomward.settings import Settings
from tests.cli.conftest import Run
from tests.io.ca_helpers import grant, make_ca, spki


@pytest.fixture
def revision(settings: Settings) -> int:
    make_ca(settings.enrolment.ca, now())
    with open_issuer(settings) as issuer:
        return issuer.issue(spki(), grant("ct1"), now()).revision


def test_it_is_done_once(run: Run, settings: Settings, revision: int) -> None:
    done = run("device", "sync")
    assert (done.code, "everything that is stored is in force" in done.out) == (0, True)
    assert read_registry(settings.registry.snapshot).revision == revision
    assert run("device", "sync", "--json").json == {"in_force": True}


def test_what_is_wrong_is_told(run: Run, settings: Settings) -> None:
    (settings.directory / "registry.db").unlink()
    done = run("device", "sync")
    assert (done.code, "there is no registry" in done.err) == (1, True)


def test_it_follows_until_it_is_stopped(run: Run, settings: Settings, revision: int) -> None:
    before = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}

    def stop() -> None:
        until = time.monotonic() + 20
        while read_registry(settings.registry.snapshot).revision < revision and time.monotonic() < until:
            threading.Event().wait(0.01)
        signal.raise_signal(signal.SIGTERM)

    stopping = threading.Thread(target=stop)
    try:
        stopping.start()
        assert run("device", "sync", "--follow").code == 0
        assert read_registry(settings.registry.snapshot).revision == revision
    finally:
        stopping.join()
        for each, handler in before.items():
            signal.signal(each, handler)
