"""The `fedge` command: its subcommands, one module each, and the files they use.

Nothing in here is imported by the rest of the library.
"""
