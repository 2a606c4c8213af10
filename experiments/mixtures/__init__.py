"""The study of mixtures: what people and other networks see in images with several classes."""
