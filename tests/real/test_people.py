"""Persons at devices, end to end: real clients, a real directory, tokens, and what is left without the directory."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from joserfc import jwt
from joserfc.jwk import ECKey
from pynetdicom.pdu_primitives import UserIdentityNegotiation

from tests.real.clients import Pynetdicom, Route
from tests.real.gateway import Gateway, dicomward
from tests.real.hospital import credentials_of
from tests.real.processes import LOOPBACK, run
from tests.real.recording_archive import STUDY_FIND, VERIFICATION, RecordingArchive
from tests.real.samples import sample
from tests.real.servers import DCMTK, need
from tests.real.slapd import PEOPLE, Slapd, slapd

pytestmark = pytest.mark.real

KEY = ECKey.generate_key("P-256", {"kid": "one"})
ISSUER, AUDIENCE = "https://login.hospital.example", "dicomward"
RULES = """
[[rule]]
id = "reading-needs-a-person"
effect = "allow"
role = "reading"
service = ["query"]
assurance = "device-and-person"

[[rule]]
id = "storing-needs-none"
effect = "allow"
role = "reading"
service = ["verification", "storage"]
"""


class Place:
    """A gateway with a directory and an issuer behind it, and one device."""

    def __init__(self, directory: Path, archive: RecordingArchive, ldap: Slapd) -> None:
        self.directory = directory
        self.archive = archive
        self.ldap = ldap
        self.gateway = Gateway(directory / "gateway", archive=archive.ae_title, archive_port=archive.port)
        with (self.gateway.directory / "policy.toml").open("a", encoding="utf-8") as policy:
            policy.write(RULES)
        keys = self.gateway.directory / "keys.json"
        keys.write_text(json.dumps({"keys": [KEY.as_dict(private=False)]}), encoding="utf-8")
        self.gateway.configure(
            "people",
            ldap_url=f"ldaps://{LOOPBACK}:{ldap.tls_port}",
            ldap_ca=str(ldap.ca),
            ldap_person_dn=f"uid={{username}},{PEOPLE}",
            jwt_keys="keys.json",
            jwt_issuer=ISSUER,
            jwt_audience=AUDIENCE,
            jwt_leeway_seconds=0,
        )
        self.file("local.txt", "local passcode")
        self.gateway.must("user", "add", "night", "--passcode-file", directory / "local.txt")
        self.route: Route
        credentials = self.gateway.add_device("ws1", "WS1", role="reading", key="rsa")
        self.gateway.start()
        self.route = self.gateway.route(credentials, "WS1")

    def file(self, name: str, text: str) -> Path:
        path = self.directory / name
        path.write_text(text, encoding="utf-8")
        return path

    def token(self, seconds: float = 600) -> str:
        claims = {"iss": ISSUER, "aud": AUDIENCE, "exp": time.time() + seconds, "sub": "carla"}
        return jwt.encode({"alg": "ES256", "kid": "one"}, claims, KEY)

    def associate(self, identity: UserIdentityNegotiation | None, *, wants_answer: bool = True) -> Any:
        client = Pynetdicom()
        negotiation = []
        if identity is not None:
            identity.positive_response_requested = wants_answer
            negotiation = [identity]
        contexts = client.contexts(VERIFICATION, STUDY_FIND)
        return client.associate(self.route, contexts, ext_neg=negotiation)

    def accepted(self, identity: UserIdentityNegotiation | None) -> set[str]:
        association = self.associate(identity)
        try:
            return {str(context.abstract_syntax) for context in association.accepted_contexts}
        finally:
            association.release()

    def echo(self, *options: str | Path) -> dict[str, Any]:
        secure = credentials_of(self.route)
        done = dicomward(
            *("echo", LOOPBACK, str(self.route.port), "-aet", "WS1", "-aec", self.archive.ae_title, "--json"),
            *("--cert", secure.certificate, "--key", secure.key, "--ca", secure.authority),
            *options,
        )
        result: dict[str, Any] = json.loads(done.stdout)
        return result


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    directory = tmp_path_factory.mktemp("people")
    with RecordingArchive("ARCHIVE") as archive, slapd(directory / "ldap") as ldap:
        made = Place(directory, archive, ldap)
        try:
            yield made
        finally:
            made.gateway.stop()


def passcode(name: str, secret: str) -> UserIdentityNegotiation:
    identity = UserIdentityNegotiation()
    identity.user_identity_type = 2
    identity.primary_field = name.encode()
    identity.secondary_field = secret.encode()
    return identity


def token_of(text: str) -> UserIdentityNegotiation:
    identity = UserIdentityNegotiation()
    identity.user_identity_type = 5
    identity.primary_field = text.encode()
    return identity


def test_a_person_of_the_directory_may_read_and_the_device_alone_may_not(place: Place) -> None:
    assert place.accepted(passcode("anna", "correct horse")) == {VERIFICATION, STUDY_FIND}
    assert place.accepted(None) == {VERIFICATION}
    refused = place.associate(passcode("anna", "wrong passcode"))
    assert refused.is_rejected
    assert "user-identity-refused" in place.gateway.reasons()
    allowed = [each for each in place.gateway.audit("--code", "DW-ASSOC-ALLOW") if each.get("person") == "anna"]
    assert allowed[-1]["assurance"] == "device-and-person"
    assert "correct horse" not in place.gateway.log()


def test_a_token_is_a_person_for_its_time(place: Place) -> None:
    assert place.accepted(token_of(place.token())) == {VERIFICATION, STUDY_FIND}
    assert place.associate(token_of(place.token(-5))).is_rejected
    assert "user-identity-expired" in place.gateway.reasons()
    association = place.associate(token_of(place.token(2.5)))
    assert association.is_established
    deadline = time.monotonic() + 20
    while not place.gateway.audit("--code", "DW-ASSOC-NARROW") and time.monotonic() < deadline:
        time.sleep(0.1)
    assert place.gateway.audit("--code", "DW-ASSOC-NARROW")[-1]["person"] == "carla"
    assert association.send_c_echo().Status == 0
    association.release()


def test_dcmtk_stores_with_a_person(place: Place) -> None:
    tool = need(DCMTK / "storescu", "dcmtk")
    secure = credentials_of(place.route).dcmtk()
    image = sample("CT_small.dcm").path
    where: list[str | Path] = ["-aet", "WS1", "-aec", place.archive.ae_title, LOOPBACK, str(place.route.port), image]
    assert run([tool, *secure, "-usr", "bert", "-pwd", "another one", "-rsp", *where]).returncode == 0
    assert run([tool, *secure, "-usr", "bert", "-pwd", "another", "-rsp", *where]).returncode != 0
    assert run([tool, *secure, "-usr", "bert", *where]).returncode != 0
    token = place.file("token.jwt", place.token())
    assert run([tool, *secure, "--jwt", token, "-rsp", *where]).returncode == 0


def test_our_own_echo_says_if_the_person_is_verified(place: Place) -> None:
    good = place.echo("--user", "night", "--passcode-file", place.directory / "local.txt")
    assert (good["ok"], good["person_verified"]) == (True, True)
    assert place.echo("--jwt-file", place.file("echo.jwt", place.token()))["person_verified"] is True
    assert place.echo()["person_verified"] is False
    assert place.echo("--user", "night")["ok"] is False


def test_without_the_directory_the_device_goes_on_alone_and_local_persons_as_before(place: Place) -> None:
    place.ldap.stop()
    assert place.accepted(passcode("anna", "correct horse")) == {VERIFICATION}
    assert place.accepted(passcode("night", "local passcode")) == {VERIFICATION, STUDY_FIND}
    assert place.accepted(None) == {VERIFICATION}
    entered = [each for each in place.gateway.audit("--code", "DW-DEGR-ENTER") if each.get("component") == "persons"]
    assert (entered[-1]["state"], entered[-1]["reason"]) == ("device-only", "person-verifier-unavailable")
    assert "person-verifier-unavailable" in place.gateway.reasons()
