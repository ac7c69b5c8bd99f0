"""Tests of the cors room."""
