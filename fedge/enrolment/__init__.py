"""Who belongs to a federation: an enrolment key, and a folder of keys per device."""
