"""GANs on small augmented sets (paper B)."""
