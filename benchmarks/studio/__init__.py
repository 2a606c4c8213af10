"""Seconds until the studio reaches a target."""
