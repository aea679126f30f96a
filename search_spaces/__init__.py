"""Built-in search spaces: each file has `space(...)` and the `build` it is made with."""
