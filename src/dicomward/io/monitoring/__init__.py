"""Metrics, health, and the small HTTP server that shows them."""
