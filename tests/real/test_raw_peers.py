"""Associations whose both ends the test plays PDU by PDU: broken peers, windows, and who gets whose answer."""

import hashlib
import re
import struct
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.real import raw_peer as raw
from tests.real.clients import Route
from tests.real.gateway import Gateway
from tests.real.recording_archive import STUDY_FIND, VERIFICATION
from tests.real.samples import sample

CT = sample("CT_small.dcm")
CONTEXTS: raw.Contexts = {
    1: (VERIFICATION, [raw.IMPLICIT]),
    3: (CT.sop_class_uid, [CT.transfer_syntax_uid]),
    5: (STUDY_FIND, [raw.IMPLICIT]),
}
STORE_RQ = raw.command(
    3,
    {
        raw.AFFECTED_SOP_CLASS_UID: CT.sop_class_uid,
        raw.COMMAND_FIELD: raw.C_STORE,
        raw.MESSAGE_ID: 1,
        raw.PRIORITY: 0,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
        raw.AFFECTED_SOP_INSTANCE_UID: CT.sop_instance_uid,
    },
)


class Here:
    """A gateway in front of an archive that the test plays, and devices."""

    def __init__(self, gateway: Gateway, archive: raw.RawArchive) -> None:
        self.gateway = gateway
        self.archive = archive
        self.routes: dict[str, Route] = {}

    def pair(
        self,
        title: str = "ALPHA",
        *,
        window: tuple[int, int] | None = None,
        archive_window: tuple[int, int] | None = None,
    ) -> raw.Pair:
        """Open an association of one of the devices, which is registered when it is first named."""
        if title not in self.routes:
            credentials = self.gateway.add_device(title.lower(), title, role="tester")
            self.routes[title] = self.gateway.route(credentials, title)
        return raw.establish(self.routes[title], self.archive, CONTEXTS, window=window, archive_window=archive_window)


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Here]:
    with raw.RawArchive() as archive:
        directory = tmp_path_factory.mktemp("raw") / "gateway"
        gateway = Gateway(directory, archive="ARCHIVE", archive_port=archive.port)
        try:
            gateway.permit_everything_to("tester")
            gateway.start()
            yield Here(gateway, archive)
        finally:
            gateway.stop()


def _echo(pair: raw.Pair, message_id: int = 1) -> None:
    """Pass one C-ECHO from end to end."""
    pair.device.send(raw.echo_rq(1, message_id))
    request = pair.archive.message()
    assert request[raw.MESSAGE_ID] == message_id
    pair.archive.send(raw.response_to(request))
    assert pair.device.message()[raw.MESSAGE_ID_RESPONDED_TO] == message_id


def _find_rq(message_id: int) -> bytes:
    fields: dict[int, raw.Value] = {
        raw.AFFECTED_SOP_CLASS_UID: STUDY_FIND,
        raw.COMMAND_FIELD: raw.C_FIND,
        raw.MESSAGE_ID: message_id,
        raw.PRIORITY: 0,
        raw.DATA_SET_TYPE: raw.WITH_DATA_SET,
    }
    query = raw.element(0x0008, 0x0052, "STUDY") + raw.element(0x0010, 0x0020, "1CT1")
    return raw.command(5, fields) + raw.p_data(5, query, command=False)


def _match(tag: str) -> bytes:
    return raw.element(0x0008, 0x0052, "STUDY") + raw.element(0x0010, 0x0020, tag)


@pytest.mark.parametrize("way", ["aborts", "closes inside a PDU", "resets inside a PDU"])
def test_device_that_ends_inside_an_image_leaves_the_archive_whole_pdus_and_an_abort(here: Here, way: str) -> None:
    """What the archive has read is well-formed to its last byte, and it is told that no more will come."""
    data = CT.data_set
    half = raw.p_data(3, data[16000:32000], command=False, last=False)
    with here.pair() as pair:
        pair.device.send(STORE_RQ, raw.p_data(3, data[:16000], command=False, last=False))
        # Both have arrived before anything breaks, so that the order of what follows is certain.
        arrived = [pair.archive.expect(raw.P_DATA)]
        while sum(len(fragment) for *_, fragment in raw.fragments_of(arrived[1:])) < 16000:
            arrived.append(pair.archive.expect(raw.P_DATA))
        if way == "aborts":
            pair.device.send(half, raw.pdu(raw.ABORT, b"\0\0\0\0"))
        else:
            pair.device.send(half[:9000])
            if way.startswith("resets"):
                pair.device.reset()
            else:
                pair.device.socket.close()
        *more, end = pair.archive.rest()
    assert end.kind == raw.ABORT, end
    assert {each.kind for each in more} <= {raw.P_DATA}
    fragments = raw.fragments_of(arrived[1:] + more)
    assert not any(is_command or is_last for _, is_command, is_last, _ in fragments)
    kept = b"".join(fragment for *_, fragment in fragments)
    assert data.startswith(kept)
    assert len(kept) >= (32000 if way == "aborts" else 16000)
    assert {"peer-aborted", "peer-closed"} & here.gateway.reasons()


@pytest.mark.parametrize("way", ["aborts", "closes inside a PDU"])
def test_archive_that_ends_inside_an_answer_leaves_the_device_whole_pdus_and_an_abort(here: Here, way: str) -> None:
    with here.pair() as pair:
        pair.device.send(_find_rq(1))
        request = pair.archive.message()
        match = raw.p_data(5, _match("X" * 64), command=False, last=False)
        pair.archive.send(raw.response_to(request, status=0xFF00, data_set_type=raw.WITH_DATA_SET))
        if way == "aborts":
            pair.archive.send(match, raw.pdu(raw.ABORT, b"\0\0\2\0"))
        else:
            pair.archive.send(match[:-10])
            pair.archive.socket.close()
        *before, end = pair.device.rest()
    assert end.kind == raw.ABORT, end
    # A match is judged whole, so half of one is not passed on; and no final response was made up.
    assert not before


BROKEN = {
    # PS3.8 §9.3.8: source 2 is the service provider; 1 unrecognised PDU, 2 unexpected PDU, 6 invalid parameter.
    "endless-pdu": (struct.pack(">BBI", 4, 0, 0xFFFFFFF0), r"0/2/[06]"),
    "unknown-pdu": (raw.pdu(0x2A, b"what"), "0/2/1"),
    "unexpected-pdu": (raw.pdu(raw.RELEASE_RP, bytes(4)), "0/2/2"),
    "unknown-context": (raw.p_data(99, b"nobody negotiated this", command=False), r"0/2/[26]"),
    "pdv-beyond-pdu": (raw.pdu(raw.P_DATA, struct.pack(">IBB", 4000, 3, 0) + b"short"), r"0/2/6"),
    "garbage-command": (raw.p_data(1, b"\xff" * 40, command=True), r"0/2/[06]"),
}


@pytest.mark.parametrize("how", BROKEN)
def test_malformed_device_gets_the_right_abort_and_costs_its_neighbour_nothing(here: Here, how: str) -> None:
    broken, numbers = BROKEN[how]
    with here.pair("BETA") as neighbour:
        _echo(neighbour)
        with here.pair(f"BROKEN{list(BROKEN).index(how)}") as pair:
            pair.device.send(broken)
            assert re.fullmatch(numbers, pair.device.expect(raw.ABORT).numbers)
            # The archive is told the end of it and none of the garbage.
            assert [each.kind for each in pair.archive.rest()] == [raw.ABORT]
        _echo(neighbour, 2)


def test_several_operations_are_under_way_where_both_sides_agree(here: Here) -> None:
    """Requests go on without waiting for answers, and the answers come in the archive's order, not in ours."""
    with here.pair(window=(3, 1), archive_window=(3, 1)) as pair:
        assert raw.window_of(pair.request) == (3, 1)
        assert raw.window_of(pair.accept) == (3, 1)
        pair.device.send(*(raw.echo_rq(1, number) for number in (1, 2, 3)))
        requests = [pair.archive.message() for _ in range(3)]
        assert [request[raw.MESSAGE_ID] for request in requests] == [1, 2, 3]
        pair.archive.send(*(raw.response_to(request) for request in reversed(requests)))
        assert [pair.device.message()[raw.MESSAGE_ID_RESPONDED_TO] for _ in range(3)] == [3, 2, 1]


def test_operations_wait_for_each_other_towards_an_archive_that_does_one_at_a_time(here: Here) -> None:
    """The archive has said nothing of a window, which means 1 (PS3.7 §D.3.3.3)."""
    with here.pair(window=(3, 1)) as pair:
        pair.device.send(*(raw.echo_rq(1, number) for number in (1, 2, 3)))
        for number in (1, 2, 3):
            request = pair.archive.message()
            assert request[raw.MESSAGE_ID] == number
            assert pair.archive.says_nothing(0.3)
            pair.archive.send(raw.response_to(request))
            assert pair.device.message()[raw.MESSAGE_ID_RESPONDED_TO] == number


def test_device_that_asks_for_no_window_is_offered_none(here: Here) -> None:
    with here.pair() as pair:
        assert raw.window_of(pair.request) is None
        assert raw.window_of(pair.accept) is None


def test_same_message_ids_cancels_and_answers_of_two_devices_never_meet(here: Here) -> None:
    """Both query with message ID 7, and answers come crosswise. One cancels and aborts; the other has all its own."""
    with here.pair("ALPHA") as alpha, here.pair("BETA") as beta:
        alpha.device.send(_find_rq(7))
        beta.device.send(_find_rq(7))
        asked = {"ALPHA": alpha.archive.message(), "BETA": beta.archive.message()}
        pairs = {"ALPHA": alpha, "BETA": beta}
        for number in range(5):
            for name in ("BETA", "ALPHA") if number % 2 else ("ALPHA", "BETA"):
                pending = raw.response_to(asked[name], status=0xFF00, data_set_type=raw.WITH_DATA_SET)
                pairs[name].archive.send(pending, raw.p_data(5, _match(f"{name}{number}"), command=False))
        cancel = {raw.COMMAND_FIELD: raw.C_CANCEL, raw.MESSAGE_ID_RESPONDED_TO: 7, raw.DATA_SET_TYPE: raw.NO_DATA_SET}
        alpha.device.send(raw.command(5, cancel))
        assert alpha.archive.message()[raw.COMMAND_FIELD] == raw.C_CANCEL
        assert beta.archive.says_nothing(0.3)
        for name, pair in pairs.items():
            assert [pair.device.message().data_set for _ in range(5)] == [_match(f"{name}{n}") for n in range(5)]
        alpha.device.send(raw.pdu(raw.ABORT, b"\0\0\0\0"))
        assert [each.kind for each in alpha.archive.rest()] == [raw.ABORT]
        beta.archive.send(raw.response_to(asked["BETA"]))
        final = beta.device.message()
        assert (final[raw.MESSAGE_ID_RESPONDED_TO], final[raw.STATUS]) == (7, 0)
        _echo(beta, 8)


def test_large_pdus_of_a_device_are_cut_to_what_the_archive_can_take(here: Here) -> None:
    """The archive announces 16 KiB; every PDU that it gets is within that, and the image is whole."""
    with here.pair() as pair:
        pair.device.send(STORE_RQ)
        for at in range(0, len(CT.data_set), 16000):
            chunk = CT.data_set[at : at + 16000]
            pair.device.send(raw.p_data(3, chunk, command=False, last=at + 16000 >= len(CT.data_set)))
        request = pair.archive.message()
        assert request.data_set == CT.data_set
        pair.archive.send(raw.response_to(request))
        assert pair.device.message()[raw.STATUS] == 0
        pair.device.send(raw.pdu(raw.RELEASE_RQ, bytes(4)))
        pair.archive.expect(raw.RELEASE_RQ)
        pair.archive.send(raw.pdu(raw.RELEASE_RP, bytes(4)))
        pair.device.expect(raw.RELEASE_RP)


def test_an_image_in_tls_records_of_odd_sizes_reaches_the_archive_in_even_fragments(here: Here) -> None:
    """DCMTK's archives end an association at a fragment of odd length."""
    data = CT.data_set[:3000]
    with here.pair() as pair:
        wire = STORE_RQ + raw.p_data(3, data, command=False)
        for at in range(0, len(wire), 5):
            pair.device.send(wire[at : at + 5])
        arrived = b""
        pair.archive.expect(raw.P_DATA)
        while len(arrived) < len(data):
            for *_, fragment in raw.fragments_of([pair.archive.expect(raw.P_DATA)]):
                assert len(fragment) % 2 == 0
                arrived += fragment
        assert arrived == data


def test_image_of_300_megabytes_streams_through_in_bounded_memory(here: Here) -> None:
    """Bit-identical, and the gateway holds none of it: beyond what 30 MB took, its peak hardly grows."""
    _stream(here, 30_000_000)
    before = _peak_kib(here.gateway)
    _stream(here, 300_000_000)
    assert _peak_kib(here.gateway) - before < 4_000


def _stream(here: Here, size: int) -> None:
    """Send an image of about so many bytes as fast as it goes; compare what arrives."""
    fragment = bytes(range(256)) * 62
    chunks = size // len(fragment) // 8
    with here.pair() as pair:

        def send() -> None:
            pair.device.send(STORE_RQ, raw.p_data(3, CT.data_set[:2000], command=False, last=False))
            chunk = raw.p_data(3, fragment, command=False, last=False) * 8
            for _ in range(chunks):
                pair.device.send(chunk)
            pair.device.send(raw.p_data(3, b"the end", command=False))

        sender = threading.Thread(target=send)
        sender.start()
        expected = hashlib.sha256(CT.data_set[:2000] + fragment * (chunks * 8) + b"the end")
        arrived, last = hashlib.sha256(), False
        while not last:
            for _, is_command, is_last, part in raw.fragments_of([pair.archive.expect(raw.P_DATA)]):
                if not is_command:
                    arrived.update(part)
                    last = is_last
        sender.join(timeout=20)
    assert arrived.digest() == expected.digest()


def _peak_kib(gateway: Gateway) -> int:
    status = Path(f"/proc/{gateway.child.process.pid}/status").read_text("utf-8")
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM:"))
