"""Programs for your own images and data: `python -m outgen_jax.tools.synthesize --help`, and the others here.

They need the extra `scripts`.
"""
