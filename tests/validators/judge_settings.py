"""Judges an administrator's settings: `judge_settings.py SCHEMA FILE...`, with a line `accepted` or `refused: why` for each file.

CycloneDX's library brings `jsonschema` along. Importing it takes seconds, so all files are judged by one process.
"""

import json
import pathlib
import sys

from jsonschema import Draft202012Validator

schema, *documents = (json.loads(pathlib.Path(argument).read_text(encoding="utf-8")) for argument in sys.argv[1:])
Draft202012Validator.check_schema(schema)
for document in documents:
    errors = [error.message for error in Draft202012Validator(schema).iter_errors(document)]
    print("refused: " + "; ".join(errors) if errors else "accepted")
