"""One worker on the shards of a fleet: `python -m fleet.worker DIRECTORY DATABASE THREADS`. Any number may run."""

import os
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

from dicomward.assess.count_limits import CountLimits
from dicomward.assess.count_query import Caller
from dicomward.assess.sites import read_sites
from dicomward.io.assess.count_run import CountJob, work
from dicomward.io.assess.shards import ShardStore
from dicomward.relay.negotiation import IMPLEMENTATION_CLASS_UID, IMPLEMENTATION_VERSION_NAME

# A killed worker's shards are free after this; real runs, whose workers see each other's clocks less, take more.
LEASE_SECONDS = 4


def main() -> int:
    """Work until the fleet is counted."""
    directory, url, threads = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    store = ShardStore(url, lease_seconds=LEASE_SECONDS)
    job = CountJob(
        caller=Caller(
            calling_ae_title="DICOMWARD",
            called_ae_title="ANY-SCP",
            implementation_class_uid=IMPLEMENTATION_CLASS_UID,
            implementation_version_name=IMPLEMENTATION_VERSION_NAME,
        ),
        today=datetime.fromtimestamp(time.time(), UTC).date(),
        # The largest archive of a fleet is asked again from its beginning after a break: its patients count exactly.
        limits=CountLimits(reread_matches=50_000_000),
        sites=read_sites((directory / "sites.csv").read_text()),
        threads=threads,
    )
    work(store, job, worker=f"pid {os.getpid()}")
    store.close()
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
