"""LoRA files: their layers' names in every convention, written, read and counted."""
