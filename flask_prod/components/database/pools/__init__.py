"""Pools of connections: how they grow and shrink, and what is told of them."""
