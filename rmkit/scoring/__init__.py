"""`rmkit score`, `calibrate`, `normalize` and `verify`: what is done with a finished model."""
