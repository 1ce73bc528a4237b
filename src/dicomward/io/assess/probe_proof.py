"""The proof that the owner of a public address agrees to counting: a TXT record, looked up before anything is sent.

The record stands at `_dicomward-assess.NAME` and holds the hash of the scope; NAME must resolve to the address. A
proof that can't be looked up is none.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final

from dicomward.assess.scope import Scope, ScopeNetwork, is_public

if TYPE_CHECKING:
    from dns.resolver import Resolver

PROOF_PREFIX: Final = "_dicomward-assess"
_SECONDS: Final = 5.0


class ProofError(Exception):
    """The proof is not there; the message says what is missing, and where."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NameServer:
    """The DNS server that is asked in place of the system's."""

    address: str
    port: int = 53


def networks_with_proof(scope: Scope) -> Iterator[ScopeNetwork]:
    """Yield the networks whose counting needs a proof."""
    return (each for each in scope.networks if each.counting and is_public(each.network))


def verify_proofs(scope: Scope, server: NameServer | None = None) -> list[str]:
    """Look every proof up; return the names that were proven. Raises ProofError for the first that is missing."""
    networks = list(networks_with_proof(scope))
    if not networks:
        return []
    try:
        from dns.resolver import Resolver
    except ImportError as error:
        raise ProofError(
            "counting on public addresses needs dnspython for its proof: pip install 'dicomward[assess]'"
        ) from error
    resolver = Resolver(configure=server is None)
    if server is not None:
        resolver.nameservers = [server.address]
        resolver.port = server.port
    resolver.lifetime = _SECONDS
    for each in networks:
        _verify(resolver, each, scope.sha256)
    return [each.proof for each in networks]


def _verify(resolver: "Resolver", network: ScopeNetwork, digest: str) -> None:
    record = f"{PROOF_PREFIX}.{network.proof}"
    texts = _look_up(resolver, record, "TXT")
    if not any(digest in text for text in texts):
        found = "there is no such record" if not texts else "the record that is there holds another text"
        raise ProofError(
            f"counting on {network.network} is not proven: {found}. Its owner must publish: "
            f'{record} TXT "dicomward-assess={digest}"'
        )
    address = network.network.network_address
    kind = "A" if address.version == 4 else "AAAA"
    if not any(ip_address(each) == address for each in _look_up(resolver, network.proof, kind)):
        raise ProofError(
            f"counting on {network.network} is not proven: {network.proof} has no {kind} record of {address}"
        )


def _look_up(resolver: "Resolver", name: str, kind: str) -> list[str]:
    """Return the texts of the records, none where there is no such name. Raises ProofError if nobody answers."""
    from dns.exception import DNSException
    from dns.resolver import NXDOMAIN, NoAnswer

    try:
        answer = resolver.resolve(name, kind, search=False)
    except (NXDOMAIN, NoAnswer):
        return []
    except (DNSException, UnicodeError) as error:
        raise ProofError(f"the {kind} record of {name} can't be looked up, so nothing is counted: {error}") from error
    if kind == "TXT":
        return [b"".join(each.strings).decode("ascii", "replace") for each in answer]
    return [str(each.address) for each in answer]
