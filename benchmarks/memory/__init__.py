"""Memory by batch size."""
