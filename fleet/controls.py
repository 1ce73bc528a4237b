"""What guards the servers of a fleet beside their kind: TLS, client certificates, called AE titles; and its truth.

None of it changes a total of the manifest: who leaks still leaks, through TLS or with a title that somebody knows.
"""

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from fleet.manifest import Manifest, Server

# The scope names the first; nobody has told it the other one.
KNOWN_AE_TITLE: Final = "FLEETPACS"
UNKNOWN_AE_TITLE: Final = "NOTTOLD"
TLS_PORT: Final = 2762
# Large archives stay in plaintext: the fleet is about counts, not about the speed of TLS.
_MOST_RECORDS_IN_TLS: Final = 50_000


class ControlsError(ValueError):
    """There are too few servers for what the manifest asks."""


def with_controls(servers: "Sequence[Server]", manifest: "Manifest", random: Random) -> "list[Server]":
    """Give servers their guards, in numbers that the manifest says. Raises ControlsError."""
    fleet = list(servers)
    free = set(range(len(fleet)))

    def take(number: int, name: str, fits: "Callable[[Server], bool]") -> list[int]:
        there = [place for place in sorted(free) if fits(fleet[place])]
        if len(there) < number:
            raise ControlsError(f"{name}: {number} servers are asked for, and {len(there)} would do")
        taken = random.sample(there, number)
        free.difference_update(taken)
        return taken

    for place in take(manifest.client_certificate, "client_certificate", lambda each: each.kind == "guarded"):
        fleet[place] = replace(fleet[place], tls="certificate")
    for place in take(manifest.called_known, "called_known", lambda each: each.kind == "leaking"):
        fleet[place] = replace(fleet[place], called_ae_title=KNOWN_AE_TITLE)
    for number in range(manifest.tls_beside):
        there = Counter(fleet[place].country for place in free if _is_harmless(fleet[place]))
        countries = sorted(country for country, count in there.items() if count > 1)
        if not countries:
            raise ControlsError(f"tls_beside: {manifest.tls_beside} pairs are asked for, and only {number} are there")
        country = random.choice(countries)
        place, other = take(2, "tls_beside", lambda each: _is_harmless(each) and each.country == country)  # noqa: B023
        fleet[place] = replace(fleet[place], tls="any", port=TLS_PORT, address=fleet[other].address)
    for place in take(manifest.called_unknown, "called_unknown", _is_harmless):
        fleet[place] = replace(fleet[place], called_ae_title=UNKNOWN_AE_TITLE)
    for place in take(manifest.tls_only, "tls_only", _is_small):
        fleet[place] = replace(fleet[place], tls="any")
    return fleet


def _is_harmless(server: "Server") -> bool:
    return server.kind in ("failing", "empty", "no-query")


def _is_small(server: "Server") -> bool:
    return server.kind != "guarded" and server.patients + server.studies <= _MOST_RECORDS_IN_TLS


def truth_of_controls(servers: "Sequence[Server]") -> dict[str, dict[str, int]]:
    """Return how many servers have which verdict on which control."""
    in_tls = {each.address for each in servers if each.tls}
    verdicts: dict[str, Counter[str]] = {}
    for server in servers:
        for control, verdict in _verdicts(server, beside_tls=server.address in in_tls).items():
            verdicts.setdefault(control, Counter())[verdict] += 1
    return {control: dict(sorted(counts.items())) for control, counts in sorted(verdicts.items())}


def _verdicts(server: "Server", *, beside_tls: bool) -> dict[str, str]:
    transport = {
        "tls-offered": "PASS" if server.tls or beside_tls else "FAIL",
        "tls-required": "PASS" if server.tls else "FAIL",
        "client-certificate": {"": "NOT_RUN", "any": "FAIL", "certificate": "PASS"}[server.tls],
    }
    if server.tls == "certificate":
        return {**transport, "calling-ae-title": "NOT_RUN", "called-ae-title": "NOT_RUN", "find": "PASS"}
    if server.kind == "guarded":
        return {**transport, "calling-ae-title": "PASS", "called-ae-title": "INCONCLUSIVE", "find": "PASS"}
    if server.called_ae_title == UNKNOWN_AE_TITLE:
        return {**transport, "calling-ae-title": "INCONCLUSIVE", "called-ae-title": "PASS", "find": "INCONCLUSIVE"}
    find = {"no-query": "PASS", "failing": "INCONCLUSIVE"}.get(server.kind, "FAIL")
    called = "PASS" if server.called_ae_title else "FAIL"
    return {**transport, "calling-ae-title": "FAIL", "called-ae-title": called, "find": find}


def write_certificate(path: Path) -> None:
    """Write a self-signed certificate of today, and its key."""
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "fleet")])
    now = datetime.fromtimestamp(time.time(), UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=30))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(IPv4Address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path.touch(mode=0o600)
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + certificate.public_bytes(serialization.Encoding.PEM)
    )
