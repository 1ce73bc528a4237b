"""The traps of architecture.md that one can only fall into where bytes go in and out. The others: tests/relay."""

import socket
import ssl
from collections.abc import Iterator
from pathlib import Path

import pytest

from dicomward.audit.event import AssociationAllowed, AssociationDenied, ConnectionFailed, SecurityAlert
from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAbort, AAssociateAc, AAssociateRj, UserIdentity, UserInformation
from dicomward.identity.registry import DeviceStatus, RegistrySnapshot
from dicomward.io.gateway.session import Session
from dicomward.policy.load import load_policy
from dicomward.vocab.reason import ReasonCode
from tests.degraded.place import Place, application
from tests.io.world import (
    ALL,
    POLICY,
    SECONDS,
    GoneError,
    RawArchive,
    World,
    archive_at,
    device,
    issue,
    raw_archive,
    rejection,
    running,
)
from tests.relay.wire import CT_IMAGE, a_associate_rq, c_echo_rq, c_store_rq, image, message


@pytest.fixture
def serving() -> Iterator[RawArchive]:
    with raw_archive() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path, serving: RawArchive) -> Iterator[World]:
    with running(tmp_path / "gateway", archive_at(serving.endpoint)) as ready:
        yield ready


def use_devices(world: World, **changes: object) -> None:
    world.gate.use_registry(
        RegistrySnapshot(
            devices=(device("ct1", world.scanner, **changes),), archives=world.gate.registry.archives, revision=2
        )
    )


# 1. A hook's exception swallowed, and the traffic let through.


@pytest.mark.parametrize("hook", ["evaluate", "limits", "record"])
def test_trap_1_exception_lets_nothing_through(
    world: World, serving: RawArchive, monkeypatch: pytest.MonkeyPatch, hook: str
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("a defect")

    match hook:
        case "evaluate":
            monkeypatch.setattr("dicomward.relay.rights.evaluate_association", fail)
        case "limits":
            monkeypatch.setattr(world.gate.limits, "admit_association", fail)
        case "record":
            monkeypatch.setattr(world.audit, "append_durable", fail)
    peer = world.peer()
    peer.send(encode_pdu(a_associate_rq(ALL)))
    try:
        assert isinstance(peer.next(), AAbort)
    except GoneError:
        pass
    peer.close()
    assert serving.peers == []
    assert world.gate.wait_until_empty(SECONDS)
    assert world.the_limits_are_free()
    assert world.audit.wait_for(SecurityAlert).reason is ReasonCode.INTERNAL_ERROR


# 2. User identity accepted because no verifier is configured.


def test_trap_2_user_identity_that_nobody_verifies_is_rejected(world: World) -> None:
    user = UserInformation(
        maximum_length=16384,
        implementation_class_uid="1.2.3",
        user_identity=UserIdentity(type=2, positive_response_requested=False, primary=b"anna", secondary=b"secret"),
    )
    assert rejection(world.peer().associate(a_associate_rq(ALL, user=user)))[0] == 1
    assert world.audit.wait_for(AssociationDenied).reason is ReasonCode.USER_IDENTITY_NOT_CONFIGURED
    assert "secret" not in repr(world.audit.events)


# 3. A peer-stated PDU length read with no ceiling.


def test_trap_3_stated_length_is_judged_before_anything_is_kept(world: World) -> None:
    peer = world.peer()
    peer.send(b"\x01\x00\xff\xff\xff\xff")
    assert isinstance(peer.next(), AAbort)
    established = world.peer().established()
    established.send(b"\x04\x00\xff\xff\xff\xff")
    assert isinstance(established.next(), AAbort)


# 7. An empty name list that allows everything.


def test_trap_7_device_without_networks_or_certificates_comes_in_from_nowhere(world: World) -> None:
    use_devices(world, networks=())
    assert isinstance(world.peer().associate(), AAssociateRj)
    use_devices(world, certificates=())
    assert isinstance(world.peer().associate(), AAssociateRj)
    assert [event.reason for event in world.audit.of(AssociationDenied)] == [
        ReasonCode.NETWORK_NOT_ALLOWED,
        ReasonCode.CERTIFICATE_UNKNOWN,
    ]


# 8. A failed audit write that is only logged.


def test_trap_8_what_cannot_be_recorded_does_not_happen(world: World, serving: RawArchive) -> None:
    world.audit.written = False
    assert isinstance(world.peer().associate(), AAssociateRj)
    assert serving.peers == []
    world.audit.written = True
    peer = world.peer().established()
    world.audit.written = False
    peer.send(message(3, c_store_rq(1), image()))
    assert isinstance(peer.next(), AAbort)


# 9. A permission cache that outlives its token or certificate.


def test_trap_9_nothing_that_was_allowed_is_remembered(world: World) -> None:
    """The same certificate, policy question and session as a moment ago; only the registry says no now."""
    context = world.scanner.context()
    first = world.peer(context)
    assert isinstance(first.associate(), AAssociateAc)
    use_devices(world, status=DeviceStatus.SUSPENDED)
    session = first.socket.session  # type: ignore[attr-defined]
    again = world.peer(context, session=session)
    assert again.socket.session_reused  # type: ignore[attr-defined]
    assert isinstance(again.associate(), AAssociateRj)
    use_devices(world)
    peer = world.peer().established()
    assert peer.echo(1) == 0
    world.gate.policy = load_policy(POLICY.replace('effect = "allow"', 'effect = "deny"'), source="policy")
    assert peer.echo(2) != 0


# 10. An association accepted first and refused later, so that users see a network fault instead of a reason.


@pytest.mark.parametrize(
    ("calling", "called", "contexts", "told"),
    [
        ("OTHER", "PACS", ALL, (1, 1, 3)),
        ("CT1", "NOWHERE", ALL, (1, 1, 7)),
        ("CT1", "PACS", {1: CT_IMAGE}, (1, 1, 1)),
    ],
)
def test_trap_10_refusal_is_the_answer_to_the_request(
    world: World, serving: RawArchive, calling: str, called: str, contexts: dict[int, str], told: tuple[int, int, int]
) -> None:
    """The archive hears nothing of it, and the peer reads a standard code, not the end of a connection."""
    world.gate.policy = load_policy(POLICY.replace('"c-store", ', ""), source="policy")
    answer = rejection(world.peer().associate(a_associate_rq(contexts, calling=calling, called=called)))
    assert answer == told
    assert serving.peers == []
    assert world.audit.of(AssociationAllowed) == []


def test_trap_10_archive_that_refuses_is_the_answer_to_the_request(tmp_path: Path) -> None:
    with raw_archive(serves=False) as archive, running(tmp_path / "gateway", archive_at(archive.endpoint)) as world:
        peer = world.peer()
        peer.send(encode_pdu(a_associate_rq(ALL)))
        theirs = archive.take()
        theirs.next()
        theirs.send(encode_pdu(AAssociateRj(result=1, source=1, reason=7)))
        assert rejection(peer.next()) == (1, 1, 7)


# 12. A bypass flag that is on by default.


def test_trap_12_defaults_let_nobody_past(tmp_path: Path, serving: RawArchive) -> None:
    """A fresh directory: TLS with a certificate, loopback, and a policy that allows no unknown role."""
    place = Place(tmp_path / "gateway", serving)
    fresh = place.settings
    assert fresh.gateway.listen.host == "127.0.0.1"
    assert fresh.tls.minimum_version == "1.2"
    with application(place) as made:
        assert [listener.name for listener in made.gateway._listeners if listener.tls] == ["device"]
        assert made.gateway._gate._server_tls.context.verify_mode is ssl.CERT_REQUIRED
        place.register(device("ct1", place.scanner, role="nobody-knows"))
        made.gateway._gate.use_registry(made.gateway._read_registry())
        assert isinstance(place.peer().associate(), AAssociateRj)


# 13. TLS session resumption that skips the checks of identity, expiry and revocation. (Expiry: tests/degraded.)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"status": DeviceStatus.SUSPENDED}, ReasonCode.DEVICE_SUSPENDED),
        ({"status": DeviceStatus.REVOKED}, ReasonCode.DEVICE_REVOKED),
        ({"certificates": ()}, ReasonCode.CERTIFICATE_UNKNOWN),
        ({"networks": ("192.0.2.0/24",)}, ReasonCode.NETWORK_NOT_ALLOWED),
        ({"ae_titles": ("CT2",)}, ReasonCode.CALLING_AE_TITLE_NOT_BOUND),
    ],
    ids=lambda value: str(value) if isinstance(value, ReasonCode) else "",
)
def test_trap_13_resumed_handshake_is_judged_like_a_first_one(
    world: World, version: ssl.TLSVersion, change: dict[str, object], reason: ReasonCode
) -> None:
    context = world.scanner.context(maximum=version)
    first = world.peer(context)
    assert isinstance(first.associate(), AAssociateAc)
    use_devices(world, **change)
    resumed = world.peer(context, session=first.socket.session)  # type: ignore[attr-defined]
    assert resumed.socket.session_reused  # type: ignore[attr-defined]
    assert isinstance(resumed.associate(), AAssociateRj)
    assert world.audit.of(AssociationDenied)[-1].reason is reason


def test_trap_13_session_of_one_device_opens_nothing_for_another(world: World) -> None:
    """A session brings its own certificate with it, whatever title is typed."""
    other = issue(world.settings, "ct2")
    world.gate.use_registry(
        RegistrySnapshot(
            devices=(device("ct1", world.scanner), device("ct2", other)),
            archives=world.gate.registry.archives,
            revision=2,
        )
    )
    context = world.scanner.context()
    first = world.peer(context)
    assert isinstance(first.associate(), AAssociateAc)
    resumed = world.peer(context, session=first.socket.session)  # type: ignore[attr-defined]
    assert isinstance(resumed.associate(a_associate_rq(ALL, calling="CT2")), AAssociateRj)
    assert world.audit.of(AssociationDenied)[-1].device is None or world.audit.of(AssociationDenied)[-1].device == "ct1"


# 14. Strangers who fill the disk with records of their own failures.


def test_trap_14_strangers_fill_no_disk(tmp_path: Path, serving: RawArchive) -> None:
    place = Place(tmp_path / "gateway", serving)
    with application(place):
        for kind in (b"plaintext", b"\x16\x03\x01\x00\x05hello", b""):
            for _ in range(150):
                with socket.create_connection(("127.0.0.1", place.port), SECONDS) as connection:
                    connection.sendall(kind)
        assert place.peer().established().echo() == 0
    records = place.records()
    failed = [record for record in records if record["code"] == "DW-CONN-FAIL"]
    counted = [record for record in records if record["code"] == "DW-CONN-COALESCE"]
    assert len(failed) <= 10
    # Nothing is lost uncounted.
    assert len(failed) + sum(int(record["count"]) for record in counted) >= 450


def test_sessions_of_the_world_are_sessions(world: World) -> None:
    """What the tests above look into is what serves."""
    world.peer().established().send(message(1, c_echo_rq(1)))
    assert isinstance(world.the_session(), Session)
    assert world.audit.of(ConnectionFailed) == []
