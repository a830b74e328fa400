//! What a connection has been told, and what is special about its request: sets of flags.

/// A set of orders.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Orders(pub(super) u8);

impl Orders {
    /// Look whether you are over a limit, and close if so.
    pub(super) const CHECK: u8 = 1;
    /// Close if you are idle or slow: somebody else needs the room.
    pub(super) const MAKE_ROOM: u8 = 2;
    /// Say with each response that the connection closes after it.
    pub(super) const DRAIN: u8 = 4;
    /// Close as soon as no request is left.
    pub(super) const LEAVE: u8 = 8;
    /// Close now.
    pub(super) const ABORT: u8 = 16;

    pub(super) fn is_empty(self) -> bool {
        self.0 == 0
    }

    pub(super) fn has_check(self) -> bool {
        self.0 & Self::CHECK != 0
    }

    pub(super) fn has_make_room(self) -> bool {
        self.0 & Self::MAKE_ROOM != 0
    }

    pub(super) fn has_drain(self) -> bool {
        self.0 & Self::DRAIN != 0
    }

    pub(super) fn has_leave(self) -> bool {
        self.0 & Self::LEAVE != 0
    }

    pub(super) fn has_abort(self) -> bool {
        self.0 & Self::ABORT != 0
    }
}

/// What is special about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Marks(pub(super) u8);

impl Marks {
    /// Its body was not read to its end.
    pub(super) const UNREAD: u8 = 1;
    /// Its body was followed by trailers.
    pub(super) const TRAILERS: u8 = 2;
    /// Its body comes too slowly, and is answered with 408.
    pub(super) const TOO_SLOW: u8 = 4;
    /// Its body comes slowly, and somebody else needs the room.
    pub(super) const IN_THE_WAY: u8 = 8;
    /// Its client has closed its side while the request was worked on.
    pub(super) const GONE: u8 = 16;

    pub(super) fn has(self, mark: u8) -> bool {
        self.0 & mark != 0
    }
}
