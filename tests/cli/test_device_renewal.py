"""`device renewal`, `device compromised`, `device list --expiring`."""

from pathlib import Path

import pytest

from dicomward.cli.common import now
from dicomward.enrolment.grant import Issued
from dicomward.enrolment.refusal import EnrolmentRefusedError
from dicomward.io.ca.service import open_issuer
from dicomward.settings import Settings
from tests.cli.conftest import Run
from tests.io.ca_helpers import grant, spki


@pytest.fixture
def held(run: Run, settings: Settings, tmp_path: Path) -> tuple[Issued, Issued]:
    """A device whose first certificate was renewed by two; returns the first and the second."""
    (tmp_path / "passphrase").write_text("correct horse\n")
    assert run("ca", "init", "--passphrase-file", tmp_path / "passphrase").code == 0
    with open_issuer(settings) as issuer:
        first = issuer.issue(spki(), grant("ct1"), now())
        second = issuer.renew(spki(), first.sha256, now())
        with pytest.raises(EnrolmentRefusedError):
            issuer.renew(spki(), first.sha256, now())
    return first, second


def renew(settings: Settings, presented: Issued) -> Issued:
    with open_issuer(settings) as issuer:
        return issuer.renew(spki(), presented.sha256, now())


def statuses(run: Run) -> dict[str, str]:
    return {each["sha256"]: each["status"] for each in run("device", "show", "ct1", "--json").json["certificates"]}


def test_held_renewals_are_listed_with_the_reason(run: Run, held: tuple[Issued, Issued]) -> None:
    shown = run("device", "renewal", "list")
    assert "ct1" in shown.out
    assert "presented again with another key" in shown.out
    (entry,) = run("device", "renewal", "list", "ct1", "--json").json
    assert (entry["name"], entry["renewal"]) == ("ct1", "held")
    assert run("device", "renewal", "list", "other", "--json").json == []


def test_a_released_device_renews_with_any_of_its_certificates_once(
    run: Run, settings: Settings, held: tuple[Issued, Issued]
) -> None:
    first, second = held
    done = run("device", "renewal", "release", "ct1")
    assert (done.code, "may renew again" in done.out) == (0, True)
    renew(settings, first)
    # The other copy shows itself again.
    with pytest.raises(EnrolmentRefusedError):
        renew(settings, second)
    assert run("device", "renewal", "list", "--json").json[0]["renewal"] == "held"
    assert "release-renewal" in run("device", "show", "ct1").out


def test_a_person_who_knows_the_true_one_ends_the_copy(
    run: Run, settings: Settings, held: tuple[Issued, Issued]
) -> None:
    first, second = held
    assert run("device", "renewal", "release", "ct1", "--keep", first.sha256[:12].upper()).code == 0
    assert statuses(run) == {first.sha256: "active", second.sha256: "revoked"}
    assert renew(settings, first).generation == 3
    run("ca", "crl")
    assert run("ca", "crl", "--json").json[0]["entries"] == 1


def test_a_rejected_device_renews_nothing_until_it_is_invited_anew(
    run: Run, settings: Settings, held: tuple[Issued, Issued]
) -> None:
    first, second = held
    done = run("device", "renewal", "reject", "ct1", "--json")
    assert done.json["renewal"] == "rejected"
    assert set(statuses(run).values()) == {"active"}
    for each in (first, second):
        with pytest.raises(EnrolmentRefusedError, match="renewal-rejected"):
            renew(settings, each)
    with open_issuer(settings) as issuer:
        issued = issuer.issue(spki(), grant("ct1"), now())
    assert renew(settings, issued).generation == 4


def test_a_compromised_key_ends_at_once_and_the_device_stays(
    run: Run, settings: Settings, held: tuple[Issued, Issued]
) -> None:
    done = run("device", "compromised", "ct1")
    assert (done.code, "all certificates of ct1 are revoked" in done.out) == (0, True)
    assert set(statuses(run).values()) == {"revoked"}
    assert run("device", "show", "ct1", "--json").json["status"] == "active"
    assert run("ca", "crl", "--json").json[0]["entries"] == 2
    assert run("device", "compromised", "ct1", "--json").json["certificates"] == "revoked"


def test_a_device_of_the_local_ca_can_be_compromised_too(run: Run, settings: Settings, tmp_path: Path) -> None:
    run("device", "add", "ct9", "--aet", "CT9", "--role", "modality", "--network", "10.0.0.9", "--out", tmp_path / "k")
    assert run("device", "compromised", "ct9").code == 0
    refused = run("device", "renewal", "release", "ct9")
    assert (refused.code, "has issued nothing to it" in refused.err) == (1, True)


def test_mistakes_are_told(run: Run, held: tuple[Issued, Issued]) -> None:
    for arguments, code, message in (
        (("renewal", "release"), 2, "name the device"),
        (("renewal", "reject", "ct1", "--keep", "a"), 2, "--keep is for release"),
        (("renewal", "release", "ct1", "--keep", "xyz"), 1, "0 active certificates begin with"),
        (("renewal", "release", "ct2"), 1, "did you mean 'ct1'"),
        (("compromised", "ct2"), 1, "did you mean 'ct1'"),
        (("list", "--expiring", "soon"), 2, "is not a time"),
    ):
        done = run("device", *arguments)
        assert (done.code, message in done.err) == (code, True)
    run("device", "renewal", "release", "ct1")
    assert "is not held" in run("device", "renewal", "release", "ct1").err


def test_devices_that_expire_are_listed_soonest_first(run: Run, settings: Settings, tmp_path: Path) -> None:
    for name, days in (("a", 20), ("b", 5), ("c", 300)):
        run(
            *("device", "add", name, "--aet", name.upper(), "--role", "modality", "--network", "10.0.0.9"),
            *("--days", days, "--out", tmp_path / name),
        )
    listed = run("device", "list", "--expiring", "30d", "--json").json
    assert [each["name"] for each in listed] == ["b", "a"]
    assert "c" not in run("device", "list", "--expiring", "30d").out.split()
    run("device", "suspend", "b")
    assert [each["name"] for each in run("device", "list", "--expiring", "30d", "--json").json] == ["a"]
