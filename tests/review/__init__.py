"""Tests of the production check."""
