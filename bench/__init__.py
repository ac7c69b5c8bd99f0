"""Side by side: bare Flask, the same libraries composed by hand, and the kit, in one run and as ratios."""
