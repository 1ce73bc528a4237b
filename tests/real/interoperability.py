"""Runs every client stack against every server with every service that both have, and writes docs/interoperability.md.

    make interoperability

Each case is done direct, through the gateway over mutual TLS, and in plaintext through one of its legacy zones; the
three have to end alike: statuses, matches, and the bytes that were received.
"""

import sys
import tempfile
import time
from pathlib import Path

from tests.real.clients import STACKS, Outcome, Stack
from tests.real.matrix import ALL_SERVICES
from tests.real.orthanc_client import OrthancClient
from tests.real.processes import REPOSITORY
from tests.real.site import SERVICES, Site, site

PAGE = REPOSITORY / "docs" / "interoperability.md"
BEGIN, END = "<!-- interoperability:begin -->", "<!-- interoperability:end -->"
ALL_STACKS: tuple[Stack, ...] = (*STACKS, OrthancClient())


def verdict(direct: Outcome, secure: Outcome, zone: Outcome) -> str:
    """Say in a word how the three compare."""
    if direct != secure:
        return "TLS differs"
    if direct != zone:
        return "zone differs"
    return "equal" if direct.succeeded else "equal (fails)"


def _case(here: Site, stack: Stack, service: str) -> str:
    if service not in SERVICES[here.kind] or service not in stack.services:
        return "-"
    direct = here.outcome(stack, service, gateway=False)
    secure = here.outcome(stack, service, gateway=True)
    found = verdict(direct, secure, here.zone_outcome(stack, service))
    print(f"{here.kind} {stack.name} {service}: {found}", file=sys.stderr, flush=True)
    return found


def main() -> int:
    """Run everything; 0 if every case is equal."""
    lines = [f"| client | server | {' | '.join(ALL_SERVICES)} |", "|---" * (len(ALL_SERVICES) + 2) + "|"]
    words: list[str] = []
    for server in SERVICES:
        with tempfile.TemporaryDirectory() as directory, site(server, Path(directory)) as here:
            for stack in ALL_STACKS:
                row = [_case(here, stack, service) for service in ALL_SERVICES]
                words += row
                lines.append(f"| {stack.name} | {server} | {' | '.join(row)} |")
    done = [word for word in words if word != "-"]
    good = sum(word.startswith("equal") for word in done)
    day = time.strftime("%Y-%m-%d")
    head = f"Run of {day}: {good} of {len(done)} cases equal, each done three ways."
    page = PAGE.read_text("utf-8")
    before, _, rest = page.partition(BEGIN)
    table = "\n".join([BEGIN, head, "", *lines, END])
    PAGE.write_text(before + table + rest.partition(END)[2], "utf-8")
    print(head)
    return 0 if good == len(done) else 1


if __name__ == "__main__":
    sys.exit(main())
