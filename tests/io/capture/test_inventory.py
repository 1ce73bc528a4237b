"""A capture of a department becomes an inventory: who, from where, for what; nothing of a patient."""

from collections import Counter
from pathlib import Path

import pytest

from dicomward.dicom.dimse import CommandSet
from dicomward.identity.draft import Draft, draft_text, draft_to_json
from dicomward.identity.inventory import Inventory
from dicomward.io.capture.inventory import overhear
from tests.io.capture_files import Talk, frame, pcap, pcapng
from tests.relay.wire import (
    CT_IMAGE,
    MPPS,
    STUDY_FIND,
    STUDY_MOVE,
    VERIFICATION,
    WORKLIST,
    c_echo_rq,
    c_find_rq,
    c_move_rq,
    c_store_rq,
    identifier,
    image,
    response_to,
)

PACS = ("10.9.0.5", 104)
SECRET = "DOE^JANE"


def scanner(host: str = "10.1.2.3", title: str = "CT1") -> list[bytes]:
    talk = Talk((host, 40001), PACS)
    talk.associate(title, "PACS", {1: CT_IMAGE, 3: WORKLIST, 5: MPPS})
    talk.request(3, c_find_rq(1, affected_sop_class_uid=WORKLIST), identifier(patient_id=SECRET))
    talk.request(1, c_store_rq(2), image(pixels=SECRET.encode() * 3000))
    talk.request(1, response_to(c_store_rq(2)), from_client=False)
    return talk.close()


def workstation() -> list[bytes]:
    talk = Talk(("10.1.2.9", 40002), PACS)
    talk.associate("WS1", "PACS", {1: STUDY_FIND, 3: STUDY_MOVE})
    talk.request(1, c_find_rq(1, affected_sop_class_uid=STUDY_FIND), identifier(patient_id=SECRET))
    talk.request(3, c_move_rq(2, affected_sop_class_uid=STUDY_MOVE, destination="WS1"), identifier())
    return talk.close()


def delivery() -> list[bytes]:
    talk = Talk(("10.9.0.5", 50000), ("10.1.2.9", 11112))
    talk.associate("PACS", "WS1", {1: CT_IMAGE})
    talk.request(1, c_store_rq(1), image())
    return talk.close()


def heard(tmp_path: Path, data: bytes) -> tuple[Draft, Counter[str]]:
    path = tmp_path / "a.pcap"
    path.write_bytes(data)
    inventory = Inventory()
    counts = overhear(path, inventory)
    return inventory.draft("capture"), +counts


DAY = [frame(packet) for packet in (*scanner(), *workstation(), *delivery())]
SWAPPED = [each for pair in zip(DAY[1::2], DAY[::2], strict=False) for each in pair] + DAY[len(DAY) // 2 * 2 :]


@pytest.mark.parametrize("data", [pcap(DAY), pcapng(DAY), pcap([*DAY, *DAY]), pcap(SWAPPED)])
def test_department_is_drafted(tmp_path: Path, data: bytes) -> None:
    draft, _counts = heard(tmp_path, data)
    (archive,) = draft.archives
    assert (archive.name, archive.ae_title, archive.address.host, archive.address.port) == ("PACS", "PACS", *PACS)
    assert archive.calling_ae_titles == ("PACS",)
    ct1, ws1 = draft.devices
    assert (ct1.name, ct1.role, ct1.networks, ct1.address) == ("CT1", "modality", ("10.1.2.3/32",), None)
    assert "it stores, it asks for a worklist" in ct1.why
    assert ct1.seen["SOP classes"] == ("CTImageStorage", "ModalityWorklistInformationModelFind")
    assert ct1.seen["calls"] == ("PACS@10.9.0.5:104",)
    assert ct1.seen["transfer syntaxes"] == ("ImplicitVRLittleEndian",)
    assert (ws1.name, ws1.role, ws1.plain) == ("WS1", "workstation", True)
    assert ws1.address is not None
    assert (ws1.address.host, ws1.address.port) == ("10.1.2.9", 11112)
    assert ws1.seen["C-MOVE destinations"] == ("WS1",)


def test_no_value_of_a_patient_comes_out(tmp_path: Path) -> None:
    draft, counts = heard(tmp_path, pcap(DAY))
    for text in (draft_text(draft), str(draft_to_json(draft)), str(counts)):
        assert SECRET not in text
        assert "DOE" not in text


def test_what_is_not_followed_is_counted(tmp_path: Path) -> None:
    web = Talk(("10.1.2.3", 1), ("10.9.0.5", 80))
    web.say(True, b"GET / HTTP/1.1\r\n")
    tls = Talk(("10.1.2.7", 2), ("10.9.0.5", 2762))
    tls.say(True, b"\x16\x03\x01\x00\x05hello")
    tls.say(False, b"\x16\x03\x03\x00\x05hello")
    broken = Talk(("10.1.2.8", 3), PACS)
    broken.associate("MR1", "PACS", {1: VERIFICATION})
    broken.request(1, c_echo_rq(1))
    broken.say(True, b"\x09" * 20)
    frames = [frame(packet) for talk in (web, tls, broken) for packet in talk.close()]
    draft, counts = heard(tmp_path, pcap([*frames, b"junk"]))
    assert counts["connections that aren't DICOM, or were joined in the middle"] == 1
    assert counts["TLS connections"] == 1
    assert counts["packets that are damaged"] == 1
    assert counts["associations that couldn't be followed to the end (breaks PS3.8 §9.3)"] == 1
    assert draft.notes[1:] == ("1 connections over TLS from 10.1.2.7 to 10.9.0.5:2762: who talks there can't be seen.",)
    assert [each.name for each in draft.devices] == ["MR1"]


def test_lost_packets_within_images_lose_nothing_else(tmp_path: Path) -> None:
    talk = Talk(("10.1.2.3", 40001), PACS)
    talk.associate("CT1", "PACS", {1: CT_IMAGE})
    begin = len(talk.packets)
    talk.request(1, c_store_rq(1), image(pixels=bytes(9_000)))
    end = len(talk.packets)
    talk.request(1, c_store_rq(2), image())
    kept = [packet for number, packet in enumerate(talk.close()) if not begin + 3 < number < end - 1]
    draft, counts = heard(tmp_path, pcap(map(frame, kept)))
    assert draft.devices[0].seen["operations"] == ("c-store 2x",)
    assert counts["gaps in connections"] == 1


def test_loopback_capture_is_told_apart_by_titles(tmp_path: Path) -> None:
    """Everything on one machine, as in a test: the address says nothing."""
    local = ("127.0.0.1", 4242)
    talk = Talk(("127.0.0.1", 40001), local)
    talk.associate("CT1", "ORTHANC", {1: CT_IMAGE})
    talk.request(1, c_store_rq(1), image())
    back = Talk(("127.0.0.1", 40002), ("127.0.0.1", 11112))
    back.associate("ORTHANC", "WS1", {1: CT_IMAGE})
    back.request(1, c_store_rq(1), image())
    ask = Talk(("127.0.0.1", 40003), local)
    ask.associate("WS1", "ORTHANC", {1: STUDY_FIND})
    command: CommandSet = c_find_rq(1, affected_sop_class_uid=STUDY_FIND)
    ask.request(1, command, identifier())
    draft, _ = heard(tmp_path, pcap(map(frame, (*talk.close(), *back.close(), *ask.close()))))
    assert [each.name for each in draft.archives] == ["ORTHANC"]
    assert draft.archives[0].calling_ae_titles == ("ORTHANC",)
    assert [(each.name, each.role) for each in draft.devices] == [("CT1", "modality"), ("WS1", "workstation")]
