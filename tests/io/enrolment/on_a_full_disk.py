"""In a mount namespace of its own: an enrolment server on a small disk, full and free again; prints what happened."""

import json
import os
import subprocess
import sys
from pathlib import Path

from sqlalchemy import func, select

from dicomward.io.registry.store import RegistryStore
from dicomward.io.registry.tables import CHANGES, ISSUED
from tests.io.enrolment_place import Place, enrolment_place, new_key

_CHUNK = bytes(1 << 16)


def fill(path: Path) -> None:
    """Write until nothing fits any more, not even a byte."""
    with path.open("wb", buffering=0) as file:
        for chunk in (_CHUNK, b"x"):
            try:
                while True:
                    file.write(chunk)
            except OSError:
                continue


def counted(place: Place) -> list[int]:
    """Return how many certificates were issued, are bound, and how many changes there were."""
    with RegistryStore.open(place.settings.registry.url) as store:
        bound = sum(len(each.certificates) for each in store.read().devices)
        with store.reading() as connection:
            numbers = [
                connection.execute(select(func.count()).select_from(each)).scalar_one() for each in (ISSUED, CHANGES)
            ]
    return [numbers[0], bound, numbers[1]]


def main(mount: Path) -> None:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", mount], check=True)
    with enrolment_place(mount / "gateway") as place:
        assert place.enrol(place.invite("before")).status == 200
        handed, key = place.invite("ct1"), new_key()
        before = counted(place)
        fill(mount / "ballast")
        refused = place.enrol(handed, key)
        full = counted(place)
        os.unlink(mount / "ballast")
        issued = place.enrol(handed, key)
        after = counted(place)
        told = {
            "full": [refused.status, refused.text],
            "same": before == full,
            "free": issued.status,
            "more": [new - old for new, old in zip(after, before, strict=True)],
            "again": place.enrol(handed).status,
        }
    print(json.dumps(told))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
