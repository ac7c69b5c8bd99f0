"""From a job that is kept to its end: what a worker process does, wherever the jobs lie."""
