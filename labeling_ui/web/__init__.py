"""The studio in the browser: server, REST API, sign-in and what pages show."""
