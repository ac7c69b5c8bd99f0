"""Tests of the problems room."""
