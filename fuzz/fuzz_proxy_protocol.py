"""Promise: bytes give a source, a wish for more, or ProxyProtocolError; never a byte too many; cuts change nothing."""

import harness

with harness.instrumented():
    from dicomward.dicom.proxy_protocol import MAX_PROXY_HEADER_BYTES, SIGNATURE, ProxyProtocolError, ProxyReader

SEEDS = [
    SIGNATURE + b"\x21\x11\x00\x0c" + bytes([192, 0, 2, 7, 10, 0, 0, 1, 0x1F, 0x90, 0x2B, 0x68]),
    SIGNATURE + b"\x21\x21\x00\x24" + bytes(36),
    SIGNATURE + b"\x20\x00\x00\x00",
    SIGNATURE + b"\x21\x11\x00\x13" + bytes(12) + b"\x04\x00\x04abcd",
]


def _read(data: bytes, step: int) -> tuple[object, int]:
    reader, at = ProxyReader(), 0
    try:
        while at < len(data):
            wanted = reader.wanted
            if not 0 < wanted <= MAX_PROXY_HEADER_BYTES:
                raise AssertionError(f"{wanted} bytes are wanted")
            taken = data[at : at + min(step, wanted)]
            at += len(taken)
            if (source := reader.feed(taken)) is not None:
                return source, at
    except ProxyProtocolError:
        return ProxyProtocolError, 0
    return None, at


def one_input(data: bytes) -> None:
    if _read(data, len(data) or 1) != _read(data, 1):
        raise AssertionError("the cuts have changed the result")


if __name__ == "__main__":
    harness.main(one_input, SEEDS)
