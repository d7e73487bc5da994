"""Models of outside services. Light: the standard library and httpx."""
