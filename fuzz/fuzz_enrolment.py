"""Promise: what a stranger sends to the enrolment server gives a value, an HttpError, a CodeError or a refusal."""

import harness

with harness.instrumented():
    from datetime import timedelta

    from dicomward.enrolment.code import CodeError, make_code, parse_code
    from dicomward.enrolment.est import decode_body, decode_certificates
    from dicomward.enrolment.grant import Grant
    from dicomward.enrolment.http import HttpError, decode_head
    from dicomward.enrolment.refusal import EnrolmentRefusedError
    from dicomward.enrolment.request import decode_request, verify_request

GRANT = Grant(device="CT", ae_titles=("CT",), role="modality", networks=("any",), life=timedelta(days=1))
CSR = (
    "MIHSMHkCAQAwFzEVMBMGA1UEAwwMQ1QtUk9PTS0zAAAAMFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
    "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAKAAMAoGCCqGSM49BAMCA0kAMEYCIQAAAAAAAAAAAAAA"
)
SEEDS = [
    b"POST /.well-known/est/simpleenroll HTTP/1.1\r\nContent-Length: 3\r\nAuthorization: Basic YTpi\r\n\r\nabc",
    CSR.encode(),
    b"-----BEGIN CERTIFICATE REQUEST-----\n" + CSR.encode() + b"\n-----END CERTIFICATE REQUEST-----\n",
    make_code(bytes(14), b"ca").text.encode(),
    b"dicomward://enroll?code=D&server=https%3A%2F%2Fx",
]


def one_input(data: bytes) -> None:
    try:
        found = decode_head(data)
        if found is not None:
            head, count = found
            if count > len(data) or head.length < 0:
                raise AssertionError("more was read than there is")
            _ = head.basic, head.content_type, head.expects_continue
    except HttpError:
        pass
    for decode in (decode_body, decode_certificates):
        try:
            der = decode(data)
            if isinstance(der, bytes):
                verify_request(decode_request(der), GRANT)
        except EnrolmentRefusedError:
            pass
    try:
        verify_request(decode_request(data), GRANT)
    except EnrolmentRefusedError:
        pass
    try:
        parse_code(data.decode("utf-8", "replace"))
    except CodeError:
        pass


if __name__ == "__main__":
    harness.main(one_input, SEEDS)
