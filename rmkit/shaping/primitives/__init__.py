"""The transforms that presets are made of, one a file; named in `rmkit.plugins`, group `transforms`."""
