"""One policy in two languages, ours and Cedar's, and requests for it: a group of hospitals, ten rules a site.

The rules name what both languages can say. Each tenth rule names no site, so an index by site alone would not help.
"""

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

ROLES = ("modality", "workstation", "uploader", "teleradiology", "research")
CT, MR, CR, US = (f"1.2.840.10008.5.1.4.1.1.{number}" for number in ("2", "4", "1", "6.1"))
STUDY_FIND, STUDY_MOVE, STUDY_GET = (f"1.2.840.10008.5.1.4.1.2.2.{number}" for number in (1, 2, 3))
WORKLIST, VERIFICATION, FILM_SESSION = "1.2.840.10008.5.1.4.31", "1.2.840.10008.1.1", "1.2.840.10008.5.1.1.1"
SERVICE = {
    CT: "storage", MR: "storage", CR: "storage", US: "storage", STUDY_FIND: "query", STUDY_MOVE: "move",
    STUDY_GET: "get", WORKLIST: "worklist", VERIFICATION: "verification", FILM_SESSION: "print",
}  # fmt: skip
WORK = (
    ("c-echo", VERIFICATION), ("c-store", CT), ("c-store", MR), ("c-store", CR), ("c-store", US),
    ("c-find", STUDY_FIND), ("c-move", STUDY_MOVE), ("c-get", STUDY_GET), ("c-find", WORKLIST),
    ("n-create", FILM_SESSION),
)  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRule:
    """A rule in neither language; None is open."""

    id: str
    allow: bool
    role: str | None = None
    site: str | None = None
    device: str | None = None
    operations: Sequence[str] | None = None
    services: Sequence[str] | None = None
    sop_classes: Sequence[str] | None = None
    move_destinations: Sequence[str] | None = None

    def toml(self) -> str:
        """Write the rule in our language."""
        lines = ["[[rule]]", f'id = "{self.id}"', f'effect = "{"allow" if self.allow else "deny"}"']
        fields = {
            "role": [self.role] if self.role else None,
            "site": [self.site] if self.site else None,
            "device": [self.device] if self.device else None,
            "operation": self.operations,
            "service": self.services,
            "sop_class": self.sop_classes,
            "move_destination": self.move_destinations,
        }
        lines += [f"{name} = {json.dumps(list(values))}" for name, values in fields.items() if values is not None]
        return "\n".join(lines) + "\n"

    def cedar(self) -> str:
        """Write the rule in Cedar: what a scope can say is said there, where Cedar is fastest."""
        principal = "principal"
        conditions = []
        if self.device:
            principal = f'principal == Device::"{self.device}"'
        elif self.site:
            principal = f'principal in Site::"{self.site}"'
        elif self.role:
            principal = f'principal in Role::"{self.role}"'
        if self.role and (self.device or self.site):
            conditions.append(f'principal in Role::"{self.role}"')
        action = "action"
        if self.operations:
            action = "action in [" + ", ".join(f'Action::"{name}"' for name in self.operations) + "]"
        for name, values in (
            ("service", self.services),
            ("sop_class", self.sop_classes),
            ("move_destination", self.move_destinations),
        ):
            if values is not None:
                conditions.append(f"{json.dumps(list(values))}.contains(context.{name})")
        when = f" when {{ {' && '.join(conditions)} }}" if conditions else ""
        return f'@id("{self.id}") {"permit" if self.allow else "forbid"} ({principal}, {action}, resource){when};\n'


def make_rules(count: int) -> list[BenchRule]:
    """Return `count` rules, ten a site."""
    found: list[BenchRule] = []
    for site in range(-(-count // 10)):
        found += _rules_of_site(site)
    return found[:count]


def _rules_of_site(site: int) -> Iterator[BenchRule]:
    here, name = f"site-{site}", f"s{site}"
    yield BenchRule(id=f"{name}-modality", allow=True, role="modality", site=here,
                    services=["verification", "storage", "worklist", "mpps", "storage-commitment"])  # fmt: skip
    yield BenchRule(id=f"{name}-workstation", allow=True, role="workstation", site=here,
                    services=["verification", "query", "get"])  # fmt: skip
    yield BenchRule(id=f"{name}-workstation-move", allow=True, role="workstation", site=here, operations=["c-move"],
                    move_destinations=[f"WS{site}A", f"WS{site}B"])  # fmt: skip
    yield BenchRule(id=f"{name}-uploader", allow=True, role="uploader", site=here, operations=["c-store", "c-echo"])
    yield BenchRule(id=f"{name}-tele", allow=True, role="teleradiology", site=here,
                    operations=["c-echo", "c-find", "c-get"], services=["verification", "query", "get"])  # fmt: skip
    yield BenchRule(id=f"{name}-research", allow=True, role="research", site=here, operations=["c-find"],
                    sop_classes=[STUDY_FIND])  # fmt: skip
    yield BenchRule(id=f"{name}-no-us", allow=False, role="uploader", site=here, sop_classes=[US])
    yield BenchRule(id=f"{name}-one-device", allow=False, device=device_name(site, 1), operations=["c-move", "c-get"])
    yield BenchRule(id=f"{name}-no-print", allow=False, site=here, services=["print"])
    yield BenchRule(id=f"{name}-group", allow=site % 2 == 0, role=ROLES[site % len(ROLES)],
                    operations=["c-store"], sop_classes=[f"1.2.840.10008.5.1.4.1.1.77.1.{site % 6 + 1}"])  # fmt: skip


def device_name(site: int, number: int) -> str:
    """Return the name of a device."""
    return f"device-{site}-{number}"


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchDevice:
    """A registered device of the group."""

    name: str
    role: str
    site: str


def make_devices(count: int, sites: int) -> list[BenchDevice]:
    """Return `count` devices, spread over the sites and the roles."""
    return [
        BenchDevice(
            name=device_name(n % sites, n // sites), role=ROLES[(n + n // sites) % len(ROLES)], site=f"site-{n % sites}"
        )
        for n in range(count)
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchRequest:
    """A request in neither language."""

    device: BenchDevice
    operation: str
    sop_class_uid: str
    move_destination: str | None


def make_requests(devices: Sequence[BenchDevice], count: int) -> list[BenchRequest]:
    """Return requests by random devices, the same ones each time."""
    chance = random.Random(len(devices))
    found = []
    for _ in range(count):
        device, (operation, sop_class_uid) = chance.choice(devices), chance.choice(WORK)
        site = device.site.removeprefix("site-")
        destination = chance.choice([f"WS{site}A", f"WS{site}B", "ELSEWHERE"]) if operation == "c-move" else None
        found.append(
            BenchRequest(device=device, operation=operation, sop_class_uid=sop_class_uid, move_destination=destination)
        )
    return found


def cedar_entities(devices: Sequence[BenchDevice]) -> str:
    """Return the devices as Cedar entities: each is in its role and in its site."""
    return json.dumps(
        [
            {
                "uid": {"type": "Device", "id": device.name},
                "attrs": {},
                "parents": [{"type": "Role", "id": device.role}, {"type": "Site", "id": device.site}],
            }
            for device in devices
        ]
    )


def cedar_request(request: BenchRequest) -> dict[str, object]:
    """Return the request as cedarpy takes it, in its structured form (no text to parse for Cedar)."""
    return {
        "principal": {"type": "Device", "id": request.device.name},
        "action": {"type": "Action", "id": request.operation},
        "resource": {"type": "Archive", "id": "main"},
        "context": {
            "service": SERVICE[request.sop_class_uid],
            "sop_class": request.sop_class_uid,
            "move_destination": request.move_destination or "",
        },
    }
