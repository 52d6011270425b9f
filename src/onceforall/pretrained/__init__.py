"""Pretrained networks of others, read as a table of rows and its weights."""
