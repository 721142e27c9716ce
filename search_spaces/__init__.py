"""Ready-made spaces, one module each; `tunekit.run("mnist", ...)` takes them by name. Copy one to make your own."""
