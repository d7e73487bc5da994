"""Trainings: from the pictures of a data set to a LoRA file that explains itself."""
