"""Attacks on the trainer itself: what they measure is a lower bound on ε, to be held against the ε
that is claimed."""
