"""LDIF is read with its folds, base64, comments and DNs in any writing; what is written is read back."""

import pytest

from dicomward.identity.ldif import LdifError, escape_dn_value, normalise_dn, parse_ldif, render_entry


def test_folds_comments_and_base64() -> None:
    text = (
        "# a comment\n  that goes on\ndn: cn=a,\n  dc=b\nCN: lo\n ng\nx:: w7w=\nx: plain \ny;binary:: AAE=\n\n\n# end\n"
    )
    (entry,) = parse_ldif(text, "f").entries
    assert entry.dn == ("cn=a", "dc=b")
    assert entry.text("cn") == "long"
    assert entry.texts("X") == ("ü", "plain")
    assert entry.attributes["y"] == (b"\x00\x01",)
    assert (entry.text("none"), entry.line) == ("", 3)
    assert not entry.is_a("person")


def test_changes_and_references_are_notes() -> None:
    text = "dn: cn=a\nchangetype: modify\nreplace: x\n\n"
    text += "dn: cn=b\nchangetype: add\nphoto:< file:///x\nobjectClass: Person\n"
    ldif = parse_ldif(text, "f")
    assert [entry.dn for entry in ldif.entries] == [("cn=b",)]
    assert ldif.entries[0].is_a("person")
    assert ldif.notes == (
        "f, line 1: modify of cn=a is left out",
        "f, line 7: photo refers to file:///x, which is not read",
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cn: a\n", "f, line 1: an entry begins with its dn"),
        ("dn: cn=a\ndn: cn=b\n", "f, line 1: an entry begins with its dn"),
        ("dn: cn=a\nnonsense\n", "f, line 2: 'nonsense' is no attribute"),
        ("dn: cn=a\nx:: ***\n", "f, line 2: the value of x is not base64"),
    ],
)
def test_what_is_no_ldif_is_refused(text: str, message: str) -> None:
    with pytest.raises(LdifError, match=message):
        parse_ldif(text, "f")


def test_dns_are_the_same_in_any_writing() -> None:
    assert normalise_dn("CN = Devices , dc=Org") == normalise_dn("cn=devices,dc=org")
    assert normalise_dn(r"cn=a\,b,dc=c") == (r"cn=a\,b", "dc=c")


def test_what_is_written_is_read_back() -> None:
    name = ' #ü,"x"'
    dn = f"cn={escape_dn_value('a,b')},dc=c"
    text = render_entry(dn, (("cn", name), ("long", "x" * 200), ("end", "y ")))
    assert all(len(line) <= 76 for line in text.splitlines())
    (entry,) = parse_ldif(text, "f").entries
    assert entry.dn == (r"cn=a\,b", "dc=c")
    assert (entry.text("cn"), entry.text("long"), entry.text("end")) == (name, "x" * 200, "y ")
    assert escape_dn_value("#a") == r"\#a"
