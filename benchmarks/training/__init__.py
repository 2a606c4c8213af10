"""Training against PyTorch."""
