"""Running a shipped model on a device: no torch in here."""
