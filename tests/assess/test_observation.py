"""Observations are values that survive JSON unchanged."""

import json

import pytest

from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import (
    Confidence,
    Control,
    ControlResult,
    Count,
    Counts,
    Finding,
    ObservationError,
    ProductGuess,
    Protocol,
    Reach,
    ServerObservation,
    TlsSeen,
    Vulnerability,
    counts_from_json,
    counts_to_json,
    observation_from_json,
    observation_to_json,
)

FULL = ServerObservation(
    address="10.0.0.1",
    port=2762,
    protocol=Protocol.DIMSE_TLS,
    reach=Reach.ANSWERED,
    product=ProductGuess(product="Orthanc", confidence=Confidence.MEDIUM, evidence=("a", "b")),
    vulnerabilities=(Vulnerability(id="CVE-2023-33466", title="file overwrite", confidence=Confidence.HIGH),),
    tls=TlsSeen(version="TLSv1.3", names=("pacs.example",), obsolete_versions=("TLSv1",)),
    controls=(ControlResult(control=Control.FIND, verdict=Verdict.FAIL, why="answered"),),
    counts=Counts(
        records=Count(value=5, is_lower_bound=True),
        personal=Count(value=2),
        attributes=(("PatientName", 5),),
        countries=(("DE", 2),),
    ),
    findings=(Finding(id="DWA-FIND-OPEN", evidence="answered"),),
)


@pytest.mark.parametrize("observation", [FULL, ServerObservation(address="::1", port=104)])
def test_json_gives_the_same_observation(observation: ServerObservation) -> None:
    assert observation_from_json(json.loads(json.dumps(observation_to_json(observation)))) == observation


def test_counts_alone_survive_json() -> None:
    assert FULL.counts is not None
    assert counts_from_json(json.loads(json.dumps(counts_to_json(FULL.counts)))) == FULL.counts


def test_members_of_a_later_version_are_skipped() -> None:
    assert observation_from_json({**observation_to_json(FULL), "colour": "red"}) == FULL


@pytest.mark.parametrize(
    "value", [None, [], {}, {"version": 2}, {"version": 1}, {"version": 1, "address": "a", "port": 1, "reach": "odd"}]
)
def test_what_is_no_observation_is_refused(value: object) -> None:
    with pytest.raises(ObservationError):
        observation_from_json(value)


def test_a_control_that_is_not_there_has_not_run() -> None:
    assert FULL.verdict_of(Control.FIND) is Verdict.FAIL
    assert FULL.verdict_of(Control.MOVE) is Verdict.NOT_RUN
