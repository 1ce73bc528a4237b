"""An enrolment server in this process, on loopback, with its directory and CA, and ways to invite and to ask."""

import base64
import itertools
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from http.client import HTTPSConnection
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID

from dicomward.audit.chain import Record
from dicomward.audit.search import Query
from dicomward.enrolment.est import EST_PATH, decode_certificates
from dicomward.enrolment.grant import Grant
from dicomward.io.audit.read import find_records
from dicomward.io.ca.local import load_certificates
from dicomward.io.ca.sign import der_of
from dicomward.io.enrolment.inviting import Handed, Wish, invite
from dicomward.io.enrolment.key import load_enrolment_key
from dicomward.io.enrolment.server import EnrolmentServer
from dicomward.io.registry.store import RegistryStore
from dicomward.settings import ListenAddress, Settings
from tests.directory_helpers import copy_directory, now
from tests.io.ca_helpers import grant, make_ca

SECONDS = 20.0
Key = ec.EllipticCurvePrivateKey


def names(prefix: str) -> Iterator[str]:
    """Return names of devices, each another one."""
    return (f"{prefix}{number}" for number in itertools.count(1))


@dataclass(frozen=True)
class Told:
    """An answer of the server."""

    status: int
    body: bytes
    fields: dict[str, str]

    @property
    def text(self) -> str:
        return self.body.decode()

    @property
    def certificate(self) -> x509.Certificate:
        assert self.status == 200, self.text
        return x509.load_der_x509_certificate(decode_certificates(self.body)[0])


class Place:
    """A gateway directory, its CA, and a running enrolment server; `at` is what its clock says, None for now."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.at: datetime | None = None
        self.server = EnrolmentServer(settings, self.now)
        self.settings = replace(
            settings,
            enrolment=replace(settings.enrolment, listen=ListenAddress(host="127.0.0.1", port=self.server.http.port)),
        )
        self.url = f"https://127.0.0.1:{self.server.http.port}"
        self.root = settings.enrolment.ca / "root.cert.pem"

    def now(self) -> datetime:
        return self.at or now()

    def invite(self, name: str = "ct3", *, wish: Grant | None = None, life: timedelta = timedelta(hours=2)) -> Handed:
        granted = wish or grant(name)
        with RegistryStore.open(self.settings.registry.url) as store:
            (handed,) = invite(
                store,
                [Wish(grant=granted, expires_at=self.now() + life)],
                by="anna",
                now=self.now(),
                key=load_enrolment_key(self.settings.enrolment.key, create=True),
                root=der_of(load_certificates(self.root)[0]),
            )
        return handed

    def ask(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        *,
        basic: tuple[str, str] | None = None,
        own: Path | None = None,
        **fields: str,
    ) -> Told:
        """Ask; `own` is a PEM file with certificate and key; underscores in names of fields stand for hyphens."""
        context = ssl.create_default_context(cafile=str(self.root))
        if own is not None:
            context.load_cert_chain(own)
        connection = HTTPSConnection("127.0.0.1", self.server.http.port, context=context, timeout=SECONDS)
        head = {name.replace("_", "-"): value for name, value in fields.items()}
        if basic is not None:
            head["Authorization"] = "Basic " + base64.b64encode(":".join(basic).encode()).decode()
        try:
            connection.request(method, path, body or None, head)
            answer = connection.getresponse()
            return Told(answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()})
        finally:
            connection.close()

    def est(
        self,
        operation: str,
        body: bytes,
        *,
        basic: tuple[str, str] | None = None,
        own: Path | None = None,
        **fields: str,
    ) -> Told:
        fields = {"Content_Type": "application/pkcs10", **fields}
        return self.ask("POST", f"{EST_PATH}/{operation}", body, basic=basic, own=own, **fields)

    def enrol(self, handed: Handed, key: Key | None = None, *, name: str | None = None) -> Told:
        device = handed.invitation.grant.device
        body = request(key or new_key(), device)
        return self.est("simpleenroll", body, basic=(device if name is None else name, handed.code.text))

    def refusals(self) -> list[tuple[str, str]]:
        """Return reason and device of each refusal on record, oldest first."""
        found = find_records(self.settings.audit.directory, Query(code="DW-ENROL-DENY"), None)
        return [
            (str(each.members["reason"]), str(each.members.get("device", "")))
            for each in found
            if isinstance(each, Record)
        ]


def new_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def request(key: Key, name: str = "", *names: x509.GeneralName) -> bytes:
    """Return a request as base64 of DER."""
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)] if name else [])
    builder = x509.CertificateSigningRequestBuilder().subject_name(subject)
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return base64.b64encode(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))


def own_file(path: Path, certificate: x509.Certificate, key: Key) -> Path:
    """Write a certificate and its key into one PEM file."""
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path.write_bytes(pem + certificate.public_bytes(Encoding.PEM))
    return path


def enrolment_settings(directory: Path, **changed: object) -> Settings:
    """Return the settings of a new gateway directory with a CA, its enrolment server on a free port."""
    settings = copy_directory(directory)
    make_ca(settings.enrolment.ca, now() - timedelta(days=1), more_anchors=load_certificates(settings.tls.client_ca))
    trusted = (settings.enrolment.ca / "trust.pem").read_bytes()
    settings.tls.client_ca.write_bytes(settings.tls.client_ca.read_bytes() + trusted)
    values = {"listen": ListenAddress(host="127.0.0.1", port=0)} | changed
    return replace(settings, enrolment=replace(settings.enrolment, **values))  # type: ignore[arg-type]


@contextmanager
def enrolment_place(directory: Path, **changed: object) -> Iterator[Place]:
    """Run a server; what is changed are settings of `[enrolment]`."""
    place = Place(enrolment_settings(directory, **changed))
    place.server.start()
    try:
        yield place
    finally:
        place.server.stop()
