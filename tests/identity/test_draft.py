"""Registry drafts: written, read back, refused with every reason, turned into principals."""

import tomllib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dicomward.identity.draft import (
    Draft,
    DraftArchive,
    DraftDevice,
    DraftError,
    draft_text,
    draft_to_json,
    name_from,
    parse_draft,
    principals_of,
    toml_text,
)
from dicomward.identity.registry import Archive, Device, Endpoint

DEVICE = DraftDevice(
    name="CT1",
    ae_titles=("CT1", "CT1 STORE"),
    role="modality",
    site="Ward B",
    networks=("10.1.2.3/32",),
    address=Endpoint(host="10.1.2.3", port=104),
    plain=True,
    legacy_zone="radiology",
    why="It stores CT images.\nIt asks for a worklist.",
    seen={"operations": ("c-store", "c-find"), "SOP classes": ("CTImageStorage",)},
)
ARCHIVE = DraftArchive(
    name="PACS",
    ae_title="PACS",
    address=Endpoint(host="2001:db8::5", port=11112),
    called_ae_titles=("PACS", "ARC"),
    calling_ae_titles=("PACS",),
    networks=("2001:db8::5/128",),
    dedicated_link=True,
    site="main",
    why="It answers queries.",
    seen={"operations": ("c-find",)},
)
PINNED = DraftArchive(
    name="VNA", ae_title="VNA", address=Endpoint(host="vna", port=2762), certificate_sha256="ab" * 32, networks=("any",)
)
BARE = DraftDevice(name="WS1", ae_titles=("WS1",), role="workstation", networks=("10.1.2.4/32",))
DRAFT = Draft(source="capture a.pcap", devices=(DEVICE, BARE), archives=(ARCHIVE, PINNED), notes=("read me\nfirst",))


def test_text_is_read_back_but_for_what_is_said_in_comments() -> None:
    text = draft_text(DRAFT)
    read = parse_draft(text)
    assert [each.name for each in read.devices] == ["CT1", "WS1"]
    assert read.devices[0].seen == DEVICE.seen
    assert read.devices[0].address == DEVICE.address
    assert read.archives[0].address == ARCHIVE.address
    assert read.archives[1].certificate_sha256 == "ab" * 32
    assert principals_of(read) == principals_of(DRAFT)
    assert "# read me first" in text
    assert "# It asks for a worklist." in text


def test_principals_are_what_the_draft_says() -> None:
    devices, archives = principals_of(DRAFT)
    assert devices[0] == Device(
        name="CT1",
        ae_titles=("CT1", "CT1 STORE"),
        role="modality",
        site="Ward B",
        networks=("10.1.2.3/32",),
        address=Endpoint(host="10.1.2.3", port=104),
        plain=True,
        legacy_zone="radiology",
    )
    assert archives[1] == Archive(
        name="VNA",
        ae_title="VNA",
        calling_ae_titles=("VNA",),
        endpoint=Endpoint(host="vna", port=2762),
        networks=("any",),
        tls=True,
        certificate_sha256="ab" * 32,
    )


def test_device_behind_an_agent_has_a_word_for_an_address() -> None:
    behind = DraftDevice(name="WS", ae_titles=("WS",), role="workstation", networks=("10.0.0.1",), reverse=True)
    text = draft_text(Draft(devices=(behind,)))
    assert 'address = "reverse"\n' in text
    assert "plain" not in text
    ((device,), _archives) = principals_of(parse_draft(text))
    assert (device.reverse, device.address) == (True, None)
    assert draft_to_json(Draft(devices=(behind,)))["devices"][0]["address"] == "reverse"  # type: ignore[index]
    with pytest.raises(DraftError, match="never plaintext"):
        principals_of(parse_draft(text + "plain = true\n"))


def test_everything_that_the_registry_refuses_is_said() -> None:
    draft = Draft(
        devices=(DraftDevice(name="CT 1", ae_titles=("CT1",), role="modality", networks=("10.1.2.3",)),),
        archives=(DraftArchive(name="P", ae_title="P\\", address=Endpoint(host="p", port=1)),),
    )
    with pytest.raises(DraftError) as caught:
        principals_of(draft)
    assert len(caught.value.problems) == 2
    assert "'CT 1' is not a name" in str(caught.value)


def test_role_that_nobody_could_say_must_be_filled_in() -> None:
    text = draft_text(Draft(devices=(DraftDevice(name="X", ae_titles=("X",), networks=("10.0.0.1",)),)))
    assert 'role = ""  # fill this in' in text
    with pytest.raises(DraftError, match="device 'X': role is missing; write modality, workstation"):
        parse_draft(text)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a =", "it is not TOML"),
        ("format = 2", "format 2 is not known"),
        ("formt = 1", "the draft: 'formt' is not known; the fields are format, source, device, archive, notes"),
        ("device = 3", r"device: write \[\[device\]\]"),
        ("device = [3]", "device 1: it is not a table"),
        ('[[device]]\nname = "A"\nnetwork = "x"', "device 'A': 'network' is not known"),
        ("[[device]]\nname = 3", "device 1: name is not a text"),
        ("[[device]]\nnetworks = [3]", "device 1: networks is not a list of texts"),
        ("[[device]]\nplain = 1", "device 1: plain is neither true nor false"),
        ('[[device]]\naddress = "x"', "device 1: address 'x' is not HOST:PORT"),
        ('[[device]]\naddress = "x:0"', "device 1: port 0 is not in 1 to 65535"),
        ("[[device]]\nseen = 3", "device 1: seen is not a table"),
        ("[[device]]\n", "device 1: ae_titles is missing"),
        ("[[archive]]\n", "archive 1: address is missing; write HOST:PORT"),
        ('[[archive]]\nname = "P"', "archive 'P': ae_title is missing"),
    ],
)
def test_problem_is_located(text: str, problem: str) -> None:
    with pytest.raises(DraftError, match=problem):
        parse_draft(text)


def test_one_text_stands_for_a_list_of_one() -> None:
    text = '[[device]]\nname = "A"\nae_titles = "A"\nrole = "modality"\nnetworks = "10.0.0.1"'
    assert parse_draft(text).devices[0].ae_titles == ("A",)


def test_json_has_the_same_names() -> None:
    value = draft_to_json(DRAFT)
    assert value["format"] == 1
    assert value["notes"] == ["read me\nfirst"]
    devices, archives = value["devices"], value["archives"]
    assert isinstance(devices, list)
    assert isinstance(archives, list)
    assert devices[0]["address"] == "10.1.2.3:104"
    assert devices[1]["address"] is None
    assert archives[0]["address"] == "[2001:db8::5]:11112"
    assert archives[1]["certificate_sha256"] == "ab" * 32


@pytest.mark.parametrize(
    ("title", "name"), [("CT1", "CT1"), ("CT 1/A", "CT-1-A"), ("...", "device"), ("_X_", "X"), ("\u00c4", "device")]
)
def test_name_is_one_that_the_registry_takes(title: str, name: str) -> None:
    assert name_from(title) == name


def test_name_that_is_taken_gets_a_number() -> None:
    assert name_from("CT1", {"CT1", "CT1-2"}) == "CT1-3"


@given(st.text(max_size=40))
def test_any_text_is_written_so_that_toml_reads_it(text: str) -> None:
    read = tomllib.loads(f"x = {toml_text(text)}")["x"]
    assert read == "".join("?" if 0xD800 <= ord(c) <= 0xDFFF else c for c in text)
