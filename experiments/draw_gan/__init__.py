"""The attention GAN (paper C)."""
