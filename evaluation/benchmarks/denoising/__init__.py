"""`rmkit bench denoising`."""
