"""How credentials reach Google; nothing is sent here."""
