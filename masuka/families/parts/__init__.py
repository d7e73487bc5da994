"""What families are put together from: objectives, autoencoders, encoders, tiny models."""
