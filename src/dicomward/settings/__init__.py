"""The settings: one frozen tree, read once from TOML. Every problem is located; an unknown key is an error.

A relative path is relative to the directory of the file. docs/settings.md lists every setting.
"""

from typing import Final

from dicomward.settings.kinds import CertificatePair, ListenAddress, SettingsError, SettingsProblem, parse_host_port
from dicomward.settings.people import PeopleSettings
from dicomward.settings.reading import load_settings, parse_settings
from dicomward.settings.sections import SECTIONS, GatewaySettings, Settings, TlsSettings
from dicomward.settings.zones import ZONE_KEYS, LegacyZoneSettings

__all__ = [
    "CONFIG_NAME",
    "SECTIONS",
    "ZONE_KEYS",
    "CertificatePair",
    "GatewaySettings",
    "LegacyZoneSettings",
    "ListenAddress",
    "PeopleSettings",
    "Settings",
    "SettingsError",
    "SettingsProblem",
    "TlsSettings",
    "load_settings",
    "parse_host_port",
    "parse_settings",
]

CONFIG_NAME: Final = "dicomward.toml"
