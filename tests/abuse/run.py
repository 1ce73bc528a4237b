"""Runs cases of abuse against a target, and looks at what happens to everybody else meanwhile."""

import contextlib
import socket
import ssl
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field

from tests.abuse.answer_cases import ANSWERS
from tests.abuse.association_cases import CONTEXT_CASES, FRAMING, ITEMS
from tests.abuse.crowd_cases import FLOODS, SLOW, STORMS
from tests.abuse.hold import Case, Hold
from tests.abuse.message_cases import COMMANDS, DATA, DATA_SETS
from tests.abuse.service_cases import SERVICES
from tests.abuse.state_cases import STATES
from tests.abuse.tls_cases import ECHO_ALONE, TLS
from tests.real import raw_peer as raw
from tests.real.clients import Route
from tests.real.processes import LOOPBACK

FAMILIES: Mapping[str, Mapping[str, Case]] = {
    "framing": FRAMING,
    "tls": TLS,
    "association-items": ITEMS,
    "presentation-contexts": CONTEXT_CASES,
    "presentation-data": DATA,
    "command-sets": COMMANDS,
    "data-sets": DATA_SETS,
    "services": SERVICES,
    "answers": ANSWERS,
    "state-machine": STATES,
    "slow-peers": SLOW,
    "floods": FLOODS,
    "storms": STORMS,
}
GOOD_SECONDS = 1.0
# Who is not there again after this is hung.
HUNG_SECONDS = 4.0


@dataclass(frozen=True, slots=True)
class Result:
    """One case: how long a good C-ECHO took while it was held open, and after it; None if it did not come."""

    family: str
    name: str
    held: float | None
    after: float | None

    @property
    def survived(self) -> bool:
        """Say if others were served, both times."""
        return self.held is not None and self.after is not None


@dataclass(slots=True)
class Table:
    """The results of one target."""

    target: str
    results: list[Result] = field(default_factory=list)
    start_mib: float = 0.0
    peak_mib: float = 0.0
    end_mib: float = 0.0

    @property
    def hung(self) -> list[Result]:
        """Cases after which, or during which, nobody else was served."""
        return [each for each in self.results if not each.survived]

    @property
    def slow(self) -> list[Result]:
        """Cases during which a good C-ECHO took longer than it may."""
        return [each for each in self.results if each.held is None or each.held >= GOOD_SECONDS]


def good_echo(route: Route, context: ssl.SSLContext | None, *, seconds: float = HUNG_SECONDS) -> float | None:
    """Do a whole association with one C-ECHO; return how long it took, None if it failed."""
    started = time.monotonic()
    try:
        with contextlib.closing(_connect(route, context, seconds)) as connected:
            peer = raw.Connection(connected)
            connected.settimeout(seconds)
            peer.send(raw.request_on(route, ECHO_ALONE))
            peer.expect(raw.ASSOCIATE_AC)
            peer.send(raw.echo_rq(1, 1))
            if peer.message()[raw.STATUS] != 0:
                return None
            peer.send(raw.pdu(raw.RELEASE_RQ, bytes(4)))
            peer.expect(raw.RELEASE_RP)
    except (OSError, AssertionError):
        return None
    return time.monotonic() - started


def _connect(route: Route, context: ssl.SSLContext | None, seconds: float) -> socket.socket:
    plain = socket.create_connection((LOOPBACK, route.port), timeout=seconds)
    plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return plain if context is None else context.wrap_socket(plain, server_hostname="localhost")


def cases(*families: str) -> Iterator[tuple[str, str, Case]]:
    """Yield the cases of these families, of all if none is named."""
    for family in families or FAMILIES:
        for name, case in FAMILIES[family].items():
            yield family, name, case


def run_case(family: str, name: str, case: Case, abuser: Route, good: Route) -> Result:
    """Do one case: abuse, a good C-ECHO while it is held, the end of it, and one more."""
    context = None if abuser.credentials is None else abuser.credentials.client_context()
    good_context = None if good.credentials is None else good.credentials.client_context()
    with ExitStack() as stack:
        hold = Hold(abuser, stack, context)
        case(hold)
        held = good_echo(good, good_context)
        for end in hold.over:
            end()
    return Result(family, name, held, good_echo(good, good_context))
