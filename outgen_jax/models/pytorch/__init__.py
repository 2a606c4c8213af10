"""Weights that PyTorch saved: read without PyTorch, and given to networks of this package."""
