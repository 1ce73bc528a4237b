"""A process that issues certificates from four threads until it is killed; a line for each that was answered."""

import sys
import threading
from itertools import count
from pathlib import Path

from dicomward.io.ca.directory import CaDirectory
from dicomward.io.registry.store import RegistryStore
from tests.io.ca_helpers import NOW, grant, issuer, spki


def main(url: str, ca: Path, prefix: str) -> None:
    with RegistryStore.open(url, keeps_connections=True) as store:
        issuing = issuer(store, CaDirectory(ca))

        def work(thread: int) -> None:
            for number in count():
                name = f"{prefix}-{thread}-{number}"
                issued = issuing.issue(spki(), grant(name, f"{prefix}{thread}-{number}"), NOW)
                sys.stdout.write(f"{issued.serial:x} {issued.sha256} {name}\n")
                sys.stdout.flush()

        threads = [threading.Thread(target=work, args=(each,), daemon=True) for each in range(4)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), sys.argv[3])
