"""HTML, Markdown and JSON pages of results, and their charts."""
