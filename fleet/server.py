"""Serves a whole fleet from one process: `python -m fleet.server DIRECTORY`.

It listens on every address of the fleet (all of them loopback), prints "ready", and ends with its standard input.
"""

import contextlib
import os
import resource
import select
import selectors
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Final

from dicomward.assess.count_slices import slice_named
from dicomward.dicom.association import Association
from dicomward.dicom.dimse import CommandSet, encode_command_set
from dicomward.dicom.events import AssociationRequested, CommandReceived, ReleaseRequested
from dicomward.dicom.framing import HEADROOM, DataRun, encode_p_data, fragments_of
from dicomward.dicom.limits import Limits
from dicomward.dicom.pdu import (
    AAssociateAc,
    AAssociateRj,
    AAssociateRq,
    AReleaseRp,
    PresentationContextAc,
    PresentationContextRq,
    UserInformation,
)
from dicomward.vocab.association import PresentationResult
from dicomward.vocab.dimse import RESPONSE_BIT, Operation, Status
from dicomward.vocab.services import SERVICE_OF_SOP_CLASS, VERIFICATION, Service
from dicomward.vocab.uid import IMPLICIT_VR_LITTLE_ENDIAN
from fleet.answers import PATIENT_ID, STUDY_INSTANCE_UID, Answers, studies_between, studies_with_uid
from fleet.manifest import CERTIFICATE, PRODUCTS, Server, read_fleet

STUDY_ROOT: Final = "1.2.840.10008.5.1.4.1.2.2.1"
_IDLE_SECONDS: Final = 60


def serve(directory: Path) -> None:
    """Listen for the fleet of `directory` until standard input ends."""
    servers = read_fleet(directory)
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(most, len(servers) + 1000), most))
    contexts = {kind: _context(directory, kind) for kind in {each.tls for each in servers}}
    selector = selectors.DefaultSelector()
    for server in servers:
        listener = socket.create_server((server.address, server.port), backlog=16)
        listener.setblocking(False)
        selector.register(listener, selectors.EVENT_READ, server)
    selector.register(sys.stdin, selectors.EVENT_READ, None)
    print("ready", flush=True)
    while True:
        for key, _ in selector.select():
            if key.data is None:
                if not os.read(0, 1):
                    return
                continue
            with contextlib.suppress(OSError):
                connection, _ = key.fileobj.accept()  # type: ignore[union-attr]
                connection.setblocking(True)
                arguments = (key.data, connection, contexts[key.data.tls])
                threading.Thread(target=_serve_one, args=arguments, daemon=True).start()


def _context(directory: Path, kind: str) -> ssl.SSLContext | None:
    if not kind:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(directory / CERTIFICATE)
    if kind == "certificate":
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(directory / CERTIFICATE)
    return context


def _serve_one(server: Server, connection: socket.socket, context: ssl.SSLContext | None) -> None:
    with connection, contextlib.suppress(OSError):
        connection.settimeout(_IDLE_SECONDS)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if context is None:
            Acceptor(server, connection).run()
            return
        with context.wrap_socket(connection, server_side=True) as inside:
            Acceptor(server, inside).run()


class Acceptor:
    """One association of one simulated server."""

    def __init__(self, server: Server, connection: socket.socket) -> None:
        self._server = server
        self._connection = connection
        self._association = Association(is_requestor=False, limits=Limits())
        self._contexts: dict[int, str] = {}
        self._max_pdu = 16_384
        self._command: CommandSet | None = None
        self._context_id = 0
        self._identifier = bytearray()

    def run(self) -> None:
        """Serve until the association is over."""
        buffer = memoryview(bytearray(HEADROOM + 65_536))
        while not self._association.is_over:
            count = self._connection.recv_into(buffer[HEADROOM:])
            if not count:
                return
            for event in self._association.receive(buffer, HEADROOM, HEADROOM + count):
                match event:
                    case AssociationRequested(request=request):
                        self._answer(request)
                    case CommandReceived(context_id=context_id, command=command):
                        self._begin(context_id, command)
                    case DataRun():
                        self._identifier += b"".join(bytes(part) for part, _ in fragments_of(event.view))
                        if event.last:
                            self._find()
                    case ReleaseRequested():
                        self._connection.sendall(self._association.send(AReleaseRp()))
                        return
                    case _:
                        return

    def _answer(self, request: AAssociateRq) -> None:
        if self._server.kind == "guarded":
            self._connection.sendall(self._association.send(AAssociateRj(result=1, source=1, reason=3)))
            return
        if self._server.called_ae_title not in ("", request.called_ae_title):
            self._connection.sendall(self._association.send(AAssociateRj(result=1, source=1, reason=7)))
            return
        uid, version, _ = PRODUCTS[self._server.product]
        self._max_pdu = min(request.user_information.maximum_length or 131_072, 131_072)
        self._connection.sendall(
            self._association.send(
                AAssociateAc(
                    called_ae_title=request.called_ae_title,
                    calling_ae_title=request.calling_ae_title,
                    presentation_contexts=tuple(self._judge(each) for each in request.presentation_contexts),
                    user_information=UserInformation(
                        maximum_length=65_536, implementation_class_uid=uid, implementation_version_name=version
                    ),
                )
            )
        )

    def _judge(self, offered: PresentationContextRq) -> PresentationContextAc:
        service = SERVICE_OF_SOP_CLASS.get(offered.abstract_syntax)
        accepted = (
            offered.abstract_syntax == VERIFICATION
            or (offered.abstract_syntax == STUDY_ROOT and self._server.kind != "no-query")
            or (service is Service.STORAGE and self._server.storage)
        ) and IMPLICIT_VR_LITTLE_ENDIAN in offered.transfer_syntaxes
        if accepted:
            self._contexts[offered.context_id] = offered.abstract_syntax
        result = PresentationResult.ACCEPTANCE if accepted else PresentationResult.ABSTRACT_SYNTAX_NOT_SUPPORTED
        return PresentationContextAc(
            context_id=offered.context_id, result=result, transfer_syntax=IMPLICIT_VR_LITTLE_ENDIAN
        )

    def _begin(self, context_id: int, command: CommandSet) -> None:
        self._context_id, self._command = context_id, command
        self._identifier.clear()
        if command.is_cancel:
            return
        if not command.has_data_set:
            self._respond(Status.SUCCESS if command.operation is Operation.C_ECHO else Status.UNRECOGNISED_OPERATION)

    def _respond(self, status: int) -> None:
        command = self._command
        if command is None:
            return
        response = CommandSet(
            command_field=command.command_field | RESPONSE_BIT,
            message_id_being_responded_to=command.message_id,
            affected_sop_class_uid=command.affected_sop_class_uid,
            status=status,
        )
        self._connection.sendall(
            encode_p_data(self._context_id, encode_command_set(response), self._max_pdu, command=True)
        )

    def _find(self) -> None:
        command, server = self._command, self._server
        if command is None or command.operation is not Operation.C_FIND:
            self._respond(Status.UNRECOGNISED_OPERATION)
            return
        if server.kind == "failing":
            self._respond(Status.CANNOT_UNDERSTAND)
            return
        keys = _elements(bytes(self._identifier))
        first, last = _range(keys.get(0x00080020, b"").strip(b" \0").decode("ascii", "replace"))
        answers = Answers(
            server,
            frozenset(keys),
            context_id=self._context_id,
            message_id=command.message_id or 0,
            sop_class_uid=command.affected_sop_class_uid or STUDY_ROOT,
            max_pdu_bytes=self._max_pdu,
        )
        waiting = select.poll()
        waiting.register(self._connection, select.POLLIN)
        for chunk in self._chunks(answers, keys, studies_between(server, first, last)):
            self._connection.sendall(chunk)
            if waiting.poll(0):
                # Nothing but C-CANCEL, A-ABORT or the end may come now; in all cases this query is over.
                self._command = command
                self._respond(Status.CANCEL)
                return
        self._respond(Status.SUCCESS)

    def _chunks(self, answers: Answers, keys: dict[int, bytes], studies: range) -> Iterator[bytes]:
        """Yield the answers for what the keys name: everything, one study, or those of one patient."""
        uid, patient = (keys.get(tag, b"").strip(b" \0") for tag in (STUDY_INSTANCE_UID, PATIENT_ID))
        if uid:
            studies = studies_with_uid(studies, uid)
        if not patient:
            yield from answers.chunks(studies)
        elif patient.isdigit():
            number, patients = int(patient), self._server.patients
            first = studies.start + (number - studies.start) % patients if number < patients else studies.stop
            for study in range(first, studies.stop, patients or 1):
                yield from answers.chunks(range(study, study + 1))


def _elements(identifier: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    at = 0
    while at + 8 <= len(identifier):
        group, element, length = (
            int.from_bytes(identifier[at : at + 2], "little"),
            int.from_bytes(identifier[at + 2 : at + 4], "little"),
            int.from_bytes(identifier[at + 4 : at + 8], "little"),
        )
        if element:
            found[group << 16 | element] = identifier[at + 8 : at + 8 + length]
        at += 8 + length
    return found


def _range(text: str) -> tuple[date | None, date | None]:
    if not text:
        return None, None
    if "-" not in text:
        text = f"{text}-{text}"
    first, _, last = text.partition("-")
    both = slice_named(f"{first or '00010101'}-{last or '99991231'}")
    return both.first, both.last


if __name__ == "__main__":
    serve(Path(sys.argv[1]))
