"""Exact targets: how near, at what price, on which networks (beyond paper A)."""
