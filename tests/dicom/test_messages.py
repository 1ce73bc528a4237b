import pytest
from pydicom.datadict import DicomDictionary
from pynetdicom.dimse_messages import _COMMAND_SET_KEYWORDS as PYNETDICOM

from dicomward.dicom.messages import MESSAGES, RETIRED_ELEMENTS, DataSetRule, Message
from dicomward.vocab.dimse import C_CANCEL_RQ, RESPONSE_BIT, Element, Operation

KEYWORDS = {entry[4]: tag for tag, entry in DicomDictionary.items() if tag >> 16 == 0}
IN_EVERY_MESSAGE = {Element.COMMAND_GROUP_LENGTH, Element.COMMAND_FIELD, Element.COMMAND_DATA_SET_TYPE}
BY_NAME = {message.name: message for message in MESSAGES.values()}

# PS3.7 Annex C lets a status bring these along; pynetdicom keeps to the tables of §9.3 and §10.3.
BEYOND_PYNETDICOM = {
    name: {
        Element.ERROR_ID,
        Element.OFFENDING_ELEMENT,
        *({Element.ATTRIBUTE_IDENTIFIER_LIST} if name == "N-CREATE-RSP" else ()),
    }
    for name in BY_NAME
    if name.endswith("-RSP")
}


def test_every_message_of_the_standard_is_there() -> None:
    requests = {operation.value for operation in Operation}
    assert set(MESSAGES) == requests | {field | RESPONSE_BIT for field in requests} | {C_CANCEL_RQ}
    assert set(BY_NAME) == set(PYNETDICOM)


@pytest.mark.parametrize("name", sorted(BY_NAME))
def test_elements_are_those_of_pynetdicom_and_what_explains_a_status(name: str) -> None:
    message = BY_NAME[name]
    theirs = {KEYWORDS[keyword] for keyword in PYNETDICOM[name]} - IN_EVERY_MESSAGE
    assert message.required | message.optional == theirs | BEYOND_PYNETDICOM.get(name, set())


@pytest.mark.parametrize("message", MESSAGES.values(), ids=lambda message: message.name)
def test_required_and_optional_elements_are_apart(message: Message) -> None:
    assert not message.required & message.optional
    assert not (message.required | message.optional) & IN_EVERY_MESSAGE
    assert message.clause.startswith("PS3.7 §")


@pytest.mark.parametrize("message", MESSAGES.values(), ids=lambda message: message.name)
def test_messages_have_the_id_of_their_direction(message: Message) -> None:
    is_answer = message.name.endswith("-RSP") or message.name == "C-CANCEL-RQ"
    assert (Element.MESSAGE_ID in message.required) is not is_answer
    assert (Element.MESSAGE_ID_BEING_RESPONDED_TO in message.required) is is_answer
    assert (Element.STATUS in message.required) is message.name.endswith("-RSP")


# An independent transcription: the clauses on each service say if an identifier, a data set or a list may be there.
DATA_SETS = {
    DataSetRule.ALWAYS: {"C-STORE-RQ", "C-FIND-RQ", "C-GET-RQ", "C-MOVE-RQ", "N-SET-RQ"},
    DataSetRule.NEVER: {
        "C-STORE-RSP",
        "C-ECHO-RQ",
        "C-ECHO-RSP",
        "C-CANCEL-RQ",
        "N-GET-RQ",
        "N-DELETE-RQ",
        "N-DELETE-RSP",
    },
    DataSetRule.PENDING: {"C-FIND-RSP"},
}


@pytest.mark.parametrize("message", MESSAGES.values(), ids=lambda message: message.name)
def test_data_sets_are_where_the_standard_has_them(message: Message) -> None:
    stated = [rule for rule, names in DATA_SETS.items() if message.name in names]
    assert message.data_set is (stated[0] if stated else DataSetRule.OPTIONAL)


def test_retired_elements_are_those_of_the_dictionary() -> None:
    retired = {tag for tag, entry in DicomDictionary.items() if tag >> 16 == 0 and entry[3] == "Retired"}
    assert retired == RETIRED_ELEMENTS
    assert not RETIRED_ELEMENTS & set(Element)


def test_elements_are_all_that_the_dictionary_has() -> None:
    assert set(KEYWORDS.values()) - RETIRED_ELEMENTS == set(Element)
