"""The limit of descriptors is raised for the pace that the scope asks for, or the pace fits into it."""

import resource

import pytest

from dicomward.io.assess.descriptors import hosts_that_fit

_ENDLESS = resource.RLIM_INFINITY


@pytest.mark.parametrize(
    ("limit", "hosts", "fit", "raised"),
    [
        ((1024, 1024), 32, 32, None),
        ((1024, 1024), 4096, 85, None),
        ((1024, 20_000), 1000, 1000, 9256),
        ((1024, 20_000), 4096, 2193, 20_000),
        ((1024, _ENDLESS), 4096, 4096, 37_120),
        ((_ENDLESS, _ENDLESS), 4096, 4096, None),
        ((100, 100), 32, 1, None),
    ],
)
def test_limit(
    monkeypatch: pytest.MonkeyPatch, limit: tuple[int, int], hosts: int, fit: int, raised: int | None
) -> None:
    given: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: limit)
    monkeypatch.setattr(resource, "setrlimit", lambda what, values: given.append(values))
    assert hosts_that_fit(hosts, 9) == fit
    assert [soft for soft, _ in given if soft != limit[0]] == ([] if raised is None else [raised])
