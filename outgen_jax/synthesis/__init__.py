"""Runs solvers over many images: `synthesize`, `predict`, `quantize`, and views of an image."""
