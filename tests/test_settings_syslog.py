"""`[audit.syslog]`: one table or several, and what is wrong with them."""

from pathlib import Path

import pytest

from dicomward.settings import SettingsError, parse_settings
from dicomward.settings.kinds import ListenAddress
from dicomward.settings.syslog import SyslogDestination

PATH = Path("/etc/dicomward/dicomward.toml")
GOOD = 'address = "log.example:6514"\nca = "ca.pem"\n'


def destinations(text: str) -> tuple[SyslogDestination, ...]:
    return parse_settings(text, path=PATH).audit.syslog


def problem(text: str) -> str:
    with pytest.raises(SettingsError) as raised:
        destinations(text)
    return str(raised.value)


def test_without_a_table_nothing_is_sent() -> None:
    assert destinations("") == ()


def test_one_table_is_one_destination() -> None:
    text = f'[audit.syslog]\n{GOOD}certificate = "c.pem"\nkey = "/k.pem"\nencoding = "fhir"\nserver_name = "arr"\n'
    (one,) = destinations(text)
    assert one == SyslogDestination(
        address=ListenAddress(host="log.example", port=6514),
        ca=PATH.parent / "ca.pem",
        server_name="arr",
        certificate=PATH.parent / "c.pem",
        key=Path("/k.pem"),
        encoding="fhir",
    )


def test_several_tables_are_several_destinations() -> None:
    first, second = destinations(f'[[audit.syslog]]\n{GOOD}[[audit.syslog]]\n{GOOD}encoding = "ecs"\nfrom_start = true')
    assert [first.name, second.name] == ["log.example:6514 dicom", "log.example:6514 ecs"]
    assert (first.server_name, first.from_start, second.from_start) == ("log.example", False, True)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[audit]\nsyslog = 3\n", "3 is not a table"),
        ("[audit]\nsyslog = [3]\n", "syslog[0]: 3 is not a table"),
        ('[audit.syslog]\nca = "x"\n', "'address' is missing"),
        ('[audit.syslog]\naddress = "h:1"\n', "'ca' is missing"),
        (f"[audit.syslog]\n{GOOD}adress = 1\n", "adress: there is no such setting; did you mean 'address'?"),
        ('[audit.syslog]\naddress = "h"\nca = "x"\n', "'h' is not HOST:PORT"),
        ('[audit.syslog]\naddress = "h:1"\nca = ""\n', "'' is not a text"),
        (f'[audit.syslog]\n{GOOD}key = "k"\n', "certificate and key belong together"),
        (f'[audit.syslog]\n{GOOD}encoding = "xml"\n', "'xml' is not known"),
        (f"[audit.syslog]\n{GOOD}from_start = 1\n", "1 is neither true nor false"),
        (f"[[audit.syslog]]\n{GOOD}[[audit.syslog]]\n{GOOD}", "log.example:6514 dicom is there twice"),
    ],
)
def test_what_is_wrong_is_told(text: str, message: str) -> None:
    assert message in problem(text)
