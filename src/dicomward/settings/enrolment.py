"""`[enrolment]`: the certificate authority for devices, and what it issues. docs/enrolment.md."""
# ruff: noqa: RUF009  (setting is dataclasses.field with our metadata)

from dataclasses import dataclass
from pathlib import Path

from dicomward.settings.kinds import (
    BOOLEAN,
    LISTEN_ADDRESS,
    OPTIONAL_TEXT,
    PATH,
    ListenAddress,
    number,
    setting,
)


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
    listen: ListenAddress = setting(
        LISTEN_ADDRESS,
        "127.0.0.1:8443",
        "",
        "where `dicomward enrolment serve` answers devices: EST and CMP over HTTPS",
    )
    names: str = setting(
        OPTIONAL_TEXT,
        "",
        "",
        "host names and addresses by which devices reach it, with commas; they stand in its certificate beside its own",
    )
    url: str = setting(
        OPTIONAL_TEXT,
        "",
        "",
        "what invitations tell devices to ask, as https://enrol.example:8443; empty: made of the above",
    )
    gateway: str = setting(
        OPTIONAL_TEXT,
        "",
        "",
        "HOST:PORT at which devices reach the gateway, for their first C-ECHO; empty: `gateway.listen`",
    )
    key: Path = setting(
        PATH,
        "enrolment.key",
        "",
        "under which codes are hashed and CMP secrets encrypted; every enrolment server needs it",
    )
    gateway_elsewhere: bool = setting(
        BOOLEAN,
        False,
        "",
        "the gateway has another host or user than this server, and `dicomward device sync --follow` runs there",
    )
    invitation_hours: float = setting(
        number(0.1, 720), 24, "hours", "how long an invitation lives where `--expires` says nothing else"
    )
    queue: bool = setting(
        BOOLEAN, False, "", "requests without a code wait for `dicomward enrolment approve`, instead of being refused"
    )
    confirm: bool = setting(
        BOOLEAN,
        False,
        "",
        "a new or replaced credential may do only C-ECHO until a second person has confirmed the device",
    )
