"""The main subject: targets, pixel maps, solvers, and running them over many images."""
