"""The catalogue of findings: what is wrong, how bad it is (CVSS 4.0), and what closes it.

Rules of this file: identifiers are never renamed or removed, because reports of different days are compared by them.
A finding stands for the FAIL of one control, but for those of the products' known weaknesses and of what was counted.
"""

from dataclasses import dataclass
from typing import Final

from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import Control, Counts, Finding, ServerObservation


@dataclass(frozen=True, slots=True, kw_only=True)
class CatalogueEntry:
    """One kind of finding; `control` is the one whose FAIL it stands for, None where there is none."""

    id: str
    title: str
    cvss: str
    remedy: str
    control: Control | None = None


def _entry(id_: str, control: Control | None, title: str, metrics: str, remedy: str) -> CatalogueEntry:
    return CatalogueEntry(
        id=id_, title=title, cvss=f"CVSS:4.0/AV:N/{metrics}/SC:N/SI:N/SA:N", remedy=remedy, control=control
    )


_READ: Final = "AC:L/AT:N/PR:N/UI:N/VC:H/VI:N/VA:N"
_WRITE: Final = "AC:L/AT:N/PR:N/UI:N/VC:N/VI:H/VA:L"
_WEAK: Final = "AC:L/AT:P/PR:N/UI:N/VC:L/VI:L/VA:N"
_WIRE: Final = "AC:L/AT:P/PR:N/UI:N/VC:H/VI:H/VA:N"
_GATEWAY: Final = "Put the gateway in front, and let the archive answer only the gateway"

CATALOGUE: Final[dict[str, CatalogueEntry]] = {
    each.id: each
    for each in (
        _entry(
            "DWA-RECORDS-EXPOSED",
            None,
            "Anyone who reaches the port reads patients' records",
            "AC:L/AT:N/PR:N/UI:N/VC:H/VI:N/VA:N",
            f"Take it off the network that can reach it today; then: {_GATEWAY}, with rules for queries.",
        ),
        _entry(
            "DWA-FIND-OPEN",
            Control.FIND,
            "Queries are answered for anyone",
            _READ,
            f"{_GATEWAY}; permit queries to named devices only.",
        ),
        _entry(
            "DWA-WORKLIST-OPEN",
            Control.WORKLIST,
            "The worklist is answered for anyone",
            _READ,
            f"{_GATEWAY}; permit the worklist to modalities only.",
        ),
        _entry(
            "DWA-GET-OPEN",
            Control.GET,
            "Images can be fetched by anyone (C-GET)",
            _READ,
            f"{_GATEWAY}; permit C-GET to named devices only.",
        ),
        _entry(
            "DWA-MOVE-OPEN",
            Control.MOVE,
            "Images can be sent elsewhere by anyone (C-MOVE)",
            _READ,
            f"{_GATEWAY}; permit C-MOVE to named devices and destinations only.",
        ),
        _entry(
            "DWA-STORE-OPEN",
            Control.STORE,
            "Images can be stored by anyone",
            _WRITE,
            f"{_GATEWAY}; permit storing to modalities only.",
        ),
        _entry(
            "DWA-TAMPERING",
            Control.STORAGE_CONTEXTS,
            "Records can be added or replaced by anyone",
            _WRITE,
            f"{_GATEWAY}; permit each device the storage classes that it makes.",
        ),
        _entry(
            "DWA-ECHO-OPEN",
            Control.ECHO,
            "The server answers C-ECHO of anyone",
            "AC:L/AT:N/PR:N/UI:N/VC:L/VI:N/VA:N",
            f"{_GATEWAY}; strangers then get no association.",
        ),
        _entry(
            "DWA-CALLING-TITLE",
            Control.CALLING_AE_TITLE,
            "Unknown calling AE titles are accepted",
            "AC:L/AT:N/PR:N/UI:N/VC:L/VI:L/VA:N",
            f"{_GATEWAY}: identity by certificate. Until then let the archive check calling titles and addresses.",
        ),
        _entry(
            "DWA-CALLED-TITLE",
            Control.CALLED_AE_TITLE,
            "Any called AE title is accepted",
            "AC:L/AT:N/PR:N/UI:N/VC:L/VI:N/VA:N",
            "Let the archive check the called AE title.",
        ),
        _entry(
            "DWA-FACTORY-TITLE",
            Control.FACTORY_AE_TITLE,
            "A factory AE title is accepted",
            "AC:L/AT:N/PR:N/UI:N/VC:L/VI:L/VA:N",
            "Change AE titles of the factory; do not rely on titles: identity by certificate.",
        ),
        _entry(
            "DWA-USER-IDENTITY",
            Control.USER_IDENTITY,
            "No user identity is asked for",
            "AC:L/AT:P/PR:N/UI:N/VC:L/VI:L/VA:N",
            "Require device certificates at the gateway; where persons matter, user identity too.",
        ),
        _entry(
            "DWA-TLS-MISSING",
            Control.TLS_OFFERED,
            "DICOM is offered without TLS only",
            _WIRE,
            "Let devices talk mutual TLS to the gateway, and keep plaintext on the archive's own network.",
        ),
        _entry(
            "DWA-TLS-OPTIONAL",
            Control.TLS_REQUIRED,
            "DICOM in plaintext is accepted",
            _WIRE,
            "Close the plaintext port to all but the gateway.",
        ),
        _entry(
            "DWA-TLS-VERSION",
            Control.TLS_VERSION,
            "Obsolete TLS versions are accepted",
            _WEAK,
            "Permit TLS 1.2 and 1.3 only (RFC 9325).",
        ),
        _entry(
            "DWA-CERT-EXPIRED",
            Control.CERTIFICATE_EXPIRY,
            "The certificate is not valid today",
            _WEAK,
            "Renew it, and let it be renewed before it ends.",
        ),
        _entry(
            "DWA-CERT-NAME",
            Control.CERTIFICATE_NAME,
            "The certificate names somebody else",
            _WEAK,
            "Issue a certificate with the name and address that devices call.",
        ),
        _entry(
            "DWA-CERT-KEY",
            Control.CERTIFICATE_KEY,
            "The certificate's key or signature is weak",
            _WEAK,
            "Issue a certificate with RSA of 2048 bits or more, or ECDSA P-256, signed with SHA-256.",
        ),
        _entry(
            "DWA-CERT-CHAIN",
            Control.CERTIFICATE_CHAIN,
            "The certificate has no chain that can be trusted",
            _WEAK,
            "Issue it from the hospital's CA, and let devices trust that CA only.",
        ),
        _entry(
            "DWA-CLIENT-CERT",
            Control.CLIENT_CERTIFICATE,
            "TLS does not ask for a client certificate",
            "AC:L/AT:N/PR:N/UI:N/VC:L/VI:L/VA:N",
            "Require client certificates (mutual TLS).",
        ),
        _entry(
            "DWA-RATE-LIMIT",
            Control.RATE_LIMIT,
            "Nothing limits how fast a stranger may go on",
            "AC:L/AT:N/PR:N/UI:N/VC:N/VI:N/VA:L",
            "Limits of the gateway: associations and queries a minute, budgets of records a day.",
        ),
        _entry(
            "DWA-DICOMWEB-OPEN",
            Control.DICOMWEB_TOKEN,
            "DICOMweb answers without a token",
            _READ,
            "Require a token, or take DICOMweb off the network.",
        ),
        _entry(
            "DWA-WEB-ADMIN-OPEN",
            Control.WEB_ADMINISTRATION,
            "Web administration answers without a login",
            "AC:L/AT:N/PR:N/UI:N/VC:H/VI:H/VA:H",
            "Require a login, and let only administrators' addresses reach the port.",
        ),
        _entry(
            "DWA-KNOWN-VULNERABILITY",
            None,
            "The product's version has known vulnerabilities",
            "AC:L/AT:P/PR:N/UI:N/VC:L/VI:L/VA:L",
            "Update the product. Until then the gateway decodes and encodes everything anew, which stops many of them.",
        ),
    )
}
_OF_CONTROL: Final = {each.control: each for each in CATALOGUE.values() if each.control is not None}
_LEAKS: Final = ("records", "studies", "patients")


def findings_of(observation: ServerObservation) -> tuple[Finding, ...]:
    """Return the findings that the verdicts, counts and vulnerabilities of a server give, in the catalogue's order."""
    found = {_OF_CONTROL[each.control].id: each.why for each in observation.controls if each.verdict is Verdict.FAIL}
    if observation.counts is not None and (text := _leak_in_words(observation.counts)):
        found["DWA-RECORDS-EXPOSED"] = text
    if observation.vulnerabilities:
        found["DWA-KNOWN-VULNERABILITY"] = ", ".join(each.in_words for each in observation.vulnerabilities)
    return tuple(Finding(id=each, evidence=found[each]) for each in CATALOGUE if each in found)


def _leak_in_words(counts: Counts) -> str:
    parts = []
    for name in _LEAKS:
        count = getattr(counts, name)
        if count is not None and count.value:
            parts.append(f"{'at least ' if count.is_lower_bound else ''}{count.value:,} {name}")
    return ", ".join(parts)
