"""Command-line programs for your own images and data, such as `python -m outgen_jax.tools.synthesize`.

They need the extra `scripts`.
"""
