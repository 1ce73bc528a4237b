"""The composition root: what starts in which order, what ends how, and what is said when it can't."""

import json
import os
import resource
import signal
import socket
import stat
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dicomward import app as app_module
from dicomward.app import ConfigurationError, Gateway, StartError
from dicomward.dicom.pdu import AAbort
from dicomward.identity.registry import DeviceStatus
from dicomward.io.audit.verify import verify_directory
from dicomward.io.control import call
from dicomward.relay.inputs import Listener
from dicomward.settings import ListenAddress, parse_host_port
from tests.degraded.place import Application, Place, application, with_settings
from tests.io.world import SECONDS, RawArchive, device, raw_archive


@pytest.fixture
def archive() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def place(tmp_path: Path, archive: RawArchive) -> Iterator[Place]:
    made = Place(tmp_path / "gateway", archive)
    yield made
    made.close()


def codes(place: Place) -> list[str]:
    return [str(record["code"]) for record in place.records()]


# -- starting ----------------------------------------------------------------------------------------------------------


def test_it_serves_and_its_log_tells_the_story(place: Place) -> None:
    with application(place) as running:
        peer = place.peer().established()
        assert peer.echo() == 0
        peer.release()
        peer.close()
        assert running.gateway._gate.wait_until_empty(SECONDS)
    told = codes(place)
    assert [code for code in told if code.startswith(("DW-GW", "DW-ASSOC", "DW-OP"))] == [
        "DW-GW-START",
        "DW-ASSOC-ALLOW",
        "DW-OP-ALLOW",
        "DW-OP-END",
        "DW-ASSOC-END",
        "DW-GW-STOP",
    ]
    assert verify_directory(place.settings.audit.directory).report.findings == ()


def test_commands_reach_it(place: Place) -> None:
    with application(place):
        answer = call(place.settings.gateway.state_directory, {"do": "status"}, SECONDS)
    assert answer == {"ok": True, "sessions": 0, "revision": 7}
    assert call(place.settings.gateway.state_directory, {"do": "status"}, SECONDS) is None


def test_suspension_has_happened_when_the_command_returns(place: Place) -> None:
    with application(place):
        peer = place.peer().established()
        place.register(device("ct1", place.scanner, status=DeviceStatus.SUSPENDED))
        answer = call(
            place.settings.gateway.state_directory,
            {"do": "registry-changed", "audit": {"operator": "anna", "action": "suspend", "device": "ct1"}},
            SECONDS,
        )
        assert answer is not None
        assert (answer["ok"], answer["aborted"]) == (True, 1)
        assert isinstance(peer.next(), AAbort)
    (change,) = [record for record in place.records() if record.get("device") == "ct1" and "operator" in record]
    assert (change["operator"], change["count"]) == ("anna", 1)


def test_change_that_nobody_told_it_of_is_seen_at_the_start(place: Place) -> None:
    """Between the first reading of the registry and the control socket."""
    made = Application(place)
    place.register(device("ct1", place.scanner, status=DeviceStatus.SUSPENDED))
    made.open()
    assert made.gateway._gate.registry.devices[0].status is DeviceStatus.SUSPENDED
    made.close()


def test_address_is_told_as_one_types_it(place: Place) -> None:
    with_settings(place, listen=ListenAddress(host="::1", port=0))
    with application(place) as running:
        assert running.gateway.address(Listener.DEVICE).startswith("[::1]:")
        assert running.gateway.address(Listener.ARCHIVE).startswith("127.0.0.1:")


def test_deadline_is_shorter_for_who_is_in_no_registered_network(place: Place) -> None:
    made = Gateway(place.settings)
    assert made._deadline("127.0.0.1") == 30.0
    assert made._deadline("192.0.2.1") == 5.0
    made.close()


def test_state_directory_is_for_its_user_only(place: Place, tmp_path: Path) -> None:
    with_settings(place, state_directory=tmp_path / "new" / "run")
    Gateway(place.settings).close()
    assert stat.S_IMODE((tmp_path / "new" / "run").stat().st_mode) == 0o700


def test_archive_side_has_tls_if_it_is_told_so(place: Place) -> None:
    with_settings(place, archive_listen_tls=True)
    made = Gateway(place.settings)
    assert [made._gate.listener_context(listener) is not None for listener in made._listeners] == [True, True]
    made.close()


def test_all_settings_of_waiting_are_used(place: Place) -> None:
    """One of them was once computed from another, and what the operator wrote did nothing."""
    with_settings(place, idle_seconds=11.0, stalled_seconds=222.0, artim_seconds=3.0, upstream_connect_seconds=4.0)
    made = Gateway(place.settings)
    relay = made._gate.settings
    assert (relay.idle_seconds, relay.stalled_seconds, relay.upstream_seconds) == (11.0, 222.0, 4.0)
    assert (relay.release_seconds, relay.answer_seconds) == (3.0, 3.0)
    assert relay.judges_destinations
    made.close()


def test_second_start_goes_on_where_the_first_has_ended(place: Place) -> None:
    for _ in range(2):
        with application(place):
            assert place.peer().established().echo() == 0
        place.close()
    assert codes(place).count("DW-GW-START") == 2
    assert codes(place).count("DW-POLICY-CHANGE") == 1
    assert verify_directory(place.settings.audit.directory).report.findings == ()


# -- not starting ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["registry", "policy", "certificate", "ca"])
def test_what_is_missing_is_a_configuration_error(place: Place, which: str) -> None:
    path = {
        "registry": place.settings.registry.snapshot,
        "policy": place.settings.policy.file,
        "certificate": place.settings.tls.certificates[0].certificate,
        "ca": place.settings.tls.client_ca,
    }[which]
    path.unlink()
    with pytest.raises(ConfigurationError, match="check-config") as refused:
        Gateway(place.settings)
    assert str(path) in str(refused.value)
    assert which not in ("registry", "policy") or "can't be read: No such file or directory" in str(refused.value)


@pytest.mark.parametrize("which", ["registry", "policy"])
def test_what_is_broken_is_a_configuration_error(place: Place, which: str) -> None:
    path = {"registry": place.settings.registry.snapshot, "policy": place.settings.policy.file}[which]
    path.write_text("nonsense")
    with pytest.raises(ConfigurationError):
        Gateway(place.settings)


def test_state_directory_that_cannot_be_made_is_a_configuration_error(place: Place, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with_settings(place, state_directory=tmp_path / "file" / "run")
    with pytest.raises(ConfigurationError, match="state_directory can't be made"):
        Gateway(place.settings)


def _threads() -> set[str]:
    return {thread.name for thread in threading.enumerate() if thread.name.startswith(("dicomward", "audit"))}


def test_port_that_is_for_root_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_host: str, _port: int) -> socket.socket:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("dicomward.app.open_listener", refuse)
    with pytest.raises(StartError, match=r"Permission denied\. Ports below 1024 are for root"):
        Gateway(place.settings).open()


@pytest.mark.parametrize("side", ["listen", "archive_listen"])
def test_port_that_is_taken_is_said_and_nothing_stays_open(place: Place, side: str) -> None:
    before = len(os.listdir("/proc/self/fd"))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        with_settings(place, **{side: ListenAddress(host="127.0.0.1", port=taken.getsockname()[1])})
        made = Gateway(place.settings)
        with pytest.raises(StartError, match="Is another gateway running"):
            made.open()
    assert not (place.settings.gateway.state_directory / "control.sock").exists()
    assert _threads() == set()
    del made
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # epoll and eventfd, until they are collected


def test_second_gateway_on_one_directory_is_refused_and_takes_nothing_from_the_first(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(app_module, "_COMMAND_SECONDS", 0.0)
    late = Gateway(place.settings)
    with application(place):
        with pytest.raises(StartError, match=f"another gateway runs on {place.settings.directory}"):
            Gateway(place.settings)
        with pytest.raises(StartError, match="another process writes this audit log"):
            late.open()
        assert place.peer().established().echo() == 0
        assert call(place.settings.gateway.state_directory, {"do": "status"}, SECONDS) is not None


def test_control_socket_that_cannot_be_made_is_said(place: Place) -> None:
    (place.settings.gateway.state_directory / "control.sock").mkdir(parents=True)
    made = Gateway(place.settings)
    with pytest.raises(StartError, match=r"control socket can't be made .* make the directory writable"):
        made.open()
    assert _threads() == set()


def test_registry_that_breaks_between_two_readings_is_said(place: Place) -> None:
    made = Gateway(place.settings)
    place.settings.registry.snapshot.write_text("{")
    with pytest.raises(StartError):
        made.open()
    assert _threads() == set()


# -- ending ------------------------------------------------------------------------------------------------------------


def serve(place: Place, then: "list[object]") -> int:
    """Run `serve` in the main thread, as it must be; the others act from a thread of their own."""
    made = Gateway(place.settings)
    problems: list[BaseException] = []

    def act(where: str) -> None:
        place.port = parse_host_port(where).port
        try:
            for each in then:
                each() if callable(each) else os.kill(os.getpid(), each)  # type: ignore[arg-type]
        except BaseException as error:  # it must not hang
            problems.append(error)
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGTERM)

    threads: list[threading.Thread] = []

    def listening(where: str) -> None:
        threads.append(threading.Thread(target=act, args=(where,)))
        threads[0].start()

    code = made.serve(listening)
    threads[0].join(SECONDS)
    if problems:
        raise problems[0]
    return code


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_ends_it_at_once_where_nothing_is_open(place: Place, number: signal.Signals) -> None:
    handler = signal.getsignal(number)
    began = time.monotonic()
    assert serve(place, [number]) == 0
    assert time.monotonic() - began < 5
    assert signal.getsignal(number) is handler
    assert codes(place)[-1] == "DW-GW-STOP"


def test_open_association_may_end_by_itself_and_nobody_new_comes_in(place: Place) -> None:
    def act() -> None:
        peer = place.peer().established()
        os.kill(os.getpid(), signal.SIGTERM)
        _until_refused(place)
        assert peer.echo() == 0
        peer.release()
        peer.close()

    assert serve(place, [act]) == 0
    ends = [record for record in place.records() if record["code"] == "DW-ASSOC-END"]
    assert [end.get("reason") for end in ends] == [None]


def _until_refused(place: Place) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection(("127.0.0.1", place.port), SECONDS).close()
        except ConnectionRefusedError:
            return
        except ConnectionResetError:
            # It was in the queue of the listening socket when that was closed.
            continue
    raise AssertionError("it goes on taking connections")


def test_silent_connections_are_not_waited_for(place: Place) -> None:
    """A stranger who says nothing must not keep a gateway from stopping."""
    silent: list[socket.socket] = []

    def act() -> None:
        silent.extend(socket.create_connection(("127.0.0.1", place.port), SECONDS) for _ in range(10))
        place.peer().established().close()
        os.kill(os.getpid(), signal.SIGTERM)

    began = time.monotonic()
    assert serve(place, [act]) == 0
    assert time.monotonic() - began < 4
    for connection in silent:
        connection.close()


def test_connection_that_was_accepted_may_still_become_an_association(place: Place) -> None:
    """Else a restart would cut off who has connected a moment before it."""

    def act() -> None:
        peer = place.peer()
        os.kill(os.getpid(), signal.SIGTERM)
        _until_refused(place)
        assert peer.established().echo() == 0
        peer.release()
        peer.close()

    assert serve(place, [act]) == 0


def test_service_manager_hears_the_story(place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(SECONDS)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        monkeypatch.setenv("WATCHDOG_USEC", "200000")

        def told(word: str) -> bool:
            # The watchdog's beats come in between.
            return any(word in manager.recv(1000).decode() for _ in range(50))

        def act() -> None:
            assert told("READY=1")
            assert told("WATCHDOG=1")
            os.kill(os.getpid(), signal.SIGHUP)
            assert told("RELOADING=1")
            assert told("READY=1")
            os.kill(os.getpid(), signal.SIGTERM)
            assert told("STOPPING=1")

        assert serve(place, [act]) == 0


def test_passed_socket_of_nobody_is_said(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as stray:
        monkeypatch.setattr(app_module, "take_inherited", lambda _environment, _process: [("stray", stray)])
        with pytest.raises(StartError, match="no listener of the settings"):
            Gateway(place.settings)


def test_gateway_with_passed_sockets_waits_for_the_one_before(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as passed, application(place):
        monkeypatch.setattr(app_module, "take_inherited", lambda _environment, _process: [("device", passed)])
        monkeypatch.setattr(app_module, "_TAKE_OVER_SECONDS", 0.0)
        with_settings(place, drain_seconds=0.1)
        with pytest.raises(StartError, match="does not end; stop it first"):
            Gateway(place.settings)


def test_lock_of_the_log_that_cannot_be_opened_stops_no_gateway(place: Place) -> None:
    place.settings.audit.directory.mkdir(exist_ok=True)
    lock = place.settings.audit.directory / "lock"
    lock.unlink(missing_ok=True)
    lock.mkdir()
    with application(place):
        assert place.peer().established().echo() == 0
    place.close()


def test_end_of_the_draining_time_ends_what_is_open(place: Place) -> None:
    with_settings(place, drain_seconds=0.2)

    def act() -> None:
        peer = place.peer().established()
        os.kill(os.getpid(), signal.SIGTERM)
        assert isinstance(peer.next(), AAbort)
        peer.close()

    assert serve(place, [act]) == 0
    (end,) = [record for record in place.records() if record["code"] == "DW-ASSOC-END"]
    assert end["reason"] == "draining"


def test_second_signal_does_not_wait(place: Place) -> None:
    def act() -> None:
        peer = place.peer().established()
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGINT)
        assert isinstance(peer.next(), AAbort)
        peer.close()

    began = time.monotonic()
    assert serve(place, [act]) == 0
    assert time.monotonic() - began < 10


# -- file descriptors --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("limits", "raised", "count"),
    [
        ((1024, 524_288), 65_536, 65_536),
        ((1024, 4096), 4096, 4096),
        ((4096, 4096), None, 4096),
        ((100_000, 200_000), None, 100_000),
        ((1024, resource.RLIM_INFINITY), 65_536, 65_536),
        ((resource.RLIM_INFINITY, resource.RLIM_INFINITY), None, 65_536),
    ],
)
def test_as_many_file_descriptors_as_there_may_be_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, limits: tuple[int, int], raised: int | None, count: int
) -> None:
    """The usual soft limit of 1024 is 500 associations, and a service manager's hard one is far above."""
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr("dicomward.app.resource.getrlimit", lambda _which: limits)
    monkeypatch.setattr("dicomward.app.resource.setrlimit", lambda _which, pair: asked.append(pair))
    assert app_module._raise_descriptors() == count
    assert asked == ([] if raised is None else [(raised, limits[1])])


def test_those_who_wait_get_a_quarter_of_the_file_descriptors(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(app_module, "_raise_descriptors", lambda: 1024)
    made = Gateway(place.settings)
    assert made._gate._most_waiting == 256
    made.close()


def test_second_sink_is_the_file_that_is_named(place: Place, tmp_path: Path) -> None:
    place.settings = replace(place.settings, audit=replace(place.settings.audit, second_sink=tmp_path / "second.jsonl"))
    made = Gateway(place.settings)
    assert made._audit._engine._diversion is not None
    assert made._audit._engine._diversion.write([("2026-01-01T00:00:00.000000Z", {"code": "X"})])
    made.close()
    assert json.loads((tmp_path / "second.jsonl").read_text())["code"] == "X"
