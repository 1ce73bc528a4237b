"""Where a server is, and whether its records are to be counted: what is said of each one that was looked at."""

from dataclasses import replace

import iptocc

from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import Control, Protocol, ServerObservation
from dicomward.assess.scope import ScopeNetwork
from dicomward.assess.sites import Sites, place_of


def is_counted(observation: ServerObservation, network: ScopeNetwork) -> bool:
    """Say if a server's records are to be counted: the scope allows it, and strangers' queries are answered."""
    if not network.counting:
        return False
    if observation.protocol in (Protocol.HTTP, Protocol.HTTPS):
        return observation.verdict_of(Control.DICOMWEB_TOKEN) is Verdict.FAIL
    return observation.verdict_of(Control.FIND) is Verdict.FAIL


def registered_country(address: str) -> str | None:
    """Return the country in which an address is registered (iptocc: the registries' own files, inside the package)."""
    return iptocc.country_code(address)


def with_place(observation: ServerObservation, sites: Sites | None) -> ServerObservation:
    """Return the observation with its country and site: by the operator's list, else the scope, else the registration.

    Where the list names only a country, the site is the scope's.
    """
    listed = place_of(observation.address, sites, lambda address: None)
    if listed.source:
        site = listed.site or observation.site
        return replace(observation, country=listed.country, site=site, country_source=listed.source)
    if observation.country:
        return observation
    place = place_of(observation.address, None, registered_country)
    return replace(observation, country=place.country, country_source=place.source)
