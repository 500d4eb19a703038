pytest_plugins = ["stylize.testing"]
