"""Jobs that run again and again: when their slots are, and the one worker of all that dispatches them."""
