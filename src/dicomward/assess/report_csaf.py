"""Advisories for vendors: one CSAF 2.0 document for each product.

Rules of this file: no patient's data (there is none), no counts of people, no addresses unless they are asked for, and
only what a vendor can mend: a certificate that an operator let expire is not in it.
"""

import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

from dicomward import __version__
from dicomward.assess.findings import CATALOGUE
from dicomward.assess.observation import Confidence, ServerObservation
from dicomward.assess.report_model import is_server
from dicomward.assess.report_severity import severity_of

_MISSING: Final = ("CWE-306", "Missing Authentication for Critical Function")
_SPOOFING: Final = ("CWE-290", "Authentication Bypass by Spoofing")
_CLEARTEXT: Final = ("CWE-319", "Cleartext Transmission of Sensitive Information")
# What the vendor can mend, and what kind of weakness it is.
_WEAKNESSES: Final = {
    "DWA-RECORDS-EXPOSED": _MISSING,
    "DWA-FIND-OPEN": _MISSING,
    "DWA-WORKLIST-OPEN": _MISSING,
    "DWA-GET-OPEN": _MISSING,
    "DWA-MOVE-OPEN": _MISSING,
    "DWA-STORE-OPEN": _MISSING,
    "DWA-TAMPERING": _MISSING,
    "DWA-ECHO-OPEN": _MISSING,
    "DWA-CALLING-TITLE": _SPOOFING,
    "DWA-CALLED-TITLE": _SPOOFING,
    "DWA-FACTORY-TITLE": ("CWE-1392", "Use of Default Credentials"),
    "DWA-USER-IDENTITY": _MISSING,
    "DWA-TLS-MISSING": _CLEARTEXT,
    "DWA-TLS-OPTIONAL": _CLEARTEXT,
    "DWA-TLS-VERSION": ("CWE-327", "Use of a Broken or Risky Cryptographic Algorithm"),
    "DWA-CLIENT-CERT": _MISSING,
    "DWA-RATE-LIMIT": ("CWE-770", "Allocation of Resources Without Limits or Throttling"),
    "DWA-DICOMWEB-OPEN": _MISSING,
    "DWA-WEB-ADMIN-OPEN": _MISSING,
}
_CVE: Final = re.compile(r"CVE-[0-9]{4}-[0-9]{4,}\Z", re.ASCII)
_NOT_IN_FILE_NAMES: Final = re.compile(r"[^+\-a-z0-9]+")
_NO_VERSION: Final = "not known"


@dataclass(frozen=True, slots=True, kw_only=True)
class Publisher:
    """Who publishes; `namespace` is a URI of theirs."""

    name: str
    namespace: str
    contact: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Advisory:
    """A document, and the name that its file must have (CSAF 2.0 §5.1)."""

    file_name: str
    document: dict[str, Any]


def build_advisories(
    observations: Iterable[ServerObservation], publisher: Publisher, made_at: datetime, *, addresses: bool = False
) -> tuple[Advisory, ...]:
    """Return an advisory for each product that was recognised and has a finding which its vendor can mend.

    `made_at` is aware. A guess of low confidence accuses nobody.
    """
    groups: dict[tuple[str, str], list[ServerObservation]] = defaultdict(list)
    for each in observations:
        guess = each.product
        if is_server(each) and guess.product and guess.confidence in (Confidence.HIGH, Confidence.MEDIUM):
            groups[guess.vendor or guess.product, guess.product].append(each)
    made = []
    taken: set[str] = set()
    for (vendor, product), servers in sorted(groups.items()):
        vulnerabilities = _vulnerabilities(servers)
        if vulnerabilities:
            id_ = _id(vendor, product, made_at, taken)
            taken.add(id_)
            document = _document(id_, vendor, product, servers, publisher, made_at, addresses=addresses)
            document["vulnerabilities"] = vulnerabilities
            made.append(Advisory(file_name=f"{_slug(id_)}.json", document=document))
    return tuple(made)


def _slug(text: str) -> str:
    return _NOT_IN_FILE_NAMES.sub("_", text.lower())


def _id(vendor: str, product: str, made_at: datetime, taken: set[str]) -> str:
    """Return an id whose file name differs from every other."""
    words = product if product.lower().startswith(vendor.lower()) else f"{vendor}-{product}"
    name = _slug(words).replace("_", "-").strip("-") or "product"
    base = f"DWA-{made_at:%Y%m%d}-{name}"
    id_, number = base, 2
    while id_ in taken:
        id_, number = f"{base}-{number}", number + 1
    return id_


def _document(
    id_: str,
    vendor: str,
    product: str,
    servers: Sequence[ServerObservation],
    publisher: Publisher,
    made_at: datetime,
    *,
    addresses: bool,
) -> dict[str, Any]:
    date = made_at.isoformat(timespec="seconds")
    where = f" at {', '.join(sorted({f'{each.address} port {each.port}' for each in servers}))}" if addresses else ""
    number = len(servers)
    notes = [
        {
            "category": "summary",
            "title": "What was seen",
            "text": f"{number} {'installation' if number == 1 else 'installations'} of {product} answered{where} "
            "in an authorised assessment, in the configurations that the vulnerabilities below describe.",
        },
        {
            "category": "general",
            "title": "How it was seen",
            "text": "Products and versions were recognised from what the servers say of themselves. Operations were "
            "judged from presentation contexts and refusals; nothing was stored, changed or retrieved, and no known "
            "vulnerability was tried.",
        },
    ]
    about_publisher = {"category": "discoverer", "name": publisher.name, "namespace": publisher.namespace}
    if publisher.contact:
        about_publisher["contact_details"] = publisher.contact
    return {
        "document": {
            "category": "csaf_security_advisory",
            "csaf_version": "2.0",
            "title": f"{product}: DICOM services without effective access control",
            "lang": "en",
            "distribution": {"tlp": {"label": "AMBER"}},
            "publisher": about_publisher,
            "notes": notes,
            "references": [
                {
                    "category": "external",
                    "summary": "Secure use of TLS, which DICOM PS3.15 Annex B refers to",
                    "url": "https://www.rfc-editor.org/rfc/rfc9325",
                }
            ],
            "tracking": {
                "id": id_,
                "status": "draft",
                "version": "1",
                "initial_release_date": date,
                "current_release_date": date,
                "revision_history": [{"date": date, "number": "1", "summary": "Draft for the vendor."}],
                "generator": {"date": date, "engine": {"name": "Dicomward", "version": __version__}},
            },
        },
        "product_tree": {
            "branches": [
                {
                    "category": "vendor",
                    "name": vendor,
                    "branches": [
                        {
                            "category": "product_name",
                            "name": product,
                            "branches": [
                                {
                                    "category": "product_version",
                                    "name": version,
                                    "product": {
                                        "product_id": product_id,
                                        "name": f"{product} {version}"
                                        if version != _NO_VERSION
                                        else f"{product} (version {_NO_VERSION})",
                                    },
                                }
                                for version, product_id in _product_ids(servers).items()
                            ],
                        }
                    ],
                }
            ]
        },
    }


def _version(server: ServerObservation) -> str:
    return server.product.version or _NO_VERSION


def _product_ids(servers: Sequence[ServerObservation]) -> dict[str, str]:
    return {version: f"P{n}" for n, version in enumerate(sorted({_version(each) for each in servers}), 1)}


def _vulnerabilities(servers: Sequence[ServerObservation]) -> list[dict[str, Any]]:
    ids = _product_ids(servers)
    found: dict[str, set[str]] = defaultdict(set)
    known: dict[str, tuple[str, set[str]]] = {}
    for each in servers:
        for finding in each.findings:
            if finding.id in _WEAKNESSES:
                found[finding.id].add(ids[_version(each)])
        # What is not certain accuses nobody.
        for vulnerability in (one for one in each.vulnerabilities if one.is_verified):
            known.setdefault(vulnerability.id, (vulnerability.title, set()))[1].add(ids[_version(each)])
    return [
        *(_weakness(each, sorted(found[each])) for each in CATALOGUE if each in found),
        *(_known(id_, title, sorted(products)) for id_, (title, products) in sorted(known.items())),
    ]


def _weakness(id_: str, products: list[str]) -> dict[str, Any]:
    entry, severity = CATALOGUE[id_], severity_of(CATALOGUE[id_].cvss)
    cwe, name = _WEAKNESSES[id_]
    return {
        "title": entry.title,
        "ids": [{"system_name": "Dicomward findings", "text": id_}],
        "cwe": {"id": cwe, "name": name},
        "notes": [
            {"category": "description", "text": f"{entry.title}, in the configuration that was seen."},
            {
                "category": "other",
                "title": "CVSS 4.0",
                "text": f"{severity.score} ({severity.rating}), {severity.vector}",
            },
        ],
        "product_status": {"known_affected": products},
        "remediations": [
            {
                "category": "mitigation",
                "details": f"For operators, until a version authenticates by default: {entry.remedy}",
                "product_ids": products,
            }
        ],
    }


def _known(id_: str, title: str, products: list[str]) -> dict[str, Any]:
    vulnerability: dict[str, Any] = {
        "title": title or id_,
        "notes": [
            {
                "category": "description",
                "text": f"{title or id_}. Matched by product and version, and not tried.",
            }
        ],
        "product_status": {"under_investigation": products},
    }
    if _CVE.match(id_):
        vulnerability["cve"] = id_
    else:
        vulnerability["ids"] = [{"system_name": "as published", "text": id_}]
    return vulnerability
