"""Roles that are guessed, each with its reasons; what nobody can know stays empty."""

from dicomward.identity.draft import Draft, draft_text, parse_draft, principals_of
from dicomward.identity.inventory import Act, Conversation, Inventory
from dicomward.vocab.dimse import Operation
from dicomward.vocab.services import SOP_CLASS_BY_KEYWORD

PACS = ("10.9.0.5", 104)


def act(operation: Operation, keyword: str, destination: str = "") -> Act:
    return Act(operation, SOP_CLASS_BY_KEYWORD.get(keyword, keyword), destination)


STORE = act(Operation.C_STORE, "CTImageStorage")
ECHO = act(Operation.C_ECHO, "Verification")
QUERY = act(Operation.C_FIND, "StudyRootQueryRetrieveInformationModelFind")
MOVE = act(Operation.C_MOVE, "StudyRootQueryRetrieveInformationModelMove", "WS1")
WORKLIST = act(Operation.C_FIND, "ModalityWorklistInformationModelFind")
COMMIT = act(Operation.N_ACTION, "StorageCommitmentPushModel")
REPORT = act(Operation.N_EVENT_REPORT, "StorageCommitmentPushModel")


def said(*acts: Act, title: str = "X", host: str = "10.1.2.3", **changes: object) -> Conversation:
    values: dict[str, object] = {
        "client": host,
        "server": PACS,
        "calling_ae_title": title,
        "called_ae_title": "PACS",
        "acts": dict.fromkeys(acts, 1),
    }
    return Conversation(**values | changes)  # type: ignore[arg-type]


def draft(*conversations: Conversation) -> Draft:
    inventory = Inventory()
    for each in conversations:
        inventory.add(each)
    return inventory.draft("test", ["packets: 5"])


def role(*acts: Act) -> tuple[str, str]:
    (device,) = draft(said(*acts)).devices
    return device.role, device.why


def test_roles_are_guessed_with_reasons() -> None:
    assert role(STORE, WORKLIST)[0] == "modality"
    assert role(STORE, COMMIT)[0] == "modality"
    # A modality may look for priors.
    assert role(STORE, WORKLIST, QUERY)[0] == "modality"
    found, why = role(QUERY, MOVE, STORE, WORKLIST)
    assert found == "workstation"
    assert "It stores as well" in why
    assert "check if it acquires" in why
    assert role(QUERY)[0] == "workstation"
    found, why = role(STORE)
    assert found == "modality"
    assert "only CTImageStorage. An uploader looks the same: check it." in why
    kinds = ("CTImageStorage", "MRImageStorage", "SecondaryCaptureImageStorage", "EncapsulatedPDFStorage")
    found, why = role(*(act(Operation.C_STORE, keyword) for keyword in kinds))
    assert (found, why) == ("uploader", "uploader, because it stores, of 4 SOP classes, and it reads nothing.")
    assert role(ECHO) == ("", "it verifies: that tells nothing of its role.")
    assert role()[0] == ""
    assert draft(said(ECHO)).notes[-1] == (
        "PACS at 10.9.0.5:104 was only verified (C-ECHO): archive or device, that tells nothing."
    )


def test_one_title_at_two_addresses_is_said() -> None:
    (device,) = draft(said(STORE), said(STORE, host="10.1.2.4", is_rejected=True, user_identity=2)).devices
    assert device.networks == ("10.1.2.3/32", "10.1.2.4/32")
    assert "It called from 2 addresses" in device.why
    assert "1 of its 2 associations were rejected." in device.why
    assert "It sends a user identity (58H) of type 2." in device.why


def test_titles_that_differ_in_case_only_are_said() -> None:
    notes = draft(said(STORE, title="ct1"), said(STORE, title="CT1")).notes
    assert notes[-1].startswith("AE titles that differ in case only: CT1, ct1.")


def test_place_that_only_receives_is_a_device() -> None:
    heard = draft(
        said(QUERY, MOVE, title="WS1"),
        said(STORE, title="PACS", host="10.9.0.5", server=("10.1.2.9", 11112), called_ae_title="PRINTER"),
        said(MOVE, title="WS2"),
        said(STORE, title="PACS", host="10.9.0.5", server=("10.1.2.10", 104), called_ae_title="WS1"),
        said(REPORT, title="PACS", host="10.9.0.5", server=("10.1.2.11", 104), called_ae_title="CT9"),
    )
    assert [each.name for each in heard.archives] == ["PACS", "PRINTER"] or [each.name for each in heard.archives] == [
        "PRINTER",
        "PACS",
    ]
    silent = {each.name: each for each in heard.devices if "It never called" in each.why}
    assert set(silent) == {"CT9"}
    assert silent["CT9"].role == ""


def test_place_that_commits_is_an_archive() -> None:
    (archive,) = draft(said(COMMIT)).archives
    assert archive.name == "PACS"
    assert "it is asked for storage-commitment" in archive.why


def test_without_a_server_only_the_caller_is_drafted() -> None:
    heard = draft(said(STORE, server=None))
    assert heard.archives == ()
    assert heard.devices[0].seen["calls"] == ("PACS@the gateway",)


def test_ipv6_is_written_with_brackets() -> None:
    (device,) = draft(said(STORE, host="2001:db8::3", server=("2001:db8::5", 104))).devices
    assert device.seen["calls"] == ("PACS@[2001:db8::5]:104",)
    assert device.networks == ("2001:db8::3/128",)


def test_connection_without_titles_is_left_out() -> None:
    heard = draft(said(calling_ae_title=None), said(calling_ae_title=None, is_tls=True, server=None))
    assert (heard.devices, heard.archives) == ((), ())


def test_draft_of_known_roles_can_be_loaded() -> None:
    heard = draft(said(STORE, title="CT 1/A"), said(QUERY, title="WS1", host="10.1.2.9"))
    assert heard.notes == ("packets: 5",)
    devices, archives = principals_of(parse_draft(draft_text(heard)))
    assert [each.name for each in devices] == ["CT-1-A", "WS1"]
    assert [each.name for each in archives] == ["PACS"]
