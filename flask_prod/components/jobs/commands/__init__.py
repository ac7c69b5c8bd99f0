"""`flask prod jobs ...`: the commands below the group of `cli.py`."""
