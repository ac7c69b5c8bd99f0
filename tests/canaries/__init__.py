"""Secrets planted in every input of a running service, and a search of all that comes out of it."""
