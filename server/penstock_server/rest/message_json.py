"""Messages of protobuf as JSON, as Triton writes them: every field, under its own name, with whole numbers as numbers.

protobuf's own JSON writes 64-bit numbers as texts, which Triton's clients do not read.
"""

from typing import Any, Final, cast

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message

_UNSET_IS_ABSENT: Final = "parameter_choice"


def json_of_message(message: Message) -> dict[str, Any]:
    """All fields of a message; of a oneof, and of messages within it, those that are set."""
    found: dict[str, Any] = {}
    for field in cast("Any", message.DESCRIPTOR).fields:
        if _may_be_absent(field) and not message.HasField(field.name):
            continue
        value = getattr(message, field.name)
        if _is_map(field):
            kind = field.message_type.fields_by_name["value"]
            found[field.name] = {key: _json_of(kind, value[key]) for key in sorted(value)}
        elif _is_repeated(field):
            found[field.name] = [_json_of(field, each) for each in value]
        else:
            found[field.name] = _json_of(field, value)
    return found


def setting_of(message: Message) -> Any:
    """The value of a setting, which a oneof or a list of texts holds; None if none is set."""
    chosen = message.WhichOneof(_UNSET_IS_ABSENT) if _UNSET_IS_ABSENT in message.DESCRIPTOR.oneofs_by_name else "value"
    if chosen is None:
        return None
    value = getattr(message, chosen)
    return list(value) if chosen == "value" else value


def _json_of(field: Any, value: Any) -> Any:
    if field.type == FieldDescriptor.TYPE_MESSAGE:
        return json_of_message(value)
    if field.type == FieldDescriptor.TYPE_ENUM:
        named = field.enum_type.values_by_number.get(value)
        return value if named is None else named.name
    return value


def _may_be_absent(field: Any) -> bool:
    """A number that is not set is 0; a message, or one of several fields, is not there."""
    if _is_repeated(field):
        return False
    oneof = field.containing_oneof
    # An optional number is the only field of a oneof that the compiler makes for it.
    return field.message_type is not None or (oneof is not None and not oneof.name.startswith("_"))


def _is_repeated(field: Any) -> bool:
    """`label` was dropped in protobuf 7, and `is_repeated` came in 6.31."""
    repeated = getattr(field, "is_repeated", None)
    return field.label == FieldDescriptor.LABEL_REPEATED if repeated is None else bool(repeated)


def _is_map(field: Any) -> bool:
    return field.message_type is not None and bool(field.message_type.GetOptions().map_entry)
