"""What a grant may hold, and what it becomes."""

from datetime import timedelta

import pytest

from dicomward.enrolment.grant import Grant, grant_of
from dicomward.identity.registry import Endpoint, RegistryError


def grant(**changed: object) -> Grant:
    values: dict[str, object] = {
        "device": "CT-ROOM-3",
        "ae_titles": ("CT3",),
        "role": "modality",
        "networks": ("10.1.2.3",),
        "life": timedelta(days=90),
    }
    return Grant(**(values | changed))  # type: ignore[arg-type]


def test_it_becomes_the_device_and_the_device_a_grant_again() -> None:
    given = grant(site="north", address=Endpoint(host="ct3.example", port=104))
    device = given.as_device()
    assert (device.name, device.ae_titles, device.site) == ("CT-ROOM-3", ("CT3",), "north")
    assert grant_of(device, timedelta(days=90)) == given


def test_device_behind_an_agent_stays_one() -> None:
    device = grant(reverse=True).as_device()
    assert device.reverse
    assert grant_of(device, timedelta(days=90)) == grant(reverse=True)


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"device": "a b"}, "is not a name"),
        ({"ae_titles": ()}, "has no AE title"),
        ({"key_kinds": ()}, "kinds of keys"),
        ({"key_kinds": ("dsa",)}, "kinds of keys"),
        ({"life": timedelta(0)}, "a life of"),
    ],
)
def test_what_could_not_be_registered_is_refused(changed: dict[str, object], message: str) -> None:
    with pytest.raises(RegistryError, match=message):
        grant(**changed)
