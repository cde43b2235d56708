"""Bytes to values and back. Pure: no paths, no clock, no network."""
