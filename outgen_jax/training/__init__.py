"""Training of networks: compiled updates, checkpoints."""
