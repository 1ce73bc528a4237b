"""The HostTable of dcmqrscp.cfg."""

from dicomward.identity.dcmtk import write_dcmtk
from dicomward.identity.registry import Device, Endpoint

GATEWAY = Endpoint(host="127.0.0.1", port=11113)


def device(name: str, *titles: str) -> Device:
    return Device(name=name, ae_titles=titles, role="modality", networks=("any",))


def test_every_title_is_reached_at_the_gateway_and_the_group_holds_all() -> None:
    text = write_dcmtk([device("ct1", "CT1", "CT1_QR"), device("CT-1", "CT-1"), device("CT.1", "CT_1")], GATEWAY)
    assert text.splitlines()[1:8] == [
        "HostTable BEGIN",
        "d_ct1_ct1 = (CT1, 127.0.0.1, 11113)",
        "d_ct1_ct1_qr = (CT1_QR, 127.0.0.1, 11113)",
        "d_ct_1_ct_1 = (CT-1, 127.0.0.1, 11113)",
        "d_ct_1_ct_1_2 = (CT_1, 127.0.0.1, 11113)",
        "dicomward = d_ct1_ct1, d_ct1_ct1_qr, d_ct_1_ct_1, d_ct_1_ct_1_2",
        "HostTable END",
    ]


def test_title_that_the_file_cannot_hold_is_named() -> None:
    text = write_dcmtk([device("ct1", "CT 1")], GATEWAY)
    assert "# 'CT 1' of ct1 is left out" in text
    assert "dicomward =" not in text
