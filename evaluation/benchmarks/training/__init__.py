"""`rmkit bench training` and `rmkit bench gpu`."""
