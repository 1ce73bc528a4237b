"""The syslog message byte by byte."""

from dicomward.audit.syslog import NOTICE, WARNING, encode_message, frame


def message(host: str = "gw.example", severity: int = NOTICE) -> bytes:
    return encode_message(
        b"<x/>",
        time="2026-01-31T12:00:00.000001Z",
        host=host,
        process_id="7",
        message_id="DICOM+RFC3881",
        severity=severity,
    )


def test_a_message_has_the_header_of_the_standard_and_a_byte_order_mark() -> None:
    header = b"<85>1 2026-01-31T12:00:00.000001Z gw.example dicomward 7 DICOM+RFC3881 - "
    assert message() == header + b"\xef\xbb\xbf<x/>"
    assert message(severity=WARNING).startswith(b"<84>1 ")


def test_a_host_name_that_syslog_can_not_hold_is_reduced() -> None:
    assert b" g-w dicomward" in message("g -ü\nw")
    assert b" - dicomward" in message("")
    assert len(message("h" * 400)) == len(message("h" * 255))


def test_a_frame_counts_octets() -> None:
    assert frame("ä".encode()) == b"2 \xc3\xa4"
