"""Our own C-ECHO, towards acceptors that do as they are told."""

import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAbort, AAssociateAc, AAssociateRj, AAssociateRq, PresentationContextAc, UserInformation
from dicomward.identity.registry import Endpoint
from dicomward.io.ca.local import LocalCa
from dicomward.io.echo import EchoFailed, EchoResult, EchoSeconds, echo
from dicomward.io.tls import CertificateFiles, server_context, verifying_client_context
from dicomward.vocab.uid import IMPLICIT_VR_LITTLE_ENDIAN
from tests.directory_helpers import copy_directory, now
from tests.io.world import SECONDS, Credentials, Peer, RawArchive, issue, raw_archive
from tests.relay.wire import (
    RELEASE_RP,
    RELEASE_RQ,
    VERIFICATION,
    Message,
    Reader,
    a_associate_ac,
    c_echo_rq,
    message,
    response_to,
)

Script = Callable[[Peer], None]


def echo_to(
    endpoint: Endpoint, *, context: ssl.SSLContext | None = None, host: str = "", timeout: float = SECONDS
) -> EchoResult:
    return echo(
        host or endpoint.host,
        endpoint.port,
        calling_ae_title="CT1",
        called_ae_title="PACS",
        context=context,
        seconds=EchoSeconds.alike(timeout),
    )


@contextmanager
def playing(archive: RawArchive, script: Script) -> Iterator[None]:
    """Play a script to the next connection; what it fails with comes out here."""
    failures: list[BaseException] = []

    def play() -> None:
        try:
            with archive.take() as peer:
                script(peer)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=play)
    thread.start()
    try:
        yield
    finally:
        thread.join(SECONDS)
        assert not failures, failures


def echo_against(script: Script) -> EchoResult:
    with raw_archive(serves=False) as archive, playing(archive, script):
        return echo_to(archive.endpoint)


def accept(peer: Peer) -> AAssociateRq:
    request = peer.next()
    assert isinstance(request, AAssociateRq)
    peer.send(encode_pdu(a_associate_ac(request)))
    return request


def answer(peer: Peer, **changes: object) -> None:
    item = peer.next_message()
    peer.send(message(item.context_id, response_to(item.command, **changes)))  # type: ignore[arg-type]


def closed(peer: Peer) -> None:
    assert peer.is_gone()


# -- success ---------------------------------------------------------------------------------------------------------


def test_peer_sees_one_verification_and_a_release(tmp_path: Path) -> None:
    seen: list[object] = []

    def script(peer: Peer) -> None:
        request = accept(peer)
        seen.extend((request.calling_ae_title, request.called_ae_title))
        seen.extend(context.abstract_syntax for context in request.presentation_contexts)
        item = peer.next_message()
        seen.append((item.context_id, item.command.message_id, item.command.affected_sop_class_uid))
        peer.send(message(1, response_to(item.command)))
        seen.append(encode_pdu(peer.next()) == RELEASE_RQ)  # type: ignore[arg-type]
        peer.send(RELEASE_RP)
        closed(peer)

    result = echo_against(script)
    assert (result.status, result.tls) == (0, "")
    assert 0 <= result.milliseconds < SECONDS * 1000
    assert seen == ["CT1", "PACS", VERIFICATION, (1, 1, VERIFICATION), True]


def test_status_that_is_no_success_is_returned() -> None:
    def script(peer: Peer) -> None:
        accept(peer)
        answer(peer, status=0x0122)
        peer.next()
        peer.send(RELEASE_RP)

    assert echo_against(script).status == 0x0122


def test_command_is_cut_to_what_the_peer_takes() -> None:
    """The smallest maximum length that anybody may announce is too small for a C-ECHO in one PDU."""

    def script(peer: Peer) -> None:
        request = peer.next()
        assert isinstance(request, AAssociateRq)
        user = UserInformation(maximum_length=64, implementation_class_uid="1.2.276.0.99.7")
        peer.send(encode_pdu(a_associate_ac(request, user=user)))
        data = bytearray()
        while len(parts := Reader().read(bytes(data))) == 0 or not isinstance(parts[0], Message):
            data += peer.socket.recv(4096)
        length = int.from_bytes(data[2:6])
        assert length <= 64
        peer.send(message(1, response_to(parts[0].command)))
        peer.next()
        peer.send(RELEASE_RP)

    assert echo_against(script).status == 0


def test_answer_that_comes_byte_by_byte_is_understood() -> None:
    def script(peer: Peer) -> None:
        request = peer.next()
        assert isinstance(request, AAssociateRq)
        for byte in encode_pdu(a_associate_ac(request)):
            peer.send(bytes([byte]))
        answer(peer)
        peer.next()
        peer.send(RELEASE_RP)

    assert echo_against(script).status == 0


# -- TLS -------------------------------------------------------------------------------------------------------------


class Mutual:
    """A gateway directory's TLS server, and a device of its CA."""

    def __init__(self, directory: Path) -> None:
        settings = copy_directory(directory)
        pairs = [CertificateFiles(pair.certificate, pair.key) for pair in settings.tls.certificates]
        self.server = server_context(pairs, settings.tls.client_ca, ssl.TLSVersion.TLSv1_2)
        self.device: Credentials = issue(settings, "ct1")

    def client(self, *, with_certificate: bool = True, check_host: bool = True) -> ssl.SSLContext:
        own = self.device.files if with_certificate else None
        return verifying_client_context(self.device.authority, own, check_host=check_host)


@pytest.fixture
def mutual(tmp_path: Path) -> Mutual:
    return Mutual(tmp_path / "gateway")


def test_protocol_and_suite_are_told(mutual: Mutual) -> None:
    with raw_archive(context=mutual.server) as archive:
        result = echo_to(archive.endpoint, context=mutual.client())
    assert result.status == 0
    assert result.tls == "TLSv1.3 TLS_AES_256_GCM_SHA384"


def test_server_of_another_ca_is_not_trusted_and_the_reason_is_told(mutual: Mutual, tmp_path: Path) -> None:
    ca = tmp_path / "other.pem"
    ca.write_bytes(LocalCa.make("Other CA", now()).certificate_pem)
    context = verifying_client_context(ca, mutual.device.files, check_host=True)
    with raw_archive(context=mutual.server) as archive, pytest.raises(EchoFailed) as raised:
        echo_to(archive.endpoint, context=context)
    assert "failed: CERTIFICATE_VERIFY_FAILED: " in str(raised.value)
    assert str(raised.value).endswith("; --ca is not the CA of the peer's certificate")


def test_host_that_the_certificate_does_not_name_is_told(mutual: Mutual) -> None:
    with raw_archive(context=mutual.server, host="127.0.0.2") as archive:
        with pytest.raises(EchoFailed, match=r"is not valid for '127.0.0.2'; use a name that is in the peer's"):
            echo_to(archive.endpoint, context=mutual.client())
        assert echo_to(archive.endpoint, context=mutual.client(check_host=False)).status == 0


def test_missing_certificate_of_ours_is_told(mutual: Mutual) -> None:
    def script(peer: Peer) -> None:
        sealed = mutual.server.wrap_socket(peer.socket, server_side=True, do_handshake_on_connect=False)
        with pytest.raises(ssl.SSLError, match="PEER_DID_NOT_RETURN_A_CERTIFICATE"):
            sealed.do_handshake()
        # Who closes with something unread resets, and the alert may be lost.
        with socket.socket(fileno=sealed.detach()) as plain:
            plain.settimeout(SECONDS)
            while plain.recv(4096):
                pass

    with (
        raw_archive(serves=False) as archive,
        playing(archive, script),
        pytest.raises(EchoFailed, match=r"failed: TLSV13_ALERT_CERTIFICATE_REQUIRED; .* with --cert and --key"),
    ):
        echo_to(archive.endpoint, context=mutual.client(with_certificate=False))


def test_plaintext_peer_is_no_tls_server(mutual: Mutual) -> None:
    def script(peer: Peer) -> None:
        peer.socket.recv(4096)
        peer.send(b"no TLS here, sorry")

    with (
        raw_archive(serves=False) as archive,
        playing(archive, script),
        pytest.raises(EchoFailed, match=r"failed: WRONG_VERSION_NUMBER; the peer doesn't speak TLS; try --plain"),
    ):
        echo_to(archive.endpoint, context=mutual.client())


# -- no association --------------------------------------------------------------------------------------------------


def test_port_where_nobody_listens_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with pytest.raises(EchoFailed, match=rf"connection to 127\.0\.0\.1:{port} failed: Connection refused; does it run"):
        echo_to(Endpoint(host="127.0.0.1", port=port))


def test_name_that_cannot_be_one_is_told() -> None:
    with pytest.raises(EchoFailed, match=r"'a\.\.b' can't be a host name: "):
        echo_to(Endpoint(host="127.0.0.1", port=104), host="a..b")


def test_peer_that_says_nothing_is_told_in_time() -> None:
    with (
        raw_archive(serves=False) as archive,
        pytest.raises(EchoFailed, match=r"no answer from 127\.0\.0\.1:\d+ within 0\.05 s"),
    ):
        echo_to(archive.endpoint, timeout=0.05)


def test_peer_that_resets_is_told() -> None:
    def script(peer: Peer) -> None:
        peer.next()
        peer.reset()

    with pytest.raises(EchoFailed, match=r"connection to .* failed: Connection reset by peer"):
        echo_against(script)


def test_peer_that_closes_is_told() -> None:
    def script(peer: Peer) -> None:
        peer.next()

    with pytest.raises(EchoFailed, match="the peer closed the connection without an answer"):
        echo_against(script)


@pytest.mark.parametrize(
    ("source", "reason", "meaning"),
    [
        (1, 3, "calling AE title not recognised"),
        (1, 7, "called AE title not recognised"),
        (3, 2, "a limit is reached"),
        (1, 9, "no further reason"),
    ],
)
def test_rejection_is_explained(source: int, reason: int, meaning: str) -> None:
    def script(peer: Peer) -> None:
        peer.next()
        peer.send(encode_pdu(AAssociateRj(result=1, source=source, reason=reason)))
        closed(peer)

    with pytest.raises(EchoFailed) as raised:
        echo_against(script)
    expected = f"association rejected (result 1, source {source}, reason {reason}): {meaning}"
    assert str(raised.value).startswith(expected)


def test_association_without_verification_is_told() -> None:
    def script(peer: Peer) -> None:
        request = peer.next()
        assert isinstance(request, AAssociateRq)
        refused = PresentationContextAc(context_id=1, result=3, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN)
        accepted = a_associate_ac(request)
        peer.send(
            encode_pdu(
                AAssociateAc(
                    called_ae_title=accepted.called_ae_title,
                    calling_ae_title=accepted.calling_ae_title,
                    application_context=accepted.application_context,
                    presentation_contexts=(refused,),
                    user_information=accepted.user_information,
                )
            )
        )
        closed(peer)

    with pytest.raises(EchoFailed, match="accepted, but not for Verification"):
        echo_against(script)


def test_abort_is_told_with_its_reason() -> None:
    def script(peer: Peer) -> None:
        peer.next()
        peer.send(encode_pdu(AAbort(source=2, reason=6)))
        closed(peer)

    with pytest.raises(EchoFailed, match=r"the peer aborted the association \(source 2, reason 6\)"):
        echo_against(script)


@pytest.mark.parametrize("data", [b"HTTP/1.1 400 Bad Request\r\n\r\n", message(1, c_echo_rq()), RELEASE_RQ])
def test_peer_that_breaks_the_protocol_is_told(data: bytes) -> None:
    def script(peer: Peer) -> None:
        peer.next()
        peer.send(data)
        closed(peer)

    with pytest.raises(EchoFailed, match="the peer broke the protocol: "):
        echo_against(script)


# -- no answer -------------------------------------------------------------------------------------------------------


def test_answer_to_another_message_is_told() -> None:
    def script(peer: Peer) -> None:
        accept(peer)
        answer(peer, message_id_being_responded_to=2)
        closed(peer)

    with pytest.raises(EchoFailed, match="the peer answered the C-ECHO with CommandReceived"):
        echo_against(script)


def test_release_instead_of_an_answer_is_told() -> None:
    def script(peer: Peer) -> None:
        accept(peer)
        peer.next_message()
        peer.send(RELEASE_RQ)
        closed(peer)

    with pytest.raises(EchoFailed, match="the peer answered the C-ECHO with ReleaseRequested"):
        echo_against(script)


def test_release_that_is_not_confirmed_is_told() -> None:
    def script(peer: Peer) -> None:
        accept(peer)
        item = peer.next_message()
        peer.send(message(1, response_to(item.command)))
        peer.next()
        peer.send(RELEASE_RQ)
        closed(peer)

    with pytest.raises(EchoFailed, match="the peer did not confirm the release"):
        echo_against(script)


def test_end_without_a_release_is_told() -> None:
    def script(peer: Peer) -> None:
        accept(peer)
        answer(peer)
        peer.next()

    with pytest.raises(EchoFailed, match="closed the connection"):
        echo_against(script)
