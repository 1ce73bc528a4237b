"""EST over the wire: each way in, each refusal with its reason on record, and nothing internal told."""

import base64
import email
import json
import subprocess
import threading
from datetime import timedelta
from pathlib import Path
from urllib.parse import urlencode

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_private_key,
)
from cryptography.x509.name import _ASN1Type

from dicomward.enrolment.est import DEVICE_PATH, decode_certificates
from dicomward.enrolment.failures import FAILURES_A_MINUTE
from dicomward.enrolment.invitation import MOST_WRONG_GUESSES
from dicomward.io.ca.directory import CaDirectory
from dicomward.io.ca.local import KeyKind, LocalCa
from dicomward.io.ca.sign import der_of
from dicomward.io.enrolment.invitation_store import decide_waiting, waiting_by_id
from dicomward.io.registry.store import RegistryStore
from tests.directory_helpers import now
from tests.io.ca_helpers import PASSPHRASE, grant, rsa_key
from tests.io.enrolment_place import Place, enrolment_place, names, new_key, own_file, request

NAMES = names("dev")


def test_code_gives_a_certificate_that_the_registry_knows(place: Place) -> None:
    handed = place.invite(next(NAMES))
    name = handed.invitation.grant.device
    told = place.enrol(handed)
    assert told.fields["content-type"] == "application/pkcs7-mime; smime-type=certs-only"
    san = told.certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert san.get_values_for_type(x509.UniformResourceIdentifier) == [
        f"urn:dicomward:device:{name}",
        f"urn:dicom:ae:{name.upper()}",
    ]
    with RegistryStore.open(place.settings.registry.url) as store:
        device = store.read().device_by_name(name)
    assert device is not None
    assert len(device.certificates) == 1
    assert name in place.settings.registry.snapshot.read_text()


def test_network_is_learned_where_none_was_named(place: Place) -> None:
    name = next(NAMES)
    assert place.enrol(place.invite(wish=grant(name, networks=()))).status == 200
    with RegistryStore.open(place.settings.registry.url) as store:
        device = store.read().device_by_name(name)
    assert device is not None
    assert device.networks == ("127.0.0.1/32",)


def test_code_alone_finds_its_invitation(place: Place) -> None:
    assert place.enrol(place.invite(next(NAMES)), new_key(), name="").status == 200


def test_used_code_is_refused_and_the_same_key_gets_its_answer_again_on_demand(place: Place) -> None:
    handed, key = place.invite(next(NAMES)), new_key()
    name = handed.invitation.grant.device
    first = place.enrol(handed, key)
    assert place.enrol(handed, key).status == 403
    assert place.enrol(handed, new_key()).status == 403
    again = place.est("simpleenroll", request(key), basic=(name, handed.code.text), Dicomward_Repeat="yes")
    assert again.certificate == first.certificate
    other = place.est("simpleenroll", request(new_key()), basic=(name, handed.code.text), Dicomward_Repeat="yes")
    assert other.status == 403
    assert place.refusals()[-3:] == [("code-used", name)] * 3


def test_five_wrong_guesses_end_an_invitation_also_in_parallel(place: Place) -> None:
    handed = place.invite(next(NAMES))
    name = handed.invitation.grant.device
    body, statuses = request(new_key()), []

    def guess() -> None:
        statuses.append(place.est("simpleenroll", body, basic=(name, "WRONG")).status)

    threads = [threading.Thread(target=guess) for _ in range(12)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert statuses == [401] * 12
    assert place.enrol(handed, new_key()).status == 401
    reasons = [reason for reason, device in place.refusals() if device == name]
    assert reasons.count("code-wrong") == MOST_WRONG_GUESSES
    assert reasons[-1] == "code-dead"


def test_code_of_another_device_is_a_wrong_guess(place: Place) -> None:
    mine, other = place.invite(next(NAMES)), place.invite(next(NAMES))
    told = place.est("simpleenroll", request(new_key()), basic=(mine.invitation.grant.device, other.code.text))
    assert told.status == 401
    assert place.enrol(mine, new_key()).status == 200
    assert place.enrol(other, new_key()).status == 200


def test_expired_unknown_and_elsewhere(place: Place) -> None:
    late, far = place.invite(next(NAMES)), place.invite(wish=grant(next(NAMES), networks=("10.9.0.0/16",)))
    place.at = now() + timedelta(hours=2)
    assert place.enrol(late, new_key()).status == 403
    place.at = None
    told = place.enrol(far, new_key())
    assert (told.status, told.text) == (403, "not from this network\n")
    assert place.est("simpleenroll", request(new_key()), basic=("nobody", late.code.text)).status == 401
    assert place.est("simpleenroll", request(new_key())).status == 401
    assert [reason for reason, _ in place.refusals()][-4:] == [
        "code-expired",
        "network-not-allowed",
        "invitation-unknown",
        "credentials-missing",
    ]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "request-unreadable"),
        (b"garbage!", "request-unreadable"),
        (request(new_key())[:200], "request-unreadable"),
        (request(new_key(), "OTHER"), "subject-not-granted"),
        (request(new_key(), "", x509.DNSName("pacs")), "name-not-granted"),
        (request(ec.generate_private_key(ec.SECP192R1())), "key-too-weak"),
    ],
)
def test_bad_requests_are_refused_and_the_code_stays_good(place: Place, body: bytes, reason: str) -> None:
    handed = place.invite(next(NAMES))
    name = handed.invitation.grant.device
    told = place.est("simpleenroll", body, basic=(name, handed.code.text))
    assert told.status == 400
    assert len(told.text) < 120
    assert place.refusals()[-1] == (reason, name)
    assert place.enrol(handed, new_key()).status == 200


def test_renewal_with_the_certificate(place: Place, tmp_path: Path) -> None:
    handed, key, following = place.invite(next(NAMES)), new_key(), new_key()
    own = own_file(tmp_path / "own.pem", place.enrol(handed, key).certificate, key)
    renewed = place.est("simplereenroll", request(following, handed.invitation.grant.device), own=own)
    assert renewed.certificate.public_key() == following.public_key()
    # A lost answer: the same key gets the same certificate; simpleenroll does it too (RFC 7030 §4.2.1).
    assert place.est("simpleenroll", request(following), own=own).certificate == renewed.certificate
    # Another key with a spent certificate: somebody has a copy.
    assert place.est("simplereenroll", request(new_key()), own=own).status == 403
    assert place.refusals()[-1][0] == "renewal-of-spent-generation"
    assert place.est("simplereenroll", request(new_key(), "OTHER"), own=own).status == 400
    assert place.est("simplereenroll", request(new_key())).status == 401


def test_certificate_of_nobody_renews_nothing(place: Place, tmp_path: Path) -> None:
    issued = LocalCa.load(place.settings.tls.client_ca.parent).issue_device("x", ["X"], KeyKind.ECDSA, now())
    own = tmp_path / "own.pem"
    own.write_bytes(issued.key_pem + issued.certificate_pem)
    assert place.est("simplereenroll", request(new_key()), own=own).status == 403
    assert place.refusals()[-1][0] == "not-a-device-certificate"
    assert place.ask("GET", DEVICE_PATH, own=own).status == 403
    assert place.ask("GET", DEVICE_PATH).status == 401


def test_device_is_told_where_to_go(place: Place, tmp_path: Path) -> None:
    handed, key = place.invite(next(NAMES)), new_key()
    own = own_file(tmp_path / "own.pem", place.enrol(handed, key).certificate, key)
    told = json.loads(place.ask("GET", DEVICE_PATH, own=own).body)
    assert told["device"] == handed.invitation.grant.device
    assert told["archives"] == ["PACS"]


def test_ca_certificates_are_for_everybody(place: Place) -> None:
    told = place.ask("GET", "/.well-known/est/cacerts")
    subjects = [
        x509.load_der_x509_certificate(each).subject.rfc4514_string() for each in decode_certificates(told.body)
    ]
    assert {"CN=Test root CA", "CN=Test issuing CA 1"} <= set(subjects)
    assert b"\n" not in told.body
    assert place.ask("GET", "/.well-known/est/anything/cacerts").body == told.body


def test_attributes_dictate_the_names_of_the_invitation(place: Place) -> None:
    handed = place.invite(next(NAMES))
    name = handed.invitation.grant.device
    told = place.ask("GET", "/.well-known/est/csrattrs", basic=(name, handed.code.text))
    assert told.fields["content-type"] == "application/csrattrs"
    assert f"urn:dicomward:device:{name}".encode() in base64.b64decode(told.body)
    assert b"urn:" not in base64.b64decode(place.ask("GET", "/.well-known/est/csrattrs").body)
    assert place.ask("GET", "/.well-known/est/csrattrs", basic=(name, "WRONG")).status == 401
    assert place.enrol(handed, new_key()).status == 200


def test_key_made_by_the_server(place: Place, tmp_path: Path) -> None:
    handed = place.invite(next(NAMES))
    body = request(new_key(), handed.invitation.grant.device)
    told = place.est("serverkeygen", body, basic=(handed.invitation.grant.device, handed.code.text))
    message = email.message_from_bytes(
        b"Content-Type: " + told.fields["content-type"].encode() + b"\r\n\r\n" + told.body
    )
    key_part, certificate_part = [str(part.get_payload()) for part in message.walk() if not part.is_multipart()]
    key = load_der_private_key(base64.b64decode(key_part), None)
    found = decode_certificates(certificate_part.encode())
    certificate = x509.load_der_x509_certificate(found[0])
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    assert certificate.public_key() == key.public_key()
    own = own_file(tmp_path / "own.pem", certificate, key)
    assert place.est("serverkeygen", request(new_key()), own=own).status == 200
    assert place.est("serverkeygen", request(new_key())).status == 401


def test_rollover_needs_no_restart(tmp_path: Path) -> None:
    with enrolment_place(tmp_path / "gateway") as place:
        key = new_key()
        certificate = place.enrol(place.invite("ct1"), key).certificate
        own = own_file(tmp_path / "own.pem", certificate, key)
        ca = CaDirectory(place.settings.enrolment.ca)
        rolled = ca.roll_over(ca.open_root(PASSPHRASE), now())
        new_issuer = rolled.open().certificate
        following = new_key()
        renewed = place.est("simplereenroll", request(following), own=own).certificate
        assert (certificate.issuer, renewed.issuer) == (ca.open().certificate.subject, new_issuer.subject)
        told = decode_certificates(place.ask("GET", "/.well-known/est/cacerts").body)
        assert der_of(new_issuer) in told
        # What the new one has issued is good for TLS, too.
        own = own_file(tmp_path / "next.pem", renewed, following)
        assert place.est("simplereenroll", request(new_key()), own=own).status == 200
        (ca.path / "ca.json").unlink()
        handed = place.invite("ct2")
        assert place.enrol(handed).status == 503
        assert place.ask("GET", "/.well-known/est/cacerts").status == 503
        assert place.refusals()[-1] == ("ca-unavailable", "ct2")


def keygen_request(key: rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey, attribute: str, value: bytes) -> bytes:
    """Return a request (base64) with an attribute whose value is an OCTET STRING."""
    builder = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([]))
    builder = builder.add_attribute(x509.ObjectIdentifier(attribute), value, _tag=_ASN1Type.OctetString)
    return base64.b64encode(builder.sign(key, hashes.SHA256()).public_bytes(Encoding.DER))


ASYMMETRIC_DECRYPT_KEY = "1.2.840.113549.1.9.16.2.54"


def test_key_made_by_the_server_is_encrypted_for_an_rsa_key_of_the_device(place: Place, tmp_path: Path) -> None:
    handed = place.invite(next(NAMES))
    basic = (handed.invitation.grant.device, handed.code.text)
    mine = rsa_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(mine.public_key()).digest
    told = place.est("serverkeygen", keygen_request(mine, ASYMMETRIC_DECRYPT_KEY, identifier), basic=basic)
    assert told.status == 200, told.text
    head = b"Content-Type: " + told.fields["content-type"].encode() + b"\r\n\r\n"
    parts = [part for part in email.message_from_bytes(head + told.body).walk() if not part.is_multipart()]
    assert [part.get_content_type() for part in parts] == ["application/pkcs7-mime"] * 2
    assert parts[0].get_param("smime-type") == "server-generated-key"
    (tmp_path / "mine.pem").write_bytes(mine.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    command = ["openssl", "cms", "-decrypt", "-inform", "DER", "-inkey", str(tmp_path / "mine.pem")]
    envelope = base64.b64decode(str(parts[0].get_payload()))
    opened = subprocess.run(command, input=envelope, capture_output=True, check=True).stdout
    certificate = x509.load_der_x509_certificate(decode_certificates(str(parts[1].get_payload()).encode())[0])
    found = certificate.public_key()
    assert isinstance(found, ec.EllipticCurvePublicKey)
    # A PKCS#8 of ECDSA holds the public point, too.
    assert found.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint) in opened


@pytest.mark.parametrize(
    ("attribute", "value"),
    [(ASYMMETRIC_DECRYPT_KEY, b"somebody else's"), ("1.2.840.113549.1.9.16.2.37", b"a shared secret")],
)
def test_a_key_that_can_not_be_encrypted_as_asked_is_not_made(place: Place, attribute: str, value: bytes) -> None:
    handed = place.invite(next(NAMES))
    basic = (handed.invitation.grant.device, handed.code.text)
    assert place.est("serverkeygen", keygen_request(rsa_key(), attribute, value), basic=basic).status == 400
    assert place.refusals()[-1][0] == "key-encryption-not-possible"
    ours = new_key()
    identifier = x509.SubjectKeyIdentifier.from_public_key(ours.public_key()).digest
    refused = place.est("serverkeygen", keygen_request(ours, ASYMMETRIC_DECRYPT_KEY, identifier), basic=basic)
    assert refused.status == 400, "for an elliptic curve there is no way yet"
    assert place.enrol(handed).status == 200, "the code was not spent"


def test_page_takes_a_request_from_a_person(place: Place) -> None:
    page = place.ask("GET", "/")
    assert "Content-Security-Policy".lower() in page.fields
    handed = place.invite(next(NAMES))
    name = handed.invitation.grant.device
    form = {"name": name, "code": handed.code.text, "request": request(new_key()).decode()}
    kind = "application/x-www-form-urlencoded"
    wrong = place.ask("POST", "/upload", urlencode(form | {"code": "X"}).encode(), Content_Type=kind)
    assert wrong.status == 401
    told = place.ask("POST", "/upload", urlencode(form).encode(), Content_Type=kind)
    assert len(x509.load_pem_x509_certificates(told.body)) == 2
    assert place.ask("POST", "/upload", b"\xff=1", Content_Type=kind).status in (400, 401)
    assert place.ask("POST", "/upload", b"&".join([b"a=b"] * 9), Content_Type=kind).status == 400
    assert place.ask("POST", "/upload", b"x").status == 401


def test_other_operations_and_methods(place: Place) -> None:
    for method, path, status in (
        ("GET", "simpleenroll", 405),
        ("POST", "cacerts", 405),
        ("POST", "fullcmc", 501),
        ("POST", "nothing", 404),
        ("GET", "a/b/cacerts", 404),
    ):
        assert place.ask(method, f"/.well-known/est/{path}").status == status
    assert place.est("simpleenroll", b"x", Content_Type="text/html").status == 415
    broken = place.est("simpleenroll", request(new_key()), Authorization="Basic ???")
    assert broken.status == 400


def test_address_that_fails_too_often_is_not_heard(place: Place) -> None:
    before = len(place.refusals())
    statuses = [place.est("simpleenroll", b"x").status for _ in range(FAILURES_A_MINUTE + 5)]
    assert statuses[:FAILURES_A_MINUTE] == [400] * FAILURES_A_MINUTE
    assert statuses[-1] == 429
    assert len(place.refusals()) - before <= FAILURES_A_MINUTE + 1


def test_full_disk_issues_nothing_and_the_code_stays_good(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    handed, key = place.invite(next(NAMES)), new_key()

    def full(*_args: object, **_kwargs: object) -> None:
        from dicomward.io.registry.store import RegistryStoreError

        raise RegistryStoreError("the registry database failed: database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("dicomward.io.ca.issuer.insert_issued", full)
        told = place.enrol(handed, key)
    assert (told.status, told.text) == (503, "nothing can be issued now; try again later\n")
    assert told.fields["retry-after"]
    assert place.refusals()[-1][0] == "ca-unavailable"
    assert place.enrol(handed, key).status == 200


def test_requests_without_a_code_wait_for_an_operator(tmp_path: Path) -> None:
    with enrolment_place(tmp_path / "gateway", queue=True) as place:
        key, rejected = new_key(), new_key()
        waits = place.est("simpleenroll", request(key, "us1"))
        assert waits.status == 202
        assert waits.fields["retry-after"].isdecimal()
        assert place.est("simpleenroll", request(key, "us1")).status == 202
        number = waits.text.split()[1]
        other = place.est("simpleenroll", request(rejected, "us2")).text.split()[1]
        end = now() + timedelta(days=7)
        with RegistryStore.open(place.settings.registry.url) as store, store.writing() as connection:
            decide_waiting(connection, number, granted=grant("us1", networks=()), by="anna", now=now(), expires_at=end)
            decide_waiting(connection, other, granted=None, by="anna", now=now(), expires_at=end)
        first = place.est("simpleenroll", request(key, "us1"))
        assert first.certificate.public_key() == key.public_key()
        # The answer was lost: the same key gets the same certificate.
        assert place.est("simpleenroll", request(key, "us1")).certificate == first.certificate
        assert place.est("simpleenroll", request(rejected, "us2")).status == 403
        with RegistryStore.open(place.settings.registry.url) as store, store.writing() as connection:
            found = waiting_by_id(connection, number)
        assert found is not None
        assert found.status == "issued"
        statuses = [place.est("simpleenroll", request(new_key(), f"x{n}")).status for n in range(6)]
        assert statuses == [202] * 5 + [503]
