"""Convolutions, layer by layer."""
