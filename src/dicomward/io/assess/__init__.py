"""The assessment: probes, counting, its store, its reports."""
