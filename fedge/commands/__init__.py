"""The `fedge` command: its subcommands, one thin module each.

Nothing in here is imported by the rest of the library.
"""
