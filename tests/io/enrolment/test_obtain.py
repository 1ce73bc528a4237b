"""The steps of a device, against a real enrolment server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomward.io.ca.local import load_certificates
from dicomward.io.enrolment.client import ClientError, EstClient, LostAnswerError, RefusedByServerError
from dicomward.io.enrolment.enrolled import DeviceDirectory
from dicomward.io.enrolment.obtain import (
    ask_for_approval,
    enrol_with_code,
    install_first,
    own_client,
    renew,
    told_about,
)
from tests.io.enrolment_place import Place, enrolment_place


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with enrolment_place(tmp_path_factory.mktemp("obtain") / "gateway", queue=True) as made:
        yield made


def enrolled(place: Place, directory: DeviceDirectory, name: str) -> None:
    code = place.invite(name).code
    client = EstClient.pinned(place.url, code.pins)
    found = enrol_with_code(directory, client, code, name="", kind="ecdsa", insist=lambda ask: ask(False))
    state = install_first(directory, client, found, server=place.url, kind="ecdsa")
    assert (state.device, state.server) == (name, place.url)


def test_code_then_renewal(place: Place, tmp_path: Path) -> None:
    directory = DeviceDirectory(tmp_path / "own")
    enrolled(place, directory, "o1")
    first = directory.current()
    assert not directory.is_asking
    assert told_about(directory, place.url)["device"] == "o1"
    assert renew(directory, place.url, lambda ask: ask(False)) == directory.current() != first
    # The server's CAs are those that came with it.
    assert not directory.trust(own_client(directory, place.url).ca_certificates())


def test_key_that_is_refused_is_not_used_again(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = DeviceDirectory(tmp_path / "own")
    enrolled(place, directory, "o6")
    for status, is_kept in ((403, True), (400, False)):

        def refuse(_client: EstClient, _request: bytes, status: int = status) -> None:
            raise RefusedByServerError(status, "no")

        with monkeypatch.context() as patched:
            patched.setattr(EstClient, "renew", refuse)
            with pytest.raises(RefusedByServerError):
                renew(directory, place.url, lambda ask: ask(False))
        assert directory.is_asking is is_kept
    assert directory.key.exists()


def test_lost_answer_and_a_restart_get_the_same_certificate(place: Place, tmp_path: Path) -> None:
    directory, code = DeviceDirectory(tmp_path / "own"), place.invite("o2").code
    client = EstClient.pinned(place.url, code.pins)
    lost: list[object] = []

    def lose(ask: object) -> None:
        lost.append(ask(False))  # type: ignore[operator]
        raise LostAnswerError("the power was cut")

    with pytest.raises(LostAnswerError):
        enrol_with_code(directory, client, code, name="", kind="ecdsa", insist=lose)  # type: ignore[arg-type]
    assert directory.is_asking
    again = enrol_with_code(directory, client, code, name="", kind="ecdsa", insist=lambda ask: ask(False))
    assert lost == [again]


def test_refused_code_leaves_nothing(place: Place, tmp_path: Path) -> None:
    directory, handed = DeviceDirectory(tmp_path / "own"), place.invite("o3")
    assert place.enrol(handed).status == 200
    client = EstClient.pinned(place.url, handed.code.pins)
    with pytest.raises(RefusedByServerError, match="403"):
        enrol_with_code(directory, client, handed.code, name="", kind="rsa", insist=lambda ask: ask(False))
    assert not directory.path.exists()


def test_request_that_waits_keeps_its_key_and_a_rejected_one_does_not(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = DeviceDirectory(tmp_path / "own")
    client = EstClient(place.url, load_certificates(place.root))
    for _ in range(2):
        with pytest.raises(RefusedByServerError, match="waits for approval") as caught:
            ask_for_approval(directory, client, name="o4", kind="ecdsa")
        assert caught.value.status == 202
        assert directory.is_asking

    def reject(_request: bytes) -> None:
        raise RefusedByServerError(403, "the request was rejected")

    monkeypatch.setattr(client, "ask", reject)
    with pytest.raises(RefusedByServerError, match="rejected"):
        ask_for_approval(directory, client, name="o4", kind="ecdsa")
    assert not directory.path.exists()


def test_answer_that_can_not_be_read_is_told(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = DeviceDirectory(tmp_path / "own")
    enrolled(place, directory, "o5")
    monkeypatch.setattr(EstClient, "device", lambda _self: b"<html>")
    with pytest.raises(ClientError, match="can't be read"):
        told_about(directory, place.url)
