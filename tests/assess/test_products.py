"""Products are recognised with a confidence; weaknesses are matched by version, and not without one."""

from dataclasses import replace

import pytest

from dicomward.assess.observation import Confidence, ProductGuess
from dicomward.assess.plan import COMMITMENT
from dicomward.assess.products import KnownError, Recognised, better, parse_known, recognise, weaknesses_of
from dicomward.assess.seen import AssociationSeen, WebSeen
from dicomward.io.assess.run import load_known
from tests.assess.builders import ACCEPTED, rejected

KNOWN = load_known()


def peer(uid: str, name: str, *, commitment: bool = False) -> AssociationSeen:
    accepted = ACCEPTED.accepted if commitment else ACCEPTED.accepted - {COMMITMENT}
    return replace(ACCEPTED, implementation_class_uid=uid, implementation_version_name=name, accepted=accepted)


DCMTK_UID = "1.2.276.0.7230010.3.0.3.6.7"


@pytest.mark.parametrize(
    ("uid", "name", "product", "version", "confidence"),
    [
        (DCMTK_UID, "OFFIS_DCMTK_367", "DCMTK", "3.6.7", Confidence.MEDIUM),
        ("1.2.276.0.7230010.3.1.1", "OFFIS_DCMTK_355", "DCMTK", "3.5.5", Confidence.LOW),
        ("1.2.40.0.13.1.3", "dcm4che-5.29.1", "dcm4che", "5.29.1", Confidence.HIGH),
        ("1.2.40.0.13.1.3", "mine", "dcm4che", "", Confidence.MEDIUM),
        ("1.2.826.0.1.3680043.9.3811.3.0.4", "PYNETDICOM_304", "pynetdicom", "3.0.4", Confidence.HIGH),
        ("1.2.826.0.1.3680043.2.1143.107.104.103.115.3.0.21", "GDCM 3.0.21", "GDCM", "3.0.21", Confidence.HIGH),
        ("1.3.6.1.4.1.30071.8", "fo-dicom 5.1.2", "fo-dicom", "5.1.2", Confidence.HIGH),
        ("1.2.840.113619.6.5", "x", "", "", Confidence.LOW),
        ("2.25.1", "DICOMWARD_0_1", "Dicomward gateway", "", Confidence.MEDIUM),
        ("1.2.40.0.13.1.34", "other", "", "", Confidence.NONE),
    ],
)
def test_products(uid: str, name: str, product: str, version: str, confidence: Confidence) -> None:
    guess = recognise(KNOWN, peer(uid, name)).guess
    assert (guess.product, guess.version, guess.confidence) == (product, version, confidence)
    assert guess.implementation_class_uid == uid


def test_orthanc_behaves_like_dcmtk_and_more() -> None:
    found = recognise(KNOWN, peer(DCMTK_UID, "OFFIS_DCMTK_367", commitment=True))
    assert (found.guess.product, found.guess.version, found.decides_later) == ("Orthanc", "", True)
    weaknesses = {each.id: each.confidence for each in weaknesses_of(KNOWN, found)}
    # Its own version is not known; that of its library is.
    assert weaknesses["CVE-2022-43272"] is Confidence.LOW
    assert "CVE-2023-33466" not in weaknesses


@pytest.mark.parametrize("commitment", [True, False])
def test_web_port_says_which_orthanc_it_is(commitment: bool) -> None:
    web = WebSeen(product="Orthanc", version="1.10.1")
    found = recognise(KNOWN, peer(DCMTK_UID, "OFFIS_DCMTK_367", commitment=commitment), web)
    assert (found.guess.version, found.guess.confidence, found.decides_later) == ("1.10.1", Confidence.HIGH, True)
    assert "CVE-2023-33466" in {each.id for each in weaknesses_of(KNOWN, found)}


def test_web_port_alone() -> None:
    assert recognise(KNOWN, None).guess == ProductGuess()
    assert recognise(KNOWN, rejected(1, 7), WebSeen()).guess == ProductGuess()
    guess = recognise(KNOWN, None, WebSeen(product="Orthanc")).guess
    assert (guess.product, guess.confidence) == ("Orthanc", Confidence.MEDIUM)


def test_another_products_web_port_is_not_mixed_in() -> None:
    found = recognise(KNOWN, peer("1.2.40.0.13.1.3", "dcm4che-5.29.1"), WebSeen(product="Orthanc", version="1.10.1"))
    assert found.guess.product == "dcm4che"


@pytest.mark.parametrize(
    ("product", "version", "id_", "affected"),
    [
        ("DCMTK", "3.6.6", "CVE-2022-2119", True),
        ("DCMTK", "3.6.7", "CVE-2022-2119", False),
        ("DCMTK", "3.6.7", "CVE-2022-43272", True),
        ("DCMTK", "3.6.8", "CVE-2022-43272", False),
        ("DCMTK", "", "CVE-2022-43272", False),
        ("DCMTK", "3.6.9", "CVE-2024-47796", True),
        ("DCMTK", "3.7.0", "CVE-2024-47796", False),
        ("DCMTK", "3.6.9", "CVE-2024-34508", False),
        ("DCMTK", "3.7.0", "CVE-2025-14841", False),
        ("DCMTK", "3.7.0", "CVE-2026-50003", True),
        ("DCMTK", "3.7.1", "CVE-2026-50003", False),
        ("pynetdicom", "3.0.4", "CVE-2026-56445", True),
        ("Orthanc", "1.12.10", "CVE-2026-5437", True),
        ("Orthanc", "1.12.11", "CVE-2026-5437", False),
        ("Orthanc", "1.9.7", "CVE-2023-33466", True),
        ("GDCM", "3.0.0", "CVE-2022-2119", False),
    ],
)
def test_weaknesses_by_version(product: str, version: str, id_: str, affected: bool) -> None:
    recognised = Recognised(guess=ProductGuess(product=product, version=version, confidence=Confidence.HIGH))
    assert (id_ in {each.id for each in weaknesses_of(KNOWN, recognised)}) is affected


def test_bound_that_was_not_compared_with_its_source_is_never_certain() -> None:
    text = '[[vulnerability]]\nid = "X-1"\nproduct = "DCMTK"\ntitle = "t"\nuntil = "9"\n'
    known = parse_known(f"factory_titles = []\nfactory_calling_titles = []\nproduct = []\n{text}")
    guess = ProductGuess(product="DCMTK", version="3.6.7", confidence=Confidence.HIGH)
    (found,) = weaknesses_of(known, Recognised(guess=guess))
    assert (found.confidence, found.is_verified, found.in_words) == (
        Confidence.LOW,
        False,
        "X-1 (versions not verified)",
    )
    assert replace(found, is_verified=True).in_words == "X-1"


def test_what_is_said_to_be_verified_names_its_source() -> None:
    assert all(each.source for each in KNOWN.weaknesses if each.verified)


def test_catalogue_is_whole() -> None:
    products = {each.product for each in KNOWN.products}
    assert all(each.product in products and (each.before or each.until) for each in KNOWN.weaknesses)
    assert len({each.id for each in KNOWN.weaknesses}) == len(KNOWN.weaknesses)
    assert all(len(each) <= 16 for each in (*KNOWN.factory_titles, *KNOWN.factory_calling_titles))


@pytest.mark.parametrize("text", ["=", "product = []", '[[product]]\nvendor = "x"\nversion = "("\n', "product = 5"])
def test_broken_catalogue_is_refused(text: str) -> None:
    with pytest.raises(KnownError):
        parse_known(text)


def test_better_guess() -> None:
    low, high = ProductGuess(product="a", confidence=Confidence.LOW), ProductGuess(confidence=Confidence.HIGH)
    assert better(low, high) is high
    assert better(low, ProductGuess(product="b", confidence=Confidence.LOW)) is low
