"""Outputs of every kind, prescribed: labels, numbers, embeddings, several networks and several views at once."""
