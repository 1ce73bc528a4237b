"""The audit log on disk, and its way to syslog receivers."""
