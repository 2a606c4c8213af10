"""A local page: bars set the output that a network should return, and the image changes until it does.

`python -m outgen_jax.studio` starts it. The decisions of the page are in plain functions and values (`target`,
`uploads`, `pictures`, `snippet`, `session`); `networks` and `solving` compute; `app` speaks HTTP.
"""
