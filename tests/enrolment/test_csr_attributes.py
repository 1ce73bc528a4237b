"""CSR attributes: what a device should ask for, one by one and as a template."""

import subprocess
from datetime import timedelta

from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from dicomward.enrolment import der
from dicomward.enrolment.csr_attributes import encode_csr_attributes
from dicomward.enrolment.der import Item, Reader
from dicomward.enrolment.grant import Grant

GRANT = Grant(device="CT-1", ae_titles=("CT1",), role="modality", networks=("any",), life=timedelta(days=90))
TEMPLATE = der.encode_oid("1.2.840.113549.1.9.16.2.61")


def attributes(grant: Grant | None, *kinds: str) -> str:
    der = encode_csr_attributes(grant, kinds)
    done = subprocess.run(["openssl", "asn1parse", "-inform", "DER"], input=der, capture_output=True, check=True)
    return done.stdout.decode()


def test_attributes_dictate_key_and_names() -> None:
    text = attributes(GRANT, "ecdsa", "rsa")
    for part in ("id-ecPublicKey", "prime256v1", "ecdsa-with-SHA256", "Extension Request", "Subject Alternative Name"):
        assert part in text
    value = x509.SubjectAlternativeName(
        [x509.UniformResourceIdentifier(uri) for uri in ("urn:dicomward:device:CT-1", "urn:dicom:ae:CT1")]
    ).public_bytes()
    assert value.hex().upper() in text


def test_attributes_without_a_device_name_the_key_only() -> None:
    text = attributes(None, "rsa")
    assert "rsaEncryption" in text
    assert ":0800" in text
    assert "Extension" not in text
    assert "commonName" not in text


def test_long_attributes_have_long_lengths() -> None:
    many = Grant(
        device="CT-1", ae_titles=tuple(f"CT{n}" for n in range(30)), role="m", networks=("any",), life=timedelta(days=1)
    )
    assert "urn" not in attributes(many, "ecdsa").lower().partition("hex dump")[0]


def template(grant: Grant | None, *kinds: str) -> Reader:
    """Return what is inside of the template; it is there once."""
    found: list[Reader] = []
    for item in der.only(encode_csr_attributes(grant, kinds), der.SEQUENCE).reader().items():
        if item.tag == der.SEQUENCE:
            attribute = item.reader()
            if attribute.item().encoded == TEMPLATE:
                found.append(der.only(attribute.take(der.SET).content, der.SEQUENCE).reader())
    (one,) = found
    assert der.decode_integer(one.take(der.INTEGER)) == 0
    return one


def attributes_of(item: Item) -> list[bytes]:
    return [each.encoded for each in item.reader().items()]


def test_template_says_what_the_single_attributes_say() -> None:
    reader = template(GRANT, "ecdsa", "rsa")
    # An RDNSequence with the common name only: what x509 makes of the same subject.
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "CT-1")])
    assert reader.take(der.SEQUENCE).encoded == subject.public_bytes()
    key = reader.take(0xA0).reader()
    algorithm = key.take(der.SEQUENCE).reader()
    assert algorithm.item().encoded == der.encode_oid("1.2.840.10045.2.1")
    assert algorithm.item().encoded == der.encode_oid("1.2.840.10045.3.1.7")
    key.end()
    (names,) = attributes_of(reader.take(0xA1))
    reader.end()
    single = der.only(encode_csr_attributes(GRANT, ("ecdsa",)), der.SEQUENCE).reader().items()
    assert names in [each.encoded for each in single]


def test_template_of_a_stranger_has_the_length_of_an_rsa_key_and_no_names() -> None:
    reader = template(None, "rsa")
    placeholder = reader.take(0xA0)
    key = load_der_public_key(der.encode(der.SEQUENCE, placeholder.content))
    assert isinstance(key, rsa.RSAPublicKey)
    assert key.key_size == 2048
    assert attributes_of(reader.take(0xA1)) == []
    reader.end()
