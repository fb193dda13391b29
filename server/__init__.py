"""The program of the coordinator: rounds, journal, publishing."""
