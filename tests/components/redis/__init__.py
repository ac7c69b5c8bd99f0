"""Tests of the redis room."""
