"""The page: tabs, their HTML pieces, and the one place that wires them to the studio."""
