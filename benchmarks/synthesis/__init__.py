"""Synthesis against PyTorch and attack libraries."""
