"""The web server: routes, streaming, errors, access log. The only package that knows FastAPI and Starlette."""
