"""From conversations that were overheard to a registry draft: who calls whom, for what, and what it could be.

Rules of this file: a guess says its reasons; what nobody could know is left empty for a person to fill in. Values of
patients never come here: a conversation has AE titles, addresses, SOP classes and counts.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import Final

from dicomward.identity.draft import Draft, DraftArchive, DraftDevice, name_from
from dicomward.identity.registry import Endpoint
from dicomward.vocab.dimse import Operation
from dicomward.vocab.principal import Role
from dicomward.vocab.services import Service, service_of
from dicomward.vocab.uid import uid_keyword

# Who answers these keeps or schedules examinations; who only gets images or reports may be anybody's destination.
_ARCHIVE_SERVICES: Final = frozenset(
    {Service.QUERY, Service.MOVE, Service.GET, Service.WORKLIST, Service.MPPS, Service.STORAGE_COMMITMENT, Service.UPS}
)
_READS: Final = frozenset({Service.QUERY, Service.MOVE, Service.GET})
_ACQUIRES: Final = frozenset({Service.WORKLIST, Service.MPPS, Service.STORAGE_COMMITMENT})
_MOST_SHOWN: Final = 40

Address = tuple[str, int]


@dataclass(frozen=True, slots=True)
class Act:
    """A request: operation, SOP class, destination of a C-MOVE, and if the requestor of the association invoked it."""

    operation: Operation
    sop_class_uid: str
    move_destination: str = ""
    by_requestor: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Conversation:
    """One association, or one connection over TLS (then its titles are None): from where, to where, for what.

    `server` is None where only the caller is known (from the audit log).
    """

    client: str
    server: Address | None
    calling_ae_title: str | None = None
    called_ae_title: str | None = None
    is_tls: bool = False
    is_rejected: bool = False
    acts: Mapping[Act, int] = field(default_factory=dict)
    sop_classes: frozenset[str] = frozenset()
    transfer_syntaxes: frozenset[str] = frozenset()
    user_identity: int | None = None


@dataclass(slots=True)
class _Caller:
    """Everything that was said under one calling AE title."""

    hosts: set[str] = field(default_factory=set)
    acts: Counter[Act] = field(default_factory=Counter)
    called: Counter[tuple[str, Address | None]] = field(default_factory=Counter)
    sop_classes: set[str] = field(default_factory=set)
    transfer_syntaxes: set[str] = field(default_factory=set)
    identities: set[int] = field(default_factory=set)
    associations: int = 0
    rejected: int = 0


@dataclass(slots=True)
class _Server:
    """Everything that was asked of one place."""

    titles: Counter[str] = field(default_factory=Counter)
    acts: Counter[Act] = field(default_factory=Counter)
    callers: set[str] = field(default_factory=set)
    hosts: set[str] = field(default_factory=set)


class Inventory:
    """Collects conversations, and makes the draft; it holds what is different, not every conversation."""

    def __init__(self) -> None:
        self._callers: dict[str, _Caller] = defaultdict(_Caller)
        self._servers: dict[Address, _Server] = defaultdict(_Server)
        self._tls: Counter[tuple[str, Address]] = Counter()
        self.associations = 0

    def add(self, conversation: Conversation) -> None:
        """Take one conversation in."""
        server, title = conversation.server, conversation.calling_ae_title
        if title is None:
            if conversation.is_tls and server is not None:
                self._tls[conversation.client, server] += 1
            return
        self.associations += 1
        caller = self._callers[title]
        caller.hosts.add(conversation.client)
        caller.acts.update(conversation.acts)
        caller.called[conversation.called_ae_title or "", server] += 1
        caller.sop_classes |= conversation.sop_classes
        caller.transfer_syntaxes |= conversation.transfer_syntaxes
        caller.associations += 1
        caller.rejected += conversation.is_rejected
        if conversation.user_identity is not None:
            caller.identities.add(conversation.user_identity)
        if server is not None:
            asked = self._servers[server]
            asked.titles[conversation.called_ae_title or ""] += 1
            asked.acts.update(conversation.acts)
            asked.callers.add(title)
            asked.hosts.add(conversation.client)

    def draft(self, source: str, notes: Iterable[str] = ()) -> Draft:
        """Return the draft of what was heard so far."""
        archives = {address: asked for address, asked in self._servers.items() if self._is_archive(address, asked)}
        taken: set[str] = set()
        drafted = [self._archive(address, asked, archives, taken) for address, asked in sorted(archives.items())]
        titles = {title for each in drafted for title in (*each.called_ae_titles, *each.calling_ae_titles)}
        devices = [
            self._device(title, caller, archives, taken)
            for title, caller in sorted(self._callers.items())
            if title not in titles
        ]
        known = {title for device in devices for title in device.ae_titles}
        devices += self._silent_devices(archives, titles | known, taken)
        return Draft(
            source=source,
            devices=tuple(devices),
            archives=tuple(drafted),
            notes=(*notes, *self._unclear_notes(archives), *self._tls_notes(), *self._title_notes()),
        )

    # -- archives ---------------------------------------------------------------------------------------------------

    def _is_archive(self, address: Address, asked: _Server) -> bool:
        """Say if a place is an archive: it answers queries, worklists and the like, or keeps what others store."""
        services = {service_of(act.sop_class_uid) for act in asked.acts if act.by_requestor}
        if services & _ARCHIVE_SERVICES - {Service.STORAGE_COMMITMENT}:
            return True
        if any(act.operation is Operation.N_ACTION for act in asked.acts if act.by_requestor):
            return True
        stored = any(act.operation is Operation.C_STORE for act in asked.acts)
        destinations = {act.move_destination for caller in self._callers.values() for act in caller.acts}
        is_destination = any(title in destinations or self._calls_from(title, address[0]) for title in asked.titles)
        return stored and not is_destination

    def _calls_from(self, title: str, host: str) -> bool:
        return title in self._callers and host in self._callers[title].hosts

    def _calls_as(self, address: Address, asked: _Server, archives: Mapping[Address, _Server]) -> list[str]:
        """Return the titles with which an archive calls others: from its own address, and no archive."""
        return sorted(
            title
            for title, caller in self._callers.items()
            if caller.hosts == {address[0]}
            and (title in asked.titles or not any(server is None or server in archives for _, server in caller.called))
        )

    def _archive(
        self, address: Address, asked: _Server, archives: Mapping[Address, _Server], taken: set[str]
    ) -> DraftArchive:
        title = asked.titles.most_common(1)[0][0]
        calling = self._calls_as(address, asked, archives)
        name = name_from(title, taken)
        taken.add(name)
        why = f"It is an archive: {_asked_text(asked.acts)}, by {', '.join(sorted(asked.callers))}."
        if calling:
            why += f"\nIt calls others itself, as {', '.join(calling)}: for C-MOVE, or to report."
        return DraftArchive(
            name=name,
            ae_title=title,
            address=Endpoint(host=address[0], port=address[1]),
            called_ae_titles=tuple(sorted(asked.titles)),
            calling_ae_titles=tuple(calling),
            networks=(_network(address[0]),),
            why=why + "\nThe link was in plaintext: pin its certificate, or say dedicated_link = true if that is so.",
            seen=_seen(asked.acts, callers=tuple(sorted(asked.callers))),
        )

    # -- devices ----------------------------------------------------------------------------------------------------

    def _device(self, title: str, caller: _Caller, archives: Mapping[Address, _Server], taken: set[str]) -> DraftDevice:
        role, why = _guess_role(caller.acts, caller.associations)
        name = name_from(title, taken)
        taken.add(name)
        listening = sorted(
            address
            for address, asked in self._servers.items()
            if address not in archives and title in asked.titles and address[0] in caller.hosts
        )
        if len(caller.hosts) > 1:
            why += (
                f"\nIt called from {len(caller.hosts)} addresses: one device that moves, or several with one title. "
                "If several, give each its own."
            )
        if caller.rejected:
            why += f"\n{caller.rejected} of its {caller.associations} associations were rejected."
        if caller.identities:
            kinds = ", ".join(map(str, sorted(caller.identities)))
            why += f"\nIt sends a user identity (58H) of type {kinds}."
        targets = sorted({f"{called}@{_place(server)}" for called, server in caller.called})
        return DraftDevice(
            name=name,
            ae_titles=(title,),
            role=role,
            networks=tuple(_network(host) for host in sorted(caller.hosts)),
            address=Endpoint(host=listening[0][0], port=listening[0][1]) if listening else None,
            plain=bool(listening),
            why=why,
            seen=_seen(
                caller.acts,
                calls=tuple(targets),
                proposed=tuple(sorted(map(uid_keyword, caller.sop_classes))),
                transfer=tuple(sorted(map(uid_keyword, caller.transfer_syntaxes))),
            ),
        )

    def _silent_devices(
        self, archives: Mapping[Address, _Server], known: set[str], taken: set[str]
    ) -> list[DraftDevice]:
        """Return who was called and never called: a destination that only receives."""
        devices: list[DraftDevice] = []
        for address, asked in sorted(self._servers.items()):
            for title in sorted(asked.titles):
                if address in archives or title in known or _is_only_verified(asked):
                    continue
                known.add(title)
                name = name_from(title, taken)
                taken.add(name)
                devices.append(
                    DraftDevice(
                        name=name,
                        ae_titles=(title,),
                        role=Role.WORKSTATION if any(a.operation is Operation.C_STORE for a in asked.acts) else "",
                        networks=(_network(address[0]),),
                        address=Endpoint(host=address[0], port=address[1]),
                        plain=True,
                        why=f"It never called; {', '.join(sorted(asked.callers))} called it. "
                        f"{_asked_text(asked.acts).capitalize()}.",
                        seen=_seen(asked.acts, callers=tuple(sorted(asked.callers))),
                    )
                )
        return devices

    # -- notes ------------------------------------------------------------------------------------------------------

    def _unclear_notes(self, archives: Mapping[Address, _Server]) -> list[str]:
        return [
            f"{title} at {_place(address)} was only verified (C-ECHO): archive or device, that tells nothing."
            for address, asked in sorted(self._servers.items())
            for title in sorted(asked.titles)
            if address not in archives and title not in self._callers and _is_only_verified(asked)
        ]

    def _tls_notes(self) -> list[str]:
        return [
            f"{count} connections over TLS from {client} to {_place(server)}: who talks there can't be seen."
            for (client, server), count in sorted(self._tls.items())[:_MOST_SHOWN]
        ]

    def _title_notes(self) -> list[str]:
        lower: dict[str, set[str]] = defaultdict(set)
        for title in self._callers:
            lower[title.casefold()].add(title)
        return [
            f"AE titles that differ in case only: {', '.join(sorted(titles))}. They are different titles (PS3.5 6.2)."
            for titles in lower.values()
            if len(titles) > 1
        ]


def _is_only_verified(asked: _Server) -> bool:
    return all(act.operation is Operation.C_ECHO for act in asked.acts)


def _guess_role(acts: Mapping[Act, int], associations: int) -> tuple[str, str]:
    """Guess the role of a caller from what it invoked, and say why."""
    services = {service_of(act.sop_class_uid) for act in acts if act.by_requestor}
    operations = {act.operation for act in acts if act.by_requestor}
    done = _services_text(acts)
    stores = Operation.C_STORE in operations
    if services & _ACQUIRES and not services & {Service.MOVE, Service.GET}:
        return Role.MODALITY, f"modality, because {done}: that is what acquires."
    if services & _READS:
        extra = " It stores as well, as workstations do with their results." if stores else ""
        also = " It also asks for a worklist: check if it acquires." if services & _ACQUIRES else ""
        return Role.WORKSTATION, f"workstation, because {done}: it reads.{extra}{also}"
    if stores:
        classes = {uid_keyword(act.sop_class_uid) for act in acts if act.operation is Operation.C_STORE}
        if len(classes) <= 3:
            kinds = ", ".join(sorted(classes))
            return Role.MODALITY, f"modality, because {done}, and only {kinds}. An uploader looks the same: check it."
        return Role.UPLOADER, f"uploader, because {done}, of {len(classes)} SOP classes, and it reads nothing."
    if operations:
        return "", f"{done}: that tells nothing of its role."
    return "", f"No operation was seen in {associations} associations, so nobody could say its role."


_DEEDS: Final = (
    (Service.STORAGE, "it stores"),
    (Service.WORKLIST, "it asks for a worklist"),
    (Service.MPPS, "it reports procedure steps"),
    (Service.STORAGE_COMMITMENT, "it asks for storage commitment"),
    (Service.QUERY, "it queries"),
    (Service.MOVE, "it has studies moved"),
    (Service.GET, "it gets studies"),
    (Service.PRINT, "it prints"),
    (Service.UPS, "it uses unified procedure steps"),
    (Service.VERIFICATION, "it verifies"),
    (Service.OTHER, "it uses private or rare SOP classes"),
)


def _services_text(acts: Mapping[Act, int]) -> str:
    services = {service_of(act.sop_class_uid) for act in acts if act.by_requestor}
    return ", ".join(text for service, text in _DEEDS if service in services) or "it did nothing"


def _asked_text(acts: Mapping[Act, int]) -> str:
    services = sorted({service_of(act.sop_class_uid).value for act in acts if act.by_requestor})
    return f"it is asked for {', '.join(services)}" if services else "it is asked for nothing"


def _seen(acts: Mapping[Act, int], **more: tuple[str, ...]) -> dict[str, tuple[str, ...]]:
    """Return what was seen, for people."""
    operations = Counter[str]()
    for act, count in acts.items():
        operations[act.operation.label] += count
    seen = {
        "operations": tuple(f"{label} {count}x" for label, count in sorted(operations.items())),
        "SOP classes": tuple(sorted({uid_keyword(act.sop_class_uid) for act in acts if act.sop_class_uid})),
        "C-MOVE destinations": tuple(sorted({act.move_destination for act in acts if act.move_destination})),
        "called by": more.get("callers", ()),
        "calls": more.get("calls", ()),
        "accepted SOP classes": more.get("proposed", ()),
        "transfer syntaxes": more.get("transfer", ()),
    }
    return {label: values[:_MOST_SHOWN] for label, values in seen.items() if values}


def _network(host: str) -> str:
    return f"{host}/{ip_address(host).max_prefixlen}"


def _place(server: Address | None) -> str:
    if server is None:
        return "the gateway"
    return f"[{server[0]}]:{server[1]}" if ":" in server[0] else f"{server[0]}:{server[1]}"
