"""A local page: bars set the output that a network should return, and the image changes until it does.

`python -m outgen_jax.studio` starts it. The decisions of the page are in plain functions and values (`target`,
`values`, `uploads`, `pictures`, `snippet`, `record`, `session`); `networks`, `solving` and `saving` compute; `app`
speaks HTTP.
"""
