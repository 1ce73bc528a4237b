"""The enrolment server put together: its names and URL, what it tells a device, and how it stops."""

import json
import socket
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward.audit.event import EnrolmentRefused
from dicomward.enrolment.est import DEVICE_PATH
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.io.enrolment import server as enrolment_server
from dicomward.io.enrolment.server import EnrolmentServer, gateway_address, server_names, server_url
from dicomward.settings import ListenAddress, Settings
from dicomward.vocab.reason import ReasonCode
from tests.directory_helpers import copy_directory, now
from tests.io.enrolment_place import enrolment_place, enrolment_settings, new_key, own_file

LOCAL = ("localhost", "127.0.0.1", "::1")


def listening(settings: Settings, host: str, **changed: object) -> Settings:
    listen = ListenAddress(host=host, port=8443)
    return replace(settings, enrolment=replace(settings.enrolment, listen=listen, **changed))  # type: ignore[arg-type]


def test_names_are_those_of_the_settings_the_address_and_this_host(tmp_path: Path) -> None:
    settings = copy_directory(tmp_path / "gateway")
    own = socket.gethostname()
    names = server_names(listening(settings, "10.1.2.3", names="enrol.example, b.example"))
    assert names == tuple(dict.fromkeys(("enrol.example", "b.example", "10.1.2.3", own)))
    # Everywhere is no name; this machine itself may ask, too.
    everywhere = server_names(listening(settings, "0.0.0.0"))
    assert everywhere == tuple(dict.fromkeys((own, *LOCAL)))
    assert set(LOCAL) <= set(server_names(listening(settings, "127.0.0.1")))


def test_url_is_told_as_devices_reach_it(tmp_path: Path) -> None:
    settings = copy_directory(tmp_path / "gateway")
    assert server_url(listening(settings, "10.1.2.3", url="https://x:1/")) == "https://x:1"
    assert server_url(listening(settings, "10.1.2.3", names="enrol.example")) == "https://enrol.example:8443"
    assert server_url(listening(settings, "fd00::1")) == "https://[fd00::1]:8443"


def test_gateway_is_told_unless_nobody_knows_where_it_is(tmp_path: Path) -> None:
    settings = copy_directory(tmp_path / "gateway")
    assert gateway_address(listening(settings, "10.1.2.3", gateway="gw.example:2762")) == "gw.example:2762"
    at = replace(settings, gateway=replace(settings.gateway, listen=ListenAddress(host="10.1.2.4", port=2762)))
    assert gateway_address(at) == "10.1.2.4:2762"
    everywhere = replace(settings, gateway=replace(settings.gateway, listen=ListenAddress(host="0.0.0.0", port=2762)))
    assert gateway_address(everywhere) == ""


def test_device_hears_who_it_is_and_a_stranger_nothing(tmp_path: Path) -> None:
    with enrolment_place(tmp_path / "gateway", gateway="gw.example:2762") as place:
        key = new_key()
        own = own_file(tmp_path / "own.pem", place.enrol(place.invite("ct1"), key).certificate, key)
        told = json.loads(place.ask("GET", DEVICE_PATH, own=own).body)
        assert told == {"device": "ct1", "ae_titles": ["CT1"], "gateway": "gw.example:2762", "archives": ["PACS"]}
        assert place.ask("GET", DEVICE_PATH).status == 401


def test_address_that_is_taken_is_told(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = ListenAddress(host="127.0.0.1", port=taken.getsockname()[1])
        with pytest.raises(OSError, match="in use"):
            EnrolmentServer(enrolment_settings(tmp_path / "gateway", listen=listen), now)


def test_copied_credential_is_on_record_and_alarms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[str] = []
    problems = iter(["busy", None, None])

    def record(_settings: Settings, event: object) -> str | None:
        recorded.append(type(event).__name__)
        return next(problems)

    monkeypatch.setattr(enrolment_server, "record_event", record)
    monkeypatch.setattr(enrolment_server, "_PAUSE_SECONDS", 0.0)
    with enrolment_place(tmp_path / "gateway") as place:
        error = EnrolmentRefusedError(ReasonCode.RENEWAL_OF_SPENT_GENERATION, "twice")
        place.server.est.refused("simplereenroll", error, "10.0.0.1", "ct1")
    # Who else was writing just now had its turn.
    assert recorded == [EnrolmentRefused.__name__, EnrolmentRefused.__name__, "SecurityAlert"]


def test_record_that_can_not_be_written_is_given_up_and_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(enrolment_server, "record_event", lambda *_args: "the disk is full")
    monkeypatch.setattr(enrolment_server, "_PAUSE_SECONDS", 0.0)
    with enrolment_place(tmp_path / "gateway") as place:
        place.server.est.refused("simpleenroll", EnrolmentRefusedError(ReasonCode.CODE_WRONG, "x"), "10.0.0.1", None)
    assert "could not be recorded: the disk is full" in caplog.text
