"""Tests of the headers room."""
