"""edge.toml: every problem is told at once, and nothing odd is taken."""

from pathlib import Path

import pytest

from dicomward.settings import ListenAddress, SettingsError
from dicomward.settings.edge import EdgeSettings, load_edge_settings, parse_edge_settings

GOOD = """
[upstream]
address = "gw.example:2762"
ca = "ca.pem"
ae_titles = "PACS"

[[devices]]
name = "ct1"
ae_titles = ["CT1"]
listen = "127.0.0.1:11112"
certificate = "cert.pem"
key = "key.pem"
"""
ENROLS = """
[upstream]
address = "gw.example:2762"
ae_titles = "PACS"

[enrolment]
server = "https://enrol.example:8443"

[[devices]]
name = "ct1"
ae_titles = ["CT1"]
listen = "127.0.0.1:11112"
store = "pass-through"
"""
SPOOL = '\n[spool]\nkey = "credential:spool"\n'


def parse(text: str) -> EdgeSettings:
    return parse_edge_settings(text, Path("/etc/edge/edge.toml"))


def problems(text: str) -> str:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    return str(caught.value)


def test_least_settings_have_safe_defaults() -> None:
    settings = parse(GOOD + SPOOL)
    device = settings.devices[0]
    assert settings.upstream.name == "gw.example"
    assert settings.upstream.ae_titles == ("PACS",)
    assert device.authority == Path("/etc/edge/ca.pem")
    assert (device.networks, device.store) == (("127.0.0.1/32",), "spool")
    assert settings.spool is not None
    assert settings.spool.directory == Path("/etc/edge/spool")
    assert settings.metrics is None


def test_device_that_may_not_store_has_no_spool() -> None:
    assert parse(GOOD + SPOOL).devices[0].spools
    assert not parse(GOOD + 'operations = ["C-ECHO"]\n' + SPOOL).devices[0].spools
    assert not parse(GOOD + 'store = "pass-through"\n').devices[0].spools


def test_pass_through_needs_no_spool() -> None:
    assert parse(GOOD + 'store = "pass-through"\n').spool is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (('name = "ct1"', 'name = "c t"'), "'c t' is not a name"),
        (('["CT1"]', "[]"), "is not a list of texts with at least one"),
        (('["CT1"]', '["CT\\\\1"]'), "is not an AE title"),
        (('"127.0.0.1:11112"', '"0.0.0.0:11112"'), "is not loopback"),
        (('"127.0.0.1:11112"', '"pacs.example:11112"'), "is not loopback"),
        (('"127.0.0.1:11112"', '"11112"'), "is not HOST:PORT"),
        (('ca = "ca.pem"', "ca = 1"), "upstream.ca: 1 is not a text"),
        (('ca = "ca.pem"', 'ca = "ca.pem"\nwindow = 0'), "upstream.window: 0 is not a number from 1 to 1024"),
        (('ca = "ca.pem"', 'ca = "ca.pem"\nwindow = 1.5'), "1.5 is not a whole number"),
        (('ca = "ca.pem"', 'ca = "ca.pem"\nwindw = 1'), "did you mean 'window'?"),
        (('ca = "ca.pem"', 'ca = "ca.pem"\ncertificate_sha256 = "12"'), "it is not a SHA-256 fingerprint"),
        (('key = "key.pem"', 'key = "key.pem"\noperations = ["c-stor"]'), "there is no operation 'c-stor'"),
        (('key = "key.pem"', 'key = "key.pem"\nnetworks = ["any"]'), "anybody could speak as the device"),
        (('key = "key.pem"', 'key = "key.pem"\nnetworks = ["x"]'), "devices[0].networks"),
        (('key = "key.pem"', 'key = "key.pem"\nstore = "spol"'), "did you mean 'spool'?"),
    ],
)
def test_wrong_value_is_told(change: tuple[str, str], message: str) -> None:
    assert message in problems(GOOD.replace(*change) + SPOOL)


DEVICE = 'key = "key.pem"'


def test_device_that_listens_has_an_address_and_may_be_called_by_what_it_calls() -> None:
    device = parse(GOOD + SPOOL).devices[0]
    assert (device.address, device.callers) == (None, ("PACS",))
    device = parse(GOOD.replace(DEVICE, DEVICE + '\naddress = "127.0.0.1:104"') + SPOOL).devices[0]
    assert device.address == ListenAddress(host="127.0.0.1", port=104)
    assert (device.reverse_connections, device.receives) == (2, ("c-echo", "c-store", "n-event-report"))
    more = '\naddress = "localhost:104"\nreverse_connections = 1\ncallers = ["A", "B C"]\nreceives = ["C-STORE"]'
    device = parse(GOOD.replace(DEVICE, DEVICE + more) + SPOOL).devices[0]
    assert (device.reverse_connections, device.callers, device.receives) == (1, ("A", "B C"), ("c-store",))


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ('address = "192.0.2.1:104"', "devices[0].address: 192.0.2.1:104 is not loopback"),
        ('address = "127.0.0.1:0"', "port 0 is none"),
        ('address = "127.0.0.1:11112"', "is where the agent listens"),
        ('address = "104"', "is not HOST:PORT"),
        ('address = "127.0.0.1:104"\nreverse_connections = 9', "9 is not a number from 1 to 8"),
        ('callers = ["A\\\\B"]', "devices[0].callers"),
        ('receives = ["n-event-repor"]', "did you mean 'n-event-report'?"),
    ],
)
def test_wrong_way_back_to_the_device_is_told(more: str, message: str) -> None:
    assert message in problems(GOOD.replace(DEVICE, f"{DEVICE}\n{more}") + SPOOL)


def test_device_at_the_end_of_its_own_cable_may_listen_there() -> None:
    more = DEVICE + '\nlink = "point-to-point"\naddress = "192.0.2.1:104"'
    assert parse(GOOD.replace(DEVICE, more) + SPOOL).devices[0].address == ListenAddress(host="192.0.2.1", port=104)


def test_listening_on_a_point_to_point_link_has_to_be_said() -> None:
    text = GOOD.replace('"127.0.0.1:11112"', '"192.0.2.1:104"').replace(
        "[[devices]]", '[[devices]]\nlink = "point-to-point"'
    )
    assert parse(text + SPOOL).devices[0].listen == ListenAddress(host="192.0.2.1", port=104)
    assert parse(GOOD.replace("127.0.0.1:11112", "localhost:11112") + SPOOL).devices[0].listen.host == "localhost"


def test_devices_share_neither_name_nor_port() -> None:
    second = GOOD[GOOD.index("[[devices]]") :]
    told = problems(GOOD + second + SPOOL)
    assert "the name 'ct1' is taken" in told
    assert "127.0.0.1:11112 is taken" in told


def test_spool_needs_a_key_that_is_not_beside_the_data(tmp_path: Path) -> None:
    assert "spool.key: it is missing" in problems(GOOD)
    assert "the key would lie beside the data" in problems(GOOD + '\n[spool]\nkey = "spool/key"\n')
    assert "the key would lie beside the data" in problems(GOOD + '\n[spool]\nkey = "dpapi:spool/key"\n')
    sealed = parse(GOOD + '\n[spool]\nkey = "dpapi:keys/spool"\n').spool
    assert sealed is not None
    assert sealed.key == "dpapi:/etc/edge/keys/spool"
    spool = parse(GOOD + '\n[spool]\nkey = "keys/spool"\n').spool
    assert spool is not None
    assert (spool.key, spool.commitment) == ("/etc/edge/keys/spool", "if-offered")
    assert "did you mean 'required'?" in problems(GOOD + SPOOL + 'commitment = "requird"\n')


def test_bandwidth_has_times_of_the_day() -> None:
    rule = '\n[[bandwidth]]\nfrom = "07:00"\nto = "18:30"\nbytes_per_second = 1000000\n'
    (read,) = parse(GOOD + SPOOL + rule).bandwidth
    assert (read.begin_minute, read.end_minute, read.bytes_per_second) == (420, 1110, 1_000_000)
    assert "'25:00' is not a time of the day" in problems(GOOD + SPOOL + rule.replace("07:00", "25:00"))
    assert "it is not a list of tables" in problems("bandwidth = 1\n" + GOOD + SPOOL)


def test_tables_are_tables() -> None:
    told = problems("upstream = 1\ndevices = [1]\nspol = 2\n[edge]\nmetrics = 'x'\n")
    for message in (
        "upstream: 1 is not a table",
        "devices[0]: 1 is not",
        "did you mean 'spool'?",
        "'x' is not HOST:PORT",
    ):
        assert message in told
    assert "there is no device" in problems(GOOD[: GOOD.index("[[devices]]")])


def test_unreadable_file_is_told(tmp_path: Path) -> None:
    path = tmp_path / "edge.toml"
    with pytest.raises(SettingsError, match="it can't be read"):
        load_edge_settings(path)
    path.write_bytes(b"\xff")
    with pytest.raises(SettingsError, match="it is not UTF-8 text"):
        load_edge_settings(path)
    path.write_text("[", "utf-8")
    with pytest.raises(SettingsError, match="it is not TOML"):
        load_edge_settings(path)
    path.write_text(GOOD + SPOOL, "utf-8")
    assert load_edge_settings(path).path == path


def test_agent_that_enrols_needs_no_files() -> None:
    settings = parse(ENROLS)
    assert settings.enrolment is not None
    assert (settings.enrolment.server, settings.enrolment.key_kind) == ("https://enrol.example:8443", "ecdsa")
    device = settings.devices[0]
    own = Path("/etc/edge/state/ct1/credential")
    assert device.own is not None
    assert (device.own.directory, device.own.code, device.own.code_file) == (own, "", None)
    assert (device.certificate, device.key, device.authority) == (own / "cert.pem", own / "key.pem", own / "ca.pem")
    assert parse(ENROLS.replace("https://", "")).enrolment == settings.enrolment


def test_code_never_shows_in_what_is_logged_of_settings() -> None:
    settings = parse(ENROLS + 'code = "SECRET"\ncredential = "own"\n')
    assert settings.devices[0].own is not None
    assert (settings.devices[0].own.code, settings.devices[0].key) == ("SECRET", Path("/etc/edge/own/key.pem"))
    assert "SECRET" not in repr(settings)


def test_upstream_may_have_another_ca_and_a_device_files_of_its_own() -> None:
    mixed = ENROLS.replace('ae_titles = "PACS"', 'ae_titles = "PACS"\nca = "ca.pem"')
    settings = parse(mixed + 'certificate = "cert.pem"\nkey = "key.pem"\n')
    assert settings.devices[0].own is None
    assert settings.devices[0].authority == Path("/etc/edge/ca.pem")
    assert parse(mixed).devices[0].authority == Path("/etc/edge/ca.pem")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            ("https://enrol.example:8443", "http://enrol.example"),
            "enrolment.server: 'http://enrol.example' is no https",
        ),
        (('server = "https://enrol.example:8443"', ""), "enrolment.server: it is missing"),
        (("[enrolment]", "[enrolment]\nca_sha256 = 'xy'"), "enrolment.ca_sha256: it is not a SHA-256"),
        (("[enrolment]", "[enrolment]\nkey_kind = 'rsaa'"), "did you mean 'rsa'?"),
        (("[enrolment]", "[enrolment]\nurl = 'x'"), "enrolment.url: there is no such setting"),
        (('name = "ct1"', 'name = "ct1"\ncode = "x"\ncode_file = "y"'), "code_file: code is there too"),
        (('name = "ct1"', 'name = "ct1"\ncode = "x"\nkey = "y"'), "devices[0].code: key is there too"),
        (('name = "ct1"', 'name = "ct1"\ncertificate = "x"\nkey = "y"'), "upstream.ca: it is missing"),
    ],
)
def test_wrong_enrolment_is_told(change: tuple[str, str], message: str) -> None:
    assert message in problems(ENROLS.replace(*change))


def test_code_without_an_enrolment_server_is_told() -> None:
    assert "devices[0].code: there is no enrolment server" in problems(GOOD + 'code = "x"\n' + SPOOL)


def test_reverse_connections_are_for_an_address_or_for_the_agents_own_reports() -> None:
    assert parse(GOOD + SPOOL).devices[0].reverse_connections == 0
    assert parse(GOOD + 'address = "127.0.0.1:104"\n' + SPOOL).devices[0].reverse_connections == 2
    assert parse(GOOD + "reverse_connections = 1\n" + SPOOL).devices[0].reverse_connections == 1
    assert "nobody could be reached over them" in problems(GOOD + 'store = "pass-through"\nreverse_connections = 1\n')
