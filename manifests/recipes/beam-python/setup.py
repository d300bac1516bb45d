"""Takes the token provider to the workers: `--setup_file ./setup.py`."""

import setuptools

setuptools.setup(name="tidegate-tokens", version="1.0.0", py_modules=["tidegate_tokens"])
