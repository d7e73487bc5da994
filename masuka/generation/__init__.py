"""Drawing pictures, and the light things around it: prompts and what a picture says of itself."""
