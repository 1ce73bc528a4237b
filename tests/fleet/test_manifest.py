"""A fleet adds up to its manifest exactly, whatever the seed."""

from dataclasses import replace
from ipaddress import ip_address
from pathlib import Path

import pytest
from fleet.controls import KNOWN_AE_TITLE
from fleet.manifest import (
    Manifest,
    ManifestError,
    generate,
    read_fleet,
    read_manifest,
    split_exactly,
    truth_of,
    write_fleet,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from dicomward.assess.scope import parse_scope
from tests.docs.pages import ROOT

SMALL = read_manifest(ROOT / "fleet" / "small.toml")
FULL = read_manifest(ROOT / "fleet" / "research-2023.toml")


def test_manifest_of_the_research_has_its_public_figures() -> None:
    assert (FULL.servers, FULL.countries, FULL.leaking) == (3806, 111, 1129)
    assert (FULL.personal_records, FULL.medical_records, FULL.tampering_records) == (16_000_000, 43_000_000, 39_300_000)
    assert FULL.authorised / FULL.servers < 0.01


def check_controls(manifest: Manifest, controls: dict[str, dict[str, int]]) -> None:
    in_tls = manifest.client_certificate + manifest.tls_only + manifest.tls_beside
    assert controls["tls-required"] == {"FAIL": manifest.servers - in_tls, "PASS": in_tls}
    assert controls["tls-offered"]["PASS"] == in_tls + manifest.tls_beside
    assert controls["client-certificate"]["PASS"] == manifest.client_certificate
    assert controls["calling-ae-title"]["PASS"] == manifest.authorised - manifest.client_certificate
    assert controls["called-ae-title"]["PASS"] == manifest.called_known + manifest.called_unknown
    assert all(sum(verdicts.values()) == manifest.servers for verdicts in controls.values())


def check(manifest: Manifest, seed: int) -> None:
    servers = generate(manifest, seed)
    truth = truth_of(servers)
    assert (truth.servers, truth.countries) == (manifest.servers, manifest.countries)
    assert (truth.leaking, truth.authorised) == (manifest.leaking, manifest.authorised)
    assert (truth.personal, truth.medical) == (manifest.personal_records, manifest.medical_records)
    assert truth.records == manifest.personal_records + manifest.medical_records
    assert truth.tampering == manifest.tampering_records
    assert manifest.country_records.items() <= truth.by_country.items()
    assert len({(each.address, each.port) for each in servers}) == len(servers)
    assert len({each.address for each in servers}) == len(servers) - manifest.tls_beside
    check_controls(manifest, truth.controls)
    assert all(each.address.startswith("127.") for each in servers)
    assert generate(manifest, seed) == servers


@settings(max_examples=20)
@given(st.integers(0, 10_000))
def test_small_fleet_is_exact(seed: int) -> None:
    check(SMALL, seed)


def test_full_fleet_is_exact() -> None:
    check(FULL, 2023)


@given(st.integers(0, 10_000), st.lists(st.floats(0.1, 100), min_size=1, max_size=30), st.integers(0, 5))
def test_split_is_exact(total: int, weights: list[float], least: int) -> None:
    if total < least * len(weights):
        with pytest.raises(ManifestError):
            split_exactly(total, weights, least)
        return
    parts = split_exactly(total, weights, least)
    assert sum(parts) == total
    assert min(parts) >= least


def test_what_cannot_be_met_is_refused(tmp_path: Path) -> None:
    assert split_exactly(0, []) == []
    for changed in (
        replace(SMALL, countries=300),
        replace(SMALL, leaking=4),
        replace(SMALL, personal_records=4_000, medical_records=1_900),
        replace(SMALL, client_certificate=3),
        replace(SMALL, tls_beside=40),
    ):
        with pytest.raises(ManifestError):
            generate(changed, 1)
    path = tmp_path / "x.toml"
    path.write_text("servers = 1\nships = 2\n")
    with pytest.raises(ManifestError, match="ships"):
        read_manifest(path)


def test_fleet_comes_back_as_written_and_the_assessment_is_told_a_network_and_countries_only(tmp_path: Path) -> None:
    servers = generate(SMALL, 3)
    write_fleet(tmp_path, servers)
    assert read_fleet(tmp_path) == servers
    scope = parse_scope((tmp_path / "scope.toml").read_bytes())
    assert all(scope.network_of(ip_address(each.address)) for each in servers)
    assert scope.count() < 20 * len(servers)
    assert not any(each.called_ae_titles or each.country for each in scope.networks)
    assert scope.called_ae_titles == (KNOWN_AE_TITLE,)
    assert {line.count(",") for line in (tmp_path / "sites.csv").read_text().splitlines()[1:]} == {1}
