"""Public weights: files -> networks."""
