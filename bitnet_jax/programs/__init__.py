"""Uses of trained models: generation, freezing, studies, compiling ahead."""
