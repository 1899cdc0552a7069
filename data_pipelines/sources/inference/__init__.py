"""Roles of the columns of a table that no published form knows, told from names, types, values and relations."""
