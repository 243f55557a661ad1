"""Judges a bill of materials by the schema of CycloneDX 1.6: `judge_cyclonedx.py FILE`."""

import pathlib
import sys

from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator

text = pathlib.Path(sys.argv[1]).read_text(encoding="utf-8")
sys.exit(str(error) if (error := JsonStrictValidator(SchemaVersion.V1_6).validate_str(text)) else 0)
