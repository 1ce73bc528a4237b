"""Runs every client stack against every server with every service that both have, and writes docs/interoperability.md.

    make interoperability

Each case is done direct, through the gateway over mutual TLS, in plaintext through one of its legacy zones, and in
plaintext through an edge agent with a spool, which is in front of the gateway; the four have to end alike: statuses,
matches, and the bytes that were received.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tests.real.clients import STACKS, Outcome, Route, Stack
from tests.real.edge import Edge
from tests.real.matrix import ALL_SERVICES
from tests.real.orthanc_client import OrthancClient
from tests.real.pixelmed_client import PixelmedClient
from tests.real.processes import REPOSITORY
from tests.real.site import READER, SERVICES, Site, site

PAGE = REPOSITORY / "docs" / "interoperability.md"
BEGIN, END = "<!-- interoperability:begin -->", "<!-- interoperability:end -->"
ALL_STACKS: tuple[Stack, ...] = (*STACKS, PixelmedClient(), OrthancClient())


def verdict(direct: Outcome, secure: Outcome, zone: Outcome, agent: Outcome) -> str:
    """Say in a word how the four compare."""
    if direct != secure:
        return "TLS differs"
    if direct != zone:
        return "zone differs"
    if direct != agent:
        return "agent differs"
    return "equal" if direct.succeeded else "equal (fails)"


@contextmanager
def agent_in_front(here: Site, directory: Path) -> Iterator[Route]:
    """Run an edge agent in front of the gateway; yield the way through it."""
    secure = here.through_gateway
    if secure.credentials is None:
        raise RuntimeError("the way through the gateway has no certificate")
    (directory / "spool-key").write_bytes(bytes(32))
    spool = '[spool]\nkey = "../spool-key"\nfree_bytes = 0\n'
    edge = Edge(directory / "edge", secure.port, secure.credentials, store="spool", title=READER, more=spool)
    edge.start()
    try:
        yield edge.route(READER)
    finally:
        edge.stop()


def _case(here: Site, agent: Route, stack: Stack, service: str) -> str:
    if service not in SERVICES[here.kind] or service not in stack.services:
        return "-"
    found = _compared(here, agent, stack, service)
    if not found.startswith("equal"):
        # Real peers share a machine here, and some give up in time, direct ones too; the page says that it was so.
        here.forget(stack, service)
        again = _compared(here, agent, stack, service)
        found = f"{again} (second try)" if again.startswith("equal") else found
    print(f"{here.kind} {stack.name} {service}: {found}", file=sys.stderr, flush=True)
    return found


def _compared(here: Site, agent: Route, stack: Stack, service: str) -> str:
    direct = here.outcome(stack, service, gateway=False)
    secure = here.outcome(stack, service, gateway=True)
    return verdict(direct, secure, here.zone_outcome(stack, service), here.outcome_by(agent, stack, service))


def main() -> int:
    """Run everything; 0 if every case is equal."""
    lines = [f"| client | server | {' | '.join(ALL_SERVICES)} |", "|---" * (len(ALL_SERVICES) + 2) + "|"]
    words: list[str] = []
    for server in SERVICES:
        with ExitStack() as opened:
            directory = Path(opened.enter_context(tempfile.TemporaryDirectory()))
            here = opened.enter_context(site(server, directory))
            agent = opened.enter_context(agent_in_front(here, directory))
            for stack in ALL_STACKS:
                row = [_case(here, agent, stack, service) for service in ALL_SERVICES]
                words += row
                lines.append(f"| {stack.name} | {server} | {' | '.join(row)} |")
    done = [word for word in words if word != "-"]
    good = sum(word.startswith("equal") for word in done)
    day = time.strftime("%Y-%m-%d")
    head = f"Run of {day}: {good} of {len(done)} cases equal, each done four ways."
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    table = "\n".join([BEGIN, head, "", *lines, END])
    PAGE.write_text(before + table + rest.partition(END)[2], "utf-8")
    print(head)
    return 0 if good == len(done) else 1


if __name__ == "__main__":
    sys.exit(main())
