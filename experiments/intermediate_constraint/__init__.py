"""Fine-tuning under the intermediate constraint loss (paper D)."""
