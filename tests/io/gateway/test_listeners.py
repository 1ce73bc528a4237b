"""The list of listeners, as the settings name them."""

from pathlib import Path

from dicomward.io.gateway.listeners import NamedListener, listeners_of
from dicomward.relay.inputs import Listener
from dicomward.settings import ListenAddress, parse_settings

SETTINGS = """
[gateway]
listen = "192.0.2.1:2762"
archive_listen = "[::1]:11113"
archive_listen_tls = {tls}
"""


def test_the_device_side_comes_last_and_always_has_tls() -> None:
    plain, device = listeners_of(parse_settings(SETTINGS.format(tls="false"), path=Path("dicomward.toml")))
    assert plain == NamedListener(
        name="archive", kind=Listener.ARCHIVE, address=ListenAddress(host="::1", port=11113), tls=False
    )
    assert device == NamedListener(
        name="device", kind=Listener.DEVICE, address=ListenAddress(host="192.0.2.1", port=2762), tls=True
    )


def test_archive_side_has_tls_where_the_settings_say_so() -> None:
    archive, _device = listeners_of(parse_settings(SETTINGS.format(tls="true"), path=Path("dicomward.toml")))
    assert archive.tls


def test_legacy_zone_listens_in_plaintext_under_its_name() -> None:
    text = '[[legacy_zones]]\nname = "old"\nlisten = "127.0.0.1:104"\nnetworks = ["10.1.2.0/24"]\nend_date = 2099-12-31'
    listeners = listeners_of(parse_settings(text, path=Path("/x/dicomward.toml")))
    (zone,) = [each for each in listeners if each.kind is Listener.LEGACY]
    assert (zone.name, str(zone.address), zone.tls) == ("old", "127.0.0.1:104", False)
