"""The database of devices and archives, its migrations, and the snapshot that the gateway reads."""
