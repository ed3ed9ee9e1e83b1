"""Trains members of a sweep that differ in numbers only by one program."""
