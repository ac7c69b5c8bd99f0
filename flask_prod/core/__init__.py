"""Vocabulary and pump: what every room is made of, and the one pass that runs them."""
