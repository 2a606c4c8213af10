"""What compiling costs."""
