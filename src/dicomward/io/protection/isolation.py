"""Looking at the ports of registered archives: one A-ASSOCIATE-RQ for Verification, GETs of web roots, a TLS handshake.

Nothing else is ever sent, and nothing to any other address: no redirect is followed, no patient is asked for.
"""

import errno
import socket
import ssl
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

from dicomward.assess.isolation import Observation, Seen
from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAssociateRq, AReleaseRq, PresentationContextRq, UserInformation
from dicomward.io.tls import reason_of
from dicomward.relay.negotiation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME
from dicomward.vocab.services import VERIFICATION
from dicomward.vocab.uid import IMPLICIT_VR_LITTLE_ENDIAN

CALLING_AE_TITLE: Final = "DW-ISOLATION"
WEB_ROOTS: Final = ("/", "/dicom-web/", "/dcm4chee-arc/")
_AT_ONCE: Final = 8
_ALERT_SECONDS: Final = 0.5
_MOST_ADDRESSES: Final = 4
_MOST_BYTES: Final = 8192
_ANSWERS: Final = {2: Seen.ACCEPTED, 3: Seen.REJECTED, 7: Seen.ABORTED}
_UNREACHABLE: Final = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.ENETDOWN, errno.EHOSTDOWN})


class NotResolvedError(Exception):
    """A host's name has no address; the message says why."""


def addresses_of(host: str) -> tuple[str, ...]:
    """Return the addresses of a host. Raises NotResolvedError."""
    try:
        answers = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise NotResolvedError(f"{host!r} can't be resolved here: {error}") from error
    return tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))[:_MOST_ADDRESSES]


def is_own_address(address: str) -> bool:
    """Say if an address is one of this machine; sends nothing."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def look_at(
    addresses: Sequence[str], ports: Iterable[int], *, called_ae_title: str, source: str, timeout: float
) -> list[Observation]:
    """Look at each port of each address; `timeout` in seconds for each step."""
    targets = [(address, port) for address in addresses for port in ports]
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        return list(pool.map(lambda at: _Port(at[0], at[1], called_ae_title, source, timeout).look(), targets))


class _Port:
    """One port: what it says to DICOM, to HTTP, and to both inside TLS, each on a connection of its own."""

    def __init__(self, address: str, port: int, called_ae_title: str, source: str, timeout: float) -> None:
        self._address = address
        self._port = port
        self._source = (source, 0) if source else None
        self._timeout = timeout
        self._hello = _associate_rq(called_ae_title)

    def look(self) -> Observation:
        """Return what was seen."""
        try:
            answer = self._ask(self._hello)
        except ConnectionRefusedError:
            return self._seen(Seen.REFUSED)
        except TimeoutError:
            return self._seen(Seen.SILENT)
        except OSError as error:
            if error.errno in _UNREACHABLE:
                return self._seen(Seen.UNREACHABLE, detail=error.strerror or "")
            called_from = f" from {self._source[0]}" if self._source else ""
            return self._seen(Seen.NOT_TRIED, detail=f"it can't be called{called_from}: {error.strerror or error}")
        if (seen := _dicom_answer(answer)) is not None:
            return self._seen(seen)
        return self._look_for_web(is_tls=False) or self._look_inside_tls()

    def _look_for_web(self, *, is_tls: bool) -> Observation | None:
        statuses = []
        for root in WEB_ROOTS:
            request = (
                f"GET {root} HTTP/1.1\r\nHost: {self._host}\r\nUser-Agent: dicomward-verify-isolation\r\n"
                "Accept: */*\r\nConnection: close\r\n\r\n"
            )
            try:
                answer = self._ask(request.encode("ascii"), is_tls=is_tls)
            except OSError:
                answer = b""
            if not answer.startswith(b"HTTP/"):
                break
            statuses.append(f"{root} {answer[9:12].decode('ascii', 'replace')}")
        return self._seen(Seen.HTTP, is_tls=is_tls, detail=", ".join(statuses)) if statuses else None

    def _look_inside_tls(self) -> Observation:
        try:
            answer = self._ask(self._hello, is_tls=True)
        except ssl.SSLError as error:
            reason = reason_of(error)[1]
            wanted = any(word in reason.lower() for word in ("alert", "certificate required", "handshake failure"))
            return self._seen(Seen.CERTIFICATE_WANTED if wanted else Seen.OPEN, detail="" if wanted else reason)
        except OSError as error:
            return self._seen(Seen.OPEN, detail=error.strerror or "closed")
        if (seen := _dicom_answer(answer)) is not None:
            return self._seen(seen, is_tls=True)
        return self._look_for_web(is_tls=True) or self._seen(Seen.OPEN, is_tls=True)

    def _ask(self, request: bytes, *, is_tls: bool = False) -> bytes:
        """Connect, send, and return the beginning of the answer; b"" where nothing comes. Raises OSError."""
        with socket.create_connection((self._address, self._port), self._timeout, self._source) as plain:
            if not is_tls:
                return _exchange(plain, request)
            with _anyone().wrap_socket(plain) as sealed:
                return _await_alert(sealed, min(_ALERT_SECONDS, self._timeout)) or _exchange(sealed, request)

    def _seen(self, seen: Seen, *, is_tls: bool = False, detail: str = "") -> Observation:
        return Observation(address=self._address, port=self._port, seen=seen, is_tls=is_tls, detail=detail)

    @property
    def _host(self) -> str:
        return f"[{self._address}]:{self._port}" if ":" in self._address else f"{self._address}:{self._port}"


def _await_alert(connection: ssl.SSLSocket, seconds: float) -> bytes:
    """Wait for what a server says by itself: in TLS 1.3 it says only now that it wants a certificate. Raises SSLError.

    Were something sent first, a server that hangs up would answer with a reset, and its alert be lost.
    """
    patience = connection.gettimeout()
    connection.settimeout(seconds)
    try:
        return connection.recv(_MOST_BYTES)
    except TimeoutError:
        return b""
    finally:
        connection.settimeout(patience)


def _exchange(connection: socket.socket, request: bytes) -> bytes:
    """Send, and read what comes first; an association that is accepted is released."""
    data = b""
    try:
        connection.sendall(request)
        data = connection.recv(_MOST_BYTES)
        if data[:1] == b"\x02":
            connection.sendall(encode_pdu(AReleaseRq()))
            connection.recv(_MOST_BYTES)
    except OSError:
        # It took the connection: that it then says nothing, or hangs up, is not that there is no connection.
        pass
    return data


def _dicom_answer(data: bytes) -> Seen | None:
    """Return what the first PDU of an answer is; None for what is no DICOM."""
    return _ANSWERS.get(data[0]) if len(data) >= 6 and data[1] == 0 else None


def _associate_rq(called_ae_title: str) -> bytes:
    return encode_pdu(
        AAssociateRq(
            called_ae_title=called_ae_title,
            calling_ae_title=CALLING_AE_TITLE,
            presentation_contexts=(
                PresentationContextRq(
                    context_id=1, abstract_syntax=VERIFICATION, transfer_syntaxes=(IMPLICIT_VR_LITTLE_ENDIAN,)
                ),
            ),
            user_information=UserInformation(
                maximum_length=16384,
                implementation_class_uid=IMPLEMENTATION_CLASS_UID,
                implementation_version_name=IMPLEMENTATION_VERSION_NAME,
            ),
        )
    )


def _anyone() -> ssl.SSLContext:
    """Return TLS that takes any certificate and any age: nothing is confided to the peer, it is only looked at."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_ciphers("DEFAULT:@SECLEVEL=0")
    return context
