"""Fine-tuning against PyTorch."""
