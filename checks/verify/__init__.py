"""Recorded results measured again, compared, and accepted."""
