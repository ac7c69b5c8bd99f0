"""What users write: a job, its options, arguments, retries and progress.

Nothing is exported here: these are imported before any application exists, and import no RQ.
"""
