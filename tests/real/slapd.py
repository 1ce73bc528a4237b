"""A real slapd on loopback, with TLS, two persons, a group and an account of the gateway's own."""

import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from dicomward.io.ca.local import KeyKind, LocalCa
from tests.real.processes import LOOPBACK, Child, PeerError, free_port
from tests.real.servers import need

SLAPD = Path("/usr/sbin/slapd")
BASE = "dc=hospital,dc=example"
PEOPLE = f"ou=people,{BASE}"
SECONDS = 20.0

_CONFIGURATION = """
include /etc/ldap/schema/core.schema
include /etc/ldap/schema/cosine.schema
include /etc/ldap/schema/inetorgperson.schema
modulepath /usr/lib/ldap
moduleload back_mdb
moduleload memberof
pidfile {directory}/slapd.pid
TLSCertificateFile {directory}/cert.pem
TLSCertificateKeyFile {directory}/key.pem
TLSCACertificateFile {directory}/ca.pem
security simple_bind=128
database mdb
suffix "{base}"
rootdn "cn=admin,{base}"
rootpw admin
directory {directory}/data
maxsize 10485760
overlay memberof
access to attrs=userPassword by anonymous auth by * none
access to * by * read
"""
_ENTRIES = """
dn: {base}
objectClass: domain
dc: hospital

dn: {people}
objectClass: organizationalUnit
ou: people

dn: uid=anna,{people}
objectClass: inetOrgPerson
uid: anna
cn: Anna
sn: A
userPassword: correct horse

dn: uid=bert,{people}
objectClass: inetOrgPerson
uid: bert
cn: Bert
sn: B
userPassword: another one

dn: uid=twice,{people}
objectClass: inetOrgPerson
uid: twice
uid: twin
cn: Twice
sn: T
userPassword: another one

dn: cn=other twin,{people}
objectClass: inetOrgPerson
uid: twin
cn: other twin
sn: T
userPassword: another one

dn: cn=gateway,{base}
objectClass: organizationalRole
objectClass: simpleSecurityObject
cn: gateway
userPassword: its own passcode

dn: cn=readers,{base}
objectClass: groupOfNames
cn: readers
member: uid=anna,{people}
"""


@dataclass(frozen=True)
class Slapd:
    """A running directory; `stop` ends it."""

    port: int
    tls_port: int
    ca: Path
    child: Child

    def stop(self) -> None:
        self.child.stop()


@contextmanager
def slapd(directory: Path) -> Iterator[Slapd]:
    """Run a directory below `directory`, or skip the test."""
    need(SLAPD, "slapd")
    (directory / "data").mkdir(parents=True)
    now = datetime.now(UTC)  # noqa: TID251  certificates are compared with the real clock
    authority = LocalCa.make("Test directory CA", now)
    issued = authority.issue_gateway(KeyKind.ECDSA, [LOOPBACK, "localhost"], now)
    (directory / "cert.pem").write_bytes(issued.certificate_pem)
    (directory / "key.pem").write_bytes(issued.key_pem)
    (directory / "ca.pem").write_bytes(authority.certificate_pem)
    configuration = directory / "slapd.conf"
    configuration.write_text(_CONFIGURATION.format(directory=directory, base=BASE), encoding="utf-8")
    port, tls_port = free_port(), free_port()
    urls = f"ldap://{LOOPBACK}:{port} ldaps://{LOOPBACK}:{tls_port}"
    child = Child("slapd", [SLAPD, "-f", configuration, "-h", urls, "-d", "0"], directory / "slapd.log")
    try:
        _wait_for(tls_port)
        entries = _ENTRIES.format(base=BASE, people=PEOPLE)
        subprocess.run(
            ["/usr/bin/ldapadd", "-x", "-H", f"ldaps://{LOOPBACK}:{tls_port}", "-D", f"cn=admin,{BASE}", "-w", "admin"],
            input=entries,
            text=True,
            check=True,
            capture_output=True,
            env={"LDAPTLS_CACERT": str(directory / "ca.pem")},
            timeout=SECONDS,
        )
        yield Slapd(port, tls_port, directory / "ca.pem", child)
    finally:
        child.stop()


def _wait_for(port: int) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            socket.create_connection((LOOPBACK, port), 1).close()
        except OSError:
            time.sleep(0.05)
        else:
            return
    raise PeerError("slapd does not listen")
