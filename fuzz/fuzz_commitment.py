"""Promise: bytes give a commitment report, or ReportUnreadable; nothing in it is both committed and failed."""

import harness

with harness.instrumented():
    from dicomward.edge.commitment import ReportUnreadable, decode_report, encode_request

CT = "1.2.840.10008.5.1.4.1.1.2"
GOOD = encode_request("2.25.1", [(CT, "1.2.3"), (CT, "1.2.34")])
ITEM = b"\x08\x00\x55\x11\x04\0\0\0" + b"1.2\0" + b"\x08\x00\x97\x11\x02\0\0\0" + b"\x12\x01"
ENDLESS = b"\xff\xff\xff\xff"
SEEDS = [
    GOOD,
    GOOD + b"\x08\x00\x98\x11\x1a\0\0\0" + b"\xfe\xff\x00\xe0\x12\0\0\0" + ITEM,
    GOOD[:20]
    + b"\x08\x00\x98\x11"
    + ENDLESS
    + b"\xfe\xff\x00\xe0"
    + ENDLESS
    + ITEM
    + b"\xfe\xff\x0d\xe0\0\0\0\0"
    + b"\xfe\xff\xdd\xe0\0\0\0\0",
]


def one_input(data: bytes) -> None:
    try:
        report = decode_report(data)
    except ReportUnreadable:
        return
    if report.committed & report.failed.keys():
        raise AssertionError("committed and failed")


if __name__ == "__main__":
    harness.main(one_input, SEEDS)
