"""Hosts are read from what other tools write, whichever of their formats it is."""

import pytest

from dicomward.assess.targets import Target, TargetsError, read_targets

NMAP_XML = """<?xml version="1.0"?>
<!DOCTYPE nmaprun>
<nmaprun scanner="nmap"><host starttime="1"><status state="up"/>
<address addr="10.0.0.1" addrtype="ipv4"/><address addr="00:11:22:33:44:55" addrtype="mac"/>
<ports><port protocol="tcp" portid="104"><state state="open" reason="syn-ack"/><service name="acr-nema"/></port>
<port protocol="tcp" portid="105"><state state="closed" reason="reset"/></port>
<port protocol="udp" portid="106"><state state="open" reason="x"/></port></ports></host>
<host><address addr="fd00::5" addrtype="ipv6"/><ports><port protocol="tcp" portid="11112">
<state state="open"/></port></ports></host>
<host><address addr="10.0.0.9" addrtype="ipv4"/></host>
</nmaprun>"""
NMAP_GREP = """# Nmap 7.93 scan initiated as: nmap -oG - 10.0.0.0/24
Host: 10.0.0.1 ()\tStatus: Up
Host: 10.0.0.1 ()\tPorts: 104/open/tcp//acr-nema///, 105/closed/tcp/////, 4242/open/tcp//v///\tIgnored: 998
# Nmap done"""
MASSCAN_JSON = """[
{   "ip": "10.0.0.1",   "timestamp": "1", "ports": [ {"port": 104, "proto": "tcp", "status": "open", "ttl": 64} ] },
{ "ip": "10.0.0.1", "ports": [ {"port": 4242, "proto": "tcp", "status": "open"}, {"port": 5, "proto": "udp"} ] },
]
"""
LDIF = """dn: dicomDeviceName=pacs,cn=Devices,cn=DICOM Configuration,dc=example
objectClass: dicomDevice
dicomDeviceName: pacs
dicomInstalled: TRUE

dn: cn=dicom,dicomDeviceName=pacs,cn=Devices,cn=DICOM Configuration,dc=example
objectClass: dicomNetworkConnection
cn: dicom
dicomHostname: 10.0.0.7
dicomPort: 11112

dn: dicomAETitle=PACS,dicomDeviceName=pacs,cn=Devices,cn=DICOM Configuration,dc=example
objectClass: dicomNetworkAE
dicomAETitle: PACS
dicomNetworkConnectionReference: cn=dicom,dicomDeviceName=pacs,cn=Devices,cn=DICOM Configuration,dc=example
dicomAssociationInitiator: FALSE
dicomAssociationAcceptor: TRUE
"""


@pytest.mark.parametrize(
    ("text", "found"),
    [
        (NMAP_XML, [Target(host="10.0.0.1", ports=(104,)), Target(host="fd00::5", ports=(11112,))]),
        (NMAP_GREP, [Target(host="10.0.0.1", ports=(104, 4242))]),
        ("# Nmap 7.93 scan\n# Nmap done: 0 hosts up\n", []),
        (MASSCAN_JSON, [Target(host="10.0.0.1", ports=(104, 4242))]),
        ('{"ip":"10.0.0.1","ports":[{"port":104}]}\n{"ip":"10.0.0.2","ports":[{"port":105}]},\n{"finished": 1}\n',
         [Target(host="10.0.0.1", ports=(104,)), Target(host="10.0.0.2", ports=(105,))]),
        ('["10.0.0.1:104", "pacs.example"]', [Target(host="10.0.0.1", ports=(104,)), Target(host="pacs.example")]),
        ("#masscan\nopen tcp 104 10.0.0.1 1700000000\n# end\n", [Target(host="10.0.0.1", ports=(104,))]),
        ("#Masscan 1.3.2 scan\nTimestamp: 1\tHost: 10.0.0.1 ()\tPorts: 104/open/tcp//acr//\n",
         [Target(host="10.0.0.1", ports=(104,))]),
        ("# my PACS\n10.0.0.1\n[fd00::1]:104, pacs.example:11112  # old\nfd00::2\n10.0.1.0/30\n\n10.0.0.1\n",
         [Target(host="10.0.0.1"), Target(host="fd00::1", ports=(104,)), Target(host="pacs.example", ports=(11112,)),
          Target(host="fd00::2"), Target(host="10.0.1.1"), Target(host="10.0.1.2")]),
        ("[fd00::1]:104\n", [Target(host="fd00::1", ports=(104,))]),
    ],
)  # fmt: skip
def test_formats(text: str, found: list[Target]) -> None:
    assert read_targets(text, "file") == found


def test_orthanc_configuration_names_its_modalities() -> None:
    text = '// Orthanc\n{"DicomAet": "PACS", "DicomPort": 4242, "DicomModalities": {"ct": ["CT1", "10.0.0.5", 104]}}'
    found = {each.host: each for each in read_targets(text, "orthanc.json")}
    assert found["10.0.0.5"] == Target(host="10.0.0.5", ports=(104,), called_ae_titles=("CT1",))
    assert found["127.0.0.1"].ports == (4242,)
    assert "PACS" in found["127.0.0.1"].called_ae_titles


def test_ldif_names_devices() -> None:
    assert read_targets(LDIF, "d.ldif") == [Target(host="10.0.0.7", ports=(11112,), called_ae_titles=("PACS",))]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "is empty"),
        ("<html></html>", "not that of nmap"),
        ("{", "no JSON"),
        ("{oops\n{worse", "no JSON"),
        ("[[1]]", "neither that of masscan"),
        ("10.0.0.0/33", "no network"),
        ("fd00::/64", "has more than"),
        ("a b:99999", "line 1: 'b:99999'"),
        ("!?", "no address, name"),
        ('{"DicomModalities": 5}', "DicomModalities"),
    ],
)
def test_what_cannot_be_read_is_said(text: str, said: str) -> None:
    with pytest.raises(TargetsError, match=said.replace("?", r"\?")):
        read_targets(text, "file")
