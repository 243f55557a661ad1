"""Judges a provenance: `judge_provenance.py FILE KEY`. The key (PEM) has signed the envelope, and SLSA's provenance v1 is in it."""

import json
import pathlib
import sys

from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1.provenance_pb2 import Provenance
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

document, key = (pathlib.Path(argument).read_bytes() for argument in sys.argv[1:])
envelope = Envelope.from_dict(json.loads(document))
# The library tries a key on signatures of its own id alone, and ids are not signed: it may have any of them.
keys = [SSlibKey.from_crypto(load_pem_public_key(key), keyid=keyid) for keyid in envelope.signatures]
envelope.verify(keys, 1)
if envelope.payload_type != "application/vnd.in-toto+json":
    sys.exit(f"not a statement: {envelope.payload_type}")
statement = json_format.Parse(envelope.payload, statement_pb2.Statement())
Statement.copy_from_pb(statement).validate()
if statement.predicate_type != "https://slsa.dev/provenance/v1":
    sys.exit(f"not provenance: {statement.predicate_type}")
provenance = json_format.ParseDict(json_format.MessageToDict(statement.predicate), Provenance())
if not (provenance.build_definition.build_type and provenance.run_details.builder.id):
    sys.exit("no build type or no builder")
