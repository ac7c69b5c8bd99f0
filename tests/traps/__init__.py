"""One test for each known trap of composing the libraries by hand: the kit passes it, by hand it fails.

`pytest tests/traps --by-hand` runs the same scenarios against the composition of bench/by_hand.py;
`make traps` runs both and writes docs/traps.md.
"""
