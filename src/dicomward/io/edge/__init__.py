"""The edge agent: its listeners, its spool, its associations upstream."""
