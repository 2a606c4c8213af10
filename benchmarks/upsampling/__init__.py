"""Ways to upsample."""
