//! How full Redis may be, of which the API and the reconciler think alike.

/// The share of `maxmemory` past which new bookings are refused, in percent: what is left must do for draining Redis.
pub const LIMIT_PERCENT: u64 = 80;

/// Whether new bookings are refused. A `maxmemory` of 0 is no limit.
pub fn is_short(used: u64, max: u64) -> bool {
    max > 0 && used.saturating_mul(100) > max.saturating_mul(LIMIT_PERCENT)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_short_past_four_fifths_of_a_limit() {
        assert!(!is_short(80, 100));
        assert!(is_short(81, 100));
        assert!(!is_short(81, 0));
    }
}
