"""CMP over the wire with the real client, `openssl cmp`: each message, each refusal, and what is on record."""

import hashlib
import os
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
)

from dicomward.enrolment.invitation import MOST_WRONG_GUESSES
from dicomward.io.ca.local import KeyKind, LocalCa
from dicomward.io.enrolment.invitation_store import decide_waiting, waiting_by_key
from dicomward.io.enrolment.inviting import Handed
from dicomward.io.registry.store import RegistryStore, RegistryStoreError
from tests.directory_helpers import now
from tests.io.ca_helpers import grant
from tests.io.enrolment_place import Place, enrolment_place, names, new_key

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl: apt-get install openssl"),
]
SECONDS = 30


NAMES = names("cmp")


def key_file(path: Path) -> Path:
    path.write_bytes(new_key().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    return path


def openssl_cmp(place: Place, *arguments: str, path: str = ".well-known/cmp") -> subprocess.CompletedProcess[str]:
    told = subprocess.run(
        [
            *("openssl", "cmp", "-config", "", "-batch", "-server", place.url, "-path", path),
            *("-tls_used", "-tls_trusted", str(place.root), "-trusted", str(place.root), "-no_proxy", "127.0.0.1"),
            *arguments,
            *(() if {"-certout", "genm", "rr"} & set(arguments) else ("-certout", "/dev/null")),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    print(told.stdout)
    return told


def with_secret(handed: Handed, secret: str = "") -> tuple[str, ...]:
    return "-ref", handed.invitation.grant.device, "-secret", f"pass:{secret or handed.cmp_secret}"


def signed(directory: Path, name: str = "own") -> tuple[str, ...]:
    return (
        *("-cert", str(directory / f"{name}.cert.pem"), "-key", str(directory / f"{name}.key.pem")),
        *("-untrusted", str(directory / "issuing.pem")),
    )


def enrolled(place: Place, directory: Path) -> str:
    """Enrol a new device with its CMP secret; its files are own.key.pem and own.cert.pem."""
    handed = place.invite(next(NAMES))
    name = handed.invitation.grant.device
    key = key_file(directory / "own.key.pem")
    told = openssl_cmp(
        place,
        *("-cmd", "ir", "-newkey", str(key), "-subject", f"/CN={name}", "-implicit_confirm"),
        *("-certout", str(directory / "own.cert.pem"), "-extracertsout", str(directory / "issuing.pem")),
        *with_secret(handed),
    )
    assert told.returncode == 0, told.stdout
    return name


def certificate(path: Path) -> x509.Certificate:
    return x509.load_pem_x509_certificate(path.read_bytes())


def bound(place: Place, name: str) -> list[str]:
    with RegistryStore.open(place.settings.registry.url) as store:
        device = store.read().device_by_name(name)
    return [] if device is None else [each.status for each in device.certificates]


@pytest.mark.parametrize("command", ["ir", "cr"])
@pytest.mark.parametrize("options", [("-implicit_confirm",), ("-mac", "hmacWithSHA256")])
def test_secret_gives_a_certificate(place: Place, tmp_path: Path, command: str, options: tuple[str, ...]) -> None:
    handed = place.invite(next(NAMES))
    name = handed.invitation.grant.device
    told = openssl_cmp(
        place,
        *("-cmd", command, "-newkey", str(key_file(tmp_path / "key.pem")), "-subject", f"/CN={name}", *options),
        *("-certout", str(tmp_path / "cert.pem"), "-cacertsout", str(tmp_path / "ca.pem")),
        *with_secret(handed),
        path=".well-known/cmp/p/any/initialization",
    )
    assert told.returncode == 0, told.stdout
    assert ("PKICONF" in told.stdout) == (options != ("-implicit_confirm",))
    san = certificate(tmp_path / "cert.pem").extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert f"urn:dicomward:device:{name}" in san.get_values_for_type(x509.UniformResourceIdentifier)
    assert place.root.read_bytes() in (tmp_path / "ca.pem").read_bytes()
    assert bound(place, name) == ["active"]
    # It was for once.
    again = openssl_cmp(
        place, "-cmd", "ir", "-newkey", str(key_file(tmp_path / "other.pem")), *with_secret(handed), *options
    )
    assert again.returncode != 0
    assert place.refusals()[-1] == ("code-used", name)


def test_pkcs10_gives_a_certificate(place: Place, tmp_path: Path) -> None:
    handed = place.invite(next(NAMES))
    name = handed.invitation.grant.device
    key, request = key_file(tmp_path / "key.pem"), tmp_path / "request.pem"
    subprocess.run(
        ["openssl", "req", "-new", "-key", str(key), "-subj", f"/CN={name}", "-out", str(request)],
        check=True,
        timeout=SECONDS,
    )
    told = openssl_cmp(
        place, "-cmd", "p10cr", "-csr", str(request), "-certout", str(tmp_path / "cert.pem"), *with_secret(handed)
    )
    assert told.returncode == 0, told.stdout
    assert "PKICONF" in told.stdout
    assert certificate(tmp_path / "cert.pem").subject.rfc4514_string() == f"CN={name}"


def test_renewal_and_revocation_are_signed(place: Place, tmp_path: Path) -> None:
    name = enrolled(place, tmp_path)
    renew = ("-cmd", "kur", "-newkey", str(key_file(tmp_path / "next.key.pem")), *signed(tmp_path))
    told = openssl_cmp(place, *renew, "-certout", str(tmp_path / "next.cert.pem"))
    assert told.returncode == 0, told.stdout
    assert "PKICONF" in told.stdout
    # A lost answer: the same key gets the same certificate.
    told = openssl_cmp(place, *renew, "-certout", str(tmp_path / "again.pem"))
    assert told.returncode == 0, told.stdout
    assert certificate(tmp_path / "again.pem") == certificate(tmp_path / "next.cert.pem")
    told = openssl_cmp(place, "-cmd", "genm", *signed(tmp_path, "next"))
    assert told.returncode == 0, told.stdout
    # Its holder may revoke a certificate, another one not.
    told = openssl_cmp(place, "-cmd", "rr", "-oldcert", str(tmp_path / "own.cert.pem"), *signed(tmp_path, "next"))
    assert told.returncode != 0
    assert place.refusals()[-1] == ("cmp-certificate-wrong", name)
    mine = ("-oldcert", str(tmp_path / "next.cert.pem"), "-revreason", "5")
    told = openssl_cmp(place, "-cmd", "rr", *mine, *signed(tmp_path, "next"))
    assert told.returncode == 0, told.stdout
    assert sorted(bound(place, name)) == ["active", "revoked"]
    # Another key with a spent certificate: somebody has a copy.
    other = key_file(tmp_path / "thief.pem")
    told = openssl_cmp(place, "-cmd", "kur", "-newkey", str(other), *signed(tmp_path))
    assert told.returncode != 0
    assert place.refusals()[-1] == ("renewal-of-spent-generation", name)


def test_general_message_tells_the_certificates_of_the_ca(place: Place) -> None:
    handed = place.invite(next(NAMES))
    told = openssl_cmp(place, "-cmd", "genm", "-infotype", "caCerts", *with_secret(handed))
    assert told.returncode == 0, told.stdout
    assert "caCerts" in told.stdout


def test_wrong_secret_counts_and_ends_the_invitation(place: Place, tmp_path: Path) -> None:
    handed = place.invite(next(NAMES))
    name = handed.invitation.grant.device
    ask = ("-cmd", "ir", "-newkey", str(key_file(tmp_path / "key.pem")), "-subject", f"/CN={name}")
    for _ in range(MOST_WRONG_GUESSES):
        told = openssl_cmp(place, *ask, *with_secret(handed, "WRONG"))
        assert told.returncode != 0
    assert place.refusals()[-1] == ("code-wrong", name)
    assert openssl_cmp(place, *ask, *with_secret(handed)).returncode != 0
    assert place.refusals()[-1] == ("code-dead", name)
    assert bound(place, name) == []


@pytest.mark.parametrize(
    ("options", "reason", "failure"),
    [
        (("-cmd", "ir", "-subject", "/CN=OTHER"), "subject-not-granted", "badCertTemplate"),
        (("-cmd", "cr", "-sans", "pacs.example"), "name-not-granted", "badCertTemplate"),
        (("-cmd", "ir", "-popo", "-1"), "request-signature-wrong", "badPOP"),
        (("-cmd", "ir", "-popo", "0"), "request-signature-wrong", "badPOP"),
        (("-cmd", "ir", "-unprotected_requests"), "cmp-protection-wrong", "badMessageCheck"),
        (("-cmd", "ir", "-mac", "hmacWithSHA224"), "cmp-algorithm", "badAlg"),
    ],
)
def test_refusals_are_told_and_the_secret_stays_good(
    place: Place, tmp_path: Path, options: tuple[str, ...], reason: str, failure: str
) -> None:
    handed = place.invite(next(NAMES))
    key = str(key_file(tmp_path / "key.pem"))
    told = openssl_cmp(place, *options, "-newkey", key, *with_secret(handed))
    assert told.returncode != 0
    assert place.refusals()[-1][0] == reason
    assert failure in told.stdout
    assert "Traceback" not in told.stdout
    told = openssl_cmp(place, "-cmd", "ir", "-newkey", key, "-certout", str(tmp_path / "c"), *with_secret(handed))
    assert told.returncode == 0, told.stdout


def test_certificate_of_nobody_and_an_invitation_that_is_over(place: Place, tmp_path: Path) -> None:
    issued = LocalCa.load(place.settings.tls.client_ca.parent).issue_device("x", ["X"], KeyKind.ECDSA, now())
    key = tmp_path / "own.key.pem"
    key.write_bytes(issued.key_pem)
    (tmp_path / "own.cert.pem").write_bytes(issued.certificate_pem)
    shutil.copy(tmp_path / "own.cert.pem", tmp_path / "issuing.pem")
    told = openssl_cmp(place, "-cmd", "kur", "-newkey", str(key_file(tmp_path / "key.pem")), *signed(tmp_path))
    assert told.returncode != 0
    assert place.refusals()[-1][0] == "not-a-device-certificate"
    assert "signerNotTrusted" in told.stdout
    far = place.invite(wish=grant(next(NAMES), networks=("10.9.0.0/16",)))
    assert openssl_cmp(place, "-cmd", "ir", "-newkey", str(key), *with_secret(far)).returncode != 0
    assert place.refusals()[-1][0] == "network-not-allowed"
    late = place.invite(next(NAMES), life=timedelta(seconds=-1))
    assert openssl_cmp(place, "-cmd", "ir", "-newkey", str(key), *with_secret(late)).returncode != 0
    assert place.refusals()[-1][0] == "code-expired"


def test_certificate_that_the_device_does_not_accept_is_revoked(place: Place, tmp_path: Path) -> None:
    handed = place.invite(next(NAMES))
    other = LocalCa.load(place.settings.tls.client_ca.parent).issue_device("x", ["X"], KeyKind.ECDSA, now())
    (tmp_path / "none.pem").write_bytes(other.certificate_pem)
    told = openssl_cmp(
        place,
        *("-cmd", "ir", "-newkey", str(key_file(tmp_path / "key.pem")), "-out_trusted", str(tmp_path / "none.pem")),
        *("-certout", str(tmp_path / "cert.pem")),
        *with_secret(handed),
    )
    assert told.returncode != 0
    assert bound(place, handed.invitation.grant.device) == ["revoked"]


def test_replayed_messages_are_refused(place: Place, tmp_path: Path) -> None:
    handed = place.invite(next(NAMES))
    sent = tmp_path / "sent.der"
    ask = ("-cmd", "genm", *with_secret(handed))
    assert openssl_cmp(place, *ask, "-reqout", str(sent)).returncode == 0
    told = place.ask("POST", "/.well-known/cmp", sent.read_bytes(), Content_Type="application/pkixcmp")
    assert told.status == 200
    assert place.refusals()[-1] == ("cmp-replayed", handed.invitation.grant.device)


def test_garbage_is_answered_with_an_error_message(place: Place) -> None:
    for body in (b"", b"garbage", b"\x30\x80", b"\x30\x82\xff\xff" + bytes(100), b"\x30" * 5000):
        told = place.ask("POST", "/.well-known/cmp", body, Content_Type="application/pkixcmp")
        assert (told.status, told.fields["content-type"]) == (200, "application/pkixcmp")
        assert b"the body is no CMP message" in told.body
        assert place.refusals()[-1][0] == "cmp-unreadable"
    assert place.ask("POST", "/.well-known/cmp", b"x").status == 415
    assert place.ask("GET", "/.well-known/cmp").status == 405
    big = place.ask("POST", "/.well-known/cmp", bytes(70_000), Content_Type="application/pkixcmp")
    assert big.status == 413


def test_full_disk_issues_nothing_and_the_secret_stays_good(
    place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handed = place.invite(next(NAMES))
    ask = ("-cmd", "ir", "-newkey", str(key_file(tmp_path / "key.pem")), *with_secret(handed))

    def full(*_args: object, **_kwargs: object) -> None:
        raise RegistryStoreError("the registry database failed: database or disk is full")

    with monkeypatch.context() as patched:
        patched.setattr("dicomward.io.ca.issuer.insert_issued", full)
        told = openssl_cmp(place, *ask)
    assert told.returncode != 0
    assert "systemUnavail" in told.stdout
    assert "disk" not in told.stdout
    assert place.refusals()[-1] == ("ca-unavailable", handed.invitation.grant.device)
    assert openssl_cmp(place, *ask).returncode == 0


def test_secret_is_good_once_also_in_parallel(place: Place, tmp_path: Path) -> None:
    handed = place.invite(next(NAMES))
    keys = [str(key_file(tmp_path / f"{number}.pem")) for number in range(4)]

    def ask(key: str) -> int:
        return openssl_cmp(place, "-cmd", "ir", "-newkey", key, *with_secret(handed)).returncode

    with ThreadPoolExecutor(len(keys)) as pool:
        codes = list(pool.map(ask, keys))
    assert codes.count(0) == 1
    assert bound(place, handed.invitation.grant.device) == ["active"]
    assert place.refusals()[-3:] == [("code-used", handed.invitation.grant.device)] * 3


def test_commands_of_the_guide(place: Place, tmp_path: Path) -> None:
    guide = (Path(__file__).parents[3] / "docs/cmp.md").read_text()
    blocks = re.findall(r"```sh\n(.*?)```", guide, re.DOTALL)
    commands = [re.search(r"-cmd (\w+)", block) for block in blocks]
    assert [found[1] for found in commands if found] == ["ir", "kur", "rr", "genm", "p10cr", "ir"]
    shutil.copy(place.root, tmp_path / "root.pem")
    # The last one is for a server with a queue, and has a test of its own.
    for block in blocks[:-1]:
        if "-secret" in block:
            (tmp_path / "secret.txt").write_text(place.invite("CT-ROOM-3").cmp_secret + "\n")
        told = subprocess.run(
            ["bash", "-ec", block.replace("https://enrol.example:8443", place.url)],
            cwd=tmp_path,
            env={**os.environ, "no_proxy": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert told.returncode == 0, told.stdout + told.stderr
    assert certificate(tmp_path / "old.cert.pem").subject.rfc4514_string() == "CN=CT-ROOM-3"


@pytest.fixture(scope="module")
def queue(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    with enrolment_place(tmp_path_factory.mktemp("queue") / "gateway", queue=True) as made:
        yield made


def decide(place: Place, key: Path, name: str) -> None:
    """Wait until the request of a key waits, and approve it for a device, or ("") reject it."""
    spki = load_pem_private_key(key.read_bytes(), None).public_key()
    der = spki.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    deadline = time.monotonic() + SECONDS
    with RegistryStore.open(place.settings.registry.url) as store:
        while time.monotonic() < deadline:
            with store.writing() as connection:
                waiting = waiting_by_key(connection, hashlib.sha256(der).hexdigest())
                if waiting is not None:
                    granted = grant(name) if name else None
                    decide_waiting(
                        connection, waiting.id, granted=granted, by="anna", now=now(), expires_at=now() + timedelta(1)
                    )
                    return
            time.sleep(0.02)
    pytest.fail("nothing waits")


@pytest.mark.parametrize("who", ["bare", "vendor"])
def test_request_without_a_secret_waits_for_approval(queue: Place, tmp_path: Path, who: str) -> None:
    key = key_file(tmp_path / "key.pem")
    if who == "bare":
        credential: tuple[str, ...] = ("-unprotected_requests",)
    else:
        # What a vendor has put into the device.
        made = LocalCa.make("Vendor", now()).issue_device("ct", ("CT",), KeyKind.ECDSA, now())
        (tmp_path / "vendor.key").write_bytes(made.key_pem)
        (tmp_path / "vendor.pem").write_bytes(made.certificate_pem)
        credential = ("-cert", str(tmp_path / "vendor.pem"), "-key", str(tmp_path / "vendor.key"), "-san_nodefault")
    name = f"queued-{who}"
    # It asks again after 30 s, or when its time is nearly up.
    ask = ("-cmd", "ir", "-newkey", str(key), "-subject", f"/CN={name}", "-total_timeout", "12", *credential)
    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(openssl_cmp, queue, *ask, "-certout", str(tmp_path / "cert.pem"))
        decide(queue, key, name)
        told = asking.result()
    assert told.returncode == 0, told.stdout
    assert "POLLREQ" in told.stdout
    assert certificate(tmp_path / "cert.pem").subject.rfc4514_string() == f"CN={name}"
    assert bound(queue, name) == ["active"]


def test_transaction_that_is_lost_is_begun_anew(queue: Place, tmp_path: Path) -> None:
    """A server that starts again knows no transactions: the device asks anew with the same key."""
    key = key_file(tmp_path / "key.pem")
    ask = ("-cmd", "ir", "-newkey", str(key), "-subject", "/CN=anew", "-unprotected_requests", "-implicit_confirm")
    given_up = openssl_cmp(queue, *ask, "-total_timeout", "1")
    assert given_up.returncode != 0
    decide(queue, key, "anew")
    told = openssl_cmp(queue, *ask, "-certout", str(tmp_path / "cert.pem"))
    assert told.returncode == 0, told.stdout
    assert bound(queue, "anew") == ["active"]


def test_rejected_request_is_told(queue: Place, tmp_path: Path) -> None:
    key = key_file(tmp_path / "key.pem")
    ask = ("-cmd", "ir", "-newkey", str(key), "-subject", "/CN=nobody", "-unprotected_requests")
    openssl_cmp(queue, *ask, "-total_timeout", "1")
    decide(queue, key, "")
    told = openssl_cmp(queue, *ask)
    assert told.returncode != 0
    assert "the request was rejected" in told.stdout
    assert queue.refusals()[-1][0] == "approval-rejected"


def test_without_a_queue_nobody_waits(place: Place, tmp_path: Path) -> None:
    key = key_file(tmp_path / "key.pem")
    told = openssl_cmp(place, "-cmd", "ir", "-newkey", str(key), "-subject", "/CN=x", "-unprotected_requests")
    assert told.returncode != 0
    assert place.refusals()[-1][0] == "cmp-protection-wrong"
