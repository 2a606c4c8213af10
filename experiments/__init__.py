"""Scripts of the studies, and tools for your own data."""
