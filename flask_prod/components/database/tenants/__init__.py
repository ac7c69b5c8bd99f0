"""Tenants: each has a database or a schema of its own, and none sees a connection of another.

Nothing is exported here: `names` is imported while the room is installed, and knows nothing of SQLAlchemy.
"""
