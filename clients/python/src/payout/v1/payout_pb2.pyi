import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class PayoutState(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    PAYOUT_STATE_UNSPECIFIED: _ClassVar[PayoutState]
    PAYOUT_STATE_SENDING: _ClassVar[PayoutState]
    PAYOUT_STATE_NOT_SENT: _ClassVar[PayoutState]
    PAYOUT_STATE_IN_DOUBT: _ClassVar[PayoutState]
    PAYOUT_STATE_ACCEPTED: _ClassVar[PayoutState]
    PAYOUT_STATE_REJECTED: _ClassVar[PayoutState]
    PAYOUT_STATE_VOIDED: _ClassVar[PayoutState]
    PAYOUT_STATE_SUCCEEDED: _ClassVar[PayoutState]
    PAYOUT_STATE_FAILED: _ClassVar[PayoutState]
    PAYOUT_STATE_DENIED: _ClassVar[PayoutState]
PAYOUT_STATE_UNSPECIFIED: PayoutState
PAYOUT_STATE_SENDING: PayoutState
PAYOUT_STATE_NOT_SENT: PayoutState
PAYOUT_STATE_IN_DOUBT: PayoutState
PAYOUT_STATE_ACCEPTED: PayoutState
PAYOUT_STATE_REJECTED: PayoutState
PAYOUT_STATE_VOIDED: PayoutState
PAYOUT_STATE_SUCCEEDED: PayoutState
PAYOUT_STATE_FAILED: PayoutState
PAYOUT_STATE_DENIED: PayoutState

class Payout(_message.Message):
    __slots__ = ("pid", "third_party_id", "cid", "state", "reason", "currency", "address", "amount", "remark", "memo", "callback_url", "cregis_status", "txid", "block_height", "block_time", "create_time", "update_time", "revision", "attention", "state_time")
    PID_FIELD_NUMBER: _ClassVar[int]
    THIRD_PARTY_ID_FIELD_NUMBER: _ClassVar[int]
    CID_FIELD_NUMBER: _ClassVar[int]
    STATE_FIELD_NUMBER: _ClassVar[int]
    REASON_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    REMARK_FIELD_NUMBER: _ClassVar[int]
    MEMO_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_URL_FIELD_NUMBER: _ClassVar[int]
    CREGIS_STATUS_FIELD_NUMBER: _ClassVar[int]
    TXID_FIELD_NUMBER: _ClassVar[int]
    BLOCK_HEIGHT_FIELD_NUMBER: _ClassVar[int]
    BLOCK_TIME_FIELD_NUMBER: _ClassVar[int]
    CREATE_TIME_FIELD_NUMBER: _ClassVar[int]
    UPDATE_TIME_FIELD_NUMBER: _ClassVar[int]
    REVISION_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_FIELD_NUMBER: _ClassVar[int]
    STATE_TIME_FIELD_NUMBER: _ClassVar[int]
    pid: int
    third_party_id: str
    cid: int
    state: PayoutState
    reason: str
    currency: str
    address: str
    amount: str
    remark: str
    memo: str
    callback_url: str
    cregis_status: int
    txid: str
    block_height: int
    block_time: _timestamp_pb2.Timestamp
    create_time: _timestamp_pb2.Timestamp
    update_time: _timestamp_pb2.Timestamp
    revision: int
    attention: _containers.RepeatedScalarFieldContainer[str]
    state_time: _timestamp_pb2.Timestamp
    def __init__(self, pid: _Optional[int] = ..., third_party_id: _Optional[str] = ..., cid: _Optional[int] = ..., state: _Optional[_Union[PayoutState, str]] = ..., reason: _Optional[str] = ..., currency: _Optional[str] = ..., address: _Optional[str] = ..., amount: _Optional[str] = ..., remark: _Optional[str] = ..., memo: _Optional[str] = ..., callback_url: _Optional[str] = ..., cregis_status: _Optional[int] = ..., txid: _Optional[str] = ..., block_height: _Optional[int] = ..., block_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., create_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., update_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., revision: _Optional[int] = ..., attention: _Optional[_Iterable[str]] = ..., state_time: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ...) -> None: ...

class CreatePayoutRequest(_message.Message):
    __slots__ = ("pid", "currency", "address", "amount", "third_party_id", "callback_url", "remark", "memo", "validate_only")
    PID_FIELD_NUMBER: _ClassVar[int]
    CURRENCY_FIELD_NUMBER: _ClassVar[int]
    ADDRESS_FIELD_NUMBER: _ClassVar[int]
    AMOUNT_FIELD_NUMBER: _ClassVar[int]
    THIRD_PARTY_ID_FIELD_NUMBER: _ClassVar[int]
    CALLBACK_URL_FIELD_NUMBER: _ClassVar[int]
    REMARK_FIELD_NUMBER: _ClassVar[int]
    MEMO_FIELD_NUMBER: _ClassVar[int]
    VALIDATE_ONLY_FIELD_NUMBER: _ClassVar[int]
    pid: int
    currency: str
    address: str
    amount: str
    third_party_id: str
    callback_url: str
    remark: str
    memo: str
    validate_only: bool
    def __init__(self, pid: _Optional[int] = ..., currency: _Optional[str] = ..., address: _Optional[str] = ..., amount: _Optional[str] = ..., third_party_id: _Optional[str] = ..., callback_url: _Optional[str] = ..., remark: _Optional[str] = ..., memo: _Optional[str] = ..., validate_only: _Optional[bool] = ...) -> None: ...

class CreatePayoutResponse(_message.Message):
    __slots__ = ("cid", "payout")
    CID_FIELD_NUMBER: _ClassVar[int]
    PAYOUT_FIELD_NUMBER: _ClassVar[int]
    cid: int
    payout: Payout
    def __init__(self, cid: _Optional[int] = ..., payout: _Optional[_Union[Payout, _Mapping]] = ...) -> None: ...

class GetPayoutRequest(_message.Message):
    __slots__ = ("pid", "third_party_id", "cid")
    PID_FIELD_NUMBER: _ClassVar[int]
    THIRD_PARTY_ID_FIELD_NUMBER: _ClassVar[int]
    CID_FIELD_NUMBER: _ClassVar[int]
    pid: int
    third_party_id: str
    cid: int
    def __init__(self, pid: _Optional[int] = ..., third_party_id: _Optional[str] = ..., cid: _Optional[int] = ...) -> None: ...

class GetPayoutResponse(_message.Message):
    __slots__ = ("payout",)
    PAYOUT_FIELD_NUMBER: _ClassVar[int]
    payout: Payout
    def __init__(self, payout: _Optional[_Union[Payout, _Mapping]] = ...) -> None: ...

class ListPayoutsRequest(_message.Message):
    __slots__ = ("pid", "states", "attention_only", "min_age", "page_size", "page_token")
    PID_FIELD_NUMBER: _ClassVar[int]
    STATES_FIELD_NUMBER: _ClassVar[int]
    ATTENTION_ONLY_FIELD_NUMBER: _ClassVar[int]
    MIN_AGE_FIELD_NUMBER: _ClassVar[int]
    PAGE_SIZE_FIELD_NUMBER: _ClassVar[int]
    PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    pid: int
    states: _containers.RepeatedScalarFieldContainer[PayoutState]
    attention_only: bool
    min_age: _duration_pb2.Duration
    page_size: int
    page_token: str
    def __init__(self, pid: _Optional[int] = ..., states: _Optional[_Iterable[_Union[PayoutState, str]]] = ..., attention_only: _Optional[bool] = ..., min_age: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., page_size: _Optional[int] = ..., page_token: _Optional[str] = ...) -> None: ...

class ListPayoutsResponse(_message.Message):
    __slots__ = ("payouts", "next_page_token")
    PAYOUTS_FIELD_NUMBER: _ClassVar[int]
    NEXT_PAGE_TOKEN_FIELD_NUMBER: _ClassVar[int]
    payouts: _containers.RepeatedCompositeFieldContainer[Payout]
    next_page_token: str
    def __init__(self, payouts: _Optional[_Iterable[_Union[Payout, _Mapping]]] = ..., next_page_token: _Optional[str] = ...) -> None: ...

class WatchPayoutRequest(_message.Message):
    __slots__ = ("pid", "third_party_id", "cid", "after_revision")
    PID_FIELD_NUMBER: _ClassVar[int]
    THIRD_PARTY_ID_FIELD_NUMBER: _ClassVar[int]
    CID_FIELD_NUMBER: _ClassVar[int]
    AFTER_REVISION_FIELD_NUMBER: _ClassVar[int]
    pid: int
    third_party_id: str
    cid: int
    after_revision: int
    def __init__(self, pid: _Optional[int] = ..., third_party_id: _Optional[str] = ..., cid: _Optional[int] = ..., after_revision: _Optional[int] = ...) -> None: ...

class WatchPayoutResponse(_message.Message):
    __slots__ = ("payout",)
    PAYOUT_FIELD_NUMBER: _ClassVar[int]
    payout: Payout
    def __init__(self, payout: _Optional[_Union[Payout, _Mapping]] = ...) -> None: ...

class ResolvePayoutRequest(_message.Message):
    __slots__ = ("pid", "third_party_id", "cid", "void", "evidence")
    PID_FIELD_NUMBER: _ClassVar[int]
    THIRD_PARTY_ID_FIELD_NUMBER: _ClassVar[int]
    CID_FIELD_NUMBER: _ClassVar[int]
    VOID_FIELD_NUMBER: _ClassVar[int]
    EVIDENCE_FIELD_NUMBER: _ClassVar[int]
    pid: int
    third_party_id: str
    cid: int
    void: bool
    evidence: str
    def __init__(self, pid: _Optional[int] = ..., third_party_id: _Optional[str] = ..., cid: _Optional[int] = ..., void: _Optional[bool] = ..., evidence: _Optional[str] = ...) -> None: ...

class ResolvePayoutResponse(_message.Message):
    __slots__ = ("payout",)
    PAYOUT_FIELD_NUMBER: _ClassVar[int]
    payout: Payout
    def __init__(self, payout: _Optional[_Union[Payout, _Mapping]] = ...) -> None: ...

class SetIntakeRequest(_message.Message):
    __slots__ = ("pid", "paused", "note")
    PID_FIELD_NUMBER: _ClassVar[int]
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    NOTE_FIELD_NUMBER: _ClassVar[int]
    pid: int
    paused: bool
    note: str
    def __init__(self, pid: _Optional[int] = ..., paused: _Optional[bool] = ..., note: _Optional[str] = ...) -> None: ...

class SetIntakeResponse(_message.Message):
    __slots__ = ("paused",)
    PAUSED_FIELD_NUMBER: _ClassVar[int]
    paused: bool
    def __init__(self, paused: _Optional[bool] = ...) -> None: ...
