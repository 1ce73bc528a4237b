"""Who is calling: the value that identity makes and that policy, limits and audit read."""

from dataclasses import dataclass
from datetime import datetime
from enum import IntEnum, StrEnum


class Role(StrEnum):
    """The roles that ready policies exist for; a registry may name others."""

    MODALITY = "modality"
    UPLOADER = "uploader"
    WORKSTATION = "workstation"
    ARCHIVE = "archive"
    TELERADIOLOGY = "teleradiology"
    RESEARCH = "research"


class Assurance(IntEnum):
    """How well the caller is known, weakest first; rules can ask for a least level."""

    NETWORK_PIN = 1
    TLS_DEVICE = 2
    DEVICE_AND_PERSON = 3

    @property
    def label(self) -> str:
        """Name as rules write it: `tls-device`."""
        return self.name.lower().replace("_", "-")


@dataclass(frozen=True, slots=True, kw_only=True)
class Principal:
    """An authenticated and bound caller of one association.

    `device` is the registered name (of a device, or of an archive); `address` the peer's IP address as text.
    `floor_only` holds the reason code for which only the clinical floor is left to it, or None. `person` is a verified
    person at the device ("" for nobody) with their groups, until `person_until`.
    """

    device: str
    calling_ae_title: str
    role: str
    site: str
    assurance: Assurance
    address: str
    certificate_sha256: str = ""
    floor_only: str | None = None
    person: str = ""
    groups: frozenset[str] = frozenset()
    person_until: datetime | None = None
