"""One certificate at two addresses alarms, once an hour; what is over doesn't count."""

from dataclasses import replace

from dicomward.audit.event import AssociationAllowed, AssociationEnded, SecurityAlert
from dicomward.io.protection.address_watch import QUIET, AddressWatch
from dicomward.vocab.reason import ReasonCode

FIRST = AssociationAllowed(
    association="a1", device="ct1", role="modality", address="10.0.0.1", certificate_sha256="c" * 64
)
SECOND = replace(FIRST, association="a2", address="10.0.0.2")


class Place:
    def __init__(self) -> None:
        self.now = 0.0
        self.open = {f"a{number}" for number in range(9)}
        self.watch = AddressWatch(lambda association: association in self.open, lambda: self.now)

    def end(self, event: AssociationAllowed) -> None:
        self.watch.ended(AssociationEnded(association=event.association, certificate_sha256=event.certificate_sha256))


def test_two_addresses_at_once_alarm() -> None:
    place = Place()
    assert place.watch.allowed(FIRST) is None
    alert = place.watch.allowed(SECOND)
    assert isinstance(alert, SecurityAlert)
    assert (alert.device, alert.address, alert.reason) == (
        "ct1",
        "10.0.0.2",
        ReasonCode.CERTIFICATE_AT_TWO_ADDRESSES,
    )
    assert alert.detail == "the certificate of ct1 is in use from 10.0.0.2, 10.0.0.1 at once"


def test_the_same_alarm_comes_at_most_once_an_hour() -> None:
    place = Place()
    place.watch.allowed(FIRST)
    assert place.watch.allowed(SECOND) is not None
    assert place.watch.allowed(replace(SECOND, association="a3")) is None
    place.now = QUIET
    assert place.watch.allowed(replace(SECOND, association="a4")) is not None


def test_one_after_the_other_is_no_alarm() -> None:
    place = Place()
    place.watch.allowed(FIRST)
    place.end(FIRST)
    assert place.watch.allowed(SECOND) is None
    # Its end was never on record, but it is over.
    place.open.remove("a2")
    assert place.watch.allowed(replace(FIRST, association="a3")) is None


def test_many_associations_of_one_address_are_no_alarm() -> None:
    place = Place()
    place.watch.allowed(FIRST)
    assert place.watch.allowed(replace(FIRST, association="a2")) is None
    place.end(FIRST)
    assert place.watch.allowed(replace(SECOND, association="a3")) is not None


def test_archives_and_what_has_no_certificate_are_left_out() -> None:
    place = Place()
    for event in (replace(FIRST, role="archive"), replace(FIRST, certificate_sha256="")):
        assert place.watch.allowed(event) is None
        assert place.watch.allowed(replace(event, association="a2", address="10.0.0.2")) is None


def test_ends_of_others_change_nothing() -> None:
    place = Place()
    place.end(FIRST)
    place.end(replace(FIRST, certificate_sha256=None))
    place.watch.ended(FIRST)
    place.watch.allowed(FIRST)
    place.end(SECOND)
    assert place.watch.allowed(SECOND) is not None
