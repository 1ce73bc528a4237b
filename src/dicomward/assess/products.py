"""Which product it is, by what it says of itself and how it behaves; and which known weaknesses its version has.

Rules of this file: the catalogue is data (known.toml, read by whoever calls). A guess has a confidence, and its
evidence beside it. Nothing is tried out: a version that is not known matches no weakness.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from dicomward.assess.observation import Confidence, ProductGuess, Vulnerability
from dicomward.assess.seen import AssociationSeen, WebSeen

_RANK: Final = {Confidence.NONE: 0, Confidence.LOW: 1, Confidence.MEDIUM: 2, Confidence.HIGH: 3}


class KnownError(ValueError):
    """The catalogue of products can't be used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProductRule:
    """How one product is recognised. `library`: the version that it tells is that of its DICOM library."""

    vendor: str
    product: str = ""
    uid: str = ""
    name: str = ""
    version: str = ""
    accepts: frozenset[str] = frozenset()
    library: str = ""
    confidence: Confidence = Confidence.LOW
    decides_later: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Weakness:
    """A known weakness: fixed in `before`, or present up to `until`; `verified` if its source says so."""

    id: str
    product: str
    title: str
    source: str = ""
    before: str = ""
    until: str = ""
    verified: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """The catalogue."""

    products: tuple[ProductRule, ...]
    weaknesses: tuple[Weakness, ...]
    factory_titles: tuple[str, ...] = ()
    factory_calling_titles: tuple[str, ...] = ()


def parse_known(text: str) -> Known:
    """Read the catalogue. Raises KnownError."""
    try:
        table = tomllib.loads(text)
        return Known(
            products=tuple(_rule(each) for each in table["product"]),
            weaknesses=tuple(Weakness(**each) for each in table["vulnerability"]),
            factory_titles=tuple(table["factory_titles"]),
            factory_calling_titles=tuple(table["factory_calling_titles"]),
        )
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, re.error) as error:
        raise KnownError(f"the catalogue of products can't be read: {error}") from error


def _rule(entry: Mapping[str, Any]) -> ProductRule:
    values = dict(entry)
    re.compile(values.get("version", ""))
    confidence = Confidence(values.pop("confidence", "low"))
    return ProductRule(confidence=confidence, accepts=frozenset(values.pop("accepts", ())), **values)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recognised:
    """A guess, and what follows from it for the judgement."""

    guess: ProductGuess
    decides_later: bool = False
    library: str = ""
    library_version: str = ""


def recognise(known: Known, association: AssociationSeen | None, web: WebSeen | None = None) -> Recognised:
    """Return the best guess; what the same host says on its web port counts where both fit together."""
    if association is None or not association.is_accepted:
        return Recognised(guess=_by_web(web))
    uid, name = association.implementation_class_uid, association.implementation_version_name
    rule = next((each for each in known.products if _fits(each, association)), None)
    if rule is None:
        guess = ProductGuess(implementation_class_uid=uid, implementation_version_name=name)
        return Recognised(guess=guess)
    match = re.match(rule.version, name) if rule.version else None
    version = ".".join(part for part in match.groups() if part) if match else ""
    evidence = [f"implementation class UID {uid}"] if rule.uid else []
    evidence += [f"version name {name}"] if name else []
    evidence += ["accepts storage commitment"] if rule.accepts else []
    confidence = rule.confidence if version or not rule.version else _less(rule.confidence)
    guess = ProductGuess(
        vendor=rule.vendor,
        product=rule.product,
        version="" if rule.library else version,
        confidence=confidence,
        evidence=tuple(evidence),
        implementation_class_uid=uid,
        implementation_version_name=name,
    )
    if web is not None and web.product and rule.product in (web.product, "DCMTK"):
        guess = ProductGuess(
            vendor=web.product,
            product=web.product,
            version=web.version,
            confidence=Confidence.HIGH,
            evidence=(*evidence, "its web port says so"),
            implementation_class_uid=uid,
            implementation_version_name=name,
        )
    later = rule.decides_later or any(each.decides_later for each in known.products if each.product == guess.product)
    library = rule.library or (rule.product if guess.product != rule.product else "")
    return Recognised(guess=guess, decides_later=later, library=library, library_version=version if library else "")


def _fits(rule: ProductRule, association: AssociationSeen) -> bool:
    uid = association.implementation_class_uid
    is_uid = uid.startswith(rule.uid) if rule.uid.endswith(".") else uid == rule.uid or uid.startswith(f"{rule.uid}.")
    if rule.uid and not is_uid:
        return False
    if rule.name and not re.match(rule.name, association.implementation_version_name):
        return False
    return bool(rule.uid or rule.name) and rule.accepts <= association.accepted


def _less(confidence: Confidence) -> Confidence:
    return {Confidence.HIGH: Confidence.MEDIUM}.get(confidence, Confidence.LOW)


def _by_web(web: WebSeen | None) -> ProductGuess:
    if web is None or not web.product:
        return ProductGuess()
    return ProductGuess(
        vendor=web.product,
        product=web.product,
        version=web.version,
        confidence=Confidence.HIGH if web.version else Confidence.MEDIUM,
        evidence=("what its web port says of itself",),
    )


def weaknesses_of(known: Known, recognised: Recognised) -> tuple[Vulnerability, ...]:
    """Return the known weaknesses of the product's version, and of its DICOM library's (with low confidence).

    One whose range of versions is not verified has low confidence too, whatever the product's is.
    """
    guess = recognised.guess
    found = []
    for each in known.weaknesses:
        if each.product == guess.product and _is_affected(each, guess.version):
            confidence = guess.confidence if each.verified else Confidence.LOW
        elif (
            recognised.library and each.product == recognised.library and _is_affected(each, recognised.library_version)
        ):
            confidence = Confidence.LOW
        else:
            continue
        found.append(
            Vulnerability(
                id=each.id, title=each.title, source=each.source, confidence=confidence, is_verified=each.verified
            )
        )
    return tuple(found)


def better(one: ProductGuess, other: ProductGuess) -> ProductGuess:
    """Return the guess with more confidence, the first where both have the same."""
    return other if _RANK[other.confidence] > _RANK[one.confidence] else one


def _is_affected(weakness: Weakness, version: str) -> bool:
    mine = _numbers(version)
    if not mine:
        return False
    if weakness.before:
        return mine < _numbers(weakness.before)
    # A version that is more exact than the bound is compared by the bound's parts: 1.12.10 covers 1.12.10-2.
    bound = _numbers(weakness.until)
    return mine[: len(bound)] <= bound


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", version))
