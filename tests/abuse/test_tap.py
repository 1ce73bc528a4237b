"""The strict reader finds what is wrong: else it would prove nothing."""

import pytest

from tests.abuse.tap import Breach, Permitted, StrictReader
from tests.real import raw_peer as raw
from tests.real.recording_archive import STUDY_FIND, VERIFICATION

PERMITTED = Permitted(titles={"GOOD"}, sop_classes={VERIFICATION}, commands={raw.C_ECHO})


def _request(calling: str = "GOOD", sop_class: str = VERIFICATION, number: int = 1) -> bytes:
    return raw.associate_rq(called="ARCHIVE", calling=calling, contexts={number: (sop_class, [raw.IMPLICIT])})


GOOD = _request()
WRONG = {
    "title": _request("EVIL"),
    "SOP class": _request(sop_class=STUDY_FIND),
    "no UID": _request(sop_class="1.02.840.10008.1.1"),
    "odd ID": _request(number=2),
    "PDU type 9": raw.pdu(9, b""),
    "before an association": raw.echo_rq(1, 1),
    "second": GOOD * 2,
    "after an A-ABORT": GOOD + raw.pdu(raw.ABORT, bytes(4)) + raw.pdu(raw.RELEASE_RQ, bytes(4)),
    "after a release": GOOD + raw.pdu(raw.RELEASE_RQ, bytes(4)) + raw.echo_rq(1, 1),
    "presentation context 5": GOOD + raw.echo_rq(5, 1),
    "no command has announced": GOOD + raw.p_data(1, b"data", command=False),
    "a PDV of 1 bytes": GOOD + raw.pdu(raw.P_DATA, b"\0\0\0\1\1\3"),
    "command 0150": GOOD + raw.command(1, {raw.COMMAND_FIELD: 0x0150, raw.DATA_SET_TYPE: raw.NO_DATA_SET}),
    "group length": GOOD + raw.p_data(1, b"\0\0\0\0\4\0\0\0\5\0\0\0", command=True),
    "inside a PDU": GOOD + raw.echo_rq(1, 1)[:20],
}


@pytest.mark.parametrize("what", WRONG)
def test_breach_is_found(what: str) -> None:
    reader = StrictReader(PERMITTED)
    with pytest.raises(Breach, match=what):
        _read(reader, WRONG[what])


def _read(reader: StrictReader, data: bytes) -> None:
    reader.feed(data)
    reader.close()


def test_leading_zeros_pass_only_where_a_test_names_them() -> None:
    with_zero = "1.02.840.10008.1.1"
    StrictReader(Permitted(titles={"GOOD"}, sop_classes={with_zero}, commands=set())).feed(
        _request(sop_class=with_zero)
    )


def test_good_association_is_read_in_any_pieces() -> None:
    data = GOOD + raw.echo_rq(1, 1) + raw.pdu(raw.RELEASE_RQ, bytes(4))
    reader = StrictReader(PERMITTED)
    for at in range(len(data)):
        reader.feed(data[at : at + 1])
    reader.close()
    assert reader.kinds == [raw.ASSOCIATE_RQ, raw.P_DATA, raw.RELEASE_RQ]
