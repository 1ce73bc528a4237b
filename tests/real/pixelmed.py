"""PixelMed (Java) as a server: an archive with queries, a receiver that only stores; and how its classes are run."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import pkcs12

from tests.real.pki import Credentials
from tests.real.processes import free_port
from tests.real.servers import Server, need

JAVA: Final = Path("/usr/bin/java")
_JARS: Final = Path("/usr/share/java")
_PACKAGE: Final = "libpixelmed-java"
# What the classes below load; without slf4j it logs on standard error.
_NEEDED: Final = ("pixelmed", "hsqldb", "commons-codec")


def class_path(*more: Path) -> str:
    """Return where the classes of PixelMed and others are; skip the test where it isn't installed."""
    jars = [need(_JARS / f"{name}.jar", _PACKAGE) for name in _NEEDED]
    return os.pathsep.join(str(each) for each in (*jars, *more))


def java(
    *arguments: str | Path, properties: dict[str, str | Path] | None = None, classes: Sequence[Path] = ()
) -> list[str | Path]:
    """Return the command line of a class of PixelMed, or skip the test with the reason."""
    need(JAVA, "default-jre-headless")
    given = [f"-D{name}={value}" for name, value in {"java.awt.headless": "true", **(properties or {})}.items()]
    return [JAVA, "-XX:TieredStopAtLevel=1", *given, "-cp", class_path(*classes), *arguments]


class PixelmedArchive(Server):
    """DicomAndWebStorageServer: C-ECHO, C-STORE, C-FIND, C-GET and C-MOVE for whoever knows its title."""

    def __init__(self, ae_title: str, directory: Path) -> None:
        super().__init__(ae_title, directory)
        options = {
            "Dicom.ListeningPort": self.port,
            "Dicom.CalledAETitle": ae_title,
            "Dicom.CallingAETitle": ae_title,
            "Dicom.PrimaryDeviceType": "ARCHIVE",
            "Application.SavedImagesFolderName": directory,
            "Application.DatabaseFileName": directory.parent / f"{directory.name}.database",
            "WebServer.ListeningPort": free_port(),
        }
        settings = directory.parent / f"{directory.name}.properties"
        settings.write_text("".join(f"{name}={value}\n" for name, value in options.items()))
        self.start(java("com.pixelmed.server.DicomAndWebStorageServer", settings))


class PixelmedReceiver(Server):
    """StorageSOPClassSCPDispatcher: C-ECHO and C-STORE; in TLS of Java's, which asks for no client certificate."""

    def __init__(self, ae_title: str, directory: Path, *, credentials: Credentials | None = None) -> None:
        super().__init__(ae_title, directory)
        properties: dict[str, str | Path] = {}
        if credentials is not None:
            store = directory.parent / f"{directory.name}.p12"
            store.write_bytes(_keystore(credentials))
            properties = {
                "javax.net.ssl.keyStore": store,
                "javax.net.ssl.keyStorePassword": "pixelmed",
                "javax.net.ssl.keyStoreType": "PKCS12",
            }
        self.start(
            java(
                "com.pixelmed.network.StorageSOPClassSCPDispatcher",
                str(self.port),
                ae_title,
                directory,
                "NONSECURE" if credentials is None else "SECURE",
                properties=properties,
            )
        )


def _keystore(credentials: Credentials) -> bytes:
    key = serialization.load_pem_private_key(credentials.key.read_bytes(), None)
    assert isinstance(key, RSAPrivateKey)
    certificate = x509.load_pem_x509_certificate(credentials.certificate.read_bytes())
    return pkcs12.serialize_key_and_certificates(
        b"pixelmed", key, certificate, None, serialization.BestAvailableEncryption(b"pixelmed")
    )
