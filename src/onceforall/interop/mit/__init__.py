"""The authors' code: checkpoints, arch dicts, descriptions of specialised nets."""
