"""The hardening plan: ordered steps, each with the findings that it closes, and the gateways that do most of it.

Rules of this file: every finding is closed by exactly one step. Where several steps could close it, the first that
can be done counts. What a gateway needs (its listener, its archive) is computed here; the files are written by io.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from ipaddress import ip_address
from typing import Any, Final

from dicomward.assess.findings import CATALOGUE
from dicomward.assess.observation import Finding, Protocol, ServerObservation
from dicomward.assess.plan import NOBODYS_AE_TITLE
from dicomward.assess.report_model import RunFacts, is_server, server_names
from dicomward.identity.draft import Draft, DraftArchive, DraftDevice, name_from
from dicomward.identity.registry import Endpoint

PLAN_FORMAT: Final = 1
# Beside the port that devices know; an archive that moves there keeps a number that people recognise.
_MOVED_BY: Final = 10_000
_MOST_PORT: Final = 0xFFFF
# As `dicomward init` writes them for an archive on its own machine.
_LOOPBACK_NETWORKS: Final = ("127.0.0.0/8", "::1/128")
_UNKNOWN_TITLE: Final = "ARCHIVE"
_WEB: Final = (Protocol.HTTP, Protocol.HTTPS)
_CERTIFICATE: Final = frozenset(
    {"DWA-TLS-VERSION", "DWA-CERT-EXPIRED", "DWA-CERT-NAME", "DWA-CERT-KEY", "DWA-CERT-CHAIN"}
)
_UPDATE: Final = "DWA-KNOWN-VULNERABILITY"
_NOT_IN_PATHS: Final = re.compile(r"[^A-Za-z0-9.-]+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Closes:
    """A finding that a step closes."""

    address: str
    port: int
    server: str
    id: str


@dataclass(frozen=True, slots=True, kw_only=True)
class GatewayPlan:
    """A gateway for one archive: it takes the archive's place at `listen`, and the archive moves to `archive`."""

    directory: str
    server: str
    ae_title: str
    title_is_known: bool
    listen: Endpoint
    archive: Endpoint
    archive_listen: Endpoint
    site: str

    @property
    def archive_name(self) -> str:
        """The archive's name in the registry."""
        return name_from(self.ae_title)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanStep:
    """One step: what to do, in order, and why; `commands` are typed in the directory of the plan."""

    title: str
    why: str
    do: tuple[str, ...]
    commands: tuple[str, ...] = ()
    closes: tuple[Closes, ...] = ()
    gateway: GatewayPlan | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The steps, in the order in which they are done."""

    owner: str
    steps: tuple[PlanStep, ...]

    @property
    def gateways(self) -> tuple[GatewayPlan, ...]:
        """The gateways of all steps."""
        return tuple(step.gateway for step in self.steps if step.gateway is not None)


def build_plan(run: RunFacts, observations: Iterable[ServerObservation]) -> Plan:
    """Return the plan for a run: the web first, since it takes minutes, then gateways by what leaks."""
    servers = sorted(
        (each for each in observations if is_server(each) and each.findings), key=lambda each: (each.address, each.port)
    )
    names = server_names(servers, addresses=True)
    steps = [
        *_web_step(servers, names),
        *_gateway_steps(servers, names),
        *_certificate_step(servers, names),
        *_update_step(servers, names),
    ]
    if steps:
        steps.append(_proof())
    return Plan(owner=run.owner, steps=tuple(steps))


def _kind_of(server: ServerObservation, finding: Finding) -> str:
    """Return which kind of step closes a finding."""
    if finding.id == _UPDATE:
        return "update"
    if server.protocol in _WEB:
        return "certificate" if finding.id in _CERTIFICATE else "web"
    # A server that asks everybody for a certificate needs better ones, and no gateway for that.
    if all(each.id in _CERTIFICATE or each.id == _UPDATE for each in server.findings):
        return "certificate"
    return "gateway"


def _closes(servers: Sequence[ServerObservation], names: dict[tuple[str, int], str], kind: str) -> tuple[Closes, ...]:
    return tuple(
        Closes(address=each.address, port=each.port, server=names[each.address, each.port], id=finding.id)
        for each in servers
        for finding in each.findings
        if _kind_of(each, finding) == kind
    )


def _web_step(servers: Sequence[ServerObservation], names: dict[tuple[str, int], str]) -> list[PlanStep]:
    closes = _closes(servers, names, "web")
    if not closes:
        return []
    return [
        PlanStep(
            title="Close web administration and DICOMweb to strangers",
            why="A browser is enough to read, change and delete there; it takes minutes to close.",
            do=(
                "Let only the addresses of administrators reach the port: on the machine's own firewall, today.",
                "Switch the product's login on, with a password that is not the factory's (Orthanc: "
                '"AuthenticationEnabled": true and "RegisteredUsers"; "RemoteAccessAllowed": false where nobody '
                "needs it from elsewhere).",
                "Where viewers need DICOMweb, put it behind a proxy that asks for a token.",
            ),
            closes=closes,
        )
    ]


def _gateway_steps(servers: Sequence[ServerObservation], names: dict[tuple[str, int], str]) -> list[PlanStep]:
    steps = []
    directories: set[str] = set()
    for each in sorted(servers, key=_leak, reverse=True):
        closes = _closes([each], names, "gateway")
        if closes:
            gateway = _gateway(each, names[each.address, each.port], directories)
            directories.add(gateway.directory)
            steps.append(_gateway_step(gateway, closes))
    return steps


def _leak(server: ServerObservation) -> int:
    counts = server.counts
    return counts.records.value if counts is not None and counts.records is not None else 0


def _gateway(server: ServerObservation, name: str, taken: set[str]) -> GatewayPlan:
    base = f"gateway-{_NOT_IN_PATHS.sub('-', server.host or server.address)}-{server.port}"
    directory, number = base, 2
    while directory in taken:
        directory, number = f"{base}-{number}", number + 1
    # A server that takes any title was called by one that nobody has.
    title = "" if server.called_ae_title == NOBODYS_AE_TITLE else server.called_ae_title
    # Both ports that are new stay in the range, and beside each other.
    moved = server.port + _MOVED_BY if server.port + _MOVED_BY < _MOST_PORT else server.port - _MOVED_BY
    return GatewayPlan(
        directory=directory,
        server=name,
        ae_title=title or _UNKNOWN_TITLE,
        title_is_known=bool(title),
        listen=Endpoint(host=server.address, port=server.port),
        archive=Endpoint(host=_loopback(server.address), port=moved),
        archive_listen=Endpoint(host=_loopback(server.address), port=moved + 1),
        site=server.site,
    )


def _loopback(address: str) -> str:
    return "127.0.0.1" if ip_address(address).version == 4 else "::1"


def host_port(endpoint: Endpoint) -> str:
    """Return HOST:PORT, with brackets around IPv6."""
    return f"[{endpoint.host}]:{endpoint.port}" if ":" in endpoint.host else f"{endpoint.host}:{endpoint.port}"


def _gateway_step(gateway: GatewayPlan, closes: tuple[Closes, ...]) -> PlanStep:
    directory = gateway.directory
    config = f"{directory}/gw/dicomward.toml"
    title = (
        ()
        if gateway.title_is_known
        else (
            f"The archive's AE title was not learned, because it takes any or none was found: replace "
            f"{gateway.ae_title} in the command and in {directory}/registry-draft.toml by its own.",
        )
    )
    return PlanStep(
        title=f"Put a gateway in front of {gateway.server}",
        why="Strangers then end in the TLS handshake; devices are known by their certificates, and may do what their "
        "role needs.",
        do=(
            "Until it is done: let only the addresses of known devices reach the port, on the machine's firewall.",
            *title,
            f"On the archive's own machine: let the archive listen on {host_port(gateway.archive)}, and let nobody but "
            "this machine reach that port.",
            f"Make the gateway, which takes over {host_port(gateway.listen)}, with the commands below.",
            f"Write the devices into {directory}/registry-draft.toml (`dicomward inventory` drafts them).",
            "Give each device its certificate, move it to TLS, and see it work, before the next one.",
        ),
        commands=(
            f"dicomward init {directory}/gw --pacs {gateway.ae_title}@{host_port(gateway.archive)} "
            f"--listen {host_port(gateway.listen)} --archive-listen {host_port(gateway.archive_listen)}",
            f"cp {directory}/dicomward.toml {directory}/policy.toml {directory}/gw/",
            f"dicomward check-config --config {config}",
            f"dicomward policy check --config {config}",
            f"dicomward device import {directory}/registry-draft.toml --dry-run --config {config}",
            f"dicomward device import {directory}/registry-draft.toml --config {config}",
            f"dicomward gateway --config {config}",
        ),
        closes=closes,
        gateway=gateway,
    )


def _certificate_step(servers: Sequence[ServerObservation], names: dict[tuple[str, int], str]) -> list[PlanStep]:
    closes = _closes(servers, names, "certificate")
    if not closes:
        return []
    remedies = [CATALOGUE[each].remedy for each in dict.fromkeys(each.id for each in closes)]
    return [
        PlanStep(
            title="Renew certificates and switch obsolete TLS off",
            why="Devices can only be sure whom they talk to if the certificate holds.",
            do=tuple(remedies),
            closes=closes,
        )
    ]


def _update_step(servers: Sequence[ServerObservation], names: dict[tuple[str, int], str]) -> list[PlanStep]:
    closes = _closes(servers, names, "update")
    if not closes:
        return []
    known = sorted({each.in_words for server in servers for each in server.vulnerabilities})
    return [
        PlanStep(
            title="Update products with known vulnerabilities",
            why="They were matched by product and version, and not tried.",
            do=(
                f"Ask the vendors for versions without {', '.join(known) or 'them'}, and plan the updates.",
                "Until then nobody but the gateway reaches the archive.",
            ),
            closes=closes,
        )
    ]


def _proof() -> PlanStep:
    return PlanStep(
        title="Prove it",
        why="Closed is what answered and refused. A server that is off proves nothing.",
        do=("Assess the same scope again, and compare. Repeat it after every change of the network.",),
        commands=("dicomward assess SCOPE.toml --out NEW", "dicomward assess --compare OLD NEW"),
    )


# --- the draft, and the plan as text and JSON ------------------------------------------------------------------------


def draft_of(gateway: GatewayPlan, devices: Sequence[DraftDevice] = ()) -> Draft:
    """Return the registry draft of one gateway: its archive, as `init` registers it, and the devices that are known."""
    notes = ["The archive is the one that dicomward init registers; it is left alone when it is there already."]
    if not gateway.title_is_known:
        notes.append(f"{gateway.ae_title} stands for the AE title of the archive, which was not learned: replace it.")
    if not devices:
        notes.append("An assessment does not see devices: add [[device]] tables (docs/registry-draft.md).")
    return Draft(
        source=f"dicomward assess report, {gateway.server}",
        notes=tuple(notes),
        devices=tuple(devices),
        archives=(
            DraftArchive(
                name=gateway.archive_name,
                ae_title=gateway.ae_title,
                address=gateway.archive,
                networks=_LOOPBACK_NETWORKS,
            ),
        ),
    )


def plan_to_json(plan: Plan) -> dict[str, Any]:
    """Return the plan as JSON values."""
    return {
        "format": PLAN_FORMAT,
        "owner": plan.owner,
        "steps": [
            {
                "number": number,
                "title": step.title,
                "why": step.why,
                "do": list(step.do),
                "commands": list(step.commands),
                "closes": [
                    {"server": each.server, "address": each.address, "port": each.port, "finding": each.id}
                    for each in step.closes
                ],
                "files": [] if step.gateway is None else [f"{step.gateway.directory}/{name}" for name in PLAN_FILES],
            }
            for number, step in enumerate(plan.steps, 1)
        ],
    }


PLAN_FILES: Final = ("dicomward.toml", "policy.toml", "registry-draft.toml")


def plan_text(plan: Plan, made_at: datetime) -> str:
    """Return the plan as Markdown."""
    owner = f" for {plan.owner}" if plan.owner else ""
    lines = [f"# Hardening plan{owner}", "", f"Made {made_at:%Y-%m-%d %H:%M} UTC by `dicomward assess report`.", ""]
    if not plan.steps:
        return "\n".join([*lines, "There is nothing to close: no server that was reached has a finding.", ""])
    for number, step in enumerate(plan.steps, 1):
        lines += [f"## {number}. {step.title}", "", step.why, "", *(f"- {each}" for each in step.do), ""]
        if step.commands:
            lines += ["```sh", *step.commands, "```", ""]
        if step.closes:
            lines += ["| closes | on |", "|---|---|"]
            lines += [f"| {each.id}: {CATALOGUE[each.id].title} | {each.server} |" for each in step.closes]
            lines.append("")
    return "\n".join(lines)
