"""Workers count whole scopes, also together and after one is killed; and no value of a patient is found anywhere."""

import base64
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import date
from pathlib import Path

import pytest
from fleet.server import Acceptor

import dicomward.io.assess.count_run as count_run_module
from dicomward.assess.count_totals import totals_of
from dicomward.assess.isolation import Verdict
from dicomward.assess.observation import Control, Reach, ServerObservation
from dicomward.assess.sites import read_sites
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.framing import encode_p_data
from dicomward.io.assess.count_run import CountJob, observe, registered_country, work
from dicomward.io.assess.shards import Lease, LeaseLost, ShardStore
from tests.assess.identifiers import STUDY_ROOT, identifier, response
from tests.docs.pages import ROOT
from tests.io.count_peers import CALLER, archive, serving, simulated

JOB = CountJob(caller=CALLER, today=date(2026, 11, 25), sites=read_sites("127.0.0.0/8, DE, Test"), threads=2)
CANARIES = (b"CANARYNAME", b"CANARYADDRESS", b"CANARYPHONE", b"CANARYNUMBER", b"CANARYDIAGNOSIS", b"CANARYCOMMENT")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[ShardStore]:
    opened = ShardStore(f"sqlite:///{tmp_path / 'shards.sqlite'}")
    yield opened
    opened.close()


@pytest.fixture(autouse=True)
def _dumpable(monkeypatch: pytest.MonkeyPatch) -> None:
    # The process of the tests stays as it is; tests/io/assess/test_count_secrecy.py looks at the real thing.
    monkeypatch.setattr(count_run_module, "forbid_dumps", lambda: None)


def see(port: int) -> ServerObservation:
    return observe("127.0.0.1", port, JOB, None, lambda: False)


@pytest.mark.parametrize(
    ("values", "find", "calling", "storage"),
    [
        ({}, Verdict.FAIL, Verdict.FAIL, Verdict.FAIL),
        ({"storage": False}, Verdict.FAIL, Verdict.FAIL, Verdict.PASS),
        ({"kind": "guarded"}, Verdict.NOT_RUN, Verdict.PASS, Verdict.NOT_RUN),
        ({"kind": "no-query"}, Verdict.PASS, Verdict.FAIL, Verdict.FAIL),
        ({"kind": "failing"}, Verdict.INCONCLUSIVE, Verdict.FAIL, Verdict.FAIL),
    ],
)
def test_verdicts_follow_from_what_was_seen(
    values: dict[str, object], find: Verdict, calling: Verdict, storage: Verdict
) -> None:
    with serving(simulated(archive(**values))) as port:
        seen = see(port)
    assert seen.reach is Reach.ANSWERED
    assert (seen.country, seen.site, seen.country_source) == ("DE", "Test", "site")
    assert seen.verdict_of(Control.FIND) is find
    assert seen.verdict_of(Control.CALLING_AE_TITLE) is calling
    assert seen.verdict_of(Control.STORAGE_CONTEXTS) is storage
    if calling is Verdict.FAIL:
        assert seen.product.implementation_version_name == "OFFIS_DCMTK_367"


class Refusing(Acceptor):
    def _find(self) -> None:
        self._respond(0x0124)


class Busy(Acceptor):
    def _answer(self, request: object) -> None:
        self._connection.sendall(b"\3\0\0\0\0\4\0\2\3\2")


def test_refused_query_passes_and_a_busy_server_is_inconclusive() -> None:
    with serving(simulated(archive(), Refusing)) as port:
        assert see(port).verdict_of(Control.FIND) is Verdict.PASS
    with serving(simulated(archive(), Busy)) as port:
        assert see(port).verdict_of(Control.CALLING_AE_TITLE) is Verdict.INCONCLUSIVE
    assert see(port).reach is Reach.UNREACHABLE
    with serving(lambda connection: connection.sendall(b"SSH-2.0\r\n")) as port:
        assert see(port).reach is Reach.OTHER


def test_registration_is_known_offline() -> None:
    assert registered_country("8.8.8.8") == "US"
    assert registered_country("127.0.0.1") is None


def test_scope_is_worked_on_until_it_is_done(store: ShardStore) -> None:
    progress: list[int] = []
    with ExitStack() as stack:
        ports = [stack.enter_context(serving(simulated(archive(patients=n, studies=3 * n)))) for n in range(1, 6)]
        store.plan([("127.0.0.1", port) for port in ports], size=2)
        work(store, JOB, worker="w", on_progress=lambda: progress.append(1))
    totals = totals_of(store.observations())
    assert (totals.leaking, totals.personal, totals.medical, len(progress)) == (5, 15, 45, 5)
    assert store.is_done()


def test_stopped_worker_leaves_the_rest_to_others(store: ShardStore) -> None:
    with serving(simulated(archive())) as port:
        store.plan([("127.0.0.1", port)])
        answers = iter([False, False])
        work(store, JOB, worker="w", is_stopped=lambda: next(answers, True))
        assert store.progress().done == 0
        work(store, JOB, worker="v")
    assert store.progress().done == 1


def test_worker_waits_for_the_shards_of_others_and_takes_over(
    store: ShardStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(count_run_module, "_WAIT_SECONDS", 0.01)
    with serving(simulated(archive())) as port:
        store.plan([("127.0.0.1", port)])
        other = ShardStore(f"sqlite:///{tmp_path / 'shards.sqlite'}", lease_seconds=1)
        assert other.lease("dies") is not None
        work(store, JOB, worker="lives")
        other.close()
    assert store.progress().done == 1


@pytest.mark.parametrize("method", ["finish_server", "finish_shard", "renew"])
def test_lost_lease_drops_what_was_seen(method: str, store: ShardStore, monkeypatch: pytest.MonkeyPatch) -> None:
    real = getattr(store, method)
    calls: list[int] = []

    def lose(*arguments: object) -> None:
        calls.append(1)
        if len(calls) == 1:
            store.give_back(arguments[0] if isinstance(arguments[0], Lease) else Lease(0, ""))
            raise LeaseLost("it is another's")
        real(*arguments)

    monkeypatch.setattr(store, method, lose)
    store.renew_seconds = 0.001
    with serving(simulated(archive())) as port:
        store.plan([("127.0.0.1", port)])
        work(store, JOB, worker="w")
    totals = totals_of(store.observations())
    assert (totals.leaking, totals.medical) == (1, 23)


class Leaky(Acceptor):
    """Canaries in every value, in error comments, in what breaks off and in what is no DICOM at all."""

    broken = b""

    def _find(self) -> None:
        number = (self._command.message_id if self._command else None) or 0
        match = identifier(
            t00080020=b"20200101",
            t00081080=CANARIES[4],
            t00100010=CANARIES[0],
            t00100020=CANARIES[3],
            t00101040=CANARIES[1],
            t00102150=CANARIES[0],
            t00102154=CANARIES[2],
        )
        self._connection.sendall(response(match, message_id=number) * 7 + response(match[:-3], message_id=number))
        self._connection.sendall(self.broken)
        final = CommandSet(
            command_field=0x8020,
            message_id_being_responded_to=number,
            affected_sop_class_uid=STUDY_ROOT,
            status=0xC001,
            error_comment=CANARIES[5].decode(),
        )
        self._connection.sendall(encode_p_data(3, encode_command_set(final), 16_384, command=True))


class LeakyBroken(Leaky):
    broken = b"".join(CANARIES)


class LeakyCommand(Leaky):
    broken = encode_p_data(3, b"".join(CANARIES), 16_384, command=True)


def test_no_value_reaches_output_logs_or_disk(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shards.sqlite'}"
    plan = ShardStore(url)
    (tmp_path / "sites.csv").write_text("127.0.0.0/8, DE\n")
    with ExitStack() as stack:
        ports = [
            stack.enter_context(serving(simulated(archive(), kind))) for kind in (Leaky, LeakyBroken, LeakyCommand)
        ]
        plan.plan([("127.0.0.1", port) for port in ports])
        done = subprocess.run(
            [sys.executable, "-X", "dev", "-m", "fleet.worker", str(tmp_path), url, "2"],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": f"{ROOT / 'src'}", "TMPDIR": str(tmp_path)},
            capture_output=True,
            check=False,
            timeout=60,
        )
    assert done.returncode == 0, done.stderr
    found = totals_of(plan.observations())
    assert (found.leaking, found.personal) == (3, 3)
    everything = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    everything |= {Path("stdout"): done.stdout, Path("stderr"): done.stderr}
    plan.close()
    assert len(everything) >= 4
    for path, data in everything.items():
        for canary in CANARIES:
            forms = (canary, canary.hex().encode(), base64.b64encode(canary)[:10], canary.decode().encode("utf-16-le"))
            assert not any(form.lower() in data.lower() for form in forms), (path, canary)


def test_killed_worker_is_replaced_and_nothing_counts_twice(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'shards.sqlite'}"
    store = ShardStore(url)
    (tmp_path / "sites.csv").write_text("127.0.0.0/8, DE\n")
    command = [sys.executable, "-m", "fleet.worker", str(tmp_path), url, "1"]
    environment = {**os.environ, "PYTHONPATH": f"{ROOT / 'src'}"}
    with ExitStack() as stack:
        servers = [archive(patients=50 + n, studies=4000 + n, days=4000) for n in range(6)]
        ports = [stack.enter_context(serving(simulated(server))) for server in servers]
        store.plan([("127.0.0.1", port) for port in ports], size=2)
        with subprocess.Popen(command, cwd=ROOT, env=environment) as worker:
            while not store.progress().done:
                assert worker.poll() is None
            worker.send_signal(signal.SIGKILL)
        assert store.progress().done < 6
        subprocess.run(command, cwd=ROOT, env=environment, check=True, timeout=60)
    totals = totals_of(store.observations())
    store.close()
    assert (totals.personal, totals.medical) == (
        sum(each.patients for each in servers),
        sum(each.studies for each in servers),
    )
