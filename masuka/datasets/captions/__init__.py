"""Captions of pictures: their wording (`text`), and the models that write them.

Light: what is imported here loads no model and no heavy library.
"""
