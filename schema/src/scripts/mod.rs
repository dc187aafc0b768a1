//! The Lua scripts with their typed arguments and outcomes. Whoever has a connection runs them.
//!
//! Flags are Redis 7's (`#!lua flags=...`): a script without `allow-oom` is refused when Redis is full, so those
//! that drain it or give stock back carry it; otherwise a full Redis could never be drained.

use std::sync::LazyLock;

use sha1::{Digest, Sha1};

mod booking;
mod event;
mod lease;
mod look;
mod rate;
mod recovery;
mod repair;
mod restore;

pub use booking::{
    BATCH_MAX, Book, Cancel, Confirm, Decided, Decision, Expire, OutboxBounds, Outcome, Target,
    decision_call, due, expiry_member, parse_expiry_member, read_booking,
};
pub use event::{
    EventChange, EventOutcome, EventReply, EventSnapshot, amend, publish, read_event, read_events,
};
pub use lease::{LeaseOutcome, lease, trim, unlease};
pub use look::{Look, LookReply, Sight, SlotSight, look, replays};
pub use rate::{RATES_MAX, RateCheck, Standing, check_rates, parse_standings};
pub use recovery::{Fence, RecoveryReply, RecoveryStart, begin_recovery, certify, end_epoch, recovering};
pub use repair::{
    Restate, Restatement, RestatementReply, StockDifference, mend_stock, restate_event, restate_event_fenced,
    restate_fenced,
};
pub use restore::{
    allowances, note_lost, restore_bookings, restore_clear, restore_event, restore_shard, restore_unschedule,
};

/// A script's text, and its hash by which Redis knows it once loaded.
pub struct Script {
    /// The name of its file, for metrics and messages.
    pub name: &'static str,
    source: &'static str,
    sha1: LazyLock<String, Box<dyn FnOnce() -> String + Send + Sync>>,
}

impl Script {
    fn new(name: &'static str, source: &'static str) -> Self {
        #[cfg(feature = "mutants")]
        let source = crate::mutants::mutate(name, source);
        let hash = move || format!("{:x}", Sha1::digest(source));
        Self { name, source, sha1: LazyLock::new(Box::new(hash)) }
    }

    /// For `SCRIPT LOAD`.
    pub fn source(&self) -> &'static str {
        self.source
    }

    /// For `EVALSHA`.
    pub fn sha1(&self) -> &str {
        &self.sha1
    }
}

macro_rules! script {
    ($constant:ident, $name:literal, $flags:literal, [$($part:literal),*]) => {
        #[doc = concat!("`schema/lua/", $name, ".lua`")]
        pub static $constant: LazyLock<Script> = LazyLock::new(|| {
            Script::new($name, concat!("#!lua", $flags, "\n", $(include_str!(concat!("../../lua/", $part, ".lua")), "\n",)*))
        });
    };
}

script!(BOOK, "book", "", ["identity", "prelude", "event", "inventory", "book"]);
script!(BOOK_LIMITED, "book", "", ["identity", "prelude", "event", "inventory", "rates", "admit", "book"]);
script!(CHECK_RATES, "check_rates", "", ["rates", "check_rates"]);
script!(CONFIRM, "confirm", "", ["identity", "prelude", "event", "inventory", "confirm"]);
script!(
    CANCEL,
    "cancel",
    " flags=allow-oom",
    ["identity", "prelude", "event", "inventory", "release", "cancel"]
);
script!(DUE, "due", " flags=allow-oom", ["identity", "due"]);
script!(
    EXPIRE,
    "expire",
    " flags=allow-oom",
    ["identity", "prelude", "event", "inventory", "release", "expire"]
);
script!(PUBLISH, "publish", "", ["identity", "prelude", "whole_event", "publish"]);
script!(AMEND, "amend", " flags=allow-oom", ["identity", "prelude", "whole_event", "amend"]);
script!(RESTATE, "restate", "", ["identity", "prelude", "event", "inventory", "restate"]);
script!(
    RESTATE_FENCED,
    "restate",
    " flags=allow-oom",
    ["identity", "prelude", "event", "inventory", "fenced", "restate"]
);
script!(
    RESTATE_EVENT,
    "restate_event",
    "",
    ["identity", "prelude", "whole_event", "restating", "restate_event"]
);
script!(
    RESTATE_EVENT_FENCED,
    "restate_event",
    " flags=allow-oom",
    ["identity", "prelude", "whole_event", "restating", "fenced", "restate_event"]
);
script!(MEND_STOCK, "mend_stock", "", ["identity", "prelude", "whole_event", "restating", "mend_stock"]);
// The two looks write nothing, and yet have no flag: a Redis that may not take writes, an old master without replicas for
// instance, refuses them as it refuses `book`. They only read, and so need no prelude.
script!(LOOK, "look", "", ["identity", "event", "look"]);
script!(REPLAYS, "replays", "", ["identity", "replays"]);
script!(READ_EVENT, "read_event", " flags=no-writes", ["identity", "read_event"]);
script!(READ_EVENTS, "read_events", " flags=no-writes", ["read_events"]);
script!(READ_BOOKING, "read_booking", " flags=no-writes", ["identity", "read_booking"]);
script!(LEASE, "lease", " flags=allow-oom", ["lease"]);
script!(UNLEASE, "unlease", " flags=allow-oom", ["unlease"]);
script!(TRIM, "trim", " flags=allow-oom", ["identity", "trim"]);
script!(BEGIN_RECOVERY, "begin_recovery", " flags=allow-oom", ["identity", "begin_recovery"]);
script!(RECOVERING, "recovering", " flags=no-writes", ["identity", "recovering"]);
script!(END_EPOCH, "end_epoch", " flags=allow-oom", ["end_epoch"]);
script!(NOTE_LOST, "note_lost", " flags=allow-oom", ["identity", "restoring", "note_lost"]);
script!(RESTORE_CLEAR, "restore_clear", " flags=allow-oom", ["identity", "restoring", "restore_clear"]);
script!(RESTORE_EVENT, "restore_event", " flags=allow-oom", ["identity", "restoring", "restore_event"]);
script!(
    RESTORE_BOOKINGS,
    "restore_bookings",
    " flags=allow-oom",
    ["identity", "restoring", "restore_bookings"]
);
script!(
    RESTORE_UNSCHEDULE,
    "restore_unschedule",
    " flags=allow-oom",
    ["identity", "restoring", "restore_unschedule"]
);
script!(RESTORE_SHARD, "restore_shard", " flags=allow-oom", ["identity", "restoring", "restore_shard"]);
script!(CERTIFY, "certify", " flags=allow-oom", ["identity", "certify"]);

/// The text of a script that does nothing, and may write by its flags: where a PING or a read is answered, a replica refuses it, and
/// so does a primary without its replicas.
pub const BEAT: &str = "#!lua flags=allow-oom\nreturn 1";

/// A call that is ready to be sent.
pub struct Call {
    /// Which script.
    pub script: &'static Script,
    /// Every key it touches.
    pub keys: Vec<String>,
    /// Its arguments, some of them binary.
    pub args: Vec<Vec<u8>>,
}

/// The codes of the errors that the scripts answer with, as Redis puts them in front of the message.
pub mod error_code {
    /// The shard has no certificate for this Redis.
    pub const UNVERIFIED: &str = "UNVERIFIED";
    /// A write failed; the shard was fenced.
    pub const WRITE_FAILED: &str = "WRITEFAILED";
    /// The lease is another's.
    pub const LEASE_LOST: &str = "LEASELOST";
    /// The shard was recovered since the lease was taken.
    pub const EPOCH_CHANGED: &str = "EPOCHCHANGED";
    /// A later recovery took the shard over.
    pub const STALE_EPOCH: &str = "STALEEPOCH";
    /// The shard's sequence is not the one that was checked.
    pub const MOVED: &str = "MOVED";
    /// Redis restarted or failed over during recovery.
    pub const REDIS_CHANGED: &str = "REDISCHANGED";
}

fn decimal(number: impl ToString) -> Vec<u8> {
    number.to_string().into_bytes()
}
