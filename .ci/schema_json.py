#!/usr/bin/env python3
"""docs/reference/schema.json against the schemas of tests/schemas: `python .ci/schema_json.py`.

It must accept the built-in schema and the valid ones, and reject the invalid ones. Those under
broken/ break rules that no JSON Schema can express. Needs the package jsonschema.
"""

import json
import pathlib
import sys
import tomllib

import jsonschema

ROOT = pathlib.Path(__file__).parent.parent


def main() -> int:
    schema = json.loads((ROOT / "docs/reference/schema.json").read_text())
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    examples = ROOT / "tests/schemas"
    valid = [ROOT / "src/wire/schema/default.toml", *sorted((examples / "valid").glob("*.toml"))]
    invalid = sorted((examples / "invalid").glob("*.toml"))
    wrong = [f"{path}: {error.message}" for path in valid for error in errors(validator, path)]
    wrong += [f"{path}: is accepted" for path in invalid if not errors(validator, path)]
    print(*wrong, sep="\n", end="\n" if wrong else "")
    print(f"docs/reference/schema.json: {len(valid)} valid and {len(invalid)} invalid schemas checked")
    return 1 if wrong or len(valid) < 5 or len(invalid) < 20 else 0


def errors(validator: jsonschema.Draft202012Validator, path: pathlib.Path) -> list:
    with path.open("rb") as file:
        return list(validator.iter_errors(tomllib.load(file)))


if __name__ == "__main__":
    sys.exit(main())
