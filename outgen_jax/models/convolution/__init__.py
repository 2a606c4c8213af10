"""How convolutions are computed: forms that are fast on CPUs, behind primitives with fast gradients."""
