"""The running gateway: listeners, sessions, the executor, what sessions share, reload."""
