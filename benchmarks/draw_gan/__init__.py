"""The attention GAN against PyTorch."""
