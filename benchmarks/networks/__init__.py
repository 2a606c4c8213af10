"""Networks that users bring, against PyTorch."""
