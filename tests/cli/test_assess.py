"""`dicomward assess`: nothing is sent without authority, and what is sent is on record."""

import io
import json
import sqlite3
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path

import pytest

from dicomward.cli.assess import ProgressLine
from dicomward.cli.main import main
from dicomward.dicom.codec import encode_pdu
from dicomward.dicom.pdu import AAssociateRj
from dicomward.io.assess.run import Progress
from dicomward.io.assess.store import AssessStore
from tests.io.strange_servers import StrangeServer, answering

REJECT = encode_pdu(AAssociateRj(result=1, source=1, reason=3))
TODAY = datetime.now(UTC).date()  # noqa: TID251  the command has a real clock


class Place:
    """A scope for one server on loopback, and a directory for the results."""

    def __init__(self, directory: Path, port: int, **lines: str) -> None:
        self.scope = directory / "scope.toml"
        self.out = directory / "out"
        self.scope.write_text(
            f"""
owner = "Clinic"
authorisation = "A-17"
contact = "it@clinic.example"
valid_from = {lines.get("begin", TODAY)}
valid_until = {lines.get("end", TODAY)}
dimse_ports = [{port}]
web_ports = []
{lines.get("more", "")}
[[network]]
cidr = "{lines.get("cidr", "127.0.0.1/32")}"
site = "Main"
[[do_not_probe]]
cidr = "127.0.0.7"
reason = "ventilator"
[pace]
connect_timeout = 0.5
answer_timeout = 0.5
"""
        )

    @property
    def hash(self) -> str:
        return sha256(self.scope.read_bytes()).hexdigest()

    def run(self, *options: str, confirm: bool = True) -> int:
        confirmed = ("--confirm", self.hash) if confirm else ()
        return main(["assess", str(self.scope), "--out", str(self.out), *confirmed, *options])


def test_server_is_assessed_and_every_probe_is_on_record(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StrangeServer(answering(REJECT)) as server:
        place = Place(tmp_path, server.port, cidr="127.0.0.0/29")
        assert place.run("--json") == 0
        calls = server.calls
    result = json.loads(capsys.readouterr().out)
    assert [(each["address"], each["port"]) for each in result["servers"]] == [("127.0.0.1", server.port)]
    assert result["servers"][0]["site"] == "Main"
    assert result["hosts"] == {"done": 6, "total": 6} or result["hosts"] == {"done": 5, "total": 5}
    assert result["run"]["scope_sha256"] == place.hash
    assert calls == 2
    assert main(["audit", "verify", "--directory", str(place.out / "audit")]) == 0
    capsys.readouterr()
    assert main(["audit", "search", "--directory", str(place.out / "audit"), "--json", "--code", "DW-PROBE"]) == 0
    probes = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["address"] for each in probes} == {f"127.0.0.{n}" for n in range(1, 7)}
    assert [each["action"] for each in probes if each["address"] == "127.0.0.1"] == ["connect", "association"]


def test_excluded_addresses_are_named_and_not_touched(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StrangeServer(answering(REJECT), host="127.0.0.7") as server:
        targets = tmp_path / "list.txt"
        targets.write_text("127.0.0.7\n127.0.0.1\n192.0.2.1\n")
        place = Place(tmp_path, server.port, cidr="127.0.0.0/24")
        assert place.run("--json", "--targets", str(targets)) == 0
        assert server.calls == 0
    excluded = {each["address"]: each["why"] for each in json.loads(capsys.readouterr().out)["excluded"]}
    assert excluded == {"127.0.0.7": "do_not_probe 127.0.0.7/32: ventilator", "192.0.2.1": "outside the scope"}


def test_what_was_not_touched_is_printed_with_the_reason(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    targets = tmp_path / "list.txt"
    strangers = [f"192.0.2.{n}" for n in range(1, 11)]
    targets.write_text("\n".join(["127.0.0.7", "nobody.invalid", *strangers]))
    assert Place(tmp_path, 9, cidr="127.0.0.0/24").run("--targets", str(targets)) == 0
    lines = [each for each in capsys.readouterr().out.splitlines() if each.startswith("not touched: ")]
    assert "not touched: 127.0.0.7 (do_not_probe 127.0.0.7/32: ventilator)" in lines
    assert any(each.startswith("not touched: nobody.invalid (the name can't be resolved") for each in lines)
    assert any(each.endswith(" and 2 more (outside the scope)") for each in lines)
    assert len(lines) == 3


@pytest.fixture
def auckland(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("TZ", "Pacific/Auckland")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.mark.usefixtures("auckland")
def test_last_day_ends_at_midnight_where_the_machine_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    # 11:30 and 10:30 of the 25th in UTC; midnight has passed in the one case.
    days = {"begin": "2026-11-20", "end": "2026-11-25"}
    with StrangeServer(answering(REJECT)) as server:
        place = Place(tmp_path, server.port, **days)
        monkeypatch.setattr("dicomward.cli.assess.now", lambda: datetime(2026, 11, 25, 11, 30, tzinfo=UTC))
        assert place.run() == 1
        assert server.calls == 0
        assert "today is 2026-11-26: nothing was sent" in capsys.readouterr().err
        monkeypatch.setattr("dicomward.cli.assess.now", lambda: datetime(2026, 11, 25, 10, 30, tzinfo=UTC))
        assert place.run() == 0
        assert server.calls > 0


@pytest.mark.parametrize(
    ("typed", "said"),
    [("", "was not confirmed"), ("0123456789abcdef\n", "is not the hash of this scope"), ("abc\n", "is not the hash")],
)
def test_scope_that_is_not_confirmed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, typed: str, said: str
) -> None:
    with StrangeServer(answering(REJECT)) as server:
        place = Place(tmp_path, server.port)
        monkeypatch.setattr("sys.stdin", io.StringIO(typed))
        assert place.run(confirm=False) == 1
        assert server.calls == 0
    error = capsys.readouterr().err
    assert said in error
    assert place.hash in error
    assert "A-17" in error
    assert not place.out.exists()


def test_scope_is_confirmed_at_the_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    with StrangeServer(answering(REJECT)) as server:
        place = Place(tmp_path, server.port)
        monkeypatch.setattr("sys.stdin", io.StringIO(f"{place.hash[:8].upper()}\n"))
        assert place.run(confirm=False) == 0
    output = capsys.readouterr().out
    assert "1 of 1 hosts done, 1 servers" in output
    assert "DWA-TLS-OPTIONAL" in output


@pytest.mark.parametrize(("begin", "end"), [(-9, -1), (1, 9)])
def test_scope_that_is_not_valid_today(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], begin: int, end: int
) -> None:
    with StrangeServer(answering(REJECT)) as server:
        days = {"begin": str(TODAY + timedelta(days=begin)), "end": str(TODAY + timedelta(days=end))}
        assert Place(tmp_path, server.port, **days).run() == 1
        assert server.calls == 0
    assert "nothing was sent" in capsys.readouterr().err


def test_stop_file_ends_the_run_and_resume_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StrangeServer(answering(REJECT)) as server:
        place = Place(tmp_path, server.port, cidr="127.0.0.0/30")
        place.out.mkdir()
        (place.out / "STOP").touch()
        assert place.run() == 1
        assert server.calls == 0
        assert "stop file" in capsys.readouterr().err
        assert place.run() == 1
        assert "--resume" in capsys.readouterr().err
        (place.out / "STOP").unlink()
        assert place.run("--resume") == 0
        assert server.calls == 2
        assert place.run("--resume") == 0
        assert server.calls == 2
    with AssessStore(place.out) as store:
        assert store.progress() == (2, 2)
        assert store.reach_of("127.0.0.2") == "refused"


def test_resume_with_another_scope_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with StrangeServer(answering(REJECT)) as server:
        place = Place(tmp_path, server.port)
        assert place.run() == 0
        Place(tmp_path, server.port, more='called_ae_titles = ["X"]')
        assert place.run("--resume") == 1
    assert "another scope" in capsys.readouterr().err


def test_resume_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Place(tmp_path, 1).run("--resume") == 1
    assert "holds no assessment" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--targets", "missing.txt"), "can't be read"),
        (("--dns", "nowhere"), "is no address"),
        (("--dns", "127.0.0.1:0"), "has no port"),
        (("--dns", "[::1]:53x"), None),
    ],
)
def test_wrong_options(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], options: tuple[str, ...], said: str | None
) -> None:
    code = Place(tmp_path, 1).run(*options)
    assert code == (0 if said is None else 2)
    assert said is None or said in capsys.readouterr().err


def test_wrong_scope(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    scope = tmp_path / "s.toml"
    assert main(["assess", str(scope), "--out", str(tmp_path / "o")]) == 2
    scope.write_text("owner = 1")
    assert main(["assess", str(scope), "--out", str(tmp_path / "o")]) == 2
    assert "needs owner" in capsys.readouterr().err


def test_networks_that_are_too_large_need_a_list(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert Place(tmp_path, 1, cidr="fd00::/64").run() == 2
    assert "--targets" in capsys.readouterr().err


def test_target_files_that_name_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text("# nothing\n")
    (tmp_path / "b").write_bytes(b"\xff\xfe\xff")
    (tmp_path / "c").write_text("???")
    for name, said in (("a", "no host with an open port"), ("b", "not UTF-8"), ("c", "line 1")):
        assert Place(tmp_path, 1).run("--targets", str(tmp_path / name)) == 2
        assert said in capsys.readouterr().err


def test_list_of_sites_is_taken_from_the_scope_or_the_command_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "sites.csv").write_text("127.0.0.0/8, FR, Listed\n")
    (tmp_path / "other.csv").write_text("127.0.0.1, Sweden\n")
    with StrangeServer(answering(REJECT)) as server:
        for number, (options, expected) in enumerate(
            [((), ("FR", "Listed")), (("--sites", str(tmp_path / "other.csv")), ("SE", "Main"))]
        ):
            place = Place(tmp_path, server.port, more='sites = "sites.csv"')
            place.out = tmp_path / str(number)
            assert place.run("--json", *options) == 0
            (seen,) = json.loads(capsys.readouterr().out)["servers"]
            assert (seen["country"], seen["site"]) == expected
    assert main(["assess", "report", str(place.out), "--format", "json", "--sites", str(tmp_path / "sites.csv")]) == 0
    assert [each["code"] for each in json.loads(capsys.readouterr().out)["countries"]] == ["FR"]


def test_wrong_lists_of_sites(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").write_text("127.0.0.0/8, Atlantis\n")
    (tmp_path / "b").write_bytes(b"\xff\xfe\xff")
    for name, said in (("a", "line 1: 'Atlantis' is no country"), ("b", "not UTF-8"), ("c", "can't be read")):
        assert Place(tmp_path, 1).run("--sites", str(tmp_path / name)) == 2
        assert said in capsys.readouterr().err


def test_authority_that_cannot_be_read_is_told_before_anything_is_sent(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with StrangeServer(answering(REJECT)) as server:
        assert Place(tmp_path, server.port, more='ca_file = "ca.pem"').run() == 2
        (tmp_path / "ca.pem").write_text("no certificate")
        assert Place(tmp_path, server.port, more='ca_file = "ca.pem"').run() == 2
        assert server.calls == 0
    assert capsys.readouterr().err.count("ca.pem can't be used") == 2


def test_directories_that_cannot_be_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = Place(tmp_path, 1)
    place.out.write_text("a file")
    assert place.run() == 2
    assert "is no directory" in capsys.readouterr().err
    place.out = Path("/proc/nowhere")
    assert place.run() == 1
    assert "name another one" in capsys.readouterr().err


def test_full_disk_is_told_with_what_to_do(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: AssessStore, *arguments: object, **named: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with StrangeServer(answering(REJECT)) as server:
        place = Place(tmp_path, server.port)
        with monkeypatch.context() as patch:
            patch.setattr(AssessStore, "finish_host", full)
            assert place.run() == 1
        assert "disk is full; make room, then go on by --resume" in capsys.readouterr().err
        assert place.run("--resume") == 0


def test_results_are_for_their_owner_only(tmp_path: Path) -> None:
    place = Place(tmp_path, 1)
    place.out.mkdir(mode=0o755)
    assert place.run() == 0
    assert (place.out / "run.sqlite").stat().st_mode & 0o077 == 0


def test_progress_is_shown_now_and_then_where_no_terminal_is(capsys: pytest.CaptureFixture[str]) -> None:
    now = 0.0
    line = ProgressLine(lambda: now)
    for now in (1.0, 31.0, 32.0, 62.0):
        line.show(Progress(done=int(now), total=100, servers=2, seconds=now))
    line.end()
    assert capsys.readouterr().err.splitlines() == [
        "31 of 100 hosts, 2 servers, about 69 s left",
        "62 of 100 hosts, 2 servers, about 38 s left",
    ]


def test_progress_is_a_bar_on_a_terminal(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True, raising=False)
    line = ProgressLine()
    line.show(Progress(done=12, total=24, servers=1, seconds=2, is_counting=True))
    line.end()
    assert "[############............] 12 of 24 counted, 1 servers, about 2 s left" in capsys.readouterr().err
