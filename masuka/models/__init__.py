"""Base models: where they lie, how they get there, and how they are loaded."""
