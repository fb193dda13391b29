"""The engine benchmark's work as a plain Flower app, in the style of its templates."""
