"""Reads on replicas: which may go there, to which one, and what a client that has just written sees.

Nothing is exported here: `marks` is used before any application exists, and knows nothing of SQLAlchemy.
"""
