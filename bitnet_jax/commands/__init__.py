"""Programs with command lines: a module has the flags and main of each."""
