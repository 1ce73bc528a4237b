"""Client stacks behind one face: DCMTK, pynetdicom, dcmjs-dimse, GDCM, odil. Each answer is an `Outcome` to compare."""

import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import pydicom
import pytest
from pydicom import Dataset
from pydicom.uid import UID
from pynetdicom import AE, build_role, evt

from tests.real.pki import Credentials
from tests.real.processes import LOOPBACK, REPOSITORY, run
from tests.real.raw_store import send_raw_store
from tests.real.recording_archive import (
    STUDY_FIND,
    STUDY_GET,
    STUDY_MOVE,
    TRANSFER_SYNTAXES,
    VERIFICATION,
    WORKLIST,
    storage_contexts,
)
from tests.real.samples import Sample, read_sample
from tests.real.servers import DCMTK, need
from tests.real.tunnel import Tunnel


@dataclass(frozen=True, slots=True, kw_only=True)
class Route:
    """One way to a server: straight and in plaintext, or through the gateway with a certificate."""

    port: int
    calling_ae_title: str
    called_ae_title: str
    credentials: Credentials | None = None

    def plain(self) -> AbstractContextManager[int]:
        """Give the port for a client that has no TLS: the server's own, or that of a tunnel to the gateway."""
        if self.credentials is None:
            return nullcontext(self.port)
        return _TunnelPort(Tunnel(self.port, self.credentials))


class _TunnelPort(AbstractContextManager[int]):
    def __init__(self, tunnel: Tunnel) -> None:
        self._tunnel = tunnel

    def __enter__(self) -> int:
        return self._tunnel.__enter__().port

    def __exit__(self, *args: object) -> None:
        self._tunnel.__exit__(*args)


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What a client saw: did it call it a success, which statuses, which matches, which objects (UID and hash)."""

    succeeded: bool
    statuses: tuple[str, ...] = ()
    matches: tuple[str, ...] = ()
    received: tuple[tuple[str, str], ...] = ()


class Stack(Protocol):
    """A client stack. What it can't do it doesn't claim in `services`."""

    name: str
    services: frozenset[str]

    def echo(self, route: Route) -> Outcome: ...
    def store(self, route: Route, samples: Sequence[Sample]) -> Outcome: ...
    def find(self, route: Route, keys: Mapping[str, str]) -> Outcome: ...
    def worklist(self, route: Route) -> Outcome: ...
    def get(self, route: Route, study: str) -> Outcome: ...
    def move(self, route: Route, study: str, destination: str) -> Outcome: ...


def digest(data: bytes) -> str:
    """Return a short hash to compare data sets by."""
    return hashlib.sha256(data).hexdigest()[:16]


def received_in(folder: Path) -> tuple[tuple[str, str], ...]:
    """Return what a client has retrieved into a folder, for an `Outcome`."""
    received = []
    for path in folder.iterdir():
        # Its file meta information names the client itself; what has come over the wire is the rest.
        if (came := read_sample(path)) is None:
            raise AssertionError(f"the client has written no DICOM file: {path}")
        received.append((came.sop_instance_uid, f"{came.transfer_syntax_uid} {digest(came.data_set)}"))
    return tuple(sorted(received))


def describe(data_set: Dataset) -> str:
    """Return one line that two equal matches share, whatever encoding they came in.

    What an archive adds of its own (its title, the group lengths) is the same on both routes and stays.
    """
    return "; ".join(sorted(f"{element.keyword or element.tag}={element.value}" for element in data_set))


class _Unsupported:
    name = ""
    services: frozenset[str] = frozenset()

    def _cannot(self) -> Outcome:
        raise NotImplementedError(f"{self.name} has no such service")

    def echo(self, route: Route) -> Outcome:
        return self._cannot()

    def store(self, route: Route, samples: Sequence[Sample]) -> Outcome:
        return self._cannot()

    def find(self, route: Route, keys: Mapping[str, str]) -> Outcome:
        return self._cannot()

    def worklist(self, route: Route) -> Outcome:
        return self._cannot()

    def get(self, route: Route, study: str) -> Outcome:
        return self._cannot()

    def move(self, route: Route, study: str, destination: str) -> Outcome:
        return self._cannot()


_RESPONSE: Final = re.compile(r"Received (?:Final )?\w+ Response(?: \d+)? \(([^)]*)\)")


class Dcmtk(_Unsupported):
    """DCMTK 3.6.7. echoscu, storescu and findscu do TLS; getscu and movescu go by the tunnel."""

    name = "dcmtk"
    services = frozenset({"echo", "store", "find", "worklist", "get", "move"})

    def __init__(self, *tls_options: str) -> None:
        """Prepare; options such as "+pz" choose a TLS profile."""
        self._tls_options = tls_options

    def _run(self, tool: str, route: Route, *arguments: str | Path, tls: bool = True) -> Outcome:
        path = need(DCMTK / tool, "dcmtk")
        titles = ["-aet", route.calling_ae_title, "-aec", route.called_ae_title]
        options, files = _split(arguments)
        if tls:
            secure = [] if route.credentials is None else [*route.credentials.dcmtk(), *self._tls_options]
            done = run([path, "-v", *secure, *titles, *options, LOOPBACK, str(route.port), *files])
        else:
            with route.plain() as port:
                done = run([path, "-v", *titles, *options, LOOPBACK, str(port), *files])
        statuses = tuple(text for text in _RESPONSE.findall(done.stdout) if not text.startswith("Pending"))
        return Outcome(succeeded=done.returncode == 0, statuses=statuses)

    def echo(self, route: Route) -> Outcome:
        return self._run("echoscu", route)

    def store(self, route: Route, samples: Sequence[Sample]) -> Outcome:
        # -R proposes only what the files need; without it storescu offers uncompressed syntaxes alone.
        return self._run("storescu", route, "-R", "--", *(s.path for s in samples))

    def _query(self, route: Route, model: str, keys: Mapping[str, str]) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            options = [text for key, value in keys.items() for text in ("-k", f"{key}={value}" if value else key)]
            outcome = self._run("findscu", route, model, "-X", "-od", folder, *options)
            answers = [pydicom.dcmread(path, force=True) for path in sorted(Path(folder).iterdir())]
            return Outcome(
                succeeded=outcome.succeeded,
                statuses=outcome.statuses,
                matches=tuple(sorted(describe(answer) for answer in answers)),
            )

    def find(self, route: Route, keys: Mapping[str, str]) -> Outcome:
        return self._query(route, "-S", keys)

    def worklist(self, route: Route) -> Outcome:
        return self._query(route, "-W", {"PatientName": "", "PatientID": "", "AccessionNumber": ""})

    def get(self, route: Route, study: str) -> Outcome:
        with tempfile.TemporaryDirectory() as folder:
            keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
            outcome = self._run("getscu", route, "-S", "+B", "-od", folder, *keys, tls=False)
            return Outcome(succeeded=outcome.succeeded, statuses=outcome.statuses, received=received_in(Path(folder)))

    def move(self, route: Route, study: str, destination: str) -> Outcome:
        keys = ("-k", "QueryRetrieveLevel=STUDY", "-k", f"StudyInstanceUID={study}")
        return self._run("movescu", route, "-S", "-aem", destination, *keys, tls=False)


def _split(arguments: Sequence[str | Path]) -> tuple[list[str | Path], list[str | Path]]:
    """Part options from files at "--": DCMTK wants the peer's address between them."""
    if "--" not in arguments:
        return list(arguments), []
    at = arguments.index("--")
    return list(arguments[:at]), list(arguments[at + 1 :])


class Pynetdicom(_Unsupported):
    """pynetdicom 3 in this process, with Python's TLS."""

    name = "pynetdicom"
    services = frozenset({"echo", "store", "find", "worklist", "get", "move"})

    def associate(self, route: Route, contexts: Sequence[Any], **options: Any) -> Any:
        """Request an association; the caller looks at is_established."""
        ae = AE(ae_title=route.calling_ae_title)
        ae.acse_timeout = ae.connection_timeout = 20
        ae.dimse_timeout = ae.network_timeout = 60
        if route.credentials is not None and "tls_args" not in options:
            options["tls_args"] = (route.credentials.client_context(), "localhost")
        return ae.associate(LOOPBACK, route.port, ae_title=route.called_ae_title, contexts=list(contexts), **options)

    def contexts(self, *sop_classes: str) -> list[Any]:
        """Return contexts with the two little endian transfer syntaxes."""
        return [pynetdicom_context(uid) for uid in sop_classes]

    def echo(self, route: Route) -> Outcome:
        association = self.associate(route, self.contexts(VERIFICATION))
        if not association.is_established:
            return refused(association)
        status = association.send_c_echo()
        return _released(association, [status])

    def store(self, route: Route, samples: Sequence[Sample]) -> Outcome:
        association = self.associate(route, storage_contexts(list(samples)))
        if not association.is_established:
            return refused(association)
        statuses = [send_raw_store(association, sample, number) for number, sample in enumerate(samples, 1)]
        association.release()
        return Outcome(
            succeeded=all(status == 0 for status in statuses), statuses=tuple(_hexadecimal(s) for s in statuses)
        )

    def _query(self, route: Route, model: str, query: Dataset) -> Outcome:
        association = self.associate(route, self.contexts(model))
        if not association.is_established:
            return refused(association)
        responses = list(association.send_c_find(query, UID(model)))
        matches = [describe(identifier) for _, identifier in responses if identifier is not None]
        return _released(association, [responses[-1][0]], matches=matches)

    def find(self, route: Route, keys: Mapping[str, str]) -> Outcome:
        return self._query(route, STUDY_FIND, data_set_of(keys))

    def worklist(self, route: Route) -> Outcome:
        return self._query(route, WORKLIST, data_set_of({"PatientName": "", "PatientID": "", "AccessionNumber": ""}))

    def get(self, route: Route, study: str, sop_classes: Sequence[str] = ()) -> Outcome:
        received: list[tuple[str, str]] = []

        def on_store(event: Any) -> int:
            received.append((str(event.request.AffectedSOPInstanceUID), digest(event.request.DataSet.getvalue())))
            return 0x0000

        storage = list(sop_classes) or list(COMMON_IMAGES)
        association = self.associate(
            route,
            [*self.contexts(STUDY_GET), *(pynetdicom_context(uid, TRANSFER_SYNTAXES) for uid in storage)],
            ext_neg=[build_role(UID(uid), scp_role=True) for uid in storage],
            evt_handlers=[(evt.EVT_C_STORE, on_store)],
        )
        if not association.is_established:
            return refused(association)
        responses = list(
            association.send_c_get(
                data_set_of({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study}), UID(STUDY_GET)
            )
        )
        return _released(association, [responses[-1][0]], received=received)

    def move(self, route: Route, study: str, destination: str) -> Outcome:
        association = self.associate(route, self.contexts(STUDY_MOVE))
        if not association.is_established:
            return refused(association)
        query = data_set_of({"QueryRetrieveLevel": "STUDY", "StudyInstanceUID": study})
        responses = list(association.send_c_move(query, destination, UID(STUDY_MOVE)))
        return _released(association, [responses[-1][0]])


COMMON_IMAGES: Final = (
    "1.2.840.10008.5.1.4.1.1.2",
    "1.2.840.10008.5.1.4.1.1.4",
    "1.2.840.10008.5.1.4.1.1.7",
    "1.2.840.10008.5.1.4.1.1.6.1",
)


def pynetdicom_context(uid: str, transfer_syntaxes: Sequence[str] = TRANSFER_SYNTAXES[:2]) -> Any:
    """Return a presentation context of pynetdicom."""
    from pynetdicom import build_context

    return build_context(uid, list(transfer_syntaxes))


def data_set_of(values: Mapping[str, str]) -> Dataset:
    """Return a data set of keywords and values."""
    data_set = Dataset()
    for keyword, value in values.items():
        setattr(data_set, keyword, value)
    return data_set


def refused(association: Any) -> Outcome:
    """Describe an association that was not established: rejected (with its numbers), aborted, or no connection."""
    if (rejection := rejection_of(association)) is not None:
        return Outcome(succeeded=False, statuses=(f"rejected {'/'.join(map(str, rejection))}",))
    return Outcome(succeeded=False, statuses=("aborted" if association.is_aborted else "no association",))


def rejection_of(association: Any) -> tuple[int, int, int] | None:
    """Return result, source and reason of the A-ASSOCIATE-RJ, also of one that pynetdicom 3.0.4 has not looked at.

    On a busy machine its reactor may read the rejection and close the socket before the thread that asked for the
    association looks if there is a connection: then that thread takes it for one that failed, and says "aborted".
    """
    told = association.acceptor.primitive if association.is_rejected else association.dul.peek_next_pdu()
    if getattr(told, "result", None) not in (1, 2):
        return None
    return told.result, told.result_source, told.diagnostic


def _hexadecimal(status: int | None) -> str:
    return "none" if status is None else f"{status:04X}"


def _released(
    association: Any,
    statuses: Sequence[Dataset],
    *,
    matches: Sequence[str] = (),
    received: Sequence[tuple[str, str]] = (),
) -> Outcome:
    numbers = [status.get("Status") for status in statuses]
    association.release()
    return Outcome(
        succeeded=all(number == 0 for number in numbers),
        statuses=tuple(_hexadecimal(number) for number in numbers),
        matches=tuple(sorted(matches)),
        received=tuple(sorted(received)),
    )


NODE_MODULES: Final = Path(os.environ.get("DICOMWARD_NODE_MODULES", REPOSITORY / ".venv" / "node" / "node_modules"))


class Dcmjs(_Unsupported):
    """dcmjs-dimse: a JavaScript stack that shares no code with the others, with Node's TLS."""

    name = "dcmjs"
    services = frozenset({"echo", "store", "find", "worklist", "get", "move"})

    def run(self, route: Route, operation: str, arguments: Mapping[str, object]) -> Outcome:
        """Run tests/real/dcmjs_client.js and read its answer."""
        node = shutil.which("node")
        if node is None or not (NODE_MODULES / "dcmjs-dimse").is_dir():
            pytest.skip("dcmjs-dimse is not installed: `make setup` installs it where node and npm are")
        tls: dict[str, str] = {}
        if route.credentials is not None:
            tls = {
                "key": str(route.credentials.key),
                "cert": str(route.credentials.certificate),
                "ca": str(route.credentials.authority),
            }
        job = {
            "host": "localhost" if tls else LOOPBACK,
            "port": route.port,
            "calling": route.calling_ae_title,
            "called": route.called_ae_title,
            "operation": operation,
            "tls": tls,
            **arguments,
        }
        script = Path(__file__).with_name("dcmjs_client.js")
        done = run([node, script, json.dumps(job)], environment={"NODE_PATH": str(NODE_MODULES)})
        lines = [line for line in done.stdout.splitlines() if line.startswith("{")]
        if not lines:
            raise AssertionError(f"dcmjs-dimse said nothing: {done.stdout[-2000:]}")
        answer = json.loads(lines[-1])
        return Outcome(
            succeeded=not answer["errors"] and all(status == 0 for status in answer["statuses"]),
            statuses=(*(f"{status:04X}" for status in answer["statuses"]), *answer["errors"]),
            matches=tuple(sorted(answer["matches"])),
            received=tuple(sorted((uid, "") for uid in answer["received"])),
        )

    def echo(self, route: Route) -> Outcome:
        return self.run(route, "echo", {})

    def store(self, route: Route, samples: Sequence[Sample]) -> Outcome:
        return self.run(route, "store", {"files": [str(sample.path) for sample in samples]})

    def find(self, route: Route, keys: Mapping[str, str]) -> Outcome:
        elements = {key: value for key, value in keys.items() if key != "QueryRetrieveLevel"}
        return self.run(route, "find", {"elements": elements})

    def worklist(self, route: Route) -> Outcome:
        return self.run(route, "worklist", {"elements": {"PatientName": "", "PatientID": "", "AccessionNumber": ""}})

    def get(self, route: Route, study: str) -> Outcome:
        return self.run(route, "get", {"study": study})

    def move(self, route: Route, study: str, destination: str) -> Outcome:
        return self.run(route, "move", {"study": study, "destination": destination})


_GDCM_STATUS: Final = re.compile(r"^\(0000,0900\) \S+ \(US\) (\d+)", re.MULTILINE)
_GDCM_ELEMENT: Final = re.compile(r"^\((?!0000)[0-9a-f]{4},[0-9a-f]{4}\) .*$", re.MULTILINE)


class Gdcm(_Unsupported):
    """gdcmscu 3.0: releases its association, then ends itself with SIGABRT; judged by the messages that it prints."""

    name = "gdcm"
    services = frozenset({"echo", "store", "find"})

    def _run(self, route: Route, *arguments: str | Path) -> Outcome:
        tool = need(Path("/usr/bin/gdcmscu"), "libgdcm-tools")
        with route.plain() as port:
            titles = ["--aetitle", route.calling_ae_title, "--call", route.called_ae_title]
            options, files = _split(arguments)
            # Without stdbuf its last words would be lost with it.
            printed = run(["stdbuf", "-o0", tool, "-D", *options, *titles, LOOPBACK, str(port), *files]).stdout
        statuses = _GDCM_STATUS.findall(printed)
        return Outcome(
            succeeded=statuses[-1:] == ["0"],
            statuses=tuple(f"{int(status):04X}" for status in statuses[-1:]),
            matches=tuple(sorted(set(_GDCM_ELEMENT.findall(printed)))),
        )

    def echo(self, route: Route) -> Outcome:
        return self._run(route, "--echo")

    def store(self, route: Route, samples: Sequence[Sample]) -> Outcome:
        outcome = self._run(route, "--store", "--", *(sample.path for sample in samples))
        return Outcome(succeeded=outcome.succeeded, statuses=outcome.statuses)

    def find(self, route: Route, keys: Mapping[str, str]) -> Outcome:
        return self._run(route, "--find", "--studyroot", "--study", "--key", f"10,20={keys['PatientID']}")


class Odil(_Unsupported):
    """odil 0.12: a C++11 stack of its own (its `get` has a bug of its own and is not used)."""

    name = "odil"
    services = frozenset({"echo", "store", "find"})

    def _run(self, command: str, route: Route, *arguments: str | Path) -> Any:
        tool = need(Path("/usr/bin/odil"), "odil")
        with route.plain() as port:
            return run([tool, command, LOOPBACK, str(port), route.calling_ae_title, route.called_ae_title, *arguments])

    def echo(self, route: Route) -> Outcome:
        return Outcome(succeeded=self._run("echo", route).returncode == 0)

    def store(self, route: Route, samples: Sequence[Sample]) -> Outcome:
        return Outcome(succeeded=self._run("store", route, *(sample.path for sample in samples)).returncode == 0)

    def find(self, route: Route, keys: Mapping[str, str]) -> Outcome:
        arguments = [f"{key}={value}" if value else key for key, value in keys.items()]
        done = self._run("find", route, "study", *arguments)
        lines = tuple(sorted(line.strip() for line in done.stdout.splitlines() if line.strip()))
        return Outcome(succeeded=done.returncode == 0, matches=lines)


STACKS: Final[tuple[Stack, ...]] = (Dcmtk(), Pynetdicom(), Dcmjs(), Gdcm(), Odil())
