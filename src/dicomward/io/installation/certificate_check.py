"""Can a certificate of ours do its work? A handshake in memory shows it, without the network and heavy imports.

The client of that handshake believes this one certificate and nothing else, so that it tells what it says.
"""

import ssl
from datetime import UTC, datetime

from dicomward.io.tls import NO_CHECK_TIME, CertificateFiles, TlsConfigurationError, load_pair

_ROUNDS = 8


def check_certificate(files: CertificateFiles, now: datetime) -> datetime:
    """Return when it ends. Raises TlsConfigurationError if it isn't good now, or can't serve a handshake."""
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    load_pair(server, files)
    client = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client.check_hostname = False
    client.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN | ssl.VerifyFlags(NO_CHECK_TIME)
    try:
        client.load_verify_locations(files.certificate)
        shown = _handshake(server, client)
    except ssl.SSLError as error:
        raise TlsConfigurationError(
            f"certificate {files.certificate} can't serve a TLS handshake: {error.reason or error}. "
            "Name one that is made for a TLS server"
        ) from error
    begin, end = (
        datetime.fromtimestamp(ssl.cert_time_to_seconds(shown[key]), UTC) for key in ("notBefore", "notAfter")
    )
    if not begin <= now < end:
        what = f"is valid only from {begin:%Y-%m-%d %H:%M} UTC" if now < begin else f"ended at {end:%Y-%m-%d %H:%M} UTC"
        raise TlsConfigurationError(f"certificate {files.certificate} {what}. Name one that is valid now")
    return end


def _handshake(server: ssl.SSLContext, client: ssl.SSLContext) -> dict[str, str]:
    """Do it, and return what the client has seen of the certificate. Raises ssl.SSLError."""
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    sides = (client.wrap_bio(down, up, server_side=False), server.wrap_bio(up, down, server_side=True))
    for _ in range(_ROUNDS):
        for side in sides:
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    # typeshed types the values loosely; the times are texts.
    shown: dict[str, str] = dict(sides[0].getpeercert() or {})  # type: ignore[arg-type]
    if "notAfter" not in shown:
        raise ssl.SSLError("the handshake did not end")
    return shown
