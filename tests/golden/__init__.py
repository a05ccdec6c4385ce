"""Golden cases: a folder each, `case.yaml` in, plan, commands and units out."""
