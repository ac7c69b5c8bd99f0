"""Tests of the ratelimit room."""
