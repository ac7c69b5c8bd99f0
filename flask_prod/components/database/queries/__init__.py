"""What is told of queries: metrics, spans, slow ones, and those that a request repeats.

Nothing is exported here: `telemetry` is imported while the room is installed, and knows nothing of SQLAlchemy.
"""
