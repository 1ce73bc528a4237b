"""Settings: every setting read, every mistake located, everything documented."""

import os
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from tools.generate_reference_docs import SETTINGS_PAGE, render_settings, replace_generated

import dicomward
from dicomward.settings import (
    SECTIONS,
    CertificatePair,
    ListenAddress,
    Settings,
    SettingsError,
    load_settings,
    parse_host_port,
    parse_settings,
)
from dicomward.settings.people import parse_ldap_url

ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(dicomward.__file__).parents[1])}
CONFIG = Path("/etc/dicomward/dicomward.toml")


def problems(text: str) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        parse_settings(text, path=CONFIG)
    return [str(problem) for problem in caught.value.problems]


def only_problem(text: str) -> str:
    found = problems(text)
    assert len(found) == 1, found
    return found[0]


def test_empty_file_has_the_defaults_relative_to_its_directory() -> None:
    settings = parse_settings("", path=CONFIG)
    assert settings.gateway.listen == ListenAddress(host="127.0.0.1", port=11112)
    assert settings.gateway.archive_listen == ListenAddress(host="127.0.0.1", port=11113)
    assert settings.gateway.archive_listen_tls is False
    assert settings.gateway.handshake_deadline_unknown_seconds == 5
    assert settings.gateway.handshake_deadline_registered_seconds == 30
    assert settings.gateway.artim_seconds == 30
    assert settings.gateway.idle_seconds == 600
    assert settings.gateway.stalled_seconds == 14_400
    assert settings.gateway.upstream_connect_seconds == 5
    assert settings.gateway.drain_seconds == 30
    assert settings.gateway.workers == 0
    assert settings.gateway.state_directory == Path("/etc/dicomward/run")
    assert settings.tls.certificates == (
        CertificatePair(
            certificate=Path("/etc/dicomward/tls/gateway-ecdsa.cert.pem"),
            key=Path("/etc/dicomward/tls/gateway-ecdsa.key.pem"),
        ),
        CertificatePair(
            certificate=Path("/etc/dicomward/tls/gateway-rsa.cert.pem"),
            key=Path("/etc/dicomward/tls/gateway-rsa.key.pem"),
        ),
    )
    assert settings.tls.client_ca == Path("/etc/dicomward/ca/ca.cert.pem")
    assert settings.tls.minimum_version == "1.2"
    assert settings.tls.expired_certificate_grace_days == 14
    assert settings.registry.url == "sqlite:////etc/dicomward/registry.db"
    assert settings.registry.snapshot == Path("/etc/dicomward/registry.json")
    assert settings.policy.file == Path("/etc/dicomward/policy.toml")
    assert settings.audit.directory == Path("/etc/dicomward/audit")
    assert settings.audit.second_sink is None
    assert settings.limits.for_device("", "").associations == 64
    assert settings.dicom_limits.max_pdu_bytes == 131_072
    assert settings.path == CONFIG
    assert settings.directory == Path("/etc/dicomward")


def test_tree_made_by_hand_has_the_same_defaults_as_an_empty_file_beside_it() -> None:
    assert Settings(path=Path("dicomward.toml")) == parse_settings("", path=Path("dicomward.toml"))


def test_every_section_is_read() -> None:
    settings = parse_settings(
        """
        [gateway]
        listen = "[::1]:2762"
        archive_listen = "pacs-side.example:104"
        archive_listen_tls = true
        idle_seconds = 90.5
        workers = 2
        state_directory = "/run/dicomward"

        [tls]
        client_ca = "../ca.pem"
        minimum_version = "1.3"
        expired_certificate_grace_days = 0

        [[tls.certificates]]
        certificate = "/etc/ssl/gateway.pem"
        key = "gateway.key"

        [registry]
        url = "postgresql+psycopg://dicomward@db/dicomward"

        [audit]
        second_sink = "/mnt/other/audit.jsonl"

        [limits]
        associations = 12
        [limits.role.workstation]
        queries_per_minute = 5
        [limits.dicom]
        max_pdu_bytes = 65536
        """,
        path=CONFIG,
    )
    assert settings.gateway.listen == ListenAddress(host="::1", port=2762)
    assert str(settings.gateway.listen) == "[::1]:2762"
    assert str(settings.gateway.archive_listen) == "pacs-side.example:104"
    assert settings.gateway.archive_listen_tls is True
    assert settings.gateway.idle_seconds == 90.5
    assert settings.gateway.workers == 2
    assert settings.gateway.state_directory == Path("/run/dicomward")
    assert settings.tls.client_ca == Path("/etc/dicomward/../ca.pem")
    assert settings.tls.minimum_version == "1.3"
    assert settings.tls.expired_certificate_grace_days == 0
    assert settings.tls.certificates == (
        CertificatePair(certificate=Path("/etc/ssl/gateway.pem"), key=Path("/etc/dicomward/gateway.key")),
    )
    assert settings.registry.url == "postgresql+psycopg://dicomward@db/dicomward"
    assert settings.audit.second_sink == Path("/mnt/other/audit.jsonl")
    assert settings.limits.for_device("", "").associations == 12
    assert settings.limits.for_device("", "workstation").queries_per_minute == 5
    assert settings.dicom_limits.max_pdu_bytes == 65_536


def test_password_in_the_database_url_is_not_shown() -> None:
    settings = parse_settings('[registry]\nurl = "postgresql://u:hunter2@db/x"', path=CONFIG)
    assert "hunter2" not in repr(settings)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("[gatway]\n", "dicomward.toml:1: gatway: there is no such setting; did you mean 'gateway'?"),
        (
            '[gateway]\n# a comment\nlistn = "127.0.0.1:1"\n',
            "dicomward.toml:3: gateway.listn: there is no such setting; did you mean 'listen'?",
        ),
        ('gateway.listn = "127.0.0.1:1"', "dicomward.toml:1: gateway.listn: there is no such setting"),
        ("[policy]\nzzz = 1", "dicomward.toml:2: policy.zzz: there is no such setting; the known ones are file"),
        ("gateway = 3", "dicomward.toml:1: gateway: 3 is not a table; write [gateway] on a line of its own"),
        (
            '[gateway]\nworkers = "two"',
            "dicomward.toml:2: gateway.workers: 'two' is not a whole number; write one from 0",
        ),
        ("[gateway]\nworkers = true", "dicomward.toml:2: gateway.workers: True is not a whole number"),
        (
            "[gateway]\nworkers = 257",
            "dicomward.toml:2: gateway.workers: 257 is not a whole number; write one from 0 to 256",
        ),
        ("[gateway]\nartim_seconds = 0", "dicomward.toml:2: gateway.artim_seconds: 0 is not a number in range"),
        ("[gateway]\nartim_seconds = inf", "dicomward.toml:2: gateway.artim_seconds: inf is not a number in range"),
        ("[gateway]\nartim_seconds = nan", "dicomward.toml:2: gateway.artim_seconds: nan is not a number in range"),
        ("[gateway]\nartim_seconds = true", "dicomward.toml:2: gateway.artim_seconds: True is not a number in range"),
        ("[gateway]\nartim_seconds = '9'", "dicomward.toml:2: gateway.artim_seconds: '9' is not a number in range"),
        (
            "[gateway]\narchive_listen_tls = 1",
            "dicomward.toml:2: gateway.archive_listen_tls: 1 is neither true nor false; write true or false",
        ),
        ("[gateway]\nlisten = 11112", "dicomward.toml:2: gateway.listen: 11112 is not a text; write it in quotes"),
        ('[gateway]\nlisten = "::1:1"', "dicomward.toml:2: gateway.listen: '::1:1' is not HOST:PORT"),
        (
            '[tls]\nminimum_version = "1.1"',
            "dicomward.toml:2: tls.minimum_version: '1.1' is not known; write \"1.2\" or",
        ),
        ("[tls]\nminimum_version = []", "dicomward.toml:2: tls.minimum_version: [] is not known"),
        ('[tls]\nclient_ca = ""', "dicomward.toml:2: tls.client_ca: '' is not a text"),
        ('[tls]\nclient_ca = "\\u0000"', "dicomward.toml:2: tls.client_ca: '\\x00' is not a text"),
        ("[tls]\ncertificates = []", "dicomward.toml:2: tls.certificates: this is not a list with at least one"),
        ("[tls]\ncertificates = 'a'", "dicomward.toml:2: tls.certificates: this is not a list with at least one"),
        ("[tls]\ncertificates = ['a']", "dicomward.toml:2: tls.certificates[0]: 'a' is not a table; write [[tls.cert"),
        (
            "[[tls.certificates]]\nkey = 'k'\n",
            "dicomward.toml:1: tls.certificates[0]: 'certificate' is missing; write [[tls.certificates]]",
        ),
        (
            "[[tls.certificates]]\nkey = 'k'\ncertificate = 'c'\n\n[[tls.certificates]]\ncertificate = 'c'\nkey = 7\n",
            "dicomward.toml:7: tls.certificates[1].key: 7 is not a text",
        ),
        (
            "[[tls.certificates]]\ncertficate = 'c'\n",
            "dicomward.toml:2: tls.certificates[0].certficate: there is no such setting; did you mean 'certificate'?",
        ),
        ("[audit]\nsecond_sink = 1", "dicomward.toml:2: audit.second_sink: 1 is not a text"),
        ("[limits]\nassociations = 0", "dicomward.toml:2: limits.associations: the limit associations is 0"),
        ("limits = 0", "dicomward.toml:1: limits: 0 is not a table"),
        (
            "[limits.network]\nx = 1\n",
            "dicomward.toml:2: limits.network.x: there is no such limit",
        ),
        (
            "[limits.dicom]\nmax_pdu_bytes = 0",
            "dicomward.toml:2: limits.dicom.max_pdu_bytes: the limit max_pdu_bytes is 0",
        ),
        (
            "[limits.dicom]\nmax_pdu_byte = 1",
            "dicomward.toml:2: limits.dicom.max_pdu_byte: there is no such setting; did you mean 'max_pdu_bytes'?",
        ),
        ("[limits]\ndicom = 1", "dicomward.toml:2: limits.dicom: 1 is not a table"),
        (
            '[gateway]\nlisten = "127.0.0.1:104"\narchive_listen = "127.0.0.1:104"',
            "dicomward.toml:3: gateway.archive_listen: it is the same as listen (127.0.0.1:104)",
        ),
        (
            "[gateway]\nhandshake_deadline_unknown_seconds = 31",
            "dicomward.toml:2: gateway.handshake_deadline_unknown_seconds: strangers would get more time",
        ),
        ("[gateway\n", "dicomward.toml: it is not TOML: "),
    ],
)
def test_mistake_is_located_and_explained(text: str, expected: str) -> None:
    assert only_problem(text).startswith(expected)


def test_unknown_key_without_a_line_of_its_own_is_found_at_its_table() -> None:
    assert only_problem("gateway = { listn = 1 }").startswith("dicomward.toml:1: gateway.listn: ")


@pytest.mark.parametrize(
    "url", ["sqlite://", "sqlite:///", "sqlite:///:memory:", "mysql://u:hunter2@db/x", "registry.db", "postgresql://"]
)
def test_database_url_refused_without_repeating_it(url: str) -> None:
    text = only_problem(f'[registry]\nurl = "{url}"')
    assert text.startswith("dicomward.toml:2: registry.url: this is not the URL of a database that we can use; write")
    assert "hunter2" not in text


def test_absolute_sqlite_path_stays() -> None:
    settings = parse_settings('[registry]\nurl = "sqlite+pysqlite:////srv/r.db"', path=CONFIG)
    assert settings.registry.url == "sqlite+pysqlite:////srv/r.db"


def test_all_problems_are_reported_at_once() -> None:
    found = problems('[gateway]\nlisten = 1\nworkers = -1\n[limits]\nassociations = "x"\nqueries_per_minute = 0\n')
    assert len(found) == 4


def test_same_port_zero_on_both_sides_is_allowed() -> None:
    settings = parse_settings('[gateway]\nlisten = "127.0.0.1:0"\narchive_listen = "127.0.0.1:0"', path=CONFIG)
    assert settings.gateway.listen.port == 0


def test_load_reads_the_file_and_resolves_against_its_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "dicomward.toml").write_text('[policy]\nfile = "p.toml"\n')
    monkeypatch.chdir(tmp_path)
    settings = load_settings(Path("dicomward.toml"))
    assert settings.policy.file == tmp_path / "p.toml"


def test_missing_file_says_how_to_make_one(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"there is no such file; name it with --config .* dicomward init"):
        load_settings(tmp_path / "dicomward.toml")


def test_unreadable_file_says_why(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"it can't be read \(Is a directory\)"):
        load_settings(tmp_path)


def test_the_mark_that_editors_of_windows_put_in_front_is_no_content(tmp_path: Path) -> None:
    path = tmp_path / "dicomward.toml"
    path.write_text("[gateway]\nidle_seconds = 7\n", encoding="utf-8-sig")
    assert load_settings(path).gateway.idle_seconds == 7


def test_file_that_is_not_utf8_says_so(tmp_path: Path) -> None:
    path = tmp_path / "dicomward.toml"
    path.write_bytes(b"# \xff\n")
    with pytest.raises(SettingsError, match="it is not UTF-8 text; save it as UTF-8"):
        load_settings(path)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("127.0.0.1:0", "127.0.0.1", 0),
        ("[fe80::1%eth0]:104", "fe80::1%eth0", 104),
        ("localhost:65535", "localhost", 65535),
    ],
)
def test_host_and_port_are_read(text: str, host: str, port: int) -> None:
    assert parse_host_port(text) == ListenAddress(host=host, port=port)


@pytest.mark.parametrize(
    "text", ["", "host", "host:", ":104", "host:-1", "::1:104", "[::1]", "a b:1", "host:1x", "h:\uff11", "[::1%]:1"]
)
def test_text_that_is_not_host_and_port_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is not HOST:PORT"):
        parse_host_port(text)


def test_port_above_the_range_is_refused() -> None:
    with pytest.raises(ValueError, match="above 65535"):
        parse_host_port("localhost:65536")


def test_trap_no_section_or_limit_can_be_emptied_to_allow_everything() -> None:
    """Trap 7: an empty list that allows everything."""
    for text in (
        "[tls]\ncertificates = []",
        '[tls]\nclient_ca = ""',
        '[policy]\nfile = ""',
        '[registry]\nsnapshot = ""',
    ):
        assert problems(text)


def test_every_setting_has_a_reason() -> None:
    for section in SECTIONS.values():
        for item in fields(section):
            assert item.metadata["reason"], item.name


def test_docs_list_every_setting() -> None:
    page = SETTINGS_PAGE.read_text(encoding="utf-8")
    expected = replace_generated(page, render_settings())
    assert page == expected, "run: python tools/generate_reference_docs.py"


def test_settings_import_nothing_heavy() -> None:
    code = (
        "import sys, dicomward.settings;"
        "print([m for m in ('sqlalchemy','alembic','cryptography','ssl','asyncio','difflib') if m in sys.modules])"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=ENVIRONMENT)
    assert found.stdout == "[]\n"


# --- monitoring and logs ---


def test_metrics_are_off_until_an_address_is_named() -> None:
    assert parse_settings("", path=CONFIG).metrics.listen is None
    assert parse_settings('[metrics]\nlisten = "off"', path=CONFIG).metrics.listen is None
    named = parse_settings('[metrics]\nlisten = "[::1]:9762"', path=CONFIG).metrics.listen
    assert named == ListenAddress(host="::1", port=9762)
    assert "is not HOST:PORT" in only_problem('[metrics]\nlisten = "on"')


@pytest.mark.parametrize("taken", ["listen", "archive_listen"])
def test_metrics_need_a_port_of_their_own(taken: str) -> None:
    text = f'[gateway]\n{taken} = "127.0.0.1:9762"\n[metrics]\nlisten = "127.0.0.1:9762"'
    assert "127.0.0.1:9762 is taken by devices or archives" in only_problem(text)


def test_logs_are_text_from_info_on() -> None:
    logs = parse_settings("", path=CONFIG).logging
    assert (logs.format, logs.level) == ("text", "info")
    assert 'write "text" or "json"' in only_problem('[logging]\nformat = "xml"')


LDAP = '[people]\nldap_url = "ldaps://ldap.example"\nldap_ca = "ca.pem"\n'


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("ldaps://ldap.example", ("ldap.example", 636, True)),
        ("ldap://ldap.example/", ("ldap.example", 389, False)),
        ("ldaps://[::1]:1636", ("::1", 1636, True)),
        ("http://ldap.example", None),
        ("ldaps://ldap.example:0", None),
        ("ldaps://ldap.example:65536", None),
        ("ldaps://", None),
    ],
)
def test_where_a_directory_is(url: str, expected: tuple[str, int, bool] | None) -> None:
    assert parse_ldap_url(url) == expected


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('[people]\nldap_url = "ldap.example"\nldap_ca = "x"\nldap_person_dn = "uid={username}"', "is no directory"),
        ('[people]\nldap_url = "ldaps://x"\nldap_person_dn = "uid={username}"', "ldap_ca is missing"),
        (LDAP + 'ldap_person_dn = "uid=anna"', "{username} is missing"),
        (LDAP, "ldap_person_dn and ldap_search_base are missing"),
        (LDAP + 'ldap_search_base = "dc=x"\nldap_search_filter = "(uid=anna)"', "{username} is missing"),
        ('[people]\njwt_keys = "x"\njwt_issuer = "x"', "jwt_audience is missing"),
        ('[people]\njwt_keys = "x"\njwt_audience = "x"', "jwt_issuer is missing"),
        ('[people]\njwt_keys = "x"\njwt_issuer = "x"\njwt_audience = "x"\njwt_algorithms = []', "jwt_algorithms is mi"),
        ('[people]\njwt_algorithms = ["none"]', "'none' is not known"),
        ('[operators]\nsecond_person = "all"', 'write ["all"], or [] for none'),
        ('[operators]\nsecond_person = ["device-chance"]', "did you mean 'device-change'?"),
        ('[operators]\nsecond_person = ["bypass"]', "second_person[0]: 'bypass' is not known"),
    ],
)
def test_people_and_operators_that_can_not_work_are_mistakes(text: str, says: str) -> None:
    assert says in only_problem(text)


def test_people_and_operators_that_work() -> None:
    text = LDAP + 'ldap_search_base = "dc=x"\n[operators]\nsecond_person = ["all", "all"]\n'
    settings = parse_settings(text, path=CONFIG)
    assert settings.people.ldap_ca == CONFIG.parent / "ca.pem"
    assert settings.people.jwt_keys is None
    assert settings.operators.second_person == ("all",)
