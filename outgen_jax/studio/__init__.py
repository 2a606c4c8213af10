"""A local page to play with: bars for what a network shall say, and the image that makes it say so.

`python -m outgen_jax.studio` starts it. What the page decides stands in plain functions and values (`target`,
`uploads`, `pictures`, `snippet`, `session`); `networks` and `solving` compute; `app` speaks HTTP.
"""
