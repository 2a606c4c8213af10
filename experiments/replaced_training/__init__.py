"""Training on generated images (paper A, Table A1)."""
