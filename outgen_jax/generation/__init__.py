"""Data sets of generated images: streamed, written in shards, resumed."""
