"""DCMTK's tools talk with the codec over loopback: what they send is read without a deviation, and they read ours."""

import socket
import struct
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import pytest
from pydicom.data import get_testdata_file

from dicomward.dicom.codec import decode_pdu, encode_pdu
from dicomward.dicom.dimse import CommandSet, decode_command_set, encode_command_set
from dicomward.dicom.head import scan_head
from dicomward.dicom.pdu import (
    AAssociateAc,
    AAssociateRq,
    AReleaseRp,
    AReleaseRq,
    ControlPdu,
    PresentationContextAc,
    PresentationContextRq,
    UserIdentity,
    UserInformation,
)
from dicomward.vocab.dimse import Operation
from tests.dicom.builders import IMPLICIT, LIMITS, VERIFICATION
from tests.real.processes import LOOPBACK, Child, free_port, run

TOOLS: Final = Path("/usr/bin")
P_DATA: Final = 4
USER: Final = UserInformation(
    maximum_length=16384, implementation_class_uid="1.2.3.4", implementation_version_name="TEST"
)

pytestmark = [
    pytest.mark.real,
    pytest.mark.skipif(not (TOOLS / "storescu").exists(), reason="DCMTK is not installed"),
]


class Wire:
    """PDUs over one socket."""

    def __init__(self, connection: socket.socket) -> None:
        connection.settimeout(30)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._connection = connection

    def send(self, pdu: ControlPdu) -> None:
        self._connection.sendall(encode_pdu(pdu))

    def send_command(self, context_id: int, command: CommandSet) -> None:
        data = encode_command_set(command)
        header = struct.pack(">BBIIBB", P_DATA, 0, len(data) + 6, len(data) + 2, context_id, 0x03)
        self._connection.sendall(header + data)

    def _exactly(self, size: int) -> bytes:
        data = b""
        while len(data) < size:
            more = self._connection.recv(size - len(data))
            if not more:
                raise EOFError(f"{len(data)} of {size} bytes")
            data += more
        return data

    def receive(self) -> tuple[int, bytes]:
        """Type and body of the next PDU."""
        pdu_type, _, length = struct.unpack(">BBI", self._exactly(6))
        return pdu_type, self._exactly(length)

    def receive_control(self) -> ControlPdu:
        pdu_type, body = self.receive()
        return decode_pdu(pdu_type, body, LIMITS)


@dataclass
class Heard:
    """What a requestor said during one association."""

    request: AAssociateRq
    commands: list[tuple[int, CommandSet]] = field(default_factory=list)
    data_sets: list[tuple[int, bytes]] = field(default_factory=list)
    released: bool = False


def _accept(request: AAssociateRq) -> AAssociateAc:
    return AAssociateAc(
        called_ae_title=request.called_ae_title,
        calling_ae_title=request.calling_ae_title,
        presentation_contexts=tuple(
            PresentationContextAc(context_id=c.context_id, result=0, transfer_syntax=c.transfer_syntaxes[0])
            for c in request.presentation_contexts
        ),
        user_information=UserInformation(
            maximum_length=16384,
            implementation_class_uid="1.2.3.4",
            role_selections=request.user_information.role_selections,
        ),
    )


def _success(command: CommandSet) -> CommandSet:
    with_instance = command.operation is Operation.C_STORE
    return CommandSet(
        command_field=command.command_field | 0x8000,
        message_id_being_responded_to=command.message_id,
        affected_sop_class_uid=command.affected_sop_class_uid,
        affected_sop_instance_uid=command.affected_sop_instance_uid if with_instance else None,
        status=0,
    )


def _pdvs(body: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset < len(body):
        length, context_id, flags = struct.unpack_from(">IBB", body, offset)
        yield context_id, flags, body[offset + 6 : offset + 4 + length]
        offset += 4 + length


def _listen(server: socket.socket) -> Heard:
    """Accept one association, answer each request with success, and return what was heard."""
    connection, _ = server.accept()
    with connection:
        wire = Wire(connection)
        request = wire.receive_control()
        assert isinstance(request, AAssociateRq)
        heard = Heard(request)
        wire.send(_accept(request))
        command_data = data_set = b""
        while True:
            pdu_type, body = wire.receive()
            if pdu_type != P_DATA:
                heard.released = isinstance(decode_pdu(pdu_type, body, LIMITS), AReleaseRq)
                wire.send(AReleaseRp())
                return heard
            for context_id, flags, fragment in _pdvs(body):
                if flags & 1:
                    command_data += fragment
                else:
                    data_set += fragment
                if flags == 0x03:
                    heard.commands.append((context_id, decode_command_set(command_data, LIMITS)))
                    command_data = b""
                elif flags == 0x02:
                    heard.data_sets.append((context_id, data_set))
                    data_set = b""
                if flags & 2:
                    command = heard.commands[-1][1]
                    if bool(flags & 1) is not command.has_data_set:
                        wire.send_command(context_id, _success(command))


def hear(tool: str, *arguments: str) -> Heard:
    """Run a tool against one association of ours."""
    with socket.create_server((LOOPBACK, 0)) as server, ThreadPoolExecutor(1) as executor:
        server.settimeout(30)
        port = str(server.getsockname()[1])
        listening = executor.submit(_listen, server)
        done = run([TOOLS / tool, *[port if argument == "PORT" else argument for argument in arguments]])
        heard = listening.result(timeout=30)
    assert done.returncode == 0, done.stdout
    assert heard.released
    assert heard.request.deviations == ()
    assert all(command.deviations == () for _, command in heard.commands)
    return heard


CT_SMALL = str(get_testdata_file("CT_small.dcm"))
QUERY = ("-k", "QueryRetrieveLevel=STUDY", "-k", "StudyInstanceUID=1.2.3", LOOPBACK, "PORT")


def test_echoscu_with_128_contexts_and_user_identity() -> None:
    heard = hear("echoscu", "-ppc", "128", "-pts", "38", "-aet", "CT1", "-aec", "ARCHIVE", LOOPBACK, "PORT")
    assert (heard.request.calling_ae_title, heard.request.called_ae_title) == ("CT1", "ARCHIVE")
    assert len(heard.request.presentation_contexts) == 128
    assert {len(context.transfer_syntaxes) for context in heard.request.presentation_contexts} == {38}
    assert heard.request.user_information.implementation_version_name == "OFFIS_DCMTK_367"
    assert [command.operation for _, command in heard.commands] == [Operation.C_ECHO]


def test_storescu_with_user_identity() -> None:
    heard = hear("storescu", "-usr", "doctor", "-pwd", "secret", "-aec", "ARCHIVE", LOOPBACK, "PORT", CT_SMALL)
    assert heard.request.user_information.user_identity == UserIdentity(
        type=2, positive_response_requested=False, primary=b"doctor", secondary=b"secret"
    )
    (context_id, command), (_, data_set) = heard.commands[0], heard.data_sets[0]
    assert command.operation is Operation.C_STORE
    syntaxes = {c.context_id: c.transfer_syntaxes[0] for c in heard.request.presentation_contexts}
    head = scan_head(data_set, syntaxes[context_id], stop_after=0x00080018, complete=True)
    assert head.finished
    assert (head.values[0x00080016] or b"").rstrip(b"\0").decode() == command.affected_sop_class_uid
    assert (head.values[0x00080018] or b"").rstrip(b"\0").decode() == command.affected_sop_instance_uid


def test_findscu_identifier_is_read() -> None:
    heard = hear("findscu", "-S", *QUERY)
    (context_id, command), (_, identifier) = heard.commands[0], heard.data_sets[0]
    assert command.operation is Operation.C_FIND
    syntaxes = {c.context_id: c.transfer_syntaxes[0] for c in heard.request.presentation_contexts}
    head = scan_head(identifier, syntaxes[context_id], stop_after=0xFFFFFFFF, complete=True)
    assert head.values == {0x00080052: b"STUDY ", 0x0020000D: b"1.2.3\0"}


def test_movescu_names_its_destination() -> None:
    heard = hear("movescu", "-S", "-aem", "VIEWER", *QUERY)
    assert heard.commands[0][1].move_destination == "VIEWER"


def test_getscu_proposes_the_scp_role() -> None:
    heard = hear("getscu", "-S", *QUERY)
    assert heard.commands[0][1].operation is Operation.C_GET
    roles = heard.request.user_information.role_selections
    assert len(roles) > 50
    assert all(role.scp_role for role in roles)


def test_storescp_understands_us(tmp_path: Path) -> None:
    port = free_port()
    child = Child("storescp", [TOOLS / "storescp", "-od", tmp_path, str(port)], tmp_path / "storescp.log")
    try:
        child.wait_until_listening(port)
        with socket.create_connection((LOOPBACK, port), timeout=30) as connection:
            wire = Wire(connection)
            contexts = (
                PresentationContextRq(context_id=1, abstract_syntax=VERIFICATION, transfer_syntaxes=(IMPLICIT,)),
                PresentationContextRq(context_id=3, abstract_syntax="1.2.3.4.5", transfer_syntaxes=(IMPLICIT,)),
            )
            wire.send(
                AAssociateRq(
                    called_ae_title="ARCHIVE",
                    calling_ae_title="CT1",
                    presentation_contexts=contexts,
                    user_information=USER,
                )
            )
            accept = wire.receive_control()
            assert isinstance(accept, AAssociateAc)
            assert accept.deviations == ()
            assert [(c.context_id, c.result) for c in accept.presentation_contexts] == [(1, 0), (3, 3)]
            echo = CommandSet(command_field=0x0030, message_id=9, affected_sop_class_uid=VERIFICATION)
            wire.send_command(1, echo)
            pdu_type, body = wire.receive()
            assert pdu_type == P_DATA
            ((context_id, flags, data),) = _pdvs(body)
            assert (context_id, flags) == (1, 0x03)
            response = decode_command_set(data, LIMITS)
            assert response == _success(echo)
            assert response.deviations == ()
            wire.send(AReleaseRq())
            assert wire.receive_control() == AReleaseRp()
    finally:
        child.stop()
