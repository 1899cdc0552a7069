"""`rmkit drift`: served scores against a reference set."""
