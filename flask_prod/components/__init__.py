"""The rooms, one per concern; they never import one another."""
