"""A C-ECHO of our own: the first thing that everybody tries. Blocking, one association, nothing else."""

import socket
import ssl
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from dicomward.dicom.association import Association
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.events import (
    AssociationAccepted,
    AssociationRejected,
    CommandReceived,
    Event,
    PeerAborted,
    ProtocolBroken,
    ReleaseConfirmed,
)
from dicomward.dicom.framing import HEADROOM, encode_p_data
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import AAssociateRq, AReleaseRq, PresentationContextRq, UserIdentity, UserInformation
from dicomward.io.tls import reason_of
from dicomward.relay.negotiation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME, clamp_maximum_length
from dicomward.vocab.association import PresentationResult
from dicomward.vocab.dimse import Operation
from dicomward.vocab.services import VERIFICATION
from dicomward.vocab.uid import EXPLICIT_VR_LITTLE_ENDIAN, IMPLICIT_VR_LITTLE_ENDIAN

_READ_BYTES = 64 * 1024

_ADVICE: Final = (
    ("CERTIFICATE_REQUIRED", "the peer wants a certificate that it can use: name yours with --cert and --key"),
    ("ALERT_UNKNOWN_CA", "the peer doesn't know the CA of --cert; have it issued by one that the peer trusts"),
    ("ALERT_UNSUPPORTED_CERTIFICATE", "the peer doesn't take --cert from a client; have it issued for clientAuth"),
    ("ALERT_CERTIFICATE_EXPIRED", "--cert has ended, or isn't valid yet; renew it, or set the clocks"),
    ("ALERT_PROTOCOL_VERSION", "the peer speaks another version of TLS"),
    ("mismatch", "use a name that is in the peer's certificate; for a gateway add one: dicomward renew-gateway --host"),
    ("unable to get local issuer", "--ca is not the CA of the peer's certificate"),
    ("self-signed certificate", "--ca is not the CA of the peer's certificate"),
    ("certificate has expired", "the peer's certificate has ended; for a gateway: dicomward renew-gateway"),
    ("WRONG_VERSION_NUMBER", "the peer doesn't speak TLS; try --plain"),
)


class EchoFailed(Exception):
    """The C-ECHO did not succeed; the message says at which step and why."""


class EchoRejected(EchoFailed):
    """The association was rejected: somebody is there, and says no."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoResult:
    """What a C-ECHO has shown; `tls` is the protocol and suite, "" for plaintext, `milliseconds` the whole time."""

    status: int
    milliseconds: int
    tls: str
    person_verified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EchoSeconds:
    """How long the peer may take for each step: to be reached, with TLS; for the association; for the answer."""

    connect: float
    association: float
    answer: float

    @classmethod
    def alike(cls, seconds: float) -> "EchoSeconds":
        """Return the same time for each step."""
        return cls(connect=seconds, association=seconds, answer=seconds)


def echo(
    host: str,
    port: int,
    *,
    calling_ae_title: str,
    called_ae_title: str,
    context: ssl.SSLContext | None,
    seconds: EchoSeconds,
    identity: UserIdentity | None = None,
    tell: Callable[[str], None] = lambda _step: None,
) -> EchoResult:
    """Open an association, send a C-ECHO, release; `tell` hears of each step. Raises EchoFailed."""
    began = time.monotonic()
    peer, tls = f"{host}:{port}", ""
    try:
        with socket.create_connection((host, port), seconds.connect) as plain:
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            tell(f"connected to {peer}")
            if context is None:
                conversation = _Conversation(plain, peer, seconds, tell)
                status, verified = _converse(conversation, calling_ae_title, called_ae_title, identity)
            else:
                with context.wrap_socket(plain, server_hostname=host) as sealed:
                    suite = sealed.cipher()
                    tls = f"{sealed.version()} {suite[0] if suite else ''}"
                    tell(f"TLS: {tls}")
                    conversation = _Conversation(sealed, peer, seconds, tell)
                    status, verified = _converse(conversation, calling_ae_title, called_ae_title, identity)
    except TimeoutError as error:
        raise EchoFailed(f"no answer from {peer} within {seconds.connect:g} s") from error
    except ssl.SSLError as error:
        raise EchoFailed(f"TLS with {peer} failed: {_with_advice(reason_of(error)[1])}") from error
    except ConnectionRefusedError as error:
        raise EchoFailed(f"connection to {peer} failed: Connection refused; does it run, on that port?") from error
    except OSError as error:
        raise EchoFailed(f"connection to {peer} failed: {error.strerror or error}") from error
    except UnicodeError as error:
        raise EchoFailed(f"{host!r} can't be a host name: {error}") from error
    milliseconds = round((time.monotonic() - began) * 1000)
    return EchoResult(status=status, milliseconds=milliseconds, tls=tls, person_verified=verified)


def _with_advice(detail: str) -> str:
    """Return the reason for which TLS has failed, and what to do about it where that is known."""
    advice = next((advice for sign, advice in _ADVICE if sign in detail), None)
    return detail if advice is None else f"{detail.rstrip('.')}; {advice}"


class _Conversation:
    """One association over a blocking socket."""

    def __init__(self, connection: socket.socket, peer: str, seconds: EchoSeconds, tell: Callable[[str], None]) -> None:
        self.tell = tell
        self._connection = connection
        self._peer = peer
        self._seconds = seconds
        self._association = Association(is_requestor=True, limits=Limits())
        self._buffer = memoryview(bytearray(HEADROOM + _READ_BYTES))
        self._events: list[Event] = []

    def send(self, pdu: AAssociateRq | AReleaseRq) -> None:
        self._connection.settimeout(self._seconds.association)
        self._connection.sendall(self._association.send(pdu))

    def send_command(self, context_id: int, command: CommandSet, maximum_length: int) -> None:
        self._connection.settimeout(self._seconds.answer)
        self._connection.sendall(encode_p_data(context_id, encode_command_set(command), maximum_length, command=True))

    def next_event(self) -> Event:
        while not self._events:
            try:
                count = self._connection.recv_into(self._buffer[HEADROOM:])
            except TimeoutError as silence:
                waited = self._connection.gettimeout() or 0.0
                raise EchoFailed(f"no answer from {self._peer} within {waited:g} s") from silence
            if not count:
                raise EchoFailed("the peer closed the connection without an answer; its log says why")
            self._events.extend(self._association.receive(self._buffer, HEADROOM, HEADROOM + count))
        event = self._events.pop(0)
        match event:
            case PeerAborted(source=source, reason=reason):
                raise EchoFailed(f"the peer aborted the association (source {source}, reason {reason})")
            case ProtocolBroken(error=error):
                raise EchoFailed(f"the peer broke the protocol: {error}")
        return event


def _converse(
    conversation: _Conversation, calling_ae_title: str, called_ae_title: str, identity: UserIdentity | None
) -> tuple[int, bool]:
    """Return the status, and whether the peer has said that it knows the person."""
    conversation.tell(f"requesting an association: {calling_ae_title} calls {called_ae_title}")
    conversation.send(
        AAssociateRq(
            called_ae_title=called_ae_title,
            calling_ae_title=calling_ae_title,
            presentation_contexts=(
                PresentationContextRq(
                    context_id=1,
                    abstract_syntax=VERIFICATION,
                    transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN, EXPLICIT_VR_LITTLE_ENDIAN),
                ),
            ),
            user_information=UserInformation(
                maximum_length=Limits().max_pdu_bytes,
                implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                implementation_version_name=IMPLEMENTATION_VERSION_NAME,
                user_identity=identity,
            ),
        )
    )
    match conversation.next_event():
        case AssociationRejected(reject=reject):
            raise EchoRejected(
                f"association rejected (result {reject.result}, source {reject.source}, reason {reject.reason}): "
                f"{_REJECTS.get((reject.source, reject.reason), 'no further reason')}"
            )
        case AssociationAccepted(accept=accept) if any(
            context.result == PresentationResult.ACCEPTANCE for context in accept.presentation_contexts
        ):
            verified = accept.user_information.user_identity_response is not None
            maximum_length = clamp_maximum_length(accept.user_information.maximum_length, Limits().max_pdu_bytes)
        case _:
            # INVARIANT: an acceptance; whatever else comes in this state breaks the protocol (PS3.8 Table 9-10).
            raise EchoRejected("the association was accepted, but not for Verification")
    conversation.tell(f"association accepted, by {accept.user_information.implementation_version_name or 'no name'}")
    request = CommandSet(
        command_field=Operation.C_ECHO, message_id=1, affected_sop_class_uid=VERIFICATION, has_data_set=False
    )
    conversation.send_command(1, request, maximum_length)
    match conversation.next_event():
        case CommandReceived(command=command) if command.message_id_being_responded_to == 1:
            status = command.status or 0
        case other:
            raise EchoFailed(f"the peer answered the C-ECHO with {type(other).__name__}")
    conversation.tell(f"C-ECHO answered with status {status:04X}H")
    conversation.send(AReleaseRq())
    if not isinstance(conversation.next_event(), ReleaseConfirmed):
        raise EchoFailed("the peer did not confirm the release")
    conversation.tell("association released")
    return status, verified


_REJECTS = {
    (1, 1): "no reason given; it may be permitted nothing",
    (1, 2): "application context not supported",
    (1, 3): "calling AE title not recognised: not bound to this certificate, or the device isn't active",
    (1, 7): "called AE title not recognised: no archive has it, or this device may not reach it",
    (2, 1): "user identity refused, or no reason given",
    (2, 2): "protocol version not supported",
    (3, 1): "temporary congestion: the archive may be down; try again",
    (3, 2): "a limit is reached: try again later",
}
