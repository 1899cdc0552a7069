"""The studio's pages, one file each; a page is a function without arguments."""
