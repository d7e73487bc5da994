"""Who may enter the page: one-time links, session cookies, and the gate before every route."""
