"""The schema of PS3.15 A.5.1.1 for the tests, in RELAX NG's XML syntax, so that lxml can judge our messages."""

from functools import cache
from typing import Final

from lxml import etree

_XSD: Final = "http://www.w3.org/2001/XMLSchema-datatypes"


def _attribute(name: str, content: str, *, optional: bool = False) -> str:
    text = f'<attribute name="{name}">{content}</attribute>'
    return f"<optional>{text}</optional>" if optional else text


def _choice(*values: object) -> str:
    return "<choice>" + "".join(f"<value>{value}</value>" for value in values) + "</choice>"


def _element(name: str, *content: str) -> str:
    return f'<element name="{name}">{"".join(content) or "<empty/>"}</element>'


def _any(content: str) -> str:
    return f"<zeroOrMore>{content}</zeroOrMore>"


def _maybe(content: str) -> str:
    return f"<optional>{content}</optional>"


_TOKEN, _TEXT = '<data type="token"/>', "<text/>"
_BASE64, _BOOLEAN = '<data type="base64Binary"/>', '<data type="boolean"/>'
_CODED = (
    _attribute("csd-code", _TOKEN)
    + _attribute("codeSystemName", _TOKEN)
    + _attribute("displayName", _TOKEN, optional=True)
    + _attribute("originalText", _TOKEN)
)
_EVENT = _element(
    "EventIdentification",
    _element("EventID", _CODED),
    _any(_element("EventTypeCode", _CODED)),
    _attribute("EventActionCode", _choice("C", "R", "U", "D", "E"), optional=True),
    _attribute("EventDateTime", '<data type="dateTime"/>'),
    _attribute("EventOutcomeIndicator", _choice(0, 4, 8, 12)),
    _maybe(_element("EventOutcomeDescription", _TEXT)),
)
_PARTICIPANT = _element(
    "ActiveParticipant",
    _any(_element("RoleIDCode", _CODED)),
    _maybe(_element("MediaIdentifier", _element("MediaType", _CODED))),
    _attribute("UserID", _TEXT),
    _attribute("AlternativeUserID", _TEXT, optional=True),
    _attribute("UserName", _TEXT, optional=True),
    _attribute("UserIsRequestor", _BOOLEAN),
    _attribute("NetworkAccessPointID", _TOKEN, optional=True),
    _attribute("NetworkAccessPointTypeCode", _choice(1, 2, 3, 4, 5), optional=True),
)
_SOURCE = _element(
    "AuditSourceIdentification",
    _attribute("AuditEnterpriseSiteID", _TOKEN, optional=True),
    _attribute("AuditSourceID", _TOKEN),
    _any(_element("AuditSourceTypeCode", _attribute("csd-code", _choice(1, 2, 3, 4, 5, 6, 7, 8, 9)))),
)
_DESCRIPTION = _element(
    "ParticipantObjectDescription",
    _any(_element("MPPS", _attribute("UID", _TOKEN))),
    _any(_element("Accession", _attribute("Number", _TOKEN))),
    _any(
        _element(
            "SOPClass",
            _any(_element("Instance", _attribute("UID", _TOKEN))),
            _attribute("UID", _TOKEN, optional=True),
            _attribute("NumberOfInstances", '<data type="integer"/>'),
        )
    ),
    _maybe(_element("ParticipantObjectContainsStudy", _any(_element("StudyIDs", _attribute("UID", _TOKEN))))),
    _maybe(_element("Encrypted", _BOOLEAN)),
    _maybe(_element("Anonymized", _BOOLEAN)),
)
_OBJECT = _element(
    "ParticipantObjectIdentification",
    _element("ParticipantObjectIDTypeCode", _CODED),
    "<choice>" + _element("ParticipantObjectName", _TOKEN) + _element("ParticipantObjectQuery", _BASE64) + "</choice>",
    _any(_element("ParticipantObjectDetail", _attribute("type", _TOKEN), _attribute("value", _BASE64))),
    _any(_DESCRIPTION),
    _attribute("ParticipantObjectID", _TOKEN),
    _attribute("ParticipantObjectTypeCode", _choice(1, 2, 3, 4), optional=True),
    _attribute("ParticipantObjectTypeCodeRole", _choice(*range(1, 27)), optional=True),
    _attribute("ParticipantObjectDataLifeCycle", _choice(*range(1, 16)), optional=True),
    _attribute("ParticipantObjectSensitivity", _TOKEN, optional=True),
)
_GRAMMAR = (
    f'<grammar xmlns="http://relaxng.org/ns/structure/1.0" datatypeLibrary="{_XSD}"><start>'
    + _element("AuditMessage", _EVENT, f"<oneOrMore>{_PARTICIPANT}</oneOrMore>", _SOURCE, _any(_OBJECT))
    + "</start></grammar>"
)


@cache
def _schema() -> etree.RelaxNG:
    return etree.RelaxNG(etree.fromstring(_GRAMMAR))


def assert_valid(message: bytes) -> None:
    """Fail with the schema's own words where a message isn't valid, or names more than one patient or requestor."""
    document = etree.fromstring(message)
    schema = _schema()
    assert schema.validate(document), f"{schema.error_log}\n{message.decode()}"
    assert len(document.xpath("ActiveParticipant[@UserIsRequestor='true']")) <= 1, message
    assert len(document.xpath("ParticipantObjectIdentification[@ParticipantObjectTypeCode='1']")) <= 1, message
