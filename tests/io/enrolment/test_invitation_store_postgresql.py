"""Two enrolment servers on one PostgreSQL database: a code is used once, and its guesses are counted together."""

import threading
from datetime import timedelta
from pathlib import Path

import pytest

from dicomward.enrolment.invitation import MOST_WRONG_GUESSES
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.enrolment.request import decode_request
from dicomward.io.ca.directory import CaDirectory
from dicomward.io.ca.issuer import CaIssuer
from dicomward.io.ca.sign import der_of
from dicomward.io.enrolment.desk import Desk
from dicomward.io.enrolment.inviting import Wish, invite
from dicomward.io.registry.store import RegistryStore
from dicomward.vocab.reason import ReasonCode
from tests.io.ca_helpers import NOW, TERMS, grant, make_ca
from tests.io.enrolment_place import new_key, request
from tests.io.registry.test_store_postgresql import server, url

pytestmark = pytest.mark.real

__all__ = ["server", "url"]
KEY = bytes(32)


def desk(address: str, ca: CaDirectory) -> tuple[RegistryStore, Desk]:
    store = RegistryStore.open(address)
    return store, Desk(store, CaIssuer(store, ca, TERMS), lambda _revision: None, KEY)


def race(desks: list[Desk], name: str, typed: str, count: int) -> list[ReasonCode | None]:
    """Let many ask at once, alternately at both desks; return the reasons, None for a certificate."""
    import base64

    outcomes: list[ReasonCode | None] = []
    start = threading.Barrier(count)

    def ask(number: int) -> None:
        wanted = decode_request(base64.b64decode(request(new_key())))
        start.wait(20)
        try:
            desks[number % len(desks)].enrol(name, typed, wanted, "127.0.0.1", NOW)
            outcomes.append(None)
        except EnrolmentRefusedError as error:
            outcomes.append(error.reason)

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    return outcomes


def test_code_is_used_once_and_guesses_count_together_whichever_server_is_asked(url: str, tmp_path: Path) -> None:
    ca = make_ca(tmp_path / "ca")
    (first, one), (second, other) = desk(url, ca), desk(url, ca)
    with first, second:
        root = der_of(ca.root)
        wishes = [Wish(grant=grant(name), expires_at=NOW + timedelta(hours=1)) for name in ("ct1", "ct2")]
        good, guessed = invite(first, wishes, by="anna", now=NOW, key=KEY, root=root)
        outcomes = race([one, other], "ct1", good.code.text, 8)
        assert outcomes.count(None) == 1
        assert set(outcomes) == {None, ReasonCode.CODE_USED}
        outcomes = race([one, other], "ct2", good.code.text, 12)
        assert outcomes.count(ReasonCode.CODE_WRONG) == MOST_WRONG_GUESSES
        assert outcomes.count(ReasonCode.CODE_DEAD) == 12 - MOST_WRONG_GUESSES
        assert race([one, other], "ct2", guessed.code.text, 1) == [ReasonCode.CODE_DEAD]
        assert [each.name for each in second.read().devices] == ["ct1"]
