"""The harmless deviations of old devices that pass and are counted for each device.

A deviation is one that leaves only one way to read the message, and that is gone from what we send on. Whatever can
be read in two ways is an error instead.
"""

from enum import StrEnum


class Deviation(StrEnum):
    """One deviation; the value is what audit and metrics show. Append only."""

    # association PDUs
    AE_TITLE_NUL_PADDING = "ae-title-nul-padding"
    UID_NUL_PADDING = "uid-nul-padding"
    UID_SPACE_PADDING = "uid-space-padding"
    UID_LEADING_ZERO = "uid-leading-zero"
    ASSOCIATE_RQ_PROTOCOL_VERSION_BITS = "associate-rq-protocol-version-bits"
    UNKNOWN_ITEM = "unknown-item"
    MISSING_TRANSFER_SYNTAX = "missing-transfer-syntax"
    DUPLICATE_USER_ITEM = "duplicate-user-item"
    UNKNOWN_USER_ITEM = "unknown-user-item"
    UNEXPECTED_USER_ITEM = "unexpected-user-item"
    MISSING_MAXIMUM_LENGTH = "missing-maximum-length"
    MISSING_IMPLEMENTATION_CLASS_UID = "missing-implementation-class-uid"
    IMPLEMENTATION_VERSION_NAME = "implementation-version-name"
    # command sets
    MISSING_GROUP_LENGTH = "missing-group-length"
    WRONG_GROUP_LENGTH = "wrong-group-length"
    RETIRED_ELEMENT = "retired-element"
    UNKNOWN_ELEMENT = "unknown-element"
    UNEXPECTED_ELEMENT = "unexpected-element"
    EMPTY_ELEMENT = "empty-element"
    ODD_LENGTH = "odd-length"
    INTEGER_LENGTH = "integer-length"
    INSTANCE_UID_LETTERS = "instance-uid-letters"
    MISSING_PRIORITY = "missing-priority"
    INVALID_PRIORITY = "invalid-priority"
    ERROR_COMMENT = "error-comment"
    DATA_SET_IN_RESPONSE = "data-set-in-response"
    DATA_SET_WITHOUT_PENDING = "data-set-without-pending"
    PENDING_WITHOUT_DATA_SET = "pending-without-data-set"
    # heads of data sets
    DATA_SET_TRANSFER_SYNTAX = "data-set-transfer-syntax"
    DATA_SET_ORDER = "data-set-order"
    DATA_SET_ELEMENT_TWICE = "data-set-element-twice"
