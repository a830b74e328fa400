//! Sets of flags: the orders that a connection was given, and special facts about its request.

/// The orders that a connection was given.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Orders(pub(super) u8);

impl Orders {
    /// Close if a limit is exceeded.
    pub(super) const CHECK_LIMITS: u8 = 1;
    /// Close if idle or slow: a new connection needs its place, or the budget its memory.
    pub(super) const GIVE_WAY: u8 = 2;
    /// Say with each response that the connection closes after it: at its greatest age, and from
    /// `Stage::Closed` on. While the worker drains, the API says so itself.
    pub(super) const ANNOUNCE_CLOSE: u8 = 4;
    /// Close as soon as no request is left.
    pub(super) const CLOSE_IDLE: u8 = 8;
    /// Close now.
    pub(super) const ABORT: u8 = 16;

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has_check_limits(self) -> bool {
        self.0 & Self::CHECK_LIMITS != 0
    }

    pub(super) fn has_give_way(self) -> bool {
        self.0 & Self::GIVE_WAY != 0
    }

    pub(super) fn has_announce_close(self) -> bool {
        self.0 & Self::ANNOUNCE_CLOSE != 0
    }

    pub(super) fn has_close_idle(self) -> bool {
        self.0 & Self::CLOSE_IDLE != 0
    }

    pub(super) fn has_abort(self) -> bool {
        self.0 & Self::ABORT != 0
    }
}

/// Special facts about the request that a connection is answering.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct RequestFlags(pub(super) u8);

impl RequestFlags {
    /// The body was not read to its end.
    pub(super) const BODY_UNREAD: u8 = 1;
    /// The body was followed by trailers.
    pub(super) const TRAILERS: u8 = 2;
    /// The body comes too slowly, and is answered with 408.
    pub(super) const BODY_TOO_SLOW: u8 = 4;
    /// The body comes slowly, and the connection is to give way.
    pub(super) const MUST_GIVE_WAY: u8 = 8;
    /// The client closed its side while the request was worked on.
    pub(super) const CLIENT_LEFT: u8 = 16;

    pub(super) fn has(self, flag: u8) -> bool {
        self.0 & flag != 0
    }
}
