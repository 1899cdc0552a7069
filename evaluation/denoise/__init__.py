"""`rmkit denoise`: which denoising helps on given data, and which labels people should see again."""
