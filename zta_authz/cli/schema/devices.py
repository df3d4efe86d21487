"""Schema of DeviceInventory."""

from __future__ import annotations

from zta_authz.cli.schema.building import Schema, duration, fields, flag, shared, table, text, whole, word
from zta_authz.model.device_documents import CertificateKey, GraceAs, InventoryFormat, SerialFormat
from zta_authz.policy.documents.device_inventory import (
    FIELD_NAME,
    FILE_NAME,
    FORMATS_WITH_ID,
    LONGEST_AGE,
    MAX_FIELDS,
    RESERVED_FIELDS,
)


def device_inventory() -> Schema:
    """The schema of a DeviceInventory's `spec`."""
    file = text("A path below the setting `facts.directory`.", pattern=whole(FILE_NAME), examples=["devices.jsonl"])
    names = {"pattern": whole(FIELD_NAME), "not": {"enum": sorted(RESERVED_FIELDS)}}
    place = "The field of a record with"
    described = (
        "The fields that rules read, each with its field of a record. An empty text removes a field of the format."
    )
    schema = fields(
        "Where devices come from, and how the device of a request is identified.",
        {
            "selector": shared("selector"),
            "source": fields(
                "The file with the devices.",
                {"file": file, "format": word("The format of the file.", InventoryFormat, InventoryFormat.JSONL)},
                required=("file",),
            ),
            "id": text(f"{place} the device's id. The formats fleet and osquery have a default.", examples=["uuid"]),
            "identify": _identify(),
            "fields": {
                **table(described, {"type": "string"}, names=names, most=MAX_FIELDS),
                "examples": [{"managed": "mdm.enrolled", "osVersion": "os_version"}],
            },
            "times": fields(
                "The fields of a record with times.",
                {
                    "posture": text(f"{place} the time of its posture."),
                    "seen": text(f"{place} the time of its last report."),
                },
            ),
            "maxAge": fields(
                "From which age on facts are stale.",
                {
                    "posture": duration("The longest age of the posture.", LONGEST_AGE, "24h"),
                    "seen": duration("The longest time since the last report.", LONGEST_AGE, "168h"),
                },
            ),
            "graceAs": word("What a device in its grace period counts as.", GraceAs, GraceAs.UNKNOWN),
        },
        required=("source", "identify"),
    )
    with_id = {
        "properties": {"source": {"properties": {"format": {"enum": sorted(FORMATS_WITH_ID)}}, "required": ["format"]}}
    }
    return {**schema, "if": with_id, "else": {"required": ["id"]}}


def _identify() -> Schema:
    identify = fields(
        "How the device of a request is identified: by a certificate, else by a claim of its token.",
        {
            "certificate": word("What of the verified certificate identifies the device.", CertificateKey),
            "certificateField": text("The field of a record to compare it with. The device's id if absent."),
            "certificateIssuer": text(
                "For `serial`: the issuer of all these certificates, in the form of RFC 4514.",
                examples=["CN=Device CA,O=Shop"],
            ),
            "serialFormat": word("For `serial`: how the records write serial numbers.", SerialFormat),
            "tokenClaim": text("The claim of a token that is bound to its presenter.", examples=["device_id"]),
            "acceptUnbound": flag("Also accept the claim of a token that anybody may present."),
        },
        one_of=("certificate", "tokenClaim"),
    )
    serial: Schema = {"properties": {"certificate": {"const": str(CertificateKey.SERIAL)}}, "required": ["certificate"]}
    only_for_serials = ("certificateIssuer", "serialFormat")
    return {
        **identify,
        "dependentRequired": {"certificateField": ["certificate"]},
        "if": serial,
        "then": {"required": ["certificateField", *only_for_serials]},
        "else": {"properties": dict.fromkeys(only_for_serials, False)},
    }
