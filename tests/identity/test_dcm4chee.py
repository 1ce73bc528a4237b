"""A dcm4chee directory becomes a draft, with a note for everything that a draft can't say; and back."""

from pathlib import Path

import pytest

from dicomward.identity.dcm4chee import Dcm4cheeError, read_dcm4chee, write_dcm4chee
from dicomward.identity.draft import Draft, DraftDevice, draft_text, parse_draft
from dicomward.identity.registry import Device, Endpoint

SAMPLE = (Path(__file__).parent / "samples" / "dcm4chee.ldif").read_text(encoding="utf-8")
BASE = "cn=Devices,cn=DICOM Configuration,dc=dcm4che,dc=org"


@pytest.fixture(scope="module")
def draft() -> Draft:
    return read_dcm4chee([("dcm4chee.ldif", SAMPLE)])


def device(draft: Draft, name: str) -> DraftDevice:
    return next(each for each in draft.devices if each.name == name)


def noted(draft: Draft, *words: str) -> bool:
    return any(all(word in note for word in words) for note in draft.notes)


def entries(*blocks: str) -> str:
    return "\n\n".join(blocks) + "\n"


def test_archive_has_an_entry_for_each_of_its_titles(draft: Draft) -> None:
    assert [(each.name, each.ae_title) for each in draft.archives] == [("DCM4CHEE", "DCM4CHEE"), ("SECURE", "SECURE")]
    main, secure = draft.archives
    assert (main.address, main.networks) == (Endpoint(host="192.0.2.40", port=11112), ("192.0.2.40/32",))
    assert secure.address == Endpoint(host="192.0.2.40", port=2762)
    assert "fill in certificate_sha256" in secure.why


def test_device_has_its_titles_its_addresses_and_its_site(draft: Draft) -> None:
    ct = device(draft, "ct1")
    assert (ct.ae_titles, ct.role, ct.site) == (("CT1", "CT1_MPPS"), "modality", "Zürich")
    assert (ct.address, ct.plain) == (Endpoint(host="192.0.2.51", port=2762), False)
    assert ct.networks == ("192.0.2.51/32",)
    assert ct.seen["dicomManufacturer"] == ("Example",)


def test_roles_come_from_the_kind_of_device_or_from_what_it_asks_for(draft: Draft) -> None:
    roles = {each.name: each.role for each in draft.devices}
    assert roles == {
        "ct1": "modality",
        "viewer": "workstation",
        "us": "modality",
        "workstation": "workstation",
        "mystery": "",
    }
    assert "query SCU" in device(draft, "viewer").seen["VIEWER services"]
    assert device(draft, "us").networks == ("127.0.0.0/8",)


def test_host_that_is_a_name_and_a_port_that_is_missing_are_left_to_the_reader(draft: Draft) -> None:
    viewer = device(draft, "viewer")
    assert (viewer.networks, viewer.address, viewer.plain) == ((), None, False)
    assert "viewer.hospital.example: fill in the networks" in viewer.why


@pytest.mark.parametrize(
    "words",
    [
        ("'hl7'", "is HL7, not DICOM"),
        ("UNPLUGGED", "refers to cn=gone", "not in these files"),
        ("UNPLUGGED", "is left out", "no connection of it has a host and a port"),
        ("ASLEEP", "is not installed"),
        ("DCM4CHEE", "dcmAcceptedCallingAETitle is set"),
        ("DCM4CHEE answers to OLDPACS",),
        ("SECURE speaks TLS",),
        ("'ct1' listens at 192.0.2.51:104, 192.0.2.51:2762",),
        ("'ct1' has a certificate",),
        ("'keycloak' is left out", "no AE title"),
        ("'retired' is left out", "not installed"),
        ("an AE of device 'mystery' is left out", "at most 16"),
        ("dicomaetitle=nobody belongs to no device",),
        ("delete of dicomDeviceName=old",),
        ("1 entries of class dicomDevicesRoot",),
    ],
)
def test_what_the_draft_cannot_say_is_a_note(draft: Draft, words: tuple[str, ...]) -> None:
    assert noted(draft, *words)


def test_draft_is_read_back_once_it_is_filled_in(draft: Draft) -> None:
    text = draft_text(draft).replace('role = ""', 'role = "modality"').replace("networks = []", 'networks = ["any"]')
    assert [each.name for each in parse_draft(text).devices] == [each.name for each in draft.devices]


def test_several_files_belong_together_and_a_certificate_pins_an_archive_with_tls() -> None:
    device_file = entries(
        f"dn: dicomDeviceName=arc,{BASE}\ndicomDeviceName: arc\nobjectClass: dicomDevice\n"
        "objectClass: dcmArchiveDevice\nuserCertificate;binary:: AAEC",
    )
    rest = entries(
        f"dn: cn=tls,dicomDeviceName=arc,{BASE}\ndicomHostname: pacs.example\ndicomPort: 2762\n"
        "dicomTLSCipherSuite: X\nobjectClass: dicomNetworkConnection",
        f"dn: cn=off,dicomDeviceName=arc,{BASE}\ndicomHostname: 192.0.2.1\ndicomPort: 104\ndicomInstalled: FALSE\n"
        "objectClass: dicomNetworkConnection",
        f"dn: cn=odd,dicomDeviceName=arc,{BASE}\ndicomHostname: not a host\ndicomPort: 104\n"
        "objectClass: dicomNetworkConnection",
        f"dn: dicomAETitle=ARC,dicomDeviceName=arc,{BASE}\ndicomAETitle: ARC\nobjectClass: dicomNetworkAE\n"
        f"dicomNetworkConnectionReference: cn=off,dicomDeviceName=arc,{BASE}\n"
        f"dicomNetworkConnectionReference: cn=odd,dicomDeviceName=arc,{BASE}\n"
        f"dicomNetworkConnectionReference: cn=tls,dicomDeviceName=arc,{BASE}",
    )
    (archive,) = read_dcm4chee([("a.ldif", device_file), ("b.ldif", rest)]).archives
    assert archive.certificate_sha256 == "ae4b3280e56e2faf83f414a6e3dabe9d5fbe18976544c05fed121accb85b53fc"
    assert archive.address == Endpoint(host="pacs.example", port=2762)
    assert "pacs.example is a name" in archive.why


def test_archive_without_its_class_is_known_by_what_it_answers() -> None:
    text = entries(
        f"dn: dicomDeviceName=pacs,{BASE}\nobjectClass: dicomDevice",
        f"dn: cn=d,dicomDeviceName=pacs,{BASE}\ndicomHostname: 192.0.2.1\ndicomPort: 104\n"
        "objectClass: dicomNetworkConnection",
        f"dn: dicomAETitle=PACS,dicomDeviceName=pacs,{BASE}\ndicomAETitle: PACS\nobjectClass: dicomNetworkAE\n"
        f"dicomNetworkConnectionReference: cn=d,dicomDeviceName=pacs,{BASE}",
        f"dn: cn=x,dicomAETitle=PACS,dicomDeviceName=pacs,{BASE}\ndicomSOPClass: 1.2.840.10008.5.1.4.1.2.2.2\n"
        "dicomTransferRole: SCP\nobjectClass: dicomTransferCapability",
    )
    draft = read_dcm4chee([("f", text)])
    assert draft.archives[0].why == "device pacs: it answers queries or retrievals"


def test_file_without_devices_is_refused() -> None:
    with pytest.raises(Dcm4cheeError, match="no dicomDevice is in it"):
        read_dcm4chee([("f", "dn: cn=a\ncn: a\n")])


def test_what_is_exported_is_imported_with_the_same_titles_at_the_gateway() -> None:
    devices = [
        Device(name="ct1", ae_titles=("CT1", "CT1,QR"), role="modality", site="Zürich", networks=("10.0.0.0/8",)),
        Device(name="ws1", ae_titles=("WS1",), role="workstation", networks=("10.0.0.0/8",)),
    ]
    gateway = Endpoint(host="127.0.0.1", port=11113)
    draft = read_dcm4chee([("f", write_dcm4chee(devices, gateway, tls=False))])
    assert [(each.name, each.ae_titles, each.site) for each in draft.devices] == [
        ("ct1", ("CT1", "CT1,QR"), "Zürich"), ("ws1", ("WS1",), ""),
    ]  # fmt: skip
    assert {each.address for each in draft.devices} == {gateway}
    assert all(each.plain for each in draft.devices)
    assert not any(each.plain for each in read_dcm4chee([("f", write_dcm4chee(devices, gateway, tls=True))]).devices)
