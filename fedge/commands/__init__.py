"""The `fedge` command: its subcommands, one module each, and the files they make.

Devices read those files with `enrolment` and `key_files`; nothing else in here is
imported by the rest of the library.
"""
