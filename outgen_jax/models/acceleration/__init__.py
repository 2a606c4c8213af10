"""Networks as others wrote them, traced and rewritten to the forms of `models.convolution` and fast poolings."""
