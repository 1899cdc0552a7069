"""What leaves the warehouse: export folders with manifest, card and license gate."""
