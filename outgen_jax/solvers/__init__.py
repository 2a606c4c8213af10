"""Solvers, which move an image to its target: pure functions of one image, and their options."""
