"""Holds files of TOML against a JSON Schema: for each a line, with `good` or the path of what is not."""

import json
import sys
import tomllib

import jsonschema

schema = json.load(open(sys.argv[1]))
jsonschema.Draft7Validator.check_schema(schema)
for name in sys.argv[2:]:
    with open(name, "rb") as file:
        errors = jsonschema.Draft7Validator(schema).iter_errors(tomllib.load(file))
        print(*sorted({".".join(map(str, error.absolute_path)) or "the top" for error in errors}) or ["good"], sep=" ")
