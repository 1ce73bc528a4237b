"""The steps of a device: from a code or an approval to the files, and to the next certificate.

`dicomward enroll` and the edge agent go them; when to repeat one is theirs to say.
"""

import json
from collections.abc import Callable

from cryptography import x509
from cryptography.x509.oid import NameOID

from dicomward.enrolment.code import Code
from dicomward.io.enrolment.client import ClientError, EstClient, RefusedByServerError, make_request
from dicomward.io.enrolment.enrolled import DeviceDirectory, Enrolled
from dicomward.io.tls import CertificateFiles

# Asks until there is an answer; what it is given asks once, and is told if an answer was lost before.
Insist = Callable[[Callable[[bool], x509.Certificate]], x509.Certificate]

_NO = (400, 401, 403)
_BAD, _FORBIDDEN = 400, 403


def enrol_with_code(
    directory: DeviceDirectory, client: EstClient, code: Code, *, name: str, kind: str, insist: Insist
) -> x509.Certificate:
    """Get the first certificate with a code; the key is made here. Raises ClientError."""
    was_asking = directory.is_asking
    request = make_request(directory.prepare(kind), name)
    try:
        return insist(lambda is_repeated: client.enrol(name, code, request, is_repeated=is_repeated or was_asking))
    except RefusedByServerError as error:
        if error.status in _NO:
            directory.discard()
        raise


def ask_for_approval(directory: DeviceDirectory, client: EstClient, *, name: str, kind: str) -> x509.Certificate:
    """Ask once for what an operator approves; RefusedByServerError with 202 as long as nobody has. Raises ClientError.

    The next time the same key asks, so it is the same request.
    """
    request = make_request(directory.prepare(kind), name)
    try:
        return client.ask(request)
    except RefusedByServerError as error:
        if error.status == _FORBIDDEN:
            directory.discard()
        raise


def install_first(
    directory: DeviceDirectory, client: EstClient, certificate: x509.Certificate, *, server: str, kind: str
) -> Enrolled:
    """Put the files in place. Raises ClientError."""
    name = str(certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)[0].value)
    state = Enrolled(server=server, device=name, key_kind=kind)
    directory.install(certificate, client.ca_certificates(), state)
    return state


def own_client(directory: DeviceDirectory, server: str) -> EstClient:
    """Return a client that shows the device's certificate. Raises ClientError."""
    return EstClient(server, directory.anchors(), CertificateFiles(directory.certificate, directory.key))


def told_about(directory: DeviceDirectory, server: str) -> dict[str, object]:
    """Return what the server tells the device about itself. Raises ClientError."""
    try:
        return dict(json.loads(own_client(directory, server).device()))
    except ValueError as error:
        raise ClientError(f"the server's answer can't be read: {error}") from error


def renew(directory: DeviceDirectory, server: str, insist: Insist) -> x509.Certificate:
    """Get the next certificate, and put it in place. Raises ClientError."""
    state = directory.state()
    client = own_client(directory, server)
    request = make_request(directory.prepare(state.key_kind), state.device)
    try:
        certificate = insist(lambda _is_repeated: client.renew(request))
    except RefusedByServerError as error:
        if error.status == _BAD:
            # Something is wrong with this key, as that it is another one's; the next try makes a new one.
            directory.discard()
        raise
    directory.install(certificate, client.ca_certificates(), state)
    return certificate
