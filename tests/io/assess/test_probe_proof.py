"""The proof of control is looked up in DNS, and what can't be looked up is none."""

import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import dns.message
import dns.rcode
import dns.rrset
import pytest

from dicomward.assess.scope import Scope, parse_scope
from dicomward.io.assess.probe_proof import NameServer, ProofError, verify_proofs

SCOPE = b"""
owner = "C"
authorisation = "A"
contact = "c"
valid_from = 2026-01-01
valid_until = 2026-12-31
[[network]]
address = "203.0.113.9"
public = true
counting = true
proof = "pacs.clinic.example"
[[network]]
address = "2001:db8::9"
public = true
counting = true
proof = "six.clinic.example"
[[network]]
address = "203.0.113.10"
public = true
[[network]]
cidr = "10.0.0.0/24"
counting = true
"""
HASH = parse_scope(SCOPE).sha256
RECORDS = {
    ("_dicomward-assess.pacs.clinic.example.", "TXT"): f'"v=1" "dicomward-assess={HASH}"',
    ("pacs.clinic.example.", "A"): "203.0.113.9",
    ("_dicomward-assess.six.clinic.example.", "TXT"): f'"{HASH}"',
    ("six.clinic.example.", "AAAA"): "2001:db8::9",
}


@contextmanager
def name_server(records: Mapping[tuple[str, str], str], *, silent: bool = False) -> Iterator[NameServer]:
    """Answer over UDP on loopback."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as listener:
        listener.bind(("127.0.0.1", 0))

        def serve() -> None:
            while True:
                data, peer = listener.recvfrom(4096)
                if data == b"stop":
                    return
                query = dns.message.from_wire(data)
                question = query.question[0]
                answer = dns.message.make_response(query)
                kind = dns.rdatatype.to_text(question.rdtype)
                text = records.get((question.name.to_text(), kind))
                if text is not None:
                    answer.answer.append(dns.rrset.from_text(question.name, 60, "IN", kind, text))
                elif not any(name == question.name.to_text() for name, _ in records):
                    answer.set_rcode(dns.rcode.NXDOMAIN)
                if silent:
                    answer.set_rcode(dns.rcode.SERVFAIL)
                listener.sendto(answer.to_wire(), peer)

        thread = threading.Thread(target=serve)
        thread.start()
        host, port = listener.getsockname()
        try:
            yield NameServer(address=host, port=port)
        finally:
            listener.sendto(b"stop", (host, port))
            thread.join()


@pytest.fixture
def scope() -> Scope:
    return parse_scope(SCOPE)


def test_proofs_that_are_there(scope: Scope) -> None:
    with name_server(RECORDS) as server:
        assert verify_proofs(scope, server) == ["pacs.clinic.example", "six.clinic.example"]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({("_dicomward-assess.pacs.clinic.example.", "TXT"): None}, "there is no such record"),
        ({("_dicomward-assess.pacs.clinic.example.", "TXT"): '"other"'}, "holds another text"),
        ({("pacs.clinic.example.", "A"): "203.0.113.8"}, "has no A record of 203.0.113.9"),
        ({("six.clinic.example.", "AAAA"): None}, "has no AAAA record"),
    ],
)
def test_proofs_that_are_not_there(scope: Scope, changed: dict[tuple[str, str], str | None], said: str) -> None:
    records = {key: value for key, value in {**RECORDS, **changed}.items() if value is not None}
    with name_server(records) as server, pytest.raises(ProofError, match=said):
        verify_proofs(scope, server)


def test_name_server_that_fails(scope: Scope) -> None:
    with name_server(RECORDS, silent=True) as server, pytest.raises(ProofError, match="can't be looked up"):
        verify_proofs(scope, server)


def test_nothing_is_asked_where_nothing_is_counted_in_public() -> None:
    private = parse_scope(
        SCOPE.split(b"[[network]]", maxsplit=1)[0] + b'[[network]]\ncidr="10.0.0.0/24"\ncounting=true\n'
    )
    # Nobody listens there: a question would fail.
    assert verify_proofs(private, NameServer(address="127.0.0.1", port=1)) == []
