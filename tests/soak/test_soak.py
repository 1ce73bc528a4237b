"""A minute of faults: nothing acknowledged is missing, nothing is unrecorded, nothing undecided reaches the archive."""

from pathlib import Path

import pytest

from tests.real.servers import DCMTK, need
from tests.soak.soak import soak

SECONDS = 60.0


@pytest.mark.timeout(240)
@pytest.mark.filterwarnings("ignore")
def test_a_minute_of_faults(tmp_path: Path) -> None:
    need(DCMTK / "storescp", "dcmtk")
    need(Path("/usr/sbin/rsyslogd"), "rsyslog rsyslog-gnutls")
    report = soak(tmp_path, SECONDS)
    assert report.missing == []
    assert report.unrecorded == []
    assert report.undecided == []
    assert report.breaches == []
    assert len(report.faults) >= 8
    assert report.stale == []
    assert report.is_good, report
