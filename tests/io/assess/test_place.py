"""Where a server is said to be, and which servers are counted."""

from dataclasses import replace
from ipaddress import ip_network

import pytest

from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import Control, ControlResult, Protocol, ServerObservation
from dicomward.assess.scope import ScopeNetwork
from dicomward.assess.sites import read_sites
from dicomward.io.assess.place import is_counted, registered_country, with_place


@pytest.mark.parametrize(("address", "country", "source"), [("8.8.8.8", "US", "registration"), ("127.0.0.1", "", "")])
def test_country_is_that_of_the_registration(address: str, country: str, source: str) -> None:
    seen = with_place(ServerObservation(address=address, port=104), None)
    assert (seen.country, seen.country_source) == (country, source)
    of_the_scope = ServerObservation(address=address, port=104, country="FR", country_source="site")
    assert with_place(of_the_scope, None) is of_the_scope


def test_list_of_sites_goes_before_scope_and_registration() -> None:
    sites = read_sites("8.8.8.0/24, CH\n8.8.8.8, AT, Ward")
    of_the_scope = ServerObservation(address="8.8.8.7", port=104, country="FR", site="Main", country_source="site")
    assert with_place(of_the_scope, sites) == replace(of_the_scope, country="CH")
    listed = with_place(ServerObservation(address="8.8.8.8", port=104), sites)
    assert (listed.country, listed.site, listed.country_source) == ("AT", "Ward", "site")
    assert with_place(ServerObservation(address="1.1.1.1", port=104), sites).country_source == "registration"


def test_registration_is_known_offline() -> None:
    assert registered_country("8.8.8.8") == "US"
    assert registered_country("127.0.0.1") is None


@pytest.mark.parametrize(
    ("protocol", "control", "verdict", "counted"),
    [
        (Protocol.DIMSE, Control.FIND, Verdict.FAIL, True),
        (Protocol.DIMSE_TLS, Control.FIND, Verdict.FAIL, True),
        (Protocol.DIMSE, Control.FIND, Verdict.INCONCLUSIVE, False),
        (Protocol.HTTPS, Control.DICOMWEB_TOKEN, Verdict.FAIL, True),
        (Protocol.HTTP, Control.DICOMWEB_TOKEN, Verdict.PASS, False),
        (Protocol.HTTP, Control.WEB_ADMINISTRATION, Verdict.FAIL, False),
    ],
)
def test_only_open_queries_are_counted_and_only_where_the_scope_says_so(
    protocol: Protocol, control: Control, verdict: Verdict, counted: bool
) -> None:
    result = ControlResult(control=control, verdict=verdict)
    seen = ServerObservation(address="10.0.0.1", port=104, protocol=protocol, controls=(result,))
    network = ScopeNetwork(network=ip_network("10.0.0.0/8"))
    assert not is_counted(seen, network)
    assert is_counted(seen, replace(network, counting=True)) is counted
