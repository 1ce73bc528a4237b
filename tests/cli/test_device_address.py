"""`dicomward device address`, and `reverse` wherever an address is asked for."""

from pathlib import Path

import pytest

from dicomward.identity.registry import Device, Endpoint
from dicomward.identity.registry_json import decode_snapshot
from dicomward.settings import Settings
from tests.cli.conftest import Run


@pytest.fixture
def ws1(run: Run, settings: Settings, tmp_path: Path) -> Settings:
    """A gateway with the device ws1, which is called nowhere."""
    add(run, tmp_path)
    return settings


def add(run: Run, tmp_path: Path, *more: str) -> None:
    base = ("device", "add", "ws1", "--aet", "WS1", "--role", "workstation", "--network", "10.1.2.3")
    done = run(*base, "--out", tmp_path / "ws1", *more)
    assert done.code == 0, done.err


def device(settings: Settings) -> Device:
    found = decode_snapshot(settings.registry.snapshot.read_text()).device_by_name("ws1")
    assert found is not None
    return found


def test_device_is_called_at_an_address_over_reverse_connections_or_nowhere(run: Run, ws1: Settings) -> None:
    done = run("device", "address", "ws1", "10.1.2.3:104")
    assert done.code == 0
    assert done.out.startswith("device ws1 is called at 10.1.2.3:104; registry revision ")
    assert device(ws1).address == Endpoint(host="10.1.2.3", port=104)
    done = run("device", "address", "ws1", "Reverse")
    assert "is called over the reverse connections of its edge agent" in done.out
    assert (device(ws1).reverse, device(ws1).address) == (True, None)
    assert "listens at   its edge agent's reverse connections" in run("device", "show", "ws1").out
    done = run("device", "address", "ws1", "none", "--json")
    assert (done.json["reverse"], done.json["address"]) == (False, None)
    assert not device(ws1).is_destination


def test_plaintext_to_another_machine_is_warned_of(run: Run, ws1: Settings) -> None:
    done = run("device", "address", "ws1", "10.1.2.3:104", "--plain")
    assert "in plaintext" in done.err
    assert device(ws1).plain
    assert "in plaintext" not in run("device", "address", "ws1", "127.0.0.1:104", "--plain").err


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("reverse", "--plain"), "it goes with HOST:PORT only"),
        (("none", "--plain"), "it goes with HOST:PORT only"),
        (("10.1.2.3",), "HOST:PORT"),
    ],
    ids=["reverse-plain", "none-plain", "no-port"],
)
def test_what_makes_no_sense_is_refused(run: Run, ws1: Settings, arguments: tuple[str, ...], why: str) -> None:
    done = run("device", "address", "ws1", *arguments)
    assert done.code == 2
    assert why in done.err


def test_unknown_device_is_refused(run: Run, ws1: Settings) -> None:
    done = run("device", "address", "ws2", "reverse")
    assert done.code == 1
    assert "ws1" in done.err


def test_device_is_added_for_reverse_connections(run: Run, settings: Settings, tmp_path: Path) -> None:
    add(run, tmp_path, "--address", "reverse")
    assert device(settings).reverse
    base = ("device", "add", "ws2", "--aet", "WS2", "--role", "workstation", "--network", "10.1.2.4")
    done = run(*base, "--out", tmp_path / "ws2", "--address", "reverse", "--plain")
    assert done.code == 2
    assert "never plaintext" in done.err
