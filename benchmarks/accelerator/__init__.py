"""What one accelerator reaches: its peaks, and synthesis as a share of them."""
