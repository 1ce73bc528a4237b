"""`[enrolment]`: the certificate authority for devices, and what it issues. docs/enrolment.md."""
# ruff: noqa: RUF009  (setting is dataclasses.field with our metadata)

from dataclasses import dataclass
from pathlib import Path

from dicomward.settings.kinds import OPTIONAL_TEXT, PATH, number, setting


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentSettings:
    """`[enrolment]`: the gateway itself reads nothing of this."""

    ca: Path = setting(
        PATH, "issuing-ca", "", "the directory of the CA: keys that the gateway's user must not be able to read"
    )
    life_days: float = setting(
        number(1, 3650), 90, "days", "of a device's certificate; it is renewed after two thirds of that"
    )
    backdated_minutes: float = setting(
        number(0, 1440), 60, "minutes", "a certificate begins so much earlier, for devices whose clocks are slow"
    )
    crl_url: str = setting(
        OPTIONAL_TEXT, "", "", "where others find the CRL, for the certificates: http://HOST/issuing.crl"
    )
    crl_days: float = setting(
        number(0.1, 365), 7, "days", "how long a CRL says that it is current; a new one is due at half of that"
    )
