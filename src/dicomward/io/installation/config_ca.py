"""What `check-config` says about the CA for devices, where there is one: none of it keeps a gateway from starting."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Final

from dicomward.io.ca.crl import crl_path, read_crl
from dicomward.io.ca.directory import OFFLINE_ROOT, ROOT_KEY, STATE_NAME, CaDirectory
from dicomward.io.ca.terms import PKCS11_SCHEME, CaError
from dicomward.settings import Settings

# Devices move with their renewals, so a rollover takes two thirds of a certificate's life, and people need time too.
ROLLOVER_WARNING: Final = timedelta(days=180)


def find_ca_warnings(settings: Settings, now: datetime) -> Iterator[tuple[str, str, str]]:
    """Yield where, what and what to do."""
    path = settings.enrolment.ca
    if not (path / STATE_NAME).exists():
        return
    try:
        ca = CaDirectory(path)
        active = ca.state.active
        end = ca.certificate_of(active).not_valid_after_utc
        crl = read_crl(crl_path(ca, active.name))
    except CaError as error:
        yield str(path), str(error), ""
        return
    if end - now < ROLLOVER_WARNING:
        yield str(path), f"{active.name} ends at {end:%Y-%m-%d}", "make a new one: dicomward ca rollover"
    if crl is not None and crl.next_update_utc is not None and crl.next_update_utc < now:
        until = f"{crl.next_update_utc:%Y-%m-%d %H:%M} UTC"
        yield str(path), f"the CRL of {active.name} was current until {until}", "run: dicomward ca crl"
    for key in (path / ROOT_KEY, path / OFFLINE_ROOT / ROOT_KEY):
        if key.exists():
            yield str(key), "the root's key is on this machine", "move it to a safe place; only a rollover needs it"
    if not active.key.startswith(PKCS11_SCHEME):
        key = path / active.key
        if key.exists() and key.stat().st_uid == settings.directory.stat().st_uid:
            yield str(key), "the user of the gateway can read the issuing key", "give it to a user of its own"
