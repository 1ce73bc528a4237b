"""An Orthanc configuration becomes a draft, with a note for everything that a draft can't say; and back."""

from pathlib import Path

import pytest

from dicomward.identity.draft import Draft, DraftDevice, draft_text, parse_draft
from dicomward.identity.orthanc import OrthancError, read_orthanc, strip_comments, write_orthanc
from dicomward.identity.registry import Device, Endpoint

SAMPLE = (Path(__file__).parent / "samples" / "orthanc.json").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def draft() -> Draft:
    return read_orthanc([("orthanc.json", SAMPLE)])


def device(draft: Draft, name: str) -> DraftDevice:
    return next(each for each in draft.devices if each.name == name)


def noted(draft: Draft, *words: str) -> bool:
    return any(all(word in note for word in words) for note in draft.notes)


def test_orthanc_itself_is_the_archive(draft: Draft) -> None:
    (archive,) = draft.archives
    assert (archive.name, archive.ae_title) == ("PACSNORTH", "PACSNORTH")
    assert archive.address == Endpoint(host="127.0.0.1", port=4242)
    assert archive.calling_ae_titles == ("PACSNORTH", "PACSREAD")
    assert archive.networks == ("127.0.0.0/8",)


def test_both_forms_of_a_modality_are_read(draft: Draft) -> None:
    assert [each.name for each in draft.devices] == ["CT-Room-1", "us", "mr1", "reading", "variable", "nothing"]
    us = device(draft, "us")
    assert (us.ae_titles, us.networks, us.plain) == (("US_SIEMENS",), ("192.0.2.12/32",), True)
    assert us.seen == {"Manufacturer": ("Generic",)}
    mr = device(draft, "mr1")
    assert mr.address == Endpoint(host="192.0.2.13", port=11112)
    assert mr.seen["Timeout"] == ("30",)


def test_flags_give_the_role_and_what_they_do_not_say_is_left_to_the_reader(draft: Draft) -> None:
    roles = {each.name: each.role for each in draft.devices}
    assert roles == {
        "CT-Room-1": "", "us": "", "mr1": "modality", "reading": "workstation", "variable": "", "nothing": "",
    }  # fmt: skip
    assert "AllowFind, AllowGet, AllowMove are true" in device(draft, "reading").why
    assert "neither read nor store" in device(draft, "nothing").why


def test_host_that_is_a_name_leaves_the_networks_to_the_reader(draft: Draft) -> None:
    reading = device(draft, "reading")
    assert (reading.networks, reading.plain) == ((), False)
    assert "read1.hospital.example is a name: fill in the networks" in reading.why


def test_one_title_at_two_hosts_is_one_device_of_both(draft: Draft) -> None:
    ct = device(draft, "CT-Room-1")
    assert ct.networks == ("192.0.2.11/32", "192.0.2.14/32")
    assert ct.seen["also called"] == ("ct1-post",)
    assert noted(draft, "'ct1-post'", "CT1", "say which is right")


@pytest.mark.parametrize(
    "words",
    [
        ("DicomModalitiesInDatabase is true", "/modalities?expand"),
        ("DicomCheckCalledAet is false",),
        ("DicomCheckModalityHost is false",),
        ("StrictAetComparison is false",),
        ("DicomAlwaysAllowEcho is true",),
        ("DicomAlwaysAllowStore is true", "every title could Store"),
        ("OrthancPeers", "no DICOM devices"),
        ("${VAR_HOST:-192.0.2.15}", "environment"),
        ("'printer' is left out", "at most 16 characters"),
        ("'torn' is left out", "neither [AET, host, port] nor an object"),
        ("'self' is left out", "own AE title"),
    ],
)
def test_what_the_draft_cannot_say_is_a_note(draft: Draft, words: tuple[str, ...]) -> None:
    assert noted(draft, *words)


def test_what_is_commented_out_or_off_is_not_in_it(draft: Draft) -> None:
    assert not noted(draft, "DicomAlwaysAllowFind")
    assert "OLD" not in draft_text(draft)


def test_draft_is_read_back_once_it_is_filled_in(draft: Draft) -> None:
    text = draft_text(draft).replace('role = ""', 'role = "modality"').replace("networks = []", 'networks = ["any"]')
    assert [each.name for each in parse_draft(text).devices] == [each.name for each in draft.devices]


def test_several_files_are_one_configuration_and_a_key_in_two_is_noted() -> None:
    draft = read_orthanc(
        [
            ("a.json", '{"DicomAet": "ONE", "DicomModalities": {"a": ["A", "192.0.2.1", 104]}}'),
            ("b.json", '{"DicomAet": "TWO", "DicomModalities": {"b": ["B", "192.0.2.2", 104]}}'),
        ],
        host="192.0.2.7",
    )
    assert [each.name for each in draft.devices] == ["a", "b"]
    assert draft.archives[0].ae_title == "TWO"
    assert draft.archives[0].networks == ("192.0.2.7/32",)
    assert noted(draft, "DicomAet is in b.json again")


def test_answer_of_the_rest_interface_is_taken_for_modalities() -> None:
    draft = read_orthanc([("m.json", '{"ct": {"AET": "CT", "Host": "localhost", "Port": 104}}')], host="pacs.example")
    assert device(draft, "ct").networks == ("127.0.0.0/8",)
    assert noted(draft, "holds only modalities")
    assert "fill in the networks that Orthanc calls from" in draft.archives[0].why


def test_tls_and_a_listener_that_is_off_are_noted() -> None:
    draft = read_orthanc([("o.json", '{"DicomTlsEnabled": true, "DicomServerEnabled": false, "DicomPort": "104"}')])
    assert "fill in certificate_sha256" in draft.archives[0].why
    assert noted(draft, "pin its certificate")
    assert noted(draft, "DicomServerEnabled is false")


def test_all_flags_true_say_nothing_about_the_role() -> None:
    flags = '"AllowFind": true, "AllowMove": true, "AllowStore": true, "AllowFindWorklist": true'
    draft = read_orthanc(
        [("o.json", f'{{"DicomModalities": {{"x": {{"AET": "X", "Host": "::1", "Port": 1, {flags}}}}}}}')]
    )
    (only,) = draft.devices
    assert (only.role, only.networks) == ("", ("::1/128",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "o.json: it is not JSON with comments"),
        ("[]", "o.json: it is not a JSON object"),
        ("{}", "no configuration was found"),
        ('{"DicomModalities": []}', "DicomModalities is not an object"),
        ('{"DicomAet": "A_TITLE_THAT_IS_TOO_LONG"}', "DicomAet and DicomPort can't be used"),
        ('{"DicomPort": 70000}', "DicomAet and DicomPort can't be used"),
        ('{"DicomPort": "x"}', "DicomAet and DicomPort can't be used"),
    ],
)
def test_what_is_no_configuration_is_refused(text: str, message: str) -> None:
    with pytest.raises(OrthancError, match="^" + message):
        read_orthanc([("o.json", text)])


def test_modality_without_a_port_is_left_out() -> None:
    draft = read_orthanc([("o.json", '{"DicomModalities": {"x": {"AET": "X", "Host": null, "Port": null}}}')])
    assert draft.devices == ()
    assert noted(draft, "'x' is left out")


def test_comments_and_last_commas_go_and_texts_stay() -> None:
    assert strip_comments('{"a": "// no /* , }", /* c\n */ "b": [1,], // end').split() == [
        '{"a":', '"//', "no", "/*", ",", '}",', '"b":', "[1", "],",
    ]  # fmt: skip
    assert strip_comments('"\\"//"') == '"\\"//"'
    assert strip_comments("1 /* open").strip() == "1"


def test_what_is_exported_is_imported_with_the_same_titles_at_the_gateway() -> None:
    devices = [
        Device(name="ct1", ae_titles=("CT1", "CT1_QR"), role="modality", networks=("10.0.0.0/8",)),
        Device(name="ws1", ae_titles=("WS1",), role="workstation", networks=("10.0.0.0/8",)),
    ]
    gateway = Endpoint(host="127.0.0.1", port=11113)
    text = write_orthanc(devices, gateway, tls=False)
    assert '"DicomAlwaysAllowStore": false' in text
    assert "UseDicomTls" not in text
    draft = read_orthanc([("gateway.json", text)])
    assert [(each.name, each.ae_titles) for each in draft.devices] == [
        ("ct1", ("CT1",)), ("ct1-CT1_QR", ("CT1_QR",)), ("ws1", ("WS1",)),
    ]  # fmt: skip
    assert {each.address for each in draft.devices} == {gateway}
    assert '"UseDicomTls": true' in write_orthanc(devices, gateway, tls=True)
