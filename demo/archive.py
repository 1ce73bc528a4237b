"""The demonstration's archive: Orthanc where it is installed, else the small embedded one; with real images in it."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from children import LOOPBACK, Children, DemoError, free_port
from clients import Image, load_image, store

ORTHANC: Final = Path("/usr/sbin/Orthanc")
ARCHIVE: Final = "ARCHIVE"
SEEDER: Final = "SEEDER"
SEEDS: Final = ("CT_small.dcm", "MR_small.dcm", "SC_rgb_16bit.dcm")


@dataclass(frozen=True, slots=True, kw_only=True)
class RunningArchive:
    """Where it listens, and what it is."""

    description: str
    port: int


def start_archive(
    children: Children, directory: Path, *, devices: dict[str, int], port: int, embedded: bool
) -> RunningArchive:
    """Start it on loopback, tell it the devices (title: port where it reaches them), and put images into it."""
    if ORTHANC.exists() and not embedded:
        description = "Orthanc"
        _start_orthanc(children, directory, devices, port)
    else:
        description = "the embedded archive" if embedded else "the embedded archive (Orthanc is not installed)"
        program = Path(__file__).with_name("embedded_archive.py")
        known = [f"{title}={number}" for title, number in devices.items()]
        children.start("archive", [sys.executable, program, str(port), ARCHIVE, directory, *known], port=port)
    for image in seeds():
        status = store(port, calling=SEEDER, called=ARCHIVE, image=image, credentials=None)
        if status != 0:
            raise DemoError(f"{description} did not take {image.name}: {status}\n{children.tail('archive')}")
    return RunningArchive(description=description, port=port)


def seeds() -> list[Image]:
    """Return the images that are in the archive from the start."""
    return [load_image(name) for name in SEEDS]


def _start_orthanc(children: Children, directory: Path, devices: dict[str, int], port: int) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    options: dict[str, object] = {
        "Name": ARCHIVE,
        "StorageDirectory": str(directory),
        "IndexDirectory": str(directory),
        "HttpPort": free_port(8042),
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "DicomAet": ARCHIVE,
        "DicomPort": port,
        "DicomCheckCalledAet": False,
        # Orthanc's DICOM port listens on every address: without these two, whoever reaches it could store.
        # With them it serves the titles below, from loopback only; as in the field, that is all that it can check.
        "DicomAlwaysAllowEcho": False,
        "DicomAlwaysAllowStore": False,
        "DicomCheckModalityHost": True,
        "DicomModalities": {
            title.lower(): {
                "AET": title,
                "Host": LOOPBACK,
                "Port": number,
                **dict.fromkeys(("AllowEcho", "AllowFind", "AllowGet", "AllowMove", "AllowStore"), True),
            }
            for title, number in {**devices, SEEDER: port}.items()
        },
        "OverwriteInstances": True,
    }
    configuration = directory.with_suffix(".json")
    configuration.write_text(json.dumps(options, indent=2))
    children.start("archive", [ORTHANC, configuration], port=port)
