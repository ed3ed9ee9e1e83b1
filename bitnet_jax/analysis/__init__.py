"""Analysis of programs, without running them, and of results: statistics."""
