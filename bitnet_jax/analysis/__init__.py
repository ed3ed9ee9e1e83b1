"""Analysis of programs without running them: operations and communication."""
