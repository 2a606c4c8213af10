"""What large sets would take on accelerators, by formulas and what was measured on CPU."""
